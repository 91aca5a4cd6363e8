"""Ids: our own references, twenty ASCII characters that fit every peer's comment field.

Knows how an id is made and recognised. Refuses to know clocks and chance: both are given.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford base32: no I, L, O, U
LENGTH: Final = 20
TIME_BITS, CHANCE_BITS = 45, 45  # milliseconds last until the year 3084; together 18 symbols

PREFIXES: Final = {
    "CL": "client",
    "AC": "trading account",
    "PY": "payment",
    "AT": "payment attempt, our reference at the provider",
    "BO": "balance operation, our reference on the platform",
    "HD": "hold",
    "IT": "item",
    "AP": "approval",
    "CR": "correlation",
    "CA": "change of attribution",
    "DG": "delegation",
    "GR": "grant of a role",
    "KY": "api key",
    "CE": "certificate of a caller",
    "SI": "sign-in, a session of a person",
    "AU": "audit record",
    "RP": "replica",
    "RF": "refund, our reference at the provider",
    "RV": "version of the rulebook",
    "PA": "partner",
    "CT": "partner's contract",
}
_SHAPE = re.compile(f"[A-Z]{{2}}[{ALPHABET}]{{18}}", re.ASCII)
_PAIRS = [a + b for a in ALPHABET for b in ALPHABET]


class Ids:
    """Makes ids that sort by time of making.

    now_ms        the clock, milliseconds since the epoch
    random_bytes  the source of chance, as os.urandom
    """

    def __init__(self, now_ms: Callable[[], int], random_bytes: Callable[[int], bytes]) -> None:
        self._now_ms = now_ms
        self._random_bytes = random_bytes

    def new(self, prefix: str) -> str:
        """A new id; `prefix` is one of PREFIXES."""
        assert prefix in PREFIXES, prefix
        chance = int.from_bytes(self._random_bytes(6), "big") >> 3
        return prefix + _symbols((self._now_ms() << CHANCE_BITS) | chance)


def _symbols(number: int) -> str:
    """Ninety bits as eighteen symbols, two symbols a step."""
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(80, -1, -10)])


def is_id(text: str, prefix: str) -> bool:
    """Whether `text` has the shape of an id of this prefix; says nothing of its existence."""
    return text.startswith(prefix) and _SHAPE.fullmatch(text) is not None
