"""Inputs of a book: one version that plans and commands move, and that accrual holds still."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from ledger.rebates import inputs
from ledger.rebates.plans import Plan
from ledger.rebates.rates import rate
from ledger.units import Done, Left, Unit, Why
from tests.integration.ledger.conftest import WAIT_S, House

BOOKS = (2, 1)
# Not pg_stat_activity: that stays as it was first read for the whole of a transaction.
WAITING = """
SELECT EXISTS (
    SELECT FROM pg_locks w JOIN pg_locks h USING (pid)
     WHERE NOT w.granted
       AND h.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
"""


def plan(per_lot: str = "5", id: str = "basic", currency: str = "USD") -> Plan:
    """A plan of one rate."""
    return Plan(id, currency, "differential", (rate(per_lot, 2, symbol="EURUSD"),))


@pytest_asyncio.fixture
async def conn(pool: asyncpg.Pool) -> AsyncIterator[asyncpg.Connection]:
    """A connection, with the inputs of two books open."""
    async with pool.acquire() as opened:
        await publish(opened)
        yield opened


async def publish(conn: asyncpg.Connection, *plans: Plan) -> int:
    """Publish in a transaction of its own."""
    async with conn.transaction():
        return await inputs.publish(conn, BOOKS, plans)


async def versions(conn: asyncpg.Connection) -> list[int]:
    """Of the two books."""
    return [await inputs.version(conn, book) for book in sorted(BOOKS)]


async def somebody_waits(conn: asyncpg.Connection) -> None:
    """Come back once a statement of this database waits for a lock; fails when none ever does."""
    async with asyncio.timeout(WAIT_S):
        while not await conn.fetchval(WAITING):
            await asyncio.sleep(0.01)


async def test_a_book_begins_at_nought(conn: asyncpg.Connection) -> None:
    """Opened once; a book nobody opened is at nought too, and cannot be held."""
    assert await versions(conn) == [0, 0]
    assert await inputs.version(conn, 3) == 0
    async with conn.transaction():
        assert await inputs.share(conn, 1) == 0
        with pytest.raises(AssertionError):
            await inputs.share(conn, 3)


async def test_a_plan_is_a_version_each_time_its_content_changes(conn: asyncpg.Connection) -> None:
    """And back to an earlier content is a version again; the same content is nothing."""
    assert await publish(conn, plan("5"), plan("1", "other")) == 2
    assert await publish(conn, plan("5"), plan("1", "other")) == 0
    assert await versions(conn) == [1, 1]  # two plans at one moment are one move
    assert await publish(conn, plan("6")) == 1
    assert await publish(conn, plan("5"), plan("1", "other")) == 1
    assert await versions(conn) == [3, 3]
    found = await inputs.plan_versions(conn)
    assert [each.plan for each in found["basic"]] == [plan("5"), plan("6"), plan("5")]
    assert [each.plan for each in found["other"]] == [plan("1", "other")]
    since = [each.since for each in found["basic"]]
    assert since == sorted(set(since))
    assert await inputs.plan_version(conn, found["basic"][1].id) == found["basic"][1]
    assert await inputs.plan_version(conn, 0) is None


async def test_a_plan_never_changes_its_currency(conn: asyncpg.Connection) -> None:
    """Contracts on it would be paid the new numbers in the old currency: then nothing is published,
    not even beside it, and no input moves; its rates may change as before.
    """
    await publish(conn, plan("5"), plan("1", "other"))
    euro = plan("5", currency="EUR")
    with pytest.raises(inputs.CurrencyChanged, match="basic") as refused:
        await publish(conn, euro, plan("2", "other"), plan("3", "new", "EUR"))
    assert refused.value.was == {"basic": "USD"}
    await publish(conn, plan("1", "other"))  # without it, as when it was taken out of the rulebook
    with pytest.raises(inputs.CurrencyChanged):
        await publish(conn, euro)
    found = await inputs.plan_versions(conn)
    assert {id: len(versions) for id, versions in found.items()} == {"basic": 1, "other": 1}
    assert await versions(conn) == [1, 1]
    assert await publish(conn, plan("6")) == 1


async def test_of_two_currencies_published_at_once_one_is_refused(
    conn: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    """The second looks again when it has the lock, and finds the first one's."""
    async with pool.acquire() as other:
        async with conn.transaction():
            await inputs.publish(conn, BOOKS, [plan()])
            second = asyncio.create_task(publish(other, plan(currency="EUR")))
            await somebody_waits(conn)
        with pytest.raises(inputs.CurrencyChanged):
            await second
    assert [each.plan.currency for each in (await inputs.plan_versions(conn))["basic"]] == ["USD"]


async def test_a_plan_is_in_force_from_after_the_accruals_that_did_not_know_it(
    conn: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    """Publishing waits for an accrual that holds the inputs, and dates the plan after it."""
    async with pool.acquire() as accrual:
        async with accrual.transaction():
            await inputs.share(accrual, 1)
            publishing = asyncio.create_task(publish(conn, plan()))
            await somebody_waits(accrual)
            before = await accrual.fetchval("SELECT clock_timestamp()")
        await publishing
        (published,) = (await inputs.plan_versions(accrual))["basic"]
    assert published.since > before


async def test_of_two_who_publish_one_content_one_does(
    conn: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    """The second finds it in force."""
    async with pool.acquire() as other:
        async with conn.transaction():
            assert await inputs.publish(conn, BOOKS, [plan()]) == 1
            second = asyncio.create_task(publish(other, plan()))
            await somebody_waits(conn)
        assert await second == 0
    assert await versions(conn) == [1, 1]


async def test_a_unit_moves_the_inputs_it_has_seen(conn: asyncpg.Connection, house: House) -> None:
    """From another version it is left out; the answer tells the version of now."""
    async with house.lane() as lane:
        assert isinstance(await lane.submit(Unit((inputs.moved(1, 0),))), Done)
        left = await lane.submit(Unit((inputs.moved(1, 0),)))
    assert isinstance(left, Left)
    assert (left.why, left.found) == (Why.STALE, {"version": 1})
    assert await versions(conn) == [1, 0]


async def test_nobody_moves_the_inputs_that_an_accrual_holds(
    conn: asyncpg.Connection, house: House
) -> None:
    """Whoever would move them waits for the end of its transaction."""
    async with house.lane() as lane:
        async with conn.transaction():
            assert await inputs.share(conn, 1) == 0
            moving = lane.submit(Unit((inputs.moved(1, 0),)))
            await somebody_waits(conn)
            assert await inputs.version(conn, 1) == 0
        assert isinstance(await moving, Done)
    assert await versions(conn) == [1, 0]
