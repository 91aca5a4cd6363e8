"""The bytes of rebate lines: rows as PostgreSQL's binary COPY reads them, and hashes of a batch.

Knows the layout of one row: every field has a fixed width and none is null, so every row is as
long as the next and a column of a whole batch can be filled at once. Refuses to know what the
fields mean.

The canonical bytes of a line are its row as COPY carries it: the number of fields (int16), then
for each column of COLUMNS in this order its width (int32) and its value, all big-endian. A batch's
`lines` is the SHA-256 of its lines' bytes in the order of `no`; its `deals` that of its deals, each
a JSON object of all that accrual was given and a newline, in the order of `no`. Its `content` is
the SHA-256 of the batch's before it and that batch's time, of its own facts (`_FACTS`), of both
hashes and of each remainder it moved. They are stored: none of this ever changes.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from struct import Struct
from typing import Final

import msgspec

from ledger.deals import LandedDeal
from ledger.rebates.lines import Line

COLUMNS: Final = (
    ("book_id", 2), ("no", 8), ("batch", 8), ("feed", 2), ("deal_no", 8), ("concerned_no", 8),
    ("account_id", 8), ("component", 2), ("kind", 2), ("level", 2), ("reason", 2), ("plan", 4),
    ("amount", 8),
)  # fmt: skip
NAMES: Final = tuple(name for name, _ in COLUMNS)
_CODES: Final = {2: "h", 4: "i", 8: "q"}
_WIDTHS: Final = tuple(width for _, width in COLUMNS)
_ROW: Final = Struct(">h" + "".join(f"i{_CODES[width]}" for width in _WIDTHS))
WIDTH: Final = _ROW.size
AMOUNT: Final = Struct(">q")  # the last value of a row
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DEALS: Final = msgspec.json.Encoder()
# The time before, then as in `Facts`: days as days, the cut-off in microseconds.
_FACTS: Final = Struct(">qhqhqqqqiiqqq")
_LEFT: Final = Struct(">qh")  # account and component, before the sum in 32 bytes
_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # no flags, no extension
_TRAILER: Final = b"\xff\xff"


def _offset(name: str) -> int:
    """Where a column's value begins in a row."""
    place = NAMES.index(name)
    return 2 + sum(4 + width for width in _WIDTHS[:place]) + 4


_NO, _BATCH = _offset("no"), _offset("batch")
_DEAL, _CONCERNED = _offset("deal_no"), _offset("concerned_no")


def row(line: Line) -> bytes:
    """The canonical bytes of one line."""
    w = _WIDTHS
    return _ROW.pack(
        len(w), w[0], line.book, w[1], line.no, w[2], line.batch, w[3], line.feed,
        w[4], line.deal_no, w[5], line.concerned_no, w[6], line.account, w[7], line.component,
        w[8], line.kind, w[9], line.level, w[10], line.reason, w[11], line.plan, w[12], line.amount,
    )  # fmt: skip


def template(
    book: int, feed: int, account: int, component: int, kind: int, level: int, reason: int,
    plan: int, amount: int,
) -> bytes:  # fmt: skip
    """A row whose numbers of line, batch and deals are still blank."""
    return row(Line(
        book, 0, 0, feed, 0, 0, account, component, kind, level, reason, plan, amount
    ))  # fmt: skip


def content(lines: Iterable[Line]) -> bytes:
    """What `accrual_batch.lines` must be for these lines, given in the order of `no`."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(row(line))
    return digest.digest()


def deal_bytes(deals: Sequence[LandedDeal]) -> bytes:
    """The canonical bytes of deals, as accrual was given them."""
    return _DEALS.encode_lines(deals)


class Facts(msgspec.Struct, frozen=True):
    """What a batch says of itself beside its lines.

    settles  the settlement day that its deals are of, by `cut_off`, UTC
    left     the sum after it of each (account, component) whose remainder it moved, in 1e-16
             minor units
    """

    book: int
    batch: int
    feed: int
    first_deal: int
    last_deal: int
    first_line: int
    last_line: int
    day: date
    settles: date
    cut_off: time
    inputs: int
    epoch: int
    deals: bytes
    lines: bytes
    left: Mapping[tuple[int, int], int]


def link(before: bytes, at: datetime | None, facts: Facts) -> bytes:
    """What `accrual_batch.content` must be behind a batch of this content and time; b"", None for
    the first one.
    """
    cut_off = datetime.combine(_EPOCH, facts.cut_off, UTC) - _EPOCH
    since = 0 if at is None else (at - _EPOCH) // timedelta(microseconds=1)
    digest = hashlib.sha256(before)
    digest.update(_FACTS.pack(
        since, facts.book, facts.batch, facts.feed, facts.first_deal, facts.last_deal,
        facts.first_line, facts.last_line, facts.day.toordinal(), facts.settles.toordinal(),
        cut_off // timedelta(microseconds=1), facts.inputs, facts.epoch,
    ))  # fmt: skip
    digest.update(facts.deals)
    digest.update(facts.lines)
    for (account, component), exact in sorted(facts.left.items()):
        digest.update(_LEFT.pack(account, component))
        digest.update(exact.to_bytes(32, "big", signed=True))
    return digest.digest()


class Copy:
    """The lines of one batch as one COPY stream.

    templates  rows with blanks, one after the other
    deals      the deal of each row; it is the concerned one too unless `concerned` says another
    """

    def __init__(
        self, templates: Sequence[bytes], deals: Sequence[int], concerned: Mapping[int, int]
    ) -> None:
        self.stream = bytearray(b"".join((_HEADER, *templates, _TRAILER)))
        self.rows = len(deals)
        expected = len(_HEADER) + self.rows * WIDTH + len(_TRAILER)
        assert len(self.stream) == expected, (len(self.stream), self.rows)
        of = array("q", deals)
        self._fill(_DEAL, of)
        for number, deal in concerned.items():
            of[number] = deal
        self._fill(_CONCERNED, of)

    def number(self, batch: int, first_line: int) -> None:
        """Fill in the number of the batch and the numbers of its lines."""
        self._fill(_NO, array("q", range(first_line, first_line + self.rows)))
        self._fill(_BATCH, array("q", [batch]) * self.rows)

    def content(self) -> bytes:
        """The SHA-256 of the rows, all numbers filled in."""
        rows = memoryview(self.stream)[len(_HEADER) : -len(_TRAILER)]
        return hashlib.sha256(rows).digest()

    def _fill(self, offset: int, values: array[int]) -> None:
        """Write one column of eight bytes: a byte of all rows at a time, without a loop of ours."""
        if sys.byteorder == "little":
            values = values[:]
            values.byteswap()
        raw = values.tobytes()
        end = len(self.stream) - len(_TRAILER)
        for byte in range(8):
            self.stream[len(_HEADER) + offset + byte : end : WIDTH] = raw[byte::8]
