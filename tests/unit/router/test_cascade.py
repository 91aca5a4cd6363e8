"""What may follow the attempts made so far."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from router.cascade import Charge, Finish, Step, Wait, next_step, surplus
from router.intents import Attempt, Payment
from router.states import AttemptState as A
from router.states import PaymentState as P
from tests.unit.router.values import POLICY, after, attempt, payment, route

THREE = route("acme", "bolt", "coral")
SOFT = {"category": "technical", "code": "iso:96", "cascade": True}
HARD = {"category": "hard", "code": "iso:04"}


def step(
    *attempts: Attempt, of: Payment | None = None, seconds: float = 1, **policy: object
) -> Step:
    """The next step at `seconds` after the payment was made."""
    rules = replace(POLICY, **policy)
    return next_step(of or payment(), attempts, THREE, rules, after(seconds))


@pytest.mark.parametrize(
    ("last", "wanted"),
    [
        (attempt(A.DECLINED, **SOFT), Charge("bolt", 2)),
        (attempt(A.NOT_SENT, code="conn_refused"), Charge("bolt", 2)),
        (attempt(A.NOT_FOUND), Charge("bolt", 2)),
        (attempt(A.DECLINED, **HARD), Finish(P.DECLINED, "hard")),
        (attempt(A.DECLINED, category="fraud"), Finish(P.DECLINED, "fraud")),
        (attempt(A.DECLINED, category="unmapped"), Finish(P.DECLINED, "unmapped")),
        (attempt(A.APPROVED), Finish(P.APPROVED)),
        (attempt(A.MISMATCH), Finish(P.REVIEW, "amount_mismatch")),
        (attempt(A.SENT), Wait(after(5))),
        (attempt(A.UNKNOWN), Wait(after(5))),
        (attempt(A.PENDING), Wait(after(5))),
    ],
    ids=lambda value: value.state.value if isinstance(value, Attempt) else type(value).__name__,
)
def test_what_follows_the_first_attempt(last: Attempt, wanted: Step) -> None:
    """Soft, not sent and not found go on; hard stops; open blocks; money decides."""
    assert step(last) == wanted


def test_the_walk_begins_with_the_first_candidate() -> None:
    """Without attempts the first candidate of the route is charged, as number one."""
    assert step() == Charge("acme", 1)


def test_a_route_without_candidates_is_declined_with_its_reason() -> None:
    """A refused route is never charged."""
    refused = route(refused="high-risk")
    assert next_step(payment(), (), refused, POLICY, after(1)) == Finish(P.DECLINED, "high-risk")


@pytest.mark.parametrize("state", [A.SENT, A.UNKNOWN, A.PENDING])
def test_an_open_attempt_blocks_everything_that_could_follow(state: A) -> None:
    """While money may still move at one PSP no other is charged, however many have failed."""
    soft = attempt(A.DECLINED, 1, **SOFT)
    blocked = step(soft, attempt(state, 2))
    assert isinstance(blocked, Wait)


def test_an_exhausted_schedule_means_review_and_never_failure() -> None:
    """When asking has an end without an answer, a person must look; nothing is charged again."""
    silent = attempt(A.UNKNOWN, inquiries=3, updated=after(60))
    assert step(silent, seconds=61) == Finish(P.REVIEW, "unresolved")


def test_the_walk_ends_after_the_last_candidate_with_the_last_reason() -> None:
    """When every PSP of the route declined softly, the payment is declined with the last word."""
    soft = [attempt(A.DECLINED, no, **SOFT) for no in (1, 2, 3)]
    assert step(*soft, attempts_max=9) == Finish(P.DECLINED, "technical")


def test_no_more_attempts_than_the_policy_allows() -> None:
    """`attempts_max` ends the walk although candidates are left."""
    assert step(attempt(A.NOT_SENT), attempts_max=1) == Finish(P.DECLINED, "not_sent")


@pytest.mark.parametrize("last", [attempt(A.NOT_FOUND), attempt(A.DECLINED, **SOFT)])
def test_nothing_is_charged_after_the_walk_limit(last: Attempt) -> None:
    """The client has gone: a late resolution lets the payment expire instead of charging on."""
    assert step(last, seconds=100) == Charge("bolt", 2)
    assert step(last, seconds=100.001) == Finish(P.DECLINED, "expired")


def test_a_declined_payment_is_never_charged_again() -> None:
    """After the walk has ended nothing but an arriving success changes the payment."""
    declined = payment(state=P.DECLINED, reason="hard", due_at=None)
    assert step(attempt(A.DECLINED, **SOFT), of=declined) == Finish(P.DECLINED, "hard")


def test_a_late_success_approves_a_declined_payment_and_says_so() -> None:
    """Money that arrives after all is credited once, with its own reason for the operator."""
    declined = payment(state=P.DECLINED, reason="hard", due_at=None)
    assert step(attempt(A.APPROVED), of=declined) == Finish(P.APPROVED, "late_success")


def test_review_ends_when_the_open_attempt_is_answered() -> None:
    """A payment in review follows its attempt, but never charges another PSP."""
    review = payment(state=P.REVIEW, reason="unresolved", due_at=None)
    assert step(attempt(A.APPROVED), of=review) == Finish(P.APPROVED)
    answered = step(attempt(A.DECLINED, **SOFT), of=review)
    assert isinstance(answered, Finish)
    assert answered.state is P.DECLINED


def test_the_order_of_the_attempts_does_not_matter() -> None:
    """The last attempt is the one with the highest number, however they are handed in."""
    soft, hard = attempt(A.DECLINED, 1, **SOFT), attempt(A.DECLINED, 2, **HARD)
    assert step(hard, soft) == step(soft, hard) == Finish(P.DECLINED, "hard")


def test_a_second_approval_is_surplus() -> None:
    """What was charged beyond the attempt that paid is to be refunded."""
    late, paid = attempt(A.APPROVED, 1), attempt(A.APPROVED, 2)
    assert surplus([late, paid], paid.reference) == (late,)


def test_an_open_attempt_beside_an_arrived_one_is_still_looked_at() -> None:
    """A late success ends the walk, but what the next PSP may have charged must be found."""
    late, open_one = attempt(A.APPROVED, 1), attempt(A.SENT, 2)
    assert step(late, open_one) == Finish(P.APPROVED, "", after(5))
    approved = payment(state=P.APPROVED)
    assert step(late, attempt(A.UNKNOWN, 2), of=approved, seconds=6) == Finish(
        P.APPROVED, "", after(6)
    )
    assert step(late, attempt(A.DECLINED, 2), of=approved) == Finish(P.APPROVED)
