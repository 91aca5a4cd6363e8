"""A simulated MT5 access server: the Web API over TLS, its own books, and an admin port for faults.

Knows how it is started and stopped. Refuses to know who calls it. Where the protocol's public texts
leave a point open, this server chose:

- before authentication every command answers HTTP 403 with an empty body, and the connection stays;
- a wrong hash, or an answer later than 10 s after the challenge, is HTTP 403 as well;
- an idle connection is closed without a word after 180 s; any request counts as a sign of life;
- both ends of a `from`-`to` window are included; pages come newest first, 100 rows at most; the
  rows of get_batch come in any order;
- get_batch has no row limit, and no request is ever too frequent unless the script says so;
- an unknown command is retcode 12002; a login outside every group's range is 3003 when any group
  has a range; leverage is 1-500; passwords need all four kinds of characters, sixteen at most;
- a repeated command while the first is under way cannot happen: one connection, one at a time;
- a withdrawal may take neither more than the balance nor more than the free margin.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web

from bridge.sim.admin import Admin, explain
from bridge.sim.books import Books, Group
from bridge.sim.dealer import Dealer
from bridge.sim.dealing import Terms
from bridge.sim.floor import Floor
from bridge.sim.market import DEFAULT_SYMBOLS
from bridge.sim.platform import Options, Platform

SHARES: Final = ("edits", "late", "partials", "balances")


class Running(msgspec.Struct, frozen=True):
    """A started server and where it listens."""

    platform: Platform
    dealer: Dealer
    url: str
    admin_url: str


@asynccontextmanager
async def running(
    options: Options, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> AsyncIterator[Running]:
    """Serve until the block ends. Raises OSError where an address or a file is of no use."""
    password = options.password_file.read_text().strip()
    async with AsyncExitStack() as opened:
        books = Books(options.state)
        opened.callback(books.close)
        for group in _groups_of(options):
            if books.groups.get(group.group) != group:
                books.record(group)
        platform = Platform(options, books, password, now)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.certificate, options.key)
        api = web.Application(client_max_size=1 << 20)
        api.router.add_route("*", "/api/{command:.+}", platform.handle)
        admin = web.Application(client_max_size=1 << 20, middlewares=[explain])
        dealer = Dealer(books, platform.wall, options.manager)
        opened.push_async_callback(dealer.stop)
        admin.add_routes(Admin(platform).routes())
        admin.add_routes(Floor(books, dealer, platform.wall, options.manager).routes())
        url = await _listen(opened, api, options.listen, options.idle_s, tls)
        admin_url = await _listen(opened, admin, options.admin, options.idle_s, None)
        opened.callback(platform.cut)  # first of all on the way out: nobody is waited for
        if options.deals is not None:
            await dealer.start(options.deals)
        yield Running(platform, dealer, url, admin_url)


def _groups_of(options: Options) -> list[Group]:
    if options.groups is None:
        return []
    return msgspec.json.decode(options.groups.read_bytes(), type=list[Group])


async def _listen(
    opened: AsyncExitStack,
    app: web.Application,
    address: str,
    idle_s: float,
    tls: ssl.SSLContext | None,
) -> str:
    """Start one port; returns its URL."""
    host, _, port = address.rpartition(":")
    runner = web.AppRunner(app, keepalive_timeout=idle_s, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    opened.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, host, int(port), ssl_context=tls).start()
    bound = runner.addresses[0]
    return f"{'https' if tls else 'http'}://{bound[0]}:{bound[1]}"


async def _serve_until_stopped(options: Options) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(options) as server:
        started = {"listening": server.url, "admin": server.admin_url, "pid": os.getpid()}
        sys.stdout.write(msgspec.json.encode(started).decode() + "\n")
        sys.stdout.flush()
        await stop.wait()


def serve(options: Options) -> None:
    """Run the server until SIGTERM or SIGINT; prints one JSON line once it listens."""
    asyncio.run(_serve_until_stopped(options))


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="brokerd sim mt5", description="A simulated MT5 server.")
    parser.add_argument("--listen", default="127.0.0.1:8443", help="Web API over TLS, host:port")
    parser.add_argument("--admin", default="127.0.0.1:8444", help="admin port, host:port")
    parser.add_argument("--state", type=Path, required=True, help="journal file")
    parser.add_argument("--certificate", type=Path, help="PEM chain; else made beside the state")
    parser.add_argument("--key", type=Path, help="PEM private key of the certificate")
    parser.add_argument("--manager", type=int, required=True, help="login of the manager")
    parser.add_argument("--password-file", type=Path, required=True, help="its API password")
    parser.add_argument("--groups", type=Path, help="JSON list of groups")
    parser.add_argument("--idle-s", type=float, default=180.0, help="idle limit of a connection")
    _add_dealing(parser)
    given = vars(parser.parse_args(arguments))
    try:
        given["deals"] = _terms_of(given)
    except msgspec.ValidationError as no:
        parser.error(f"dealing: {no}")
    if given["certificate"] is None:
        given |= _throw_away(given["state"].parent)
    serve(Options(**given))


def _add_dealing(parser: argparse.ArgumentParser) -> None:
    """Options of dealing from the start; the admin port can change all of it later."""
    dealing = parser.add_argument_group("dealing", "Deals over all accounts. Default: none.")
    dealing.add_argument("--deals-per-s", type=float, default=0.0, help="deals a second")
    dealing.add_argument("--deals-seed", type=int, default=0, help="seed of the deals")
    dealing.add_argument("--deals-total", type=int, default=0, help="stop after so many")
    dealing.add_argument("--deals-symbols", default=",".join(DEFAULT_SYMBOLS), help="a,b,...")
    for name in SHARES:
        dealing.add_argument(f"--deals-{name}", type=float, help="a share, 0 to 1")


def _terms_of(given: dict[str, Any]) -> Terms | None:
    """What was asked for, taken out of the options given; None for no deals."""
    told = {name: given.pop(f"deals_{name}") for name in ("per_s", "seed", "total", *SHARES)}
    told["symbols"] = given.pop("deals_symbols").split(",")
    told = {name: value for name, value in told.items() if value is not None}
    return msgspec.convert(told, Terms) if told["per_s"] else None


def _throw_away(folder: Path) -> dict[str, Path]:
    """A certificate made now; clients are given `authority.pem` of the same folder."""
    from bridge.sim.certificate import make_certificate  # noqa: PLC0415 an optional dependency

    made = make_certificate(folder)
    return {"certificate": made.certificate, "key": made.key}
