"""Rows the bridge contributes to a unit of work: accounts, operations, jobs, and their events.

Knows which columns move and that every move writes its event. Refuses to open a transaction: the
lane runs these changes together with everything else of the unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from bridge import queries as q
from bridge.outcomes import Call, Outcome
from bridge.states import (
    Account,
    AccountState,
    Operation,
    OperationState,
    account_event,
    operation_event,
)
from ledger.units import Change, Kind, Step

ACCOUNT_INSERT: Final = Kind("bridge.account.insert", Step.INSERT, q.INSERT_ACCOUNTS)
ACCOUNT_MOVE: Final = Kind("bridge.account.move", Step.MOVE, q.MOVE_ACCOUNTS, q.LOOK_ACCOUNTS)
OPERATION_INSERT: Final = Kind("bridge.operation.insert", Step.INSERT, q.INSERT_OPERATIONS)
OPERATION_MOVE: Final = Kind(
    "bridge.operation.move", Step.MOVE, q.MOVE_OPERATIONS, q.LOOK_OPERATIONS
)
JOB_INSERT: Final = Kind("bridge.job.insert", Step.INSERT, q.INSERT_JOBS)
EVENT_INSERT: Final = Kind("bridge.event.insert", Step.INSERT, q.INSERT_EVENTS)

KINDS: Final = (
    ACCOUNT_INSERT,
    ACCOUNT_MOVE,
    OPERATION_INSERT,
    OPERATION_MOVE,
    JOB_INSERT,
    EVENT_INSERT,
)

_EMPTY: Final[Mapping[str, object]] = {}


def account_requested(
    account: Account, actor: str, cause: Mapping[str, object] = _EMPTY
) -> tuple[Change, ...]:
    """A new account, in the state it carries, and its first event."""
    row = (
        *(account.id, account.version, account.client_id, account.book, account.server),
        *(account.entity, account.brand, account.account_type, account.currency),
        *(account.platform_group, account.leverage, account.rights, account.login),
        *(account.state.value, account.attempts, account.reason, account.due_at),
        *(account.lease_owner, account.lease_until, account.caller, account.correlation),
        *(account.created, account.updated),
    )
    first = _event(
        account.id, "", account.state, "requested", cause, actor, account.created, _tags(account)
    )
    return Change(ACCOUNT_INSERT, row), first


def account_after(account: Account, to: AccountState, at: datetime, **columns: Any) -> Account:
    """The account as it will be once this move is committed; sending counts the attempt.

    Raises IllegalMove.
    """
    account_event(account.state, to)
    sent = {"attempts": account.attempts + 1} if to is AccountState.SENT else {}
    moved = {"version": account.version + 1, "state": to, "updated": at}
    return msgspec.structs.replace(account, **(moved | sent | columns))


def account_moved(
    account: Account,
    to: AccountState,
    *,
    at: datetime,
    actor: str,
    cause: Mapping[str, object] = _EMPTY,
    **columns: Any,
) -> tuple[Change, ...]:
    """Move an account from the version in hand; `columns` are fields of Account that move too.

    Moving columns: login, attempts, reason, due_at, lease_owner, lease_until.
    """
    after = account_after(account, to, at, **columns)
    row = (
        *(account.id, account.version, after.login, after.state.value, after.attempts),
        *(after.reason, after.due_at, after.lease_owner, after.lease_until, at),
    )
    name = account_event(account.state, to)
    event = _event(account.id, account.state, to, name, cause, actor, at, _tags(account))
    return Change(ACCOUNT_MOVE, row), event


def account_parked(account: Account, reason: str, at: datetime, actor: str) -> tuple[Change, ...]:
    """Nobody looks at this account again by itself; the state stays, the event says why."""
    row = (
        *(account.id, account.version, account.login, account.state.value, account.attempts),
        *(reason, None, "", None, at),
    )
    cause = {"reason": reason}
    event = _event(
        account.id, account.state, account.state, "parked", cause, actor, at, _tags(account)
    )
    return Change(ACCOUNT_MOVE, row), event


def operation_queued(
    operation: Operation, actor: str, cause: Mapping[str, object] = _EMPTY
) -> tuple[Change, ...]:
    """A new balance operation and its first event."""
    row = (
        *(operation.id, operation.version, operation.account_id, operation.server),
        *(operation.login, operation.book, operation.amount_minor, operation.currency),
        *(operation.state.value, operation.payment_id, operation.ticket, operation.attempts),
        *(operation.lookups, operation.reason, operation.sent_at, operation.unknown_at),
        *(operation.due_at, operation.lease_owner, operation.lease_until),
        *(operation.correlation, operation.created, operation.updated),
    )
    first = _event(operation.id, "", operation.state, "queued", cause, actor, operation.created)
    return Change(OPERATION_INSERT, row), first


def operation_after(
    operation: Operation, to: OperationState, at: datetime, **columns: Any
) -> Operation:
    """The operation as it will be once this move is committed. Raises IllegalMove.

    What follows from the state is set here: sending stamps `sent_at` and counts the attempt,
    losing the answer starts the settle time, and whoever leaves *unknown* starts it anew.
    """
    operation_event(operation.state, to)
    return msgspec.structs.replace(
        operation,
        version=operation.version + 1,
        state=to,
        updated=at,
        **(_implied(operation, to, at) | columns),
    )


def _implied(operation: Operation, to: OperationState, at: datetime) -> dict[str, Any]:
    """Columns that a move to this state always sets."""
    if to is OperationState.SENT:
        return {"sent_at": at, "attempts": operation.attempts + 1, "lookups": 0}
    if to is OperationState.UNKNOWN:
        return {"unknown_at": operation.unknown_at or at}
    return {"unknown_at": None}


def operation_moved(
    operation: Operation,
    to: OperationState,
    *,
    at: datetime,
    actor: str,
    cause: Mapping[str, object] = _EMPTY,
    **columns: Any,
) -> tuple[Change, ...]:
    """Move an operation from the version in hand; `columns` are fields of Operation that move too.

    Moving columns: ticket, lookups, reason, due_at, lease_owner, lease_until (and, set by the move
    itself unless given, attempts, sent_at, unknown_at).
    """
    after = operation_after(operation, to, at, **columns)
    row = (
        *(operation.id, operation.version, after.state.value, after.ticket, after.attempts),
        *(after.lookups, after.reason, after.sent_at, after.unknown_at, after.due_at),
        *(after.lease_owner, after.lease_until, at),
    )
    name = operation_event(operation.state, to)
    event = _event(operation.id, operation.state, to, name, cause, actor, at)
    return Change(OPERATION_MOVE, row), event


def operation_parked(
    operation: Operation, reason: str, at: datetime, actor: str
) -> tuple[Change, ...]:
    """Nobody looks at this operation again by itself; the state stays, the event says why."""
    row = (
        *(operation.id, operation.version, operation.state.value, operation.ticket),
        *(operation.attempts, operation.lookups, reason, operation.sent_at),
        *(operation.unknown_at, None, "", None, at),
    )
    cause = {"reason": reason}
    event = _event(operation.id, operation.state, operation.state, "parked", cause, actor, at)
    return Change(OPERATION_MOVE, row), event


def job_logged(object_id: str, attempt: int, server: str, call: Call, decision: str) -> Change:
    """One platform call on behalf of an account or operation, with what was decided from it."""
    row = (
        *(object_id, attempt, server, call.method, call.payload, call.payload_hash),
        *(call.code, call.text, call.class_, decision, call.took_ms, call.at),
    )
    return Change(JOB_INSERT, row)


def jobs_logged(object_id: str, attempt: int, server: str, outcome: Outcome) -> tuple[Change, ...]:
    """Every call behind an outcome; the decision recorded is the outcome's name."""
    decision = type(outcome).__name__.lower()
    return tuple(job_logged(object_id, attempt, server, call, decision) for call in outcome.calls)


def _event(
    object_id: str,
    before: str,
    after: str,
    name: str,
    cause: Mapping[str, object],
    actor: str,
    at: datetime,
    tags: tuple[str, ...] = (),
) -> Change:
    """The event row that goes with every change of state."""
    text = msgspec.json.encode(cause).decode()
    return Change(EVENT_INSERT, (object_id, str(before), str(after), name, text, actor, at), tags)


def _tags(account: Account) -> tuple[str, ...]:
    """By what an account is counted: its entity and its brand."""
    return account.entity, account.brand
