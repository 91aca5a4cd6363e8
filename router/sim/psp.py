"""A payment provider as a real HTTP server, which can be told to misbehave: `brokerd sim psp`.

Knows charges, inquiries, refunds, signed notices and its admin's wishes. Refuses to be imported by
the daemon: it is reached over the wire. Its books survive it, whatever its caller was told.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import signal
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from aiohttp import web

from router.sim.behaviour import Behaviour, Script, read_profile
from router.sim.books import Books, Charge
from router.sim.notices import Deliverer
from router.sim.provider import (
    ChargeRequest,
    Notify,
    Provider,
    RefundRequest,
    Refused,
    Settle,
    charge_view,
    refund_view,
)

BODY_BYTES_MAX: Final = 64 * 1024
HANG_S: Final = 120.0
SHUTDOWN_S: Final = 1.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to run one provider.

    host, port    where to listen; port 0 lets the system choose
    state         the journal of its books
    webhook_url   where notices go, "" for nowhere
    profile       a TOML file of behaviours to draw from; None approves every charge
    """

    name: str
    host: str = "127.0.0.1"
    port: int = 0
    state: Path
    api_key: str
    webhook_url: str = ""
    webhook_secret: str = ""
    seed: int = 0
    profile: Path | None = None


# -- the wire --------------------------------------------------------------------------------------


class Site:
    """The provider's HTTP server."""

    def __init__(self, provider: Provider, api_key: str, stop: asyncio.Event) -> None:
        self._provider = provider
        self._key = f"Bearer {api_key}".encode()
        self._stop = stop
        self._requests = 0

    def app(self) -> web.Application:
        """The routes; those of the admin need no key, because the listener is on the loopback."""
        app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[self._errors])
        app.add_routes(
            [
                web.post("/v1/charges", self._charge),
                web.get("/v1/charges", self._inquire),
                web.post("/v1/refunds", self._refund),
                web.get("/v1/refunds", self._inquire_refund),
                web.post("/admin/behaviour", self._script),
                web.get("/admin/behaviour", self._scripted),
                web.delete("/admin/behaviour", self._clear),
                web.post("/admin/settle", self._settle),
                web.post("/admin/notify", self._notify),
                web.get("/admin/books", self._books),
                web.get("/admin/ready", self._ready),
            ]
        )
        return app

    @web.middleware
    async def _errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if request.path.startswith("/v1/"):
                self._requests += 1
                given = request.headers.get("Authorization", "").encode()
                if not hmac.compare_digest(given, self._key):
                    raise Refused(401, "unauthorized", "the key is wrong")
            return await handler(request)
        except Refused as no:
            error = {"code": no.code, "message": str(no)}
            return _json({"error": error}, no.status)

    async def _charge(self, request: web.Request) -> web.StreamResponse:
        wanted = await _read(request, ChargeRequest)
        if request.headers.get("Idempotency-Key") != wanted.reference:
            raise Refused(400, "idempotency_key_missing", "the key must be the reference")
        charge, behaviour = self._provider.charge(wanted)
        if behaviour.answer_after_s:
            await asyncio.sleep(behaviour.answer_after_s)
        if behaviour.answer != "plain":
            return await self._misanswer(request, behaviour)
        if charge is None:
            raise Refused(503, "unavailable", "nothing was charged")
        return _json(charge_view(charge), 200 if charge.requests > 1 else 201)

    async def _misanswer(self, request: web.Request, behaviour: Behaviour) -> web.StreamResponse:
        """Answer a charge in one of the ways that leave its caller in doubt."""
        if behaviour.answer == "status":
            error = {"code": "simulated", "message": "as told"}
            return _json({"error": error}, behaviour.http_status)
        if behaviour.answer == "garbage":
            return web.Response(text="<html>it works</html>", content_type="text/html")
        if behaviour.answer == "hang":
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), HANG_S)
        response = web.StreamResponse(headers={"Content-Length": "200"})
        if behaviour.answer == "truncated":
            await response.prepare(request)
            await response.write(b'{"id": "')
        _reset(request)
        return response  # goes nowhere: the connection is gone

    async def _inquire(self, request: web.Request) -> web.Response:
        reference = request.query.get("reference", "")
        return _json(charge_view(self._provider.inquire(reference)))

    async def _refund(self, request: web.Request) -> web.Response:
        refund = self._provider.refund(await _read(request, RefundRequest))
        return _json(refund_view(refund), 201)

    async def _inquire_refund(self, request: web.Request) -> web.Response:
        reference = request.query.get("reference", "")
        return _json(refund_view(self._provider.inquire_refund(reference)))

    # -- for the admin -----------------------------------------------------------------------------

    async def _script(self, request: web.Request) -> web.Response:
        self._provider.script.add(await _read(request, Behaviour))
        return _json({"scripted": len(self._provider.script.scripted)}, 201)

    async def _scripted(self, request: web.Request) -> web.Response:
        return _json({"scripted": self._provider.script.scripted})

    async def _clear(self, request: web.Request) -> web.Response:
        self._provider.script.clear()
        return _json({"scripted": 0})

    async def _settle(self, request: web.Request) -> web.Response:
        return _json(charge_view(self._provider.settle(await _read(request, Settle))))

    async def _notify(self, request: web.Request) -> web.Response:
        self._provider.notify(await _read(request, Notify))
        return _json({}, 202)

    async def _books(self, request: web.Request) -> web.Response:
        books = self._provider.books
        notices = [notice.outcome or "due" for notice in books.notices.values()]
        return _json(
            {
                "name": self._provider.name,
                "requests": self._requests,
                "charges": [_booked(charge) for charge in books.charges.values()],
                "refunds": [refund_view(refund) for refund in books.refunds.values()],
                "notices": {word: notices.count(word) for word in ("delivered", "dead", "due")},
            }
        )

    async def _ready(self, request: web.Request) -> web.Response:
        return _json({"name": self._provider.name})


