"""One try at one batch of units: everything that stands between BEGIN and COMMIT.

Knows the order of steps and locks, and who is left out and why. Refuses to know when to try, when
to commit and what to do when the server fails: that is the lane's (`lane.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

import asyncpg

from ledger import queries as q
from ledger.journal import Draft, Numbers, Overtaken, Page, Taken, in_books, places, repeated
from ledger.statements import ACCOUNTS, locking, may_share, writing
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
        if self._look:
            await self._find_taken_keys(conn)
        page = await self._lock(conn)
        ids = await self._numbers.entry_ids(conn, len(page.drafts))
        first = page.columns(ids, lane, number) if ids else [lane, number]
        recorded = await self._write(conn, first, books=bool(ids))
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
            rows = [change.row for _, change in changes]
            if step is Step.CLAIM:
                rows.sort(key=_key)  # every lane waits for others' keys in one order
            yield kind, rows

    def _leave_out(self, changes: Numbered, wrong: Callable[[Row], Left | None]) -> None:
        for n, change in changes:
            left = wrong(change.row)
            if left is not None:
                self._left.setdefault(n, left)

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

    async def _lock(self, conn: asyncpg.Connection) -> Page:
        """Ask the checks, lock rows and accounts, leave out whom they refuse; then the floors."""
        asked = [*self._changes(Step.CHECK), *self._changes(Step.MOVE)]
        values = [sorted({str(change.row[0]) for _, change in changes}) for _, changes in asked]
        drafts = [draft for n in self._living() for draft in self._drafts[n]]
        balances: list[asyncpg.Record] = []
        if asked:
            balances = await self._ask(conn, asked, values, drafts)
        elif drafts:
            balances = await conn.fetch(q.LOCK_BALANCES, *places(drafts))
        page = Page(balances)
        for n in self._living():
            broken = page.add(self._drafts[n])
            if broken is not None:
                self._left[n] = broken
        return page

    async def _ask(
        self, conn: asyncpg.Connection, asked: Sequence[tuple[Kind, Numbered]],
        values: Sequence[Sequence[str]], drafts: Sequence[Draft],
    ) -> list[asyncpg.Record]:  # fmt: skip
        """One round trip for all checks and locks; returns the balances that it locked."""
        sql = locking(tuple([kind for kind, _ in asked]), accounts=bool(drafts))
        found: dict[int, list[asyncpg.Record]] = {}
        for row in await conn.fetch(sql, *values, *(places(drafts) if drafts else ())):
            found.setdefault(row["part"], []).append(row)
        for n, (kind, changes) in enumerate(asked):
            rows = found.get(n, [])
            if kind.step is Step.MOVE:
                wrong = _stale(kind, {row["key"]: row["version"] for row in rows})
            else:
                wrong = _missing(kind, {row["key"] for row in rows})
            self._leave_out(changes, wrong)
        return found.get(ACCOUNTS, [])

    async def _write(
        self, conn: asyncpg.Connection, first: Sequence[object], *, books: bool
    ) -> datetime | None:
        """Everything that is left, in one round trip but for kinds that cannot share one."""
        kinds = [*self._rows(Step.CLAIM), *self._rows(Step.MOVE), *self._rows(Step.INSERT)]
        shared = [(kind, rows) for kind, rows in kinds if may_share(kind)]
        sql = writing(tuple([(kind, len(rows[0])) for kind, rows in shared]), books=books)
        columns = [column for _, rows in shared for column in _columns(rows)]
        row = await conn.fetchrow(sql, *first, *columns)
        if not row["written"]:
            raise Taken
        if not row["advanced"]:
            raise Overtaken(first)
        for n, (kind, rows) in enumerate(shared):
            _require_count(kind, row[f"n{n}"], len(rows))
        for kind, rows in kinds:
            if not may_share(kind):
                await conn.execute(kind.sql, *_columns(rows))
        recorded: datetime | None = row["recorded"]
        return recorded

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


def _require_count(kind: Kind, count: int, rows: int) -> None:
    """A claim that made fewer rows met a taken key; a move of locked rows is a wrong statement."""
    if count == rows:
        return
    if kind.step is Step.CLAIM:
        raise Taken
    if kind.step is Step.MOVE and kind.sql.lstrip()[:6].upper() == "UPDATE":
        raise Miscounted(f"{kind.name} moved {count} of {rows} rows")
