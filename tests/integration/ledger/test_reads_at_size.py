"""However many lines a book has, what is read of it is looked up by key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest_asyncio

from ledger.chart import ACCOUNTS
from ledger.rebates import reads
from ledger.rebates.course import Courses
from ledger.rebates.liability import liability
from tests.support.earning import Earning
from tests.support.servers import Database
from tests.unit.ledger.values import deal

BATCHES = 300  # full ones; a day has 100 of them
DEALS = 400  # each; one of them is of the small partner
BEGIN = datetime(2026, 3, 3, tzinfo=UTC)
BIG, SMALL = "CTpartner", "CTlone"
LAST_DAY = BEGIN.date() + timedelta(days=2)

# What the tables hold after so many batches, in the order in which a daemon would have written it.
DEALS_LANDED = """
INSERT INTO ledger.deal (book_id, feed, no, ticket, phase, version, login, position, action, entry,
    reason, symbol, volume, closed, price, digits, profit, commission, swap, fee, flags, comment,
    at, server_ms)
SELECT 1, 1, n, n + 1000000, 0, 1, 5001, n, 0, 1, 0, 'EURUSD', 1, 1, 1, 2, 0, 0, 0, 0, 0, '', $3, n
  FROM generate_series(100, 99 + $1::bigint * $2::bigint) n
"""
BATCHES_WRITTEN = """
INSERT INTO ledger.accrual_batch (book_id, batch, feed, first_deal, last_deal, first_line,
    last_line, day, settles, cut_off, inputs, epoch, entry_id, deals, lines, content, at)
SELECT 1, 100 + n, 1, 100 + n * d, 99 + (n + 1) * d, 100 + n * d, 99 + (n + 1) * d,
       $3::date + (n / 100)::int, $3::date + (n / 100)::int, '00:00', 1, 1, 100 + n, '', '', '',
       $3::date::timestamp AT TIME ZONE 'UTC' + n / 100 * interval '1 day'
           + n % 100 * interval '1 minute'
  FROM generate_series(0, $1::bigint - 1) n, (SELECT $2::bigint) s (d)
"""
# The eighth line of each batch is the small partner's.
LINES_WRITTEN = """
INSERT INTO ledger.rebate_line (book_id, no, batch, feed, deal_no, concerned_no, account_id,
    component, kind, level, reason, plan, amount)
SELECT 1, n, b.batch, 1, n, n, CASE n - b.first_deal WHEN 7 THEN $2::bigint ELSE $1::bigint END,
       0, 1, 1, 0, 1, 1
  FROM ledger.accrual_batch b, generate_series(b.first_deal, b.last_deal) n WHERE b.batch >= 100
"""
CONTRACTS_WRITTEN = """
INSERT INTO ledger.contract_batch (book_id, account_id, batch, day, net, lines, last_line, earned,
    lines_ever)
SELECT 1, account_id, batch, day, lines, lines, last_line, n * lines, n * lines
  FROM (SELECT b.batch, b.batch - 99 AS n, b.day, v.account_id, v.lines,
               coalesce(b.first_line + v.nth, b.last_line) AS last_line
          FROM ledger.accrual_batch b,
               (VALUES ($2::bigint, $1::bigint - 1, NULL), ($3, 1, 7)) v (account_id, lines, nth)
         WHERE b.batch >= 100) s
"""
DAYS_WRITTEN = """
INSERT INTO ledger.contract_day (book_id, account_id, day, net)
SELECT book_id, account_id, day, sum(net)
  FROM ledger.contract_batch WHERE batch >= 100 GROUP BY 1, 2, 3
"""
ENTRIES_WRITTEN = """
INSERT INTO ledger.entry (book_id, id, kind, key, content, effective, recorded, ref, postings)
SELECT 1, entry_id, 40, 'many:' || batch, '', day, at, '', 2
  FROM ledger.accrual_batch WHERE batch >= 100
"""
BALANCES_MOVED = """
UPDATE ledger.balance SET posted = posted + $1::bigint * sign, version = version + $1::bigint
 WHERE account_id IN ($2, $3)
"""
POSTINGS_WRITTEN = """
INSERT INTO ledger.posting (book_id, entry_id, seq, account_id, version, amount, balance)
SELECT 1, 99 + n, CASE account_id WHEN $2 THEN 0 ELSE 1 END, account_id,
       version - $1::bigint + n, sign, posted - ($1::bigint - n) * sign
  FROM ledger.balance, generate_series(1, $1::bigint) n WHERE account_id IN ($2, $3)
