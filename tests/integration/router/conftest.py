"""A simulated provider on a real socket, and the router's own client speaking to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from msgspec.structs import replace

from config.secret import Secret
from router import taxonomy
from router.attempts import Attempts, Terminal
from router.health import Breakers
from router.intents import Attempt, Intent
from router.outcomes import Outcome
from router.psp.connector import load_connectors
from router.psp.transport import open_transport
from router.sim import psp as sim
from tests.unit.router.values import attempt, intent

SECRET = b"the secret of the notices"
LIMIT_S = 10.0
CONNECTORS, _ = load_connectors(taxonomy.load())


class House:
    """One provider `acme` on the wire, its admin, and our client for it."""

    def __init__(self, url: str, admin: aiohttp.ClientSession, attempts: Attempts) -> None:
        self.url = url
        self.attempts = attempts
        self._admin = admin

    async def will(self, **behaviour: Any) -> None:
        """The next charge is treated like this."""
        await self.admin("behaviour", behaviour)

    async def admin(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        """A wish of the admin."""
        async with self._admin.post(f"{self.url}/admin/{what}", json=body) as answer:
            assert answer.status < 300, await answer.text()
            got: dict[str, Any] = await answer.json()
            return got

    async def books(self) -> dict[str, Any]:
        """What the provider's books say."""
        async with self._admin.get(f"{self.url}/admin/books") as answer:
            got: dict[str, Any] = await answer.json()
            return got

    async def charge(self, sent: Attempt | None = None, wanted: Intent | None = None) -> Outcome:
        """Charge an attempt of ours."""
        return await self.attempts.charge(sent or attempt(), wanted or intent(), lambda: True)


class Receiver:
    """Takes notices as the daemon would, and keeps what came: headers and raw bytes."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.status = 200
        self.url = ""
        self._came = asyncio.Condition()

    async def take(self, request: web.Request) -> web.Response:
        """One notice."""
        async with self._came:
            self.got.append((dict(request.headers), await request.read()))
            self._came.notify_all()
        return web.Response(status=self.status)

    async def wait_for(self, count: int) -> list[tuple[dict[str, str], bytes]]:
        """At least so many notices, or a TimeoutError."""
        async with asyncio.timeout(LIMIT_S), self._came:
            await self._came.wait_for(lambda: len(self.got) >= count)
            return list(self.got)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Somebody who takes notices."""
    taker = Receiver()
    app = web.Application()
    app.add_routes([web.post("/hooks", taker.take)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    taker.url = "http://{}:{}/hooks".format(*runner.addresses[0])
    yield taker
    await runner.cleanup()


Opens = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def open_house(tmp_path: Path, receiver: Receiver) -> Opens:
    """Opens a provider on the books in this test's folder; call it again for a restart."""
    plain = sim.Options(
        name="acme", state=tmp_path / "acme.journal", api_key="key", webhook_url=receiver.url,
        webhook_secret=SECRET.decode(),
    )  # fmt: skip

    @asynccontextmanager
    async def opens(answer_timeout_s: float = LIMIT_S, **changes: Any) -> AsyncIterator[House]:
        async with contextlib.AsyncExitStack() as opened:
            url = await opened.enter_async_context(running(replace(plain, **changes)))
            transport = await opened.enter_async_context(open_transport())
            admin = await opened.enter_async_context(aiohttp.ClientSession())
            terminal = Terminal(
                "acme", CONNECTORS["simpay"], url, Secret("key"), Secret(SECRET.decode())
            )
            clock = asyncio.get_running_loop().time
            attempts = Attempts(
                {"acme": terminal}, transport, Breakers(["acme"], clock), answer_timeout_s, clock
            )
            yield House(url, admin, attempts)

    return opens


@pytest.fixture
async def house(open_house: Opens) -> AsyncIterator[House]:
    """A provider that approves everything until it is told otherwise."""
    async with open_house() as opened:
        yield opened


@asynccontextmanager
async def running(options: sim.Options) -> AsyncIterator[str]:
    """The provider as a task; its address."""
    stop, address = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(sim.run(options, stop, address.set_result))
    await asyncio.wait([task, address], return_when=asyncio.FIRST_COMPLETED, timeout=LIMIT_S)
    if task.done():
        await task
    try:
        yield await address
    finally:
        stop.set()
        await asyncio.wait_for(task, LIMIT_S)
