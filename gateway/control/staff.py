"""Staff: how each person proves who they are, and how that is set and changed.

Knows passwords, devices and what identity providers call a person. Refuses to open a session
(`sign_ins.py`), and to say what a person may do (`access.py`).

Whoever gets another proof is signed out everywhere: a session opened with the old one does not
outlive it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from gateway.control import assigning, audit, codes, grants
from gateway.control import queries_sign_in as q
from gateway.control.access import Access, Reach
from gateway.control.audit import Command, audited
from gateway.control.codes import Safe
from gateway.control.grants import Grant
from gateway.control.passwords import Passwords
from gateway.control.refusals import Refusal
from ledger.ids import Ids

if TYPE_CHECKING:
    import asyncpg


class Proofs(msgspec.Struct, frozen=True):
    """What a person has to show: the password's hash, and the device's secret as it is stored."""

    hash: str
    device: bytes | None
    used: int


class Staff:
    """Gives people their proofs; each command in a transaction of its own."""

    def __init__(self, passwords: Passwords, safe: Safe, ids: Ids) -> None:
        self._passwords = passwords
        self._safe = safe
        self._ids = ids

    async def password(
        self, conn: asyncpg.Connection, command: Command, person: str, password: str
    ) -> None:
        """Set a person's password; raises Refusal `password-weak`."""
        hashed = await self._passwords.hash(password)
        async with conn.transaction():
            await conn.execute(q.KEEP_HASH, person, hashed, command.at, command.caller.person)
            await self._proved(conn, command, "person.password", person)

    async def device(self, conn: asyncpg.Connection, command: Command, person: str) -> str:
        """Give a person a new device; returns the address that it reads, shown once."""
        secret = self._safe.new()
        stored = self._safe.closed(person, secret)
        async with conn.transaction():
            await conn.execute(q.KEEP_DEVICE, person, stored, command.at, command.caller.person)
            await self._proved(conn, command, "person.device", person)
        return codes.address(person, secret)

    async def identity(
        self, conn: asyncpg.Connection, command: Command, person: str, issuer: str, subject: str
    ) -> None:
        """Say whom an identity provider means; raises Refusal `identity-taken`."""
        by = command.caller.person
        async with conn.transaction():
            added = await conn.fetchval(q.INSERT_IDENTITY, issuer, subject, person, command.at, by)
            if added is None:
                raise Refusal("identity-taken", f"{issuer} knows somebody by that subject already")
            await self._audit(conn, command, "person.identity", person, {"issuer": issuer})

    async def forget_identity(
        self, conn: asyncpg.Connection, command: Command, issuer: str, subject: str
    ) -> str:
        """Let an identity provider's subject in no more; returns who it was, now signed out.

        Raises Refusal `not-found` when there is none.
        """
        async with conn.transaction():
            by = command.caller.person
            person = await conn.fetchval(q.REMOVE_IDENTITY, issuer, subject, command.at, by)
            if person is None:
                raise Refusal("not-found", f"{issuer} knows nobody by that subject")
            await self._proved(conn, command, "person.identity", person, {"removed": issuer})
        return str(person)

    async def _proved(
        self,
        conn: asyncpg.Connection,
        command: Command,
        name: str,
        person: str,
        after: Mapping[str, object] | None = None,
    ) -> None:
        """End what was opened with the old proof, and say who changed it."""
        ended = await conn.fetch(q.END_SIGN_INS, person, command.at, command.caller.person)
        await self._audit(conn, command, name, person, {**(after or {}), "ended": len(ended)})

    async def _audit(
        self, conn: asyncpg.Connection, command: Command, name: str, person: str, after: object
    ) -> None:
        row = audited(command, name, person, self._ids.new("AU"), after=after)
        await audit.write(conn, [row])


async def add(
    conn: asyncpg.Connection,
    command: Command,
    ids: Ids,
    access: Access,
    person: str,
    role: str,
    reach: Reach,
) -> str:
    """Give a person a role at the machine, in the caller's transaction; returns the grant's id.

    Raises Refusal `role-unknown`, `role-kind` for a service's role, `roles-conflict` for one that
    may not be in one hand with what they hold.
    """
    if role not in access.roles:
        raise Refusal("role-unknown", f"the rulebook has no role {role!r}")
    if grants.kind_of(role) != "human":
        raise Refusal("role-kind", f"{role} is not for people: see `brokerd keys`")
    await assigning.require_holdable(conn, access, person, role, command.at)
    at, by = command.at, command.caller.person
    given = Grant(
        id=ids.new("GR"), person=person, role=role, reach=reach, valid_from=at, created=at,
        created_by=by,
    )  # fmt: skip
    after = {"grant": given.id, "role": role, "entities": sorted(reach.entities)}
    row = audited(command, "person.add", person, ids.new("AU"), after=after)
    known = grants.person_known(person, "human", at, by)
    await audit.write(conn, [known, grants.given(given), row])
    return given.id


async def proofs(conn: asyncpg.Connection, person: str) -> Proofs | None:
    """What this person has to show; None for one without a password."""
    row = await conn.fetchrow(q.SELECT_PROOFS, person)
    return None if row is None else Proofs(row["hash"], row["secret"], row["used"] or 0)


async def use(conn: asyncpg.Connection, person: str, shown: Proofs, step: int) -> bool:
    """Use the device's step; False when it, or a later one, was used meanwhile, or a proof was
    changed. Both proofs stand until the caller's transaction ends.
    """
    if await conn.fetchval(q.HOLD_HASH, person) != shown.hash:
        return False
    return await conn.fetchval(q.USE_STEP, person, step, shown.device) is not None


async def whom(conn: asyncpg.Connection, issuer: str, subject: str) -> str | None:
    """Whom an identity provider means; that stands until the caller's transaction ends."""
    person: str | None = await conn.fetchval(q.HOLD_IDENTITY, issuer, subject)
    return person


class Proved(msgspec.Struct, frozen=True):
    """Which proofs a person has, without anything a thief could use."""

    person: str
    password: datetime | None
    device: datetime | None
    subjects: list[str] | None


async def proved(conn: asyncpg.Connection) -> list[Proved]:
    """Everybody who has a proof, by name."""
    return [Proved(**row) for row in await conn.fetch(q.SELECT_PROOFS_OF_ALL)]
