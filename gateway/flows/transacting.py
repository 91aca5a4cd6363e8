"""One unit in a transaction of its own, for an effect that must read and write as it goes.

Knows the steps of the lane for a single unit: what must hold, what is locked, what is written.
Refuses to know what any change means, and to post: entries go through a lane or the journal.
"""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from ledger.units import Change, Left, Step, Why


async def hold(conn: asyncpg.Connection, changes: Sequence[Change]) -> Left | None:
    """Ask every check and lock every row that these changes move, in the lane's order of names.

    The answer for the whole unit when it must be left out: the caller then rolls back.
    """
    assert conn.is_in_transaction()
    for change in _of(changes, Step.CHECK):
        if not await conn.fetch(change.kind.sql, [change.row[0]]):
            return Left(Why.CHECK, change.kind.name, str(change.row[0]))
    for change in _of(changes, Step.MOVE):
        row = await conn.fetchrow(change.kind.look, [change.row[0]])
        if row is None or row["version"] != change.row[1]:
            seen = None if row is None else row["version"]
            return Left(Why.STALE, change.kind.name, str(change.row[0]), {"version": seen})
    return None


async def store(conn: asyncpg.Connection, changes: Sequence[Change]) -> Left | None:
    """Write these changes; what they move was locked by `hold`, or is by the caller.

    The answer for the whole unit when a key is taken: the caller then rolls back.
    """
    assert conn.is_in_transaction()
    for change in _of(changes, Step.CLAIM):
        try:
            claimed = await conn.fetch(change.kind.sql, *_columns(change))
        except asyncpg.UniqueViolationError:  # a claim that fails aloud, as the lane knows it too
            claimed = []
        if not claimed:
            return Left(Why.CLAIMED, change.kind.name, str(change.row[0]))
    for change in (*_of(changes, Step.MOVE), *_of(changes, Step.INSERT)):
        await conn.execute(change.kind.sql, *_columns(change))
    return None


def _of(changes: Sequence[Change], step: Step) -> list[Change]:
    mine = [change for change in changes if change.kind.step is step]
    return sorted(mine, key=lambda change: (change.kind.name, str(change.row[0])))


def _columns(change: Change) -> list[list[object]]:
    return [[value] for value in change.row]
