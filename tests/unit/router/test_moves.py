"""What outcomes do to attempts, and steps to payments."""

from __future__ import annotations

from itertools import permutations

import pytest

from router import moves
from router.cascade import Charge, Finish, Wait
from router.intents import Attempt
from router.outcomes import (
    Approved,
    Declined,
    Mismatch,
    NotFound,
    NotSent,
    Outcome,
    Pending,
    Unknown,
)
from router.states import AttemptState as A
from router.states import IllegalMove
from router.states import PaymentState as P
from tests.unit.router.values import NOW, POLICY, after, attempt, payment

APPROVED = Approved("acme_1", 10_000, "EUR")
DECLINED = Declined("iso:96", "technical", "try later", "acme_1", cascade=True)


def apply(
    before: Attempt, outcome: Outcome, seconds: float = 1, *, inquiry: bool = False
) -> Attempt:
    """The attempt after an outcome that came `seconds` after sending."""
    moved = moves.apply(payment(), before, outcome, POLICY, after(seconds), inquiry=inquiry)
    return moved.after


def test_an_approval_ends_the_lease_and_keeps_the_psp_reference() -> None:
    """An answered attempt is held by nobody and knows the PSP's name for it."""
    got = apply(attempt(), APPROVED)
    assert (got.state, got.psp_reference, got.version) == (A.APPROVED, "acme_1", 2)
    assert (got.lease_owner, got.lease_until, got.updated) == ("", None, after(1))


def test_a_decline_keeps_why_and_whether_another_may_follow() -> None:
    """Code, category, message and the taxonomy's word on fallback stay with the attempt."""
    got = apply(attempt(), DECLINED)
    assert (got.state, got.code, got.category, got.message, got.cascade) == (
        A.DECLINED, "iso:96", "technical", "try later", True,
    )  # fmt: skip


def test_a_long_message_of_a_psp_is_cut() -> None:
    """What a peer writes never grows our rows without limit."""
    assert len(apply(attempt(), Declined("x:1", "hard", "m" * 999, "")).message) == 200


@pytest.mark.parametrize(("minor", "code"), [(9_999, "EUR"), (10_001, "EUR"), (10_000, "USD")])
def test_another_amount_than_asked_is_a_mismatch(minor: int, code: str) -> None:
    """An approval of another amount or currency is never taken for the one we asked."""
    moved = moves.apply(payment(), attempt(), Approved("a", minor, code), POLICY, after(1))
    assert moved.after.state is A.MISMATCH
    assert moved.outcome == Mismatch("a", minor, code)


def test_repeated_and_weaker_news_is_absorbed() -> None:
    """A second webhook, or a pending that comes after the end, leaves the row as it is."""
    done = apply(attempt(), APPROVED)
    for news in (APPROVED, DECLINED, Pending("acme_1"), Unknown("read_timeout")):
        assert moves.apply(payment(), done, news, POLICY, after(2)).absorbed


def test_notices_in_any_order_end_in_the_same_state() -> None:
    """Pending and approved may arrive in any order, any of them twice."""
    news = (Pending("acme_1"), APPROVED, APPROVED, Unknown("read_timeout"))
    for order in permutations(news):
        now = attempt()
        for seconds, outcome in enumerate(order):
            now = apply(now, outcome, seconds)
        assert now.state is A.APPROVED


@pytest.mark.parametrize("state", [A.DECLINED, A.NOT_FOUND, A.NOT_SENT])
def test_a_success_after_giving_up_is_late(state: A) -> None:
    """Money that arrives on an attempt given up is seen as such, so it is credited or paid back."""
    moved = moves.apply(payment(), attempt(state), APPROVED, POLICY, after(9))
    assert moved.late
    assert moved.after.state is A.APPROVED
    assert moved.after.code == ""


def test_a_success_in_time_is_not_late() -> None:
    """The ordinary approval is no late success."""
    assert not moves.apply(payment(), attempt(), APPROVED, POLICY, after(1)).late


