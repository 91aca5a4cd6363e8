"""The server, the connection or the process fails in the middle: each unit exactly once."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from ledger import queries as q
from ledger.connections import connect_writer
from ledger.journal import Numbers
from ledger.lane import Lane, LaneClosed, LaneFailed, LaneLimits, LaneLost
from ledger.units import Change, Done, Unit
from tests.integration.ledger.conftest import (
    TAKE,
    THING,
    WAIT_S,
    House,
    Link,
    answers,
    deposit,
    deposited,
    note,
)

STATEMENTS_MAX = 40  # more than a batch has: the last cuts strike the next batch or nothing


def cut_once(house: House, place: int, when: str) -> Callable[[], Awaitable[Any]]:
    """Connections of which the statement number `place`, counted over all, dies once."""
    number = itertools.count()

    async def connect() -> Link:
        return Link(await house.connect(), lambda _: when if next(number) == place else "")

    return connect


def rich(n: int) -> Unit:
    """A unit with every step: a claim, a move, an insert and an entry."""
    changes = (Change(TAKE, (f"K{n}", "s")), Change(THING, (f"T{n}", 1, "m")), note(f"N{n}"))
    return Unit(changes, (deposit(f"PY{n}", f"CL{n}"),))


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_cut_at_any_statement_writes_each_unit_exactly_once(
    house: House, when: str
) -> None:
    """Wherever the connection dies, before a statement or after it was carried out but unanswered,
    every unit is answered with Done and stands once.
    """
    await house.reader.execute("INSERT INTO public.thing SELECT 'T' || generate_series(0, 999)")
    written = 0
    for place in range(STATEMENTS_MAX):
        async with house.lane(cut_once(house, place, when)) as lane:
            units = [rich(written + n) for n in range(3)]
            got = await answers([lane.submit(unit) for unit in units])
        assert [type(answer) for answer in got] == [Done] * 3, place
        written += 3
    for table in ("public.note", "public.taken", "ledger.entry"):
        assert await house.count(table) == written
    assert await house.reader.fetchval("SELECT count(*) FROM public.thing WHERE version = 2") == (
        written
    )
    assert await house.wrong() == []


async def test_a_commit_whose_answer_was_lost_is_found_done(house: House) -> None:
    """COMMIT was carried out and its answer lost: the lane asks its row and acknowledges."""
    commits = itertools.count()

    def plan(sql: str) -> str:
        return "after" if sql == "COMMIT" and next(commits) % 2 == 0 else ""

    async def connect() -> Link:
        return Link(await house.connect(), plan)

    async with house.lane(connect) as lane:
        for n in range(10):
            assert isinstance(await lane.submit(deposited(f"PY{n}")), Done)
    assert next(commits) >= 10
    assert await house.count("ledger.entry") == 10
    assert await house.wrong() == []


async def test_a_lost_commit_is_not_believed_because_of_an_older_lane(house: House) -> None:
    """A lane whose name was used before takes up its number: an old row vouches for nothing."""
    name = "lane-reused"
    await house.reader.execute("INSERT INTO ledger.lane (id, batch) VALUES ($1, 500)", name)
    commits = itertools.count()

    async def connect() -> Link:
        return Link(
            await house.connect(),
            lambda sql: "before" if sql == "COMMIT" and next(commits) == 0 else "",
        )

    lane = Lane(
        name, connect, Numbers(), asyncio.get_running_loop().time, LaneLimits(redial_s=0.01)
    )
    running = asyncio.create_task(lane.run())
    assert isinstance((await answers([lane.submit(deposited("PY1"))]))[0], Done)
    lane.close()
    await asyncio.wait_for(running, WAIT_S)
    assert await house.count("ledger.entry") == 1


async def test_two_lanes_of_one_name_are_found_out(house: House) -> None:
    """Two running lanes under one name would vouch for each other: the second to commit stops."""
    lanes = [
        Lane("twin", house.connect, Numbers(), asyncio.get_running_loop().time) for _ in range(2)
    ]
    running = [asyncio.create_task(lane.run()) for lane in lanes]
    first = await answers([lanes[0].submit(deposited("PY1"))])
    second = await answers([lanes[1].submit(deposited("PY2"))])
    # Whoever opened before the other's commit finds its number taken.
    third = await answers([lanes[0].submit(deposited("PY3"))])
    outcomes = [type(answer) for answer in (*first, *second, *third)]
    assert LaneLost in outcomes or LaneClosed in outcomes
    for lane in lanes:
        lane.close()
    ended = await answers(running)
    assert [error for error in ended if isinstance(error, RuntimeError)]
    assert await house.count("ledger.entry") == outcomes.count(Done)


async def test_a_lane_tidied_away_while_idle_opens_its_row_again(house: House) -> None:
    """The row of a lane that wrote nothing for long may be gone; its next batch is written."""
    async with house.lane() as lane:
        await lane.submit(deposited("PY1"))
        await house.reader.execute("DELETE FROM ledger.lane")
        got = await answers([lane.submit(deposited("PY2"))])
    assert isinstance(got[0], Done)


async def test_killed_backends_lose_nothing(house: House) -> None:
    """The server ends the lane's connection again and again under load: each unit exactly once."""
    owner = await house.database.connect(owner=True)
    stop = asyncio.Event()
    done = 0

    async def kill() -> int:
        killed = 0
        while not stop.is_set():
            before = done
            killed += await owner.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = 'brokerd writer'"
            )
            # A busy machine may need longer for one batch than any pause: each kill waits for one.
            while done == before and not stop.is_set():
                await asyncio.sleep(0.01)
        return killed

    killing = asyncio.create_task(kill())

    async def caller(lane: Lane, n: int) -> list[Any]:
        nonlocal done
        got = []
        for i in range(20):
            got.append(await lane.submit(deposited(f"PY{n}-{i}", f"CL{n}")))
            done += 1
        return got

    async with house.lane() as one, house.lane() as two:
        got = await answers([caller(lane, n) for n, lane in enumerate([one, two] * 10)])
        stop.set()
        assert await killing > 0
    assert all(isinstance(answer, Done) for each in got for answer in each), got
    assert await house.count("ledger.entry") == await house.count("public.note") == 400
    assert await house.balance("psp_clearing", "acme") == 40_000
    assert await house.wrong() == []


