"""The simulator's wall clock: UTC+2 in winter, UTC+3 in summer, by the rules of the European Union.

Knows the rule itself, so that no time zone database is needed, and how a story moves the clock.
Refuses to take the time: it is handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec


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


class Setting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a story sets the clock; what is left out stays as it was.

    now       the truth, from which it runs on, with its offset to UTC
    offset_s  how far the wall clock is ahead of UTC from here on, whatever the season
    """

    now: datetime | None = None
    offset_s: int | None = None


class Wall:
    """The server's wall clock as a story may have set it."""

    def __init__(self, now: Callable[[], datetime], winter_offset_s: int = 7200) -> None:
        self._now = now
        self._winter_offset_s = winter_offset_s
        self._shift = timedelta()
        self._offset_s: int | None = None

    def set(self, setting: Setting) -> None:
        """Play a moment, or an offset. Raises ValueError for a moment that names no offset."""
        if setting.now is not None:
            if setting.now.tzinfo is None:
                raise ValueError("now: say how far it is from UTC, as in 2026-10-25T00:59:00Z")
            self._shift = setting.now - self._now()
        if setting.offset_s is not None:
            self._offset_s = setting.offset_s

    def reset(self) -> None:
        """The true time and the European rule again."""
        self._shift, self._offset_s = timedelta(), None

    def utc(self) -> datetime:
        """The truth as it is played."""
        return self._now() + self._shift

    def utc_ms(self) -> int:
        """The same in milliseconds."""
        return int(self.utc().timestamp() * 1000)

    def offset_s(self, moment: datetime) -> int:
        """How far the wall clock is ahead of UTC at a moment."""
        if self._offset_s is not None:
            return self._offset_s
        return offset_s(moment, self._winter_offset_s)

    def wall_ms(self, utc_ms: int) -> int:
        """What the wall clock says at a moment, read as if it were UTC."""
        return utc_ms + self.offset_s(datetime.fromtimestamp(utc_ms / 1000, UTC)) * 1000

    def seconds(self) -> int:
        """The wall clock now, in seconds: what the wire carries."""
        return self.wall_ms(self.utc_ms()) // 1000
