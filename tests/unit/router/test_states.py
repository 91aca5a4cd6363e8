"""The tables of moves."""

from __future__ import annotations

from itertools import product

import pytest

from router.states import (
    ATTEMPT_MOVES,
    ATTEMPT_REFUSED,
    OPEN,
    PAYMENT_MOVES,
    PAYMENT_REFUSED,
    AttemptEvent,
    AttemptState,
    IllegalMove,
    PaymentEvent,
    PaymentState,
    move_attempt,
    move_payment,
)


def test_every_pair_of_payment_state_and_event_is_in_the_table_or_refused() -> None:
    """An event moves a payment, is absorbed by it, or is refused: nobody has to guess."""
    assert PAYMENT_MOVES.keys() | PAYMENT_REFUSED == {*product(PaymentState, PaymentEvent)}
    assert not PAYMENT_MOVES.keys() & PAYMENT_REFUSED


def test_every_pair_of_attempt_state_and_event_is_in_the_table_or_refused() -> None:
    """An event moves an attempt, is absorbed by it, or is refused: nobody has to guess."""
    assert ATTEMPT_MOVES.keys() | ATTEMPT_REFUSED == {*product(AttemptState, AttemptEvent)}
    assert not ATTEMPT_MOVES.keys() & ATTEMPT_REFUSED


@pytest.mark.parametrize(("state", "event"), sorted(PAYMENT_REFUSED))
def test_a_refused_move_of_a_payment_raises(state: PaymentState, event: PaymentEvent) -> None:
    """What cannot happen to a payment is a bug and says so."""
    with pytest.raises(IllegalMove):
        move_payment(state, event)


@pytest.mark.parametrize(("state", "event"), sorted(ATTEMPT_REFUSED))
def test_a_refused_move_of_an_attempt_raises(state: AttemptState, event: AttemptEvent) -> None:
    """What cannot happen to an attempt is a bug and says so."""
    with pytest.raises(IllegalMove):
        move_attempt(state, event)


def test_an_approved_attempt_never_goes_back() -> None:
    """Money that came in stays in: no later news undoes an approval."""
    after = {to for (state, _), to in ATTEMPT_MOVES.items() if state is AttemptState.APPROVED}
    assert after == {AttemptState.APPROVED}


def test_no_move_leads_back_to_an_open_state() -> None:
    """Weaker news never reopens an attempt that is final."""
    reopened = [
        (state, event)
        for (state, event), to in ATTEMPT_MOVES.items()
        if state not in OPEN and to in OPEN
    ]
    assert reopened == []


def test_only_approval_moves_a_declined_payment_to_approved() -> None:
    """A late success is the one way from declined to approved."""
    ways = [e for (s, e), to in PAYMENT_MOVES.items() if s == "declined" and to == "approved"]
    assert ways == [PaymentEvent.APPROVED]
