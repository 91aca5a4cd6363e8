"""The router's changes through the real lane into a real database, and back as values."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest
from msgspec.structs import replace

from ledger.connections import connect_writer
from ledger.journal import Numbers
from ledger.lane import Lane, LaneFailed
from ledger.units import Change, Done, Left, Unit, Why
from router import moves, reads, rows
from router.cascade import Finish
from router.intents import Attempt, Payment
from router.outcomes import Approved, NotSent, Outcome, Unknown
from router.psp.inbox import InboxEntry, Notice, entry
from router.states import AttemptState as A
from router.states import PaymentState as P
from tests.support.servers import Database
from tests.unit.router.values import NOW, POLICY, REFERENCE, after, attempt, payment, route

APPROVED = Approved("acme_1", 10_000, "EUR")
LIMIT_S = 10.0


@pytest.fixture
async def lane(database: Database) -> AsyncIterator[Lane]:
    """The lane of one replica."""
    running = Lane("tests", lambda: connect_writer(database.daemon_dsn), Numbers(), time.monotonic)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(running.run())
        yield running
        running.close()


@pytest.fixture
async def conn(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """A reader with the daemon's role."""
    opened = await database.connect()
    try:
        yield opened
    finally:
        await opened.close()


async def write(lane: Lane, *changes: Change) -> Done | Left:
    """One unit through the lane."""
    return await asyncio.wait_for(lane.submit(Unit(changes)), LIMIT_S)


def started(p: Payment, a: Attempt) -> tuple[Change, ...]:
    """The first unit of a deposit: payment, decision, attempt as sent, and their events."""
    decision = route("acme", "bolt")
    return (
        *rows.payment_created(p, decision, "crm"),
        *rows.decision_stored(p, decision),
        *rows.attempt_sent(a, "svc.router"),
    )


def settled(p: Payment, a: Attempt, outcome: Outcome, step: Finish) -> tuple[Change, ...]:
    """The second unit: the attempt's outcome and what it makes of the payment."""
    moved = moves.apply(p, a, outcome, POLICY, after(1))
    end = moves.follow(p, step)
    return (
        *rows.attempt_moved(moved, "svc.router", {"source": "answer"}),
        *rows.payment_moved(p, end, "svc.router", after(1)),
    )


async def test_a_payment_comes_back_as_it_was_written(lane: Lane, conn: asyncpg.Connection) -> None:
    """Payment, attempts and decision survive the database unchanged."""
    p, a = payment(), attempt()
    assert isinstance(await write(lane, *started(p, a)), Done)
    assert await reads.payment(conn, p.id) == (p, (a,), route("acme", "bolt"))
    assert await reads.by_reference(conn, a.reference) == (p, (a,), route("acme", "bolt"))
    assert await reads.payment(conn, "PY999999999999999999") is None
    assert await reads.by_reference(conn, "AT999999999999999999") is None


async def test_a_settled_deposit_moves_both_and_tells_its_history(
    lane: Lane, conn: asyncpg.Connection
) -> None:
    """One unit moves attempt and payment; each change of state is an event in order."""
    p, a = payment(), attempt()
    await write(lane, *started(p, a))
    assert isinstance(await write(lane, *settled(p, a, APPROVED, Finish(P.APPROVED))), Done)
    found = await reads.payment(conn, p.id)
    assert found is not None
    assert (found[0].state, found[0].version, found[0].due_at) == (P.APPROVED, 2, None)
    assert (found[1][0].state, found[1][0].psp_reference) == (A.APPROVED, "acme_1")
    history = [(e.object_id[:2], e.version, e.event) for e in await reads.events(conn, p.id)]
    assert sorted(history) == [("AT", 1, "sent"), ("AT", 2, "approved"), ("PY", 1, "created"),
                               ("PY", 2, "approved")]  # fmt: skip


async def test_the_second_settle_of_one_attempt_is_left_out(
    lane: Lane, conn: asyncpg.Connection
) -> None:
    """Answer and webhook at once: one unit is written, the other is stale and changes nothing."""
    p, a = payment(), attempt()
    await write(lane, *started(p, a))
    unit = settled(p, a, APPROVED, Finish(P.APPROVED))
    answers = await asyncio.gather(write(lane, *unit), write(lane, *unit))
    left = [answer for answer in answers if isinstance(answer, Left)]
    assert [answer.why for answer in left] == [Why.STALE]
    assert len(await reads.events(conn, p.id)) == 4


