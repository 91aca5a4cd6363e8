"""Rates a lot: which one of a plan a symbol gets, as an exact whole number.

Knows one order: the symbol itself, then the symbol group it stands in, then none. Refuses to know
chains and volumes, and to choose between two rates that are equally close: that is a mistake of
the plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final

import msgspec

E8: Final = 8  # decimals of a minor unit that a rate keeps; a volume keeps as many of a lot


class Rate(msgspec.Struct, frozen=True):
    """What one closed lot is worth.

    per_lot  major units as text, without zeros at its end
    e8       the same in 1e-8 minor units: times a volume in 1e-8 lots it is the exact amount in
             1e-16 minor units
    symbol   the symbol it is for, or ""
    group    the symbol group it is for, or "", with the symbols that were in it
    """

    per_lot: str
    e8: int
    symbol: str = ""
    group: str = ""
    symbols: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """What the rate is for, as people read it: `symbol EURUSD`, `group fx-majors`."""
        return f"symbol {self.symbol}" if self.symbol else f"group {self.group}"


def rate(
    per_lot: str, exponent: int, *, symbol: str = "", group: str = "", symbols: Sequence[str] = ()
) -> Rate:
    """A rate of `per_lot` major units of a currency with `exponent` decimals."""
    exact = Decimal(per_lot)
    e8 = exact.scaleb(exponent + E8)
    assert e8 == int(e8) >= 0, per_lot  # eight decimals at most: the rulebook's shape says so
    return Rate(format(exact.normalize(), "f"), int(e8), symbol, group, tuple(sorted(symbols)))


def by_symbol(rates: Sequence[Rate]) -> Mapping[str, Rate]:
    """The rate of each symbol that has one: the symbol's own before its group's."""
    found = {symbol: each for each in rates for symbol in each.symbols}
    found.update({each.symbol: each for each in rates if each.symbol})
    return found


def clashes(rates: Sequence[Rate]) -> Iterator[tuple[int, str, int]]:
    """Rates that are as close to a symbol as an earlier one: (number, symbol, earlier number)."""
    own: dict[str, int] = {}
    grouped: dict[str, int] = {}
    for number, each in enumerate(rates):
        taken, symbols = (own, (each.symbol,)) if each.symbol else (grouped, each.symbols)
        for symbol in symbols:
            if symbol in taken:
                yield number, symbol, taken[symbol]
                break
            taken[symbol] = number
