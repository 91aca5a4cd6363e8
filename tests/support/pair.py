"""Two daemons on one database, each with a way of its own to the platform that counts what passes.

It knows which of them owns what, and how to put both to work and away again. It refuses to judge.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from tests.support.house import Daemon, House, until
from tests.support.proxy import Proxy, TcpUpstream

OWNER: Final = "SELECT holder, epoch FROM gateway.owner WHERE name = $1"
PLATFORM: Final = "platform:mt5-live"
TAKEN_OVER_WITHIN_S: Final = 10.0
GOODBYE_BYTES: Final = 24  # TLS says that it closes; the shortest request has hundreds
AWAKE_S: Final = 4.0  # longer than an owner takes to find out that it is none any more

T = TypeVar("T")


class Pair:
    """Two daemons, each with a way of its own to the platform that counts what passes."""

    def __init__(self, house: House, ways: dict[str, Proxy], daemons: dict[str, Daemon]) -> None:
        self.house = house
        self.ways = ways
        self.daemons = daemons

    async def held(self, name: str = PLATFORM) -> tuple[str, int]:
        """Who took a name last, and the number of that ownership."""
        async with self.house.database() as conn:
            return tuple(await conn.fetchrow(OWNER, name))

    async def epoch(self, name: str = PLATFORM) -> int:
        """The number of the ownership in force."""
        return (await self.held(name))[1]

    async def owner(self) -> str:
        """The daemon whose session is live and who holds the platform."""

        async def live() -> str | None:
            for name, daemon in self.daemons.items():
                auditor = self.house.caller("otto", daemon)
                sessions = (await auditor.get("/v1/sessions"))["data"]
                if any(each["state"] == "live" for each in sessions):
                    return name
            return None

        return await until(live, "an owner of the platform")

    def other(self, name: str) -> str:
        """The one of the two that is not `name`."""
        return next(each for each in self.daemons if each != name)


@asynccontextmanager
async def open_pair(house: House) -> AsyncIterator[Pair]:
    """Two daemons while the block lasts; the house's first one is away meanwhile."""
    await house.daemon.stop()
    host, _, port = house.platform.peer.url.removeprefix("https://").partition(":")
    upstream = TcpUpstream(host, int(port))
    async with Proxy(upstream) as one, Proxy(upstream) as two:
        ways = {"one": one, "two": two}
        daemons = {}
        for name, way in ways.items():
            address = f"https://{way.host}:{way.port}"
            port_of = house.daemon.wish.port if name == "one" else 0
            daemons[name] = await house.another_daemon(name, address, port=port_of)
        before, house.daemon = house.daemon, daemons["one"]
        try:
            yield Pair(house, ways, daemons)
        finally:
            for daemon in daemons.values():
                daemon.send(signal.SIGCONT)
                await daemon.stop()
            house.daemon = before
        await house.daemon.start()


async def within(limit_s: float, there: Callable[[], Awaitable[T | None]]) -> T:
    """Wait until `there` answers something, for so long and no longer."""
    async with asyncio.timeout(limit_s):
        while True:
            found = await there()
            if found:
                return found
            await asyncio.sleep(0.1)
