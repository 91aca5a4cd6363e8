"""A trading platform that answers at once, so that a bench measures brokerd and not it.

`python -m loadtests.dealer FOLDER PASSWORD_FILE GROUPS_FILE` opens accounts as the simulator does;
its deals are made in pairs, one that opens a position and one that closes it, and their rows are
encoded before the first of them is shown. It prints one JSON line once it listens and ends on
SIGTERM. It knows how fast it shall deal, and how to say that it is closed. It refuses edits, late
deals and everything else that makes the simulator a good peer for tests.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import sys
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Final

import aiohttp
import msgspec
import uvloop
from aiohttp import web

from bridge.sim.books import Books, Group
from bridge.sim.certificate import Certificate, make_certificate
from bridge.sim.commands import Reply
from bridge.sim.platform import Connection, Options, Platform, reply_json
from bridge.sim.trades import IN, OUT, Trade, row
from config import rulebook
from config.rulebook import Rulebook
from gateway.demo import peers
from gateway.demo.peers import MANAGER, Secrets
from loadtests import house
from loadtests.peers import HOST, ended

SYMBOLS: Final = ("EURUSD", "XAUUSD", "GBPUSD", "USDJPY", "US30", "DE40", "BTCUSD", "AUDUSD")
VOLUMES: Final = (1, 1, 1, 2, 5, 10, 10, 20, 50, 100)  # hundredths of a lot
HUNDREDTH: Final = 10**6
FIRST_TICKET: Final = 1_000_000_000  # beyond those of balance operations
OPEN_FOR: Final = 1_000  # deals between an opening and its closing
CLOSED: Final = 11  # retcode: service is not available
LEAD_MS: Final = 500  # from the last row's encoding to the first deal, at least
ENCODING_US: Final = 60  # of a row, at most
ENCODED: Final = 500  # rows between two looks at the socket


class Dealing(msgspec.Struct, frozen=True):
    """What to deal: so many deals, evenly over `seconds`, by these accounts."""

    logins: tuple[int, ...]
    deals: int
    seconds: float


class Ready(msgspec.Struct, frozen=True):
    """The first and the last deal's moment, UTC seconds."""

    begin: float
    end: float


class Floor:
    """Where the deals are: rows with their moments, in order."""

    def __init__(self) -> None:
        self._chance = Random(7)
        self._numbers = itertools.count()
        self._open: dict[int, tuple[int, str, int]] = {}  # by number: login, symbol, volume
        self.rows: list[bytes] = []
        self.moments: list[int] = []  # of the wall clock, milliseconds

    def deal(self, logins: tuple[int, ...], wall_ms: int, utc_ms: int) -> None:
        """One more deal: an opening, then the closing of one that was opened a while ago."""
        number = next(self._numbers)
        opening = number % 2 == 0
        if opening or number < OPEN_FOR:
            volume = self._chance.choice(VOLUMES) * HUNDREDTH
            dealt = self._chance.choice(logins), self._chance.choice(SYMBOLS), volume
            self._open[number] = dealt
            position = FIRST_TICKET + number
        else:
            dealt = self._open.pop(number + 1 - OPEN_FOR)
            position = FIRST_TICKET + number + 1 - OPEN_FOR
        closed = position != FIRST_TICKET + number
        login, symbol, volume = dealt
        shown = Trade(
            ticket=FIRST_TICKET + number, login=login, action=number % 2, wall_ms=wall_ms,
            utc_ms=utc_ms, entry=OUT if closed else IN, symbol=symbol, digits=5, contract=100_000,
            order=FIRST_TICKET + number, position=position, volume=volume,
            closed=volume if closed else 0, price=110_000, position_price=110_000,
            profit=1234 if closed else 0, rate_e8=10**8,
        )  # fmt: skip
        self.rows.append(bytes(row(shown)))
        self.moments.append(wall_ms)

    def window(self, since: int, until: int, now_ms: int) -> bytes:
        """The rows of these seconds that are dealt by now, as one answer."""
        first = bisect_left(self.moments, since * 1000)
        last = bisect_right(self.moments, min(until * 1000 + 999, now_ms))
        return b'{"retcode":"0 Done","answer":[' + b",".join(self.rows[first:last]) + b"]}"


