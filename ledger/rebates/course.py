"""The course of a day: what contracts earned, minute by minute.

Knows that a minute is the one in which a batch was booked, and keeps what it has read: batches are
final and are only added to, so whoever asks again costs what came since. Refuses to know who looks
at it, and to add up: a step says what its minute brought.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Sequence
from datetime import date
from typing import Final

import asyncpg
import msgspec

from ledger import queries_rebate_course as q
from ledger.chart import ACCOUNTS

MINUTES: Final = 1440
KEPT: Final = 4_000  # readers' days in memory: some 12 KB each
AT_ONCE: Final = 4  # reads of the ledger; after a restart every page asks

Contracts = tuple[tuple[int, str], ...]


class Step(msgspec.Struct, frozen=True):
    """What one minute brought in a currency, in its minor units; `minute` counts from 00:00 UTC."""

    currency: str
    minute: int
    net: int


class _Day:
    """What is known of some contracts' day: up to which batch of each book, and the minutes."""

    def __init__(self, day: date) -> None:
        self.day = day
        self.known: dict[int, int] = {}
        self.nets: dict[str, array[int]] = {}
        self.reading = asyncio.Lock()

    def add(self, row: asyncpg.Record) -> None:
        """Take what one minute brought since."""
        nets = self.nets.setdefault(row["currency"], array("q", bytes(8 * MINUTES)))
        nets[row["minute"]] += row["net"]
        self.known[row["book_id"]] = max(self.known.get(row["book_id"], 0), row["batch"])

    def steps(self) -> list[Step]:
        """By currency and minute."""
        return [
            Step(currency, minute, net)
            for currency, nets in sorted(self.nets.items())
            for minute, net in enumerate(nets)
            if net
        ]


class Courses:
    """The days of those who asked last."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._days: dict[Contracts, _Day] = {}
        self._reads = asyncio.Semaphore(AT_ONCE)

    async def read(
        self, pool: asyncpg.Pool, contracts: Sequence[tuple[int, str]], day: date
    ) -> list[Step]:
        """The steps of these (book, contract) on a UTC day, by currency and minute; minutes that
        brought nothing are left out. However many ask for the same, the ledger is read by one.
        """
        key = tuple(contracts)
        known = self._days.pop(key, None)
        if known is None or known.day != day:
            known = _Day(day)
        self._days[key] = known  # the newest stand last
        if len(self._days) > self._kept:
            del self._days[next(iter(self._days))]
        async with known.reading, self._reads, pool.acquire() as conn:
            rows = await conn.fetch(
                q.COURSE, [book for book, _ in key], [contract for _, contract in key],
                ACCOUNTS["partner_accrued"].number, day,
                [known.known.get(book, 0) for book, _ in key],
            )  # fmt: skip
            for row in rows:
                known.add(row)
        return known.steps()
