"""Assigning: which role a person may be given beside what they hold, and the exceptions from it.

Knows what two roles may not be in one hand, and that an exception ends soon and bears its approval.
Refuses to know how anybody asks for one (`flows/assigning.py`), and to except anybody from what one
person may not do twice on one subject: there is no such exception.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.control import grants
from gateway.control import queries_duties as q
from gateway.control.access import EVERYWHERE, NONE, Access, Caller, Reach
from gateway.control.duties import Conflict, abilities, held_together
from gateway.control.grants import Grant
from gateway.control.refusals import Refusal
from ledger.units import Change, Kind, Step

if TYPE_CHECKING:
    import asyncpg

EXCEPTION: Final = Kind("gateway.duty_exception.insert", Step.INSERT, q.INSERT_EXCEPTION)
EXCEPTION_MAX: Final = timedelta(days=30)
BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
FOR_EVER: Final = datetime(9999, 1, 1, tzinfo=UTC)


class Excepted(msgspec.Struct, frozen=True):
    """A conflict of roles that other people let one person hold for a while."""

    grant_id: str
    conflict: int
    person: str
    since: datetime
    until: datetime
    approval: str
    reason: str


def conflicts(
    roles: Mapping[str, frozenset[str]],
    held: Iterable[Grant],
    role: str,
    since: datetime,
    until: datetime | None,
) -> tuple[Conflict, ...]:
    """The conflicts this role would make in one hand with grants that hold at the same time."""
    mine = roles.get(role, NONE)
    beside = (
        roles.get(grant.role, NONE) for grant in held
        if grant.revoked is None
        and grant.valid_from < (until or FOR_EVER)
        and since < (grant.valid_until or FOR_EVER)
    )  # fmt: skip
    able = abilities(mine)
    together = held_together(mine.union(*beside))
    return tuple(it for it in together if able & (it.first | it.second))


def conflict_refusal(person: str, role: str, found: Sequence[Conflict]) -> Refusal:
    """Why a person may not hold this role too."""
    rows = "; ".join(f"{it.number} ({it.a} | {it.b})" for it in found)
    said = f"{person} may not hold {role} beside their other roles: conflict {rows}"
    return Refusal("roles-conflict", said, {"conflicts": [it.number for it in found]})


def within(reach: Reach, caller: Caller) -> bool:
    """Whether a grant lies within the entities of whoever asks for it, or looks at it."""
    entities = caller.entity_filter
    return entities is None or reach.entities <= frozenset(entities)


def only_entity(reach: Reach) -> str:
    """The one entity a grant is limited to, "" where it is not limited to one."""
    (entity, *others) = sorted(reach.entities)
    return "" if others or entity == EVERYWHERE else entity


def holding(access: Access, held: Iterable[Grant], at: datetime) -> tuple[Conflict, ...]:
    """The conflicts that a person holds in one hand at this moment."""
    scopes = (access.roles.get(it.role, NONE) for it in held if it.in_force(at))
    return held_together(NONE.union(*scopes))


def excepted(grant: Grant, conflict: int, reason: str) -> Change:
    """Keep that a grant was given although it conflicts; it ends when the grant does."""
    assert grant.valid_until is not None, "an exception is for a while"
    row = (
        grant.id, conflict, grant.person, grant.valid_from, grant.valid_until, grant.approval,
        reason,
    )  # fmt: skip
    return Change(EXCEPTION, row)


async def hold_person(conn: asyncpg.Connection, person: str) -> None:
    """Let nobody else give this person a role until the caller's transaction ends."""
    assert conn.is_in_transaction()
    await conn.execute(q.HOLD_PERSON, person)


async def require_holdable(
    conn: asyncpg.Connection, access: Access, person: str, role: str, at: datetime
) -> None:
    """Raise Refusal `roles-conflict` for a role that may not be in one hand with what they hold.

    For who gives roles at the machine itself: there is no exception, and no way round.
    """
    await hold_person(conn, person)
    held = await grants.of_person(conn, person)
    if found := conflicts(access.roles, held, role, at, None):
        raise conflict_refusal(person, role, found)


async def exceptions(
    conn: asyncpg.Connection, since: datetime, until: datetime, person: str = ""
) -> list[Excepted]:
    """Exceptions that held at some time between; of everybody where no person is named."""
    return [Excepted(*row) for row in await conn.fetch(q.SELECT_EXCEPTIONS, since, until, person)]
