"""Following a partner's stream in tests: partners, batches that move them, and a reader.

Knows how a stream looks on the wire and which rows a batch leaves. Refuses to judge what it says.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
import asyncpg
import msgspec
from redis.asyncio import Redis

from gateway.flows.live import Live, LiveLimits
from gateway.flows.waking import Moved
from ledger import entries
from ledger.facts import AccountName
from ledger.journal import Numbers, post
from tests.integration.gateway.conftest import STREAMS, Api, serving
from tests.support.servers import Database

WAIT_S = 10
PINGING = msgspec.structs.replace(STREAMS, ping_s=0.3)
PARTNER, OTHER = "PA" + "1" * 18, "PA" + "2" * 18
EU, INT, OTHERS = "CT" + "1" * 18, "CT" + "2" * 18, "CT" + "3" * 18
BOOKS = {"fx-eu": (1, "EUR"), "fx-int": (2, "USD")}


@dataclass
class Partners:
    """Partners with contracts, and batches that move them as accrual does."""

    conn: asyncpg.Connection
    batches: int = 0

    async def sign(self, contract: str, partner: str, entity: str) -> None:
        """Make a contract, and its partner where it is the first."""
        book, unit = BOOKS[entity]
        await self.conn.execute(
            "INSERT INTO gateway.partner (id, reference_key, caller, reference, kind, state,"
            " correlation, created) VALUES ($1, $1, 'shop', $1, 'ib', 'active', 'x', now())"
            " ON CONFLICT DO NOTHING",
            partner,
        )
        await self.conn.execute(
            "INSERT INTO gateway.contract (id, key, partner_id, brand, entity, book, currency,"
            " code, inputs, correlation, created)"
            " VALUES ($1, $1, $2, 'brand', $3, $4, $5, $1, 0, 'x', now())",
            contract, partner, entity, book, unit,
        )  # fmt: skip

    async def earn(
        self, contract: str, minor: int, *, entity: str = "fx-eu", at: datetime | None = None
    ) -> Moved:
        """Commit a batch of one line; returns what is told of it."""
        async with self.conn.transaction():
            return await self.write(contract, minor, entity, at or datetime.now(UTC))

    async def write(self, contract: str, minor: int, entity: str, at: datetime) -> Moved:
        """The same inside the caller's transaction."""
        book, unit = BOOKS[entity]
        self.batches += 1
        line = self.batches
        day = at.astimezone(UTC).date()
        account = AccountName("partner_accrued", contract, unit)
        entry = entries.move(
            "accrual", book, f"1:{line}", str(line), day, AccountName("rebate_expense", "", unit),
            account, minor or 1,
        )  # fmt: skip
        numbers = Numbers()
        number = (await numbers.draft(self.conn, [entry]))[0].sides[1][0].id
        if minor:
            await post(self.conn, numbers, [entry])
        await self.conn.execute(
            "INSERT INTO ledger.accrual_batch VALUES"
            " ($1, $2, 1, $2, $2, $2, $2, $3, $3, '00:00', 0, 1, NULL, '', '', '', $4)",
            book, line, day, at,
        )  # fmt: skip
        await self.conn.execute(
            "INSERT INTO ledger.contract_batch"
            " SELECT $1, $2, $3, $4, $5::bigint, 1, $3, $5::bigint + coalesce(sum(net), 0),"
            " 1 + count(*)"
            " FROM ledger.contract_batch WHERE book_id = $1 AND account_id = $2",
            book, number, line, day, minor,
        )  # fmt: skip
        await self.conn.execute(
            "INSERT INTO ledger.contract_day VALUES ($1, $2, $3, $4)"
            " ON CONFLICT (book_id, account_id, day) DO UPDATE SET net = contract_day.net + $4",
            book, number, day, minor,
        )  # fmt: skip
        return Moved(book, (contract,), at)


@dataclass
class Event:
    """One event as it was read: its fields, and the data decoded."""

    id: int
    data: dict[str, Any]

    def contract(self, id: str = EU) -> dict[str, Any]:
        """What it says of one contract."""
        return next(each for each in self.data["contracts"] if each["contract"] == id)


