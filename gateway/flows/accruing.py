"""Accruing: the owner of a book turns its landed deals into what partners earn, batch after batch.

Knows where deals and inputs are read, when to look again, and what ends an attempt: inputs that
moved, a server that is away, a newer owner. Refuses to compute and to write (`ledger/rebates`), and
to pass a deal over: one that cannot be accrued stops its book, with an item, until it can.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol

import asyncpg

from config.log import event
from gateway.control.items import item_opened
from gateway.flows.faults import Patience, away
from gateway.flows.outbox import Submit
from gateway.owners import Ownership
from ledger import deals
from ledger.deals import LandedDeal
from ledger.ids import Ids
from ledger.journal import Numbers
from ledger.rebates import inputs
from ledger.rebates.accrual import DEALS_MAX
from ledger.rebates.inputs import Contract, Dated, Inputs
from ledger.rebates.pipeline import Pipeline
from ledger.rebates.writer import Committed, Fenced, Moved
from ledger.units import Unit

log = logging.getLogger("gateway.accruing")

POLL_S: Final = 0.5
AWAY_FIRST_S, AWAY_MAX_S = 0.25, 5.0
AGAIN_S: Final = 0.2
STOPPED_S: Final = 10.0  # how long until a book that is stopped is tried again

Connect = Callable[[], Awaitable[asyncpg.Connection]]
ReadContracts = Callable[[asyncpg.Connection, int], Awaitable[Sequence[Contract]]]
ReadAttributions = Callable[
    [asyncpg.Connection, str, Sequence[int]], Awaitable[Mapping[int, Dated]]
]


class Observer(Protocol):
    """What is counted of a committed batch."""

    def accrued(self, batch: Committed, seconds: float) -> None:
        """A batch is in the books, so long after its deals were read."""
        ...


class Accruing:
    """One book while we own it.

    connect       opens a connection that writes to the books
    contracts     reads a book's contracts as they are
    attributions  reads whose clients logins of a server are, dated
    tell          hears of each batch after its commit
    entity        the legal entity of the book: whose people see an item
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
        tell: Callable[[Committed], None],
        observer: Observer,
        ids: Ids,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        deals_max: int = DEALS_MAX,
    ) -> None:
        self.book = book
        self._entity = entity
        self._ownership = ownership
        self._connect = connect
        self._pool = pool
        self._lane = lane
        self._contracts = contracts
        self._attributions = attributions
        self._tell = tell
        self._observer = observer
        self._ids = ids
        self._now = now
        self._monotonic = monotonic
        self._deals_max = deals_max
        self._wake = asyncio.Event()
        self._patience = Patience()
        self._handed: deque[tuple[int, int, float]] = deque()  # feed, last deal, when it was read
        self._stopped = ""
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
        while True:
            try:
                await self._attempt()
            except Moved as moved:
                event(log, "accruing.inputs_moved", book=self.book, why=str(moved))
            except Fenced as fenced:
                event(log, "accruing.fenced", book=self.book, why=str(fenced))
                return
            except Exception as error:
                if not away(error):
                    raise
                event(log, "accruing.world_away", book=self.book, why=repr(error))
                await asyncio.sleep(self._away_s)
                self._away_s = min(2 * self._away_s, AWAY_MAX_S)

    async def _attempt(self) -> None:
        """Accrue until something fails; what fails in a way of its own stops this book only."""
        try:
            await self._life()
        except (Moved, Fenced):
            raise
        except Exception as error:
            if away(error):
                raise
            log.exception("accruing.failed", extra={"facts": {"book": self.book}})
            if self._patience.lost(self.book):
                self._stopped = f"{type(error).__name__}: {error}"[:300].replace("\0", "")
                await self._say_stopped()
            await asyncio.sleep(STOPPED_S if self._stopped else AGAIN_S)

    async def _life(self) -> None:
        """Accrue from where the rows say we stand, with inputs as they are, on two connections."""
        conn = await self._connect()
        second: asyncpg.Connection | None = None
        pipeline: Pipeline | None = None
        try:
            second = await self._connect()
            pipeline = await self._opened(conn, second)
            while True:
                self._wake.clear()
                if not await self._turn(pipeline):
                    await pipeline.drain()
                    self._well()
                    await self._pause()
        finally:
            if pipeline is not None:
                await pipeline.abandon()
            for each in (conn, second):
                if each is not None:
                    each.terminate()

    async def _opened(self, conn: asyncpg.Connection, second: asyncpg.Connection) -> Pipeline:
        """A pipeline at the book's position; what it writes is refused if inputs move meanwhile."""
        self._handed.clear()
        version = await inputs.version(conn, self.book)  # before the rows, which may be newer
        contracts = await self._contracts(conn, self.book)
        found = Inputs(
            version, {each.id: each for each in contracts}, await inputs.plan_versions(conn)
        )
        return await Pipeline.open(
            conn, Numbers(), self.book, self._ownership.epoch, found, self._monotonic,
            self._committed, self._deals_max, second,
        )  # fmt: skip

    async def _turn(self, pipeline: Pipeline) -> bool:
        """Take the next deals of each feed; whether there were any."""
        any_taken = False
        async with self._pool.acquire() as reader:
            feeds = await deals.feeds_of(reader, self.book)
        for feed, server, landed in feeds:
            if pipeline.reached(feed) >= landed:
                continue
            any_taken = True
            began = self._monotonic()
            async with self._pool.acquire() as reader:
                taken = await deals.after(
                    reader, self.book, feed, pipeline.reached(feed), self._deals_max
                )
                await self._learn(reader, pipeline, feed, server, taken)
            self._handed.append((feed, taken[-1].no, began))
            await pipeline.accrue(feed, taken)
        return any_taken

    async def _learn(
        self, reader: asyncpg.Connection, pipeline: Pipeline, feed: int, server: str,
        taken: Sequence[LandedDeal],
    ) -> None:  # fmt: skip
        """Have the engine know whose clients all these logins are. Raises Moved: what they came
        through may be newer than what the engine knows.
        """
        unknown = pipeline.engine.unknown(feed, taken)
        if not unknown:
            return
        found = await self._attributions(reader, server, sorted(unknown))
        known, version = pipeline.engine.inputs.version, await inputs.version(reader, self.book)
        if version != known:
            raise Moved(f"inputs {version}, read as {known}")
        pipeline.engine.learn(feed, found)

    def _committed(self, batch: Committed) -> None:
        self._well()
        self._observer.accrued(batch, self._monotonic() - self._read(batch))
        self._tell(batch)

    def _well(self) -> None:
        """Whatever failed before is over."""
        self._stopped, self._away_s = "", AWAY_FIRST_S
        self._patience.forget(self.book)

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
            async with asyncio.timeout(POLL_S):
                await self._wake.wait()
        except TimeoutError:
            return
