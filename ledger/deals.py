"""Landed deals: each look at a platform booked once, numbered densely, with the platform's cursor.

Knows the tables of deals and who may write them: the newest owner of the server. Refuses to know
how deals reach us (`bridge/feed.py`), whose they are (`gateway/flows/landing.py`) and what anybody
earns by them (`rebates/`). What a look means is decided in `verdicts.py`; the transaction is the
caller's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Final

import asyncpg
import msgspec

from ledger import queries_deals as q
from ledger.facts import Deal
from ledger.verdicts import (
    VERSIONS_MAX,
    Known,
    Meaning,
    Opening,
    Parked,
    Reason,
    changed,
    closes,
    content,
    meaning,
    park,
    parked_deal,
    with_openings,
)

COLUMNS: Final = (
    "book_id", "feed", "no", "version", "ticket", "phase", "login", "position", "action", "entry",
    "reason", "symbol", "volume", "closed", "price", "digits", "profit", "commission", "swap",
    "fee", "flags", "comment", "at", "server_ms", "opened",
)  # fmt: skip
SLICE: Final = 500  # deals put together before the loop serves others

Key = tuple[int, int]  # ticket and phase
Cause = tuple[str, str]  # a reason and its subject


class Fenced(Exception):
    """A newer owner holds this server: whoever is told this must write nothing more."""


class Landed(msgspec.Struct, frozen=True):
    """What one landing did; it is true once the caller's transaction is committed.

    parked  rows that wait now and did not before
    books   those that got deals
    causes  what the newly parked rows wait for; `freed` are causes nothing waits for any more
    """

    new: int = 0
    edited: int = 0
    repeated: int = 0
    parked: int = 0
    books: tuple[int, ...] = ()
    causes: tuple[Cause, ...] = ()
    freed: tuple[Cause, ...] = ()


class LandedDeal(msgspec.Struct, frozen=True):
    """A deal as its book holds it.

    no        its number in (book, feed), dense in the order of landing
    first_no  the number of its first version: its own unless it is an edit
    previous  the version before it; None for the first
    """

    no: int
    version: int
    deal: Deal
    first_no: int
    previous: Deal | None = None


class _Sorted(msgspec.Struct):
    """A landing's deals by what they mean."""

    write: list[tuple[int, int, Deal]]  # book, version, deal
    booked: list[Deal]  # written or repeated: the ticket is as the books have it
    parked: list[Parked]
    repeated: int = 0


async def open_feed(conn: asyncpg.Connection, server: str, epoch: int) -> tuple[int, bytes]:
    """Begin to land as the owner of this epoch: the server's number and its cursor (JSON).

    Raises Fenced where a newer owner has begun.
    """
    row = await conn.fetchrow(q.OPEN_FEED, server, epoch)
    if row is None:
        raise Fenced(server)
    return row["feed"], row["cursor"].encode()


async def land(
    conn: asyncpg.Connection,
    feed: int,
    epoch: int,
    deals: Sequence[tuple[int, Deal]],
    parked: Sequence[Parked] = (),
    cursor: bytes | None = None,
    *,
    fresh: bool = True,
) -> Landed:
    """Book what the looks at these deals mean, set the others aside, and move the cursor.

    deals   (book, deal), of one ticket the oldest look first
    cursor  JSON; None leaves it where it is
    fresh   the deals are as the platform has them now, so that a ticket that is booked needs
            nothing of what waited of it; false for deals that waited here themselves
    Raises Fenced: nothing may be written, the caller rolls back.
    """
    assert conn.is_in_transaction(), "land() needs the caller's transaction"
    if await conn.fetchval(q.HOLD_FEED, feed) != epoch:
        raise Fenced(f"feed {feed}")
    found = await _judged(conn, feed, deals)
    await _write(conn, feed, found.write)
    settled = await _settle(conn, feed, found.booked, fresh=fresh)
    waits = await _park(conn, feed, [*parked, *found.parked])
    if cursor is not None:
        await conn.execute(q.MOVE_CURSOR, feed, cursor.decode())
    new = sum(version == 1 for _, version, _ in found.write)
    return Landed(
        new=new, edited=len(found.write) - new, repeated=found.repeated, parked=len(waits),
        books=tuple(sorted({book for book, _, _ in found.write})),
        causes=tuple(dict.fromkeys(waits)),
        freed=await without_waiting(conn, feed, settled),
    )  # fmt: skip


