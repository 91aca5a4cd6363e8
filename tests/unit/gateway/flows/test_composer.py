"""What each outcome makes of a deposit: rows, entries, items and events, composed without I/O."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.flows.settlement import Case, Settlement
from router.moves import EVENTS
from router.outcomes import Outcome, checked
from router.states import ATTEMPT_REFUSED, OPEN, AttemptState, PaymentState
from tests.unit.gateway.flows import values as v
from tests.unit.gateway.flows.values import Clock, booked, composer, items, of, told
from tests.unit.router.values import POLICY, after, attempt

A, P = AttemptState, PaymentState
FIRST = "AT000000000000000001"
SECOND = "AT000000000000000002"
PAYMENT = "PY000000000000000001"


def settle(case: Case, outcome: Outcome, reference: str = FIRST, **more: bool) -> Settlement:
    """The settlement of an outcome at the clock's beginning."""
    return composer(Clock()).settle(case, reference, outcome, "test", **more)


def test_an_approval_credits_the_wallet_and_tells_the_caller() -> None:
    """An approved charge ends the payment, books one deposit, and tells its caller once."""
    done = settle(v.case(), v.APPROVED)
    assert done.case.payment.state is P.APPROVED
    assert done.decided
    assert done.charge is None
    assert booked(done) == [("deposit", PAYMENT)]
    assert told(done) == [("subscriber:crm", "payment.approved")]
    assert [row[0] for row in of(done.changes, "ledger.fact.insert")] == ["DepositSettled"]
    assert items(done) == []


def test_an_approval_for_an_account_queues_its_transfer_in_the_same_unit() -> None:
    """When a deposit names a trading account, its money leaves the wallet in the unit that books
    it, with the balance operation that carries it.
    """
    done = settle(v.case(account=v.account(), account_id=v.account().id), v.APPROVED)
    operation = done.case.operation
    assert operation is not None
    assert operation.payment_id == PAYMENT
    assert operation.amount_minor == 10_000
    assert booked(done) == [("deposit", PAYMENT), ("transfer_out", operation.id)]
    assert [row[0] for row in of(done.changes, "bridge.operation.insert")] == [operation.id]


def test_a_soft_decline_stores_the_next_charge_as_sent() -> None:
    """A decline that another provider may follow stores that charge, under a lease, in the very
    unit that says why the first failed.
    """
    done = settle(v.case(), v.SOFT)
    assert done.charge is not None
    assert (done.charge.psp, done.charge.no, done.charge.state) == ("bolt", 2, A.SENT)
    assert [row[0] for row in of(done.changes, "router.attempt.insert")] == [done.charge.reference]
    assert done.case.payment.due_at == done.charge.lease_until
    assert not done.decided
    assert told(done) == []
    assert booked(done) == []


def test_a_hard_decline_ends_the_payment() -> None:
    """A decline that nobody may follow ends the payment and names its reason."""
    done = settle(v.case(), v.HARD)
    assert (done.case.payment.state, done.case.payment.reason) == (P.DECLINED, "fraud")
    assert done.charge is None
    assert told(done) == [("subscriber:crm", "payment.declined")]


def test_a_decline_nobody_described_is_for_a_person_and_stops() -> None:
    """An unmapped decline opens one item for its code and is not followed by another charge."""
    done = settle(v.case(), v.UNMAPPED)
    assert done.case.payment.state is P.DECLINED
    assert done.charge is None
    assert items(done) == [("decline-unmapped", "acme:simpay:new")]


def test_an_unknown_outcome_stops_the_walk() -> None:
    """After an unknown outcome nothing is charged; the payment is due when it may be asked."""
    done = settle(v.case(), v.UNKNOWN)
    assert done.charge is None
    assert not done.decided
    assert done.case.attempts[0].state is A.UNKNOWN
    assert done.case.payment.due_at == v.case().attempts[0].sent_at.replace(second=5)


def test_a_charge_that_never_left_is_followed_at_once() -> None:
    """Provably not sent: the next provider is charged."""
    assert settle(v.case(), v.NOT_SENT).charge is not None


def test_another_amount_is_for_a_person_and_credits_nothing() -> None:
    """A provider that confirms another amount sends the payment to review, with an item."""
    done = settle(v.case(), v.OTHER_AMOUNT)
    assert (done.case.payment.state, done.case.payment.reason) == (P.REVIEW, "amount_mismatch")
    assert items(done) == [("payment-review", PAYMENT)]
    assert booked(done) == [("deposit_mismatch", FIRST)]  # held in suspense, in nobody's wallet
    assert [side.account.kind for side in done.entries[0].postings] == ["psp_clearing", "suspense"]
    assert done.charge is None


