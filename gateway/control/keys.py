"""Credentials: how a key is made, stored, recognised and taken back.

Knows the shape of a token and its digest. Refuses to keep a secret: after the moment a token is
made only a keyed hash of it exists here.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.control import assigning, audit, grants
from gateway.control import queries as q
from gateway.control.access import EVERYWHERE, NONE, Access, Caller, Held, Reach
from gateway.control.grants import Grant
from gateway.control.refusals import Refusal
from ledger.ids import Ids, is_id
from ledger.units import Change

if TYPE_CHECKING:
    import asyncpg

_TOKEN: Final = re.compile(r"bk_live_([0-9A-Z]{20})_([0-9a-f]{64})", re.ASCII)


class NewKey(msgspec.Struct, frozen=True):
    """The wish for a credential. `person` defaults to the owner: a system answers for itself.

    entities to partners  what its grant is limited to; `*` is no limit
    """

    owner: str
    role: str
    entities: tuple[str, ...] = (EVERYWHERE,)
    person: str = ""
    brands: tuple[str, ...] = (EVERYWHERE,)
    jurisdictions: tuple[str, ...] = (EVERYWHERE,)
    desks: tuple[str, ...] = (EVERYWHERE,)
    partners: tuple[str, ...] = (EVERYWHERE,)

    @property
    def reach(self) -> Reach:
        """The sets of its grant."""
        return Reach(
            entities=frozenset(self.entities),
            brands=frozenset(self.brands),
            jurisdictions=frozenset(self.jurisdictions),
            desks=frozenset(self.desks),
            partners=frozenset(self.partners),
        )


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """A stored credential and its grant, without anything a thief could use.

    in_force  whether the key and its grant allow anything now
    """

    id: str
    owner: str
    person: str
    digest: bytes
    grant_id: str
    role: str
    reach: Reach
    in_force: bool

    def caller(self, access: Access) -> Caller:
        """The caller this credential stands for under the roles in force."""
        held = access.held(self.grant_id, self.role, self.reach)
        return Caller(key_id=self.id, person=self.person, owner=self.owner, grants=(held,))


def new_token(key_id: str, random_bytes: Callable[[int], bytes]) -> str:
    """A credential as its owner sees it, once: `bk_live_<id>_<secret>`, 256 bits of chance."""
    return f"bk_live_{key_id}_{random_bytes(32).hex()}"


def split_token(token: str) -> tuple[str, str] | None:
    """The key id and the secret of a credential; None when it does not have the shape of one."""
    match = _TOKEN.fullmatch(token)
    if match is None or not is_id(match[1], "KY"):
        return None
    return match[1], match[2]


def digest(secret: str, pepper: bytes) -> bytes:
    """What is stored of a secret: keyed BLAKE2b-256; a random secret needs no slow hash."""
    return blake2b(secret.encode(), key=pepper[:64], digest_size=32).digest()


def matches(secret: str, stored: bytes, pepper: bytes) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(digest(secret, pepper), stored)


async def find_key(conn: asyncpg.Connection, key_id: str) -> KeyRow | None:
    """The stored credential of this id, revoked or not."""
    row = await conn.fetchrow(q.SELECT_KEY, key_id)
    if row is None:
        return None
    sets = {name: frozenset(row[name]) for name in Reach.__struct_fields__}
    return KeyRow(
        id=row["id"],
        owner=row["owner"],
        person=row["person"],
        digest=row["digest"],
        grant_id=row["grant_id"],
        role=row["role"],
        reach=Reach(**sets),
        in_force=row["in_force"],
    )


async def list_keys(conn: asyncpg.Connection) -> list[Mapping[str, object]]:
    """All credentials, oldest first, each with the role and the entities of its grant."""
    return [dict(row) for row in await conn.fetch(q.SELECT_KEYS)]


def operator(person: str) -> Caller:
    """Whoever sits at the machine itself: reaches everything, and is named in the audit."""
    everything = Held("", "operator", NONE, Reach())
    return Caller(key_id="", person=person, owner=person, grants=(everything,))


class KeyMaker:
    """Gives credentials out and takes them back.

    ids, random_bytes  where ids and chance come from
    pepper             the process secret over which digests are keyed
    """

    def __init__(
        self,
        access: Access,
        ids: Ids,
        random_bytes: Callable[[int], bytes],
        pepper: bytes,
    ) -> None:
        self._access = access
        self._ids = ids
        self._random_bytes = random_bytes
        self._pepper = pepper

    async def require_holdable(
        self, conn: asyncpg.Connection, command: audit.Command, wish: NewKey
    ) -> None:
        """Raise Refusal `roles-conflict` where the person may not hold this role beside others."""
        person = wish.person or wish.owner
        await assigning.require_holdable(conn, self._access, person, wish.role, command.at)

    async def add(
        self, conn: asyncpg.Connection, command: audit.Command, wish: NewKey
    ) -> tuple[str, str]:
        """Store a new credential with a grant of its own in the caller's transaction.

        Returns its id and its token, once. The grant outlives the key, so that another may be
        given out for it; whoever is to lose the role loses the grant. Raises Refusal
        `role-unknown` when no such role is in force.
        """
        if wish.role not in self._access.roles:
            raise Refusal("role-unknown", f"the rulebook has no role {wish.role!r}")
        person, by, at = wish.person or wish.owner, command.caller.person, command.at
        grant = Grant(
            id=self._ids.new("GR"), person=person, role=wish.role, reach=wish.reach,
            valid_from=at, created=at, created_by=by,
        )  # fmt: skip
        key_id = self._ids.new("KY")
        token = new_token(key_id, self._random_bytes)
        stored = digest(token.rpartition("_")[2], self._pepper)
        after = msgspec.to_builtins(wish) | {"person": person, "grant": grant.id}
        known = grants.person_known(person, grants.kind_of(wish.role), at, by)
        row = self._audited(command, "key.add", key_id, after)
        await audit.write(conn, [known, grants.given(grant), row])
        await conn.execute(q.INSERT_KEY, key_id, wish.owner, person, grant.id, stored, at, by)
        return key_id, token

    async def revoke(self, conn: asyncpg.Connection, command: audit.Command, key_id: str) -> str:
        """Take a credential back in the caller's transaction; returns its owner.

        It stops working everywhere within the few seconds that replicas remember keys. Raises
        Refusal `not-found` when there is no such key or it is revoked already.
        """
        owner = await conn.fetchval(q.REVOKE_KEY, key_id, command.at, command.caller.person)
        if owner is None:
            raise Refusal("not-found", f"no key {key_id[:40]!r} that could be revoked")
        await audit.write(conn, [self._audited(command, "key.revoke", key_id, {"owner": owner})])
        return str(owner)

    def _audited(self, command: audit.Command, name: str, key_id: str, after: object) -> Change:
        return audit.audited(command, name, key_id, self._ids.new("AU"), after=after)
