"""A server's wall clock becomes UTC on both sides of each switch of the clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.mt5.clock import Daylight, WallClock, is_summer, winter_offset_s
from bridge.sim import clock as platform

WINTER = 7200
SUMMER = 10_800
HOUR = timedelta(hours=1)
SPRING_EU = datetime(2026, 3, 29, 1, 0, tzinfo=UTC)  # 03:00 becomes 04:00 on the server's wall
AUTUMN_EU = datetime(2026, 10, 25, 1, 0, tzinfo=UTC)  # 04:00 becomes 03:00
SPRING_US = datetime(2026, 3, 8, 7, 0, tzinfo=UTC)
AUTUMN_US = datetime(2026, 11, 1, 6, 0, tzinfo=UTC)


def ms(moment: datetime) -> int:
    """A moment in milliseconds."""
    return int(moment.timestamp() * 1000)


def shown(moment: datetime, offset_s: int) -> int:
    """What the wall clock shows at a moment, in milliseconds."""
    return ms(moment) + offset_s * 1000


def read(
    server_ms: int, now: datetime, offset_s: int, rule: Daylight = "eu", winter_s: int = WINTER
) -> datetime:
    """UTC of a time of the wall clock, received at `now` under a measured offset."""
    wall = WallClock(daylight=rule, now_ms=ms(now), offset_s=offset_s, winter_s=winter_s)
    return datetime.fromtimestamp(wall.utc_ms(server_ms) / 1000, UTC)


@given(seconds=st.integers(1_577_836_800, 2_051_222_400))
def test_the_rule_is_that_of_the_european_union(seconds: int) -> None:
    """The feed and the simulated platform know the rule independently, and agree on it."""
    assert is_summer("eu", seconds) == platform.is_summer(datetime.fromtimestamp(seconds, UTC))


@pytest.mark.parametrize("switch", [SPRING_US, AUTUMN_US])
def test_new_york_switches_on_its_own_sundays(switch: datetime) -> None:
    """Second Sunday of March and first of November, at two o'clock of New York's own time."""
    at = int(switch.timestamp())
    spring = switch is SPRING_US
    assert (is_summer("us", at - 1), is_summer("us", at)) == (not spring, spring)


def test_without_a_rule_there_is_no_summer() -> None:
    """A server whose clock is never moved has one offset, the measured one."""
    july, january = datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    assert not is_summer("none", int(july.timestamp()))
    assert read(shown(january, SUMMER), july, SUMMER, "none") == january


@pytest.mark.parametrize(("switch", "rule"), [(SPRING_EU, "eu"), (SPRING_US, "us")])
@pytest.mark.parametrize("back", [timedelta(milliseconds=1), HOUR, timedelta(days=40)])
def test_after_a_walk_over_spring_each_side_has_its_own_offset(
    switch: datetime, rule: Daylight, back: timedelta
) -> None:
    """A deal from before the switch, received long after it, is not moved by the hour."""
    now = switch + timedelta(days=2)
    assert read(shown(switch - back, WINTER), now, SUMMER, rule) == switch - back
    assert read(shown(switch + HOUR, SUMMER), now, SUMMER, rule) == switch + HOUR


@pytest.mark.parametrize(("switch", "rule"), [(AUTUMN_EU, "eu"), (AUTUMN_US, "us")])
@pytest.mark.parametrize("back", [HOUR + timedelta(milliseconds=1), timedelta(days=40)])
def test_after_a_walk_over_autumn_each_side_has_its_own_offset(
    switch: datetime, rule: Daylight, back: timedelta
) -> None:
    """The hour itself apart, times before and after the switch are told by the rule."""
    now = switch + timedelta(days=2)
    assert read(shown(switch - back, SUMMER), now, WINTER, rule) == switch - back
    assert read(shown(switch + HOUR, WINTER), now, WINTER, rule) == switch + HOUR


@pytest.mark.parametrize("age_s", [0, 1, 600])
def test_in_the_repeated_hour_the_offset_measured_at_receipt_decides(age_s: int) -> None:
    """Both passes of the hour are told apart while they happen."""
    first, second = AUTUMN_EU - HOUR / 2, AUTUMN_EU + HOUR / 2
    age = timedelta(seconds=age_s)
    assert shown(first, SUMMER) == shown(second, WINTER)
    assert read(shown(first, SUMMER), first + age, SUMMER) == first
    assert read(shown(second, WINTER), second + age, WINTER) == second


def test_in_the_first_pass_an_hour_is_told_by_the_offset_too() -> None:
    """Nearly an hour old, and by the other offset it would be only minutes ahead of now."""
    made, found = AUTUMN_EU - timedelta(minutes=59), AUTUMN_EU - timedelta(minutes=5)
    assert read(shown(made, SUMMER), found, SUMMER) == made


def test_a_deal_from_before_the_hour_is_not_taken_for_a_fresh_one() -> None:
    """Where the clock follows the rule, the rule decides: only one offset is possible for it."""
    made, found = AUTUMN_EU - timedelta(minutes=88), AUTUMN_EU + timedelta(minutes=1)
    assert read(shown(made, SUMMER), found, WINTER) == made


def test_a_deal_of_the_first_pass_found_in_the_second_is_not_put_into_the_future() -> None:
    """What the measured offset would put ahead of now was written with the other one."""
    made, found = AUTUMN_EU - timedelta(minutes=2), AUTUMN_EU + timedelta(minutes=3)
    assert read(shown(made, SUMMER), found, WINTER) == made


def test_a_deal_of_the_repeated_hour_found_too_late_stays_on_its_day() -> None:
    """Nobody can tell the passes apart a day later: it stands an hour late, on the same day."""
    made = AUTUMN_EU - HOUR / 2
    read_as = read(shown(made, SUMMER), made + timedelta(days=1), WINTER)
    assert read_as == made + HOUR
    assert read_as.date() == made.date()


def test_a_time_that_never_was_has_the_measured_offset() -> None:
    """In spring an hour is absent from the wall: who writes it has not moved the clock yet."""
    never = shown(SPRING_EU + HOUR / 2, WINTER)
    assert read(never, SPRING_EU + HOUR / 2, WINTER) == SPRING_EU + HOUR / 2
    assert read(never, SPRING_EU + timedelta(days=1), SUMMER) == SPRING_EU - HOUR / 2


def test_a_fresh_deal_has_the_measured_offset_whatever_the_rule_says() -> None:
    """A server that moves its clock hours after the rule is believed, not corrected."""
    now = SPRING_EU + 3 * HOUR
    assert read(shown(now, WINTER), now, WINTER) == now


def test_the_winter_offset_is_learned_away_from_a_switch() -> None:
    """Measured in summer it is an hour less; close to a switch the one known is kept."""
    july = int(datetime(2026, 7, 1, tzinfo=UTC).timestamp())
    late = int((SPRING_EU + HOUR).timestamp())  # the server has not moved its clock yet
    assert winter_offset_s("eu", july, SUMMER, None) == WINTER
    assert winter_offset_s("eu", july, SUMMER, 0) == WINTER
    assert winter_offset_s("eu", late, WINTER, WINTER) == WINTER
    assert winter_offset_s("none", july, SUMMER, 0) == SUMMER
