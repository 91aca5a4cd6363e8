"""The journal: the only writer of postings.

Knows how entries become rows: accounts opened and locked in one order, floors checked, running
balances computed, all written at once. Refuses to know what the entries mean, who asks for them,
and when to commit: the transaction belongs to the caller (`lane.py`, or whoever holds a lock).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice

import asyncpg
import msgspec

from ledger import queries as q
from ledger.chart import ACCOUNTS, ENTRIES
from ledger.facts import AccountName, Entry
from ledger.units import Left, Why

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
ENTRY_ID_BLOCK = 1000  # the sequence's increment: one round trip buys this many ids


CONTENT_BYTES = 16
ACCOUNTS_KEPT = 200_000  # numbers remembered before the cache starts anew


class Taken(Exception):
    """Another writer committed one of our keys first: roll back, look, and leave it out."""


class Overtaken(Exception):
    """The lane's row is not where this lane left it: it is gone, or another lane bears the name."""


class Book(msgspec.Struct, frozen=True):
    """One legal entity's set of accounts; `currency` is the one it reports in."""

    id: int
    entity: str
    currency: str


class Account(msgspec.Struct, frozen=True):
    """A numbered account with the rules of its kind."""

    book: int
    id: int
    sign: int
    floor: int | None


class Draft(msgspec.Struct, frozen=True):
    """An entry whose accounts are numbered; `content` is the hash of all it says."""

    entry: Entry
    kind: int
    content: bytes
    sides: tuple[tuple[Account, int], ...]


def content(entry: Entry) -> bytes:
    """Sixteen bytes that differ when anything in the entry differs: the first half of a SHA-256.

    They are compared with what is stored, and `verify` computes them again in SQL from the rows
    (`queries.ALTERED_ENTRIES`): neither order nor form may ever change. Free text bears its length.
    """
    key, ref = entry.key, entry.ref
    said = f"{entry.book} {ENTRIES[entry.kind]} {entry.effective} {len(key)}:{key} {len(ref)}:{ref}"
    for posting in entry.postings:
        name = posting.account
        owner = f"{len(name.owner)}:{name.owner}"
        said += f" {ACCOUNTS[name.kind].number} {owner} {name.currency} {posting.minor}"
    if entry.approved is not None:
        people = entry.approved.maker, entry.approved.checker
        said += "".join(f" {len(person)}:{person}" for person in people)
    return hashlib.sha256(said.encode()).digest()[:CONTENT_BYTES]


class Numbers:
    """Account numbers and entry ids; a cache that can be lost, never ahead of a commit."""

    def __init__(self) -> None:
        self._accounts: dict[tuple[int, AccountName], Account] = {}
        self._ids: Iterator[int] = iter(())

    async def accounts(
        self, conn: asyncpg.Connection, names: Iterable[tuple[int, AccountName]]
    ) -> Mapping[tuple[int, AccountName], Account]:
        """The accounts of these names in their books, among others; missing ones are opened.

        Outside a transaction opening commits at once, which is harmless: an account without
        postings says nothing. Inside the caller's transaction nothing of it is remembered.
        """
        missing = list({name for name in names if name not in self._accounts})
        opened = await _open(conn, missing) if missing else {}
        known = {**self._accounts, **opened} if opened else self._accounts
        if opened and not conn.is_in_transaction():
            self._remember(opened)
        return known

    async def draft(self, conn: asyncpg.Connection, entries: Sequence[Entry]) -> list[Draft]:
        """Number the accounts of `entries`, opening the missing ones."""
        names = {(e.book, p.account) for e in entries for p in e.postings}
        known = await self.accounts(conn, names)
        return [
            Draft(
                entry, ENTRIES[entry.kind], content(entry),
                tuple([(known[entry.book, p.account], p.minor) for p in entry.postings]),
            )
            for entry in entries
        ]  # fmt: skip

    def _remember(self, opened: Mapping[tuple[int, AccountName], Account]) -> None:
        if len(self._accounts) + len(opened) > ACCOUNTS_KEPT:
            self._accounts = {}
        self._accounts.update(opened)

    async def entry_ids(self, conn: asyncpg.Connection, wanted: int) -> list[int]:
        """Ids never used before; gaps are harmless, order says nothing."""
        ids: list[int] = []
        while len(ids) < wanted:
            ids.extend(islice(self._ids, wanted - len(ids)))
            if len(ids) < wanted:
                first = await conn.fetchval(q.ENTRY_IDS)
                self._ids = iter(range(first, first + ENTRY_ID_BLOCK))
        return ids


