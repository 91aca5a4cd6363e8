"""The rulebook in force: stored by its hash, agreed on by every replica, checked by each unit."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import msgspec
import pytest
import pytest_asyncio

from config.load import canonical, from_source, load
from config.rulebook import Rulebook
from gateway.control import rulebook as store
from gateway.control.audit import Command
from gateway.control.keys import operator
from ledger.connections import connect_writer
from ledger.ids import Ids
from ledger.journal import Numbers
from ledger.lane import Lane
from ledger.units import Change, Done, Left, Unit, Why
from tests.support.servers import Database

DEMO = Path(__file__).parents[2] / "config" / "demo"
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
IDS = Ids(lambda: time.time_ns() // 1_000_000, os.urandom)


def command(reason: str = "start", at: datetime = AT) -> Command:
    """What an operator at the machine asks."""
    return Command(operator("ann"), reason, "CR00000000000000000", at)


def other(book: Rulebook, name: str = "Other Ltd") -> Rulebook:
    """The same broker under another name: another rulebook."""
    document = msgspec.json.decode(book.source)
    document["entity"][0]["name"] = name
    return from_source(canonical(document))


@pytest.fixture(scope="module")
def book() -> Rulebook:
    """The demo broker."""
    found, _ = load(DEMO)
    assert found is not None
    return found


@pytest_asyncio.fixture
async def conn(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the daemon's role."""
    opened = await database.connect()
    yield opened
    await opened.close()


async def events(conn: asyncpg.Connection) -> list[tuple[str, str]]:
    """Which rulebook followed which."""
    rows = await conn.fetch("SELECT * FROM gateway.rulebook_event ORDER BY version")
    return [(row["from_hash"], row["to_hash"]) for row in rows]


async def test_a_new_house_takes_the_first_rulebook(
    conn: asyncpg.Connection, book: Rulebook
) -> None:
    """It is stored whole, in force from the command's time, with one event and one audit row."""
    assert await store.in_force(conn) is None
    taken = await store.agree(conn, book, command(), IDS, adopt=False)
    assert taken == store.InForce(book.hash, AT, 1) == await store.in_force(conn)
    assert (await store.stored(conn, book.hash)).source == book.source
    assert await events(conn) == [("", book.hash)]
    audit = await conn.fetch("SELECT command, subject, actor, reason FROM gateway.audit")
    assert [tuple(row) for row in audit] == [("rulebook.adopt", book.hash, "ann", "start")]


async def test_the_same_rulebook_again_changes_nothing(
    conn: asyncpg.Connection, book: Rulebook
) -> None:
    """A restart is not an adoption, whether or not it was told to adopt."""
    await store.agree(conn, book, command(), IDS, adopt=False)
    for adopt in (False, True):
        again = await store.agree(conn, book, command(at=AT + timedelta(days=1)), IDS, adopt=adopt)
        assert again == store.InForce(book.hash, AT, 1)
    assert len(await events(conn)) == 1


async def test_another_rulebook_is_refused(conn: asyncpg.Connection, book: Rulebook) -> None:
    """The refusal names both hashes, and nothing of the other is stored."""
    await store.agree(conn, book, command(), IDS, adopt=False)
    stranger = other(book)
    with pytest.raises(store.RulebookDiffers, match="--adopt") as refused:
        await store.agree(conn, stranger, command(), IDS, adopt=False)
    assert (refused.value.in_force, refused.value.ours) == (book.hash, stranger.hash)
    assert book.hash in str(refused.value)
    assert stranger.hash in str(refused.value)
    with pytest.raises(store.RulebookUnknown):
        await store.stored(conn, stranger.hash)


async def test_adopting_brings_another_into_force(conn: asyncpg.Connection, book: Rulebook) -> None:
    """And back again: every change has its event, every rulebook is kept once."""
    later = AT + timedelta(hours=1)
    await store.agree(conn, book, command(), IDS, adopt=False)
    stranger = other(book)
    moved = await store.agree(conn, stranger, command("new PSP", later), IDS, adopt=True)
    assert moved == store.InForce(stranger.hash, later, 2)
    assert await store.adopt(conn, book, command("back", later), IDS) == store.InForce(
        book.hash, later, 3
    )
    assert await events(conn) == [
        ("", book.hash),
        (book.hash, stranger.hash),
        (stranger.hash, book.hash),
    ]
    assert await conn.fetchval("SELECT count(*) FROM gateway.rulebook") == 2
    assert (await store.stored(conn, stranger.hash)).entities[0].name == "Other Ltd"


