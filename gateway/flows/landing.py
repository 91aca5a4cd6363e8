"""From a platform's feed into the books: whose each deal is, which cannot be booked yet, and why.

Knows which login belongs to which book, which symbols the rulebook names (none named: all are
known), what waits beside the books, and when it is tried again. Refuses to know the platform's
protocol (`bridge/feed.py`), what a second look at a ticket means (`ledger/deals.py`), and what
anybody earns by a deal: whoever accrues is only woken.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from math import inf
from typing import Final, Protocol, TypeVar

import asyncpg
import msgspec

from bridge import reads
from bridge.mt5.deals import Unfit
from config.log import event
from gateway.control import items
from gateway.control.items import item_opened, item_resolved
from gateway.flows.faults import away, end_if_cancelled
from gateway.owners import Ownership
from ledger import deals
from ledger.connections import TRANSACTION_S
from ledger.deals import Cause, Landed
from ledger.facts import Deal
from ledger.ids import Ids
from ledger.lane import SLOW
from ledger.units import Change
from ledger.verdicts import (
    BALANCE,
    Parked,
    Reason,
    absurd,
    early,
    has_come,
    park,
    park_unread,
)

log = logging.getLogger("gateway.landing")

ITEM: Final = "deal-parked"
ACTOR: Final = "brokerd"
DEALS_MAX: Final = 500  # in one transaction: the loop is held a few milliseconds at most
LOGINS_KEPT: Final = 200_000  # remembered before the cache starts anew
RETRY_S: Final = 2.0  # how often what waits is looked at
SUBJECTS_MAX: Final = 1_000  # causes looked at at once
ITEMS_MAX: Final = 20  # causes of a reason that have an item each; more have one together
PAUSE_FIRST_S, PAUSE_MAX_S = 0.1, 5.0
LIMIT_S: Final = 0.9 * TRANSACTION_S  # what fails after so long has failed for its length
FRESH_POLL_S: Final = 0.05

WHY: Final = {
    Reason.LOGIN: "no trading account of ours has this login",
    Reason.SYMBOL: "no symbol group of the rulebook has this symbol",
    Reason.ABSURD: "the platform shows values that no deal can have",
    Reason.IDENTITY: "the platform shows another deal under a ticket that is booked",
    Reason.AHEAD: "the platform shows deals of a time that has not come: its clock may be wrong",
}


T = TypeVar("T")
REFUSED: Final = (
    asyncpg.DataError, asyncpg.CheckViolationError, OverflowError, UnicodeEncodeError,
)  # fmt: skip


class Halve(Exception):
    """A transaction took too long: the same in two may not."""


class Batch(msgspec.Struct, frozen=True):
    """What one transaction is to write.

    cursor  None leaves it where it is
    fresh   false for deals that waited here
    causes  what those waited for
    """

    deals: Sequence[Deal]
    parked: Sequence[Parked] = ()
    cursor: bytes | None = None
    fresh: bool = True
    causes: tuple[Cause, ...] = ()

    def halves(self) -> tuple[Batch, Batch]:
        """The same in two; the cursor moves with the second."""
        middle = len(self.deals) // 2
        first = Batch(self.deals[:middle], fresh=self.fresh)
        return first, msgspec.structs.replace(self, deals=self.deals[middle:])

    def set_aside(self, why: str) -> Batch:
        """The same with its only deal parked."""
        (deal,) = self.deals
        aside = park(deal, Reason.ABSURD, why)
        return msgspec.structs.replace(self, deals=(), parked=(*self.parked, aside))


def together(first: Landed, second: Landed) -> Landed:
    """What two landings did."""
    return Landed(
        new=first.new + second.new, edited=first.edited + second.edited,
        repeated=first.repeated + second.repeated, parked=first.parked + second.parked,
        books=tuple(sorted({*first.books, *second.books})),
        causes=(*first.causes, *second.causes), freed=(*first.freed, *second.freed),
    )  # fmt: skip


async def write(conn: asyncpg.Connection, changes: Sequence[Change]) -> None:
    """Run changes of one kind as one statement of the caller's transaction."""
    if changes:
        columns = zip(*[change.row for change in changes], strict=True)
        await conn.execute(changes[0].kind.sql, *[list(column) for column in columns])


class Observer(Protocol):
    """Who counts what was landed."""

    def landed(self, server: str, done: Landed) -> None:
        """A landing is committed."""
        ...


