"""A partner's stream on a real database and Redis: what it shows, to whom, and when it ends."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import aiohttp
import asyncpg
import msgspec
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from gateway.control import audit, keys
from gateway.flows.live import Live, LiveLimits
from gateway.flows.waking import Channel, Moved
from ledger import entries
from ledger.facts import AccountName
from ledger.journal import Numbers, post
from tests.integration.gateway.conftest import STREAMS, Api, open_redis, serving
from tests.integration.gateway.test_limits import through_proxy
from tests.support.proxy import Fault, Kind, Proxy, TcpUpstream, UnixUpstream, Upstream
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
            " ($1, $2, 1, $2, $2, $2, $2, $3, 0, 1, NULL, '', $4)",
            book, line, day, at,
        )  # fmt: skip
        await self.conn.execute(
            "INSERT INTO ledger.contract_batch VALUES ($1, $2, $3, $4, $5, 1)",
            book, number, line, day, minor,
        )  # fmt: skip
        await self.conn.execute(
            "INSERT INTO ledger.contract_day VALUES ($1, $2, $3, $4, 1, $5)"
            " ON CONFLICT (book_id, account_id, day) DO UPDATE SET last_line = $5,"
            " net = contract_day.net + $4, lines = contract_day.lines + 1",
            book, number, day, minor, line,
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
        while True:
            part = await self.part()
            assert part, "the stream ended"
            if part.startswith("event: balances"):
                said = re.fullmatch(r"event: balances\nid: (\d+)\ndata: (.+)\n\n", part)
                assert said, part
                return Event(int(said[1]), msgspec.json.decode(said[2]))

    async def until(self, contract: str, accrued: str) -> Event:
        """The first event that says so."""
        while True:
            event = await self.event()
            if event.contract(contract)["accrued"] == accrued:
                return event

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
        if "Cookie" not in sent:
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


@pytest_asyncio.fixture
async def streams(database: Database, pool: asyncpg.Pool, redis: Redis) -> AsyncIterator[Streams]:
    """The same with the figures of the tests."""
    async with streaming(database, pool, redis) as made:
        yield made


# --- what it shows ------------------------------------------------------------------------------


async def test_a_stream_begins_with_everything_as_it_stands(streams: Streams) -> None:
    """The first event is a snapshot of all contracts, those without an account among them."""
    await streams.partners.earn(EU, 1240)

    async with streams.follow() as reader:
        event = await reader.event()

    assert reader.answer.headers["Content-Type"] == "text/event-stream"
    assert reader.answer.headers["Cache-Control"] == "no-store"
    assert reader.answer.headers["X-Accel-Buffering"] == "no"
    assert "Content-Encoding" not in reader.answer.headers
    assert event.data["partner"] == PARTNER
    assert event.data["contracts"] == [
        {
            "contract": EU, "currency": "EUR", "accrued": "12.40", "held": "0.00",
            "payable": "0.00", "today": "12.40", "lines": 1, "last_line": 1, "version": 1,
        },
        {
            "contract": INT, "currency": "USD", "accrued": "0.00", "held": "0.00",
            "payable": "0.00", "today": "0.00", "lines": 0, "last_line": 0, "version": 0,
        },
    ]  # fmt: skip


async def test_each_commit_is_told_and_the_id_is_the_sum_of_versions(streams: Streams) -> None:
    """A batch that is committed reaches the reader with the whole state and a higher id."""
    async with streams.follow() as reader:
        first = await reader.event()
        await streams.earned(EU, 500)
        second = await reader.until(EU, "5.00")
        await streams.earned(INT, 700, entity="fx-int")
        third = await reader.until(INT, "7.00")

    assert [first.id, second.id, third.id] == [0, 1, 2]
    assert third.contract(EU)["accrued"] == "5.00"
    assert third.contract(INT)["last_line"] == 2


async def test_a_zero_line_is_told_though_no_account_moved(streams: Streams) -> None:
    """Lines that pay nothing are counted: the id stays, the number of lines does not."""
    await streams.partners.earn(EU, 500)
    async with streams.follow() as reader:
        before = await reader.event()
        await streams.earned(EU, 0)
        after = await reader.event()

    assert (after.id, after.contract()["accrued"]) == (before.id, "5.00")
    assert after.contract()["lines"] == before.contract()["lines"] + 1


async def test_what_is_not_committed_is_never_shown(
    database: Database, pool: asyncpg.Pool, redis: Redis
) -> None:
    """Told too early, and then rolled back: the reader sees what was before and what is after."""
    async with (
        streaming(database, pool, redis, PINGING) as streams,
        streams.follow() as reader,
    ):
        await reader.event()
        transaction = streams.partners.conn.transaction()
        await transaction.start()
        told = await streams.partners.write(EU, 99_999, "fx-eu", datetime.now(UTC))
        streams.live.told(told)
        await reader.comment("here")
        await transaction.rollback()
        await streams.earned(EU, 1)
        event = await reader.event()

    assert event.contract()["accrued"] == "0.01"


async def test_many_commits_are_told_at_most_as_often_as_allowed(
    database: Database, pool: asyncpg.Pool, redis: Redis
) -> None:
    """The first is told at once and those of the next moments together, with the right sum."""
    limits = msgspec.structs.replace(STREAMS, per_s=0.5)
    async with streaming(database, pool, redis, limits) as streams, streams.follow() as reader:
        await reader.event()
        for _ in range(40):
            await streams.earned(EU, 1)
        event = await reader.event()

        assert event.contract()["accrued"] == "0.40"
        assert event.contract()["lines"] == 40


async def test_at_midnight_what_was_earned_today_begins_anew(streams: Streams) -> None:
    """Nothing moves, the day ends: an event of its own says the new day and nothing earned."""
    await streams.partners.earn(EU, 500)
    async with streams.follow() as reader:
        before = await reader.event()
        streams.api.clock.skew_s += 86_400
        after = await reader.event()

    assert (before.contract()["today"], after.contract()["today"]) == ("5.00", "0.00")
    next_day = date.fromisoformat(before.data["day"]) + timedelta(days=1)
    assert after.data["day"] == next_day.isoformat()
    assert after.id == before.id
    assert after.contract()["accrued"] == "5.00"


# --- coming back --------------------------------------------------------------------------------


async def test_who_knows_the_newest_state_is_told_so(streams: Streams) -> None:
    """With the current id a stream begins with a comment; the next commit is told as ever."""
    await streams.partners.earn(EU, 500, at=datetime.now(UTC).replace(hour=23, minute=59))
    async with streams.follow(last=1) as reader:
        await reader.comment("as you know it")
        await streams.earned(EU, 1, at=datetime.now(UTC).replace(hour=23, minute=59))
        assert (await reader.event()).contract()["accrued"] == "5.01"


@pytest.mark.parametrize("last", [0, 2, 10**17])
async def test_who_knows_another_state_is_told_everything(streams: Streams, last: int) -> None:
    """An id that is not the current one, be it older or from elsewhere, is answered in full."""
    await streams.partners.earn(EU, 500)
    async with streams.follow(last=last) as reader:
        assert (await reader.event()).id == 1


async def test_the_same_id_after_a_zero_line_is_told_everything(streams: Streams) -> None:
    """Lines were added without moving an account: the id alone does not say that they are known."""
    late = datetime.now(UTC).replace(hour=23, minute=59)
    await streams.partners.earn(EU, 500, at=late)
    await streams.partners.earn(EU, 0, at=late)
    async with streams.follow(last=1) as reader:
        assert (await reader.event()).contract()["lines"] == 2


async def test_the_same_id_after_a_night_is_told_everything(streams: Streams) -> None:
    """Asleep over midnight, a page knows yesterday's sum as today's: it is told the new day."""
    await streams.partners.earn(EU, 500, at=datetime.now(UTC) - timedelta(days=1))
    async with streams.follow(last=1) as reader:
        assert (await reader.event()).contract()["today"] == "0.00"


# --- who may read -------------------------------------------------------------------------------


async def test_a_key_sees_the_contracts_of_its_entities_only(streams: Streams) -> None:
    """The same partner, another key: contracts of other entities do not exist."""
    token = await streams.api.key(owner="eu", entities=("fx-eu",))
    async with streams.follow(token=token) as reader:
        event = await reader.event()

    assert [each["contract"] for each in event.data["contracts"]] == [EU]


@pytest.mark.parametrize("partner", [OTHER, "PA" + "9" * 18, "nonsense"])
async def test_out_of_reach_is_not_found(streams: Streams, partner: str) -> None:
    """A partner of other entities, one who is not there and no id at all are one answer."""
    token = await streams.api.key(owner="eu", entities=("fx-eu",))
    answer = await streams.api.call("GET", f"/v1/partners/{partner}/stream", token=token)

    assert answer.status == 404
    assert (await answer.json())["code"] == "not-found"


async def test_a_partner_reads_what_is_below_and_nothing_beside(streams: Streams) -> None:
    """By the cookie of a visit: the partner below is in reach, the partner above is not."""
    await streams.api.owner.execute(
        "INSERT INTO gateway.contract_edge VALUES ($1, now(), $2, 2, 1)", OTHERS, INT
    )
    async with streams.follow(OTHER, headers=await visit(streams, PARTNER)) as reader:
        assert (await reader.event()).data["partner"] == OTHER

    answer = await streams.api.client.get(
        f"/v1/partners/{PARTNER}/stream", headers=await visit(streams, OTHER)
    )
    assert answer.status == 404


async def visit(streams: Streams, partner: str) -> dict[str, str]:
    """A partner's way in: by a link once, then by the cookie."""
    visits = streams.api.parts.visits
    async with streams.api.pool.acquire() as conn:
        command = audit.Command(keys.operator("root"), "", "test", streams.api.clock.now())
        token = await visits.link(conn, command, partner)
    return {"Cookie": f"brokerd_partner={await visits.open(partner, token, 'test')}"}


