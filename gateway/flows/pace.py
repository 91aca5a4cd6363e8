"""How much accrual takes at a time: less when the server failed, more again when it is quick.

Knows the number of deals and what it was told. Refuses to know clocks and what failed.
"""

from __future__ import annotations

from typing import Final

from ledger.connections import TRANSACTION_S

DEALS_MIN: Final = 50  # a server that cannot write so few in time is as good as away
QUICK_S: Final = TRANSACTION_S / 4  # twice as many will still be far from the limit


class Pace:
    """Deals in one batch: `deals_max` while all is well."""

    def __init__(self, deals_max: int) -> None:
        self._deals_max = deals_max
        self.deals = deals_max

    @property
    def whole(self) -> bool:
        """Whether all has been well for a while."""
        return self.deals == self._deals_max

    def failed(self) -> None:
        """A batch did not reach the books, and may have been too much: try half of it."""
        self.deals = max(self.deals // 2, min(DEALS_MIN, self._deals_max))

    def committed(self, deals: int, seconds: float) -> None:
        """A batch was written so long after its deals were read; a small one proves nothing."""
        if 2 * deals >= self.deals and seconds < QUICK_S:
            self.deals = min(2 * self.deals, self._deals_max)
