"""The lane: every waiting unit of work of this replica in one transaction, again and again.

Knows batches: which units may share one, the order of steps and locks, who is left out and why,
what to do when a statement fails or the answer to a commit is lost. Refuses to know what any unit
means: rooms contribute the statements (`units.py`), the journal writes the postings.

A unit is acknowledged after the commit that holds it and never before. What happens when the
server goes away: the batch stays in memory, a new connection asks the lane's own row whether the
batch is in the books, and it is acknowledged or written again accordingly.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Protocol

import asyncpg
import msgspec

from ledger import queries as q
from ledger.journal import Draft, Numbers, Page, Taken, in_books, open_page, repeated
from ledger.units import Change, Done, Kind, Left, Step, Unit, Why

log = logging.getLogger("ledger.lane")

# The transaction failed for reasons that pass: the same batch may be written again.
PASSING = ("40001", "40P01", "55P03", "57014", "25P03", "25P04", "57P01", "57P02", "57P03", "53300")
Answer = Done | Left


class LaneFull(Exception):
    """Too many units wait already; nothing was taken."""


class LaneClosed(Exception):
    """The lane is ending; nothing was taken."""


class LaneFailed(Exception):
    """The database refuses this unit, alone and every time: a bug in what was handed in.

    `sqlstate` says why. Nothing of the unit was written, its neighbours were.
    """

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(f"{sqlstate}: {message}")
        self.sqlstate = sqlstate


class LaneLimits(msgspec.Struct, frozen=True):
    """Limits of a lane. The transaction limit is what closes the horizon of reads as of a time."""

    batch_max: int = 500
    queue_max: int = 20_000
    transaction_s: float = 2.0
    redial_s: float = 0.2
    redial_max_s: float = 2.0


class Observer(Protocol):
    """Hears of each committed batch."""

    def batch(self, units: int, left: int, seconds: float) -> None: ...


class _Waiting(msgspec.Struct, eq=False):
    unit: Unit
    keys: frozenset[tuple[object, ...]]
    answer: asyncio.Future[Answer]


class Lane:
    """Group commit over one connection.

    name      unique among running lanes; the id of the lane's row
    connect   opens a connection with the daemon's role and the writers' time limits
    clock     monotonic seconds
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Awaitable[asyncpg.Connection]],
        numbers: Numbers,
        clock: Callable[[], float],
        limits: LaneLimits = LaneLimits(),  # noqa: B008 frozen
        observer: Observer | None = None,
    ) -> None:
        self.name = name
        self._connect = connect
        self._numbers = numbers
        self._clock = clock
        self._limits = limits
        self._observer = observer
        self._queue: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._batch = 0
        self._conn: asyncpg.Connection | None = None

    @property
    def waiting(self) -> int:
        """Units that wait for the next batch."""
        return len(self._queue)

    def submit(self, unit: Unit) -> asyncio.Future[Answer]:
        """Hand a unit in; the answer comes after its commit.

        Cancelling the wait does not take the unit back. Raises LaneFull or LaneClosed at once; the
        answer may raise LaneFailed.
        """
        if self._closing:
            raise LaneClosed(self.name)
        if len(self._queue) >= self._limits.queue_max:
            raise LaneFull(f"{len(self._queue)} units wait")
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(unit, _keys(unit), answer))
        self._wake.set()
        return answer

    async def run(self) -> None:
        """Commit batches until `close`; what was handed in before is still written."""
        await self._redial()
        try:
            while self._queue or not self._closing:
                if not self._queue:
                    self._wake.clear()
                    await self._wake.wait()
                    await asyncio.sleep(0)  # let the callers just answered join this batch
                    continue
                await self._serve(self._take())
                await asyncio.sleep(0)
        finally:
            await self._end()

    def close(self) -> None:
        """Take nothing more; `run` returns when all that waits is written."""
        self._closing = True
        self._wake.set()

    def _take(self) -> list[_Waiting]:
        """The next batch: in order, no two units that move or claim the same thing."""
        batch: list[_Waiting] = []
        later: list[_Waiting] = []
        taken: set[tuple[object, ...]] = set()
        while self._queue and len(batch) < self._limits.batch_max:
            waiting = self._queue.popleft()
            if waiting.keys.isdisjoint(taken):
                batch.append(waiting)
            else:
                later.append(waiting)
            taken |= waiting.keys
        self._queue.extendleft(reversed(later))
        return batch

    async def _serve(self, batch: list[_Waiting]) -> None:
        """Write a batch and answer it; on a poison unit halve until it stands alone."""
        started = self._clock()
        try:
            answers = await self._until_written(batch)
        except asyncpg.PostgresError as refused:
            if len(batch) == 1:
                state = refused.sqlstate or "XX000"
                log.error(
                    "lane.unit_refused", extra={"facts": {"state": state, "why": str(refused)}}
                )
                _answer(batch[0], LaneFailed(state, str(refused)))
                return
            middle = len(batch) // 2
            await self._serve(batch[:middle])
            await self._serve(batch[middle:])
            return
        for waiting, answer in zip(batch, answers, strict=True):
            _answer(waiting, answer)
        if self._observer is not None:
            left = sum(isinstance(answer, Left) for answer in answers)
            self._observer.batch(len(batch), left, self._clock() - started)

    async def _until_written(self, batch: Sequence[_Waiting]) -> list[Answer]:
        """Write the batch through lost connections, deadlocks and stolen keys."""
        units = [waiting.unit for waiting in batch]
        look = False
        while True:
            self._batch += 1
            writing = _Writing(units, self._numbers, look)
            conn = await self._connection()
            try:
                return await self._transaction(conn, writing)
            except Taken:
                look = True
            except asyncpg.PostgresError as error:
                if error.sqlstate not in PASSING and not isinstance(
                    error, asyncpg.PostgresConnectionError
                ):
                    raise
                log.warning("lane.retry", extra={"facts": {"state": error.sqlstate}})
            except (OSError, asyncpg.InterfaceError, TimeoutError) as error:
                log.warning("lane.connection_lost", extra={"facts": {"why": repr(error)}})
                await self._redial()
            if writing.answers is not None and await self._committed():
                return writing.answers

    async def _transaction(self, conn: asyncpg.Connection, writing: _Writing) -> list[Answer]:
        """One try. `writing.answers` is set before COMMIT leaves, for when its answer is lost."""
        began = self._clock()
        await writing.number(conn)
        await conn.execute("BEGIN")
        try:
            answers = await writing.write(conn)
            await conn.execute(q.ADVANCE_LANE, self.name, self._batch)
            if self._clock() - began > self._limits.transaction_s:
                raise asyncpg.QueryCanceledError("the transaction is over its time limit")
            writing.answers = answers
            await conn.execute("COMMIT")
        except BaseException:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                if not conn.is_closed():
                    await conn.execute("ROLLBACK")
            raise
        return answers

    async def _committed(self) -> bool:
        """Whether the last batch is in the books, asked of the lane's own row."""
        while True:
            conn = await self._connection()
            try:
                reached: int | None = await conn.fetchval(q.LANE_BATCH, self.name)
            except (OSError, asyncpg.InterfaceError, asyncpg.PostgresError) as error:
                log.warning("lane.asking_again", extra={"facts": {"why": repr(error)}})
                await self._redial()
            else:
                assert reached is not None, "the lane's row is gone: nothing may be guessed"
                return reached >= self._batch

    async def _connection(self) -> asyncpg.Connection:
        if self._conn is None or self._conn.is_closed():
            await self._redial()
        assert self._conn is not None
        return self._conn

    async def _redial(self) -> None:
        """Connect, however long it takes; the first time also open the lane's row."""
        await self._drop()
        pause = self._limits.redial_s
        while True:
            try:
                self._conn = await self._connect()
                if self._batch == 0:
                    await self._conn.execute(q.OPEN_LANE, self.name)
                return
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                log.warning("lane.dialling", extra={"facts": {"why": repr(error)}})
                await self._drop()
                await asyncio.sleep(pause)
                pause = min(pause * 2, self._limits.redial_max_s)

    async def _drop(self) -> None:
        if self._conn is not None:
            self._conn.terminate()
            self._conn = None

    async def _end(self) -> None:
        """Leave no row and no caller behind."""
        if self._conn is not None and not self._conn.is_closed():
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await self._conn.execute(q.CLOSE_LANE, self.name)
                await self._conn.close(timeout=1)
        await self._drop()
        while self._queue:
            _answer(self._queue.popleft(), LaneClosed(self.name))