async def _judged(
    conn: asyncpg.Connection, feed: int, deals: Sequence[tuple[int, Deal]]
) -> _Sorted:
    """Sort a landing's deals by what each means beside the newest version before it."""
    newest = await _newest(conn, feed, {(d.ticket, d.phase) for _, d in deals})
    found = _Sorted([], [], [])
    for book, deal in deals:
        key = (deal.ticket, deal.phase)
        known = newest.get(key)
        match meaning(book, deal, known):
            case Meaning.ALTERED:
                assert known is not None
                found.parked.append(park(deal, Reason.IDENTITY, changed(deal, known)))
                continue
            case Meaning.REPEATED:
                found.repeated += 1
            case _:
                version = known.version + 1 if known is not None else 1
                if version > VERSIONS_MAX:
                    found.parked.append(park(deal, Reason.ABSURD, "too many versions"))
                    continue
                newest[key] = Known(book, version, deal)
                found.write.append((book, version, deal))
        found.booked.append(deal)
    return found


async def _newest(conn: asyncpg.Connection, feed: int, keys: set[Key]) -> dict[Key, Known]:
    if not keys:
        return {}
    ordered = sorted(keys)
    rows = await conn.fetch(q.NEWEST, feed, [t for t, _ in ordered], [p for _, p in ordered])
    return {
        (row["ticket"], row["phase"]): Known(row["book_id"], row["version"], _deal(row))
        for row in rows
    }


async def _write(
    conn: asyncpg.Connection, feed: int, deals: Sequence[tuple[int, int, Deal]]
) -> None:
    """Number the deals and write them."""
    if not deals:
        return
    amounts = sorted(Counter(book for book, _, _ in deals).items())
    rows = await conn.fetch(q.TAKE_NUMBERS, feed, [b for b, _ in amounts], [n for _, n in amounts])
    last = {row["book_id"]: row["landed"] for row in rows}
    numbers = {book: count(last[book] - many + 1) for book, many in amounts}
    opened = await _opened(conn, feed, [(book, deal) for book, _, deal in deals])
    records = [
        (book, feed, next(numbers[book]), version, *msgspec.structs.astuple(deal))
        for (book, version, _), deal in zip(deals, opened, strict=True)
    ]
    await conn.copy_records_to_table("deal", schema_name="ledger", columns=COLUMNS, records=records)


async def _opened(
    conn: asyncpg.Connection, feed: int, deals: Sequence[tuple[int, Deal]]
) -> list[Deal]:
    """The deals with the time at which the position they close was opened."""
    wanted = sorted({(book, d.login, d.position) for book, d in deals if closes(d)})
    stored: dict[tuple[int, int, int], list[Opening]] = {}
    if wanted:
        columns = [list(column) for column in zip(*wanted, strict=True)]
        for row in await conn.fetch(q.OPENINGS, feed, *columns):
            mine = stored.setdefault((row["book_id"], row["login"], row["position"]), [])
            mine.append(Opening(row["at"], row["ticket"], row["entry"]))
    return [deal for _, deal in with_openings(deals, stored)]


async def _park(conn: asyncpg.Connection, feed: int, parked: Iterable[Parked]) -> list[Cause]:
    """Set rows aside; what those wait for that did not wait so before."""
    rows = list({(p.ticket, p.phase, p.content): p for p in parked}.values())
    if not rows:
        return []
    written = await conn.fetch(
        q.PARK, feed, [p.ticket for p in rows], [p.phase for p in rows],
        [p.content for p in rows], [p.reason.value for p in rows], [p.subject for p in rows],
        [p.body for p in rows],
    )  # fmt: skip
    return [(row["reason"], row["subject"]) for row in written]


async def _settle(
    conn: asyncpg.Connection, feed: int, booked: Sequence[Deal], *, fresh: bool
) -> list[Cause]:
    """End the waiting of what is booked now; what those rows waited for."""
    if not booked or not await conn.fetchval(q.ANY_WAITING, feed):
        return []
    rows = await conn.fetch(
        q.SETTLE, feed, [d.ticket for d in booked], [d.phase for d in booked],
        [content(d) for d in booked], fresh,
    )  # fmt: skip
    return sorted({(row["reason"], row["subject"]) for row in rows})


