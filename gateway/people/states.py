"""The ten states of a client, and the table of moves between them.

Knows which move exists, which needs a second person, and what a state permits. Refuses to know
who asks and how it is stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Literal

from gateway.control.refusals import Refusal


class State(StrEnum):
    """Where a client stands, from first touch to funded account."""

    NEW_LEAD = "new_lead"
    CONTACTED = "contacted"
    REGISTERED = "registered"
    KYC_PENDING = "kyc_pending"
    KYC_UNDER_REVIEW = "kyc_under_review"
    APPROVED = "approved"
    DEPOSIT_ENABLED = "deposit_enabled"
    TRADING_ENABLED = "trading_enabled"
    RESTRICTED = "restricted"
    ARCHIVED = "archived"


class Need(StrEnum):
    """What a move asks for."""

    NOTHING = "nothing"  # the command moves the client
    CHECKER = "checker"  # another person must agree
    CHECKER_UNLESS_LOW_RISK = "checker_unless_low_risk"  # a low risk band passes by itself
    CHECKER_AND_ORIGIN = "checker_and_origin"  # as CHECKER, and only to where the client came from


Block = Literal["login", "deposit", "trade", "withdraw"]
RiskBand = Literal["low", "medium", "high"]

S, N = State, Need

MOVES: Final[Mapping[tuple[State, State], Need]] = {
    (S.NEW_LEAD, S.CONTACTED): N.NOTHING,
    (S.NEW_LEAD, S.REGISTERED): N.NOTHING,
    (S.NEW_LEAD, S.ARCHIVED): N.NOTHING,
    (S.CONTACTED, S.REGISTERED): N.NOTHING,
    (S.CONTACTED, S.ARCHIVED): N.NOTHING,
    (S.REGISTERED, S.KYC_PENDING): N.NOTHING,
    (S.REGISTERED, S.RESTRICTED): N.NOTHING,
    (S.REGISTERED, S.ARCHIVED): N.NOTHING,
    (S.KYC_PENDING, S.KYC_UNDER_REVIEW): N.NOTHING,
    (S.KYC_PENDING, S.RESTRICTED): N.NOTHING,
    (S.KYC_PENDING, S.ARCHIVED): N.NOTHING,
    (S.KYC_UNDER_REVIEW, S.APPROVED): N.CHECKER_UNLESS_LOW_RISK,
    (S.KYC_UNDER_REVIEW, S.KYC_PENDING): N.NOTHING,  # documents must come again
    (S.KYC_UNDER_REVIEW, S.RESTRICTED): N.NOTHING,  # a hold must not wait for a second person
    (S.KYC_UNDER_REVIEW, S.ARCHIVED): N.NOTHING,
    (S.APPROVED, S.DEPOSIT_ENABLED): N.NOTHING,
    (S.APPROVED, S.KYC_PENDING): N.NOTHING,
    (S.APPROVED, S.RESTRICTED): N.NOTHING,
    (S.DEPOSIT_ENABLED, S.TRADING_ENABLED): N.NOTHING,
    (S.DEPOSIT_ENABLED, S.KYC_PENDING): N.NOTHING,
    (S.DEPOSIT_ENABLED, S.RESTRICTED): N.NOTHING,
    (S.TRADING_ENABLED, S.RESTRICTED): N.CHECKER,
    (S.TRADING_ENABLED, S.KYC_PENDING): N.NOTHING,
    (S.TRADING_ENABLED, S.ARCHIVED): N.CHECKER,
    (S.RESTRICTED, S.REGISTERED): N.CHECKER_AND_ORIGIN,
    (S.RESTRICTED, S.KYC_PENDING): N.CHECKER_AND_ORIGIN,
    (S.RESTRICTED, S.KYC_UNDER_REVIEW): N.CHECKER_AND_ORIGIN,
    (S.RESTRICTED, S.APPROVED): N.CHECKER_AND_ORIGIN,
    (S.RESTRICTED, S.DEPOSIT_ENABLED): N.CHECKER_AND_ORIGIN,
    (S.RESTRICTED, S.TRADING_ENABLED): N.CHECKER_AND_ORIGIN,
    (S.RESTRICTED, S.ARCHIVED): N.CHECKER,
    (S.ARCHIVED, S.REGISTERED): N.CHECKER,  # reopened, with a full review ahead
}

DEPOSIT: Final = frozenset({S.DEPOSIT_ENABLED, S.TRADING_ENABLED})
OPEN_ACCOUNT: Final = frozenset({S.APPROVED, S.DEPOSIT_ENABLED, S.TRADING_ENABLED})


def needs_checker(before: State, after: State, risk: str, came_from: str) -> bool:
    """Whether a second person must agree to this move.

    Raises Refusal `client-transition` when the table has no such move for this client.
    """
    need = MOVES.get((before, after))
    if need is None:
        raise _no_such_move(before, after)
    if need is Need.CHECKER_AND_ORIGIN and after != came_from:
        raise _no_such_move(before, after)
    if need is Need.CHECKER_UNLESS_LOW_RISK:
        return risk != "low"
    return need is not Need.NOTHING


def _no_such_move(before: State, after: State) -> Refusal:
    return Refusal(
        "client-transition", f"a client does not move from {before} to {after}", {"state": before}
    )
