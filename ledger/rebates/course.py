"""The course of a day: what contracts earned, minute by minute.

Knows that a minute is the one in which a batch was booked. Refuses to know who looks at it, and to
add up: a step says what its minute brought.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import asyncpg
import msgspec

from ledger import queries_rebate_course as q
from ledger.chart import ACCOUNTS


class Step(msgspec.Struct, frozen=True):
    """What one minute brought in a currency, in its minor units; `minute` counts from 00:00 UTC."""

    currency: str
    minute: int
    net: int


async def course(
    conn: asyncpg.Connection, contracts: Sequence[tuple[int, str]], day: date
) -> list[Step]:
    """The steps of these (book, contract) on a UTC day, by currency and minute; minutes without
    any are left out.
    """
    books, ids = [book for book, _ in contracts], [contract for _, contract in contracts]
    rows = await conn.fetch(q.COURSE, books, ids, ACCOUNTS["partner_accrued"].number, day)
    return [Step(row["currency"], row["minute"], row["net"]) for row in rows]
