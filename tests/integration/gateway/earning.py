"""Partners who earn: deals landed in a test's database and accrued by the real service.

It knows how a deal gets from landing to lines and balances: clients come through contracts by the
API, and their accounts are rows, as if a platform had made them. It refuses to fake anything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Any

import asyncpg

from gateway.flows import attributions
from gateway.flows.accruing import Accruing
from gateway.owners import Ownership
from gateway.people import attribution, partners
from ledger import deals
from ledger import queries as ledger_queries
from ledger.connections import connect_writer
from ledger.facts import DEAL, Deal
from ledger.rebates.writer import Committed
from tests.integration.gateway.conftest import BOOK, Api
from tests.support.servers import Database
from tests.unit.ledger.values import deal

SERVER = "mt5-live"
ACCOUNT = """
INSERT INTO bridge.account (id, version, client_id, book, server, entity, brand, account_type,
    currency, platform_group, leverage, rights, login, state, correlation, created, updated)
VALUES ($1, 1, $2, $3, $4, $5, $6, 'standard', $7, 'g', 100, 0, $8, 'verified', 'c', $9, $9)
"""


class Nobody:
    """Counts nothing."""

    def accrued(self, batch: Committed, seconds: float) -> None:
        """A batch is in the books."""


class Earner:
    """One book's deals and what becomes of them; batches are told to the hub of the API."""

    def __init__(self, api: Api, database: Database, book: int = 1) -> None:
        self.api = api
        self.book = book
        self._logins: dict[str, int] = {}
        self._database = database
        self._tickets = count(1)
        self._reached = 0
        self._booked = asyncio.Event()
        self._feed = 0

    async def earns(self, contract: Mapping[str, Any], *lots: str, **changes: Any) -> list[Deal]:
        """A client of this contract closes deals of these lots; returns once they are accrued."""
        login = self._logins.get(contract["id"]) or await self._account(contract)
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
            pool=api.pool, lane=api.lane, contracts=partners.contracts_since,
            attributions=attributions.of_logins, reattributed=attribution.changed_since,
            tell=self._tell, observer=Nobody(), ids=api.parts.ids, now=clock.now,
            monotonic=clock.monotonic,
        )  # fmt: skip
        working = asyncio.create_task(owner.run(self._accruing.run))
        try:
            yield self
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    async def _account(self, contract: Mapping[str, Any]) -> int:
        """The login of a new client who came through the contract."""
        ids, login = self.api.parts.ids, 5001 + len(self._logins)
        client = await self.api.new_client(
            f"c-{login}", brand=contract["brand"], currency=contract["currency"],
            attribution={"code": contract["code"]},
        )  # fmt: skip
        await self.api.owner.execute(
            ACCOUNT, ids.new("AC"), client["id"], self.book, SERVER, contract["entity"],
            contract["brand"], contract["currency"], login, self.api.clock.now(),
        )  # fmt: skip
        self._logins[contract["id"]] = login
        return login

    def _tell(self, batch: Committed) -> None:
        self._reached = batch.reached
        self._booked.set()
        self.api.parts.live.told(batch)
