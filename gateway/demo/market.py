"""The demo's market: partners, the clients they brought, their deals, and partners who watch.

Knows in which order these come to life, and how fast clients deal. Refuses to know what a partner
earns: the judge has a computation of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Final

import aiohttp

from config.rulebook import Rulebook
from gateway.demo import partners
from gateway.demo.dealt import DealJudge
from gateway.demo.partners import Contracted
from gateway.demo.people import Known, Person, settle_in
from gateway.demo.rebates import Expected
from gateway.demo.watch import Watching
from gateway.demo.world import PORTAL, World
from gateway.opening import Clocks

SEED: Final = 23
AT_ONCE: Final = 24  # clients settled in beside each other
WATCHED: Final = 24  # partners who look at their page
PER_S_LIVE: Final = 40.0
FIRST: Final = 60  # traders who do not wait for the others


class Market:
    """Partners and traders of one demo; empty until `settle`."""

    def __init__(
        self, world: World, book: Rulebook, http: aiohttp.ClientSession, clocks: Clocks, wanted: int
    ) -> None:
        self._world = world
        self._book = book
        self._wanted = wanted
        self._chance = Random(SEED)  # noqa: S311 - it plans a sample broker, nothing secret
        self.partners: Sequence[Contracted] = ()
        self.traders: Sequence[Known] = ()
        self.watching = Watching(http, world.url, world.tokens[PORTAL], clocks.now)

    async def settle(self) -> None:
        """Make partners and traders known; those of an earlier life are found again."""
        people = await self._plan()
        self.traders = await settle_in(self._world.desk, people, AT_ONCE)

    async def _plan(self) -> Sequence[Person]:
        """Make the partners known; returns the clients they will bring."""
        planned = partners.tree(self._book, self._chance)
        self.partners = await partners.contract_all(self._world.desk.portal, planned)
        return partners.traders(planned, self._chance, self._wanted)

    @asynccontextmanager
    async def dealing(self, per_s: float) -> AsyncIterator[None]:
        """Have everyone with an account deal while the block lasts, whoever is new as well."""
        wish = {"seed": SEED, "per_s": per_s}
        await self._world.platform.post("/deals", wish)
        try:
            yield
        finally:
            await self._world.platform.delete("/deals")

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Have some partners watch their balances while the block lasts."""
        step = max(1, len(self.partners) // WATCHED)
        watching = asyncio.create_task(self.watching.run(self.partners[::step]))
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching  # what ended it before its time is raised here

    async def live(self) -> None:
        """All of it, until cancelled: the first traders deal while the others are on their way."""
        people = await self._plan()
        self.traders = await settle_in(self._world.desk, people[:FIRST], AT_ONCE)
        async with self.watched(), self.dealing(PER_S_LIVE):
            for begin in range(FIRST, len(people), FIRST):
                more = await settle_in(self._world.desk, people[begin : begin + FIRST], AT_ONCE)
                self.traders = [*self.traders, *more]
            await asyncio.Event().wait()

    def judge(self) -> DealJudge:
        """Who looks into the books of deals when all has come to rest."""
        expected = Expected(self._book, self.partners, self.traders)
        return DealJudge(self._world.platform, expected, self.partners, self.watching)
