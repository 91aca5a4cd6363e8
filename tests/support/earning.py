"""A book whose partners earn: contracts and plans as values, deals landed by hand, an owner.

It knows how accrual is put together without partners' tables and platforms. It asserts nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import asyncpg

from gateway.flows.accruing import Accruing
from ledger import deals
from ledger.connections import connect_writer
from ledger.facts import Deal
from ledger.ids import Ids
from ledger.journal import Book, open_books
from ledger.rebates import inputs
from ledger.rebates.evidence import Sources
from ledger.rebates.inputs import Contract, Dated
from ledger.rebates.plans import Mode, Plan
from ledger.rebates.rates import rate
from ledger.rebates.writer import Committed
from ledger.units import Done, Left, Unit
from tests.support.servers import Database

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
SERVER = "mt5-live"
WAIT_S = 20.0
ACCRUED = "SELECT feed, landed FROM ledger.feed_book WHERE book_id = $1 ORDER BY feed"
REACHED = "SELECT feed, reached FROM ledger.accrual_position WHERE book_id = $1 ORDER BY feed"


def plan(name: str, mode: Mode = "differential", unit: str = "EUR", **rates: str) -> Plan:
    """A plan in a currency of two decimals; rates a lot by symbol."""
    return Plan(name, unit, mode, tuple(rate(r, 2, symbol=s) for s, r in rates.items()))


def contract(name: str, plan: str, parent: str = "", unit: str = "EUR") -> Contract:
    """A contract that was always there."""
    return Contract(name, unit, ((LONG_AGO, parent),), ((LONG_AGO, plan),))


LADDER = (
    plan("partner", EURUSD="5", XAUUSD="0.40"),
    plan("master", EURUSD="8"),
    plan("director", EURUSD="8", XAUUSD="1"),
)
# The director above the master above the partner; `lone` stands alone.
TREE = (
    contract("CTdirector", "director"), contract("CTmaster", "master", "CTdirector"),
    contract("CTpartner", "partner", "CTmaster"), contract("CTlone", "partner"),
)  # fmt: skip
CLIENTS: Mapping[int, str] = {5001: "CTpartner", 5002: "CTlone", 5003: ""}


class Owner:
    """An ownership that is held under an epoch; it can be lost."""

    def __init__(self, epoch: int = 1) -> None:
        self.epoch, self.held = epoch, True


class Items:
    """A lane that keeps what is handed in."""

    def __init__(self) -> None:
        self.units: list[Unit] = []

    async def submit(self, unit: Unit) -> Done | Left:
        """Take it."""
        self.units.append(unit)
        return Done((), datetime.now(UTC))


@dataclass
class Earning:
    """One book, its inputs in memory, and everything that was told of its batches."""

    database: Database
    pool: asyncpg.Pool
    book: int = 1
    contracts: dict[str, Contract] = field(default_factory=dict)
    clients: dict[int, Dated] = field(default_factory=dict)
    told: list[Committed] = field(default_factory=list)
    items: Items = field(default_factory=Items)
    feeds: dict[str, int] = field(default_factory=dict)
    epochs: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    deals_max: int = 100

    async def open(self, plans: Sequence[Plan] = LADDER) -> Earning:
        """Open the book with the ladder and its clients."""
        self.contracts = {each.id: each for each in TREE}
        self.clients = {login: ((LONG_AGO, to),) for login, to in CLIENTS.items()}
        async with self.pool.acquire() as conn, conn.transaction():
            await open_books(conn, [Book(self.book, "fx-eu", "EUR")])
            await self.publish(conn, plans)
        # Plans take effect when they are published, and the deals of tests are older.
        owner = await self.database.connect(owner=True)
        await owner.execute("ALTER TABLE ledger.plan_version DISABLE TRIGGER USER")
        await owner.execute("UPDATE ledger.plan_version SET since = $1", LONG_AGO)
        await owner.execute("ALTER TABLE ledger.plan_version ENABLE TRIGGER USER")
        return self

    async def publish(self, conn: asyncpg.Connection, plans: Iterable[Plan]) -> None:
        """Bring plans into force."""
        await inputs.publish(conn, [self.book], plans)

    async def land(self, *seen: Deal, server: str = SERVER) -> None:
        """Land deals of this book."""
        async with self.pool.acquire() as conn:
            if server not in self.feeds:
                self.feeds[server], _ = await deals.open_feed(conn, server, 1)
            looks = [(self.book, deal) for deal in seen]
            async with conn.transaction():
                await deals.land(conn, self.feeds[server], 1, looks)

    async def _contracts(
        self, conn: asyncpg.Connection, book: int, inputs_max: int = 0
    ) -> Sequence[Contract]:
        assert (conn, book) != (None, 0)
        return list(self.contracts.values())

    async def _attributions(
        self, conn: asyncpg.Connection, server: str, logins: Sequence[int], inputs_max: int = 0
    ) -> Mapping[int, Dated]:
        assert (conn, server) != (None, "")
        return {login: self.clients[login] for login in logins}

    async def _reattributed(self, conn: asyncpg.Connection, book: int, after: int) -> bool:
        assert (conn, book, after) != (None, 0, 0)
        return False

    @property
    def sources(self) -> Sources:
        """What explanations are computed from."""
        return Sources(self._contracts, self._attributions)

    def owned(self, owner: Owner | None = None, **changes: Any) -> Accruing:
        """An owner's accrual of the book."""
        parts: dict[str, Any] = {
            "book": self.book, "entity": "fx-eu",
            "ownership": owner or Owner(next(self.epochs)),
            "connect": partial(connect_writer, self.database.daemon_dsn), "pool": self.pool,
            "lane": self.items, "contracts": self._contracts,
            "attributions": self._attributions, "reattributed": self._reattributed,
            "tell": self.told.append, "observer": Unwatched(),
            "ids": Ids(lambda: time.time_ns() // 1_000_000, os.urandom),
            "now": partial(datetime.now, UTC), "monotonic": time.monotonic,
            "deals_max": self.deals_max,
        }  # fmt: skip
        return Accruing(**(parts | changes))

    async def caught_up(self) -> bool:
        """Whether all landed deals are accrued."""
        async with self.pool.acquire() as conn:
            landed = [tuple(row) for row in await conn.fetch(ACCRUED, self.book)]
            return landed == [tuple(row) for row in await conn.fetch(REACHED, self.book)]

    async def accrue(self, *seen: Deal) -> None:
        """Land deals and have an owner accrue all there is."""
        if seen:
            await self.land(*seen)
        async with working(self.owned()):
            await self.until_caught_up()

    async def until_caught_up(self) -> None:
        """Wait for whoever works."""
        async with asyncio.timeout(WAIT_S):
            while not await self.caught_up():
                await asyncio.sleep(0.01)

    async def rows(self, sql: str, *arguments: object) -> list[tuple[Any, ...]]:
        """What a question to the database answers."""
        async with self.pool.acquire() as conn:
            return [tuple(row) for row in await conn.fetch(sql, *arguments)]


class Unwatched:
    """Counts nothing."""

    def accrued(self, batch: Committed, seconds: float) -> None:
        """A batch is in the books."""


@asynccontextmanager
async def working(accruing: Accruing) -> AsyncIterator[asyncio.Task[None]]:
    """Have it work while the block lasts; a bug of it is raised."""
    task = asyncio.create_task(accruing.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def later(days: float) -> datetime:
    """A moment after the beginning of everything."""
    return LONG_AGO + timedelta(days=days)