async def open_books(conn: asyncpg.Connection, books: Sequence[Book]) -> None:
    """Open the books that are not open yet; raises ValueError when one is open as another's."""
    columns = [b.id for b in books], [b.entity for b in books], [b.currency for b in books]
    await conn.execute(q.OPEN_BOOKS, *columns)
    held = {
        row["id"]: Book(row["id"], row["entity"], row["currency"])
        for row in await conn.fetch(q.BOOKS)
    }
    for book in books:
        if held.get(book.id) != book:
            raise ValueError(f"{book} cannot be opened: the books hold {held.get(book.id)}")


async def _open(
    conn: asyncpg.Connection, names: Sequence[tuple[int, AccountName]]
) -> dict[tuple[int, AccountName], Account]:
    ordered = sorted(
        names, key=lambda n: (n[0], ACCOUNTS[n[1].kind].number, n[1].owner, n[1].currency)
    )  # one order for every opener: no deadlock
    kinds = [ACCOUNTS[name.kind] for _, name in ordered]
    columns = [
        [book for book, _ in ordered], [kind.number for kind in kinds],
        [name.owner for _, name in ordered], [name.currency for _, name in ordered],
    ]  # fmt: skip
    found = await conn.fetch(q.FIND_ACCOUNTS, *columns)
    if len(found) < len(ordered):
        signs, floors = [kind.sign for kind in kinds], [kind.floor for kind in kinds]
        await conn.execute(q.OPEN_ACCOUNTS, *columns, signs, floors)
        found = await conn.fetch(q.FIND_ACCOUNTS, *columns)
    ids = {(r["book_id"], r["kind"], r["owner"], r["currency"]): r["id"] for r in found}
    return {
        (book, name): Account(
            book, ids[book, kind.number, name.owner, name.currency], kind.sign, kind.floor
        )
        for (book, name), kind in zip(ordered, kinds, strict=True)
    }


class Page:
    """One transaction's worth of entries: balances read under their locks, then rows to write.

    `add` decides with the balances as they will stand; `columns` is what there is to write.
    """

    def __init__(self, balances: Iterable[asyncpg.Record]) -> None:
        self._balances: dict[tuple[int, int], tuple[int, int]] = {}
        self._changed = BEGINNING
        for row in balances:
            self._balances[row["book_id"], row["account_id"]] = (row["posted"], row["version"])
            if row["version"]:
                self._changed = max(self._changed, row["changed"])
        self._moved: set[tuple[int, int]] = set()
        self._postings: list[tuple[int, int, int, int, int, int, int]] = []
        self.drafts: list[Draft] = []

    def add(self, drafts: Sequence[Draft]) -> Left | None:
        """Take a unit's entries, all or none; Left names the entry that would break a floor."""
        before: dict[tuple[int, int], tuple[int, int]] = {}
        rows = []
        for number, draft in enumerate(drafts, start=len(self.drafts)):
            for seq, (account, minor) in enumerate(draft.sides):
                place = (account.book, account.id)
                posted, version = self._balances[place]
                before.setdefault(place, (posted, version))
                self._balances[place] = (posted + minor, version + 1)
                rows.append(
                    (account.book, number, seq, account.id, version + 1, minor, posted + minor)
                )
            if any(self._breaks(account, minor) for account, minor in draft.sides):
                self._balances.update(before)
                return Left(Why.FLOOR, draft.entry.kind, draft.entry.key)
        self.drafts.extend(drafts)
        self._postings.extend(rows)
        self._moved.update(before)
        return None

    def balance(self, book: int, account: int) -> tuple[int, int]:
        """What the account holds with all that was added, debit positive, and its version."""
        return self._balances[book, account]

    def _breaks(self, account: Account, minor: int) -> bool:
        """Whether this side took the account below its floor; what adds to it never does."""
        if account.floor is None or account.sign * minor > 0:
            return False
        return account.sign * self._balances[account.book, account.id][0] < account.floor

    def columns(self, ids: Sequence[int], lane: str | None, batch: int) -> list[object]:
        """What WRITE_BOOKS asks for; `lane` is the row to move to number `batch` with it."""
        moved = sorted(self._moved)
        drafts = self.drafts
        approvals, makers, checkers = _approved(drafts)
        books, numbers, seqs, accounts, versions, minors, after = zip(*self._postings, strict=True)
        return [
            self._changed,
            [d.entry.book for d in drafts], ids, [d.kind for d in drafts],
            [d.entry.key for d in drafts], [d.content for d in drafts],
            [d.entry.effective for d in drafts], [d.entry.ref for d in drafts],
            [len(d.sides) for d in drafts],
            [book for book, _ in moved], [account for _, account in moved],
            [self._balances[place][0] for place in moved],
            [self._balances[place][1] for place in moved],
            books, [ids[number] for number in numbers], seqs, accounts, versions, minors, after,
            lane, batch, approvals, makers, checkers,
        ]  # fmt: skip


