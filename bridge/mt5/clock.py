"""A server's wall clock and UTC: which offset a moment of that clock was written with.

Knows the rules of summer time in the European Union and the United States, so that no database of
time zones is needed. Refuses to guess what cannot be known: in the hour that autumn repeats, a deal
found only after that hour is given the offset measured when it was received, so it may stand an
hour late (never on another day, and never in the future); its raw time is kept beside it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal

import msgspec

Daylight = Literal["eu", "us", "none"]

SUMMER_S: Final = 3600
FRESH_S: Final = 1800  # a deal this young was written with the offset that is measured now
AHEAD_S: Final = 900  # how far the server's clock may be wrong: half of the finest time zone, twice
UNSURE_S: Final = 86_400  # this close to a switch, rule and measurement may disagree for a while


class WallClock(msgspec.Struct, frozen=True, kw_only=True):
    """A server's wall clock as it stands at one moment.

    now_ms    that moment, UTC
    offset_s  how far the wall clock is ahead of UTC, as measured then; winter_s  in winter
    """

    daylight: Daylight
    now_ms: int
    offset_s: int
    winter_s: int

    def utc_ms(self, server_ms: int) -> int:
        """A moment of the wall clock, in milliseconds, as UTC.

        It has the offset of the rule for its own time: a walk after an outage may cross a switch.
        Where the clock does not follow the rule just now, what is fresh has the measured offset.
        """
        measured = server_ms - self.offset_s * 1000
        if self.daylight == "none" or (not self._follows() and self._fresh(measured)):
            return measured
        found = self._candidates(server_ms)
        if len(found) == 1:
            return found[0]
        past = [each for each in found if each <= self.now_ms + AHEAD_S * 1000]
        if not past or measured in past:  # no such hour in spring; or the hour of autumn, twice
            return measured
        return max(past)

    def _follows(self) -> bool:
        """Whether the measured offset is that of the rule."""
        summer_s = SUMMER_S if is_summer(self.daylight, self.now_ms // 1000) else 0
        return self.offset_s == self.winter_s + summer_s

    def _fresh(self, measured: int) -> bool:
        return self.now_ms - FRESH_S * 1000 <= measured <= self.now_ms + AHEAD_S * 1000

    def _candidates(self, server_ms: int) -> list[int]:
        """The moments at which, by the rule, the wall clock showed this: none, one or two."""
        winter = server_ms - self.winter_s * 1000
        summer = winter - SUMMER_S * 1000
        found = [summer] if is_summer(self.daylight, summer // 1000) else []
        return [*found, winter] if not is_summer(self.daylight, winter // 1000) else found


def winter_offset_s(daylight: Daylight, now_s: int, offset_s: int, known: int | None) -> int:
    """The offset in winter, from the one measured now; close to a switch the one known before."""
    if known is not None and near_switch(daylight, now_s):
        return known
    return offset_s - (SUMMER_S if is_summer(daylight, now_s) else 0)


def is_summer(daylight: Daylight, utc_s: int) -> bool:
    """Whether the rule says summer time at a moment."""
    if daylight == "none":
        return False
    begin, end = _summer(daylight, datetime.fromtimestamp(utc_s, UTC).year)
    return begin <= utc_s < end


def near_switch(daylight: Daylight, utc_s: int) -> bool:
    """Whether a switch of the clocks is less than a day away, before or behind."""
    if daylight == "none":
        return False
    year = datetime.fromtimestamp(utc_s, UTC).year
    return any(abs(utc_s - switch) < UNSURE_S for switch in _summer(daylight, year))


@lru_cache(maxsize=64)
def _summer(daylight: Daylight, year: int) -> tuple[int, int]:
    """When summer time begins and ends in a year, UTC seconds."""
    if daylight == "eu":  # last Sundays of March and October, 01:00 UTC everywhere
        begin, end = _sunday(year, 4, -1), _sunday(year, 11, -1)
        return begin + 3600, end + 3600
    # New York: second Sunday of March and first of November, 02:00 of its own time before
    return _sunday(year, 3, 1) + 7 * 3600, _sunday(year, 11, 0) + 6 * 3600


def _sunday(year: int, month: int, weeks: int) -> int:
    """Midnight UTC of a month's first Sunday (weeks 0), a later one, or the one before it (-1)."""
    first = datetime(year, month, 1, tzinfo=UTC)
    to_sunday = timedelta(days=(7 - first.isoweekday()) % 7)
    return int((first + to_sunday + timedelta(weeks=weeks)).timestamp())
