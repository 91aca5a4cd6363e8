"""Delegations: the right of one person to decide questions, lent to another for a while.

Knows who lent what to whom, and by whose right somebody decides. Refuses to make a right: what the
giver may not decide at that moment, no delegate may, and what was lent cannot be lent on.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.control import grants
from gateway.control import queries_approvals as q
from gateway.control.access import EVERYWHERE, NONE, Access, Caller, Held
from gateway.control.approvals import Approval, Voter
from gateway.control.duties import Conflict, abilities, held_together
from gateway.control.policies import KINDS, Policies
from gateway.control.refusals import Refusal
from ledger.units import Change, Kind, Step

if TYPE_CHECKING:
    import asyncpg

GIVE: Final = Kind("gateway.delegation.insert", Step.INSERT, q.INSERT_DELEGATION)
END: Final = Kind("gateway.delegation.end", Step.MOVE, q.END_DELEGATION, q.LOCK_DELEGATION)
HOLDS: Final = Kind("gateway.delegation.holds", Step.CHECK, q.DELEGATION_HOLDS)

LENT_MAX: Final = timedelta(days=31)


class Delegation(msgspec.Struct, frozen=True, kw_only=True):
    """What one person lent another.

    kinds     of questions; `*` is every kind that the giver may decide
    entities  legal entities; `*` is all that the giver reaches
    ended     when it was taken back before its time; None while it was not
    """

    id: str
    version: int
    giver: str
    delegate: str
    kinds: tuple[str, ...]
    entities: tuple[str, ...]
    since: datetime
    until: datetime
    reason: str
    created: datetime
    ended: datetime | None = None
    ended_by: str = ""

    def state_at(self, now: datetime) -> str:
        """`waiting`, `in force`, `over` or `ended`."""
        if self.ended is not None:
            return "ended"
        if now >= self.until:
            return "over"
        return "in force" if now >= self.since else "waiting"


def require_lendable(caller: Caller, policies: Policies, wanted: Delegation, now: datetime) -> None:
    """Refuse what cannot be lent. Pure; raises Refusal.

    Codes: `delegation-time`, `delegate-self`, `kind-unknown`, `forbidden` for a kind that the giver
    may not decide.
    """
    if wanted.since < now or wanted.until <= wanted.since:
        raise Refusal("delegation-time", "it begins now or later, and ends after it begins")
    if wanted.until - wanted.since > LENT_MAX:
        raise Refusal("delegation-time", f"nothing is lent for more than {LENT_MAX.days} days")
    if wanted.delegate == caller.person:
        raise Refusal("delegate-self", "a right is lent to another person")
    for kind in wanted.kinds:
        if kind not in KINDS and kind != EVERYWHERE:
            raise Refusal("kind-unknown", f"nothing asks for {kind!r}")
        asked = KINDS if kind == EVERYWHERE else (kind,)
        if not any(caller.may(it) for each in asked for it in policies.permissions(each)):
            raise Refusal("forbidden", f"only who decides {kind} may lend the right to")


# --- by whose right -----------------------------------------------------------------------------


async def voter(
    conn: asyncpg.Connection, access: Access, caller: Caller, approval: Approval, now: datetime
) -> Voter | None:
    """By whose right the caller decides this question: their own, else one lent; None for neither.

    A lent right is the giver's as it is now, by the grants and the roles in force; and none for
    whoever could not be given a role with it, beside what they hold themselves.
    """
    if allows(caller.grants, approval):
        return Voter(caller.person, caller.person)
    rows = await conn.fetch(
        q.SELECT_DELEGATIONS_TO, caller.person, approval.kind, approval.entity, now
    )
    if not rows or clashes(await permissions_of(conn, access, caller.person), approval.permission):
        return None
    for lent in map(_delegation, rows):
        held = await grants.in_force(conn, lent.giver)
        if allows((access.held(it.id, it.role, it.reach) for it in held), approval):
            return Voter(caller.person, lent.giver, lent.id)
    return None


async def permissions_of(conn: asyncpg.Connection, access: Access, person: str) -> frozenset[str]:
    """Everything that a person's own grants allow now."""
    held = await grants.in_force(conn, person)
    return NONE.union(*(access.roles.get(it.role, NONE) for it in held))


def clashes(own: frozenset[str], lent: str) -> tuple[Conflict, ...]:
    """The conflicts of roles that a lent permission would make beside one's own."""
    able = abilities((lent,))
    return tuple(it for it in held_together(own | {lent}) if able & (it.first | it.second))


def allows(held: Iterable[Held], approval: Approval) -> bool:
    """Whether one of these grants has the permission and reaches the question."""
    return any(
        approval.permission in each.scopes and each.reach.holds(approval.tags) for each in held
    )


# --- changes ------------------------------------------------------------------------------------


def lent(delegation: Delegation) -> Change:
    """Store a new delegation."""
    row = (
        delegation.id, delegation.giver, delegation.delegate, ",".join(delegation.kinds),
        ",".join(delegation.entities), delegation.since, delegation.until, delegation.reason,
        delegation.created,
    )  # fmt: skip
    return Change(GIVE, row)


def ended(delegation: Delegation, by: str, at: datetime) -> Change:
    """Take it back, at the version that was read."""
    return Change(END, (delegation.id, delegation.version, at, by))


def holds(voter: Voter) -> tuple[Change, ...]:
    """For the unit of a vote: it is left out unless the right is lent at its commit."""
    return (Change(HOLDS, (voter.delegation,)),) if voter.delegation else ()


# --- reads --------------------------------------------------------------------------------------


async def find(conn: asyncpg.Connection, id: str) -> Delegation | None:
    """The delegation of this id."""
    row = await conn.fetchrow(q.SELECT_DELEGATION, id)
    return None if row is None else _delegation(row)


async def page(
    conn: asyncpg.Connection, caller: Caller, *, person: str, after: str, limit: int
) -> list[Delegation]:
    """Delegations newest first that exist for the caller: their own, and those within reach."""
    rows = await conn.fetch(
        q.SELECT_DELEGATIONS, after, caller.person, caller.entity_filter, person, limit
    )
    return [_delegation(row) for row in rows]


def _delegation(row: asyncpg.Record) -> Delegation:
    lists = {name: tuple(row[name]) for name in ("kinds", "entities")}
    return Delegation(**(dict(row) | lists))