def _approved(drafts: Sequence[Draft]) -> tuple[list[str | None], ...]:
    """By which approval, made and checked by whom; one column each, of nothing for most entries."""
    given = [draft.entry.approved for draft in drafts]
    return (
        [None if each is None else each.id for each in given],
        [None if each is None else each.maker for each in given],
        [None if each is None else each.checker for each in given],
    )


def places(drafts: Iterable[Draft]) -> tuple[list[int], list[int]]:
    """Every account the drafts touch, as books and numbers, in the order all writers lock them."""
    found = sorted({(account.book, account.id) for d in drafts for account, _ in d.sides})
    return [book for book, _ in found], [account for _, account in found]


async def in_books(
    conn: asyncpg.Connection, drafts: Sequence[Draft]
) -> dict[tuple[int, int, str], tuple[int, bytes]]:
    """What the books hold under the drafts' keys: (book, kind, key) -> (entry id, content)."""
    rows = await conn.fetch(
        q.FIND_ENTRIES, [d.entry.book for d in drafts], [d.kind for d in drafts],
        [d.entry.key for d in drafts],
    )  # fmt: skip
    return {(r["book_id"], r["kind"], r["key"]): (r["id"], r["content"]) for r in rows}


def repeated(
    drafts: Sequence[Draft], held: Mapping[tuple[int, int, str], tuple[int, bytes]]
) -> Left | None:
    """Left when one of the drafts is in the books: EXISTS with equal content, else DIFFERS."""
    for draft in drafts:
        entry_id, said = held.get((draft.entry.book, draft.kind, draft.entry.key), (0, b""))
        if entry_id:
            why = Why.EXISTS if said == draft.content else Why.DIFFERS
            return Left(why, draft.entry.kind, draft.entry.key, {"entry": entry_id})
    return None


def require_distinct(entries: Sequence[Entry]) -> None:
    """Raise ValueError when two entries of one unit bear one key: the second could never stand."""
    if len({(e.book, e.kind, e.key) for e in entries}) < len(entries):
        raise ValueError(f"one key twice in one unit: {[(e.kind, e.key) for e in entries]}")


async def post(
    conn: asyncpg.Connection, numbers: Numbers, entries: Sequence[Entry], *, look: bool = True
) -> tuple[tuple[int, ...], datetime] | Left:
    """Write balanced entries inside the caller's transaction, all or none.

    For what must read, decide and write under one lock; everything else goes through the lane.
    Returns the entry ids and the books' time, or Left (then nothing was written and the caller's
    transaction goes on). Raises Taken when a concurrent writer took a key: the caller rolls back
    and repeats. Who knows by another lock that the keys are new does not `look` first; where one
    is taken all the same, Taken says so.
    """
    assert conn.is_in_transaction(), "post() needs the caller's transaction"
    require_distinct(entries)
    drafts = await numbers.draft(conn, entries)
    held = repeated(drafts, await in_books(conn, drafts)) if look else None
    if held is not None:
        return held
    page = Page(await conn.fetch(q.LOCK_BALANCES, *places(drafts)))
    broken = page.add(drafts)
    if broken is not None:
        return broken
    ids = await numbers.entry_ids(conn, len(drafts))
    row = await conn.fetchrow(q.WRITE_BOOKS, *page.columns(ids, None, 0))
    if not row["written"]:
        raise Taken
    return tuple(ids), row["recorded"]