class Follower:
    """A browser's side of a stream."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer

    async def part(self) -> str:
        """The next part, whatever it is; "" at the end."""
        async with asyncio.timeout(WAIT_S):
            try:
                return (await self.answer.content.readuntil(b"\n\n")).decode()
            except asyncio.IncompleteReadError as end:
                return end.partial.decode()

    async def event(self) -> Event:
        """The next event; comments and words about coming back are passed over."""
        async with asyncio.timeout(WAIT_S):
            while not (part := await self.part()).startswith("event: "):
                assert part, "the stream ended"
        said = re.fullmatch(r"event: balances\nid: (\d+)\ndata: (.+)\n\n", part)
        assert said, part
        return Event(int(said[1]), msgspec.json.decode(said[2]))

    async def until(self, contract: str, accrued: str) -> Event:
        """The first event that says so."""
        while True:
            event = await self.event()
            if event.contract(contract)["accrued"] == accrued:
                return event

    async def end(self) -> list[str]:
        """All that comes until the stream ends."""
        parts: list[str] = []
        async with asyncio.timeout(WAIT_S):
            while part := await self.part():
                parts.append(part)
        return parts

    async def comment(self, words: str) -> None:
        """Wait for a comment; an event before it is an error."""
        while (part := await self.part()) != f": {words}\n\n":
            assert part.startswith((":", "retry:")), part


@dataclass
class Streams:
    """An API whose hub runs, and partners to watch."""

    api: Api
    live: Live
    partners: Partners

    @asynccontextmanager
    async def follow(
        self, partner: str = PARTNER, *, last: int | None = None, token: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> AsyncIterator[Follower]:  # fmt: skip
        """Open a stream, which must be answered."""
        sent = dict(headers or {})
        if not sent.keys() & {"Cookie", "Authorization"}:
            sent["Authorization"] = f"Bearer {token or await self.api.key()}"
        if last is not None:
            sent["Last-Event-ID"] = str(last)
        path = f"/v1/partners/{partner}/stream"
        async with self.api.client.get(path, headers=sent) as answer:
            assert answer.status == 200, await answer.text()
            yield Follower(answer)

    async def earned(self, contract: str, minor: int, **how: Any) -> None:
        """A batch that is committed here and told to the hub."""
        self.live.told(await self.partners.earn(contract, minor, **how))

    def counted(self, name: str) -> float:
        """A metric's value."""
        return self.api.parts.metrics.registry.get_sample_value(name) or 0.0


@asynccontextmanager
async def streaming(
    database: Database, pool: asyncpg.Pool, redis: Redis, limits: LiveLimits = STREAMS,
    *, heard: bool = True,
) -> AsyncIterator[Streams]:  # fmt: skip
    """An API with two partners: one with a contract in each entity, one with another in one."""
    async with serving(database, pool, redis, stream_limits=limits) as api:
        partners = Partners(api.owner)
        await api.owner.execute(
            "INSERT INTO ledger.book (id, entity, currency) VALUES (1, 'fx-eu', 'EUR'),"
            " (2, 'fx-int', 'USD') ON CONFLICT DO NOTHING"
        )
        await partners.sign(EU, PARTNER, "fx-eu")
        await partners.sign(INT, PARTNER, "fx-int")
        await partners.sign(OTHERS, OTHER, "fx-int")
        live = api.parts.live
        running = asyncio.create_task(live.run())
        try:
            made = Streams(api, live, partners)
            if heard:
                await becomes(made, "")
            yield made
        finally:
            live.close()
            running.cancel()
            await asyncio.wait([running])
            if not running.cancelled():
                running.result()


async def becomes(streams: Streams, trouble: str) -> None:
    """Wait until the hub says that this is wrong, or nothing."""
    async with asyncio.timeout(WAIT_S):
        while trouble not in streams.live.trouble() or (streams.live.trouble() and not trouble):
            await asyncio.sleep(0.01)
