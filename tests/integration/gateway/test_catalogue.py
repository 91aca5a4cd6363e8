"""Every command of the catalogue leaves its record, and a command without it is found.

Each is run by `catalogue.py`. The second test takes the records out, one command as all: had any
command lost its record, the check of the first test would name it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import asyncpg
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from gateway.control.audit import COMMANDS, REASONED
from tests.integration.gateway.catalogue import DRAFTED, LIVED, RUNS, Run
from tests.integration.gateway.conftest import Api, serving
from tests.integration.gateway.lived import opened
from tests.integration.gateway.test_rulebook_api import BOOK
from tests.support.servers import Cluster, Database, fresh_database

# Who comes has no role before they are let in.
AT_THE_DOOR = {"sign-in.open", "sign-in.refuse"}
# As a command that forgot its record would leave the table: nothing of it arrives.
TAKEN_OUT = """
CREATE FUNCTION gateway.taken_out() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER taken_out BEFORE INSERT ON gateway.audit
    FOR EACH ROW EXECUTE FUNCTION gateway.taken_out();
"""


async def ran(api: Api, runs: Mapping[str, Run]) -> dict[str, str]:
    """Run each of these commands: command -> what it was run on."""
    done = {run: await run(api) for run in dict.fromkeys(runs.values())}
    return {name: done[run] for name, run in runs.items()}


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


@pytest_asyncio.fixture
async def liked(migrated_cluster: Cluster, redis: Redis) -> AsyncIterator[Api]:
    """A second API, whose rulebook can be changed."""
    async with (
        fresh_database(migrated_cluster) as fresh,
        asyncpg.create_pool(fresh.daemon_dsn, min_size=1, max_size=4) as pool,
        serving(fresh, pool, redis, book=BOOK) as serves,
    ):
        yield serves


async def lived(database: Database) -> dict[str, str]:
    """Run each command of the flows."""
    async with opened(database) as house:
        return {name: await run(house) for name, run in LIVED.items()}


def test_every_command_has_a_run() -> None:
    """None of the catalogue is left out, and none is run that is not in it."""
    assert RUNS.keys() | DRAFTED.keys() | LIVED.keys() == COMMANDS.keys()
    assert COMMANDS.keys() >= REASONED


@pytest.mark.parametrize("taken_out", [False, True], ids=["as it is", "taken out"])
async def test_each_command_leaves_its_record(
    api: Api, liked: Api, spare: Database, taken_out: bool
) -> None:
    """None is without; with the records taken out every single one is named."""
    other = await spare.connect(owner=True)
    owners = (api.owner, liked.owner, other)
    if taken_out:
        for owner in owners:
            await owner.execute(TAKEN_OUT)

    done = (await ran(api, RUNS), await ran(liked, DRAFTED), await lived(spare))

    found = [await unrecorded(*each) for each in zip(owners, done, strict=True)]
    assert set().union(*found) == (set().union(*done) if taken_out else set())