async def test_a_key_that_is_revoked_ends_its_streams(
    database: Database, pool: asyncpg.Pool, redis: Redis
) -> None:
    """The credential is looked at again with each ping."""
    async with streaming(database, pool, redis, PINGING) as streams:
        token = await streams.api.key(owner="short")
        async with streams.follow(token=token) as reader:
            await reader.event()
            await reader.comment("here")
            await streams.api.owner.execute("UPDATE gateway.api_key SET revoked = now()")
            streams.api.clock.skew_s += 60
            while await reader.part():
                pass


async def test_a_new_contract_joins_a_stream_that_is_open(streams: Streams) -> None:
    """The first batch of a contract that nobody watches yet brings it into its partner's stream."""
    added = "CT" + "8" * 18
    async with streams.follow() as reader:
        await reader.event()
        await streams.partners.sign(added, PARTNER, "fx-eu")
        await streams.earned(added, 300)
        event = await reader.event()

    assert event.contract(added)["accrued"] == "3.00"


async def test_no_more_streams_than_allowed(
    database: Database, pool: asyncpg.Pool, redis: Redis
) -> None:
    """Beyond the limit a caller is told to come back; a place that is left is free again."""
    limits = msgspec.structs.replace(STREAMS, subscribers_max=1)
    async with streaming(database, pool, redis, limits) as streams:
        async with streams.follow() as reader:
            await reader.event()
            answer = await streams.api.call("GET", f"/v1/partners/{PARTNER}/stream")
            assert answer.status == 503
            assert (await answer.json())["code"] == "overloaded"
        async with asyncio.timeout(WAIT_S):
            while streams.counted("brokerd_stream_readers"):
                await asyncio.sleep(0.01)
        async with streams.follow() as reader:
            await reader.event()


