"""The writer: one batch of accrual in one transaction, or nothing of it.

Knows the head of a book's accrual, the order of what is written and what stops it: inputs that
moved, an owner that was overtaken. Refuses to know how lines are computed, and to try again: what
was in memory is thrown away by whoever holds it, and read again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Final

import asyncpg
import msgspec

from ledger import entries
from ledger import queries_rebates as q
from ledger.connections import TRANSACTION_S
from ledger.facts import AccountName, Entry
from ledger.journal import Numbers, Taken, post
from ledger.rebates import encode
from ledger.rebates.accrual import Computed
from ledger.rebates.inputs import Inputs
from ledger.rebates.rounding import Place, Remainder, period
from ledger.units import Left

TABLE: Final = "rebate_line"
Turn = Callable[[], Awaitable[datetime]]
_BEFORE_ALL: Final = datetime.min.replace(tzinfo=UTC)


class Fenced(Exception):
    """A newer owner accrues this book, or another writes as this one: nothing was written."""


class Moved(Exception):
    """The inputs are not those that the batch was computed with: nothing was written."""


class Head(msgspec.Struct, frozen=True):
    """Where a book's accrual stands in the books: last batch, last line, last deal of each feed."""

    batch: int
    line: int
    positions: Mapping[int, int]
    at: datetime


class Numbered(msgspec.Struct, frozen=True):
    """A computed batch with the numbers it will have; without lines `last_line` is one before.

    lines  the hash of its lines
    entry  the one netted entry, still without a reference; None where nothing was paid
    """

    computed: Computed
    batch: int
    first_line: int
    last_line: int
    lines: bytes
    entry: Entry | None


class Committed(msgspec.Struct, frozen=True):
    """A batch that is in the books: which contracts have new lines, the last deal it reached."""

    book: int
    contracts: tuple[str, ...]
    batch: int
    at: datetime
    feed: int
    reached: int
    deals: int
    reasons: Mapping[str, int]  # lines by the name of their reason


def reference(batch: int, content: bytes) -> str:
    """What the entry of a batch refers to: its number, and the hash of all that it says."""
    return f"{batch}:{content.hex()}"


async def open_accounts(
    conn: asyncpg.Connection, numbers: Numbers, book: int, inputs: Inputs
) -> Mapping[str, int]:
    """The number of each contract's accrued account; missing ones and the expense's are opened."""
    names = {
        contract.id: (book, AccountName("partner_accrued", contract.id, contract.currency))
        for contract in inputs.contracts.values()
    }
    currencies = {contract.currency for contract in inputs.contracts.values()}
    house = [(book, AccountName("rebate_expense", "", currency)) for currency in currencies]
    known = await numbers.accounts(conn, [*names.values(), *house])
    return {contract: known[name].id for contract, name in names.items()}


