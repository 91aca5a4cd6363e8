"""A lane on a real database, with tables of a room beside the books.

Knows how to start lanes, make units and break connections on order. Asserts nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import date
from typing import Any

import asyncpg
import pytest_asyncio

from ledger import entries
from ledger.connections import connect_writer
from ledger.facts import AccountName, Entry
from ledger.journal import Book, Numbers, open_books
from ledger.lane import Lane, LaneLimits
from ledger.money import Money, currency
from ledger.reads import balances
from ledger.units import Change, Kind, Step, Unit
from ledger.verify import Wrong, verify
from tests.support.servers import Database

DAY = date(2026, 3, 1)
EUR = currency("EUR")
WAIT_S = 30.0

ROOM = """
CREATE TABLE public.thing (
    id text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL DEFAULT 1,
    note text NOT NULL DEFAULT ''
);
CREATE TABLE public.taken (key text COLLATE "C" PRIMARY KEY, subject text NOT NULL);
CREATE TABLE public.note (
    id text COLLATE "C" PRIMARY KEY,
    body text NOT NULL CHECK (body <> 'poison')
);
CREATE TABLE public.rule (hash text COLLATE "C" PRIMARY KEY);
GRANT ALL ON public.thing, public.taken, public.note, public.rule TO brokerd_daemon;
"""

RULE = Kind(
    "room.rule.holds", Step.CHECK,
    "SELECT hash FROM public.rule WHERE hash = ANY($1::text[]) FOR SHARE",
)  # fmt: skip
TAKE = Kind(
    "room.taken.claim", Step.CLAIM,
    "INSERT INTO public.taken SELECT * FROM unnest($1::text[], $2::text[]) "
    "ON CONFLICT DO NOTHING RETURNING key",
    "SELECT key, subject FROM public.taken WHERE key = ANY($1::text[])",
)  # fmt: skip
THING = Kind(
    "room.thing.move", Step.MOVE,
    "UPDATE public.thing t SET version = version + 1, note = u.note "
    "FROM unnest($1::text[], $2::bigint[], $3::text[]) u (id, expected, note) WHERE t.id = u.id",
    "SELECT id, version FROM public.thing WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE",
)  # fmt: skip
NOTE = Kind(
    "room.note.insert", Step.INSERT,
    "INSERT INTO public.note SELECT * FROM unnest($1::text[], $2::text[])",
)  # fmt: skip


def note(id: str, body: str = "a line") -> Change:
    """A row added beside the entry."""
    return Change(NOTE, (id, body))


def deposit(key: str, client: str = "CL1", minor: int = 100, psp: str = "acme") -> Entry:
    """A deposit of a client, in cents."""
    return entries.deposit(1, key, client, psp, Money(minor, EUR), DAY)


def spend(key: str, client: str = "CL1", minor: int = 100) -> Entry:
    """Money that leaves the wallet; the wallet cannot go below zero."""
    return entries.transfer("transfer_out", 1, key, client, "live", "AC1", Money(minor, EUR), DAY)


def deposited(key: str, client: str = "CL1", minor: int = 100) -> Unit:
    """A deposit with one row beside it."""
    return Unit((note(key),), (deposit(key, client, minor),))


class Link:
    """A connection that can be told to die around a statement.

    Anything a lane uses is passed on; `plan(sql)` says "before", "after" or nothing.
    """

    def __init__(self, conn: asyncpg.Connection, plan: Callable[[str], str]) -> None:
        self._conn = conn
        self._plan = plan

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conn, name)

    async def _run(self, verb: str, sql: str, args: Sequence[object]) -> Any:
        when = self._plan(sql)
        if when == "before":
            self._die()
        answer = await getattr(self._conn, verb)(sql, *args)
        if when == "after":
            self._die()
        return answer

    def _die(self) -> None:
        self._conn.terminate()
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle")

    async def execute(self, sql: str, *args: object) -> Any:
        """As asyncpg's."""
        return await self._run("execute", sql, args)

    async def fetch(self, sql: str, *args: object) -> Any:
        """As asyncpg's."""
        return await self._run("fetch", sql, args)

    async def fetchrow(self, sql: str, *args: object) -> Any:
        """As asyncpg's."""
        return await self._run("fetchrow", sql, args)

    async def fetchval(self, sql: str, *args: object) -> Any:
        """As asyncpg's."""
        return await self._run("fetchval", sql, args)


class House:
    """One database, its lanes, and a reader."""

    def __init__(self, database: Database, reader: asyncpg.Connection) -> None:
        self.database = database
        self.reader = reader
        self._names = itertools.count(1)

    async def connect(self) -> asyncpg.Connection:
        """Open a connection as a writer of the books."""
        conn = await connect_writer(self.database.daemon_dsn)
        self.database.opened.append(conn)
        return conn

    @contextlib.asynccontextmanager
    async def lane(
        self,
        connect: Callable[[], Awaitable[Any]] | None = None,
        *,
        numbers: Numbers | None = None,
        limits: LaneLimits = LaneLimits(redial_s=0.01),  # noqa: B008 frozen
    ) -> AsyncIterator[Lane]:
        """Run a lane while the block lasts; what was handed in is written before it ends."""
        lane = Lane(
            f"lane-{next(self._names)}", connect or self.connect, numbers or Numbers(),
            time.monotonic, limits,
        )  # fmt: skip
        running = asyncio.create_task(lane.run())
        try:
            yield lane
        finally:
            lane.close()
            async with asyncio.timeout(WAIT_S):
                await running

    async def balance(self, kind: str, owner: str) -> int:
        """Minor units on an account, 0 where there is none."""
        return sum(b.minor for b in await balances(self.reader, [1], kind=kind, owner=owner))

    async def count(self, table: str) -> int:
        """Rows of a table."""
        counted: int = await self.reader.fetchval(f"SELECT count(*) FROM {table}")
        return counted

    async def wrong(self) -> list[Wrong]:
        """What verify finds."""
        return await verify(self.reader)


async def answers(waiting: Sequence[Awaitable[Any]]) -> list[Any]:
    """All answers, exceptions among them, within the limit."""
    async with asyncio.timeout(WAIT_S):
        return await asyncio.gather(*waiting, return_exceptions=True)


def accounts(client: str = "CL1", psp: str = "acme") -> tuple[AccountName, AccountName]:
    """The two accounts of a deposit."""
    return AccountName("psp_clearing", psp, "EUR"), entries.wallet(client, "EUR")


@pytest_asyncio.fixture
async def house(database: Database) -> House:
    """A database with book 1 open and a room's tables."""
    owner = await database.connect(owner=True)
    await owner.execute(ROOM)
    reader = await database.connect()
    await open_books(reader, [Book(1, "fx-eu", "EUR")])
    return House(database, reader)
