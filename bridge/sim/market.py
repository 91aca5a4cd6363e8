"""Symbols of the simulated platform and where their prices wander.

Knows what a symbol is traded in, by name. Refuses to know a real price: it is chance from a seed.
"""

from __future__ import annotations

from random import Random
from typing import Final

import msgspec

from bridge.sim.trades import LOT


class Instrument(msgspec.Struct, frozen=True):
    """What is fixed of a symbol.

    digits    decimals of its price; contract  units of one lot; quote  the currency of its profit
    start     a price in points around which it wanders; step  its volumes are multiples of it
    """

    symbol: str
    digits: int = 5
    contract: int = 100_000
    quote: str = "USD"
    start: int = 100_000
    step: int = LOT // 100


_TABLE: Final = (
    Instrument("EURUSD", start=108_400),
    Instrument("GBPUSD", start=127_100),
    Instrument("AUDUSD", start=65_900),
    Instrument("NZDUSD", start=60_200),
    Instrument("USDCHF", quote="CHF", start=88_300),
    Instrument("USDCAD", quote="CAD", start=136_800),
    Instrument("USDJPY", 3, quote="JPY", start=154_200),
    Instrument("EURGBP", quote="GBP", start=85_300),
    Instrument("EURJPY", 3, quote="JPY", start=167_100),
    Instrument("GBPJPY", 3, quote="JPY", start=196_000),
    Instrument("XAUUSD", 2, 100, start=264_000),
    Instrument("XAGUSD", 3, 5_000, start=31_200),
    Instrument("US500", 1, 10, start=55_900, step=LOT // 10),
    Instrument("DE40", 1, 10, "EUR", start=226_000, step=LOT // 10),
    # Its volumes are finer than the older field of the wire can say.
    Instrument("BTCUSD", 2, 1, start=9_400_000, step=LOT // 100_000),
    Instrument("ETHUSD", 2, 1, start=331_000, step=LOT // 100_000),
)
INSTRUMENTS: Final = {each.symbol: each for each in _TABLE}
DEFAULT_SYMBOLS: Final = ("EURUSD", "GBPUSD", "USDJPY", "XAUUSD")
_USD_E4: Final = {
    "USD": 10_000,
    "EUR": 10_840,
    "GBP": 12_710,
    "CHF": 11_320,
    "JPY": 65,
    "CAD": 7_310,
}


def instrument(symbol: str) -> Instrument:
    """What is known of a symbol; one that nobody has heard of is a pair against the dollar."""
    return INSTRUMENTS.get(symbol) or Instrument(symbol)


def rate_e8(quote: str, currency: str) -> int:
    """From a symbol's currency of profit to an account's, 1e-8; strange ones are worth a dollar."""
    return _USD_E4.get(quote, 10_000) * 100_000_000 // _USD_E4.get(currency, 10_000)


def profit(what: Instrument, points: int, volume: int, rate: int, money_digits: int) -> int:
    """What a movement in the holder's favour makes of a volume, minor units, cut towards less."""
    exact: int = points * volume * what.contract * rate * 10**money_digits
    worth: int = exact // (LOT * 100_000_000 * 10**what.digits)
    return worth


class Market:
    """Prices that wander: each look moves one a little, never a fifth away from its start."""

    def __init__(self, symbols: tuple[str, ...], random: Random) -> None:
        self._random = random
        self._instruments = [instrument(symbol) for symbol in symbols]
        self._prices = {each.symbol: each.start for each in self._instruments}

    def pick(self) -> Instrument:
        """Any of the symbols."""
        return self._instruments[int(self._random.random() * len(self._instruments))]

    def price(self, what: Instrument) -> int:
        """What the symbol costs now, in points."""
        reach = max(2, what.start // 4_000)
        price = self._prices[what.symbol] + int((self._random.random() * 2 - 1) * reach)
        price = min(max(price, what.start * 4 // 5), what.start * 6 // 5)
        self._prices[what.symbol] = price
        return price
