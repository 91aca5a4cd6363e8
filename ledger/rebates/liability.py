"""What a book owes its partners: by currency, and that its contracts come to the same.

Knows the three accounts of a contract: accrued, held, payable. Refuses to know partners.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg
import msgspec

from ledger import queries_rebate_reads as q
from ledger.reads import closed
from ledger.rebates.reads import KINDS


class Liability(msgspec.Struct, frozen=True):
    """What one book owes its partners in one currency, minor units.

    earned     the sum of all lines: what ever was accrued
    contracts  how many contracts it is owed to
    """

    book: int
    currency: str
    accrued: int
    held: int
    payable: int
    earned: int
    contracts: int


async def liability(
    conn: asyncpg.Connection, books: Sequence[int], as_of: datetime | None = None
) -> list[Liability]:
    """By book and currency, now or as of a closed moment; raises StillOpen for another."""
    if as_of is None:
        rows = await conn.fetch(q.LIABILITY, list(books), *KINDS)
    else:
        await closed(conn, as_of)
        rows = await conn.fetch(q.LIABILITY_AS_OF, list(books), *KINDS, as_of)
    return [
        Liability(
            row["book_id"], row["currency"], row["accrued"], row["held"], row["payable"],
            row["earned"], row["contracts"],
        )
        for row in rows
    ]  # fmt: skip