class _Writing:
    """One try at one batch. Steps follow `Step`'s order; a unit left out early costs no later one."""

    def __init__(self, units: Sequence[Unit], numbers: Numbers, look: bool) -> None:
        self._units = units
        self._numbers = numbers
        self._look = look
        self._left: dict[int, Left] = {}
        self._drafts: list[Sequence[Draft]] = []
        self.answers: list[Answer] | None = None

    async def number(self, conn: asyncpg.Connection) -> None:
        """Number accounts before the transaction, so that opening one holds no lock in it."""
        drafts = await self._numbers.draft(conn, [e for unit in self._units for e in unit.entries])
        mine = iter(drafts)
        self._drafts = [[next(mine) for _ in unit.entries] for unit in self._units]

    async def write(self, conn: asyncpg.Connection) -> list[Answer]:
        """Everything between BEGIN and COMMIT."""
        await self._check(conn)
        if self._look:
            await self._look_for_keys(conn)
        await self._lock_rows(conn)
        page, recorded, ids = await self._books(conn)
        for kind, rows in self._by_kind(Step.CLAIM):
            if len(await conn.fetch(kind.sql, *_columns(rows))) < len(rows):
                raise Taken
        for step in (Step.MOVE, Step.INSERT):
            for kind, rows in self._by_kind(step):
                await conn.execute(kind.sql, *_columns(rows))
        return self._answers(recorded, ids)

    def _alive(self) -> Iterable[tuple[int, Unit]]:
        return [(n, unit) for n, unit in enumerate(self._units) if n not in self._left]

    def _by_kind(self, step: Step) -> list[tuple[Kind, list[tuple[object, ...]]]]:
        """The rows of living units for each kind of this step, kinds by name, keyed rows by key."""
        rows: dict[str, tuple[Kind, list[tuple[object, ...]]]] = {}
        for _, unit in self._alive():
            for change in unit.changes:
                if change.kind.step is step:
                    rows.setdefault(change.kind.name, (change.kind, []))[1].append(change.row)
        found = [rows[name] for name in sorted(rows)]
        if step is not Step.INSERT:
            for _, lines in found:
                lines.sort(key=lambda row: str(row[0]))
        return found

    def _leave_out(self, step: Step, kind: Kind, wrong: Callable[[Change], Left | None]) -> None:
        for n, unit in self._alive():
            for change in unit.changes:
                if change.kind.name == kind.name and change.kind.step is step:
                    left = wrong(change)
                    if left is not None:
                        self._left.setdefault(n, left)

    async def _check(self, conn: asyncpg.Connection) -> None:
        for kind, rows in self._by_kind(Step.CHECK):
            wanted = sorted({str(row[0]) for row in rows})
            holds = {row[0] for row in await conn.fetch(kind.sql, wanted)}

            def wrong(change: Change, holds: set[str] = holds) -> Left | None:
                value = str(change.row[0])
                return None if value in holds else Left(Why.CHECK, change.kind.name, value)

            self._leave_out(Step.CHECK, kind, wrong)

    async def _look_for_keys(self, conn: asyncpg.Connection) -> None:
        """After a key was taken from under us: find which, and leave those units out."""
        for kind, rows in self._by_kind(Step.CLAIM):
            taken = {row[0]: row for row in await conn.fetch(kind.look, [row[0] for row in rows])}

            def wrong(change: Change, taken: dict[str, asyncpg.Record] = taken) -> Left | None:
                held = taken.get(str(change.row[0]))
                if held is None:
                    return None
                return Left(Why.CLAIMED, change.kind.name, str(change.row[0]), dict(held))

            self._leave_out(Step.CLAIM, kind, wrong)
        drafts = [draft for n, _ in self._alive() for draft in self._drafts[n]]
        held = await in_books(conn, drafts) if drafts else {}
        for n, _ in self._alive():
            left = repeated(self._drafts[n], held)
            if left is not None:
                self._left[n] = left

    async def _lock_rows(self, conn: asyncpg.Connection) -> None:
        for kind, rows in self._by_kind(Step.MOVE):
            found = await conn.fetch(kind.look, [row[0] for row in rows])
            versions = {row["id"]: row["version"] for row in found}

            def wrong(change: Change, versions: dict[str, int] = versions) -> Left | None:
                ident, expected = change.row[0], change.row[1]
                if versions.get(str(ident)) == expected:
                    return None
                seen = {"version": versions.get(str(ident))}
                return Left(Why.STALE, change.kind.name, str(ident), seen)

            self._leave_out(Step.MOVE, kind, wrong)

    async def _books(
        self, conn: asyncpg.Connection
    ) -> tuple[Page | None, datetime | None, Sequence[int]]:
        """Lock accounts, check floors, write entries, balances and postings."""
        drafts = [draft for n, _ in self._alive() for draft in self._drafts[n]]
        if not drafts:
            return None, None, ()
        ids = await self._numbers.entry_ids(conn, len(drafts))
        page = await open_page(conn, drafts)
        for n, _ in self._alive():
            broken = page.add(self._drafts[n])
            if broken is not None:
                self._left[n] = broken
        ids = ids[: len(page.drafts)]
        recorded = await page.write(conn, ids) if ids else None
        return page, recorded, ids

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


def _keys(unit: Unit) -> frozenset[tuple[object, ...]]:
    """What no two units of one batch may share: rows moved, keys claimed, entries' keys."""
    rows = [
        (change.kind.name, change.row[0])
        for change in unit.changes
        if change.kind.step in (Step.MOVE, Step.CLAIM)
    ]
    return frozenset([*rows, *[(e.book, e.kind, e.key) for e in unit.entries]])


def _columns(rows: Sequence[tuple[object, ...]]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _answer(waiting: _Waiting, answer: Answer | Exception) -> None:
    if waiting.answer.done():  # the caller went away; its unit did not
        return
    if isinstance(answer, Exception):
        waiting.answer.set_exception(answer)
    else:
        waiting.answer.set_result(answer)