class Landings:
    """One server's deals on their way into the books, for its owner.

    connect    opens a connection that writes to the books
    symbols    those of the rulebook in force; empty: it names none, and all are known
    on_landed  told after the commit which books got deals; must not wait
    """

    def __init__(
        self,
        *,
        server: str,
        ownership: Ownership,
        connect: Callable[[], Awaitable[asyncpg.Connection]],
        symbols: Callable[[], frozenset[str]],
        ids: Ids,
        now: Callable[[], datetime],
        on_landed: Callable[[tuple[int, ...]], None],
        observer: Observer,
    ) -> None:
        self._server = server
        self._ownership = ownership
        self._connect = connect
        self._symbols = symbols
        self._ids = ids
        self._now = now
        self._on_landed = on_landed
        self._observer = observer
        self._turn = asyncio.Lock()
        self._conn: asyncpg.Connection | None = None
        self._feed = 0
        self._epoch = 0
        self._books: dict[int, int] = {}  # login -> book, of logins that were found
        self._after = dict.fromkeys((Reason.LOGIN, Reason.SYMBOL, Reason.AHEAD), "")

    async def opened(self) -> bytes:
        """Begin as the owner of now; the cursor (JSON) where the last owner left it.

        Raises deals.Fenced where a newer owner has begun.
        """
        epoch = self._ownership.epoch

        async def begin(conn: asyncpg.Connection) -> tuple[int, bytes]:
            return await deals.open_feed(conn, self._server, epoch)

        async with self._turn:
            self._feed, cursor = await self._patiently(begin)
            self._epoch = epoch
        return cursor

    async def land(self, seen: Sequence[Deal], unfit: Sequence[Unfit], cursor: bytes) -> Landed:
        """Book or set aside what the platform showed, then move the cursor; returns when all of it
        is committed, however long the database is away.

        Raises deals.Fenced where a newer owner has begun: nothing more was written.
        """
        rows = [park_unread(row.ticket, row.why, row.raw) for row in unfit]
        parts = [seen[i : i + DEALS_MAX] for i in range(0, len(seen), DEALS_MAX)] or [()]
        done = Landed()
        for number, part in enumerate(parts, start=1):
            last = number == len(parts)
            batch = Batch(part, rows if last else (), cursor if last else None)
            done = together(done, await self._landed(batch))
        return done

    async def run(self) -> None:
        """Try what waits again and again until cancelled; then nothing is open any more.

        Nothing is tried before the feed has begun as the owner of now.
        """
        try:
            while True:
                if self._epoch == self._ownership.epoch:
                    await self.unpark()
                await asyncio.sleep(RETRY_S)
        finally:
            self._hang_up()

    async def unpark(self) -> None:
        """Book what waits here and whose cause is gone: a page of each cause's subjects a call."""
        for reason in self._after:
            gone = await self._gone(reason)
            while gone and await self._unparked(reason, gone):
                end_if_cancelled()

    async def _gone(self, reason: Reason) -> list[str]:
        """Subjects of the next page that are known now."""

        async def look(conn: asyncpg.Connection) -> list[str]:
            page = await deals.waiting_subjects(
                conn, self._feed, reason, self._after[reason], SUBJECTS_MAX
            )
            self._after[reason] = page[-1] if len(page) == SUBJECTS_MAX else ""
            if reason is Reason.SYMBOL:
                return [symbol for symbol in page if self._knows(symbol)]
            if reason is Reason.AHEAD:
                return [minute for minute in page if has_come(minute, self._now())]
            await self._learn(conn, {int(login) for login in page})
            return [login for login in page if int(login) in self._books]

        async with self._turn:
            return await self._patiently(look)

    async def _unparked(self, reason: Reason, subjects: list[str]) -> bool:
        """Try some of what waits for these; whether that changed anything."""

        async def read(conn: asyncpg.Connection) -> list[Deal]:
            return await deals.waiting(conn, self._feed, reason, subjects, DEALS_MAX)

        async with self._turn:
            found = await self._patiently(read)
        if not found:
            return False
        causes = tuple((reason.value, subject) for subject in subjects)
        done = await self._landed(Batch(found, fresh=False, causes=causes))
        return done.new + done.edited + done.repeated + done.parked > 0

    # --- one transaction ------------------------------------------------------------------------

    async def _landed(self, batch: Batch) -> Landed:
        """Land a batch; one that the database refuses is halved until the deal is found."""

        async def work(conn: asyncpg.Connection) -> Landed:
            return await self._write(conn, batch)

        try:
            async with self._turn:
                done = await self._patiently(work, halves=len(batch.deals) > 1)
        except (Halve, *REFUSED) as error:
            if len(batch.deals) > 1:
                first, second = batch.halves()
                return together(await self._landed(first), await self._landed(second))
            if not batch.deals:
                raise
            log.exception("landing.refused", extra={"facts": {"server": self._server}})
            return await self._landed(batch.set_aside(f"the books refuse it: {error}"[:300]))
        self._observer.landed(self._server, done)
        if done.books:
            self._on_landed(done.books)
        return done

    async def _write(self, conn: asyncpg.Connection, batch: Batch) -> Landed:
        async with conn.transaction():
            await self._learn(conn, {deal.login for deal in batch.deals})
            looks, parked = self._judged(batch.deals)
            done = await deals.land(
                conn, self._feed, self._epoch, looks, [*batch.parked, *parked], batch.cursor,
                fresh=batch.fresh,
            )  # fmt: skip
            freed = await deals.without_waiting(conn, self._feed, batch.causes)
            await self._say(conn, done.causes, {*done.freed, *freed})
        return done

    def _judged(self, seen: Sequence[Deal]) -> tuple[list[tuple[int, Deal]], list[Parked]]:
        """The deals with their books, and those that cannot be booked yet."""
        now = self._now()
        looks, parked = [], []
        for deal in seen:
            if odd := absurd(deal, now):
                parked.append(park(deal, Reason.ABSURD, odd))
            elif early(deal, now):
                parked.append(park(deal, Reason.AHEAD, WHY[Reason.AHEAD], early(deal, now)))
            elif (book := self._books.get(deal.login)) is None:
                parked.append(park(deal, Reason.LOGIN, WHY[Reason.LOGIN]))
            elif deal.action < BALANCE and not self._knows(deal.symbol):
                parked.append(park(deal, Reason.SYMBOL, WHY[Reason.SYMBOL]))
            else:
                looks.append((book, deal))
        return looks, parked

    def _knows(self, symbol: str) -> bool:
        symbols = self._symbols()
        return not symbols or symbol in symbols

    async def _learn(self, conn: asyncpg.Connection, logins: set[int]) -> None:
        """Look up the logins nobody asked about before; who has none today may have one later."""
        unknown = {login for login in logins if login not in self._books and 0 < login < 2**63}
        if not unknown:
            return
        if len(self._books) + len(unknown) > LOGINS_KEPT:
            self._books = {}
            unknown = {login for login in logins if 0 < login < 2**63}
        found = await reads.holders(conn, self._server, unknown)
        self._books.update({login: holder.book for login, holder in found.items()})

    async def _say(
        self, conn: asyncpg.Connection, causes: Sequence[Cause], freed: set[Cause]
    ) -> None:
        """Open an item for each new cause; close those for which nothing waits any more."""
        at = self._now()
        gone = [self._subject(*cause) for cause in sorted(freed) if cause not in causes]
        if gone:
            over = await self._over(conn, {reason for reason, _ in freed})
            held = await items.hold_open(conn, ITEM, [*gone, *over])
            why = "nothing waits for it any more"
            closed = [item_resolved(item, why, ACTOR, at) for item in held]
            await write(conn, [moved for moved, _ in closed])
            await write(conn, [told for _, told in closed])
        opened = [
            item_opened(
                self._ids.new("IT"), "deal-parked", "platform", subject, WHY[Reason(reason)], at
            )
            for subject, reason in (await self._subjects(conn, causes)).items()
        ]  # fmt: skip
        await write(conn, opened)

    async def _subjects(self, conn: asyncpg.Connection, causes: Sequence[Cause]) -> dict[str, str]:
        """What the items of these causes are about, each with its reason.

        A mask that is too wide brings thousands of logins: they are one thing to look at.
        """
        found: dict[str, str] = {}
        for reason in dict.fromkeys(reason for reason, _ in causes):
            told = [subject for why, subject in causes if why == reason]
            together = reason == Reason.AHEAD or await self._waits_for_more(conn, reason, ITEMS_MAX)
            for subject in [""] if together else told:
                found[self._subject(reason, subject)] = reason
        return found

    async def _over(self, conn: asyncpg.Connection, reasons: set[str]) -> list[str]:
        """The items that many causes have together, of reasons for which nothing waits now."""
        return [
            self._subject(reason, "")
            for reason in sorted(reasons)
            if not await self._waits_for_more(conn, reason, 0)
        ]

    async def _waits_for_more(self, conn: asyncpg.Connection, reason: str, than: int) -> bool:
        """Whether deals wait for more causes of this reason."""
        page = await deals.waiting_subjects(conn, self._feed, Reason(reason), "", than + 1)
        return len(page) > than

    def _subject(self, reason: str, subject: str) -> str:
        return ":".join(part for part in (self._server, reason, subject) if part)

    # --- the way to the database ----------------------------------------------------------------

    async def _patiently(
        self, work: Callable[[asyncpg.Connection], Awaitable[T]], *, halves: bool = False
    ) -> T:
        """Do it on our own connection, again while the database is away.

        After a commit whose answer was lost the same deals are repeats. Raises Halve where it took
        too long and there are halves.
        """
        pause_s = PAUSE_FIRST_S
        loop = asyncio.get_running_loop()
        while True:
            began = inf
            try:
                while not self._ownership.fresh():  # either proved soon, or we are cancelled
                    await asyncio.sleep(FRESH_POLL_S)
                if self._conn is None or self._conn.is_closed():
                    self._conn = await self._connect()
                began = loop.time()
                return await work(self._conn)
            except BaseException as error:
                self._hang_up()  # whatever it was doing is rolled back
                end_if_cancelled()
                if not isinstance(error, Exception) or not away(error):
                    raise
                # A server that ends the connection as well, as newer ones do, is merely gone.
                slow = getattr(error, "sqlstate", None) in SLOW or loop.time() - began > LIMIT_S
                if halves and slow:
                    raise Halve from error
                event(log, "landing.world_away", server=self._server, why=repr(error))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    def _hang_up(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.terminate()
