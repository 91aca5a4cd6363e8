"""A platform for the feed that is a list of deals with a clock that the test moves; nothing waits.

Knows what the feed asks and what it lands. Refuses to judge it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from bridge.faults import AnswerLost, Fault, MaySend, NothingSent, always
from bridge.feed import Cursor, Feed
from bridge.mt5 import http
from bridge.mt5.clock import SUMMER_S, is_summer
from bridge.mt5.deals import Unfit
from bridge.session import Server, SessionState, SessionStatus
from config.rulebook import Feed as Terms
from config.secret import Secret
from ledger.facts import Deal

START = int(datetime(2026, 1, 15, 12, 0, tzinfo=UTC).timestamp())
QUIET = {"sweep_every_s": 2_000_000.0, "deep_every_s": 2_000_000.0}


class World:
    """A platform server, its clock, and the ledger that lands what the feed reads.

    now       seconds, UTC
    measured  the offset as the session knows it; error_s  how far the server's clock is wrong
    too_many  rows that no answer may have more of
    owned     whether the server is surely ours
    """

    def __init__(self, now: int = START, **terms: Any) -> None:
        self.now = now
        self.measured = self.offset(now)
        self.error_s = 0
        self.live = True
        self.owned = True
        self.rows: dict[int, dict[str, str]] = {}
        self.asked: list[tuple[str, int, int]] = []
        self.answered: list[int] = []
        self.faults: list[Fault] = []
        self.too_many = 10**9
        self.landed: list[Deal] = []
        self.unfit: list[Unfit] = []
        self.cursor = b""
        self.stored: list[Cursor] = []
        self.counted: Counter[str] = Counter()
        self.server = Server(id="s", url="https://h", login=1, password=Secret("p"))
        self.terms = Terms(**({"history_s": 0} | QUIET | terms))
        self.feed = self.new_feed()

    @staticmethod
    def offset(now: int) -> int:
        """The wall clock's true offset at a moment: two hours, three in summer."""
        return 7200 + (SUMMER_S if is_summer("eu", now) else 0)

    def new_feed(self) -> Feed:
        """A feed as a new owner starts it."""
        return Feed(
            sessions=self,  # type: ignore[arg-type]
            terms=self.terms,
            opened=self.opened,
            land=self.land,
            now=lambda: datetime.fromtimestamp(self.now, UTC),
            observer=self,
            may_send=lambda: self.owned,
        )

    # what the feed knows of the session

    def status(self) -> SessionStatus:
        """The session as it is."""
        state = SessionState.LIVE if self.live else SessionState.BACKING_OFF
        since = datetime.fromtimestamp(0, UTC)
        return SessionStatus(
            server="s", state=state, since=since, offset_s=self.measured, clock_error_s=self.error_s
        )

    async def call(self, request: http.Request, may_send: MaySend = always) -> http.Answer:
        """Deals of a window, both ends included, newest first: the order is nobody's promise."""
        if not self.live:
            raise NothingSent("session")
        if not may_send():
            raise NothingSent("lease")
        if self.faults:
            raise self.faults.pop(0)
        query = dict(request.query)
        since, until = int(query["from"]), int(query["to"])
        self.asked.append((query["group"], since, until))
        rows = [row for row in self.rows.values() if since <= int(row["Time"]) <= until]
        if len(rows) > self.too_many:
            raise AnswerLost("too-large")
        self.answered.append(len(rows))
        body = msgspec.json.encode({"retcode": "0 Done", "answer": rows[::-1]})
        return http.read_rows(body)

    # what the feed hands on

    async def opened(self) -> bytes:
        """The cursor as the ledger has it."""
        return self.cursor

    async def land(self, deals: Sequence[Deal], unfit: Sequence[Unfit], cursor: bytes) -> None:
        """Deals and place, together."""
        self.landed += deals
        self.unfit += unfit
        self.cursor = cursor
        self.stored.append(msgspec.json.decode(cursor, type=Cursor))

    def looked(self, server: str, rows: int, repeats: int, deals: int, unfit: int) -> None:
        self.counted.update(rows=rows, repeats=repeats, deals=deals, unfit=unfit)

    def lagging(self, server: str, lag_s: float) -> None:
        self.counted["lagging"] += 1

    def feed_failed(self, server: str, reason: str) -> None:
        self.counted[reason] += 1

    # what happens on the platform

    def trade(self, ticket: int, at: int | None = None, **changes: str) -> int:
        """A deal made now, or entered now with an earlier time."""
        moment = self.now if at is None else at
        shown = moment + self.offset(moment) + self.error_s
        self.rows[ticket] = {
            "Deal": str(ticket), "Login": "100001", "Action": "0", "Entry": "1", "Reason": "0",
            "DigitsCurrency": "2", "Time": str(shown), "TimeMsc": str(shown * 1000),
            "Symbol": "EURUSD", "Price": "1.1", "Volume": "100", "VolumeExt": "1000000",
            "Profit": "1.00", "Storage": "0.00", "Commission": "0.00", "PositionID": "1",
            "Comment": "",
        } | changes  # fmt: skip
        return ticket

    async def pass_time(self, seconds: int, each: int = 1) -> None:
        """Let the clock run, with a look after each step of it."""
        for _ in range(0, seconds, each):
            self.now += each
            await self.feed.look()

    async def restart(self) -> None:
        """A new owner takes up from what is stored."""
        self.feed = self.new_feed()
        await self.feed.open()

    @property
    def tickets(self) -> list[int]:
        """What was landed, in order."""
        return [deal.ticket for deal in self.landed]


async def begun(now: int = START, **terms: Any) -> World:
    """A world whose feed has had its first look."""
    world = World(now, **terms)
    await world.feed.open()
    await world.feed.look()
    return world
