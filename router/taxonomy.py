"""What a decline code means and whether another PSP may follow: the taxonomy, as a table.

Knows codes of the card networks, of PSPs and of the transport, from `taxonomy.csv` and from the
connectors' own rows. Refuses to guess: a code nobody described is `unmapped` and never cascades.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Final

import msgspec

UNMAPPED: Final = "unmapped"
ISSUER, ADVICE, TRANSPORT = "iso", "mc_mac", "transport"
_RANGE = re.compile(r"(\d+)-(\d+)(/\w+)?")
_PREFIX = re.compile(r"(\d+)(x+)")


class Meaning(msgspec.Struct, frozen=True):
    """One row of the taxonomy.

    other_psp  `yes`: another PSP may follow; `ask`: only when the client presses again;
               `after_resolution`: nothing may follow before an inquiry; `no`
    """

    namespace: str
    code: str
    meaning: str
    category: str
    other_psp: str

    @property
    def name(self) -> str:
        """The code with its namespace, as attempts store it."""
        return f"{self.namespace}:{self.code}"


class Taxonomy:
    """All known codes. Built once; `with_rows` gives a connector its own codes on top."""

    def __init__(self, rows: Iterable[Meaning]) -> None:
        self._rows = tuple(rows)
        self._exact = {(row.namespace, row.code): row for row in self._rows}
        self._ranges = tuple(
            (row.namespace, *bounds, row) for row in self._rows if (bounds := _bounds(row.code))
        )

    def with_rows(self, rows: Iterable[Meaning]) -> Taxonomy:
        """The taxonomy with `rows` added, which win over older ones of the same code."""
        return Taxonomy((*self._rows, *rows))

    def find(self, namespace: str, code: str) -> Meaning | None:
        """The row of a code, exact before range; None when it is not described."""
        found = self._exact.get((namespace, code))
        return found or self._find_in_range(namespace, code)

    def classify(self, codes: Iterable[tuple[str, str]]) -> Meaning:
        """The meaning of a decline that came with several codes, the most trusted first.

        The order is the caller's: transport class, network advice, issuer code, PSP code. Empty
        codes are passed over; when none is described the last one given comes back as `unmapped`.
        """
        last = ("", "")
        for namespace, code in codes:
            if not code:
                continue
            last = (namespace, code)
            found = self.find(namespace, code)
            if found:
                return found
        return Meaning(*last, "not described in the taxonomy", UNMAPPED, "no")

    def _find_in_range(self, namespace: str, code: str) -> Meaning | None:
        digits, _, kind = code.partition("/")
        if not (digits.isascii() and digits.isdigit()):
            return None
        for space, width, first, last, suffix, row in self._ranges:
            if (space, width, suffix) == (namespace, len(digits), kind) and (
                first <= int(digits) <= last
            ):
                return row
        return None


def _bounds(code: str) -> tuple[int, int, int, str] | None:
    """`20xxx` and `2000-2999/soft` as (width, first, last, kind); None for a plain code."""
    if prefix := _PREFIX.fullmatch(code):
        span = 10 ** len(prefix[2])
        return len(code), int(prefix[1]) * span, int(prefix[1]) * span + span - 1, ""
    if limits := _RANGE.fullmatch(code):
        return len(limits[1]), int(limits[1]), int(limits[2]), (limits[3] or "").lstrip("/")
    return None


def load() -> Taxonomy:
    """The taxonomy that comes with the package."""
    text = (files("router") / "taxonomy.csv").read_text(encoding="utf-8")
    return Taxonomy(read_rows(csv.DictReader(text.splitlines())))


def read_rows(rows: Iterable[Mapping[str, str]]) -> Iterable[Meaning]:
    """Rows of a CSV table as meanings; the columns this package does not use are left."""
    for row in rows:
        yield Meaning(
            row["namespace"], row["code"], row["meaning"], row["category"], row["other_psp"]
        )
