"""The simulated provider's own books: charges, refunds and notices, kept in an append-only journal.

Knows what was charged and refunded, each once for its reference. Refuses to know how the caller
was answered. A line is written before anybody hears of it; reading the journal gives the books.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Self

import msgspec
from msgspec.structs import replace

from router.sim.behaviour import Notices, Settled, Status


class Charge(msgspec.Struct, frozen=True, kw_only=True, tag="charge"):
    """A charge as the provider has it; a later line with its reference replaces an earlier one.

    asked     the fields of the request, to recognise a repetition from a reuse of the reference
    requests  how often it was asked for
    """

    id: str
    reference: str
    amount: str
    currency: str
    status: Status
    decline: dict[str, str] = {}
    created: int
    settled: int = 0
    becomes: Settled | None = None
    becomes_at: float = 0.0
    notices: Notices = "once"
    notice_after_s: float = 0.0
    asked: dict[str, str] = {}
    requests: int = 1


class Refund(msgspec.Struct, frozen=True, kw_only=True, tag="refund"):
    """Money given back from a charge."""

    id: str
    reference: str
    charge_reference: str
    amount: str
    currency: str
    status: str
    created: int


class Notice(msgspec.Struct, frozen=True, kw_only=True, tag="notice"):
    """A notice to be delivered. `outcome`: "", `delivered` or `dead`."""

    no: int
    event_id: str
    reference: str
    body: str
    due: float
    forged: bool = False
    outcome: str = ""
    deliveries: int = 0


Line = Charge | Refund | Notice
_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


class Books:
    """The books of one provider, in memory and in the journal at `path`."""

    def __init__(self, path: Path) -> None:
        self.charges: dict[str, Charge] = {}
        self.refunds: dict[str, Refund] = {}
        self.notices: dict[int, Notice] = {}
        self._path = path
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        """Read the journal, drop a line that was cut by a crash, and go on writing."""
        whole = 0
        if self._path.exists():
            for line in self._path.read_bytes().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    break
                self._apply(_DECODER.decode(line))
                whole += len(line)
        self._file = self._path.open("ab")
        self._file.truncate(whole)
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the journal."""
        if self._file:
            self._file.close()

    def write(self, line: Line) -> None:
        """Add a line to the journal, then to the books."""
        assert self._file is not None, "the books are not open"
        self._file.write(_ENCODER.encode(line) + b"\n")
        self._file.flush()  # survives our own death; a machine that dies takes the PSP with it
        self._apply(line)

    def seen_again(self, charge: Charge) -> Charge:
        """Note that a charge was asked for once more."""
        again = replace(charge, requests=charge.requests + 1)
        self.write(again)
        return again

    def refunded(self, charge: Charge) -> list[Refund]:
        """The refunds of a charge."""
        return [
            refund
            for refund in self.refunds.values()
            if refund.charge_reference == charge.reference
        ]

    def next_notice(self) -> int:
        """The number of the next notice."""
        return len(self.notices) + 1

    def _apply(self, line: Line) -> None:
        if isinstance(line, Charge):
            self.charges[line.reference] = line
        elif isinstance(line, Refund):
            self.refunds[line.reference] = line
        else:
            self.notices[line.no] = line