async def without_waiting(
    conn: asyncpg.Connection, feed: int, causes: Sequence[Cause]
) -> tuple[Cause, ...]:
    """Those of the causes for which nothing waits."""
    if not causes:
        return ()
    rows = await conn.fetch(q.STILL_WAITING, feed, [r for r, _ in causes], [s for _, s in causes])
    still = {(row["reason"], row["subject"]) for row in rows}
    return tuple(cause for cause in causes if cause not in still)


async def waiting_subjects(
    conn: asyncpg.Connection, feed: int, reason: Reason, after: str, limit: int
) -> list[str]:
    """Subjects that deals wait for, in order, behind `after`."""
    rows = await conn.fetch(q.WAITING_SUBJECTS, feed, reason.value, after, limit)
    return [row["subject"] for row in rows]


async def waiting(
    conn: asyncpg.Connection, feed: int, reason: Reason, subjects: Sequence[str], limit: int
) -> list[Deal]:
    """Deals that wait for one of these, in the order in which they were seen."""
    rows = await conn.fetch(q.WAITING, feed, reason.value, list(subjects), limit)
    deals = [parked_deal(row["body"]) for row in rows]
    return [deal for deal in deals if deal is not None]


async def count_waiting(conn: asyncpg.Connection) -> list[tuple[str, str, int]]:
    """How many rows wait: server, reason, rows."""
    return [tuple(row) for row in await conn.fetch(q.COUNT_WAITING)]


async def after(
    conn: asyncpg.Connection, book: int, feed: int, no: int, limit: int
) -> list[LandedDeal]:
    """Deals of a book numbered above `no`, in order; those of a number are there for ever."""
    rows = await conn.fetch(q.AFTER, book, feed, no, limit)
    edits = [row for row in rows if row[1] > 1]
    earlier = await _earlier(conn, book, feed, edits) if edits else {}
    landed: list[LandedDeal] = []
    for place in range(0, len(rows), SLICE):
        some = rows[place : place + SLICE]
        if edits:
            landed += [_with_earlier(row, earlier) for row in some]
        else:
            landed += [LandedDeal(row[0], 1, _deal(row), row[0]) for row in some]
        await asyncio.sleep(0)
    return landed


async def _earlier(
    conn: asyncpg.Connection, book: int, feed: int, edits: Sequence[asyncpg.Record]
) -> dict[tuple[int, int, int], asyncpg.Record]:
    """First and previous versions of edits: (ticket, phase, version) -> row."""
    columns = [row["ticket"] for row in edits], [row["phase"] for row in edits]
    versions = [row["version"] for row in edits]
    rows = await conn.fetch(q.EARLIER, book, feed, *columns, versions)
    return {(row["ticket"], row["phase"], row["version"]): row for row in rows}


def _with_earlier(
    row: asyncpg.Record, earlier: dict[tuple[int, int, int], asyncpg.Record]
) -> LandedDeal:
    no, version, deal = row[0], row[1], _deal(row)
    if version == 1:
        return LandedDeal(no, 1, deal, no)
    first = earlier[deal.ticket, deal.phase, 1]
    previous = earlier[deal.ticket, deal.phase, version - 1]
    return LandedDeal(no, version, deal, first["no"], _deal(previous))


async def feeds_of(conn: asyncpg.Connection, book: int) -> list[tuple[int, str, int]]:
    """The feeds that landed deals in a book: number, server, the last deal's number."""
    return [tuple(row) for row in await conn.fetch(q.FEEDS, book)]


def _deal(row: asyncpg.Record) -> Deal:
    """The deal of a row whose first two columns are not the deal's own.

    By position and not by name: accrual reads many thousands a second.
    """
    return Deal(
        ticket=row[2], phase=row[3], login=row[4], position=row[5], action=row[6], entry=row[7],
        reason=row[8], symbol=row[9], volume=row[10], closed=row[11], price=row[12],
        digits=row[13], profit=row[14], commission=row[15], swap=row[16], fee=row[17],
        flags=row[18], comment=row[19], at=row[20], server_ms=row[21], opened=row[22],
    )  # fmt: skip
