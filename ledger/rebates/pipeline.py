"""The pipeline: the next batch is computed and copied while the last one is being committed.

Knows which batches are on their way and what they will make of the numbers after them: each is
copied over a connection of its own and booked when the one before it is in the books. Refuses to
mend itself: when a batch fails, all that was computed after it is worth nothing, and whoever runs
it opens another one from the rows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime, time
from typing import Final

import asyncpg
import msgspec

from ledger.deals import LandedDeal
from ledger.journal import Numbers
from ledger.rebates.accrual import (
    DEALS_MAX,
    Attributed,
    Engine,
    batch_length,
    compute_in_slices,
)
from ledger.rebates.days import MIDNIGHT, settlement_day
from ledger.rebates.inputs import Inputs
from ledger.rebates.rounding import Remainders, period
from ledger.rebates.writer import Committed, Head, Numbered, Writer, open_accounts

OPENED: Final = 500  # contracts whose accounts are looked up before the loop serves others


class Learned(msgspec.Struct, frozen=True):
    """What a book's pipelines learned of its inputs; handed from one to the next, each adds to it.

    accounts    the accrued account of each contract: it has the same for ever
    attributed  whose clients logins are
    """

    accounts: dict[str, int] = {}
    attributed: Attributed = {}


class Pipeline:
    """Accrual of one book from where it stands in the books.

    on_commit  hears of each batch after its commit
    """

    def __init__(
        self,
        engine: Engine,
        writers: Sequence[Writer],
        head: Head,
        on_commit: Callable[[Committed], None],
        deals_max: int = DEALS_MAX,
    ) -> None:
        self.engine = engine
        self._writers = writers
        self._batch = head.batch
        self._line = head.line
        self._reached = dict(head.positions)
        self._begun = head.at
        self._remainders = Remainders()
        self._on_commit = on_commit
        self._deals_max = deals_max
        self._sent: deque[asyncio.Task[datetime]] = deque()
        self._last: asyncio.Task[datetime] | None = None  # even when it is committed
        self._copying = asyncio.Event()

    @classmethod
    async def open(
        cls, conn: asyncpg.Connection, numbers: Numbers, book: int, epoch: int, inputs: Inputs,
        clock: Callable[[], float], on_commit: Callable[[Committed], None],
        deals_max: int = DEALS_MAX, second: asyncpg.Connection | None = None,
        learned: Learned | None = None, cut_off: time = MIDNIGHT,
    ) -> Pipeline:  # fmt: skip
        """Take the book for `epoch` and stand where it stands. Raises Fenced: a newer owner has it.

        With a `second` connection a batch is copied while the one before it is booked.
        """
        accounts, attributed = msgspec.structs.astuple(learned or Learned())
        new = [each for each in inputs.contracts.values() if each.id not in accounts]
        for place in range(0, len(new), OPENED):
            some = {each.id: each for each in new[place : place + OPENED]}
            some_inputs = msgspec.structs.replace(inputs, contracts=some)
            accounts.update(await open_accounts(conn, numbers, book, some_inputs))
        writers = [
            Writer(each, numbers, book, epoch, inputs, accounts, clock)
            for each in (conn, second) if each is not None
        ]  # fmt: skip
        head = await writers[0].load()
        engine = Engine(book, inputs, accounts, attributed, cut_off)
        return cls(engine, writers, head, on_commit, deals_max)

    def reached(self, feed: int) -> int:
        """The last deal of a feed that was taken, committed or still on its way."""
        return self._reached.get(feed, 0)

    async def accrue(self, feed: int, deals: Sequence[LandedDeal]) -> None:
        """Compute the deals that follow on `reached`, batch after batch; the last is on its way.

        Their logins must have been learned by the engine. Raises Fenced, Moved or what the
        connection raises, for these deals or those before them; then nothing after the last
        batch that `on_commit` heard of is known to be written, and this pipeline is of no use.
        """
        begin = 0
        while begin < len(deals):
            some = deals[begin : begin + self._deals_max]
            end = begin + batch_length(some, self._deals_max, self.engine.cut_off)
            await self._take(feed, deals[begin:end])
            begin = end

    async def drain(self) -> None:
        """Wait until nothing is on its way. Raises what `accrue` raises."""
        await self._leave_on_way(0)

    async def abandon(self) -> None:
        """Stop what is on its way and forget it; whether it is in the books must be read."""
        for writing in self._sent:
            writing.cancel()
        await self.settle()

    async def settle(self) -> None:
        """Let what is on its way end as it will, and forget it; its connections stay of use."""
        if self._sent:
            await asyncio.wait(self._sent)
        for writing in self._sent:
            if not writing.cancelled():
                writing.exception()  # it says nothing new: the rows will tell
        self._sent.clear()

    async def _take(self, feed: int, deals: Sequence[LandedDeal]) -> None:
        """Compute one batch while the one before it is written, then send it on its way."""
        first, last, reached = deals[0].no, deals[-1].no, self.reached(feed)
        assert (first, last) == (reached + 1, reached + len(deals)), (feed, first, last, reached)
        await self._know(deals[0])
        await self._quiet()
        computed = await compute_in_slices(self.engine, self._remainders, feed, deals)
        await asyncio.sleep(0)  # summing it up and numbering it are some milliseconds each
        batch = self._writers[0].numbered(computed, self._batch + 1, self._line + 1)
        await self._leave_on_way(len(self._writers) - 1)
        self._send(batch)

    async def _leave_on_way(self, count: int) -> None:
        """Wait until no more than `count` batches are on their way."""
        while len(self._sent) > count:
            await self._sent[0]
            self._sent.popleft()

    async def _quiet(self) -> None:
        """Wait until the last batch is being copied: until then each answer counts, from then on
        the server works alone and there is time to compute.
        """
        if self._last is not None and not self._last.done():
            copying = asyncio.ensure_future(self._copying.wait())
            await asyncio.wait([copying, self._last], return_when=asyncio.FIRST_COMPLETED)
            copying.cancel()

    async def _know(self, first: LandedDeal) -> None:
        """Have the period's remainders in memory; they are read when all before is written."""
        month = period(settlement_day(first.deal.at, self.engine.cut_off))
        if not self._remainders.knows(month):
            await self.drain()
            self._remainders.learn(month, await self._writers[0].remainders(month))

    def _send(self, batch: Numbered) -> None:
        self._batch, self._line = batch.batch, batch.last_line
        self._reached[batch.computed.feed] = batch.computed.last_deal
        self._copying.clear()
        writer = self._writers[batch.batch % len(self._writers)]
        self._last = asyncio.create_task(self._write(writer, batch, self._last))
        self._sent.append(self._last)

    async def _write(
        self, writer: Writer, batch: Numbered, before: asyncio.Task[datetime] | None
    ) -> datetime:
        """Write one batch after the one before it, and tell of it at once; returns its time."""

        async def turn() -> datetime:
            if before is None:
                return self._begun
            await asyncio.wait([before])  # not awaited itself: what ends us does not end it
            return before.result()

        committed = await writer.write(batch, turn, self._copying.set)
        self._on_commit(committed)
        return committed.at