async def test_a_plan_in_another_currency_is_refused_with_its_place(
    conn: asyncpg.Connection, book: Rulebook, tmp_path: Path
) -> None:
    """Told to adopt it, too: the one in force stays, with its plans."""
    await store.agree(conn, book, command(), IDS, adopt=False)
    folder = tmp_path / "rules"
    shutil.copytree(DEMO, folder)
    plans = folder / "plans.toml"
    plans.write_text(plans.read_text().replace('currency = "EUR"', 'currency = "USD"', 1))
    changed, findings = store.check(folder)
    assert changed is not None, findings  # nothing is wrong with it by itself
    published = await conn.fetchval("SELECT count(*) FROM ledger.plan_version")
    with pytest.raises(store.RulebookRefused) as refused:
        await store.adopt(conn, changed, command(), IDS)
    (finding,) = refused.value.findings
    number = [plan.id for plan in changed.plans].index("eu-partner")
    assert (finding.code, finding.key) == ("plan-currency-changed", f"plan[{number}].currency")
    assert "`eu-partner` was published in EUR" in finding.message
    line = plans.read_text().splitlines()[finding.where.line - 1]
    assert (Path(finding.where.file).name, line) == ("plans.toml", 'currency = "USD"')
    assert await store.in_force(conn) == store.InForce(book.hash, AT, 1)
    assert await conn.fetchval("SELECT count(*) FROM ledger.plan_version") == published


async def test_of_many_first_starts_one_wins(database: Database, book: Rulebook) -> None:
    """Replicas that start at once on an empty house agree; those with another rulebook refuse."""
    books = [book, other(book)] * 4
    connections = [await database.connect() for _ in books]
    results = await asyncio.gather(
        *(
            store.agree(conn, each, command(), IDS, adopt=False)
            for conn, each in zip(connections, books, strict=True)
        ),
        return_exceptions=True,
    )
    taken = {it.hash for it in results if isinstance(it, store.InForce)}
    refused = [it for it in results if isinstance(it, store.RulebookDiffers)]
    assert len(taken) == 1
    assert len(refused) == 4
    assert {it.in_force for it in refused} == taken
    assert len(await events(connections[0])) == 1
    for conn in connections:
        await conn.close()


async def test_a_unit_of_another_rulebook_is_left_out(
    database: Database, conn: asyncpg.Connection, book: Rulebook
) -> None:
    """The lane writes what was decided with the rulebook in force, and nothing else."""
    await store.agree(conn, book, command(), IDS, adopt=False)
    lane = Lane("test", lambda: connect_writer(database.daemon_dsn), Numbers(), time.monotonic)
    running = asyncio.create_task(lane.run())
    try:
        ours = Unit((Change(store.RULEBOOK, (book.hash,)),))
        assert isinstance(await lane.submit(ours), Done)
        await store.adopt(conn, other(book), command(), IDS)
        left = await lane.submit(ours)
        assert isinstance(left, Left)
        assert (left.why, left.kind) == (Why.CHECK, "gateway.rulebook.check")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE gateway.rulebook SET actor = 'x'",
        "DELETE FROM gateway.rulebook_event",
        "DELETE FROM gateway.rulebook_in_force",
        "INSERT INTO gateway.rulebook VALUES (repeat('0', 64), 'x', 'a', now())",
        "INSERT INTO gateway.rulebook_in_force VALUES (false, repeat('0', 64), now(), 1)",
    ],
)
async def test_what_was_in_force_cannot_be_rewritten(
    conn: asyncpg.Connection, book: Rulebook, statement: str
) -> None:
    """As the daemon's role: no stored rulebook changes, none is stored under a hash not its own."""
    await store.agree(conn, book, command(), IDS, adopt=False)
    with pytest.raises(asyncpg.PostgresError):
        await conn.execute(statement)