async def test_a_cancelled_lane_leaves_nothing_half(house: House) -> None:
    """Cancelled at any moment, the lane writes a batch or not; its callers hear that it ended."""
    for n in range(25):
        lane = Lane(f"lane-c{n}", house.connect, Numbers(), asyncio.get_running_loop().time)
        running = asyncio.create_task(lane.run())
        waiting = [lane.submit(deposited(f"PY{n}-{i}")) for i in range(5)]
        await asyncio.sleep(0.002 * n)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, WAIT_S)
        got = await answers(waiting)
        assert {type(answer) for answer in got} <= {Done, LaneLost, LaneClosed}
        with pytest.raises(LaneClosed):
            lane.submit(deposited("late"))
        booked = await settled(house, f"PY{n}-%")
        done = sum(isinstance(answer, Done) for answer in got)
        assert booked in ({done, 5} if LaneLost in map(type, got) else {done})
    assert await house.count("ledger.entry") == await house.count("public.note")
    assert await house.wrong() == []


async def settled(house: House, keys: str) -> int:
    """Entries under these keys once no writer's transaction is open any more."""
    async with asyncio.timeout(WAIT_S):
        while await house.reader.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND backend_xid IS NOT NULL AND pid <> pg_backend_pid()"
        ):
            await asyncio.sleep(0.01)
    booked: int = await house.reader.fetchval(
        "SELECT count(*) FROM ledger.entry WHERE key LIKE $1", keys
    )
    return booked


async def test_a_lane_waits_for_a_server_that_is_not_there(house: House) -> None:
    """A lane that cannot connect keeps what was handed in and writes it when the server is back."""
    refused = iter([ConnectionRefusedError(), asyncpg.CannotConnectNowError(""), TimeoutError()])

    async def connect() -> asyncpg.Connection:
        for error in refused:
            raise error
        return await house.connect()

    async with house.lane(connect) as lane:
        assert isinstance((await answers([lane.submit(deposited("PY1"))]))[0], Done)


async def test_a_transaction_over_its_limit_is_not_committed(house: House) -> None:
    """What took too long is rolled back and halved; a unit too slow alone fails and says so."""
    ticks = itertools.count(step=10)
    lane = Lane(
        "slow", house.connect, Numbers(), lambda: float(next(ticks)), LaneLimits(tries_max=2)
    )
    running = asyncio.create_task(lane.run())
    got = await answers([lane.submit(deposited(f"PY{n}")) for n in range(3)])
    lane.close()
    await asyncio.wait_for(running, WAIT_S)
    assert [type(answer) for answer in got] == [LaneFailed] * 3
    assert {answer.sqlstate for answer in got} == {"57014"}
    assert await house.count("ledger.entry") == 0


async def test_a_batch_that_waits_too_long_for_a_lock_spares_its_neighbours(house: House) -> None:
    """A row held by another for longer than the limit delays its own unit, not the whole batch."""
    await house.reader.execute("INSERT INTO public.thing VALUES ('A', 1)")
    holder = await house.database.connect(owner=True)
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("SELECT FROM public.thing FOR UPDATE")

    async def connect() -> asyncpg.Connection:
        conn = await connect_writer(house.database.daemon_dsn, transaction_s=0.3)
        house.database.opened.append(conn)
        return conn

    async with house.lane(connect, limits=LaneLimits(transaction_s=0.3, tries_max=50)) as lane:
        held = lane.submit(Unit((Change(THING, ("A", 1, "m")),), (deposit("PYheld"),)))
        free = lane.submit(deposited("PYfree"))
        while not free.done() and not await house.count("public.note"):
            await asyncio.sleep(0.05)
            if held.done():
                break
        assert not held.done() or isinstance(held.result(), Done)
        await transaction.rollback()
        got = await answers([held, free])
    assert [type(answer) for answer in got] == [Done, Done]
    assert await house.wrong() == []


async def test_a_stopped_writer_is_ended_by_the_server(house: House) -> None:
    """A writer that sleeps inside a transaction loses it: others get its rows, its commit fails."""
    await house.reader.execute("INSERT INTO public.thing VALUES ('A', 1)")
    asleep = await connect_writer(house.database.daemon_dsn, transaction_s=0.3)
    house.database.opened.append(asleep)
    await asleep.execute("BEGIN")
    await asleep.execute("UPDATE public.thing SET note = 'lost'")
    async with house.lane() as lane:
        got = await answers([lane.submit(Unit((Change(THING, ("A", 1, "kept")),)))])
    assert isinstance(got[0], Done)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        await asleep.execute("COMMIT")
    assert await house.reader.fetchval("SELECT note FROM public.thing") == "kept"


def test_the_lanes_number_is_asked_for_under_its_lock() -> None:
    """Asking how far the lane came waits for its open transaction: it writes to the same row."""
    assert "ON CONFLICT (id) DO UPDATE" in q.LANE_REACHED
