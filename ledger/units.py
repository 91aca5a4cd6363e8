"""Units of work: what a room hands to the lane so that its rows and the books move together.

Knows the shape of a change (which statement, which row) and the answers of the lane. Refuses to
know any table: each room declares its kinds beside its own SQL, and only the lane runs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum

import msgspec

from ledger.facts import Entry


class Step(Enum):
    """When a change acts in the lane's transaction; the members stand in the order of steps."""

    CHECK = "check"  # something must still be true: the rulebook in force, an owner's epoch
    CLAIM = "claim"  # a unique key must be ours: an idempotency key, a webhook's event
    MOVE = "move"  # a row moves from the version we saw to the next
    INSERT = "insert"  # a row is added: events, audit, outbox, new objects


class Kind(msgspec.Struct, frozen=True, eq=False):
    """One set-based statement, declared once by the room that owns the table.

    The statements of a batch run as parts of one (`statements.py`): they share a snapshot, so none
    sees the rows another writes, and only a CLAIM returns rows of its own.

    name  `room.table.verb`; locks are taken in the order of names
    sql   the statement; its parameters are one array a column, each explicitly cast
    look  CLAIM: `SELECT key, ... WHERE key = ANY($1::text[])`, what a taken key already holds;
          MOVE: `SELECT id, version ... WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE`
    """

    name: str
    step: Step
    sql: str
    look: str = ""


class Change(msgspec.Struct, frozen=True):
    """One row for a kind's statement.

    row   CHECK (value,); CLAIM (key, ...); MOVE (id, expected version, ...); INSERT any columns
    tags  by which its outcome is counted; the statement knows nothing of them
    """

    kind: Kind
    row: tuple[object, ...]
    tags: tuple[str, ...] = ()


class Unit(msgspec.Struct, frozen=True):
    """Everything that must happen together or not at all."""

    changes: tuple[Change, ...]
    entries: tuple[Entry, ...] = ()


class Why(Enum):
    """Why the lane left a unit out."""

    CHECK = "check"  # what had to be true is not: decide again
    CLAIMED = "claimed"  # the key is taken; `found` is what holds it
    STALE = "stale"  # the row moved since it was read: read again
    EXISTS = "exists"  # the entry is in the books already, with equal content
    DIFFERS = "differs"  # the entry's key is in the books with other content
    FLOOR = "floor"  # an account would fall below its floor


class Done(msgspec.Struct, frozen=True):
    """The unit is committed. `entries` are the ids of its journal entries, in its own order."""

    entries: tuple[int, ...]
    recorded: datetime | None  # the books' time of those entries; None without entries


class Left(msgspec.Struct, frozen=True):
    """The unit was left out and nothing of it happened."""

    why: Why
    kind: str
    key: str
    found: Mapping[str, object] | None = None
