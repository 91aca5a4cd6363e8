"""The simulated access server itself: connections, authentication, and how a fault looks.

Knows what is remembered of a connection and when a fault strikes. Refuses to know how it is started
(`mt5.py`), how it is told to misbehave (`admin.py`) and what a command means (`commands.py`).
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter, deque
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from bridge.mt5 import auth
from bridge.sim.books import Books
from bridge.sim.clock import Wall
from bridge.sim.commands import Desk, Reply, perform
from bridge.sim.dealing import Terms
from bridge.sim.faults import Fault, Script

AUTH_LIMIT_S: Final = 10.0
HANG_LIMIT_S: Final = 600.0
WINDOWS_KEPT: Final = 2_000
OLDEST_VERSION: Final = 484
Value = str | int | list[str | int]
BODY_NAMES: Final[Mapping[str, str]] = {
    "PassMain": "pass_main",
    "PassInvestor": "pass_investor",
    "PhonePassword": "pass_phone",
}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a server is started. Addresses are `host:port`; port 0 takes a free one.

    state   the journal, an append-only file; groups  a JSON file with a list of groups, optional
    deals   how to deal from the start; None for a platform where nobody trades
    """

    listen: str
    admin: str
    state: Path
    certificate: Path
    key: Path
    manager: int
    password_file: Path
    groups: Path | None = None
    idle_s: float = 180.0
    winter_offset_s: int = 7200
    deals: Terms | None = None


class Connection:
    """What the server remembers of one connection; authentication is a property of it."""

    def __init__(self) -> None:
        self.rand = b""
        self.challenged_at = 0.0
        self.authenticated = False


class Platform:
    """The server behind both ports."""

    def __init__(
        self, options: Options, books: Books, password: str, now: Callable[[], datetime]
    ) -> None:
        self.books = books
        self.wall = Wall(now, options.winter_offset_s)
        self.script = Script()
        self.received: Counter[str] = Counter()  # authenticated commands since the start
        self.windows: deque[tuple[int, int, int]] = deque(maxlen=WINDOWS_KEPT)
        """What `deal/get_batch` was asked for last, both ends, and how many deals each held."""
        self._options = options
        self._hash = auth.password_hash(password)
        self._chance = Random(0)
        self._connections: dict[RequestHandler, Connection] = {}

    async def handle(self, request: web.Request) -> web.Response:
        """Any request under /api/."""
        command = request.match_info["command"]
        connection = self._connection(request.protocol)
        params = await _params(request)
        if command == "auth/start":
            return self._challenge(connection, params)
        if command == "auth/answer":
            return self._authenticate(connection, params)
        if not connection.authenticated:
            return web.Response(status=403)
        self.received[command] += 1
        if command == "quit":
            connection.authenticated = False
            return reply_json(Reply().encode())
        return await self._serve(request, connection, command, params)

    def _connection(self, protocol: RequestHandler) -> Connection:
        """What is remembered of this connection; ended ones are forgotten when a new one comes."""
        if protocol not in self._connections:
            ended = [each for each in self._connections if each.transport is None]
            for each in ended:
                del self._connections[each]
            self._connections[protocol] = Connection()
        return self._connections[protocol]

    def _challenge(self, connection: Connection, params: Mapping[str, str]) -> web.Response:
        connection.authenticated = False
        if params.get("login") != str(self._options.manager) or params.get("type") != "manager":
            return reply_json(Reply(1001).encode())
        if not params.get("agent") or not _is_version(params.get("version", "")):
            return reply_json(Reply(1010).encode())
        connection.rand = os.urandom(auth.RAND_BYTES)
        connection.challenged_at = asyncio.get_running_loop().time()
        top = {"version_access": "3661", "srv_rand": connection.rand.hex()}
        return reply_json(Reply(top=top).encode())

    def _authenticate(self, connection: Connection, params: Mapping[str, str]) -> web.Response:
        """One try for each challenge, within its time."""
        rand, connection.rand = connection.rand, b""
        late = asyncio.get_running_loop().time() - connection.challenged_at > AUTH_LIMIT_S
        expected = auth.challenge_answer(self._hash, rand).hex()
        if not rand or late or params.get("srv_rand_answer", "").lower() != expected:
            return web.Response(status=403)
        try:
            theirs = auth.read_hex(params.get("cli_rand", ""))
        except ValueError:
            return web.Response(status=403)
        connection.authenticated = True
        proof = auth.challenge_answer(self._hash, theirs).hex()
        top = {"version_access": "3661", "version_trade": "3661", "cli_rand_answer": proof}
        return reply_json(Reply(top=top).encode())

    async def _serve(
        self,
        request: web.Request,
        connection: Connection,
        command: str,
        params: Mapping[str, str],
    ) -> web.Response:
        """Carry out a command, with the fault that is due for it."""
        fault = self.script.take(command)
        if fault is not None and (early := await self._before(request, connection, fault)):
            return early
        desk = Desk(self.books, self.wall, self._options.manager, self._chance)
        reply = perform(desk, command, params)
        if command == "deal/get_batch" and isinstance(reply.answer, list) and "from" in params:
            self.windows.append((int(params["from"]), int(params["to"]), len(reply.answer)))
        if fault is not None and (other := await self._after(request, fault)):
            return other
        return reply_json(reply.encode())

    async def _before(
        self, request: web.Request, connection: Connection, fault: Fault
    ) -> web.Response | None:
        """Faults that strike before anything is done; None lets the command go on."""
        match fault.action:
            case "drop_before":
                return _abort(request)
            case "hang_before":
                return await _hang(request)
            case "delay_before":
                await asyncio.sleep(fault.seconds)
            case "retcode_before":
                return reply_json(Reply(fault.code).encode())
            case "http_before":
                return web.Response(status=fault.code)
            case "expire":
                connection.authenticated = False
                return web.Response(status=403)
            case "deny":
                return web.Response(status=403)
        return None

    async def _after(self, request: web.Request, fault: Fault) -> web.Response | None:
        """Faults that strike once it is done; None lets the true answer out."""
        match fault.action:
            case "drop_after":
                return _abort(request)
            case "hang_after":
                return await _hang(request)
            case "delay_after":
                await asyncio.sleep(fault.seconds)
            case "retcode_after":
                return reply_json(Reply(fault.code).encode())
            case "http_after":
                return web.Response(status=fault.code)
            case "garbage_after":
                return reply_json(b'{"retcode": "0 Do')
        return None

    def cut(self) -> int:
        """End every connection at once; returns how many there were."""
        alive = [each.transport for each in self._connections if each.transport is not None]
        for transport in alive:
            transport.abort()
        return len(alive)


def _is_version(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) >= OLDEST_VERSION


async def _params(request: web.Request) -> dict[str, str]:
    """Query parameters; a JSON body's PascalCase names override them, its lists with commas."""
    params = dict(request.query)
    body = await request.read()
    if body:
        for name, value in msgspec.json.decode(body, type=dict[str, Value]).items():
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            params[BODY_NAMES.get(name, name.lower())] = text
    return params


def reply_json(body: bytes) -> web.Response:
    """An answer of JSON, HTTP 200 whatever it says."""
    return web.Response(body=body, content_type="application/json")


def _abort(request: web.Request) -> web.Response:
    """Reset the connection; the response goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


async def _hang(request: web.Request) -> web.Response:
    """Say nothing for as long as the client has patience: it ends with the connection."""
    await asyncio.sleep(HANG_LIMIT_S)
    return _abort(request)
