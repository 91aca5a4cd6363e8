"""The states of a payment and of an attempt, as tables of moves.

Knows which event may follow which state. Refuses to know who saw the event and what it costs: a
move that is not in the table raises, because it is a bug and not an input.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class PaymentState(StrEnum):
    """What the client's order became. `credited` is a fact of the books, not a state."""

    IN_PROGRESS = "in_progress"
    APPROVED = "approved"
    DECLINED = "declined"
    REVIEW = "review"


class PaymentEvent(StrEnum):
    """What may happen to a payment."""

    APPROVED = "approved"
    DECLINED = "declined"
    REVIEWED = "reviewed"  # nobody can say what happened, or another amount was charged


class AttemptState(StrEnum):
    """What one charge at one PSP became."""

    SENT = "sent"
    NOT_SENT = "not_sent"
    PENDING = "pending"
    UNKNOWN = "unknown"
    APPROVED = "approved"
    DECLINED = "declined"
    NOT_FOUND = "not_found"
    MISMATCH = "mismatch"


class AttemptEvent(StrEnum):
    """What may happen to an attempt; the outcomes of `outcomes.py`, in the same words."""

    APPROVED = "approved"
    DECLINED = "declined"
    PENDING = "pending"
    NOT_SENT = "not_sent"
    UNKNOWN = "unknown"
    NOT_FOUND = "not_found"
    MISMATCH = "mismatch"


class IllegalMove(AssertionError):
    """An event that cannot happen in this state: a bug of ours."""

    def __init__(self, state: StrEnum, event: StrEnum) -> None:
        super().__init__(f"{type(state).__name__} {state.value}: {event.value} cannot happen")
        self.state = state
        self.event = event


P, PE = PaymentState, PaymentEvent
PAYMENT_MOVES: Final[Mapping[tuple[PaymentState, PaymentEvent], PaymentState]] = {
    (P.IN_PROGRESS, PE.APPROVED): P.APPROVED,
    (P.IN_PROGRESS, PE.DECLINED): P.DECLINED,
    (P.IN_PROGRESS, PE.REVIEWED): P.REVIEW,
    (P.REVIEW, PE.APPROVED): P.APPROVED,
    (P.REVIEW, PE.DECLINED): P.DECLINED,
    (P.REVIEW, PE.REVIEWED): P.REVIEW,
    (P.DECLINED, PE.APPROVED): P.APPROVED,  # late success: the PSP charged after all
    (P.DECLINED, PE.DECLINED): P.DECLINED,
    (P.DECLINED, PE.REVIEWED): P.REVIEW,  # late success of another amount
    (P.APPROVED, PE.APPROVED): P.APPROVED,
    # (APPROVED, DECLINED) and (APPROVED, REVIEWED) are refused: money that came in stays booked.
}

