"""Balances, entries and statements, now and as of a time.

Knows how to read the books, and when a moment in the past is closed for ever. Refuses to write,
and to answer for a moment that a running transaction could still change.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

import asyncpg
import msgspec

from ledger import queries as q
from ledger.chart import ACCOUNT_BY_NUMBER, ACCOUNTS, ENTRY_BY_NUMBER

HORIZON_S = 2.5  # the writers' transaction limit of 2 s and the time a server takes to end one


class StillOpen(ValueError):
    """The moment is too near: a transaction in flight could still be recorded before it."""

    def __init__(self, horizon: datetime) -> None:
        super().__init__(f"the books are closed up to {horizon.isoformat()}")
        self.horizon = horizon


class Balance(msgspec.Struct, frozen=True):
    """A balance on the account's normal side, minor units; `version` counts its postings.

    `id` is the account's number, unique over all books: what a next page starts after.
    """

    book: int
    id: int
    kind: str
    owner: str
    currency: str
    minor: int
    version: int


class Side(msgspec.Struct, frozen=True):
    """One posting as readers see it: debit positive, credit negative."""

    kind: str
    owner: str
    currency: str
    minor: int
    version: int
    balance_after: int


class BookedEntry(msgspec.Struct, frozen=True):
    """A booked entry with its postings."""

    book: int
    id: int
    kind: str
    key: str
    ref: str
    effective: date
    recorded: datetime
    postings: tuple[Side, ...]


async def horizon(conn: asyncpg.Connection) -> datetime:
    """Up to this moment the books can be read as of a time and will always answer the same."""
    at: datetime = await conn.fetchval(q.HORIZON, HORIZON_S)
    return at


async def closed(conn: asyncpg.Connection, as_of: datetime) -> None:
    """Raise StillOpen unless the moment is closed for ever."""
    end = await horizon(conn)
    if as_of > end:
        raise StillOpen(end)


async def balances(
    conn: asyncpg.Connection, books: Sequence[int], *, kind: str | None = None,
    owner: str | None = None, as_of: datetime | None = None, after: int = 0, limit: int = 200,
) -> list[Balance]:  # fmt: skip
    """Balances of these books by account number, from the one after `after`.

    as_of   as they were when everything recorded up to this moment was in: accounts that had
            postings by then, the same answer for ever
    raises  StillOpen for a moment that is not closed yet
    """
    number = ACCOUNTS[kind].number if kind is not None else None
    if as_of is None:
        rows = await conn.fetch(q.BALANCES, list(books), number, owner, after, limit)
    else:
        await closed(conn, as_of)
        rows = await conn.fetch(q.BALANCES_AS_OF, list(books), number, owner, after, limit, as_of)
    return [
        Balance(
            r["book_id"], r["id"], ACCOUNT_BY_NUMBER[r["kind"]].name, r["owner"], r["currency"],
            r["balance"], r["version"],
        )
        for r in rows
    ]  # fmt: skip


async def entries(
    conn: asyncpg.Connection, books: Sequence[int], *, key: str | None = None,
    as_of: datetime | None = None, after: int = 0, limit: int = 200,
) -> list[BookedEntry]:  # fmt: skip
    """Entries of these books with their postings, by id; an id says nothing of the time.

    key     only those of this natural key (a payment, an operation), whatever their kind
    as_of   only those recorded up to this moment
    raises  StillOpen for a moment that is not closed yet
    """
    if as_of is not None:
        await closed(conn, as_of)
    page = (list(books), after, limit, as_of)
    if key is None:
        heads = await conn.fetch(q.ENTRIES, *page)
    else:
        heads = await conn.fetch(q.ENTRIES_OF_KEY, *page, sorted(ENTRY_BY_NUMBER), key)
    return await _with_postings(conn, heads)


async def entry(
    conn: asyncpg.Connection, books: Sequence[int], entry_id: int
) -> BookedEntry | None:
    """One entry, or None when these books do not hold it."""
    found = await _with_postings(conn, await conn.fetch(q.ENTRY, list(books), entry_id))
    return found[0] if found else None


async def statement(
    conn: asyncpg.Connection, books: Sequence[int], kind: str, owner: str, currency: str,
    *, after: int = 0, limit: int = 200,
) -> list[asyncpg.Record]:  # fmt: skip
    """The postings of one account in the order of its versions, after version `after`."""
    number = ACCOUNTS[kind].number
    return list(await conn.fetch(q.STATEMENT, list(books), number, owner, currency, after, limit))


async def _with_postings(
    conn: asyncpg.Connection, heads: Sequence[asyncpg.Record]
) -> list[BookedEntry]:
    rows = await conn.fetch(q.POSTINGS_OF, [h["book_id"] for h in heads], [h["id"] for h in heads])
    sides: dict[int, list[Side]] = {}
    for r in rows:
        kind = ACCOUNT_BY_NUMBER[r["kind"]].name
        side = Side(kind, r["owner"], r["currency"], r["amount"], r["version"], r["balance"])
        sides.setdefault(r["entry_id"], []).append(side)
    return [
        BookedEntry(
            h["book_id"], h["id"], ENTRY_BY_NUMBER[h["kind"]], h["key"], h["ref"],
            h["effective"], h["recorded"], tuple(sides.get(h["id"], ())),
        )
        for h in heads
    ]  # fmt: skip
