"""What lines leave over below a minor unit, and what rounding lines pay out of it.

Knows one sum for each account, component and period. Refuses to know deals, and to be ahead of the
books for longer than a batch: whoever holds it throws it away when a batch fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date

import msgspec

from ledger.rebates.lines import UNIT

PERIODS_KEPT = 3  # a late deal may go back a month; more are read again when they are needed

Place = tuple[int, int]  # account, component


class Remainder(msgspec.Struct, frozen=True):
    """`exact`: the sum of remainders in 1e-16 minor units; `paid`: minor units paid out of it."""

    exact: int = 0
    paid: int = 0


NOTHING = Remainder()


def period(day: date) -> date:
    """The period of a day: its month, named by the first day."""
    return day.replace(day=1)


def whole(exact: int) -> int:
    """Minor units in an exact amount, what is below one dropped on both sides of zero."""
    return exact // UNIT if exact >= 0 else -(-exact // UNIT)


class Remainders:
    """The sums in memory, by period."""

    def __init__(self) -> None:
        self._periods: dict[date, dict[Place, Remainder]] = {}

    def knows(self, of: date) -> bool:
        """Whether a period's sums are in memory."""
        return of in self._periods

    def learn(self, of: date, rows: Iterable[tuple[Place, Remainder]]) -> None:
        """Take a period's sums from the books; nothing that is not written may be in memory."""
        if len(self._periods) >= PERIODS_KEPT:
            self._periods = {}
        self._periods[of] = dict(rows)

    def move(self, of: date, left: Mapping[Place, int]) -> dict[Place, tuple[Remainder, int]]:
        """Add what a batch's lines left over; returns each new sum and what a line must pay."""
        sums = self._periods[of]
        moved = {}
        for place, exact in left.items():
            before = sums.get(place, NOTHING)
            total = before.exact + exact
            after = sums[place] = Remainder(total, whole(total))
            moved[place] = (after, after.paid - before.paid)
        return moved