@pytest.mark.parametrize("outcome", [v.APPROVED, v.SOFT])
def test_old_news_changes_nothing(outcome: Outcome) -> None:
    """What an attempt said before is absorbed: no row, no entry, nobody told a second time."""
    once = settle(v.case(), outcome).case
    again = settle(once, outcome)
    assert (again.changes, again.entries, again.charge, again.decided) == ((), (), None, False)


def test_a_late_success_of_a_declined_payment_is_credited_once_with_an_item() -> None:
    """A provider that charged after all: the client's money is credited, and a person hears."""
    declined = settle(v.case(psps=("acme",)), v.SOFT).case
    assert declined.payment.state is P.DECLINED
    late = settle(declined, v.APPROVED)
    assert (late.case.payment.state, late.case.payment.reason) == (P.APPROVED, "late_success")
    assert booked(late) == [("deposit", PAYMENT)]
    assert items(late) == [("late-success", PAYMENT)]


def test_a_second_charge_is_surplus_with_one_refund_and_no_second_credit() -> None:
    """When two providers charged one deposit, the second charge goes to suspense and is asked
    back, once.
    """
    first = settle(v.case(), v.SOFT).case
    paid = settle(first, v.APPROVED, first.attempts[1].reference).case
    second = settle(paid, v.APPROVED)
    assert second.case.payment.state is P.APPROVED
    assert not second.decided
    assert booked(second) == [("deposit_surplus", FIRST)]
    assert told(second) == [("psp:acme", "refund")]
    assert items(second) == [("second-charge", FIRST)]
    again = settle(second.case, v.APPROVED)
    assert (again.changes, again.entries) == ((), ())


def test_a_second_charge_of_another_amount_is_for_a_person() -> None:
    """A second charge of another amount is not refunded by guess: an item, and suspense."""
    first = settle(v.case(), v.SOFT).case
    paid = settle(first, v.APPROVED, first.attempts[1].reference).case
    second = settle(paid, v.OTHER_AMOUNT)
    assert booked(second) == [("deposit_mismatch", FIRST)]
    assert told(second) == []
    assert items(second) == [("payment-review", FIRST)]


def test_a_payment_in_review_is_still_settled_by_late_news() -> None:
    """The end of asking is not the end of a payment: its provider's word settles it."""
    case = v.case(attempt(A.UNKNOWN), state=P.REVIEW, due_at=None)
    assert settle(case, v.APPROVED).case.payment.state is P.APPROVED
    assert booked(settle(case, v.APPROVED)) == [("deposit", PAYMENT)]
    assert settle(case, v.HARD).case.payment.state is P.DECLINED


def test_asking_that_comes_to_its_end_is_review_and_never_failure() -> None:
    """An unknown attempt that nobody could resolve goes to a person, and nothing follows it."""
    clock = Clock()
    case = v.case(attempt(A.UNKNOWN, inquiries=1))
    clock.move(1000)
    done = composer(clock).settle(case, FIRST, v.UNKNOWN, "inquiry", inquiry=True)
    assert (done.case.payment.state, done.case.payment.reason) == (P.REVIEW, "unresolved")
    assert done.charge is None
    assert items(done) == [("payment-review", PAYMENT)]


@pytest.mark.parametrize("who", ["the last inquiry", "the resolver"])
def test_what_an_approved_payment_left_open_is_never_forgotten(who: str) -> None:
    """When asking about an attempt beside a paid one ends, a person hears, whoever asked last."""
    clock = Clock()
    asked = attempt(A.UNKNOWN, inquiries=1, updated=after(100))
    case = v.case(asked, attempt(A.APPROVED, no=2), state=P.APPROVED, due_at=after(100))
    clock.move(1000)
    if who == "the resolver":
        done = composer(clock).proceed(case, "resolver")
    else:
        done = composer(clock).settle(case, FIRST, v.UNKNOWN, "inquiry", inquiry=True)
    assert done.case.payment.due_at is None
    assert items(done) == [("attempt-unresolved", FIRST)]


def test_a_walk_that_stopped_between_two_attempts_goes_on() -> None:
    """A process that died after a decline left a row: whoever reads it charges the next."""
    case = v.case(attempt(A.DECLINED, cascade=True, category="technical"))
    done = composer(Clock()).proceed(case, "resolver")
    assert done.charge is not None
    assert done.charge.psp == "bolt"


def test_a_client_who_waited_too_long_is_not_charged_any_more() -> None:
    """After the walk's limit no further provider is tried: the payment ends, expired."""
    clock = Clock()
    clock.move(POLICY.walk_limit_s + 1)
    case = v.case(attempt(A.DECLINED, cascade=True, category="technical"))
    done = composer(clock).proceed(case, "resolver")
    assert done.charge is None
    assert (done.case.payment.state, done.case.payment.reason) == (P.DECLINED, "expired")


