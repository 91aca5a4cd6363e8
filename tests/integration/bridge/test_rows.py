"""The bridge's rows in a real database, written by the real lane."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial

import asyncpg
import msgspec
import pytest

from bridge import reads, rows
from bridge.logins import LoginsExhausted, allocate_login
from bridge.outcomes import Call, Done
from bridge.states import Account, AccountState, Operation, OperationState
from ledger.connections import connect_writer
from ledger.journal import Numbers
from ledger.lane import Lane, LaneFailed
from ledger.units import Change, Left, Unit, Why
from ledger.units import Done as Committed
from tests.integration.bridge.conftest import STARTED, new_account, new_operation
from tests.support.servers import Database

AT = STARTED + timedelta(seconds=1)
SERVER = "mt5-live"


@pytest.fixture
async def lane(database: Database) -> AsyncIterator[Lane]:
    """A running lane on a fresh database."""
    connect = partial(connect_writer, database.daemon_dsn)
    made = Lane("RP000000000000000001", connect, Numbers(), time.monotonic)
    task = asyncio.create_task(made.run())
    yield made
    made.close()
    await asyncio.wait_for(task, 10)


@pytest.fixture
async def conn(database: Database) -> asyncpg.Connection:
    """A reader's connection as the daemon's role."""
    return await database.connect()


async def commit(lane: Lane, *changes: Change) -> Committed | Left:
    """One unit of these changes."""
    return await lane.submit(Unit(changes))


def wanted(login: int | None = None) -> Account:
    """A new account."""
    return msgspec.structs.replace(new_account(1), login=login)


def queued(login: int = 100_001) -> Operation:
    """A new operation that nobody has sent."""
    fresh = new_operation(login)
    return msgspec.structs.replace(fresh, sent_at=None, created=STARTED, updated=STARTED)


async def test_an_account_is_read_back_as_it_was_written(
    lane: Lane, conn: asyncpg.Connection
) -> None:
    """Every field of an account survives the row."""
    account = wanted()
    await commit(lane, *rows.account_requested(account, "svc.caller"))
    assert await reads.account(conn, account.id) == account
    assert await reads.accounts_of(conn, account.client_id) == (account,)
    assert await reads.account(conn, "AC999999999999999999") is None


async def test_an_account_walks_to_verified_with_an_event_a_step(
    lane: Lane, conn: asyncpg.Connection
) -> None:
    """Each move raises the version, changes its columns and leaves its event."""
    account = wanted()
    await commit(lane, *rows.account_requested(account, "svc.caller", {"reason": "opened"}))
    sent = rows.account_after(account, AccountState.SENT, AT, login=100_001, due_at=AT)
    await commit(
        lane,
        *rows.account_moved(
            account, AccountState.SENT, at=AT, actor="svc.mt", login=100_001, due_at=AT
        ),
    )
    assert await reads.account(conn, account.id) == sent
    assert await reads.accounts_due(conn, SERVER, AT, 10) == (sent,)
    await commit(
        lane, *rows.account_moved(sent, AccountState.VERIFIED, at=AT, actor="svc.mt", due_at=None)
    )
    assert await reads.accounts_due(conn, SERVER, AT, 10) == ()
    events = await reads.events_of(conn, account.id)
    assert [event.event for event in events] == ["requested", "sent", "verified"]


async def test_a_move_from_an_old_version_is_left_out(lane: Lane, conn: asyncpg.Connection) -> None:
    """Whoever comes second finds the row moved and changes nothing."""
    operation = queued()
    await commit(lane, *rows.operation_queued(operation, "svc.mt"))
    move = rows.operation_moved(operation, OperationState.SENT, at=AT, actor="svc.mt")
    first, second = await asyncio.gather(commit(lane, *move), commit(lane, *move))
    assert isinstance(first, Committed)
    assert isinstance(second, Left)
    assert second.why is Why.STALE
    events = await reads.events_of(conn, operation.id)
    assert [event.event for event in events] == ["queued", "sent"]


async def test_an_operation_walks_through_unknown_to_done(
    lane: Lane, conn: asyncpg.Connection
) -> None:
    """Sent, lost, looked up, found: every column is what the value said it would be."""
    operation = queued()
    await commit(lane, *rows.operation_queued(operation, "svc.mt"))
    steps = [
        (OperationState.SENT, {"lease_owner": "RP1", "lease_until": AT, "due_at": AT}),
        (OperationState.UNKNOWN, {"reason": "timeout", "lease_owner": "", "lease_until": None}),
        (OperationState.UNKNOWN, {"lookups": 1}),
        (OperationState.DONE, {"ticket": 77, "due_at": None, "reason": ""}),
    ]
    for state, columns in steps:
        change = rows.operation_moved(operation, state, at=AT, actor="svc.mt", **columns)
        operation = rows.operation_after(operation, state, AT, **columns)
        assert isinstance(await commit(lane, *change), Committed)
        assert await reads.operation(conn, operation.id) == operation
        due = await reads.operations_due(conn, SERVER, AT, 5)
        assert due == ((operation,) if operation.due_at else ())
    assert operation.version == 5


async def test_a_payment_has_one_operation_that_is_not_refused(
    lane: Lane, conn: asyncpg.Connection
) -> None:
    """The database itself forbids a second live operation for one payment."""
    first = queued()
    again = msgspec.structs.replace(queued(), payment_id=first.payment_id)
    await commit(lane, *rows.operation_queued(first, "svc.mt"))
    with pytest.raises(LaneFailed):
        await commit(lane, *rows.operation_queued(again, "svc.mt"))
    await commit(lane, *rows.operation_moved(first, OperationState.REFUSED, at=AT, actor="svc.mt"))
    await commit(lane, *rows.operation_queued(again, "svc.mt"))
    found = await reads.operations_of_payment(conn, first.payment_id)
    assert {operation.id for operation in found} == {first.id, again.id}


async def test_one_deal_settles_one_operation(lane: Lane) -> None:
    """The database itself forbids that two operations claim one ticket of a server."""
    for number in range(2):
        operation = queued()
        await commit(lane, *rows.operation_queued(operation, "svc.mt"))
        sent = rows.operation_after(operation, OperationState.SENT, AT)
        await commit(
            lane, *rows.operation_moved(operation, OperationState.SENT, at=AT, actor="svc.mt")
        )
        done = rows.operation_moved(sent, OperationState.DONE, at=AT, actor="svc.mt", ticket=5)
        if number == 0:
            await commit(lane, *done)
        else:
            with pytest.raises(LaneFailed):
                await commit(lane, *done)


async def test_platform_totals_are_what_was_done(lane: Lane, conn: asyncpg.Connection) -> None:
    """An account's total counts what is done; what is under way is only counted."""
    account = wanted(login=100_001)
    await commit(lane, *rows.account_requested(account, "svc.caller"))
    for minor, state in ((500, OperationState.DONE), (70, None)):
        fresh = queued()
        operation = msgspec.structs.replace(fresh, account_id=account.id, amount_minor=minor)
        await commit(lane, *rows.operation_queued(operation, "svc.mt"))
        if state is not None:
            sent = rows.operation_after(operation, OperationState.SENT, AT)
            move = rows.operation_moved(operation, OperationState.SENT, at=AT, actor="svc.mt")
            await commit(lane, *move)
            await commit(lane, *rows.operation_moved(sent, state, at=AT, actor="a", ticket=9))
    [total] = await reads.totals(conn)
    assert (total.login, total.done_minor, total.open) == (100_001, 500, 1)
    assert (await reads.counts(conn))["operation", SERVER, "done"] == 1


