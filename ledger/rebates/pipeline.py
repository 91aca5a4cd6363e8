"""The pipeline: the next batch is computed while the last one is being written.

Knows at most one batch on its way and what it will make of the numbers after it. Refuses to mend
itself: when a batch fails, all that was computed after it is worth nothing, and whoever runs it
opens another one from the rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import asyncpg

from ledger.deals import LandedDeal
from ledger.journal import Numbers
from ledger.rebates.accrual import DEALS_MAX, Engine, batch_length, compute_in_slices
from ledger.rebates.inputs import Inputs
from ledger.rebates.rounding import Remainders, period
from ledger.rebates.writer import Committed, Head, Numbered, Writer, open_accounts


class Pipeline:
    """Accrual of one book from where it stands in the books.

    on_commit  hears of each batch after its commit
    """

    def __init__(
        self, engine: Engine, writer: Writer, head: Head, on_commit: Callable[[Committed], None],
        deals_max: int = DEALS_MAX,
    ) -> None:  # fmt: skip
        self.engine = engine
        self._writer = writer
        self._batch = head.batch
        self._line = head.line
        self._reached = dict(head.positions)
        self._remainders = Remainders()
        self._on_commit = on_commit
        self._deals_max = deals_max
        self._writing: asyncio.Task[Committed] | None = None
        self._copying = asyncio.Event()

    @classmethod
    async def open(
        cls, conn: asyncpg.Connection, numbers: Numbers, book: int, epoch: int, inputs: Inputs,
        clock: Callable[[], float], on_commit: Callable[[Committed], None],
        deals_max: int = DEALS_MAX,
    ) -> Pipeline:  # fmt: skip
        """Take the book for `epoch` and stand where it stands. Raises Fenced."""
        accounts = await open_accounts(conn, numbers, book, inputs)
        writer = Writer(conn, numbers, book, epoch, inputs, accounts, clock)
        head = await writer.load()
        return cls(Engine(book, inputs, accounts), writer, head, on_commit, deals_max)

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
            end = begin + batch_length(deals[begin : begin + self._deals_max], self._deals_max)
            await self._take(feed, deals[begin:end])
            begin = end

    async def drain(self) -> None:
        """Wait until nothing is on its way. Raises what `accrue` raises."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            self._on_commit(await writing)

    async def abandon(self) -> None:
        """Stop what is on its way and forget it; whether it is in the books must be read."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.cancel()
            await asyncio.wait([writing])  # its error says nothing new: the rows will tell
            if not writing.cancelled():
                writing.exception()

    async def _take(self, feed: int, deals: Sequence[LandedDeal]) -> None:
        """Compute one batch while the one before it is written, then send it on its way."""
        first, last, reached = deals[0].no, deals[-1].no, self.reached(feed)
        assert (first, last) == (reached + 1, reached + len(deals)), (feed, first, last, reached)
        await self._know(deals[0])
        await self._quiet()
        computed = await compute_in_slices(self.engine, self._remainders, feed, deals)
        batch = self._writer.numbered(computed, self._batch + 1, self._line + 1)
        await self.drain()
        self._send(batch)

    async def _quiet(self) -> None:
        """Wait until the batch on its way is being copied: until then each answer counts, from
        then on the server works alone and there is time to compute.
        """
        if self._writing is not None:
            copying = asyncio.ensure_future(self._copying.wait())
            await asyncio.wait([copying, self._writing], return_when=asyncio.FIRST_COMPLETED)
            copying.cancel()

    async def _know(self, first: LandedDeal) -> None:
        """Have the period's remainders in memory; they are read when all before is written."""
        month = period(first.deal.at.date())
        if not self._remainders.knows(month):
            await self.drain()
            self._remainders.learn(month, await self._writer.remainders(month))

    def _send(self, batch: Numbered) -> None:
        self._batch, self._line = batch.batch, batch.last_line
        self._reached[batch.computed.feed] = batch.computed.last_deal
        self._copying.clear()
        self._writing = asyncio.create_task(self._writer.write(batch, self._copying.set))
