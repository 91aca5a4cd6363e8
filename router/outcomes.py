"""What a call to a PSP may end in: done, refused, not sent and unknown, made precise.

Knows the words only. Refuses to know how an answer is read (`psp/connector.py`) and what follows
from it (`moves.py`, `cascade.py`).
"""

from __future__ import annotations

import msgspec


class Approved(msgspec.Struct, frozen=True):
    """The PSP took the money: `minor` units of `currency`, exactly as it says, not as we asked."""

    psp_reference: str
    minor: int
    currency: str


class Declined(msgspec.Struct, frozen=True):
    """The PSP or the issuer refused, finally for this attempt.

    code      the most specific code given, prefixed by its namespace (`iso:51`, `simpay:limit`)
    category  the taxonomy's word (`funds`, `technical`, ...), `unmapped` when it knows none
    cascade   whether another PSP may be tried without asking the client again
    """

    code: str
    category: str
    message: str
    psp_reference: str
    cascade: bool = False


class Pending(msgspec.Struct, frozen=True):
    """The PSP has the charge and has not decided."""

    psp_reference: str


class NotSent(msgspec.Struct, frozen=True):
    """Provably nothing happened at the PSP: another one may be tried at once."""

    reason: str


class Unknown(msgspec.Struct, frozen=True):
    """The request may have had its effect: only an inquiry by our own reference may follow."""

    reason: str


class NotFound(msgspec.Struct, frozen=True):
    """Answer to an inquiry: the PSP knows no charge of our reference (yet)."""


class Mismatch(msgspec.Struct, frozen=True):
    """The PSP approved something else than we asked: a person must look, nothing is credited."""

    psp_reference: str
    minor: int
    currency: str


Outcome = Approved | Declined | Pending | NotSent | Unknown | NotFound | Mismatch


def checked(outcome: Outcome, minor: int, currency: str) -> Outcome:
    """`outcome`, but an approval of another amount or currency than asked becomes a Mismatch."""
    if not isinstance(outcome, Approved):
        return outcome
    if outcome.minor == minor and outcome.currency == currency:
        return outcome
    return Mismatch(outcome.psp_reference, outcome.minor, outcome.currency)