def test_a_parked_payment_is_due_never_and_says_why() -> None:
    """What fails again and again is set aside with its reason; it keeps its state."""
    done = composer(Clock()).parked(v.case(), "KeyError: \0x")
    assert done.case.payment.due_at is None
    assert done.case.payment.state is P.IN_PROGRESS
    assert items(done) == [("payment-parked", PAYMENT)]
    assert "\0" not in of(done.changes, "gateway.item.open")[0][4]


@pytest.mark.parametrize(("state", "outcome"), list(product(A, v.OUTCOMES)), ids=str)
@pytest.mark.parametrize("paid", [False, True])
def test_every_outcome_in_every_state_composes_one_whole_unit(
    state: AttemptState, outcome: Outcome, paid: bool
) -> None:
    """Whatever comes to an attempt in whatever state: a payment that ends tells its caller the
    state it ends in, money is booked exactly when it came in, and each move has its event.
    """
    case = _stands(state, paid=paid)
    event = _event_of(case, outcome)
    if (state, event) in ATTEMPT_REFUSED:
        return
    done = settle(case, outcome)
    before, ended = case.payment.state, done.case.payment.state
    ends = [view["state"] for view in v.views(done)]
    assert ends == ([ended.value] if ended is not before else [])
    assert done.decided is (ended is not before)
    came_in = state is not A.APPROVED and done.case.attempts[0].state is A.APPROVED
    expected = [("deposit_surplus", FIRST)] if paid else [("deposit", PAYMENT)]
    other = state is not A.MISMATCH and done.case.attempts[0].state is A.MISMATCH
    expected = expected if came_in else []
    assert booked(done) == (expected or ([("deposit_mismatch", FIRST)] if other else []))
    moved = len(of(done.changes, "router.event.insert"))
    states = [done.case.attempts[0].state is not state, ended is not before, done.charge]
    assert moved == sum(map(bool, states))


def _stands(state: AttemptState, *, paid: bool) -> Case:
    """A deposit whose first attempt stands there, beside a second one that paid or none."""
    first = attempt(state, cascade=state is A.DECLINED, category="technical")
    if paid:
        return v.case(first, attempt(A.APPROVED, no=2), state=P.APPROVED, due_at=None)
    ended = {A.APPROVED: P.APPROVED, A.MISMATCH: P.REVIEW, A.DECLINED: P.DECLINED}
    return v.case(first, state=ended.get(state, P.IN_PROGRESS))


def _event_of(case: Case, outcome: Outcome) -> str:
    money = case.payment.amount
    return EVENTS[type(checked(outcome, money.minor, money.currency.code))]


NEWS = st.tuples(
    st.integers(0, 3), st.sampled_from(v.OUTCOMES), st.booleans(), st.sampled_from([0, 1, 4, 20])
)


@settings(max_examples=300, deadline=None)
@given(psps=st.sampled_from([("acme",), ("acme", "bolt"), ("acme", "bolt", "coral")]),
       news=st.lists(NEWS, max_size=12), to_account=st.booleans())  # fmt: skip
def test_no_order_of_news_credits_twice_or_charges_beside_an_open_attempt(
    psps: tuple[str, ...], news: list[tuple[int, Outcome, bool, int]], to_account: bool
) -> None:
    """For any news in any order over any route: at most one deposit, one surplus with one refund
    for each further approval, and nothing charged while an attempt could still take money.
    """
    clock = Clock()
    composes = composer(clock, replace(POLICY, attempts_max=4))
    case = v.case(psps=psps, account=v.account() if to_account else None)
    entries: list[tuple[str, str]] = []
    asked: list[tuple[str, str]] = []
    for index, outcome, inquiry, seconds in news:
        clock.move(seconds)
        about = case.attempts[index % len(case.attempts)]
        if (about.state, _event_of(case, outcome)) in ATTEMPT_REFUSED:
            done = composes.proceed(case, "resolver")
        else:
            done = composes.settle(case, about.reference, outcome, "news", inquiry=inquiry)
        _follows(case, done)
        case = done.case
        entries += booked(done)
        asked += [one for one in told(done) if one[0].startswith("psp:")]
    approved = sum(a.state is A.APPROVED for a in case.attempts)
    kinds = [kind for kind, _ in entries]
    assert kinds.count("deposit") == min(1, approved)
    assert kinds.count("transfer_out") == (min(1, approved) if to_account else 0)
    assert kinds.count("deposit_surplus") == len(asked) == max(0, approved - 1)
    assert len(set(entries)) == len(entries)


def _follows(before: Case, done: Settlement) -> None:
    """What must hold of any one step."""
    still_open = [a for a in done.case.attempts if a.state in OPEN]
    assert len(still_open) <= 1
    if done.charge is not None:
        assert still_open == [done.charge]
        assert before.payment.state is P.IN_PROGRESS
    if before.payment.state is P.APPROVED:
        assert done.case.payment.state is P.APPROVED
    if done.case.payment.state is P.IN_PROGRESS:
        assert done.case.payment.due_at is not None, "nobody would ever look at it"
