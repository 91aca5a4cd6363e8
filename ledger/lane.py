"""The lane: every waiting unit of work of this replica in one transaction, again and again.

Knows batches: which units may share one, what to do when a statement fails, when the server goes
away and when the answer to a commit is lost. Refuses to know what any unit means: rooms contribute
the statements (`units.py`), `batch.py` runs them in order, the journal writes the postings.

A unit is acknowledged after the commit that holds it and never before. What happens when the
server goes away: the batch stays in memory, a new connection asks the lane's own row whether the
batch is in the books, and it is acknowledged or written again accordingly.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

import asyncpg
import msgspec

from ledger import queries as q
from ledger.batch import Answer, Batch, Miscounted
from ledger.connections import TRANSACTION_S
from ledger.journal import Numbers, Overtaken, Taken, require_distinct
from ledger.units import Left, Step, Unit

__all__ = [
    "Answer",
    "Lane",
    "LaneClosed",
    "LaneFailed",
    "LaneFull",
    "LaneLimits",
    "LaneLost",
    "Observer",
]

log = logging.getLogger("ledger.lane")

# By SQLSTATE or its class. The server or the way to it is unwell: wait and write the batch again.
UNWELL: Final = ("08", "53", "57P", "58", "25P03", "25006")
# The transaction took too long or waited too long for a lock: try a smaller one.
SLOW: Final = ("57014", "25P04", "55P03")
# Two writers met: the same batch may pass at the next try.
MET: Final = ("40001", "40P01")
GONE: Final = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)
ASKING_MAX_S: Final = 5.0
BAD_VALUE: Final = "22000"
WRONG_STATEMENT: Final = "XX000"
KEY_TAKEN: Final = "23505"
# Plans are made anew after this many units, and each time this many times more are written.
PLANS_FIRST: Final = 64
PLANS_GROWTH: Final = 4


class LaneFull(Exception):
    """Too many units wait already; nothing was taken."""


class LaneClosed(Exception):
    """The lane is ending or has ended; nothing was taken."""


class LaneFailed(Exception):
    """The database refuses this unit, alone and every time: a bug in what was handed in.

    `sqlstate` says why. Nothing of the unit was written, its neighbours were.
    """

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(f"{sqlstate}: {message}")
        self.sqlstate = sqlstate


class LaneLost(Exception):
    """The lane was ended while it wrote this unit: whether it is in the books must be read."""


class LaneLimits(msgspec.Struct, frozen=True):
    """Limits of a lane. The transaction limit is what closes the horizon of reads as of a time.

    batch_max   units in one transaction
    scan_max    waiting units looked at to fill a batch, when neighbours move the same rows
    queue_max   units that may wait
    tries_max   tries at a batch that meets other writers before it is halved, and at a unit that is
                slow alone before it is refused
    """

    batch_max: int = 500
    scan_max: int = 2_000
    queue_max: int = 20_000
    tries_max: int = 5
    transaction_s: float = TRANSACTION_S
    redial_s: float = 0.2
    redial_max_s: float = 2.0


class Observer(Protocol):
    """Hears of each committed batch."""

    def batch(self, units: int, left: int, seconds: float) -> None:
        """`units` were answered, `left` of them left out; `seconds` from taking to answering."""


class _Waiting(msgspec.Struct, eq=False):
    unit: Unit
    keys: frozenset[tuple[object, ...]]
    answer: asyncio.Future[Answer]
    slow: int = 0  # times it was too slow alone; from the first on it rides alone


class _Poisoned(Exception):
    """The batch cannot be written as it is: halve it, or refuse the unit that stands alone."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class Lane:
    """Group commit over one connection.

    name      unique among all lanes that ever run at the same time; the id of the lane's row
    connect   opens a connection with the daemon's role and the writers' limits (`connections.py`)
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
        self._writing: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._reached = 0  # the number of the last batch that is known to be in the books
        self._opened = False
        self._units = 0
        self._plans_due = PLANS_FIRST
        self._conn: asyncpg.Connection | None = None

    @property
    def waiting(self) -> int:
        """Units that wait for the next batch."""
        return len(self._queue)

    def submit(self, unit: Unit) -> asyncio.Future[Answer]:
        """Hand a unit in; the answer comes after its commit.

        Cancelling the wait does not take the unit back. Raises LaneFull or LaneClosed at once, and
        ValueError for a unit that contradicts itself; the answer may raise LaneFailed or LaneLost.
        """
        if self._closing:
            raise LaneClosed(self.name)
        if len(self._queue) >= self._limits.queue_max:
            raise LaneFull(f"{len(self._queue)} units wait")
        waiting = _Waiting(unit, _keys(unit), asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._wake.set()
        return waiting.answer

    async def run(self) -> None:
        """Commit batches until `close`; what was handed in before is still written."""
        try:
            await self._redial()
            while self._queue or not self._closing:
                if not self._queue:
                    self._wake.clear()
                    await self._wake.wait()
                await asyncio.sleep(0)  # let the callers just answered join this batch
                self._writing = self._take()
                await self._serve(self._writing)
                await self._renew_plans(len(self._writing))
                self._writing = []
        finally:
            await self._end()

    async def _renew_plans(self, units: int) -> None:
        """Have plans made anew as the tables grow: one made on an empty table may be a scan.

        The server does so itself when it analyses a table, which may be long after the first rush.
        """
        self._units += units
        if self._units < self._plans_due or self._conn is None:
            return
        self._plans_due = self._units * PLANS_GROWTH
        with suppress(asyncpg.PostgresError, *GONE):
            await self._conn.execute(q.FORGET_PLANS)

    def close(self) -> None:
        """Take nothing more; `run` returns when all that waits is written."""
        self._closing = True
        self._wake.set()

    def _take(self) -> list[_Waiting]:
        """The next batch: in order, no two units that move or claim the same thing."""
        if self._queue and self._queue[0].slow:
            return [self._queue.popleft()]
        batch: list[_Waiting] = []
        later: list[_Waiting] = []
        taken: set[tuple[object, ...]] = set()
        room, scan = self._limits.batch_max, self._limits.scan_max
        while self._queue and len(batch) < room and len(batch) + len(later) < scan:
            waiting = self._queue.popleft()
            fits = not waiting.slow and waiting.keys.isdisjoint(taken)
            (batch if fits else later).append(waiting)
            taken |= waiting.keys  # a unit put off keeps its place before those that follow it
        self._queue.extendleft(reversed(later))
        return batch

    async def _serve(self, batch: Sequence[_Waiting]) -> None:
        """Write a batch and answer it; halve it until the unit that spoils it stands alone."""
        if not batch:
            return
        started = self._clock()
        try:
            answers = await self._until_written([waiting.unit for waiting in batch])
        except _Poisoned as refused:
            await self._halve(batch, refused)
            return
        for waiting, answer in zip(batch, answers, strict=True):
            _answer(waiting, answer)
        if self._observer is not None:
            left = sum(isinstance(answer, Left) for answer in answers)
            self._observer.batch(len(batch), left, self._clock() - started)

    async def _halve(self, batch: Sequence[_Waiting], refused: _Poisoned) -> None:
        middle = len(batch) // 2
        if middle:
            await self._serve(batch[:middle])
            await self._serve(batch[middle:])
            return
        if refused.sqlstate in SLOW and batch[0].slow < self._limits.tries_max:
            batch[0].slow += 1
            self._queue.append(batch[0])  # its neighbours go first, it tries again alone
            return
        facts = {"state": refused.sqlstate, "why": str(refused)}
        log.error("lane.unit_refused", extra={"facts": facts})
        _answer(batch[0], LaneFailed(refused.sqlstate, str(refused)))

    async def _until_written(self, units: Sequence[Unit]) -> list[Answer]:
        """Write the batch through lost connections, deadlocks and stolen keys; or _Poisoned."""
        look, tries = False, 0
        while True:
            writing = _Try(Batch(units, self._numbers, look=look))
            try:
                return await self._transaction(await self._connection(), writing)
            except Taken:
                look, tries = True, tries + 1
                if tries > self._limits.tries_max:
                    raise _Poisoned(
                        KEY_TAKEN, "a key is taken that its look does not find"
                    ) from None
            except Overtaken:
                await self._reopen()
                if self._reached:  # zero: the row had been tidied away while nothing was written
                    raise RuntimeError(f"another lane writes as {self.name}") from None
            except Miscounted as error:
                raise _Poisoned(WRONG_STATEMENT, str(error)) from error
            except (asyncpg.PostgresError, *GONE) as error:
                if writing.answers is not None and await self._committed():
                    return writing.answers
                if getattr(error, "sqlstate", None) == KEY_TAKEN and not look:
                    look = True  # a row that goes with a taken key: ask first who holds it
                    continue
                tries = await self._after(error, tries)

    async def _after(self, error: Exception, tries: int) -> int:
        """Make ready for another try and return their count; raises _Poisoned where none helps."""
        state = getattr(error, "sqlstate", None)
        if isinstance(error, GONE) and not isinstance(error, ValueError):
            log.warning("lane.connection_lost", extra={"facts": {"why": repr(error)}})
            await self._redial()
            return tries
        if state is None:  # the driver could not encode a value: nothing was sent
            raise _Poisoned(BAD_VALUE, str(error)) from error
        log.warning("lane.refused", extra={"facts": {"state": state, "why": str(error)}})
        if state.startswith(UNWELL):
            await self._drop()
            await asyncio.sleep(self._limits.redial_s)
            return tries
        if state not in MET or tries >= self._limits.tries_max:
            raise _Poisoned(state, str(error)) from error
        return tries + 1

    async def _transaction(self, conn: asyncpg.Connection, writing: _Try) -> list[Answer]:
        """One try. `writing.answers` is set before COMMIT leaves, for when its answer is lost."""
        began = self._clock()
        number = self._reached + 1
        try:
            await writing.batch.number(conn)
            await conn.execute("BEGIN")
            answers = await writing.batch.write(conn, self.name, number)
            if self._clock() - began > self._limits.transaction_s:
                raise asyncpg.QueryCanceledError("the transaction is over its time limit")
            writing.answers = answers
            await conn.execute("COMMIT")
        except (Taken, Overtaken, Miscounted, asyncpg.PostgresError, asyncpg.InterfaceError):
            with suppress(asyncpg.PostgresError, *GONE):
                if not conn.is_closed() and conn.is_in_transaction():
                    await conn.execute("ROLLBACK")
            raise
        except BaseException:  # whatever was under way, the server ends it with the connection
            conn.terminate()
            raise
        self._reached = number
        return answers

    async def _committed(self) -> bool:
        """Whether the batch after the last known one is in the books, asked of the lane's row."""
        wanted = self._reached + 1
        await self._reopen()
        return self._reached == wanted

    async def _reopen(self) -> None:
        """Read how far the lane came; waits until the server has ended what we left behind."""
        pause = self._limits.redial_s
        while True:
            conn = await self._connection()
            try:
                self._opened = False
                await self._open(conn)
                return
            except (asyncpg.PostgresError, *GONE) as error:
                log.warning("lane.asking_again", extra={"facts": {"why": repr(error)}})
            await self._drop()
            await asyncio.sleep(pause)
            pause = min(pause * 2, ASKING_MAX_S)

    async def _open(self, conn: asyncpg.Connection) -> None:
        """Open the lane's row, or take up its number."""
        if self._opened:
            return
        before = self._reached
        self._reached = await conn.fetchval(q.LANE_REACHED, self.name)
        self._opened = True
        if before and self._reached not in (0, before, before + 1):
            raise RuntimeError(f"another lane writes as {self.name}: {self._reached} is not ours")

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
                await self._open(self._conn)
                return
            except (asyncpg.PostgresError, *GONE) as error:
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
        self._closing = True
        for waiting in self._writing:
            _answer(waiting, LaneLost(self.name))
        while self._queue:
            _answer(self._queue.popleft(), LaneClosed(self.name))
        if self._conn is not None and not self._conn.is_closed():
            with suppress(asyncpg.PostgresError, *GONE):
                await self._conn.execute(q.CLOSE_LANE, self.name)
                await self._conn.close(timeout=1)
        await self._drop()


class _Try:
    """One try at a batch; `answers` is set as soon as COMMIT may leave."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.answers: list[Answer] | None = None


def _keys(unit: Unit) -> frozenset[tuple[object, ...]]:
    """What no two units of one batch may share: rows moved, keys claimed, entries' keys.

    Two kinds of one table move the same rows, so a row's key is its table's. Raises ValueError for
    a unit that names one of them twice: it could only be written in part.
    """
    rows = [
        (change.kind.name.rpartition(".")[0], str(change.row[0]))
        for change in unit.changes
        if change.kind.step is Step.MOVE or change.kind.step is Step.CLAIM
    ]
    keys: frozenset[tuple[object, ...]] = frozenset(
        [*rows, *[(e.book, e.kind, e.key) for e in unit.entries]]
    )
    if len(keys) < len(rows) + len(unit.entries):
        require_distinct(unit.entries)
        raise ValueError(f"one row twice in one unit: {rows}")
    return keys


def _answer(waiting: _Waiting, answer: Answer | Exception) -> None:
    if waiting.answer.done():  # the caller went away; its unit did not
        return
    if isinstance(answer, Exception):
        waiting.answer.set_exception(answer)
    else:
        waiting.answer.set_result(answer)