async def test_due_payments_are_found_longest_waiting_first(
    lane: Lane, conn: asyncpg.Connection
) -> None:
    """The resolver sees what is due by now, and nothing that is final."""
    for no, due in ((1, 5.0), (2, 3.0), (3, 99.0), (4, None)):
        p = payment(id=f"PY{no:018d}", due_at=None if due is None else after(due))
        await write(lane, *started(p, attempt(payment_id=p.id, reference=f"AT{no:018d}")))
    due_now = await reads.due(conn, after(5), 10)
    assert due_now == [f"PY{2:018d}", f"PY{1:018d}"]
    assert await reads.due(conn, after(5), 1) == due_now[:1]


async def test_two_attempts_never_share_a_number_or_a_reference(
    lane: Lane, conn: asyncpg.Connection
) -> None:
    """The database refuses a second attempt of one number, and a reference used before."""
    p = payment()
    await write(lane, *started(p, attempt()))
    same_number, same_reference = attempt(reference="AT9" + "0" * 17), attempt(reference=REFERENCE)
    for again in (same_number, replace(same_reference, no=2)):
        with pytest.raises(LaneFailed) as refused:
            await write(lane, *rows.attempt_sent(again, "svc.router"))
        assert refused.value.sqlstate == "23505"


async def test_a_lease_is_taken_by_one(lane: Lane, conn: asyncpg.Connection) -> None:
    """Two resolvers that want one attempt: compare-and-set lets one of them ask."""
    p, a = payment(), attempt()
    await write(lane, *started(p, a))
    unknown = moves.apply(p, a, Unknown("read_timeout"), POLICY, after(2))
    await write(lane, *rows.attempt_moved(unknown, "svc.router"))
    held = [moves.leased(unknown.after, owner, after(9)) for owner in ("r1", "r2")]
    answers = [await write(lane, *rows.attempt_leased(unknown.after, h)) for h in held]
    assert [type(answer) for answer in answers] == [Done, Left]
    found = await reads.payment(conn, p.id)
    assert found is not None
    assert (found[1][0], found[1][0].lease_owner) == (held[0], "r1")


async def test_every_column_of_an_attempt_is_moved(lane: Lane, conn: asyncpg.Connection) -> None:
    """What a move writes is what is read: nothing of an outcome is lost."""
    p, a = payment(), attempt()
    await write(lane, *started(p, a))
    moved = moves.apply(p, a, NotSent("conn_refused"), POLICY, after(2))
    await write(lane, *rows.attempt_moved(moved, "svc.router"))
    found = await reads.payment(conn, p.id)
    assert found is not None
    assert found[1][0] == moved.after


# -- the inbox -------------------------------------------------------------------------------------


def noticed(payment_id: str, event_id: str = "ev_1") -> InboxEntry:
    """A notice of the sample attempt."""
    told = Notice(event_id, attempt().reference, APPROVED, NOW)
    return entry("acme", told, b"\x00raw\xff", payment_id, NOW)


async def test_a_notice_is_applied_once(lane: Lane) -> None:
    """The second notice of one id leaves its unit out, with what holds the key."""
    first = await write(lane, *rows.inbox_claimed(noticed("PY1")))
    second = await write(lane, *rows.inbox_claimed(noticed("PY1")))
    assert isinstance(first, Done)
    assert isinstance(second, Left)
    assert (second.why, dict(second.found or {})["state"]) == (Why.CLAIMED, "applied")


async def test_a_parked_notice_is_found_when_its_attempt_exists_and_applied_once(
    lane: Lane, conn: asyncpg.Connection
) -> None:
    """A notice that came too early is kept byte for byte and replayed."""
    await write(lane, *rows.inbox_claimed(noticed("")))
    assert await reads.parked(conn, 10) == []
    assert await reads.parked_count(conn) == 1
    await write(lane, *started(payment(), attempt()))
    (parked,) = await reads.parked(conn, 10)
    assert (parked.payment_id, parked.raw) == (payment().id, b"\x00raw\xff")
    applied = rows.inbox_applied(parked, parked.payment_id, after(3))
    assert isinstance(await write(lane, *applied), Done)
    assert isinstance(await write(lane, *applied), Left)
    assert await reads.parked_count(conn) == 0


# -- what the daemon's role may not do -------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE router.payment SET amount_minor = 1",
        "UPDATE router.attempt SET psp = 'bolt'",
        "UPDATE router.event SET to_state = 'approved'",
        "UPDATE router.decision SET trace = '{}'",
        "UPDATE router.inbox SET raw = ''",
        "DELETE FROM router.payment",
        "DELETE FROM router.attempt",
        "DELETE FROM router.event",
        "DELETE FROM router.inbox",
        "TRUNCATE router.decision",
    ],
)
async def test_the_daemons_role_cannot_rewrite_what_happened(
    conn: asyncpg.Connection, sql: str
) -> None:
    """What a payment is and what happened to it can only be added to."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await conn.execute(sql)