# --- faults -------------------------------------------------------------------------------------


async def test_another_replica_hears_through_redis(
    streams: Streams, pool: asyncpg.Pool, redis: Redis
) -> None:
    """A batch committed by another process reaches our readers, and its numbers come from rows."""
    elsewhere = Live(
        pool, Channel(redis, "elsewhere", 0.1), STREAMS, streams.api.clock.now,
        streams.api.clock.monotonic, streams.api.parts.metrics,
    )  # fmt: skip
    running = asyncio.create_task(elsewhere.run())
    try:
        async with streams.follow() as reader:
            await reader.event()
            elsewhere.told(await streams.partners.earn(EU, 500))
            assert (await reader.event()).contract()["accrued"] == "5.00"
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_without_redis_the_ledger_is_read(
    database: Database, pool: asyncpg.Pool, redis: Redis
) -> None:
    """Nothing listens at Redis's address and nobody tells us: the numbers come all the same."""
    nowhere = open_redis("redis://127.0.0.1:1/0")
    try:
        async with streaming(database, pool, nowhere, heard=False) as streams:
            assert "reads the ledger" in streams.live.trouble()
            async with streams.follow() as reader:
                await reader.event()
                await streams.partners.earn(EU, 500)
                assert (await reader.event()).contract()["accrued"] == "5.00"
    finally:
        await nowhere.aclose()


