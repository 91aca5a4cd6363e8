"""What partners earned, as readers see it: balances of contracts and their lines.

Knows how to read them, now and as of a time, many contracts in one statement. Refuses to write, and
to know who may see a contract.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from typing import Final

import asyncpg
import msgspec

from ledger import queries_rebate_reads as q
from ledger.chart import ACCOUNTS
from ledger.reads import closed

NUMBER_MAX: Final = 2**63 - 1
KINDS: Final = tuple(
    ACCOUNTS[kind].number for kind in ("partner_accrued", "partner_held", "partner_payable")
)


class ContractBalances(msgspec.Struct, frozen=True):
    """What stands on a contract's accounts, in minor units of its currency.

    currency   "" for a contract that never had an account: then all is zero
    today      what the lines of one UTC day come to
    lines      how many lines it has, and the number of the newest of them (0: none)
    version    the sum of its accounts' versions: it rises with each entry that moves one of them
    at         when its newest batch was booked
    """

    contract: str
    book: int
    currency: str
    accrued: int
    held: int
    payable: int
    today: int
    lines: int
    last_line: int
    version: int
    at: datetime | None


class Dealt(msgspec.Struct, frozen=True):
    """The deal that a line pays for: which version of it, and how much of it closed a position."""

    ticket: int
    version: int
    symbol: str
    closed: int
    at: datetime


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What a deal paid a contract, in minor units of `currency`; numbers are those of `lines.py`.

    deal   None for a line of rounding, which concerns no deal
    at     when its batch was booked
    """

    book: int
    no: int
    batch: int
    feed: int
    deal_no: int
    concerned_no: int
    account: int
    contract: str
    currency: str
    component: int
    kind: int
    level: int
    reason: int
    plan: int
    amount: int
    at: datetime
    deal: Dealt | None


class Behind(msgspec.Struct, frozen=True):
    """How many landed deals of a book are not accrued yet, and seconds since the oldest landed."""

    book: int
    deals: int
    seconds: float


async def contract_balances(
    conn: asyncpg.Connection, contracts: Sequence[tuple[int, str]], today: date
) -> list[ContractBalances]:
    """The balances of these (book, contract) as they stand, in the order asked: one statement.

    today   the UTC day whose earnings are told apart
    """
    books, ids = [book for book, _ in contracts], [contract for _, contract in contracts]
    rows = await conn.fetch(q.CONTRACT_BALANCES, books, ids, today, *KINDS)
    return [_balances(row) for row in rows]


async def contract_balances_as_of(
    conn: asyncpg.Connection, contracts: Sequence[tuple[int, str]], as_of: datetime
) -> list[ContractBalances]:
    """The same as they were at a closed moment, for ever; `today` is the UTC day of the moment.

    raises  StillOpen for a moment that is not closed yet
    """
    await closed(conn, as_of)
    books, ids = [book for book, _ in contracts], [contract for _, contract in contracts]
    day = as_of.astimezone(UTC).date()
    rows = await conn.fetch(q.CONTRACT_BALANCES_AS_OF, books, ids, as_of, *KINDS, day)
    return [_balances(row) for row in rows]


async def moved_silently(
    conn: asyncpg.Connection, contracts: Sequence[tuple[int, str]]
) -> frozenset[tuple[int, str]]:
    """Those of these (book, contract) whose newest batch added lines and moved no account.

    Of all others it holds that whoever knows a version of theirs knows all that came with it.
    """
    books, ids = [book for book, _ in contracts], [contract for _, contract in contracts]
    rows = await conn.fetch(q.MOVED_SILENTLY, books, ids, KINDS[0])
    return frozenset((row["book_id"], row["owner"]) for row in rows)


async def lines(
    conn: asyncpg.Connection, book: int, contract: str, after: int, limit: int,
    last: int = NUMBER_MAX,
) -> list[Line]:  # fmt: skip
    """A contract's lines by number, from the one after `after` up to `last`."""
    async with _by_key(conn):
        rows = await conn.fetch(q.LINES_AFTER, book, contract, KINDS[0], after, limit, last)
    return [_line(row) for row in rows]


async def latest(
    conn: asyncpg.Connection, book: int, contract: str, limit: int, before: int = NUMBER_MAX
) -> list[Line]:
    """A contract's newest lines, the newest first, from the one before `before`."""
    async with _by_key(conn):
        rows = await conn.fetch(q.LINES_BEFORE, book, contract, KINDS[0], before, limit)
    return [_line(row) for row in rows]


async def last_line_as_of(conn: asyncpg.Connection, book: int, as_of: datetime) -> int:
    """The number of a book's last line at a closed moment, for ever; 0 before the first.

    raises  StillOpen for a moment that is not closed yet
    """
    await closed(conn, as_of)
    return await conn.fetchval(q.LAST_LINE_AS_OF, book, as_of) or 0


async def line(conn: asyncpg.Connection, book: int, no: int) -> Line | None:
    """One line, or None when the book has none of this number."""
    async with _by_key(conn):
        row = await conn.fetchrow(q.LINE, book, no)
    return None if row is None else _line(row)


async def behind(conn: asyncpg.Connection) -> list[Behind]:
    """How far the accrual of each book is behind what is landed."""
    return [Behind(*row.values()) for row in await conn.fetch(q.BEHIND)]


@asynccontextmanager
async def _by_key(conn: asyncpg.Connection) -> AsyncIterator[None]:
    """A transaction that looks rows up by key, whatever the planner would guess."""
    async with conn.transaction():
        await conn.execute(q.BY_KEY)
        yield


def _balances(row: asyncpg.Record) -> ContractBalances:
    return ContractBalances(
        row["owner"], row["book_id"], row["currency"], row["accrued"], row["held"], row["payable"],
        row["today"], row["lines"], row["last_line"], row["version"], row["at"],
    )  # fmt: skip


def _line(row: asyncpg.Record) -> Line:
    deal = None
    if row["ticket"] is not None:
        deal = Dealt(row["ticket"], row["version"], row["symbol"], row["closed"], row["dealt"])
    return Line(
        book=row["book_id"], no=row["no"], batch=row["batch"], feed=row["feed"],
        deal_no=row["deal_no"], concerned_no=row["concerned_no"], account=row["account_id"],
        contract=row["owner"], currency=row["currency"], component=row["component"],
        kind=row["kind"], level=row["level"], reason=row["reason"], plan=row["plan"],
        amount=row["amount"], at=row["at"], deal=deal,
    )  # fmt: skip
