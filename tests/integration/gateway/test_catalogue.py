"""Every command of the catalogue leaves its record, and a command without it is found.

Each is run by `catalogue.py`. The second test takes the records out, one command as all: had any
command lost its record, the check of the first test would name it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from gateway.control.audit import COMMANDS, REASONED
from tests.integration.gateway.catalogue import LIVED, RUNS
from tests.integration.gateway.conftest import Api
from tests.integration.gateway.lived import opened
from tests.support.servers import Cluster, Database, fresh_database

# Who comes has no role before they are let in.
AT_THE_DOOR = {"sign-in.open", "sign-in.refuse"}
# As a command that forgot its record would leave the table: nothing of it arrives.
TAKEN_OUT = """
CREATE FUNCTION gateway.taken_out() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER taken_out BEFORE INSERT ON gateway.audit
    FOR EACH ROW EXECUTE FUNCTION gateway.taken_out();
"""


async def ran(api: Api) -> dict[str, str]:
    """Run each command of the API: command -> what it was run on."""
    done = {run: await run(api) for run in set(RUNS.values())}
    return {name: done[run] for name, run in RUNS.items()}


async def unrecorded(conn: asyncpg.Connection, subjects: dict[str, str]) -> set[str]:
    """The commands that left no whole record: who, as what, on what, when, why, by what request."""
    without = set()
    for name, subject in subjects.items():
        rows = await conn.fetch(
            "SELECT * FROM gateway.audit WHERE command = $1 AND subject = $2", name, subject
        )
        whole = [row for row in rows if row["actor"] and row["correlation"]]
        whole = [row for row in whole if row["role"] or name in AT_THE_DOOR]
        if not whole or len(whole) < len(rows):
            without.add(name)
        if name in REASONED and not all(row["reason"] for row in rows):
            without.add(name)
    return without


@pytest_asyncio.fixture
async def spare(migrated_cluster: Cluster) -> AsyncIterator[Database]:
    """A second database, for what is run on the flows themselves."""
    async with fresh_database(migrated_cluster) as fresh:
        yield fresh


async def lived(database: Database) -> dict[str, str]:
    """Run each command of the flows."""
    async with opened(database) as house:
        return {name: await run(house) for name, run in LIVED.items()}


def test_every_command_has_a_run() -> None:
    """None of the catalogue is left out, and none is run that is not in it."""
    assert RUNS.keys() | LIVED.keys() == COMMANDS.keys()
    assert COMMANDS.keys() >= REASONED


@pytest.mark.parametrize("taken_out", [False, True], ids=["as it is", "taken out"])
async def test_each_command_leaves_its_record(api: Api, spare: Database, taken_out: bool) -> None:
    """None is without; with the records taken out every single one is named."""
    other = await spare.connect(owner=True)
    if taken_out:
        await api.owner.execute(TAKEN_OUT)
        await other.execute(TAKEN_OUT)

    through_api, on_flows = await ran(api), await lived(spare)

    without = await unrecorded(api.owner, through_api) | await unrecorded(other, on_flows)
    assert without == ({*through_api, *on_flows} if taken_out else set())
