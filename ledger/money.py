"""Money: whole minor units of a currency, and the one parser of amounts that come over the wire.

Knows currencies, their decimals and exact arithmetic. Refuses to know rates, rounding policies and
floats: an amount that does not fit its currency exactly is an error, never a rounding.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import msgspec
from iso4217 import Currency as IsoCurrency

AMOUNT_PATTERN: Final = r"^(0|[1-9][0-9]{0,14})(\.[0-9]{1,8})?$"
MINOR_MAX: Final = 10**17  # the books add in 64 bits: room for ninety amounts of this size
_AMOUNT = re.compile(AMOUNT_PATTERN, re.ASCII)

# Units a broker keeps that ISO 4217 does not list, or lists no longer: code -> decimals.
BROKER_UNITS: Final = {"USC": 2, "USDT": 6, "USDC": 6, "BTC": 8, "CNH": 2}


class UnknownCurrency(ValueError):
    """No currency of this code is known to ISO 4217 or to the broker's own units."""


class BadAmount(ValueError):
    """The text is not an amount of this currency; `code` is stable, the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Currency(msgspec.Struct, frozen=True):
    """A unit of account: `code` as in ISO 4217 or the broker's own, `exponent` decimals."""

    code: str
    exponent: int


class Money(msgspec.Struct, frozen=True):
    """An exact amount: `minor` units, each 10 ** -exponent of the currency; may be negative."""

    minor: int
    currency: Currency

    def __add__(self, other: Money) -> Money:
        assert self.currency == other.currency, (self, other)  # a bug of ours, never an input
        return Money(self.minor + other.minor, self.currency)

    def __sub__(self, other: Money) -> Money:
        return self + -other

    def __neg__(self) -> Money:
        return Money(-self.minor, self.currency)

    @property
    def text(self) -> str:
        """The amount as the wire writes it: `100.00`, `-0.05`, `7` where there are no decimals."""
        return text(self.minor, self.currency.exponent)


def text(minor: int, exponent: int) -> str:
    """Write `minor` units with exactly `exponent` decimals."""
    sign = "-" if minor < 0 else ""
    digits = str(abs(minor)).rjust(exponent + 1, "0")
    if exponent == 0:
        return sign + digits
    return f"{sign}{digits[:-exponent]}.{digits[-exponent:]}"


@lru_cache(maxsize=512)
def currency(code: str) -> Currency:
    """The currency of this code. Raises UnknownCurrency. Source: ISO 4217 and BROKER_UNITS."""
    if code in BROKER_UNITS:
        return Currency(code, BROKER_UNITS[code])
    try:
        found = IsoCurrency(code)
    except ValueError:
        raise UnknownCurrency(f"no currency has the code {code[:16]!r}") from None
    if found.exponent is None:  # metals and testing codes have no minor unit: not money of a client
        raise UnknownCurrency(f"{code} has no minor unit")
    return Currency(code, found.exponent)


def codes() -> tuple[str, ...]:
    """Every code that `currency` knows."""
    listed = (each.code for each in IsoCurrency if each.exponent is not None)
    return (*BROKER_UNITS, *(code for code in listed if code not in BROKER_UNITS))


def parse(amount: str, unit: Currency) -> Money:
    """Read an amount as the wire writes it.

    Only ASCII digits, at most fifteen before the point and the currency's decimals after it. Zero
    is an amount: whether it is allowed is for the caller to say.

    raises  BadAmount `amount-malformed`, `amount-precision`, or `amount-too-large` where so many
            minor units could not be added up in the books
    """
    if not _AMOUNT.match(amount) or amount.endswith("\n"):
        raise BadAmount("amount-malformed", f"not a plain decimal amount: {amount[:40]!r}")
    whole, _, decimals = amount.partition(".")
    if len(decimals) > unit.exponent:
        raise BadAmount(
            "amount-precision", f"{unit.code} has {unit.exponent} decimals, got {len(decimals)}"
        )
    minor = int(whole + decimals.ljust(unit.exponent, "0"))
    if minor > MINOR_MAX:
        raise BadAmount("amount-too-large", f"more than {text(MINOR_MAX, unit.exponent)}")
    return Money(minor, unit)
