"""How many deals became what, how they stand, and what each contract earned by its lines: for
whoever judges.

Knows how to count. Refuses to know what should have become of a deal.
"""

from __future__ import annotations

from collections.abc import Iterable

import asyncpg
import msgspec

from ledger import queries_survey as q


class DealCount(msgspec.Struct, frozen=True):
    """Deals by ticket, whatever their versions.

    landed  stored; booked  of these, accrued or recognised as money without a trade
    parked  waiting for their cause to go, and not stored in an earlier version
    lines   of rebates, in all books
    """

    landed: int
    booked: int
    parked: int
    lines: int


class Version(msgspec.Struct, frozen=True):
    """What an edit may change of a deal, as its newest version has it; money in minor units."""

    ticket: int
    profit: int
    commission: int
    swap: int
    fee: int
    flags: int
    comment: str


class FirstLine(msgspec.Struct, frozen=True):
    """A line that a deal brought a contract when it was booked first."""

    contract: str
    no: int
    ticket: int


class Earned(msgspec.Struct, frozen=True):
    """What a contract has earned in all, minor units."""

    contract: str
    currency: str
    minor: int


async def count_deals(conn: asyncpg.Connection) -> DealCount:
    """The counts of this moment."""
    row = await conn.fetchrow(q.COUNT_DEALS)
    return DealCount(row["landed"], row["booked"], row["parked"], row["lines"])


async def newest_versions(conn: asyncpg.Connection, tickets: Iterable[int]) -> list[Version]:
    """Those of these tickets that are in the books."""
    return [Version(*row) for row in await conn.fetch(q.NEWEST_VERSIONS, list(tickets))]


async def first_lines(conn: asyncpg.Connection, contracts: Iterable[str]) -> list[FirstLine]:
    """Those of these contracts; edits and rounding brought none of them."""
    return [FirstLine(*row) for row in await conn.fetch(q.FIRST_LINES, list(contracts))]


async def earned(conn: asyncpg.Connection) -> list[Earned]:
    """Every contract with a line, summed over its lines."""
    return [
        Earned(row["contract"], row["currency"], row["minor"]) for row in await conn.fetch(q.EARNED)
    ]
