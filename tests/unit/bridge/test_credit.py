"""What may follow a lookup: the truth table of an operation whose outcome is not known."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.credit import Altered, Duplicate, Repeat, Ticket, Wait, next_step
from bridge.outcomes import Done, Unknown
from bridge.states import OperationState
from tests.unit.bridge.test_states import AT, OPERATION

LOST = msgspec.structs.replace(
    OPERATION, state=OperationState.UNKNOWN, sent_at=AT, unknown_at=AT + timedelta(seconds=10)
)
SETTLE_S = 60.0
SETTLED = AT + timedelta(seconds=70)


def ticket(number: int, amount: str = "100.00") -> Ticket:
    """A deal that was found."""
    return Ticket(ticket=number, amount=Decimal(amount), at=AT)


@pytest.mark.parametrize("now", [AT, SETTLED, SETTLED + timedelta(days=1)])
def test_what_is_found_is_done_at_any_time(now: datetime) -> None:
    """One deal with our reference and amount ends the question, also before the settle time."""
    step = next_step(LOST, (ticket(7),), now, SETTLE_S)
    assert isinstance(step, Done)
    assert step.ticket == 7


def test_two_deals_are_a_duplicate_with_both_tickets() -> None:
    """A second deal with one reference is named, for a person to reverse."""
    assert next_step(LOST, (ticket(7), ticket(8)), AT, SETTLE_S) == Duplicate(
        tickets=(ticket(7), ticket(8))
    )


@pytest.mark.parametrize("amount", ["100.01", "-100.00", "100.004", "99.999"])
def test_another_amount_is_not_taken_for_ours(amount: str) -> None:
    """A deal with our reference and another amount is for a person, never done."""
    assert isinstance(next_step(LOST, (ticket(7, amount),), AT, SETTLE_S), Altered)


def test_an_amount_in_other_decimals_is_the_same_money() -> None:
    """The platform may keep more decimals than the currency has."""
    assert isinstance(next_step(LOST, (ticket(7, "100.0000"),), AT, SETTLE_S), Done)


def test_before_the_settle_time_absence_proves_nothing() -> None:
    """An empty lookup within the settle time does not count and asks to look when it has passed."""
    step = next_step(LOST, (), SETTLED - timedelta(microseconds=1), SETTLE_S)
    assert step == Wait(until=SETTLED, lookups=0)


def test_it_takes_two_empty_lookups_after_the_settle_time() -> None:
    """The first empty lookup waits for a second; only the second allows a repeat."""
    first = next_step(LOST, (), SETTLED, SETTLE_S)
    assert first == Wait(until=SETTLED + timedelta(seconds=10), lookups=1)
    looked = msgspec.structs.replace(LOST, lookups=1)
    assert next_step(looked, (), SETTLED + timedelta(seconds=10), SETTLE_S) == Repeat(lookups=2)


@given(lookups=st.integers(0, 50), seconds=st.integers(0, 10**6))
def test_a_lookup_that_failed_never_allows_a_repeat(lookups: int, seconds: int) -> None:
    """Silence of the platform is no proof, however often and however late."""
    looked = msgspec.structs.replace(LOST, lookups=lookups)
    step = next_step(looked, Unknown(reason="timeout"), AT + timedelta(seconds=seconds), SETTLE_S)
    assert isinstance(step, Wait)
    assert step.lookups == lookups


def test_an_operation_found_as_sent_settles_from_its_sending() -> None:
    """After a crash only the time of sending is known; the settle time runs from there."""
    crashed = msgspec.structs.replace(LOST, state=OperationState.SENT, unknown_at=None)
    step = next_step(crashed, (), AT + timedelta(seconds=59), SETTLE_S)
    assert step == Wait(until=AT + timedelta(seconds=60), lookups=0)
