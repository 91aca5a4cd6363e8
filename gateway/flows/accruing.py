"""Accruing: the owner of a book turns its landed deals into what partners earn, batch after batch.

Knows where deals and inputs are read, when to look again, and what ends an attempt: inputs that
moved, a server that is away or slow, a newer owner. Refuses to compute and to write
(`ledger/rebates`), and to pass a deal over: one that cannot be accrued stops its book, with an
item, until it can.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime, time
from typing import Final, Protocol

import asyncpg

from config.log import event
from gateway.control.items import item_opened
from gateway.flows.faults import Patience, away
from gateway.flows.known_inputs import KnownInputs, ReadAttributions, ReadContracts, Reattributed
from gateway.flows.outbox import Submit
from gateway.flows.pace import Pace
from gateway.owners import Ownership
from ledger import deals
from ledger.ids import Ids
from ledger.journal import Numbers
from ledger.rebates import inputs
from ledger.rebates.accrual import DEALS_MAX
from ledger.rebates.days import MIDNIGHT
from ledger.rebates.pipeline import Pipeline
from ledger.rebates.writer import Committed, Fenced, Moved
from ledger.units import Unit

log = logging.getLogger("gateway.accruing")

AWAY_FIRST_S, AWAY_MAX_S = 0.25, 5.0
AGAIN_S: Final = 0.2
STOPPED_S: Final = 10.0  # how long until a book that is stopped is tried again
AWAY_MAX: Final = 5  # so often the world failed in a row before readiness says so
MOVED_S: Final = 0.02  # whoever moves the inputs has a turn meanwhile
MOVED_MAX: Final = 2  # so often in a row nothing could be written because inputs moved
SHARED_S: Final = 0.25  # how long nobody else may move them then
SHARED_DEALS: Final = 200  # in a batch of that time: a command never waits long

Connect = Callable[[], Awaitable[asyncpg.Connection]]


class Observer(Protocol):
    """What is counted of a committed batch."""

    def accrued(self, batch: Committed, seconds: float) -> None:
        """A batch is in the books, so long after its deals were read."""
        ...


class Overtaken(Exception):
    """A newer owner holds the book."""


class Accruing:
    """One book while we own it.

    connect       opens a connection that writes to the books
    contracts, attributions, reattributed   as `KnownInputs` asks for them
    tell          hears of each batch after its commit
    entity        the legal entity of the book: whose people see an item
    poll_s        how often to look for deals that nobody woke us for: another process landed them
    cut_off       where its settlement periods end, UTC
    """

    def __init__(
        self,
        *,
        book: int,
        entity: str,
        ownership: Ownership,
        connect: Connect,
        pool: asyncpg.Pool,
        lane: Submit,
        contracts: ReadContracts,
        attributions: ReadAttributions,
        reattributed: Reattributed,
        tell: Callable[[Committed], None],
        observer: Observer,
        ids: Ids,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        deals_max: int = DEALS_MAX,
        cut_off: time = MIDNIGHT,
        poll_s: float = 0.5,
    ) -> None:
        self.book = book
        self._entity = entity
        self._ownership = ownership
        self._connect = connect
        self._pool = pool
        self._lane = lane
        self._tell = tell
        self._observer = observer
        self._ids = ids
        self._now = now
        self._monotonic = monotonic
        self._deals_max = deals_max
        self._cut_off = cut_off
        self._poll_s = poll_s
        self._known = KnownInputs(book, contracts, attributions, reattributed)
        self._pace = Pace(deals_max)
        self._numbers = Numbers()
        self._links: list[asyncpg.Connection] = []
        self._wake = asyncio.Event()
        self._patience = Patience()
        self._handed: deque[tuple[int, int, float]] = deque()  # feed, last deal, when it was read
        self._stopped = ""
        self._batches = 0  # committed by this object
        self._moved = 0  # attempts in a row that inputs ended before anything was written
        self._away = 0  # attempts in a row that the world ended
        self._away_s = AWAY_FIRST_S

    def wake(self) -> None:
        """Deals of this book were just landed here."""
        self._wake.set()

    def trouble(self) -> str:
        """Why the book is stopped; "" while it is not, or another replica owns it."""
        return self._stopped if self._ownership.held else ""

    async def run(self) -> None:
        """Accrue until cancelled; returns when a newer owner holds the book."""
        self._well()
        try:
            while True:
                await self._attempt()
        except Overtaken as overtaken:
            event(log, "accruing.fenced", book=self.book, why=str(overtaken))
        finally:
            self._begin_anew()

    async def _attempt(self) -> None:
        """Accrue until something fails; what fails in a way of its own stops this book only."""
        try:
            await self._life()
        except Moved as moved:
            event(log, "accruing.inputs_moved", book=self.book, why=str(moved))
            await asyncio.sleep(MOVED_S)
        except Exception as error:
            self._begin_anew()
            if isinstance(error, Overtaken):
                raise
            if away(error):
                await self._wait_out(error)
            else:
                await self._failed(error)

    async def _wait_out(self, error: Exception) -> None:
        """Let the world come back, and ask less of it: what ended us may have been our own batch.

        A newer server ends a connection whose transaction takes too long, and looks merely gone.
        """
        event(log, "accruing.world_away", book=self.book, why=repr(error), deals=self._pace.deals)
        self._pace.failed()
        self._away += 1
        if self._away >= AWAY_MAX:
            self._stop(error)
        await asyncio.sleep(self._away_s)
        self._away_s = min(2 * self._away_s, AWAY_MAX_S)

    async def _failed(self, error: Exception) -> None:
        """Try once more, and after some times in a row tell people.

        Fenced is among it: no newer owner holds the book, and still it is not where we left it.
        """
        log.error("accruing.failed", exc_info=error, extra={"facts": {"book": self.book}})
        if self._patience.lost(self.book):
            self._stop(error)
            await self._say_stopped()
        await asyncio.sleep(STOPPED_S if self._stopped else AGAIN_S)

    async def _life(self) -> None:
        """Accrue from where the rows say we stand, with inputs as they are."""
        first, second = await self._connected()
        while self._moved >= MOVED_MAX:
            await self._shared(first, second)
            await asyncio.sleep(MOVED_S)
        begun, alone = self._batches, not self._pace.whole  # two at once are slower than one
        pipeline = await self._opened(first, None if alone else second)
        try:
            await self._flow(pipeline, alone=alone)
        except Moved:
            self._moved = 1 if self._batches > begun else self._moved + 1
            await pipeline.settle()
            raise
        finally:
            await pipeline.abandon()

    async def _flow(self, pipeline: Pipeline, *, alone: bool) -> None:
        """Take what there is, and wait for more; returns when another pipeline would do better."""
        while not (alone and self._pace.whole):
            self._wake.clear()
            if not await self._turn(pipeline, self._pace.deals):
                await pipeline.drain()
                self._well()
                await self._pause()
        await pipeline.drain()

    async def _shared(self, holder: asyncpg.Connection, conn: asyncpg.Connection) -> None:
        """Accrue for a moment in which nobody moves the inputs.

        Whoever moves them again and again would otherwise be faster than every batch. `holder` only
        keeps them: the batches ask for themselves, should it be lost.
        """
        before = self._known.version
        await self._known.read(conn)  # most of it while nobody waits for us
        async with holder.transaction():
            await inputs.share(holder, self.book)
            began, any_taken = self._monotonic(), True
            pipeline = await self._opened(conn, None)
            try:
                while any_taken and self._monotonic() - began < SHARED_S:
                    any_taken = await self._turn(pipeline, min(SHARED_DEALS, self._pace.deals))
                    await pipeline.drain()
            finally:
                await pipeline.abandon()
        if not any_taken or self._known.version == before:
            self._moved = 0

    async def _connected(self) -> list[asyncpg.Connection]:
        """Two connections; those of the last attempt where they are still of use."""
        self._links = [each for each in self._links if not each.is_closed()]
        while len(self._links) < 2:
            self._links.append(await self._connect())
        return self._links

    def _begin_anew(self) -> None:
        """Keep nothing for the next attempt: whatever failed may be in it."""
        for each in self._links:
            each.terminate()
        self._links, self._numbers = [], Numbers()
        self._known.forget()
        self._moved = 0  # all is read anew, which is too long for others to wait for

    async def _opened(
        self, conn: asyncpg.Connection, second: asyncpg.Connection | None
    ) -> Pipeline:
        """A pipeline at the book's position; what it writes is refused if inputs move meanwhile."""
        self._handed.clear()
        found = await self._known.read(conn)
        try:
            return await Pipeline.open(
                conn, self._numbers, self.book, self._ownership.epoch, found, self._monotonic,
                self._committed, self._deals_max, second, self._known.learned, self._cut_off,
            )  # fmt: skip
        except Fenced as fenced:
            raise Overtaken(str(fenced)) from fenced

    async def _turn(self, pipeline: Pipeline, deals_max: int) -> bool:
        """Take the next deals of each feed; whether there were any."""
        any_taken = False
        async with self._pool.acquire() as reader:
            feeds = await deals.feeds_of(reader, self.book)
        for feed, server, landed in feeds:
            reached = pipeline.reached(feed)
            if reached >= landed:
                continue
            any_taken = True
            began = self._monotonic()
            async with self._pool.acquire() as reader:
                taken = await deals.after(reader, self.book, feed, reached, deals_max)
                await self._known.learn(reader, feed, server, taken)
            self._handed.append((feed, taken[-1].no, began))
            await pipeline.accrue(feed, taken)
        return any_taken

    def _committed(self, batch: Committed) -> None:
        self._well()
        self._batches += 1
        seconds = self._monotonic() - self._read(batch)
        self._pace.committed(batch.deals, seconds)
        self._observer.accrued(batch, seconds)
        self._tell(batch)

    def _well(self) -> None:
        """Whatever failed before is over."""
        self._stopped, self._away, self._away_s = "", 0, AWAY_FIRST_S
        self._patience.forget(self.book)

    def _stop(self, error: Exception) -> None:
        """Have readiness name what is in the way."""
        self._stopped = f"{type(error).__name__}: {error}"[:300].replace("\0", "")

    def _read(self, batch: Committed) -> float:
        """When the deals of a batch were read."""
        while self._handed:
            feed, last, began = self._handed[0]
            if feed == batch.feed and batch.reached <= last:
                return began
            self._handed.popleft()
        return self._monotonic()

    async def _say_stopped(self) -> None:
        item = item_opened(
            self._ids.new("IT"), "accrual-stopped", "platform", f"book:{self.book}",
            self._stopped, self._now(), entity=self._entity,
        )  # fmt: skip
        await self._lane.submit(Unit((item,)))

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._poll_s):
                await self._wake.wait()
        except TimeoutError:
            return