async def test_calls_are_logged_for_good(lane: Lane, conn: asyncpg.Connection) -> None:
    """The job log keeps each call, and the daemon's role can neither change nor delete it."""
    call = Call(
        method="user/add",
        payload='{"PassMain": "***"}',
        payload_hash="0" * 64,
        code=None,
        text="timeout",
        class_="lost",
        took_ms=12,
        at=AT,
    )
    outcome = Done(login=1, calls=(call,))
    await commit(lane, *rows.jobs_logged("AC000000000000000001", 1, SERVER, outcome))
    [job] = await reads.jobs_of(conn, "AC000000000000000001")
    assert (job.method, job.code, job.class_, job.decision) == ("user/add", None, "lost", "done")
    for table, statement in (("job", "DELETE FROM"), ("event", "TRUNCATE"), ("job", "UPDATE")):
        tail = " SET text = ''" if statement == "UPDATE" else ""
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.execute(f"{statement} bridge.{table}{tail}")


async def test_an_account_keeps_the_login_it_was_leased(conn: asyncpg.Connection) -> None:
    """Asking again for one account gives the same number."""
    first = await allocate_login(conn, SERVER, 10, 20, "AC1")
    again = await allocate_login(conn, SERVER, 10, 20, "AC1")
    other = await allocate_login(conn, SERVER, 10, 20, "AC2")
    assert (first, again, other) == (10, 10, 11)


async def test_no_login_is_leased_twice(database: Database) -> None:
    """Callers at the same time get numbers of their own, without gaps."""
    connections = [await database.connect() for _ in range(8)]

    async def lease(conn: asyncpg.Connection, worker: int) -> list[int]:
        return [await allocate_login(conn, SERVER, 1, 1000, f"AC{worker}-{n}") for n in range(10)]

    leased = await asyncio.gather(*(lease(c, n) for n, c in enumerate(connections)))
    assert sorted(login for each in leased for login in each) == list(range(1, 81))


async def test_an_overlapping_range_skips_what_is_leased(conn: asyncpg.Connection) -> None:
    """A range that was moved over another does not hand out its numbers again."""
    await allocate_login(conn, SERVER, 10, 20, "AC1")
    await allocate_login(conn, SERVER, 10, 20, "AC2")
    assert await allocate_login(conn, SERVER, 9, 20, "AC3") == 9
    assert await allocate_login(conn, SERVER, 9, 20, "AC4") == 12


async def test_an_exhausted_range_says_so(conn: asyncpg.Connection) -> None:
    """When the range is used up nothing is leased and an operator is needed."""
    await allocate_login(conn, SERVER, 10, 10, "AC1")
    with pytest.raises(LoginsExhausted):
        await allocate_login(conn, SERVER, 10, 10, "AC2")