class Instant(Platform):
    """The simulated server, but for `deal/get_batch`."""

    def __init__(self, options: Options, books: Books, password: str) -> None:
        super().__init__(options, books, password, lambda: datetime.now(UTC))
        self._floor = Floor()
        self._closed = False

    async def _serve(
        self,
        request: web.Request,
        connection: Connection,
        command: str,
        params: Mapping[str, str],
    ) -> web.Response:
        if command != "deal/get_batch":
            return await super()._serve(request, connection, command, params)
        if self._closed:
            return reply_json(Reply(CLOSED).encode())
        now_ms = self.wall.wall_ms(self.wall.utc_ms())
        return reply_json(self._floor.window(int(params["from"]), int(params["to"]), now_ms))

    async def begin(self, request: web.Request) -> web.Response:
        """POST /deals: encode them, then say when they will have been dealt."""
        wish = msgspec.json.decode(await request.read(), type=Dealing)
        first = self.wall.utc_ms() + LEAD_MS + wish.deals * ENCODING_US // 1000
        ahead = self.wall.wall_ms(first) - first
        for number in range(wish.deals):
            utc_ms = first + int(number * wish.seconds * 1000 / wish.deals)
            self._floor.deal(wish.logins, utc_ms + ahead, utc_ms)
            if number % ENCODED == 0:
                await asyncio.sleep(0)
        assert self.wall.utc_ms() < first, "the rows were not encoded in time"
        ready = Ready(first / 1000, first / 1000 + wish.seconds)
        return web.Response(body=msgspec.json.encode(ready))

    async def shut(self, request: web.Request) -> web.Response:
        """POST /shut: deal on, and show nobody a deal."""
        self._closed = True
        return web.Response()

    async def reopen(self, request: web.Request) -> web.Response:
        """POST /open: show them again."""
        self._closed = False
        return web.Response()


# --- the process --------------------------------------------------------------------------------


async def serve(folder: Path, password: str, secrets: Path, groups: list[Group]) -> None:
    """Answer until SIGTERM."""
    made = make_certificate(folder)
    options = Options(
        listen="", admin="", state=folder / "journal", certificate=made.certificate, key=made.key,
        manager=MANAGER, password_file=secrets,
    )  # fmt: skip
    async with AsyncExitStack() as opened:
        books = Books(options.state)
        opened.callback(books.close)
        for group in groups:
            books.record(group)
        platform = Instant(options, books, password)
        api, admin = web.Application(), web.Application(client_max_size=1 << 20)
        api.router.add_route("*", "/api/{command:.+}", platform.handle)
        admin.router.add_post("/deals", platform.begin)
        admin.router.add_post("/shut", platform.shut)
        admin.router.add_post("/open", platform.reopen)
        told = {
            "listening": await _listen(opened, api, _tls(made)),
            "admin": await _listen(opened, admin, None),
        }
        opened.callback(platform.cut)
        print(json.dumps(told), flush=True)
        await ended()


def _group(each: rulebook.Group) -> Group:
    return Group(
        group=each.group, currency=each.currency, login_from=each.login_from,
        login_to=each.login_to,
    )  # fmt: skip


def _tls(made: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    return context


async def _listen(
    opened: AsyncExitStack, app: web.Application, tls: ssl.SSLContext | None
) -> str:  # fmt: skip
    runner = web.AppRunner(app, keepalive_timeout=180, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    opened.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, HOST, 0, ssl_context=tls).start()
    return f"{'https' if tls else 'http'}://{HOST}:{runner.addresses[0][1]}"


# --- whoever starts it --------------------------------------------------------------------------


class Dealer:
    """The platform as a process of its own, and how it is told what to do."""

    def __init__(self) -> None:
        self._admin = ""

    @asynccontextmanager
    async def started(self, folder: Path, secrets: Secrets, book: Rulebook) -> AsyncIterator[str]:
        """Start it with the groups of a rulebook; its address."""
        home = peers.authority(folder).parent
        home.mkdir(parents=True)
        groups = home / "groups.json"
        groups.write_bytes(msgspec.json.encode([_group(each) for each in book.groups]))
        arguments = [str(home), str(secrets.path("mt5-manager")), str(groups)]
        async with house.script("dealer", arguments) as started:
            self._admin = started.admin
            yield started.url

    async def deal(self, logins: tuple[int, ...], deals: int, seconds: float) -> Ready:
        """Have so many deals made, evenly; when that will be."""
        return msgspec.json.decode(
            await self._post("/deals", Dealing(logins, deals, seconds)), type=Ready
        )

    @asynccontextmanager
    async def shut(self) -> AsyncIterator[None]:
        """Show no deal while the block lasts."""
        await self._post("/shut")
        yield
        await self._post("/open")

    async def _post(self, path: str, body: object = None) -> bytes:
        async with (
            aiohttp.ClientSession() as http,
            http.post(self._admin + path, data=msgspec.json.encode(body)) as answer,
        ):
            answer.raise_for_status()
            return await answer.read()


def main() -> None:
    """Play the platform."""
    folder, secret, groups = map(Path, sys.argv[1:4])
    known = msgspec.json.decode(groups.read_bytes(), type=list[Group])
    uvloop.run(serve(folder, secret.read_text().strip(), secret, known))


if __name__ == "__main__":
    main()