async def test_redis_lost_and_found_again(
    database: Database, pool: asyncpg.Pool, redis_url: str
) -> None:
    """Cut in the middle the ledger is read; when Redis is back, words are heard again."""
    async with (
        through_proxy(redis_url) as (proxy, client),
        streaming(database, pool, client) as streams,
        streams.follow() as reader,
    ):
        await reader.event()
        await becomes(streams, "")
        proxy.fault = Fault(kind=Kind.STALL)
        await becomes(streams, "reads the ledger")
        await streams.partners.earn(EU, 500)
        assert (await reader.event()).contract()["accrued"] == "5.00"
        proxy.heal()
        proxy.cut_all()
        await becomes(streams, "")


async def becomes(streams: Streams, trouble: str) -> None:
    """Wait until the hub says that this is wrong, or nothing."""
    async with asyncio.timeout(WAIT_S):
        while trouble not in streams.live.trouble() or (streams.live.trouble() and not trouble):
            await asyncio.sleep(0.01)


async def test_the_database_away_keeps_streams_open(database: Database, redis: Redis) -> None:
    """While nothing can be read a stream pings; then it shows what was committed meanwhile."""
    async with (
        beyond(database) as (proxy, pool),
        streaming(database, pool, redis, PINGING) as streams,
        streams.follow() as reader,
    ):
        await reader.event()
        proxy.fault = Fault(kind=Kind.REFUSE)
        proxy.cut_all()
        await streams.earned(EU, 500)
        await becomes(streams, "Error")
        await reader.comment("here")
        await reader.comment("here")
        proxy.heal()
        assert (await reader.event()).contract()["accrued"] == "5.00"
        await becomes(streams, "")


@asynccontextmanager
async def beyond(database: Database) -> AsyncIterator[tuple[Proxy, asyncpg.Pool]]:
    """A pool with a proxy between it and the database."""
    at = urlsplit(database.daemon_dsn)
    asked = {key: values[0] for key, values in parse_qs(at.query).items()}
    host = asked.get("host", at.hostname or "")
    port = int(asked.get("port", at.port or 5432))
    upstream: Upstream = TcpUpstream(host, port)
    if host.startswith("/"):
        upstream = UnixUpstream(Path(host) / f".s.PGSQL.{port}")
    async with (
        Proxy(upstream) as proxy,
        asyncpg.create_pool(
            host=proxy.host, port=proxy.port, user=unquote(at.username or ""),
            password=unquote(at.password or ""), database=at.path.lstrip("/"),
            min_size=1, max_size=4, timeout=1, command_timeout=5,
        ) as pool,
    ):  # fmt: skip
        yield proxy, pool


async def test_who_does_not_read_is_dropped(
    database: Database, pool: asyncpg.Pool, redis: Redis
) -> None:
    """A reader that takes nothing from its socket is let go, and holds up nobody else."""
    limits = msgspec.structs.replace(STREAMS, per_s=100, socket_bytes=2_048)
    async with streaming(database, pool, redis, limits) as streams:
        for number in range(60):
            await streams.partners.sign(f"CT{number:018}", PARTNER, "fx-eu")
        deaf = await connected(streams)
        try:
            async with streams.follow() as reader:
                async with asyncio.timeout(WAIT_S):
                    while not streams.counted("brokerd_stream_dropped_total"):
                        await streams.earned(EU, 1)
                        await reader.event()
            assert streams.counted("brokerd_stream_dropped_total") == 1
        finally:
            deaf.close()


async def connected(streams: Streams) -> socket.socket:
    """Somebody who asks for a stream and never reads a byte of it."""
    at = streams.api.client.server
    wire = socket.socket()
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
    wire.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(wire, (at.host, at.port))
    head = (
        f"GET /v1/partners/{PARTNER}/stream HTTP/1.1\r\nHost: {at.host}\r\n"
        f"Authorization: Bearer {await streams.api.key()}\r\n\r\n"
    )
    await loop.sock_sendall(wire, head.encode())
    return wire


async def test_a_stream_ends_in_order_when_we_stop(streams: Streams) -> None:
    """The last words say when to come back, and the body ends as HTTP says it ends."""
    async with streams.follow() as reader:
        await reader.event()
        streams.live.close()
        parts = []
        while part := await reader.part():
            parts.append(part)

    assert re.fullmatch(r"retry: \d+\n\n", parts[-1])
    answer = await streams.api.call("GET", f"/v1/partners/{PARTNER}/stream")
    assert answer.status == 503
