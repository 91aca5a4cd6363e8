"""Grants: a role given to a person, within sets of tags, for a time.

Knows how people and grants are stored, read and taken back. Refuses to judge who may give one:
`keys.py` gives them at the machine, everything else asks for approval.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from gateway.control import queries_grants as q
from gateway.control.access import Reach
from ledger.units import Change, Kind, Step

if TYPE_CHECKING:
    from collections.abc import Mapping

    import asyncpg

PERSON: Final = Kind("gateway.person.known", Step.INSERT, q.KNOW_PERSON)
GIVE: Final = Kind("gateway.access_grant.give", Step.INSERT, q.INSERT_GRANT)
TAKE: Final = Kind("gateway.access_grant.take", Step.MOVE, q.REVOKE_GRANT, q.LOCK_GRANT)

PersonKind = Literal["human", "service"]
SERVICE: Final = "svc."  # how roles of services begin


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A grant as stored.

    approval  the question by which it was given; "" at the machine itself
    """

    id: str
    version: int = 1
    person: str
    role: str
    reach: Reach = Reach()
    valid_from: datetime
    valid_until: datetime | None = None
    approval: str = ""
    revoked: datetime | None = None
    revoked_by: str = ""
    created: datetime
    created_by: str

    def in_force(self, at: datetime) -> bool:
        """Whether it allows anything at this moment."""
        begun = self.valid_from <= at and (self.valid_until is None or at < self.valid_until)
        return begun and (self.revoked is None or at < self.revoked)


def kind_of(role: str) -> PersonKind:
    """Whether a role is for people or for services."""
    return "service" if role.startswith(SERVICE) else "human"


# --- changes ------------------------------------------------------------------------------------


def person_known(person: str, kind: PersonKind, at: datetime, by: str) -> Change:
    """Make sure that the person has a row; one that is known already stays as it is."""
    return Change(PERSON, (person, kind, at, by))


def given(grant: Grant) -> Change:
    """Store a new grant; it goes with `person_known` and an audit row."""
    reach = grant.reach
    sets = (reach.entities, reach.brands, reach.jurisdictions, reach.desks, reach.partners)
    row = (
        grant.id, grant.person, grant.role, *(",".join(sorted(names)) for names in sets),
        grant.valid_from, grant.valid_until, grant.approval, grant.created, grant.created_by,
    )  # fmt: skip
    return Change(GIVE, row)


def taken(grant: Grant, by: str, at: datetime) -> Change:
    """Take a grant back, at the version that was read."""
    return Change(TAKE, (grant.id, grant.version, at, by))


# --- reads --------------------------------------------------------------------------------------


async def find(conn: asyncpg.Connection, grant_id: str) -> Grant | None:
    """The grant of this id."""
    row = await conn.fetchrow(q.SELECT_GRANT, grant_id)
    return None if row is None else read(row)


async def of_person(conn: asyncpg.Connection, person: str) -> list[Grant]:
    """All grants a person ever had, oldest first."""
    return [read(row) for row in await conn.fetch(q.SELECT_GRANTS_OF, person)]


async def in_force(conn: asyncpg.Connection, person: str) -> list[Grant]:
    """The grants that allow a person something now, by the server's clock; oldest first."""
    return [read(row) for row in await conn.fetch(q.SELECT_GRANTS_IN_FORCE, person)]


async def kind_known(conn: asyncpg.Connection, person: str) -> PersonKind | None:
    """Whether a person is known here, and as what."""
    found: PersonKind | None = await conn.fetchval(q.SELECT_PERSON_KIND, person)
    return found


async def page(
    conn: asyncpg.Connection, *, entities: list[str] | None, person: str, role: str, after: str,
    limit: int,
) -> list[Grant]:  # fmt: skip
    """Grants newest first, below the cursor `after`; empty strings ask for nothing."""
    rows = await conn.fetch(q.SELECT_GRANTS, after, entities, person, role, limit)
    return [read(row) for row in rows]


async def holders(conn: asyncpg.Connection) -> list[tuple[str, tuple[str, ...]]]:
    """Everybody who holds roles now, by the server's clock, with their roles."""
    rows = await conn.fetch(q.SELECT_HOLDERS)
    return [(row["person"], tuple(row["roles"])) for row in rows]


def read(row: Mapping[str, object]) -> Grant:
    """A row of `gateway.access_grant` as a value."""
    plain = {name: row[name] for name in Grant.__struct_fields__ if name != "reach"}
    sets = {name: frozenset(row[name]) for name in Reach.__struct_fields__}  # type: ignore[call-overload]
    return Grant(**plain, reach=Reach(**sets))  # type: ignore[arg-type]
