"""One try at one batch of units: everything that stands between BEGIN and COMMIT.

Knows the order of steps and locks, and who is left out and why. Refuses to know when to try, when
to commit and what to do when the server fails: that is the lane's (`lane.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

import asyncpg

from ledger import queries as q
from ledger.journal import Draft, Numbers, Overtaken, Taken, in_books, open_page, repeated
from ledger.units import Change, Done, Kind, Left, Step, Unit, Why

Answer = Done | Left
Row = tuple[object, ...]
Numbered = list[tuple[int, Change]]  # with the place of its unit in the batch


class Miscounted(Exception):
    """A statement did not touch the rows it was given: a mistake in its SQL."""


class Batch:
    """A batch while it is being written. A unit left out early costs no later step.

    look  ask first which keys are taken: after another writer took one from under us
    """

    def __init__(self, units: Sequence[Unit], numbers: Numbers, *, look: bool) -> None:
        self._units = units
        self._numbers = numbers
        self._look = look
        self._left: dict[int, Left] = {}
        self._drafts: list[Sequence[Draft]] = []
        self._steps = _by_step(units)

    async def number(self, conn: asyncpg.Connection) -> None:
        """Number accounts before the transaction, so that opening one holds no lock in it."""
        drafts = await self._numbers.draft(conn, [e for unit in self._units for e in unit.entries])
        mine = iter(drafts)
        self._drafts = [[next(mine) for _ in unit.entries] for unit in self._units]

    async def write(self, conn: asyncpg.Connection, lane: str, number: int) -> list[Answer]:
        """Write every unit that may be written and move the lane's row to `number`.

        Raises Taken when another writer holds a key of ours, Overtaken when the lane's row was not
        at `number` - 1, Miscounted and asyncpg's errors; the caller rolls back.
        """
        await self._check(conn)
        if self._look:
            await self._find_taken_keys(conn)
        await self._lock_rows(conn)
        recorded, ids = await self._books(conn, lane, number)
        if not ids and await conn.fetchval(q.ADVANCE_LANE, lane, number) is None:
            raise Overtaken(lane)
        for kind, rows in self._rows(Step.CLAIM):
            rows.sort(key=_key)  # every lane waits for others' keys in one order
            if len(await conn.fetch(kind.sql, *_columns(rows))) < len(rows):
                raise Taken
        for kind, rows in self._rows(Step.MOVE):
            _require_count(kind, await conn.execute(kind.sql, *_columns(rows)), len(rows))
        for kind, rows in self._rows(Step.INSERT):
            await conn.execute(kind.sql, *_columns(rows))
        return self._answers(recorded, ids)

    def _living(self) -> list[int]:
        return [n for n in range(len(self._units)) if n not in self._left]

    def _changes(self, step: Step) -> Iterator[tuple[Kind, Numbered]]:
        """The changes of units that are still in, kinds in the order of their names."""
        for kind, changes in self._steps.get(step, ()):
            living = [c for c in changes if c[0] not in self._left] if self._left else changes
            if living:
                yield kind, living

    def _rows(self, step: Step) -> Iterator[tuple[Kind, list[Row]]]:
        for kind, changes in self._changes(step):
            yield kind, [change.row for _, change in changes]

    def _leave_out(self, changes: Numbered, wrong: Callable[[Row], Left | None]) -> None:
        for n, change in changes:
            left = wrong(change.row)
            if left is not None:
                self._left.setdefault(n, left)

    async def _check(self, conn: asyncpg.Connection) -> None:
        for kind, changes in self._changes(Step.CHECK):
            values = sorted({str(change.row[0]) for _, change in changes})
            holds = {str(row[0]) for row in await conn.fetch(kind.sql, values)}
            if len(holds) < len(values):
                self._leave_out(changes, _missing(kind, holds))

    async def _find_taken_keys(self, conn: asyncpg.Connection) -> None:
        for kind, changes in self._changes(Step.CLAIM):
            found = await conn.fetch(kind.look, [change.row[0] for _, change in changes])
            if found:
                self._leave_out(changes, _claimed(kind, {str(row[0]): row for row in found}))
        living = self._living()
        drafts = [draft for n in living for draft in self._drafts[n]]
        held = await in_books(conn, drafts) if drafts else {}
        for n in living if held else ():
            left = repeated(self._drafts[n], held)
            if left is not None:
                self._left[n] = left

    async def _lock_rows(self, conn: asyncpg.Connection) -> None:
        for kind, changes in self._changes(Step.MOVE):
            found = await conn.fetch(kind.look, [change.row[0] for _, change in changes])
            versions = {str(row["id"]): row["version"] for row in found}
            self._leave_out(changes, _stale(kind, versions))

    async def _books(
        self, conn: asyncpg.Connection, lane: str, number: int
    ) -> tuple[datetime | None, Sequence[int]]:
        """Lock accounts, check floors, write entries, balances and postings."""
        living = [n for n in self._living() if self._drafts[n]]
        drafts = [draft for n in living for draft in self._drafts[n]]
        if not drafts:
            return None, ()
        ids = await self._numbers.entry_ids(conn, len(drafts))
        page = await open_page(conn, drafts)
        for n in living:
            broken = page.add(self._drafts[n])
            if broken is not None:
                self._left[n] = broken
        ids = ids[: len(page.drafts)]
        return (await page.write(conn, ids, lane, number) if ids else None), ids

    def _answers(self, recorded: datetime | None, ids: Sequence[int]) -> list[Answer]:
        numbers = iter(ids)
        answers: list[Answer] = []
        for n, unit in enumerate(self._units):
            if n in self._left:
                answers.append(self._left[n])
            else:
                mine = tuple([next(numbers) for _ in unit.entries])
                answers.append(Done(mine, recorded if mine else None))
        return answers


def _by_step(units: Sequence[Unit]) -> dict[Step, list[tuple[Kind, Numbered]]]:
    """The changes of all units, gathered once: by step, then by kind in the order of names."""
    kinds: dict[Kind, Numbered] = {}
    for n, unit in enumerate(units):
        for change in unit.changes:
            kinds.setdefault(change.kind, []).append((n, change))
    steps: dict[Step, list[tuple[Kind, Numbered]]] = {}
    for kind in sorted(kinds, key=lambda kind: kind.name):
        steps.setdefault(kind.step, []).append((kind, kinds[kind]))
    return steps


def _missing(kind: Kind, holds: set[str]) -> Callable[[Row], Left | None]:
    def wrong(row: Row) -> Left | None:
        value = str(row[0])
        return None if value in holds else Left(Why.CHECK, kind.name, value)

    return wrong


def _claimed(kind: Kind, taken: dict[str, asyncpg.Record]) -> Callable[[Row], Left | None]:
    def wrong(row: Row) -> Left | None:
        held = taken.get(str(row[0]))
        return None if held is None else Left(Why.CLAIMED, kind.name, str(row[0]), dict(held))

    return wrong


def _stale(kind: Kind, versions: dict[str, int]) -> Callable[[Row], Left | None]:
    def wrong(row: Row) -> Left | None:
        seen = versions.get(str(row[0]))
        if seen == row[1]:
            return None
        return Left(Why.STALE, kind.name, str(row[0]), {"version": seen})

    return wrong


def _key(row: Row) -> str:
    return str(row[0])


def _columns(rows: Sequence[Row]) -> list[Row]:
    return list(zip(*rows, strict=True))


def _require_count(kind: Kind, tag: str, rows: int) -> None:
    """The rows were locked at the version we saw; one that did not move is a wrong statement."""
    verb, _, count = tag.rpartition(" ")
    if verb == "UPDATE" and int(count) != rows:
        raise Miscounted(f"{kind.name} moved {count} of {rows} rows")
