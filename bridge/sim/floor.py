"""The admin port's part about trading: dealing at a rate, single deals, what there is, the clock.

Knows plain HTTP with JSON, as `admin.py` does. Refuses to serve the product. Its endpoints:

- `POST /deals` deals by the terms given, in place of any others (`dealing.Terms`: `seed`, `per_s`,
  `symbols`, `logins`, `total`, and the shares `edits`, `late`, `partials`, `balances`, `reversals`,
  `close_bys`); `DELETE /deals` stops; `GET /deals` says whether and what has been made;
- `GET /deals?after=<ticket>&limit=<n>` shows deals as they are now, by ticket;
- `POST /deals/one` makes one deal (`stories.Told`), `POST /deals/edit` changes one
  (`stories.Changed`); both answer the ticket;
- `POST /clock` plays a moment or an offset (`clock.Setting`), `DELETE /clock` ends that, and
  `GET /clock` shows it. The moment of a deal is taken from this clock.
"""

from __future__ import annotations

from typing import Final

import msgspec
from aiohttp import web

from bridge.sim.books import Books
from bridge.sim.clock import Setting, Wall, server_text
from bridge.sim.dealer import Dealer
from bridge.sim.dealing import Terms
from bridge.sim.platform import reply_json
from bridge.sim.stories import Changed, Told, change, tell
from bridge.sim.trades import Trade, decimal

SHOWN_MAX: Final = 10_000


class Floor:
    """The trading floor, for whoever writes the story of a test or a demo."""

    def __init__(self, books: Books, dealer: Dealer, wall: Wall, manager: int) -> None:
        self._books = books
        self._dealer = dealer
        self._wall = wall
        self._manager = manager

    def routes(self) -> list[web.RouteDef]:
        """Every endpoint."""
        return [
            web.post("/deals", self.start),
            web.get("/deals", self.show),
            web.delete("/deals", self.stop),
            web.post("/deals/one", self.make_one),
            web.post("/deals/edit", self.edit_one),
            web.get("/clock", self.show_clock),
            web.post("/clock", self.set_clock),
            web.delete("/clock", self.reset_clock),
        ]

    async def start(self, request: web.Request) -> web.Response:
        """Deal by the terms given."""
        await self._dealer.start(msgspec.json.decode(await request.read() or b"{}", type=Terms))
        return self._state()

    async def stop(self, request: web.Request) -> web.Response:
        """Make no more deals."""
        await self._dealer.stop()
        return self._state()

    async def show(self, request: web.Request) -> web.Response:
        """With `after` deals of higher tickets; without, what has been made."""
        if "after" not in request.query:
            return self._state()
        after = _number(request.query["after"])
        limit = min(_number(request.query.get("limit", "1000")), SHOWN_MAX)
        shown = [_shown(deal) for deal in self._books.tape.after(after, limit)]
        return reply_json(msgspec.json.encode({"deals": shown}))

    def _state(self) -> web.Response:
        names = ("trades", "balance", "transfers", "late", "edits", "edited")
        counts = self._books.tape.counts
        state = {
            "running": self._dealer.running,
            "terms": self._dealer.terms,
            "made": {name: counts[name] for name in names},
            "last": self._books.last_ticket,
        }
        return reply_json(msgspec.json.encode(state))

    async def make_one(self, request: web.Request) -> web.Response:
        """Make one deal; answers its ticket and its position."""
        told = msgspec.json.decode(await request.read(), type=Told)
        deal = tell(told, self._books, self._wall, self._manager)
        self._books.record(deal)
        answer = {"ticket": deal.ticket, "position": deal.position}
        return reply_json(msgspec.json.encode(answer))

    async def edit_one(self, request: web.Request) -> web.Response:
        """Change one deal; answers its ticket and how often it was changed."""
        changed = msgspec.json.decode(await request.read(), type=Changed)
        deal = change(changed, self._books)
        self._books.record(deal)
        return reply_json(msgspec.json.encode({"ticket": deal.ticket, "edits": deal.edits}))

    async def show_clock(self, request: web.Request) -> web.Response:
        """The truth as it is played, and what the wall says."""
        return self._clock()

    async def set_clock(self, request: web.Request) -> web.Response:
        """Play a moment, an offset, or both."""
        self._wall.set(msgspec.json.decode(await request.read(), type=Setting))
        return self._clock()

    async def reset_clock(self, request: web.Request) -> web.Response:
        """The true time and the European rule again."""
        self._wall.reset()
        return self._clock()

    def _clock(self) -> web.Response:
        now = self._wall.utc()
        shown = {
            "now": now,
            "offset_s": self._wall.offset_s(now),
            "server": server_text(self._wall.seconds()),
        }
        return reply_json(msgspec.json.encode(shown))


def _shown(deal: Trade) -> dict[str, object]:
    """A deal for whoever compares books with these: numbers as numbers, money in minor units."""
    return {
        "ticket": deal.ticket,
        "login": deal.login,
        "action": deal.action,
        "entry": deal.entry,
        "reason": deal.reason,
        "symbol": deal.symbol,
        "position": deal.position,
        "volume_ext": deal.volume,
        "closed_ext": deal.closed,
        "price": decimal(deal.price, deal.digits),
        "profit_minor": deal.profit,
        "commission_minor": deal.commission,
        "storage_minor": deal.storage,
        "fee_minor": deal.fee,
        "digits": deal.money_digits,
        "comment": deal.comment,
        "flags": deal.flags,
        "utc_ms": deal.utc_ms,
        "time_msc": deal.wall_ms,
        "edits": deal.edits,
        "late": deal.late,
        "transfer": deal.transfer,
    }


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"no whole number: {text[:40]!r}")
    return int(text)