A, AE = AttemptState, AttemptEvent
ATTEMPT_MOVES: Final[Mapping[tuple[AttemptState, AttemptEvent], AttemptState]] = {
    (A.SENT, AE.APPROVED): A.APPROVED,
    (A.SENT, AE.DECLINED): A.DECLINED,
    (A.SENT, AE.PENDING): A.PENDING,
    (A.SENT, AE.NOT_SENT): A.NOT_SENT,
    (A.SENT, AE.UNKNOWN): A.UNKNOWN,
    (A.SENT, AE.MISMATCH): A.MISMATCH,
    # (SENT, NOT_FOUND) is refused: nobody may inquire while the lease of the charge runs.
    (A.PENDING, AE.APPROVED): A.APPROVED,
    (A.PENDING, AE.DECLINED): A.DECLINED,
    (A.PENDING, AE.PENDING): A.PENDING,
    (A.PENDING, AE.UNKNOWN): A.PENDING,  # its notice overtook our own lost answer
    (A.PENDING, AE.NOT_FOUND): A.PENDING,  # it had the charge once: a reading glitch, not a proof
    (A.PENDING, AE.MISMATCH): A.MISMATCH,
    # (PENDING, NOT_SENT) is refused: a PSP cannot hold what never left us.
    (A.UNKNOWN, AE.APPROVED): A.APPROVED,
    (A.UNKNOWN, AE.DECLINED): A.DECLINED,
    (A.UNKNOWN, AE.PENDING): A.PENDING,
    (A.UNKNOWN, AE.NOT_SENT): A.NOT_SENT,  # the lease ran out, then its holder proved it never sent
    (A.UNKNOWN, AE.UNKNOWN): A.UNKNOWN,
    (A.UNKNOWN, AE.NOT_FOUND): A.NOT_FOUND,  # only by the rule of `resolver.may_call_not_found`
    (A.UNKNOWN, AE.MISMATCH): A.MISMATCH,
    # What follows a final answer: a later success is believed, anything weaker is absorbed.
    (A.NOT_SENT, AE.APPROVED): A.APPROVED,  # a PSP that refused us and charged all the same
    (A.NOT_SENT, AE.MISMATCH): A.MISMATCH,
    (A.NOT_SENT, AE.DECLINED): A.NOT_SENT,
    (A.NOT_SENT, AE.PENDING): A.NOT_SENT,
    (A.NOT_SENT, AE.NOT_SENT): A.NOT_SENT,
    (A.NOT_SENT, AE.UNKNOWN): A.NOT_SENT,
    (A.NOT_SENT, AE.NOT_FOUND): A.NOT_SENT,
    (A.DECLINED, AE.APPROVED): A.APPROVED,  # late success
    (A.DECLINED, AE.MISMATCH): A.MISMATCH,
    (A.DECLINED, AE.DECLINED): A.DECLINED,
    (A.DECLINED, AE.PENDING): A.DECLINED,
    (A.DECLINED, AE.UNKNOWN): A.DECLINED,
    (A.DECLINED, AE.NOT_FOUND): A.DECLINED,
    # (DECLINED, NOT_SENT) is refused: it was answered, so it was sent.
    (A.NOT_FOUND, AE.APPROVED): A.APPROVED,  # late success
    (A.NOT_FOUND, AE.MISMATCH): A.MISMATCH,
    (A.NOT_FOUND, AE.DECLINED): A.NOT_FOUND,
    (A.NOT_FOUND, AE.PENDING): A.NOT_FOUND,
    (A.NOT_FOUND, AE.NOT_SENT): A.NOT_FOUND,
    (A.NOT_FOUND, AE.UNKNOWN): A.NOT_FOUND,
    (A.NOT_FOUND, AE.NOT_FOUND): A.NOT_FOUND,
    (A.APPROVED, AE.APPROVED): A.APPROVED,
    (A.APPROVED, AE.DECLINED): A.APPROVED,  # never back: a reversal is an object of its own
    (A.APPROVED, AE.PENDING): A.APPROVED,
    (A.APPROVED, AE.UNKNOWN): A.APPROVED,
    (A.APPROVED, AE.NOT_FOUND): A.APPROVED,
    (A.APPROVED, AE.MISMATCH): A.APPROVED,  # booked as first confirmed
    # (APPROVED, NOT_SENT) is refused.
    (A.MISMATCH, AE.APPROVED): A.MISMATCH,  # a person decides
    (A.MISMATCH, AE.DECLINED): A.MISMATCH,
    (A.MISMATCH, AE.PENDING): A.MISMATCH,
    (A.MISMATCH, AE.UNKNOWN): A.MISMATCH,
    (A.MISMATCH, AE.NOT_FOUND): A.MISMATCH,
    (A.MISMATCH, AE.MISMATCH): A.MISMATCH,
    # (MISMATCH, NOT_SENT) is refused.
}

# Two sets, because members of two StrEnums with one word are equal.
PAYMENT_REFUSED: Final = frozenset({(P.APPROVED, PE.DECLINED), (P.APPROVED, PE.REVIEWED)})
ATTEMPT_REFUSED: Final = frozenset(
    {
        (A.SENT, AE.NOT_FOUND),
        (A.PENDING, AE.NOT_SENT),
        (A.DECLINED, AE.NOT_SENT),
        (A.APPROVED, AE.NOT_SENT),
        (A.MISMATCH, AE.NOT_SENT),
    }
)

OPEN: Final = frozenset({A.SENT, A.PENDING, A.UNKNOWN})  # money may still move: nothing may follow
FAILED: Final = frozenset({A.DECLINED, A.NOT_SENT, A.NOT_FOUND})


def move_payment(state: PaymentState, event: PaymentEvent) -> PaymentState:
    """The state after `event`; raises IllegalMove."""
    if (state, event) not in PAYMENT_MOVES:
        raise IllegalMove(state, event)
    return PAYMENT_MOVES[state, event]


def move_attempt(state: AttemptState, event: AttemptEvent) -> AttemptState:
    """The state after `event`; raises IllegalMove."""
    if (state, event) not in ATTEMPT_MOVES:
        raise IllegalMove(state, event)
    return ATTEMPT_MOVES[state, event]
