"""Who is calling by a key: a bearer token becomes a Caller.

Knows the header and what a key stands for. Refuses to know scopes of routes; it says who, not
whether, and `control/memory.py` knows how long that is remembered.
"""

from __future__ import annotations

from collections.abc import Callable

import asyncpg
import msgspec

from gateway.control import keys
from gateway.control.access import Access, Caller
from gateway.control.memory import Memory
from gateway.control.refusals import Refusal

_SCHEME = "Bearer "


class _Known(msgspec.Struct, frozen=True):
    """What is remembered of a key id; `caller` is None when it is unknown or not in force."""

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
        self._memory = Memory(self._ask, monotonic, ttl_s, size_max, asks_max, under=access)

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
        known = await self._memory.get(key_id)
        if known.caller is None or not keys.matches(secret, known.digest, self._pepper):
            raise _stranger()
        return known.caller

    async def _ask(self, key_id: str) -> _Known:
        async with self._pool.acquire() as conn:
            row = await keys.find_key(conn, key_id)
        if row is None or not row.in_force:
            return _Known(b"", None)
        return _Known(row.digest, row.caller(self._access()))


def _stranger() -> Refusal:
    return Refusal("unauthenticated", "no API key that is in force was sent")
