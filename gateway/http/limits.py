"""Request limits: one token bucket a caller, in Redis, taken in blocks.

Knows rates, bursts and what happens when Redis is lost. Refuses to know what a request does, except
whether it reads or commands.

The bucket is shared by all replicas. A replica takes a block of tokens at once and spends it
locally, so most requests make no round trip; a block is given up after `block_age_s`. A caller can
thus be over its limit by at most one block a replica. When Redis is lost, reads pass, and commands
are held to the same rate and burst by a bucket of this replica alone: with N replicas a caller may
reach N times its rate, never more. Redis is tried again after `redis_pause_s`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, cast

import msgspec
from redis.exceptions import NoScriptError, RedisError

from gateway.control.refusals import Refusal

log = logging.getLogger("gateway.http.limits")

# KEYS[1] bucket; ARGV rate per second, burst, tokens wanted. Returns tokens given and ms to wait.
# The clock is Redis's own, so replicas need not agree on the time.
TAKE: Final = """
local now = redis.call('TIME')
local at = now[1] * 1000 + math.floor(now[2] / 1000)
local rate, burst, want = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local held = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = tonumber(held[1]) or burst
local since = tonumber(held[2]) or at
tokens = math.min(burst, tokens + math.max(0, at - since) * rate / 1000)
local given = math.min(want, math.floor(tokens))
redis.call('HSET', KEYS[1], 'tokens', tokens - given, 'at', at)
redis.call('PEXPIRE', KEYS[1], math.ceil(burst / rate * 1000) + 1000)
local wait = 0
if given == 0 then wait = math.ceil((1 - tokens) * 1000 / rate) end
return {given, wait}
"""


class Limits(msgspec.Struct, frozen=True):
    """The figures of a caller's bucket and of the blocks taken from it."""

    requests_per_s: float = 200.0
    burst: int = 400
    block_age_s: float = 1.0
    redis_timeout_s: float = 0.25
    redis_pause_s: float = 1.0

    @property
    def block(self) -> int:
        """Tokens taken at once: a tenth of a second's worth, so that a block is never stale."""
        return max(1, min(self.burst, int(self.requests_per_s / 10)))


class Redis(Protocol):
    """The two commands of redis-py's asyncio client that are needed."""

    def evalsha(self, sha: str, numkeys: int, *keys_and_args: str) -> Awaitable[object]:
        """Run a script by its hash."""

    def script_load(self, script: str) -> Awaitable[object]:
        """Store a script and return its hash."""


class _Bucket:
    """What this replica holds for one caller."""

    __slots__ = ("given_at", "held", "lock", "refused_until", "tokens", "tokens_at")

    def __init__(self, burst: int, now: float) -> None:
        self.lock = asyncio.Lock()
        self.held = 0  # tokens of the shared bucket, taken and not spent
        self.given_at = now
        self.refused_until = 0.0
        self.tokens = float(burst)  # the local bucket, for when Redis is lost
        self.tokens_at = now


class Limiter:
    """Lets a caller's requests through, or refuses with `limit-exceeded`."""

    def __init__(
        self,
        redis: Redis,
        limits: Limits,
        monotonic: Callable[[], float],
        callers_max: int = 10_000,
    ) -> None:
        self._redis = redis
        self._limits = limits
        self._monotonic = monotonic
        self._callers_max = callers_max
        self._buckets: dict[str, _Bucket] = {}
        self._sha = ""
        self._lost_until = 0.0

    @property
    def degraded(self) -> bool:
        """Whether Redis is lost and limits are this replica's own."""
        return self._lost_until > self._monotonic()

    async def admit(self, caller: str, *, reads: bool) -> None:
        """Spend one token of the caller; raises Refusal `limit-exceeded` with the wait."""
        now = self._monotonic()
        bucket = self._bucket(caller, now)
        if bucket.held > 0 and now - bucket.given_at < self._limits.block_age_s:
            bucket.held -= 1
            return
        if bucket.refused_until > now:
            raise _over(bucket.refused_until - now)
        if self._lost_until > now:
            self._admit_locally(bucket, now, reads=reads)
            return
        async with bucket.lock:
            await self._take_block(caller, bucket, reads=reads)

    def _bucket(self, caller: str, now: float) -> _Bucket:
        bucket = self._buckets.get(caller)
        if bucket is None:
            if len(self._buckets) >= self._callers_max:
                self._buckets.clear()  # costs each caller one round trip and its unspent block
            bucket = self._buckets[caller] = _Bucket(self._limits.burst, now)
        return bucket

    async def _take_block(self, caller: str, bucket: _Bucket, *, reads: bool) -> None:
        now = self._monotonic()
        if bucket.held > 0 and now - bucket.given_at < self._limits.block_age_s:
            bucket.held -= 1  # whoever held the lock before us took a block for all
            return
        try:
            async with asyncio.timeout(self._limits.redis_timeout_s):
                given, wait_ms = await self._take(caller)
        except (RedisError, OSError, TimeoutError) as error:
            self._lost(error)
            self._admit_locally(bucket, now, reads=reads)
            return
        if given == 0:
            bucket.refused_until = now + min(wait_ms / 1000, 0.1)
            raise _over(wait_ms / 1000)
        bucket.held, bucket.given_at = given - 1, self._monotonic()

    async def _take(self, caller: str) -> tuple[int, int]:
        limits = self._limits
        arguments = (
            f"brokerd:limit:{caller}", str(limits.requests_per_s), str(limits.burst),
            str(limits.block),
        )  # fmt: skip
        try:
            answer = await self._redis.evalsha(self._sha, 1, *arguments)
        except NoScriptError:
            self._sha = str(await self._redis.script_load(TAKE))
            answer = await self._redis.evalsha(self._sha, 1, *arguments)
        given, wait_ms = cast("list[int]", answer)
        return int(given), int(wait_ms)

    def _lost(self, error: BaseException) -> None:
        self._lost_until = self._monotonic() + self._limits.redis_pause_s
        log.warning("limits.redis_lost", extra={"facts": {"why": repr(error)}})

    def _admit_locally(self, bucket: _Bucket, now: float, *, reads: bool) -> None:
        """Without Redis: reads pass, commands are held to the caller's rate by this replica."""
        if reads:
            return
        limits = self._limits
        grown = bucket.tokens + max(0.0, now - bucket.tokens_at) * limits.requests_per_s
        bucket.tokens, bucket.tokens_at = min(float(limits.burst), grown), now
        if bucket.tokens < 1:
            raise _over((1 - bucket.tokens) / limits.requests_per_s)
        bucket.tokens -= 1


def _over(wait_s: float) -> Refusal:
    seconds = max(1, int(wait_s + 0.999))
    return Refusal("limit-exceeded", "you are over your request limit", {"retry_after_s": seconds})
