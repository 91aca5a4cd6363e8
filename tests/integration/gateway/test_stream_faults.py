"""A partner's stream when something fails: Redis, the database, a reader, and we ourselves."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
import msgspec
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from gateway.flows.live import Live, LiveLimits
from gateway.flows.waking import Channel
from tests.integration.gateway.conftest import STREAMS, open_redis
from tests.integration.gateway.following import (
    EU,
    PARTNER,
    PINGING,
    WAIT_S,
    Streams,
    becomes,
    streaming,
)
from tests.integration.gateway.test_limits import through_proxy
from tests.support.proxy import Fault, Kind, Proxy, TcpUpstream, UnixUpstream, Upstream
from tests.support.servers import Database


@pytest_asyncio.fixture
async def streams(database: Database, pool: asyncpg.Pool, redis: Redis) -> AsyncIterator[Streams]:
    """The same with the figures of the tests."""
    async with streaming(database, pool, redis) as made:
        yield made


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


@pytest.mark.parametrize("limits", [STREAMS, PINGING])
async def test_the_database_away_keeps_streams_open(
    database: Database, redis: Redis, limits: LiveLimits
) -> None:
    """While nothing can be read a stream pings; then it shows what was committed meanwhile."""
    async with (
        beyond(database) as (proxy, pool),
        streaming(database, pool, redis, limits) as streams,
        streams.follow() as reader,
    ):
        await reader.event()
        proxy.fault = Fault(kind=Kind.REFUSE)
        proxy.cut_all()
        await streams.earned(EU, 500)
        await becomes(streams, "Error")
        if limits is PINGING:
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
        parts = await reader.end()

    assert re.fullmatch(r"retry: \d+\n\n", parts[-1])
    answer = await streams.api.call("GET", f"/v1/partners/{PARTNER}/stream")
    assert answer.status == 503


class Ghost:
    """A reader whose connection is gone without a word to anybody."""

    owner = "ghost"
    places = 1
    gone = True

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    def take(self, event: object) -> None:
        """Nobody is there."""

    def unchanged(self) -> None:
        """Nobody is there."""

    def look_again(self) -> None:
        """Nobody is there."""

    def end(self, retry_ms: int) -> None:
        """Noted."""
        self.ended.set()


async def test_who_is_gone_is_let_go_though_nothing_moves(streams: Streams) -> None:
    """A connection that was lost does not hold a place until the next ping."""
    ghost = Ghost()
    streams.live.watch(PARTNER, ((1, EU, "EUR"),), ghost)

    async with asyncio.timeout(WAIT_S):
        await ghost.ended.wait()
