"""The settlement day of a moment: the day on which the book's settlement period that it is in ends.

Knows the cut-off of a book's days. Refuses to know what is settled; entries are of calendar days.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Final

MIDNIGHT: Final = time()


def settlement_day(at: datetime, cut_off: time) -> date:
    """The settlement day of a UTC moment: from the cut-off on it is the day after.

    A cut-off at midnight ends the day it closes: then it is the calendar day.
    """
    day = at.date()
    return day if cut_off == MIDNIGHT or at.time() < cut_off else day + timedelta(days=1)
