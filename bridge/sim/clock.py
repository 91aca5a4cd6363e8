"""The simulator's wall clock: UTC+2 in winter, UTC+3 in summer, by the rules of the European Union.

Knows the rule itself, so that no time zone database is needed. Refuses to know what time it is.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def offset_s(moment: datetime, winter_offset_s: int = 7200) -> int:
    """How far the wall clock is ahead of UTC at a moment."""
    return winter_offset_s + (3600 if is_summer(moment) else 0)


def is_summer(moment: datetime) -> bool:
    """Whether summer time holds: from the last Sunday of March to that of October, 01:00 UTC."""
    begin, end = (last_sunday(moment.year, month).replace(hour=1) for month in (3, 10))
    return begin <= moment < end


def last_sunday(year: int, month: int) -> datetime:
    """Midnight UTC of the last Sunday of a month of 31 days."""
    last = datetime(year, month, 31, tzinfo=UTC)
    return last - timedelta(days=last.isoweekday() % 7)


def server_seconds(moment: datetime, winter_offset_s: int = 7200) -> int:
    """The wall clock read as if it were UTC, in seconds: what the wire carries."""
    return int(moment.timestamp()) + offset_s(moment, winter_offset_s)


def server_text(seconds: int) -> str:
    """What time/server answers: the number, and the same as a date."""
    wall = datetime.fromtimestamp(seconds, UTC)
    return f"{seconds} {wall:%Y.%m.%d %H:%M:%S}"
