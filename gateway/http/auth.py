"""Who is calling: a bearer token becomes a Caller.

Knows how long a key may be remembered. Refuses to know scopes of routes; it says who, not whether.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg
import msgspec

from gateway.control import keys
from gateway.control.access import Access, Caller
from gateway.control.refusals import Refusal

_SCHEME = "Bearer "


class _Known(msgspec.Struct, frozen=True):
    """What is remembered of a key id; `caller` is None when it is unknown or not in force."""

    until: float
    access: Access  # a rulebook that comes into force makes us read it again
    digest: bytes
    caller: Caller | None


class Keys:
    """Recognises callers, with a memory of a few seconds so that most requests ask no table.

    access    the roles of the rulebook in force, asked for at each use
    ttl_s     how long a key is remembered, and thus how long a revoked one may still work
    size_max  how many key ids are remembered, known and unknown
    asks_max  how many ids are looked up at once: strangers who make up ids cannot take the pool
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        access: Callable[[], Access],
        pepper: bytes,
        monotonic: Callable[[], float],
        ttl_s: float = 3.0,
        size_max: int = 10_000,
        asks_max: int = 4,
    ) -> None:
        self._pool = pool
        self._access = access
        self._pepper = pepper
        self._monotonic = monotonic
        self._ttl_s = ttl_s
        self._size_max = size_max
        self._known: dict[str, _Known] = {}
        self._asking: dict[str, asyncio.Lock] = {}
        self._turns = asyncio.Semaphore(asks_max)

    async def caller(self, header: str | None) -> Caller:
        """The caller of an Authorization header; raises Refusal `unauthenticated`.

        One detail for every failure: a stranger learns nothing about which part was wrong.
        """
        if header is None or not header.startswith(_SCHEME):
            raise _stranger()
        split = keys.split_token(header[len(_SCHEME) :])
        if split is None:
            raise _stranger()
        key_id, secret = split
        known = self._fresh(key_id) or await self._ask(key_id)
        if known.caller is None or not keys.matches(secret, known.digest, self._pepper):
            raise _stranger()
        return known.caller

    def _fresh(self, key_id: str) -> _Known | None:
        known = self._known.get(key_id)
        if known is None or known.until <= self._monotonic():
            return None
        return known if known.access is self._access() else None

    async def _ask(self, key_id: str) -> _Known:
        """Read the key, once for all requests that wait for it."""
        lock = self._asking.setdefault(key_id, asyncio.Lock())
        try:
            async with lock:
                if (known := self._fresh(key_id)) is not None:
                    return known
                async with self._turns, self._pool.acquire() as conn:
                    row = await keys.find_key(conn, key_id)
                return self._remember(key_id, row)
        finally:
            if not lock.locked():
                self._asking.pop(key_id, None)

    def _remember(self, key_id: str, row: keys.KeyRow | None) -> _Known:
        access = self._access()
        caller = row.caller(access) if row is not None and row.in_force else None
        digest = row.digest if row is not None else b""
        known = _Known(self._monotonic() + self._ttl_s, access, digest, caller)
        if len(self._known) >= self._size_max:
            self._known.clear()  # strangers can fill it; refilling costs one query a key
        self._known[key_id] = known
        return known


def _stranger() -> Refusal:
    return Refusal("unauthenticated", "no API key that is in force was sent")