def _booked(charge: Charge) -> dict[str, object]:
    return charge_view(charge) | {"requests": charge.requests, "settled": charge.settled}


def _reset(request: web.Request) -> None:
    """End the connection with a reset, so that no answer can be read."""
    transport = request.transport
    if transport is not None:
        raw: socket.socket | None = transport.get_extra_info("socket")
        if raw is not None:  # linger 0: close sends a reset, not an orderly end
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


async def _read(request: web.Request, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except msgspec.DecodeError as error:
        raise Refused(400, "body_invalid", str(error)) from None


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(body), status=status, content_type="application/json"
    )


# -- running ---------------------------------------------------------------------------------------


class _Stopped(Exception):
    """Ends the provider's tasks; never leaves `run`."""


async def run(
    options: Options,
    stop: asyncio.Event,
    listening: Callable[[str], None],
    now: Callable[[], float] = time.time,
) -> None:
    """Serve until `stop`; calls `listening` with the address once requests are taken."""
    script = Script(read_profile(options.profile), options.seed)
    with Books(options.state) as books:
        secret = options.webhook_secret.encode()
        deliverer = Deliverer(books, options.webhook_url, secret, now)
        try:
            async with asyncio.TaskGroup() as tasks:
                provider = Provider(options.name, books, script, deliverer, tasks, now)
                provider.resume()
                tasks.create_task(deliverer.run())
                app = Site(provider, options.api_key, stop).app()
                await _listen(app, options.host, options.port, stop, listening)
                raise _Stopped
        except* _Stopped:
            pass  # the tasks are gone, and the books hold what they were about


async def _listen(
    app: web.Application,
    host: str,
    port: int,
    stop: asyncio.Event,
    listening: Callable[[str], None],
) -> None:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        bound_host, bound_port, *_ = runner.addresses[0]
        listening(f"http://{bound_host}:{bound_port}")
        await stop.wait()
    finally:
        await runner.cleanup()


def serve(options: Options, announce: Callable[[str], None]) -> None:
    """Run one provider until SIGINT or SIGTERM; `announce` gets its address."""
    asyncio.run(_serve(options, announce))


async def _serve(options: Options, announce: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await run(options, stop, announce)
