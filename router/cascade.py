"""What may follow the attempts made so far: the next PSP, waiting, or the end of the walk.

A pure function of the payment, its attempts and its route. Knows that nothing may follow an attempt
that could still take money. Refuses to interpret codes: the taxonomy already said, attempt by
attempt, whether another PSP may follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from config.rulebook import Routing
from router.decide import Route
from router.intents import Attempt, Payment
from router.resolver import next_due
from router.states import FAILED, OPEN, AttemptState, PaymentState


class Charge(msgspec.Struct, frozen=True):
    """Try this PSP next, as attempt number `no`."""

    psp: str
    no: int


class Wait(msgspec.Struct, frozen=True):
    """Nothing may be done before `until`; then the open attempt is looked at again."""

    until: datetime


class Finish(msgspec.Struct, frozen=True):
    """The walk is over.

    reason  a stable code, "" for a plain approval
    due     when an attempt that is still open must be looked at all the same: money arrived by
            another one, and what this one charges must be found and paid back
    """

    state: PaymentState
    reason: str = ""
    due: datetime | None = None


Step = Charge | Wait | Finish


def next_step(
    payment: Payment, attempts: Sequence[Attempt], route: Route, policy: Routing, now: datetime
) -> Step:
    """What to do with this payment now. `attempts` in any order, all of them."""
    ordered = sorted(attempts, key=lambda attempt: attempt.no)
    open_ones = [attempt for attempt in ordered if attempt.state in OPEN]
    times = [next_due(attempt, policy, now) for attempt in open_ones]
    due = min((at for at in times if at is not None), default=None)
    arrived = _arrived(payment, ordered, due)
    if arrived:
        return arrived
    if open_ones:  # blocks everything; when asking about it has an end, a person must look
        return Wait(due) if due else Finish(PaymentState.REVIEW, "unresolved")
    if payment.state is not PaymentState.IN_PROGRESS:  # decided, or out of the walk: no new charge
        return Finish(PaymentState.DECLINED, payment.reason or _last_reason(ordered))
    return _walk_on(payment, ordered, route, policy, now)


def _arrived(payment: Payment, attempts: Sequence[Attempt], due: datetime | None) -> Finish | None:
    """Money that came in decides, before anything else."""
    states = {attempt.state for attempt in attempts}
    if AttemptState.APPROVED in states or payment.state is PaymentState.APPROVED:
        late = payment.state is PaymentState.DECLINED
        return Finish(PaymentState.APPROVED, "late_success" if late else "", due)
    if AttemptState.MISMATCH in states:
        return Finish(PaymentState.REVIEW, "amount_mismatch", due)
    return None


def _walk_on(
    payment: Payment, attempts: Sequence[Attempt], route: Route, policy: Routing, now: datetime
) -> Charge | Finish:
    if attempts and not may_follow(attempts[-1]):
        return Finish(PaymentState.DECLINED, attempts[-1].category)
    if not attempts and not route.candidates:
        return Finish(PaymentState.DECLINED, route.refused)
    if now > payment.created + timedelta(seconds=policy.walk_limit_s):
        return Finish(PaymentState.DECLINED, "expired")
    tried = {attempt.psp for attempt in attempts}
    untried = [candidate.psp for candidate in route.candidates if candidate.psp not in tried]
    if not untried or len(attempts) >= policy.attempts_max:
        return Finish(PaymentState.DECLINED, _last_reason(attempts))
    return Charge(untried[0], len(attempts) + 1)


def may_follow(attempt: Attempt) -> bool:
    """Whether another PSP may be tried after this attempt, without asking the client again."""
    if attempt.state is AttemptState.DECLINED:
        return attempt.cascade
    return attempt.state in FAILED


def _last_reason(attempts: Sequence[Attempt]) -> str:
    """Why the last attempt failed, in one word."""
    if not attempts:
        return "no-route"
    last = attempts[-1]
    return last.category if last.state is AttemptState.DECLINED else last.state.value


def surplus(attempts: Sequence[Attempt], paid_by: str) -> tuple[Attempt, ...]:
    """Approved attempts beyond the one that paid (`paid_by`, its reference): to be refunded."""
    return tuple(
        attempt
        for attempt in attempts
        if attempt.state is AttemptState.APPROVED and attempt.reference != paid_by
    )
