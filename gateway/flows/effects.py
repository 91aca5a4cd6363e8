"""What a version of the rulebook would change, and for whom, before anybody agrees to it.

Knows how recent payments, contracts, grants and open attempts are looked at with two rulebooks.
Refuses to change anything, and to guess: what cannot be seen from rows is not said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final

import asyncpg
import msgspec
from msgspec import Meta

from config.difference import Difference, differences
from config.load import from_source
from config.rulebook import Rulebook
from gateway.control import rulebook as rulebooks
from gateway.control.rules import Compiled, compiled
from gateway.control.versions import Version
from gateway.flows import queries_effects as q
from router import reads
from router.decide import decide
from router.intents import Intent
from router.rules import Rules

REPLAYED_MAX: Final = 500  # of the newest payments; each is routed by both rulebooks
SHOWN_MAX: Final = 20


class Rerouted(msgspec.Struct, frozen=True):
    """A payment that would go another way: providers in order, or the code it is refused with."""

    payment: str
    entity: str
    before: tuple[str, ...]
    after: tuple[str, ...]


class Routing(msgspec.Struct, frozen=True):
    """The newest payments, routed again by both rulebooks with every provider well."""

    payments: int
    rerouted: int
    examples: tuple[Rerouted, ...]


class PlanEffect(msgspec.Struct, frozen=True):
    """A plan that changes or ends, and how many contracts are on it."""

    plan: str
    contracts: int


class RoleEffect(msgspec.Struct, frozen=True):
    """A role that changes, who holds it, and what each gains and loses."""

    role: str
    people: tuple[str, ...]
    gains: tuple[str, ...]
    loses: tuple[str, ...]


class Leaving(msgspec.Struct, frozen=True):
    """A provider that is taken out, and how many attempts there are still open: they are asked
    about to their end, and nothing new is sent.
    """

    psp: str
    open_attempts: Annotated[int, Meta(ge=0)]


class Effects(msgspec.Struct, frozen=True):
    """What would change, and for whom. Of what is not listed nothing changes for who is there."""

    differences: int
    routing: Routing
    plans: tuple[PlanEffect, ...]
    roles: tuple[RoleEffect, ...]
    leaving: tuple[Leaving, ...]
    entities: tuple[str, ...]
    brands: tuple[str, ...]


class DryRun:
    """Looks at what is there with two rulebooks. Reads only."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def of(self, version: Version) -> Effects:
        """What the version would change in the content it was drafted on."""
        async with self._pool.acquire() as conn:
            after = await rulebooks.source(conn, version.hash)
            before = await rulebooks.source(conn, version.base) if version.base else after
            return await between(conn, before, after)


async def between(conn: asyncpg.Connection, before: bytes, after: bytes) -> Effects:
    """What the second content would change in the first."""
    intents = await reads.newest_intents(conn, REPLAYED_MAX)
    old, new, found = await asyncio.to_thread(_both, before, after)
    return Effects(
        differences=len(found),
        routing=await asyncio.to_thread(_rerouted, intents, old.routing, new.routing),
        plans=await _plans(conn, found),
        roles=await _roles(conn, old, new),
        leaving=await _leaving(conn, old.book, new.book),
        entities=_added([it.id for it in old.book.entities], new.book.entities),
        brands=_added([it.id for it in old.book.brands], new.book.brands),
    )


def _both(before: bytes, after: bytes) -> tuple[Compiled, Compiled, list[Difference]]:
    """Both rulebooks as rooms read them; of one with findings, as far as they could."""
    return (
        compiled(from_source(before))[0],
        compiled(from_source(after))[0],
        differences(before, after),
    )


def _rerouted(intents: Sequence[tuple[str, Intent]], old: Rules, new: Rules) -> Routing:
    moved = []
    for payment, intent in intents:
        before, after = _way(intent, old), _way(intent, new)
        if before != after:
            moved.append(Rerouted(payment, intent.entity, before, after))
    return Routing(len(intents), len(moved), tuple(moved[:SHOWN_MAX]))


def _way(intent: Intent, rules: Rules) -> tuple[str, ...]:
    route = decide(intent, rules, {})
    return (route.refused,) if route.refused else tuple(it.psp for it in route.candidates)


async def _plans(
    conn: asyncpg.Connection, found: Sequence[Difference]
) -> tuple[PlanEffect, ...]:  # fmt: skip
    changed = sorted({each.item for each in found if each.part == "plan"})
    rows = await conn.fetch(q.CONTRACTS_ON, changed)
    counts = {row["plan"]: row["contracts"] for row in rows}
    return tuple(PlanEffect(plan, counts.get(plan, 0)) for plan in changed)


async def _roles(conn: asyncpg.Connection, old: Compiled, new: Compiled) -> tuple[RoleEffect, ...]:
    before, after = old.access.roles, new.access.roles
    empty: frozenset[str] = frozenset()
    changed = [
        role for role in sorted(before.keys() | after.keys())
        if before.get(role, empty) != after.get(role, empty)
    ]  # fmt: skip
    rows = await conn.fetch(q.HOLDERS, changed)
    holders = {row["role"]: row["people"] for row in rows}
    return tuple(
        RoleEffect(
            role, tuple(holders.get(role, ())),
            tuple(sorted(after.get(role, empty) - before.get(role, empty))),
            tuple(sorted(before.get(role, empty) - after.get(role, empty))),
        )
        for role in changed
    )  # fmt: skip


async def _leaving(conn: asyncpg.Connection, old: Rulebook, new: Rulebook) -> tuple[Leaving, ...]:
    kept = {psp.id for psp in new.psps}
    gone = sorted(psp.id for psp in old.psps if psp.id not in kept)
    counts = await reads.open_attempts(conn, gone)
    return tuple(Leaving(psp, counts.get(psp, 0)) for psp in gone)


def _added(before: Sequence[str], after: Sequence[object]) -> tuple[str, ...]:
    names = [str(getattr(it, "id", "")) for it in after]
    return tuple(name for name in names if name not in before)
