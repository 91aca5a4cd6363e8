"""What accrual reads beside deals: contracts with their dated edges and terms, and plans.

Knows the version that moves with every change of them, and how plans are published. Refuses to
know partners and clients: whoever keeps them hands in contracts as values.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import msgspec

from ledger import queries_inputs as q
from ledger.rebates.plans import Plan, PlanVersion, body, digest, parse
from ledger.units import Change, Kind, Step

if TYPE_CHECKING:
    import asyncpg

PLANS_KEPT: Final = 4_096
_parsed = lru_cache(PLANS_KEPT)(parse)  # a body never changes, and explanations ask for all of them

MOVE: Final = Kind("ledger.inputs.move", Step.MOVE, q.MOVE_INPUTS, q.LOCK_INPUTS)

Dated = tuple[tuple[datetime, str], ...]


class CurrencyChanged(ValueError):
    """Plans that were published in another currency before: `was` has it for each of them.

    Contracts in the earlier currency may be on them, and would be paid the new numbers in it.
    """

    def __init__(self, was: Mapping[str, str]) -> None:
        names = ", ".join(f"{plan} ({currency})" for plan, currency in was.items())
        super().__init__(f"published in another currency before: {names}")
        self.was = was


class Contract(msgspec.Struct, frozen=True):
    """A partner's contract as accrual sees it; what is dated stands in the order of time.

    parents  who stood above it from a moment on; "" is nobody
    plans    the plan it was on from a moment on
    """

    id: str
    currency: str
    parents: Dated
    plans: Dated

    def parent(self, at: datetime) -> str:
        """The contract above it at a moment; "" at the top."""
        return in_force(self.parents, at)

    def plan(self, at: datetime) -> str:
        """The id of the plan it was on at a moment; "" for none."""
        return in_force(self.plans, at)


class Inputs(msgspec.Struct, frozen=True):
    """All of it for one book, as of a version. Versions of a plan stand in the order of time."""

    version: int
    contracts: Mapping[str, Contract]
    plans: Mapping[str, tuple[PlanVersion, ...]]

    def plan(self, plan_id: str, at: datetime) -> PlanVersion | None:
        """The version of a plan in force at a moment; None before its first."""
        versions = self.plans.get(plan_id, ())
        place = bisect_right(versions, at, key=lambda each: each.since)
        return versions[place - 1] if place else None


def in_force(dated: Dated, at: datetime) -> str:
    """What holds at a moment: the last that began at or before it; "" before the first."""
    place = bisect_right(dated, at, key=lambda each: each[0])
    return dated[place - 1][1] if place else ""


# --- the version --------------------------------------------------------------------------------


def moved(book: int, expected: int) -> Change:
    """Move a book's inputs from the version that was read; rows made with it bear expected + 1."""
    return Change(MOVE, (str(book), expected))


async def version(conn: asyncpg.Connection, book: int) -> int:
    """The version of a book's inputs now; 0 for a book that never had any."""
    return await conn.fetchval(q.INPUTS_VERSION, book) or 0


async def share(conn: asyncpg.Connection, book: int) -> int:
    """The same, held until the caller's transaction ends: nobody moves it meanwhile."""
    assert conn.is_in_transaction()
    found = await conn.fetchval(q.SHARE_INPUTS, book)
    assert found is not None, f"book {book} has no inputs: they are opened with the rulebook"
    return int(found)


async def advance(conn: asyncpg.Connection, book: int) -> int:
    """Move a book's inputs in the caller's own transaction and return the version that it makes.

    It locks them: no accrual commits until the caller does, and then only one that read them anew.
    """
    assert conn.is_in_transaction()
    made = await conn.fetchval(q.ADVANCE_INPUTS, book)
    assert made is not None, f"book {book} has no inputs: they are opened with the rulebook"
    return int(made)


# --- plans --------------------------------------------------------------------------------------


async def publish(conn: asyncpg.Connection, books: Sequence[int], plans: Iterable[Plan]) -> int:
    """Open the inputs of books, and bring plans into force whose content is new; returns how many.

    They take effect for all books at one moment within the caller's transaction, after every
    accrual that did not know them. A plan that is left out stays as it was: contracts may be on it.

    Raises CurrencyChanged for plans that ever were in another currency; then none is published.
    """
    assert conn.is_in_transaction()
    await conn.execute(q.OPEN_INPUTS, sorted(books))
    by_id = {plan.id: plan for plan in plans}
    if not (wanted := [(id, digest(plan), body(plan).decode()) for id, plan in by_id.items()]):
        return 0
    if not (new := await _not_in_force(conn, wanted)):
        return 0
    await conn.fetch(q.LOCK_ALL_INPUTS)
    new = await _not_in_force(conn, new)  # under the lock: another may have published them
    if was := await _in_another_currency(conn, {id: by_id[id].currency for id, _, _ in new}):
        raise CurrencyChanged(was)
    if new:
        await conn.execute(q.INSERT_PLANS, *map(list, zip(*new, strict=True)))
        await conn.execute(q.MOVE_ALL_INPUTS)
    return len(new)


async def _not_in_force(
    conn: asyncpg.Connection, wanted: list[tuple[str, str, str]]
) -> list[tuple[str, str, str]]:
    latest = {row["plan"]: row["hash"] for row in await conn.fetch(q.LATEST_PLANS)}
    return [plan for plan in wanted if latest.get(plan[0]) != plan[1]]


async def _in_another_currency(
    conn: asyncpg.Connection, units: Mapping[str, str]
) -> dict[str, str]:
    """Those of these plans that were published in another currency than theirs, and in which."""
    rows = await conn.fetch(q.OTHER_CURRENCIES, list(units), list(units.values()))
    return {row["plan"]: row["currency"] for row in rows}


async def plan_versions(conn: asyncpg.Connection) -> Mapping[str, tuple[PlanVersion, ...]]:
    """Every plan ever published, by its id, in the order of time."""
    found: dict[str, tuple[PlanVersion, ...]] = {}
    for row in await conn.fetch(q.SELECT_PLANS):
        found[row["plan"]] = (*found.get(row["plan"], ()), _version(row))
    return found


async def plan_version(conn: asyncpg.Connection, id: int) -> PlanVersion | None:
    """One published version."""
    row = await conn.fetchrow(q.SELECT_PLAN, id)
    return None if row is None else _version(row)


async def altered_plans(conn: asyncpg.Connection) -> list[tuple[int, str]]:
    """Versions whose body is not the content that their hash names: their id and plan."""
    return [
        (row["id"], row["plan"]) for row in await conn.fetch(q.SELECT_PLANS) if not _stands(row)
    ]


def _stands(row: asyncpg.Record) -> bool:
    try:
        plan = parse(row["body"])
    except (msgspec.MsgspecError, ValueError, ArithmeticError):
        return False
    return (plan.id, digest(plan)) == (row["plan"], row["hash"])


def _version(row: asyncpg.Record) -> PlanVersion:
    return PlanVersion(row["id"], _parsed(row["body"]), row["since"])
