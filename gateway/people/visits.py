"""Visits: the link that opens a partner's page, once and soon, and the session it opens.

Knows how a link is signed, that it works once, how long a session lasts and how it ends. Refuses to
keep a token: the table has keyed digests, and a token stands in answers to those who hold it and in
one cookie, never in a log.

A link is signed over its partner and its end, so that one nobody made, one for another partner and
one that is too old are told without asking the table; the table then knows whether it was used.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Final

import asyncpg
import msgspec

from gateway.control.access import NONE, Caller, Held, Reach
from gateway.control.audit import Command, audited, write
from gateway.control.keys import digest
from gateway.control.memory import Memory
from gateway.control.refusals import Refusal
from gateway.people import queries_visits as q
from ledger.ids import Ids

ROLE: Final = "partner"
_NOWHERE: Final = Reach(entities=NONE)
LINK_LASTS: Final = timedelta(minutes=15)
SESSION_LASTS: Final = timedelta(hours=12)
_LINK: Final = re.compile(r"([0-9a-f]{1,12})\.([0-9a-f]{64})\.([0-9a-f]{64})", re.ASCII)
_SECRET: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


class _Known(msgspec.Struct, frozen=True):
    """What is remembered of a session; `caller` is None when there is none."""

    expires: datetime | None
    caller: Caller | None


class Visits:
    """Makes links, opens sessions with them, and recognises the sessions.

    pepper    the process secret: signs links and keys the digests
    ttl_s     how long a session is remembered, so that most requests ask no table
    size_max  how many sessions are remembered, known and unknown
    asks_max  how many links, and how many sessions, are looked up at once: strangers who make them
              up cannot take the pool
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        pepper: bytes,
        ids: Ids,
        random_bytes: Callable[[int], bytes],
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        ttl_s: float = 3.0,
        size_max: int = 10_000,
        asks_max: int = 4,
    ) -> None:
        self._pool = pool
        self._pepper = pepper
        self._ids = ids
        self._random_bytes = random_bytes
        self._now = now
        self._turns = asyncio.Semaphore(asks_max)
        self._memory = Memory(self._ask, monotonic, ttl_s, size_max, asks_max)

    async def link(self, conn: asyncpg.Connection, command: Command, partner_id: str) -> str:
        """A new token for the partner's page, in a transaction of its own; shown once."""
        until = command.at + LINK_LASTS
        token = self._signed(partner_id, int(until.timestamp()), self._random_bytes(32).hex())
        async with conn.transaction():
            await conn.execute(
                q.INSERT_VISIT, digest(token, self._pepper), partner_id, "link", until, command.at
            )
            row = audited(command, "partner.link", partner_id, self._ids.new("AU"))
            await write(conn, [row])
        return token

    async def stands(self, partner_id: str, token: str) -> bool:
        """Whether the link would open the page now; asking uses nothing."""
        now = self._now()
        if not self._holds(partner_id, token, now):
            return False
        known = (digest(token, self._pepper), partner_id, now)
        async with self._turns, self._pool.acquire() as conn:
            return await conn.fetchval(q.SELECT_LINK, *known) is not None

    async def open(self, partner_id: str, token: str, correlation: str) -> str:
        """Use a link; returns the secret of the session it opened.

        Raises Refusal `link-void` for one that was used, is too old, or that nobody made.
        """
        now = self._now()
        if not self._holds(partner_id, token, now):
            raise _void()
        secret = self._random_bytes(32).hex()
        visitor = _visitor(partner_id)
        entered = audited(
            Command(visitor, "", correlation, now), "partner.enter", partner_id, self._ids.new("AU")
        )
        async with self._pool.acquire() as conn, conn.transaction():
            used = await conn.fetchval(q.USE_LINK, digest(token, self._pepper), partner_id, now)
            if used is None:
                raise _void()
            await conn.execute(
                q.INSERT_VISIT, digest(secret, self._pepper), partner_id, "session",
                now + SESSION_LASTS, now,
            )  # fmt: skip
            await write(conn, [entered])
        return secret

    async def caller(self, secret: str) -> Caller:
        """Who visits; raises Refusal `unauthenticated` when no session in force has this secret."""
        if _SECRET.fullmatch(secret) is None:
            raise _stranger()
        known = await self._memory.get(digest(secret, self._pepper))
        if known.caller is None or known.expires is None or known.expires <= self._now():
            raise _stranger()
        return known.caller

    async def leave(self, secret: str, correlation: str) -> None:
        """End the session; raises Refusal `unauthenticated` when none in force has this secret."""
        visitor = await self.caller(secret)
        stored, command = (
            digest(secret, self._pepper),
            Command(visitor, "", correlation, self._now()),
        )
        async with self._pool.acquire() as conn, conn.transaction():
            if await conn.fetchval(q.END_SESSION, stored) is not None:
                row = audited(command, "partner.leave", visitor.partner, self._ids.new("AU"))
                await write(conn, [row])
        self._memory.forget(stored)

    async def end(self, conn: asyncpg.Connection, command: Command, partner_id: str) -> int:
        """End all links and sessions of a partner, in a transaction of its own.

        Returns how many sessions. Other replicas remember theirs for `ttl_s`, and open streams are
        asked again with their next ping.
        """
        async with conn.transaction():
            await conn.execute(q.END_LINKS, partner_id)
            done: str = await conn.execute(q.END_SESSIONS, partner_id)
            ended = _count(done)
            row = audited(
                command, "visits.end", partner_id, self._ids.new("AU"), after={"ended": ended}
            )
            await write(conn, [row])
        self._memory.forget_where(
            lambda it: it.caller is not None and it.caller.partner == partner_id
        )
        return ended

    async def purge(self, conn: asyncpg.Connection, limit: int = 1000) -> int:
        """Forget what is over, a few at a time; returns how many."""
        return _count(await conn.execute(q.PURGE_VISITS, self._now(), limit))

    async def _ask(self, stored: bytes) -> _Known:
        async with self._pool.acquire() as conn:
            row = await conn.fetchrow(q.SELECT_SESSION, stored, self._now())
        if row is None:
            return _Known(None, None)
        return _Known(row["expires"], _visitor(row["partner_id"]))

    def _signed(self, partner_id: str, until: int, nonce: str) -> str:
        said = f"page-link:{partner_id}:{until:x}:{nonce}".encode()
        mark = blake2b(said, key=self._pepper[:64], digest_size=32).hexdigest()
        return f"{until:x}.{nonce}.{mark}"

    def _holds(self, partner_id: str, token: str, now: datetime) -> bool:
        """Whether the token is one of ours for this partner, and in time."""
        match = _LINK.fullmatch(token)
        if match is None:
            return False
        until = int(match[1], 16)
        ours = hmac.compare_digest(self._signed(partner_id, until, match[2]), token)
        return ours and now.timestamp() < until


def _visitor(partner_id: str) -> Caller:
    """A partner on their own page: no permission at all; routes say what partners may read."""
    own = Held("", ROLE, NONE, _NOWHERE)
    owner = f"partner:{partner_id}"
    return Caller(key_id="", person=partner_id, owner=owner, grants=(own,), partner=partner_id)


def _count(done: str) -> int:
    """How many rows a statement says it moved."""
    return int(done.rpartition(" ")[2])


def _void() -> Refusal:
    return Refusal("link-void", "the link was used, is too old, or is not one of ours")


def _stranger() -> Refusal:
    return Refusal("unauthenticated", "no visit of a partner's page is in force")