"""
NUMBERS = "SELECT kind, owner, id FROM ledger.account WHERE currency = 'EUR'"
LARGE = ("rebate_line", "contract_batch", "accrual_batch", "deal", "posting")


class Planned:
    """A connection that notes how the server means to answer each question it is asked."""

    def __init__(self, conn: asyncpg.Connection, plans: list[str]) -> None:
        self._conn = conn
        self._plans = plans

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conn, name)

    async def fetch(self, sql: str, *arguments: object) -> Any:
        """Ask, after the plan."""
        await self._plan(sql, arguments)
        return await self._conn.fetch(sql, *arguments)

    async def fetchrow(self, sql: str, *arguments: object) -> Any:
        """The same of one row."""
        await self._plan(sql, arguments)
        return await self._conn.fetchrow(sql, *arguments)

    async def _plan(self, sql: str, arguments: tuple[object, ...]) -> None:
        """Both the plan for these values, and the one for all."""
        rows = await self._conn.fetch("EXPLAIN " + sql, *arguments)
        self._plans.append("\n".join(row[0] for row in rows))
        if self._conn.get_server_version().major >= 16:
            rows = await self._conn.fetch("EXPLAIN (GENERIC_PLAN) " + sql, *arguments)
            self._plans.append("\n".join(row[0] for row in rows))


class Full:
    """The book, a connection that notes plans, and what it noted."""

    def __init__(self, earning: Earning) -> None:
        self.earning = earning
        self.plans: list[str] = []

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Planned]:
        """As a pool gives one."""
        async with self.earning.pool.acquire() as conn:
            yield Planned(conn, self.plans)

    def walked(self) -> list[str]:
        """The plans that go through the whole of a table which grows without end."""
        assert self.plans
        return [
            plan for plan in self.plans
            if any(f"Seq Scan on {table} " in plan for table in LARGE)
        ]  # fmt: skip


@pytest_asyncio.fixture
async def full(database: Database, pool: asyncpg.Pool) -> Full:
    """A book in which one partner has nearly all lines, and one has a line in each batch."""
    earning = await Earning(database, pool).open()
    await earning.accrue(deal(1, entry=0), deal(2, login=5002, entry=0))
    owner = await database.connect(owner=True)
    numbers = {(row["kind"], row["owner"]): row["id"] for row in await owner.fetch(NUMBERS)}
    big, small = numbers[reads.KINDS[0], BIG], numbers[reads.KINDS[0], SMALL]
    expense = numbers[ACCOUNTS["rebate_expense"].number, ""]
    async with owner.transaction():
        await owner.execute(DEALS_LANDED, BATCHES, DEALS, BEGIN)
        await owner.execute(BATCHES_WRITTEN, BATCHES, DEALS, BEGIN.date())
        await owner.execute(LINES_WRITTEN, big, small)
        await owner.execute(CONTRACTS_WRITTEN, DEALS, big, small)
        await owner.execute(DAYS_WRITTEN)
        await owner.execute(ENTRIES_WRITTEN)
        await owner.execute(BALANCES_MOVED, BATCHES, expense, big)
        await owner.execute(POSTINGS_WRITTEN, BATCHES, expense, big)
    await owner.execute("ANALYZE")
    return Full(earning)


async def test_lines_are_looked_up(full: Full) -> None:
    """From the front, from the end, in the middle, of a partner with many and of one with few."""
    for name in (BIG, SMALL):
        async with full.acquire() as conn:
            newest = await reads.latest(conn, 1, name, 21)
            first = await reads.lines(conn, 1, name, 0, 51)
            later = await reads.lines(conn, 1, name, newest[5].no - 1, 51)
            one = await reads.line(conn, 1, newest[5].no)
        assert (len(newest), len(first), one) == (21, 51, newest[5])
        assert later == newest[5::-1]
    assert full.walked() == []


async def test_balances_of_now_are_the_newest_batch(full: Full) -> None:
    """What a contract ever had is not added up."""
    async with full.acquire() as conn:
        big, small = await reads.contract_balances(conn, [(1, BIG), (1, SMALL)], LAST_DAY)
        assert await reads.moved_silently(conn, [(1, BIG), (1, SMALL)]) == frozenset()
    each = DEALS - 1
    assert (big.lines, big.today, big.accrued) == (BATCHES * each, 100 * each, BATCHES)
    assert (small.lines, small.today) == (BATCHES, 100)
    assert big.last_line == 99 + BATCHES * DEALS
    assert full.walked() == []


async def test_balances_of_a_moment_are_its_last_batch(full: Full) -> None:
    """The same in the middle of the second day."""
    moment = BEGIN + timedelta(days=1, minutes=49, seconds=30)
    async with full.acquire() as conn:
        big, small = await reads.contract_balances_as_of(conn, [(1, BIG), (1, SMALL)], moment)
        (owed,) = await liability(conn, [1], moment)
    each = DEALS - 1
    assert (big.lines, big.today, big.accrued) == (150 * each, 50 * each, 150)
    assert (small.lines, small.today) == (150, 50)
    assert (big.last_line, small.last_line) == (99 + 150 * DEALS, 107 + 149 * DEALS)
    async with full.acquire() as conn:
        assert await reads.last_line_as_of(conn, 1, moment) == big.last_line
        (line,) = await reads.lines(conn, 1, SMALL, small.last_line - 1, 51, big.last_line)
    assert line.no == small.last_line
    assert big.at == BEGIN + timedelta(days=1, minutes=49)
    assert owed.earned == 150 * DEALS
    assert full.walked() == []


async def test_what_is_owed_now_is_not_added_up(full: Full) -> None:
    """Nor how far accrual is behind."""
    async with full.acquire() as conn:
        (owed,) = await liability(conn, [1])
        (behind,) = await reads.behind(conn)
    assert (owed.earned, owed.accrued) == (BATCHES * DEALS, BATCHES)
    assert behind.book == 1
    assert full.walked() == []


async def test_a_day_is_read_once_and_then_what_came_since(full: Full) -> None:
    """The course of a day is its batches, each by its key, and never twice."""
    courses = Courses()
    steps = await courses.read(full, [(1, SMALL)], LAST_DAY)  # type: ignore[arg-type]
    assert [(step.minute, step.net) for step in steps] == [(minute, 1) for minute in range(100)]
    assert full.walked() == []
    owner = await full.earning.database.connect(owner=True)
    await owner.execute("ALTER TABLE ledger.contract_batch DISABLE TRIGGER USER")
    await owner.execute("DELETE FROM ledger.contract_batch WHERE batch < 399")
    assert await courses.read(full, [(1, SMALL)], LAST_DAY) == steps  # type: ignore[arg-type]
    (other,) = await Courses().read(full, [(1, SMALL)], LAST_DAY)  # type: ignore[arg-type]
    assert (other.minute, other.net) == (99, 1)
