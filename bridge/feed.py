"""A platform's deals in the order of its clock: read by windows, handed on, the place remembered.

Knows where it stands, how far to reach back and ahead, when to look at old deals again, and how to
ask for less at once. Refuses to skip: a window that cannot be read is asked for until it can, and
the next one is not asked for before it is landed. Whose deals they are, which of them are edits,
and that a deal has vanished from the platform, is not its to find out.

The place is a second of the server's wall clock, so an hour that the clock skips or repeats needs
care. While the measured offset is the one the place was reached with, a look reads from the place,
a little before the end of the last look, to a little beyond now. When it has moved, the look begins
earlier by all that may have been asked with an offset that held no more, and ends beyond now by
either offset: repeats cost nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

import msgspec

from bridge.faults import AnswerLost, Fault, MaySend, NothingSent, always
from bridge.mt5 import clock, deals, http, retcodes
from bridge.mt5.clock import WallClock
from bridge.mt5.deals import Unfit
from bridge.pool import Pool
from bridge.session import SessionState
from config.log import event
from config.rulebook import Feed as FeedTerms
from ledger.facts import Deal

LOG: Final = logging.getLogger("brokerd.bridge")

Land = Callable[[Sequence[Deal], Sequence[Unfit], bytes], Awaitable[object]]

FIRST_STEP_S: Final = 10  # an outage may have left more behind than one answer can hold
STEP_MIN_S: Final = 1  # the platform's windows are whole seconds
MOVED_BACK_S: Final = 600  # more than the offset may have been wrong before it was measured anew
STORED_EVERY_S: Final = 10  # in calm the place is stored this often
SLICE_ROWS: Final = 100  # read at once: what waits for the loop waits once for each of its turns
TOO_MUCH: Final = frozenset({"too-large", "timeout"})  # what a shorter window may heal


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """A walk after the offset has moved: to which offset, and where looks go on once it is over.

    Deals made while the walk goes on have times that it may have passed already.
    """

    offset: int
    next: int


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """Where a feed stands; all that a restart needs.

    next    the second of the server's wall clock where the next look begins; None at first
    offset  the wall clock's offset from UTC when that was so; winter  its offset in winter
    turn    the walk that a moved offset asks for, while it is under way
    began   where the first look of all began, UTC seconds: earlier deals are never handed on
    swept   when recent deals were last looked at again, UTC seconds; deep  the same for old ones
    """

    next: int | None = None
    offset: int = 0
    winter: int | None = None
    turn: Turn | None = None
    began: int = 0
    swept: int = 0
    deep: int = 0


class FeedStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What can be shown of a feed.

    reached  up to when deals were read, UTC; lag_s  how long ago that is; None before the first
    """

    server: str
    reached: datetime | None
    lag_s: float | None
    sweeping: bool
    last_error: str


class Observer(Protocol):
    """Who counts what feeds do."""

    def looked(self, server: str, rows: int, repeats: int, deals: int, unfit: int) -> None:
        """A window was read and landed: its rows, and what they were."""
        ...

    def lagging(self, server: str, lag_s: float) -> None:
        """How far behind now the deals are read."""
        ...

    def feed_failed(self, server: str, reason: str) -> None:
        """A look failed: the reason of the fault."""
        ...


class Unobserved:
    """An observer that counts nothing."""

    def looked(self, server: str, rows: int, repeats: int, deals: int, unfit: int) -> None:
        """Count nothing."""

    def lagging(self, server: str, lag_s: float) -> None:
        """Count nothing."""

    def feed_failed(self, server: str, reason: str) -> None:
        """Count nothing."""


