"""Sign-ins: the sessions of people, from signing in to their end.

Knows how a session is recognised, how long it lasts, in use and at most, and how it is ended.
Refuses to know how a person proved who they are (`signing_in.py`), and to keep a secret: the table
has keyed digests, and a secret stands in one cookie.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.control import audit, grants
from gateway.control import queries_sign_in as q
from gateway.control.access import Access, Caller
from gateway.control.audit import Command, audited
from gateway.control.grants import Grant
from gateway.control.keys import digest
from gateway.control.memory import Memory
from gateway.control.refusals import Refusal, not_found
from ledger.ids import Ids

if TYPE_CHECKING:
    import asyncpg

KEPT: Final = timedelta(days=30)  # a row stays so long after its end, for who asks where from
_SECRET: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Lasting(msgspec.Struct, frozen=True):
    """How long a session lasts."""

    at_most: timedelta = timedelta(hours=12)
    idle: timedelta = timedelta(minutes=30)

    @property
    def seen_every(self) -> timedelta:
        """Use is written down so often; a session may end that much early, never late."""
        return min(timedelta(minutes=1), self.idle / 10)


class SignIn(msgspec.Struct, frozen=True):
    """A session in force, as it is shown."""

    id: str
    person: str
    method: str
    address: str
    opened: datetime
    seen: datetime
    expires: datetime


class _Known(msgspec.Struct, frozen=True):
    """What is remembered of a session; `caller` is None when there is none."""

    expires: datetime | None
    caller: Caller | None


class SignIns:
    """Opens sessions, recognises them and ends them.

    pepper  the process secret, which keys the digests
    access  the roles of the rulebook in force, asked for at each use
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        pepper: bytes,
        ids: Ids,
        random_bytes: Callable[[int], bytes],
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        access: Callable[[], Access],
        lasting: Lasting | None = None,
        ttl_s: float = 3.0,
    ) -> None:
        self._pool = pool
        self._pepper = pepper
        self._ids = ids
        self._random_bytes = random_bytes
        self._now = now
        self._access = access
        self.lasting = lasting or Lasting()
        self._memory = Memory(self._ask, monotonic, ttl_s, under=access)

    async def open(
        self, conn: asyncpg.Connection, person: str, method: str, address: str, correlation: str
    ) -> tuple[SignIn, str]:
        """A new session in the caller's transaction, and its secret, shown to one browser."""
        now, secret = self._now(), self._random_bytes(32).hex()
        opened = SignIn(
            self._ids.new("SI"), person, method, address, now, now, now + self.lasting.at_most
        )
        await conn.execute(
            q.INSERT_SIGN_IN, opened.id, digest(secret, self._pepper), person, method, address,
            now, opened.expires,
        )  # fmt: skip
        entering = Caller(key_id="", person=person, owner=person, session=opened.id)
        command = Command(entering, "", correlation, now)
        after = {"method": method, "address": address}
        row = audited(command, "sign-in.open", opened.id, self._ids.new("AU"), after=after)
        await audit.write(conn, [row])
        return opened, secret

    async def caller(self, secret: str) -> Caller:
        """Who is signed in; raises Refusal `unauthenticated` when no session in force has this
        secret.
        """
        if _SECRET.fullmatch(secret) is None:
            raise _stranger()
        known = await self._memory.get(digest(secret, self._pepper))
        if known.caller is None or known.expires is None or known.expires <= self._now():
            raise _stranger()
        return known.caller

    async def leave(self, secret: str, correlation: str) -> None:
        """End one's own session; raises Refusal `unauthenticated` when none in force has this
        secret.
        """
        caller = await self.caller(secret)
        command = Command(caller, "", correlation, self._now())
        async with self._pool.acquire() as conn, conn.transaction():
            by = caller.person
            if await conn.fetchval(q.END_SIGN_IN, caller.session, command.at, by) is not None:
                row = audited(command, "sign-in.leave", caller.session, self._ids.new("AU"))
                await audit.write(conn, [row])
        self._memory.forget(digest(secret, self._pepper))

    async def revoke(self, conn: asyncpg.Connection, command: Command, id: str) -> str:
        """End somebody's session, in a transaction of its own; returns whose it was.

        Other replicas remember it for a few seconds. Raises Refusal `not-found` when none in force
        has this id.
        """
        async with conn.transaction():
            person = await conn.fetchval(q.END_SIGN_IN, id, command.at, command.caller.person)
            if person is None:
                raise not_found("sign-in", id)
            row = audited(
                command, "sign-in.revoke", id, self._ids.new("AU"), after={"person": person}
            )
            await audit.write(conn, [row])
        self._memory.forget_where(lambda it: it.caller is not None and it.caller.session == id)
        return str(person)

    async def page(
        self, conn: asyncpg.Connection, *, person: str, after: str, limit: int
    ) -> list[SignIn]:
        """Sessions in force, newest first, below the cursor `after`; an empty person is all."""
        now = self._now()
        rows = await conn.fetch(
            q.SELECT_SIGN_INS, after, person, now, now - self.lasting.idle, limit
        )
        return [SignIn(**row) for row in rows]

    async def purge(self, conn: asyncpg.Connection, limit: int = 1000) -> int:
        """Forget sessions that ended long ago, a few at a time; returns how many."""
        done: str = await conn.execute(q.PURGE_SIGN_INS, self._now() - KEPT, limit)
        return int(done.rpartition(" ")[2])

    async def _ask(self, stored: bytes) -> _Known:
        """The session of this digest, seen now."""
        now = self._now()
        async with self._pool.acquire() as conn:
            row = await conn.fetchrow(q.SELECT_SIGN_IN, stored, now, now - self.lasting.idle)
            if row is None:
                return _Known(None, None)
            if now - row["seen"] >= self.lasting.seen_every:
                await conn.execute(q.SEE_SIGN_IN, row["id"], now)
            held = await grants.in_force(conn, row["person"])
        return _Known(row["expires"], self._signed_in(row["person"], row["id"], held))

    def _signed_in(self, person: str, session: str, given: Sequence[Grant]) -> Caller:
        """Somebody in their session, with all they may do under the roles in force."""
        access = self._access()
        held = tuple(access.held(each.id, each.role, each.reach) for each in given)
        return Caller(key_id="", person=person, owner=person, grants=held, session=session)


def _stranger() -> Refusal:
    return Refusal("unauthenticated", "no session that is in force belongs to this browser")
