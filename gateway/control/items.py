"""Items: whatever a person must look at, with its owner team and its reason.

Knows how an item is opened, listed and closed. Refuses to know how its subject is repaired: that is
a command of its own.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.control import queries as q
from gateway.control.access import Caller
from ledger.units import Change, Kind, Step

if TYPE_CHECKING:
    import asyncpg

OPEN: Final = Kind("gateway.item.open", Step.INSERT, q.OPEN_ITEM)
RESOLVE: Final = Kind("gateway.item.resolve", Step.MOVE, q.RESOLVE_ITEM, q.LOCK_ITEM)
EVENT: Final = Kind("gateway.item_event.insert", Step.INSERT, q.INSERT_ITEM_EVENT)

TEAMS: Final = ("payments", "operations", "compliance", "platform", "integrations")


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to look at, as stored and as shown."""

    id: str
    version: int
    kind: str
    owner_team: str
    subject: str
    entity: str
    reason: str
    state: str
    correlation: str
    opened: datetime
    resolved: datetime | None
    resolved_by: str
    resolution: str


def item_opened(
    id: str,
    kind: str,
    owner_team: str,
    subject: str,
    reason: str,
    at: datetime,
    *,
    entity: str = "",
    correlation: str = "",
) -> Change:
    """Open an item in the unit that found the reason; while one of this kind and subject is open,
    this changes nothing. The event row is written by the same statement.
    """
    assert owner_team in TEAMS, owner_team
    return Change(OPEN, (id, kind, owner_team, subject, entity, reason, correlation, at))


def item_resolved(item: Item, resolution: str, person: str, at: datetime) -> tuple[Change, ...]:
    """Close an open item; `resolution` is the person's own reason."""
    cause = msgspec.json.encode({"resolution": resolution}).decode()
    moved = Change(RESOLVE, (item.id, item.version, at, person, resolution))
    event = Change(
        EVENT,
        (item.id, item.version + 1, item.state, "resolved", "resolved", cause, person, at),
    )
    return moved, event


async def hold_open(conn: asyncpg.Connection, kind: str, subjects: list[str]) -> list[Item]:
    """The open items about these subjects, locked in the caller's transaction."""
    rows = await conn.fetch(q.HOLD_OPEN_ITEMS, kind, subjects)
    return [Item(**row) for row in rows]


async def find(conn: asyncpg.Connection, caller: Caller, id: str) -> Item | None:
    """The item of this id, if it exists for the caller; one of no entity for who reaches all."""
    row = await conn.fetchrow(q.SELECT_ITEM, id, caller.filter)
    return None if row is None else Item(**row)


async def page(
    conn: asyncpg.Connection, caller: Caller, *, state: str, team: str, after: str, limit: int
) -> list[Item]:
    """Items newest first, below the cursor `after`; empty strings ask for nothing."""
    rows = await conn.fetch(q.SELECT_ITEMS, after, caller.filter, state, team, limit)
    return [Item(**row) for row in rows]


async def count_open(conn: asyncpg.Connection) -> list[tuple[str, str, int, datetime]]:
    """Open items by kind and team, with the time the oldest was opened."""
    rows = await conn.fetch(q.COUNT_OPEN_ITEMS)
    return [(row["kind"], row["owner_team"], row["items"], row["oldest"]) for row in rows]
