"""Rates a lot: exact numbers, and the order symbol, symbol group, none."""

from __future__ import annotations

import pytest

from ledger.rebates.rates import by_symbol, clashes, rate

MAJORS = ("EURUSD", "GBPUSD")


@pytest.mark.parametrize(
    ("per_lot", "exponent", "e8", "text"),
    [
        ("0.40", 2, 4_000_000_000, "0.4"),
        ("5", 2, 50_000_000_000, "5"),
        ("5.00", 2, 50_000_000_000, "5"),
        ("0.00000001", 2, 100, "0.00000001"),
        ("0.00000001", 0, 1, "0.00000001"),
        ("120", 0, 12_000_000_000, "120"),
        ("0", 2, 0, "0"),
        ("1.5", 6, 150_000_000_000_000, "1.5"),
    ],
)
def test_a_rate_is_a_whole_number(per_lot: str, exponent: int, e8: int, text: str) -> None:
    """Minor units with eight decimals more; equal rates are written alike."""
    made = rate(per_lot, exponent, symbol="EURUSD")
    assert (made.e8, made.per_lot) == (e8, text)


def test_a_rate_times_a_volume_is_exact() -> None:
    """A hundredth of a lot at 0.40 is four tenths of a cent: nothing is lost before rounding."""
    a_hundredth = 1_000_000  # 1e-8 lots
    assert rate("0.40", 2, symbol="EURUSD").e8 * a_hundredth == 4 * 10**15  # 1e-16 cents


def test_a_symbols_own_rate_goes_before_its_groups() -> None:
    """Whatever the order they are written in; what has neither has no rate."""
    own = rate("6", 2, symbol="EURUSD")
    shared = rate("4", 2, group="fx-majors", symbols=MAJORS)
    for rates in ((own, shared), (shared, own)):
        assert by_symbol(rates) == {"EURUSD": own, "GBPUSD": shared}


def test_a_rate_says_what_it_is_for() -> None:
    """In the words of an explanation."""
    assert rate("6", 2, symbol="EURUSD").subject == "symbol EURUSD"
    assert rate("6", 2, group="fx-majors", symbols=MAJORS).subject == "group fx-majors"


def test_two_rates_as_close_as_each_other_clash() -> None:
    """A symbol twice, a group twice, two groups with one symbol; a symbol and its group do not."""
    own = rate("6", 2, symbol="EURUSD")
    shared = rate("4", 2, group="fx-majors", symbols=MAJORS)
    other = rate("3", 2, group="all", symbols=("XAUUSD", "GBPUSD"))
    assert list(clashes((own, shared))) == []
    assert list(clashes((own, shared, own))) == [(2, "EURUSD", 0)]
    assert list(clashes((shared, shared))) == [(1, "EURUSD", 0)]
    assert list(clashes((shared, other))) == [(1, "GBPUSD", 0)]