class _Seen:
    """Deals landed lately by heart: ticket -> digest of the row; the oldest are forgotten first.

    Nearly all rows of a look are repeats, so one is known by its digest alone, without being read.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._digests: dict[int, int] = {}
        self._newest: set[int] = set()  # their digests; what a ticket was before is not among them

    def has(self, digest: int) -> bool:
        """Whether exactly this was landed, and last of its ticket."""
        return digest in self._newest

    def add(self, rows: Iterable[_Look]) -> None:
        """Remember what was landed."""
        for row in rows:
            self._forget(row.ticket)  # the order is that of the last landing
            self._digests[row.ticket] = row.digest
            self._newest.add(row.digest)
        while len(self._digests) > self._maximum:
            self._forget(next(iter(self._digests)))

    def _forget(self, ticket: int) -> None:
        digest = self._digests.pop(ticket, None)
        if digest is not None:
            self._newest.discard(digest)


class _Look(msgspec.Struct, frozen=True):
    """A row as an answer brought it; ticket 0 where it cannot be read."""

    ticket: int
    digest: int
    raw: msgspec.Raw


class _Pace:
    """How many seconds one window of a walk may hold; a busy hour says nothing of a quiet one."""

    def __init__(self, terms: FeedTerms) -> None:
        self._terms = terms
        self.step_s = FIRST_STEP_S

    def fit(self, rows: int, span: int) -> None:
        """A window held so many rows: the next is twice as long at most, and aims at rows_max.

        As long as this one was, not as it might have been: the few seconds of a look in calm say
        nothing of the hours that an outage leaves behind.
        """
        wanted = self._terms.rows_max * span // max(rows, 1)
        longer = max(span * 2, min(self.step_s * 2, FIRST_STEP_S))
        self.step_s = max(STEP_MIN_S, min(longer, wanted, self._terms.window_s))

    def halve(self, span: int) -> None:
        """A window held too much."""
        self.step_s = max(STEP_MIN_S, min(self.step_s, span) // 2)


class _Sweep(msgspec.Struct):
    """A second look at seconds that were read before, a window at a time."""

    began: int  # UTC seconds; the others are the wall clock's
    at: int
    until: int
    pace: _Pace


class Feed:
    """The deals of one platform server, for its owner.

    terms   how often, how far, how much
    opened  the cursor as the ledger keeps it, empty at first
    land    writes deals and rows that do not fit, and with the last of them the cursor: it is never
            ahead of what is written. Whatever it raises ends the feed: the owner begins anew from
            what is stored, and is shown some of it again
    may_send  whether we own the server as surely as it takes to ask it anything; if not, the look
            fails and is repeated
    """

    def __init__(
        self,
        *,
        sessions: Pool,
        terms: FeedTerms,
        opened: Callable[[], Awaitable[bytes]],
        land: Land,
        now: Callable[[], datetime],
        observer: Observer | None = None,
        may_send: MaySend = always,
    ) -> None:
        self._sessions = sessions
        self._server = sessions.server.id
        self._terms = terms
        self._opened = opened
        self._land = land
        self._now = now
        self._observer = observer or Unobserved()
        self._may_send = may_send
        self._seen = _Seen(terms.remembered_max)
        self._pace = _Pace(terms)
        self._recent_pace, self._deep_pace = _Pace(terms), _Pace(terms)
        self._cursor = Cursor()
        self._stored = 0  # the place of the stored cursor
        self._recent: _Sweep | None = None
        self._deep: _Sweep | None = None
        self._ahead_s = 0  # of the server's clock before UTC, as last measured
        self._last_error = ""

    async def run(self) -> None:
        """Read until cancelled; faults of the platform are waited out, nothing is skipped."""
        await self.open()
        failures = 0
        while True:
            try:
                await self.look()
                failures, self._last_error, pause = 0, "", self._terms.poll_s
            except Fault as no:
                if not failures:
                    event(LOG, "feed.failed", server=self._server, error=str(no))
                pause = min(self._terms.poll_s * 2.0 ** min(failures, 20), self._terms.retry_max_s)
                failures += 1
                self._failed(no)
            await asyncio.sleep(pause)

    async def open(self) -> None:
        """Take up the place that the ledger knows."""
        stored = await self._opened()
        self._cursor = msgspec.json.decode(stored or b"{}", type=Cursor)
        self._stored = self._cursor.next or 0

    async def look(self) -> None:
        """Read all there is up to now, and one window of whatever is to be looked at again.

        Raises a Fault; the place is then where the last window that was landed ends.
        """
        await self._catch_up()
        await self._look_again()

    def status(self) -> FeedStatus:
        """How the feed stands now."""
        reached, lag_s = None, None
        if self._cursor.next is not None:
            second = self._cursor.next + self._terms.overlap_s
            reached = datetime.fromtimestamp(second - self._cursor.offset, UTC)
            lag_s = max(0.0, self._now().timestamp() + self._ahead_s - second)
        return FeedStatus(
            server=self._server,
            reached=reached,
            lag_s=lag_s,
            sweeping=self._recent is not None or self._deep is not None,
            last_error=self._last_error,
        )

    async def _catch_up(self) -> None:
        """Windows one after another from the place to beyond the server's now."""
        wall, there = await self._wall()
        cursor = self._placed(there, wall)
        at, turn = self._from(cursor, there, wall.offset_s)
        back = there - self._terms.overlap_s
        arrived = msgspec.structs.replace(
            cursor, next=turn.next if turn else back, offset=wall.offset_s, winter=wall.winter_s,
            turn=None,
        )  # fmt: skip
        horizon = there + max(0, cursor.offset - wall.offset_s)  # now, by either offset
        edge = horizon + self._terms.ahead_s
        while at < edge:
            last = at + self._pace.step_s >= horizon
            until = edge if last else at + self._pace.step_s
            place = min(until, horizon - self._terms.overlap_s)
            on_way = msgspec.structs.replace(cursor, next=place, turn=turn)
            span = min(until, horizon) - at
            if await self._window(at, until, span, arrived if last else on_way, self._pace):
                at = until

    def _placed(self, there: int, wall: WallClock) -> Cursor:
        """The cursor; at the very first look one that begins some history ago."""
        if self._cursor.next is not None:
            return self._cursor
        first, now_s = there - self._terms.history_s, wall.now_ms // 1000
        return Cursor(
            next=first, offset=wall.offset_s, winter=wall.winter_s, began=first - wall.offset_s,
            swept=now_s, deep=now_s,
        )  # fmt: skip

    def _from(self, cursor: Cursor, there: int, offset_s: int) -> tuple[int, Turn | None]:
        """Where a look begins; with the turn that it makes if the measured offset has moved."""
        assert cursor.next is not None
        turn, back = cursor.turn, there - self._terms.overlap_s
        at = min(cursor.next, back)
        if cursor.offset == offset_s:
            turn = None
        elif turn is not None and turn.offset == offset_s:
            at = cursor.next  # taken up where it was broken off
        else:
            turn = Turn(offset=offset_s, next=back)
            at -= MOVED_BACK_S
        return max(at, _earliest(cursor)), turn

    async def _look_again(self) -> None:
        """One window of a sweep; the short one goes before the deep one, which takes long."""
        terms, cursor = self._terms, self._cursor
        if self._recent is None and self._due(cursor.swept, terms.sweep_every_s):
            self._recent = self._sweep_over(cursor.swept, terms.sweep_s, self._recent_pace)
        if self._deep is None and self._due(cursor.deep, terms.deep_every_s):
            self._deep = self._sweep_over(cursor.deep, terms.deep_s, self._deep_pace)
        if self._recent is not None:
            done = msgspec.structs.replace(cursor, swept=self._recent.began)
            if await self._swept(self._recent, done):
                self._recent = None
        elif self._deep is not None:
            done = msgspec.structs.replace(cursor, deep=self._deep.began)
            if await self._swept(self._deep, done):
                self._deep = None

    def _due(self, last: int, every_s: float) -> bool:
        return self._now().timestamp() - last >= every_s

    def _sweep_over(self, last: int, back_s: int, pace: _Pace) -> _Sweep:
        """A sweep over the seconds before those that every look reads anyway.

        It goes as far back from when the last one began as from now: what was entered while that
        one was under way, or while nobody looked, is no further back than what is entered in calm.
        """
        until = self._cursor.next
        assert until is not None
        began = min(until, last + self._cursor.offset)
        at = max(began - back_s, _earliest(self._cursor))
        return _Sweep(int(self._now().timestamp()), min(at, until), until, pace)

    async def _swept(self, sweep: _Sweep, done: Cursor) -> bool:
        """Read a sweep's next window; True when it was the last, and the cursor says so."""
        until = min(sweep.at + sweep.pace.step_s, sweep.until)
        last = until == sweep.until
        after = done if last else self._cursor
        if await self._window(sweep.at, until, until - sweep.at, after, sweep.pace):
            sweep.at = until
            return last
        return False

    async def _window(self, at: int, until: int, span: int, after: Cursor, pace: _Pace) -> bool:
        """Read and land one window; False where it held too much: the next will be shorter.

        span   the seconds of it that can hold deals
        after  where the feed stands once it is landed
        pace   told what the window held
        """
        try:
            rows, repeats, found = await self._ask(at, until)
        except AnswerLost as no:
            if no.reason not in TOO_MUCH or span <= STEP_MIN_S:
                raise
            self._failed(no)
            pace.halve(span)
            return False
        fit, unfit = await self._read(found, after.began)
        if fit or unfit or self._worth_storing(after):
            await self._land(fit, unfit, msgspec.json.encode(after))
            self._stored = after.next or 0
        self._seen.add(row for row in found if row.ticket)
        self._cursor = after
        pace.fit(rows, max(span, 1))
        self._observer.looked(self._server, rows, repeats, len(fit), len(unfit))
        self._observer.lagging(self._server, self.status().lag_s or 0.0)
        return True

    def _worth_storing(self, after: Cursor) -> bool:
        """Whether a place without new deals should survive a restart."""
        same = msgspec.structs.replace(after, next=self._cursor.next)
        return same != self._cursor or abs((after.next or 0) - self._stored) >= STORED_EVERY_S

    async def _ask(self, at: int, until: int) -> tuple[int, int, list[_Look]]:
        """A window's rows over all masks: how many, how many of them were landed, and the others.

        Where masks overlap a deal comes twice: the later answer is the newer one.
        """
        count = repeats = 0
        found: dict[tuple[int, int], _Look] = {}
        for mask in self._terms.masks:
            answer = await self._sessions.call(http.deal_batch(mask, at, until), self._may_send)
            if not answer.ok and answer.code != retcodes.NOT_FOUND:
                raise AnswerLost("retcode", f"{answer.code} {answer.text}")
            await asyncio.sleep(0)
            for begin in range(0, len(answer.rows), SLICE_ROWS * 4):  # cheaper than reading them
                for raw in answer.rows[begin : begin + SLICE_ROWS * 4]:
                    digest = hash(bytes(raw))
                    if self._seen.has(digest):
                        repeats += 1
                    else:
                        ticket = deals.ticket_of(raw)
                        found[ticket, 0 if ticket else digest] = _Look(ticket, digest, raw)
                await asyncio.sleep(0)
            count += len(answer.rows)
        return count, repeats, list(found.values())

    async def _read(self, found: Sequence[_Look], began: int) -> tuple[list[Deal], list[Unfit]]:
        """Rows as deals in the order of the server's clock, and those that do not fit."""
        wall, _ = await self._wall()
        first = datetime.fromtimestamp(began, UTC)
        fit: list[Deal] = []
        unfit: list[Unfit] = []
        for begin in range(0, len(found), SLICE_ROWS):
            for row in found[begin : begin + SLICE_ROWS]:
                read = deals.read(row.raw, wall.utc_ms)
                if isinstance(read, Unfit):
                    unfit.append(read)
                elif read.at >= first:
                    fit.append(read)
            await asyncio.sleep(0)
        fit.sort(key=lambda deal: (deal.server_ms, deal.ticket))
        return fit, unfit

    async def _wall(self) -> tuple[WallClock, int]:
        """The server's clock as the live session measured it, and the second it shows now.

        Raises NothingSent where there is no session.
        """
        if self._sessions.status().state is not SessionState.LIVE:
            await self._sessions.call(http.test_access())  # waits for one
        session = self._sessions.status()
        if session.state is not SessionState.LIVE:
            raise NothingSent("session", session.last_error)
        now = self._now()
        winter = clock.winter_offset_s(
            self._terms.daylight, int(now.timestamp()), session.offset_s, self._cursor.winter
        )
        self._ahead_s = session.offset_s + session.clock_error_s
        wall = WallClock(
            daylight=self._terms.daylight,
            now_ms=int(now.timestamp() * 1000),
            offset_s=session.offset_s,
            winter_s=winter,
        )
        return wall, int(now.timestamp()) + self._ahead_s

    def _failed(self, no: Fault) -> None:
        self._last_error = str(no)
        self._observer.feed_failed(self._server, no.reason)


def _earliest(cursor: Cursor) -> int:
    """The first second of the wall clock, by any of its offsets, that may hold a deal of ours."""
    return cursor.began + min(
        cursor.offset, cursor.offset if cursor.winter is None else cursor.winter
    )
