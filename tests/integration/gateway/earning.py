"""Partners who earn: deals landed in a test's database and accrued by the real service.

It knows how a deal gets from landing to lines and balances. It refuses to fake any step but the
question whose client a login is: here a test says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any

import asyncpg

from gateway.flows.accruing import Accruing
from gateway.owners import Ownership
from gateway.people import partners
from ledger import deals
from ledger import queries as ledger_queries
from ledger.connections import connect_writer
from ledger.facts import DEAL, Deal
from ledger.rebates.inputs import Dated
from ledger.rebates.writer import Committed
from tests.integration.gateway.conftest import BOOK, Api
from tests.support.servers import Database
from tests.unit.ledger.values import deal

SERVER = "mt5-live"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class Nobody:
    """Counts nothing."""

    def accrued(self, batch: Committed, seconds: float) -> None:
        """A batch is in the books."""


class Earner:
    """One book's deals and what becomes of them; batches are told to the hub of the API."""

    def __init__(self, api: Api, database: Database, book: int = 1) -> None:
        self.api = api
        self.book = book
        self.logins: dict[int, str] = {}
        self._database = database
        self._tickets = count(1)
        self._reached = 0
        self._booked = asyncio.Event()
        self._feed = 0

    async def earns(self, contract: Mapping[str, Any], *lots: str, **changes: Any) -> list[Deal]:
        """Clients of this contract close deals of these lots; returns once they are accrued."""
        login = int.from_bytes(contract["id"].encode()[-6:])
        self.logins[login] = contract["id"]
        at = changes.pop("at", self.api.clock.now())
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        made = [
            deal(next(self._tickets), lots=each, login=login, at=at, phase=DEAL, **changes)
            for each in lots
        ]
        async with self.api.pool.acquire() as conn, conn.transaction():
            seen = [(self.book, each) for each in made]
            await deals.land(conn, self._feed, 1, seen, (), b"{}")
            landed = await deals.feeds_of(conn, self.book)
        self._accruing.wake()
        (wanted,) = [no for _, server, no in landed if server == SERVER]
        async with asyncio.timeout(20):
            while self._reached < wanted:
                self._booked.clear()
                await self._booked.wait()
        return made

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[Earner]:
        """Own the book and accrue while the block lasts."""
        async with self.api.pool.acquire() as conn:
            await conn.execute(
                ledger_queries.OPEN_BOOKS, [e.book for e in BOOK.entities],
                [e.id for e in BOOK.entities], [e.currency for e in BOOK.entities],
            )  # fmt: skip
            self._feed, _ = await deals.open_feed(conn, SERVER, 1)
        api, clock = self.api, self.api.clock
        connect = partial(asyncpg.connect, self._database.daemon_dsn)
        owner = Ownership(f"book:{self.book}", "tests", connect, clock.monotonic)
        self._accruing = Accruing(
            book=self.book, entity="fx-eu", ownership=owner,
            connect=partial(connect_writer, self._database.daemon_dsn, transaction_s=2.0),
            pool=api.pool, lane=api.lane, contracts=partners.read_contracts,
            attributions=self._attributions, tell=self._tell, observer=Nobody(),
            ids=api.parts.ids, now=clock.now, monotonic=clock.monotonic,
        )  # fmt: skip
        working = asyncio.create_task(owner.run(self._accruing.run))
        try:
            yield self
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    async def _attributions(
        self, conn: asyncpg.Connection, server: str, logins: Sequence[int]
    ) -> Mapping[int, Dated]:
        return {login: ((LONG_AGO, self.logins[login]),) for login in logins}

    def _tell(self, batch: Committed) -> None:
        self._reached = batch.reached
        self._booked.set()
        self.api.parts.live.told(batch)