class Writer:
    """Writes one book's batches over one connection (`connections.connect_writer`).

    accounts  the accrued account of each contract, as `open_accounts` found them
    clock     monotonic seconds
    """

    def __init__(
        self, conn: asyncpg.Connection, numbers: Numbers, book: int, epoch: int, inputs: Inputs,
        accounts: Mapping[str, int], clock: Callable[[], float],
        transaction_s: float = TRANSACTION_S,
    ) -> None:  # fmt: skip
        self._conn = conn
        self._numbers = numbers
        self._book = book
        self._epoch = epoch
        self._contracts = inputs.contracts
        self._owners = {number: id for id, number in accounts.items()}
        self._clock = clock
        self._transaction_s = transaction_s

    def _name(self, account: int) -> AccountName:
        """The name of an accrued account. Few are named: a book has many and a batch moves some."""
        owner = self._owners[account]
        return AccountName("partner_accrued", owner, self._contracts[owner].currency)

    async def load(self) -> Head:
        """Take the book for this epoch and read where it stands. Raises Fenced.

        Waits for a transaction that an earlier connection of ours left behind: after it, the head
        says whether that batch is in the books.
        """
        row = await self._conn.fetchrow(q.TAKE_HEAD, self._book, self._epoch)
        if row is None:
            raise Fenced(f"a newer owner than {self._epoch} accrues book {self._book}")
        positions = await self._conn.fetch(q.POSITIONS, self._book)
        at = await self._conn.fetchval(q.LAST_BATCH, self._book, row["batch"])
        reached = {each["feed"]: each["reached"] for each in positions}
        return Head(row["batch"], row["line"], reached, at or _BEFORE_ALL)

    async def remainders(self, of: date) -> list[tuple[Place, Remainder]]:
        """What the book's lines of a period left over so far."""
        rows = await self._conn.fetch(q.REMAINDERS, self._book, of)
        return [
            ((row["account_id"], row["component"]), Remainder(int(row["exact"]), row["paid"]))
            for row in rows
        ]

    def numbered(self, computed: Computed, batch: int, first_line: int) -> Numbered:
        """Give a batch and its lines their numbers, hash the lines, compose the entry."""
        copy = computed.copy
        copy.number(batch, first_line)
        key = f"{computed.feed}:{computed.first_deal}"
        earned = [(self._name(number), net) for number, (net, _, _) in computed.contracts.items()]
        entry = entries.accrual(self._book, key, "", computed.day, earned)
        last_line = first_line + copy.rows - 1
        return Numbered(computed, batch, first_line, last_line, copy.content(), entry)

    async def write(
        self, batch: Numbered, turn: Turn, on_copy: Callable[[], None] = lambda: None
    ) -> Committed:
        """Write a batch and commit it. Raises Fenced or Moved, then nothing was written.

        Lines are copied first: they are most of the work and need nothing but their table. `turn`
        then waits for the batch before, which may still be on its way over another connection, and
        tells its time; what it raises ends this batch too. `on_copy` is called when lines are on
        their way: for a while nothing of ours is needed.

        Raises what the connection raises; when that comes out of the commit, only `load` can tell
        whether the batch is in the books.
        """
        conn, began = self._conn, self._clock()
        try:
            await conn.execute("BEGIN")
            at = await self._in_transaction(batch, turn, on_copy)
            if self._clock() - began > self._transaction_s:
                raise asyncpg.QueryCanceledError("the transaction is over its time limit")
            await conn.execute("COMMIT")
        except (Fenced, Moved, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                if not conn.is_closed() and conn.is_in_transaction():
                    await conn.execute("ROLLBACK")
            if isinstance(error, asyncpg.UniqueViolationError):
                await self._ask_who(batch, error)
            raise
        except BaseException:  # whatever was under way, the server ends it with the connection
            conn.terminate()
            raise
        return self._committed(batch.computed, batch.batch, at)

    async def _ask_who(self, batch: Numbered, error: asyncpg.UniqueViolationError) -> None:
        """Raise Fenced where lines that are in the books already are those of another owner."""
        if await self._conn.fetchval(q.OVERTAKEN, self._book, self._epoch, batch.batch):
            raise Fenced(f"book {self._book} has the lines of batch {batch.batch}") from error

    async def _in_transaction(
        self, batch: Numbered, turn: Turn, on_copy: Callable[[], None]
    ) -> datetime:
        computed, conn = batch.computed, self._conn
        on_copy()
        if computed.copy.rows:
            await conn.copy_to_table(
                TABLE, schema_name="ledger", columns=encode.NAMES, source=computed.copy.stream,
                format="binary",
            )  # fmt: skip
        before = await turn()
        held = await conn.fetchrow(
            q.BEGIN_BATCH, self._book, self._epoch, batch.batch, batch.first_line, batch.last_line
        )
        assert held["inputs"] is not None, f"book {self._book} has no inputs"
        if not held["ours"]:
            raise Fenced(f"book {self._book} is not where epoch {self._epoch} left it")
        if held["inputs"] != computed.inputs:
            raise Moved(f"inputs {held['inputs']}, computed with {computed.inputs}")
        content = self._link(batch, held)
        posted = None if batch.entry is None else await self._post(batch, content)
        row = await conn.fetchrow(q.END_BATCH, *self._columns(batch, content, posted, before))
        if not row["reached"]:
            raise Fenced(f"feed {computed.feed} of book {self._book} is not where we left it")
        return row["at"]  # type: ignore[no-any-return]

    def _link(self, batch: Numbered, before: asyncpg.Record) -> bytes:
        """The content of a batch, behind the one before it."""
        if batch.batch > 1 and before["content"] is None:
            raise Fenced(f"batch {batch.batch - 1} of book {self._book} is not in the books yet")
        computed = batch.computed
        left = {place: each.exact for place, each in computed.remainders.items()}
        return encode.link(before["content"] or b"", before["at"], encode.Facts(
            self._book, batch.batch, computed.feed, computed.first_deal, computed.last_deal,
            batch.first_line, batch.last_line, computed.day, computed.settles,
            computed.cut_off, computed.inputs, self._epoch, computed.deals, batch.lines, left,
        ))  # fmt: skip

    async def _post(self, batch: Numbered, content: bytes) -> tuple[tuple[int, ...], datetime]:
        """Book the entry; its reference binds the batch, and its own content the reference.

        The head, locked, says that its key is new: nobody looks for it first.
        """
        assert batch.entry is not None, batch
        entry = msgspec.structs.replace(batch.entry, ref=reference(batch.batch, content))
        try:
            posted = await post(self._conn, self._numbers, [entry], look=False)
        except Taken:
            raise Fenced(f"book {self._book} has an accrual {entry.key} already") from None
        assert not isinstance(posted, Left), posted  # no account of an accrual has a floor
        return posted

    def _columns(
        self, batch: Numbered, content: bytes, posted: tuple[tuple[int, ...], datetime] | None,
        before: datetime,
    ) -> list[object]:  # fmt: skip
        """What END_BATCH asks for."""
        computed = batch.computed
        entry, recorded = (None, None) if posted is None else (posted[0][0], posted[1])
        sums, left = computed.contracts.values(), computed.remainders.values()
        return [
            self._book, batch.batch, computed.feed, computed.first_deal, computed.last_deal,
            batch.first_line, batch.last_line, computed.day, computed.inputs, self._epoch,
            entry, content, recorded,
            list(computed.contracts), [net for net, _, _ in sums], [lines for _, lines, _ in sums],
            period(computed.settles),
            [account for account, _ in computed.remainders],
            [component for _, component in computed.remainders],
            [each.exact for each in left], [each.paid for each in left],
            before, [batch.first_line + row for _, _, row in sums],
            computed.deals, batch.lines, computed.settles, computed.cut_off,
        ]  # fmt: skip

    def _committed(self, computed: Computed, batch: int, at: datetime) -> Committed:
        return Committed(
            self._book, tuple(self._owners[number] for number in computed.contracts), batch,
            at, computed.feed, computed.last_deal, computed.last_deal - computed.first_deal + 1,
            {reason.name: count for reason, count in computed.reasons.items() if count},
        )  # fmt: skip