def test_the_first_lookup_that_counts_is_remembered_and_the_second_proves() -> None:
    """Not found moves the attempt only when read twice after the grace, a gap apart."""
    unknown = apply(attempt(), Unknown("read_timeout"), 2)
    early = apply(unknown, NotFound(), 5, inquiry=True)
    assert (early.state, early.not_found_at, early.inquiries) == (A.UNKNOWN, None, 1)
    first = apply(early, NotFound(), 30, inquiry=True)
    assert (first.state, first.not_found_at) == (A.UNKNOWN, after(30))
    soon = apply(first, NotFound(), 35, inquiry=True)
    assert (soon.state, soon.not_found_at) == (A.UNKNOWN, after(30))
    assert apply(soon, NotFound(), 40, inquiry=True).state is A.NOT_FOUND


@pytest.mark.parametrize("silence", [NotSent("conn_refused"), Unknown("read_timeout")])
def test_an_inquiry_without_an_answer_says_nothing_of_the_charge(silence: Outcome) -> None:
    """An inquiry that failed counts as asked and leaves the attempt unknown, never not sent."""
    unknown = apply(attempt(), Unknown("read_timeout"), 2)
    got = apply(unknown, silence, 5, inquiry=True)
    assert (got.state, got.inquiries, got.updated) == (A.UNKNOWN, 1, after(5))


def test_a_pending_charge_is_never_called_not_found() -> None:
    """A PSP that once had the charge does not lose it by one strange answer."""
    pending = apply(attempt(), Pending("acme_1"), 1)
    first = apply(pending, NotFound(), 40, inquiry=True)
    assert apply(first, NotFound(), 80, inquiry=True).state is A.PENDING


def test_an_inquiry_answered_after_a_webhook_changes_nothing() -> None:
    """A lookup that comes back when the notice has already decided is old news."""
    done = apply(attempt(), APPROVED)
    assert apply(done, NotFound(), 9, inquiry=True) is done


def test_an_expired_lease_makes_the_attempt_unknown() -> None:
    """A sender that died leaves an attempt that may have charged."""
    got = apply(attempt(), moves.LEASE_EXPIRED, 6)
    assert (got.state, got.code) == (A.UNKNOWN, "lease_expired")


def test_not_found_cannot_answer_a_charge() -> None:
    """Only an inquiry can find nothing; anything else is a bug."""
    with pytest.raises(IllegalMove):
        apply(attempt(), NotFound())


def test_a_new_attempt_is_sent_under_a_lease() -> None:
    """The row that is committed before the first byte says who sends and until when."""
    got = moves.sent(payment(), 1, "acme", "AT000000000000000009", "r1", after(5), NOW)
    assert (got.state, got.lease_owner, got.lease_until, got.no) == (A.SENT, "r1", after(5), 1)


def test_a_finished_payment_is_due_no_more() -> None:
    """An end takes the payment out of the resolver's sight, with its reason."""
    got = moves.follow(payment(), Finish(P.DECLINED, "hard"))
    assert (got.state, got.reason, got.due_at, got.version) == (P.DECLINED, "hard", None, 2)


def test_a_finished_payment_stays_due_while_an_attempt_is_open() -> None:
    """An approved payment leaves the resolver's sight only with its last open attempt."""
    approved = moves.follow(payment(), Finish(P.APPROVED, "", after(5)))
    assert (approved.state, approved.due_at) == (P.APPROVED, after(5))
    rested = moves.follow(approved, Finish(P.APPROVED))
    assert (rested.state, rested.due_at, rested.version) == (P.APPROVED, None, 3)


def test_waiting_moves_only_the_time() -> None:
    """A waiting payment is looked at again when the step says."""
    got = moves.follow(payment(), Wait(after(60)))
    assert (got.state, got.due_at) == (P.IN_PROGRESS, after(60))


def test_a_step_that_changes_nothing_gives_the_same_value() -> None:
    """No change is no row: the caller sees it by identity."""
    walking, done = payment(), payment(state=P.APPROVED, due_at=None)
    assert moves.follow(walking, Charge("bolt", 2)) is walking
    assert moves.follow(walking, Wait(after(5))) is walking
    assert moves.follow(done, Finish(P.APPROVED)) is done
