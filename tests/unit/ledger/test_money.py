"""Money over the wire and in the books."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from iso4217 import Currency as IsoCurrency

from ledger.money import (
    BROKER_UNITS,
    MINOR_MAX,
    BadAmount,
    Money,
    UnknownCurrency,
    codes,
    currency,
    parse,
    text,
)

CURRENCIES = sorted({c.code for c in IsoCurrency if c.exponent is not None} | set(BROKER_UNITS))


MALFORMED = [
    *("", " ", "abc", "NaN", "nan", "Infinity", "-Infinity", "1e30", "1E2", "0x10", "-1.00"),
    *("+1.00", "01.00", "1.", ".5", "1,000.00", "1_000", "1 000", " 1", "1 ", "1\n", "\n1"),
    *("1.00\n", "1.0.0", "١٢٣", "١.٠٠", "１２", "²", "1٫5", "1.٠٠", "100000000000000000"),
    *("1\x00", "१०", "\u200b1", "1.000000000", "--1", "1/2", "1%", "$1"),
]


@pytest.mark.parametrize("amount", MALFORMED)
def test_what_is_not_a_plain_decimal_is_no_amount(amount: str) -> None:
    """Only ASCII digits with one optional point are an amount; nothing else is guessed at."""
    with pytest.raises(BadAmount) as refused:
        parse(amount, currency("USD"))
    assert refused.value.code == "amount-malformed"


@pytest.mark.parametrize("code", CURRENCIES)
def test_every_currency_takes_its_own_decimals_and_not_one_more(code: str) -> None:
    """An amount may have as many decimals as its currency; a finer one is refused, not rounded."""
    unit = currency(code)
    finest = "0." + "1".rjust(unit.exponent, "0") if unit.exponent else "1"
    assert parse(finest, unit).minor == 1
    finer = "0." + "1".rjust(unit.exponent + 1, "0")
    with pytest.raises(BadAmount) as refused:
        parse(finer, unit)
    beyond_the_wire = unit.exponent == 8
    assert refused.value.code == ("amount-malformed" if beyond_the_wire else "amount-precision")


@pytest.mark.parametrize(
    ("code", "exponent"),
    [("USD", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4), ("USC", 2), ("USDT", 6), ("BTC", 8)],
)
def test_decimals_are_those_of_the_standard_or_of_the_broker(code: str, exponent: int) -> None:
    """ISO 4217 says how many decimals a currency has, the broker's list says the rest."""
    assert currency(code).exponent == exponent


@pytest.mark.parametrize("code", ["", "usd", "US", "USDX", "XAU", "XXX", "ДОЛ", "USD ", "U\x00D"])
def test_an_unknown_currency_is_refused(code: str) -> None:
    """A code that names no money of a client is refused: unknown, lower case, metal or testing."""
    with pytest.raises(UnknownCurrency):
        currency(code)


@given(
    minor=st.integers(-MINOR_MAX, MINOR_MAX),
    unit=st.sampled_from(CURRENCIES).map(currency),
)
def test_money_survives_the_wire(minor: int, unit) -> None:
    """What is written as text is read back as the same number of minor units."""
    written = Money(minor, unit).text
    if minor < 0:
        assert written.startswith("-")
        written = written[1:]
    if len(written.partition(".")[0]) <= 15:
        assert parse(written, unit) == Money(abs(minor), unit)
    assert written == text(abs(minor), unit.exponent)


@given(
    amount=st.from_regex(r"\A(0|[1-9][0-9]{0,14})(\.[0-9]{1,8})?\Z"),
    unit=st.sampled_from(CURRENCIES).map(currency),
)
def test_an_amount_is_exact_or_refused(amount: str, unit) -> None:
    """Reading never rounds: the amount is that many minor units exactly, or it is refused."""
    whole, _, decimals = amount.partition(".")
    too_fine = len(decimals) > unit.exponent
    too_large = int(whole + decimals[: unit.exponent].ljust(unit.exponent, "0")) > MINOR_MAX
    if too_fine or too_large:
        with pytest.raises(BadAmount) as refused:
            parse(amount, unit)
        assert refused.value.code == ("amount-precision" if too_fine else "amount-too-large")
        return
    read = parse(amount, unit)
    assert read.minor * 10 ** (8 - unit.exponent) == int(whole + decimals.ljust(8, "0"))


def test_an_amount_that_the_books_could_not_add_up_is_refused() -> None:
    """Many of the largest amounts still fit the books' 64 bits."""
    with pytest.raises(BadAmount) as refused:
        parse("999999999999999.99999999", currency("BTC"))
    assert refused.value.code == "amount-too-large"
    assert MINOR_MAX * 90 < 2**63


def test_every_code_is_one_that_is_known() -> None:
    """The list of codes is what the reader of codes knows, each once."""
    assert [currency(code).code for code in codes()] == list(codes())
    assert len(set(codes())) == len(codes()) > 100
    assert {"EUR", "JPY", "USDT"} <= set(codes())
    assert "XAU" not in codes()


def test_two_currencies_are_never_added() -> None:
    """Adding two currencies is a bug, never a sum."""
    with pytest.raises(AssertionError):
        Money(1, currency("USD")) + Money(1, currency("EUR"))
