"""When an open attempt is looked at again."""

from __future__ import annotations

import pytest

from router.resolver import may_call_not_found, next_due
from router.states import AttemptState as A
from tests.unit.router.values import POLICY, after, attempt


def test_a_sent_attempt_is_due_when_its_lease_ends() -> None:
    """Nobody asks about a charge that may still be under way."""
    assert next_due(attempt(A.SENT), POLICY, after(1)) == after(5)
    assert next_due(attempt(A.SENT), POLICY, after(9)) == after(9)


@pytest.mark.parametrize(
    ("inquiries", "updated", "due"),
    [
        (0, 2, 5),  # the first age
        (0, 20, 20.5),  # its age has passed: at once
        (1, 5, 15),
        (2, 15, 60),
        (1, 40, 60),  # a pause of ours skipped an age
    ],
)
def test_inquiries_follow_the_ages_of_the_policy(
    inquiries: int, updated: float, due: float
) -> None:
    """Each inquiry waits for the next age after the last news, counted from the sending."""
    open_one = attempt(A.UNKNOWN, inquiries=inquiries, updated=after(updated))
    assert next_due(open_one, POLICY, after(updated + 0.5 if updated == 20 else updated)) == after(
        due
    )


def test_after_the_last_age_there_is_nothing_more_to_ask() -> None:
    """The schedule ends: the caller must turn to a person."""
    assert next_due(attempt(A.UNKNOWN, inquiries=3, updated=after(60)), POLICY, after(61)) is None


def test_a_leased_attempt_is_left_to_its_holder() -> None:
    """While somebody asks, the attempt is due when that lease ends and not before."""
    held = attempt(A.UNKNOWN, lease_owner="r2", lease_until=after(30))
    assert next_due(held, POLICY, after(20)) == after(30)


def test_the_second_lookup_comes_after_the_gap_even_beyond_the_ages() -> None:
    """A first "not found" that counts is followed by the second as soon as that may count."""
    once = attempt(A.UNKNOWN, inquiries=3, updated=after(60), not_found_at=after(60))
    assert next_due(once, POLICY, after(61)) == after(70)


@pytest.mark.parametrize(
    ("state", "first", "now", "proof"),
    [
        (A.UNKNOWN, 30, 40, True),
        (A.UNKNOWN, 30, 39.9, False),  # the gap
        (A.UNKNOWN, 5, 29, False),  # the grace
        (A.UNKNOWN, None, 40, False),  # no first lookup
        (A.PENDING, 30, 40, False),  # the PSP had it
        (A.SENT, 30, 40, False),
    ],
)
def test_not_found_is_proven_by_two_lookups_after_the_grace(
    state: A, first: float | None, now: float, proof: bool
) -> None:
    """Absence counts after the PSP's grace, twice, far enough apart, and only for unknown."""
    seen = attempt(state, not_found_at=None if first is None else after(first))
    assert may_call_not_found(seen, POLICY, after(now)) is proof
