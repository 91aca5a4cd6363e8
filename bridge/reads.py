"""Readers of the bridge's rows: accounts, operations, their calls and events.

Knows how a row becomes a value. Refuses to write and to lock: moves go through the lane.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from bridge import queries as q
from bridge.states import Account, AccountState, Operation, OperationState


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One platform call as it was logged."""

    object_id: str
    attempt: int
    server: str
    method: str
    payload: str
    payload_hash: str
    code: int | None
    text: str
    class_: str
    decision: str
    took_ms: int
    at: datetime


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One change of state as it was recorded; `cause` is JSON text."""

    object_id: str
    from_state: str
    to_state: str
    event: str
    cause: str
    actor: str
    at: datetime


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """What our operations say an account of the platform received, minor units of its currency."""

    account_id: str
    server: str
    login: int
    currency: str
    done_minor: int
    open: int  # operations that are queued, sent or unknown


class Holder(msgspec.Struct, frozen=True):
    """Whose login it is: the book and the client of the trading account that has it."""

    book: int
    client_id: str
    account_id: str


async def account(conn: asyncpg.Connection, account_id: str) -> Account | None:
    """The account, or None."""
    row = await conn.fetchrow(q.ACCOUNT, account_id)
    return _account(row) if row else None


async def accounts_of(conn: asyncpg.Connection, client_id: str) -> tuple[Account, ...]:
    """A client's accounts, oldest first."""
    return tuple(_account(row) for row in await conn.fetch(q.ACCOUNTS_OF_CLIENT, client_id))


async def accounts_due(
    conn: asyncpg.Connection, server: str, now: datetime, limit: int
) -> tuple[Account, ...]:
    """Accounts of a server that somebody must look at by now, longest due first."""
    return tuple(_account(row) for row in await conn.fetch(q.ACCOUNTS_DUE, server, now, limit))


async def holders(
    conn: asyncpg.Connection, server: str, logins: Collection[int]
) -> dict[int, Holder]:
    """Whose these logins of a server are; one that no account of ours has is left out."""
    rows = await conn.fetch(q.HOLDERS, server, sorted(logins))
    return {row["login"]: Holder(row["book"], row["client_id"], row["id"]) for row in rows}


async def operation(conn: asyncpg.Connection, operation_id: str) -> Operation | None:
    """The balance operation, or None."""
    row = await conn.fetchrow(q.OPERATION, operation_id)
    return _operation(row) if row else None


async def operations_of_payment(conn: asyncpg.Connection, payment_id: str) -> tuple[Operation, ...]:
    """Every operation made for a payment, oldest first; at most one of them is not refused."""
    return tuple(_operation(row) for row in await conn.fetch(q.OPERATIONS_OF_PAYMENT, payment_id))


async def operations_of_account(conn: asyncpg.Connection, account_id: str) -> tuple[Operation, ...]:
    """Every operation of a trading account, oldest first."""
    return tuple(_operation(row) for row in await conn.fetch(q.OPERATIONS_OF_ACCOUNT, account_id))


async def operations_due(
    conn: asyncpg.Connection, server: str, now: datetime, limit: int
) -> tuple[Operation, ...]:
    """Operations of a server that somebody must look at by now, longest due first."""
    return tuple(_operation(row) for row in await conn.fetch(q.OPERATIONS_DUE, server, now, limit))


async def totals(conn: asyncpg.Connection) -> tuple[Total, ...]:
    """What every account received by our own operations: to compare with the platform."""
    return tuple(
        Total(
            account_id=row["id"],
            server=row["server"],
            login=row["login"],
            currency=row["currency"],
            done_minor=row["done_minor"],
            open=row["open"],
        )
        for row in await conn.fetch(q.PLATFORM_TOTALS)
    )


async def counts(conn: asyncpg.Connection) -> Mapping[tuple[str, str, str], int]:
    """How many objects stand where: (account or operation, server, state) -> number."""
    rows = await conn.fetch(q.COUNTS)
    return {(row["kind"], row["server"], row["state"]): row["count"] for row in rows}


async def jobs_of(conn: asyncpg.Connection, object_id: str) -> tuple[Job, ...]:
    """The platform calls made for an object, oldest first."""
    rows = await conn.fetch(q.JOBS_OF, object_id)
    return tuple(Job(class_=row["class"], **_without(row, "class")) for row in rows)


async def events_of(conn: asyncpg.Connection, object_id: str) -> tuple[Event, ...]:
    """The changes of state of an object, oldest first."""
    return tuple(Event(**dict(row)) for row in await conn.fetch(q.EVENTS_OF, object_id))


def _account(row: asyncpg.Record) -> Account:
    return Account(state=AccountState(row["state"]), **_without(row, "state"))


def _operation(row: asyncpg.Record) -> Operation:
    return Operation(state=OperationState(row["state"]), **_without(row, "state"))


def _without(row: asyncpg.Record, column: str) -> dict[str, Any]:
    """The row's columns but one."""
    return {name: value for name, value in row.items() if name != column}
