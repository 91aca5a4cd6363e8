"""The bytes of rebate lines: rows as PostgreSQL's binary COPY reads them, and their hash.

Knows the layout of one row: every field has a fixed width and none is null, so every row is as
long as the next and a column of a whole batch can be filled at once. Refuses to know what the
fields mean.

The canonical bytes of a line are its row as COPY carries it: the number of fields (int16), then
for each column of COLUMNS in this order its width (int32) and its value, all big-endian. A batch's
`content` is the SHA-256 of its lines' bytes in the order of `no`. It is stored: this never changes.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from struct import Struct
from typing import Final

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
    """What `accrual_batch.content` must be for these lines, given in the order of `no`."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(row(line))
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
