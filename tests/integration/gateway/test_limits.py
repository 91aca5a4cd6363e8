"""Request limits on a real Redis, shared by replicas, and what holds when Redis is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
from redis.asyncio import Redis

from gateway.control.refusals import Refusal
from gateway.http.limits import Limiter, Limits
from tests.integration.gateway.conftest import open_redis, serving
from tests.support.proxy import Fault, Kind, Proxy, TcpUpstream, UnixUpstream
from tests.support.servers import Database


class Steady:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


async def admitted(limiter: Limiter, times: int, *, reads: bool = False, caller: str = "c") -> int:
    """How many of so many requests pass."""
    answers = [await refusal(limiter, caller, reads=reads) for _ in range(times)]
    for no in filter(None, answers):
        assert no.code == "limit-exceeded"
        assert int(str(no.facts["retry_after_s"])) >= 1
    return answers.count(None)


async def refusal(limiter: Limiter, caller: str, *, reads: bool) -> Refusal | None:
    """Why one request does not pass; None when it does."""
    try:
        await limiter.admit(caller, reads=reads)
    except Refusal as no:
        return no
    return None


async def test_replicas_share_one_bucket(redis: Redis) -> None:
    """Two replicas together admit the burst once, not twice."""
    limits = Limits(requests_per_s=0.001, burst=20)
    first, second = (Limiter(redis, limits, Steady()) for _ in range(2))

    passed = await admitted(first, 30) + await admitted(second, 30)

    assert passed == 20


async def test_callers_have_buckets_of_their_own(redis: Redis) -> None:
    """One caller over its limit takes nothing from another."""
    limiter = Limiter(redis, Limits(requests_per_s=0.001, burst=5), Steady())

    assert await admitted(limiter, 10, caller="a") == 5
    assert await admitted(limiter, 10, caller="b") == 5


async def test_most_requests_make_no_round_trip(redis: Redis) -> None:
    """Tokens are taken in blocks: a hundred requests ask Redis ten times, not a hundred."""
    limiter = Limiter(redis, Limits(requests_per_s=100, burst=200), Steady())
    await admitted(limiter, 1)
    start = await scripts(redis)

    await admitted(limiter, 99)

    assert await scripts(redis) - start == 9


async def scripts(redis: Redis) -> int:
    """How many scripts Redis has run by hash."""
    stats = await redis.info("commandstats")
    return int(stats["cmdstat_evalsha"]["calls"])


async def test_a_block_grows_stale(redis: Redis) -> None:
    """A replica that held tokens too long gives them up and asks again."""
    clock = Steady()
    limiter = Limiter(redis, Limits(requests_per_s=100, burst=200, block_age_s=1), clock)
    await admitted(limiter, 1)
    start = await scripts(redis)
    clock.at += 1.5

    await admitted(limiter, 1)

    assert await scripts(redis) - start == 1


async def test_without_redis_reads_pass_and_commands_keep_to_the_rate_here(
    redis_url: str,
) -> None:
    """Nothing listens at the address: a read always passes, a command by this replica's bucket."""
    clock = Steady()
    nowhere = open_redis("redis://127.0.0.1:1/0")
    limiter = Limiter(nowhere, Limits(requests_per_s=10, burst=7), clock)
    try:
        assert await admitted(limiter, 50, reads=True) == 50
        assert limiter.degraded
        assert await admitted(limiter, 20) == 7
        clock.at += 0.5
        assert await admitted(limiter, 20) == 5
    finally:
        await nowhere.aclose()


async def test_redis_lost_and_found_again(redis_url: str) -> None:
    """Cut in the middle, limits become local; after the pause the shared bucket holds again."""
    clock = Steady()
    limits = Limits(requests_per_s=0.001, burst=4, redis_pause_s=1)
    async with through_proxy(redis_url) as (proxy, client):
        limiter = Limiter(client, limits, clock)
        assert await admitted(limiter, 2) == 2
        proxy.fault = Fault(kind=Kind.REFUSE)
        proxy.cut_all()
        assert await admitted(limiter, 10) == 4
        assert limiter.degraded
        proxy.heal()
        clock.at += 1.1
        assert await admitted(limiter, 10) == 2
        assert not limiter.degraded


@asynccontextmanager
async def through_proxy(url: str) -> AsyncIterator[tuple[Proxy, Redis]]:
    """A client of Redis with a proxy in between that can lose it."""
    parts = urlsplit(url)
    upstream = (
        TcpUpstream(parts.hostname, parts.port or 6379)
        if parts.hostname
        else UnixUpstream(Path(parts.path))
    )
    async with Proxy(upstream) as proxy:
        secret = f":{parts.password}@" if parts.password else ""
        client = open_redis(f"redis://{secret}{proxy.host}:{proxy.port}/0")
        try:
            yield proxy, client
        finally:
            await client.aclose()


async def test_the_api_answers_429_with_a_time_to_wait(
    database: Database, pool: asyncpg.Pool, redis: Redis
) -> None:
    """Over the limit is a problem with Retry-After, and nothing was done."""
    async with serving(database, pool, redis, Limits(requests_per_s=0.01, burst=3)) as api:
        token = await api.key()
        answers = await asyncio.gather(
            *[api.call("GET", "/v1/clients", token=token) for _ in range(8)]
        )

        refused = [answer for answer in answers if answer.status == 429]
        assert len(refused) == 5
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
        assert {(await answer.json())["code"] for answer in refused} == {"limit-exceeded"}
