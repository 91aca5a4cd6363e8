"""A deal's total in whole minor units, and whole minor units out of what is left."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.rebates.distribute import distribute, half_even
from ledger.rebates.lines import UNIT
from ledger.rebates.rounding import PERIODS_KEPT, Remainder, Remainders, period, whole

MARCH = date(2026, 3, 1)
E8 = 10**8


@pytest.mark.parametrize(
    ("twentieths", "expected"),
    [(10, 0), (30, 2), (50, 2), (9, 0), (11, 1), (-10, 0), (-30, -2), (-11, -1)],
)
def test_a_half_goes_to_the_even_unit(twentieths: int, expected: int) -> None:
    """Half-even: 0.5 is 0, 1.5 and 2.5 are 2, and the same below zero."""
    assert half_even(twentieths * UNIT // 20) == expected


def test_what_is_lost_goes_to_the_largest_remainders() -> None:
    """0.6, 0.7 and 0.9 of a unit make 2: the third and the second get one."""
    parts = distribute([6 * E8, 7 * E8, 9 * E8], E8 // 10)
    assert [part.amount for part in parts] == [0, 1, 1]
    assert [part.left for part in parts] == [UNIT * 6 // 10, -UNIT * 3 // 10, -UNIT // 10]


def test_a_tie_goes_to_the_level_nearest_the_client() -> None:
    """Of equal remainders the first is nearest the client."""
    parts = distribute([5 * E8, 5 * E8, 5 * E8, 5 * E8, 0], E8 // 10)
    assert [part.amount for part in parts] == [1, 1, 0, 0, 0]


@given(st.lists(st.integers(0, 10**13), min_size=1, max_size=8), st.integers(0, 10**12))
def test_the_parts_are_the_rounded_total(rates: list[int], volume: int) -> None:
    """Lines sum to the half-even total, none is a unit off its exact share, nothing is lost."""
    parts = distribute(rates, volume)
    assert sum(part.amount for part in parts) == half_even(sum(rates) * volume)
    for rate, part in zip(rates, parts, strict=True):
        assert part.amount * UNIT + part.left == rate * volume
        assert abs(part.left) < UNIT


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=6), st.integers(0, 10**10),
       st.integers(0, 10**12), st.data())  # fmt: skip
def test_raising_a_rate_never_lowers_the_total(
    rates: list[int], volume: int, raised: int, data: st.DataObject
) -> None:
    """In the differential a level's higher rate never costs the chain anything."""
    place = data.draw(st.integers(0, len(rates) - 1))
    higher = [*rates[:place], rates[place] + raised, *rates[place + 1 :]]

    def total(each: list[int]) -> int:
        steps = [max(0, rate - max([0, *each[:n]])) for n, rate in enumerate(each)]
        return sum(part.amount for part in distribute(steps, volume))

    assert total(higher) >= total(rates)


@pytest.mark.parametrize(("tenths", "expected"), [(9, 0), (10, 1), (19, 1), (-9, 0), (-19, -1)])
def test_whole_units_are_counted_toward_zero(tenths: int, expected: int) -> None:
    """What is below a unit is dropped on both sides of zero."""
    assert whole(tenths * UNIT // 10) == expected


def test_remainders_pay_when_they_make_a_unit_and_take_it_back() -> None:
    """Only what moves the whole part of the sum is paid; a falling sum takes back."""
    left, place = Remainders(), (7, 1)
    left.learn(MARCH, [(place, Remainder(UNIT * 9 // 10, 0))])
    due = [left.move(MARCH, {place: UNIT * tenths // 10})[place][1] for tenths in (2, 3, 9, -20)]
    assert due == [1, 0, 1, -2]


def test_each_period_has_its_own_remainders() -> None:
    """A month's sums are read when a deal of it comes; only a few are kept."""
    left = Remainders()
    months = [date(2026, n, 1) for n in range(1, PERIODS_KEPT + 2)]
    for month in months:
        assert not left.knows(month)
        left.learn(month, ())
    assert left.knows(months[-1])
    assert not left.knows(months[0])
    assert period(date(2026, 3, 31)) == MARCH
