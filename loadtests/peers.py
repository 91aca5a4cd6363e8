"""Peers that answer at once, so that a bench measures brokerd and not them.

`python -m loadtests.peers psp` plays every provider of the rulebook: it reads a charge and approves
it. `python -m loadtests.peers floor` is the least that any taker of deposits does: the same decode,
one call to the provider, two bare commits. Each prints one JSON line once it listens and ends on
SIGTERM. They know nothing of routing, books and keys, and keep nothing but the floor's two rows.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Final, cast

import aiohttp
import asyncpg
import msgspec
import uvloop
from aiohttp import web

from config.settings import Database
from gateway.flows.views import NewDeposit
from router.psp.transport import CONNECTIONS_MAX, KEEP_ALIVE_S

HOST: Final = "127.0.0.1"
END_OF_HEAD: Final = b"\r\n\r\n"
LENGTH: Final = b"content-length:"
KEY: Final = "Bearer key-of-the-floor"

MAKE_FLOOR: Final = """
CREATE SCHEMA IF NOT EXISTS floor;
CREATE TABLE IF NOT EXISTS floor.deposit (
    id text PRIMARY KEY, client text NOT NULL, amount text NOT NULL, currency text NOT NULL);
CREATE TABLE IF NOT EXISTS floor.charge (id text PRIMARY KEY, status text NOT NULL);
GRANT USAGE ON SCHEMA floor TO brokerd_daemon;
GRANT INSERT ON ALL TABLES IN SCHEMA floor TO brokerd_daemon;
"""
TAKE: Final = "INSERT INTO floor.deposit (id, client, amount, currency) VALUES ($1, $2, $3, $4)"
SETTLE: Final = "INSERT INTO floor.charge (id, status) VALUES ($1, $2)"


# --- a provider ---------------------------------------------------------------------------------


class Charge(msgspec.Struct):
    """What the provider reads of a charge."""

    reference: str
    amount: str
    currency: str


class Charged(msgspec.Struct):
    """What the floor reads of the provider's answer."""

    id: str
    status: str


class Approves(asyncio.Protocol):
    """One connection of a provider that approves whatever it is asked."""

    def __init__(self) -> None:
        self._read = msgspec.json.Decoder(Charge).decode
        self._numbers = itertools.count()
        self._waiting = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A caller."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer each whole request."""
        assert self._transport is not None
        waiting = self._waiting + data if self._waiting else data
        while waiting:
            head = waiting.find(END_OF_HEAD)
            if head < 0:
                break
            end = head + len(END_OF_HEAD) + body_length(waiting[:head])
            if len(waiting) < end:
                break
            charge = self._read(waiting[head + len(END_OF_HEAD) : end])
            self._transport.write(self._approved(charge))
            waiting = waiting[end:]
        self._waiting = waiting

    def _approved(self, charge: Charge) -> bytes:
        body = (
            f'{{"id":"ch_{charge.reference}","reference":"{charge.reference}",'
            f'"status":"approved","amount":"{charge.amount}","currency":"{charge.currency}"}}'
        ).encode()
        return (
            b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % len(body)
        ) + body


def body_length(head: bytes) -> int:
    """Bytes of the body that follow this head."""
    lower = head.lower()
    at = lower.find(LENGTH)
    if at < 0:
        return 0
    value = lower[at + len(LENGTH) :].partition(b"\r")[0]
    return int(value)


async def serve_provider() -> None:
    """Approve charges until SIGTERM."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Approves, HOST, 0, backlog=1024)
    announce(server.sockets[0].getsockname()[1])
    await ended()
    server.close()


# --- the floor ----------------------------------------------------------------------------------


class Floor:
    """The floor's one handler: what it does, any taker of deposits does."""

    def __init__(self, http: aiohttp.ClientSession, pool: asyncpg.Pool, provider: str) -> None:
        self._http = http
        self._pool = pool
        self._charges = f"{provider}/v1/charges"
        self._order = msgspec.json.Decoder(NewDeposit).decode
        self._charged = msgspec.json.Decoder(Charged).decode
        self._numbers = itertools.count()
        self._start = os.urandom(6).hex()

    async def deposit(self, request: web.Request) -> web.Response:
        """POST /v1/deposits: decode, commit, charge, commit, answer."""
        if not request.headers.get("Authorization", "").startswith("Bearer "):
            return web.Response(status=401)
        order = self._order(await request.read())
        amount = order.amount
        reference = f"{self._start}{next(self._numbers):08}"
        await self._pool.execute(TAKE, reference, order.client, amount.amount, amount.currency)
        charged = await self._charge(reference, order)
        await self._pool.execute(SETTLE, reference, charged.status)
        body = msgspec.json.encode({"id": reference, "state": charged.status, "amount": amount})
        return web.Response(body=body, status=201, content_type="application/json")

    async def _charge(self, reference: str, order: NewDeposit) -> Charged:
        body = msgspec.json.encode(
            {
                "reference": reference, "amount": order.amount.amount,
                "currency": order.amount.currency, "method": order.method,
                "customer": order.client,
            }
        )  # fmt: skip
        headers = {
            "Authorization": KEY, "Idempotency-Key": reference, "Content-Type": "application/json",
        }  # fmt: skip
        async with self._http.post(
            self._charges, data=body, headers=headers, allow_redirects=False
        ) as answer:
            return self._charged(await answer.read())


async def _nothing_to_reset(_: object) -> None:
    """Spare a round trip, as the daemon's own pool does."""


async def serve_floor(environ: Mapping[str, str]) -> None:
    """Take deposits as cheaply as they can be taken, until SIGTERM.

    FLOOR_DSN names the database, FLOOR_PROVIDER the provider. The client's and the pool's settings
    are the daemon's.
    """
    connector = aiohttp.TCPConnector(
        limit=0, limit_per_host=CONNECTIONS_MAX, keepalive_timeout=KEEP_ALIVE_S
    )
    async with (
        aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            skip_auto_headers=("User-Agent",),
        ) as http,
        asyncpg.create_pool(
            environ["FLOOR_DSN"], min_size=1, max_size=Database().pool_size,
            max_inactive_connection_lifetime=0, reset=_nothing_to_reset,
        ) as pool,
    ):  # fmt: skip
        app = web.Application()
        floor = Floor(http, pool, environ["FLOOR_PROVIDER"])
        app.router.add_post("/v1/deposits", floor.deposit)
        runner = web.AppRunner(app, handle_signals=False, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, HOST, 0, backlog=1024).start()
        announce(runner.addresses[0][1])
        await ended()
        await runner.cleanup()


# --- both ---------------------------------------------------------------------------------------


def announce(port: int) -> None:
    """Tell whoever started us where we listen."""
    print(json.dumps({"listening": f"http://{HOST}:{port}"}), flush=True)


async def ended() -> None:
    """Wait for SIGTERM or Ctrl-C."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


def main(which: str) -> None:
    """Play one peer."""
    play: Mapping[str, Callable[[], object]] = {
        "psp": lambda: uvloop.run(serve_provider()),
        "floor": lambda: uvloop.run(serve_floor(os.environ)),
    }
    play[which]()


if __name__ == "__main__":
    main(sys.argv[1])
