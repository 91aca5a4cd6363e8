"""Certificates: services that prove who they are by TLS, without a secret of ours.

Knows which name of a certificate stands for which grant. Refuses to check a certificate: TLS did,
here or at a proxy the settings name, against the authority the house trusts for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.control import audit, grants
from gateway.control import queries_sign_in as q
from gateway.control.access import Access, Caller
from gateway.control.audit import Command, audited
from gateway.control.grants import Grant
from gateway.control.keys import NewKey
from gateway.control.memory import Memory
from gateway.control.refusals import Refusal
from ledger.ids import Ids

if TYPE_CHECKING:
    import asyncpg

NAME: Final = re.compile(r"(DNS|URI|email):[\x21-\x7e]{1,255}", re.ASCII)


class Certificates:
    """Recognises callers by the names their certificates bear.

    access  the roles of the rulebook in force, asked for at each use
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        access: Callable[[], Access],
        monotonic: Callable[[], float],
        ttl_s: float = 3.0,
    ) -> None:
        self._pool = pool
        self._access = access
        self._memory = Memory(self._ask, monotonic, ttl_s, under=access)

    async def caller(self, names: tuple[str, ...]) -> Caller:
        """Whose certificate bears these names; raises Refusal `unauthenticated` when nobody's.

        Also when it is several callers': a certificate stands for one.
        """
        found = await self._memory.get(names)
        if found is None:
            raise Refusal("unauthenticated", "no certificate that is in force was shown")
        return found

    async def _ask(self, names: tuple[str, ...]) -> Caller | None:
        async with self._pool.acquire() as conn:
            rows = await conn.fetch(q.SELECT_CERTIFICATES, list(names))
            given = await grants.find(conn, rows[0]["grant_id"]) if len(rows) == 1 else None
        if given is None or not rows[0]["in_force"]:
            return None
        held = self._access().held(given.id, given.role, given.reach)
        row = rows[0]
        return Caller(key_id=row["id"], person=row["person"], owner=row["owner"], grants=(held,))


async def add(
    conn: asyncpg.Connection, command: Command, ids: Ids, access: Access, wish: NewKey, name: str
) -> str:
    """Let certificates of this name call, with a grant of their own; in the caller's transaction.

    Returns the credential's id. Raises Refusal `role-unknown`, `name-malformed`, `name-taken`.
    """
    if wish.role not in access.roles:
        raise Refusal("role-unknown", f"the rulebook has no role {wish.role!r}")
    if NAME.fullmatch(name) is None:
        raise Refusal("name-malformed", "write it as URI:..., DNS:... or email:...")
    person, by, at = wish.person or wish.owner, command.caller.person, command.at
    given = Grant(
        id=ids.new("GR"), person=person, role=wish.role, reach=wish.reach, valid_from=at,
        created=at, created_by=by,
    )  # fmt: skip
    id = ids.new("CE")
    row = (id, name, wish.owner, person, given.id, at, by)
    if await conn.fetchval(q.INSERT_CERTIFICATE, *row) is None:
        raise Refusal("name-taken", "another credential has this name")
    after = msgspec.to_builtins(wish) | {"person": person, "grant": given.id, "name": name}
    known = grants.person_known(person, grants.kind_of(wish.role), at, by)
    done = audited(command, "certificate.add", id, ids.new("AU"), after=after)
    await audit.write(conn, [known, grants.given(given), done])
    return id


async def revoke(conn: asyncpg.Connection, command: Command, ids: Ids, id: str) -> str:
    """Take a name back in the caller's transaction; returns it. Raises Refusal `not-found`."""
    name = await conn.fetchval(q.REVOKE_CERTIFICATE, id, command.at, command.caller.person)
    if name is None:
        raise Refusal("not-found", f"no certificate {id[:40]!r} that could be revoked")
    row = audited(command, "certificate.revoke", id, ids.new("AU"), after={"name": name})
    await audit.write(conn, [row])
    return str(name)


async def listed(conn: asyncpg.Connection) -> list[Mapping[str, object]]:
    """All certificates' names, oldest first, each with the role of its grant."""
    return [dict(row) for row in await conn.fetch(q.SELECT_ALL_CERTIFICATES)]
