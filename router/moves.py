"""What an outcome does to an attempt and a step to a payment: values before, values after.

Pure: the caller stores what comes back (`rows.py`). Knows the rule of "not found" and that weaker
news never overrides stronger. Refuses to know where an outcome came from: the PSP's answer, its
notice and the resolver's inquiry are treated alike.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec
from msgspec.structs import replace

from config.rulebook import Routing
from router.cascade import Charge, Finish, Step, Wait
from router.intents import Attempt, Payment
from router.outcomes import (
    Approved,
    Declined,
    Mismatch,
    NotFound,
    NotSent,
    Outcome,
    Pending,
    Unknown,
    checked,
)
from router.resolver import may_call_not_found, not_found_counts
from router.states import (
    AttemptEvent,
    AttemptState,
    PaymentEvent,
    PaymentState,
    move_attempt,
    move_payment,
)

MESSAGE_CHARACTERS_MAX: Final = 200
LEASE_EXPIRED: Final = Unknown("lease_expired")

EVENTS: Final = {
    Approved: AttemptEvent.APPROVED,
    Declined: AttemptEvent.DECLINED,
    Pending: AttemptEvent.PENDING,
    NotSent: AttemptEvent.NOT_SENT,
    Unknown: AttemptEvent.UNKNOWN,
    NotFound: AttemptEvent.NOT_FOUND,
    Mismatch: AttemptEvent.MISMATCH,
}
PAYMENT_EVENTS: Final = {
    PaymentState.APPROVED: PaymentEvent.APPROVED,
    PaymentState.DECLINED: PaymentEvent.DECLINED,
    PaymentState.REVIEW: PaymentEvent.REVIEWED,
}


class Moved(msgspec.Struct, frozen=True):
    """What an outcome did to an attempt.

    before, after  equal when the outcome was absorbed: there is nothing to store
    outcome        as it was applied (an approval of another amount has become a Mismatch)
    """

    before: Attempt
    after: Attempt
    event: AttemptEvent
    outcome: Outcome

    @property
    def absorbed(self) -> bool:
        """Whether the attempt stays as it was: old news, or weaker than what is known."""
        return self.after is self.before

    @property
    def changed(self) -> bool:
        """Whether the state itself moved (an inquiry without news moves the row only)."""
        return self.after.state is not self.before.state

    @property
    def late(self) -> bool:
        """Whether money arrived on an attempt that had been given up: credit once, or pay back."""
        arrived = AttemptState.APPROVED, AttemptState.MISMATCH
        given_up = AttemptState.DECLINED, AttemptState.NOT_FOUND, AttemptState.NOT_SENT
        return self.before.state in given_up and self.after.state in arrived


def sent(
    payment: Payment, no: int, psp: str, reference: str, owner: str, lease_until: datetime,
    now: datetime,
) -> Attempt:  # fmt: skip
    """The attempt that is about to be sent; it is stored as *sent* before the first byte leaves."""
    return Attempt(
        payment_id=payment.id, no=no, psp=psp, reference=reference, state=AttemptState.SENT,
        version=1, sent_at=now, updated=now, lease_owner=owner, lease_until=lease_until,
    )  # fmt: skip


def leased(attempt: Attempt, owner: str, until: datetime) -> Attempt:
    """The attempt held by `owner` for an inquiry; the state stays."""
    return replace(attempt, version=attempt.version + 1, lease_owner=owner, lease_until=until)


def apply(
    payment: Payment, attempt: Attempt, outcome: Outcome, policy: Routing, now: datetime,
    *, inquiry: bool = False,
) -> Moved:  # fmt: skip
    """What `outcome` makes of `attempt`. `inquiry`: it answers a question of the resolver.

    Raises IllegalMove for what cannot happen.
    """
    outcome = checked(outcome, payment.amount.minor, payment.amount.currency.code)
    event = EVENTS[type(outcome)]
    if inquiry and isinstance(outcome, NotSent | Unknown | NotFound):
        return Moved(attempt, _asked(attempt, outcome, policy, now), event, outcome)
    state = move_attempt(attempt.state, event)
    if state is attempt.state and not _tells_more(attempt, outcome):
        return Moved(attempt, attempt, event, outcome)
    after = replace(
        attempt, state=state, version=attempt.version + 1, updated=now, lease_owner="",
        lease_until=None, not_found_at=None, inquiries=attempt.inquiries + inquiry,
        **_columns(attempt, outcome),
    )  # fmt: skip
    return Moved(attempt, after, event, outcome)


def _asked(attempt: Attempt, outcome: Outcome, policy: Routing, now: datetime) -> Attempt:
    """After an inquiry without an answer, or with "not found": only a proof moves the state."""
    if attempt.state not in (AttemptState.UNKNOWN, AttemptState.PENDING):
        return attempt  # answered meanwhile
    state: AttemptState = attempt.state
    not_found_at = attempt.not_found_at
    if isinstance(outcome, NotFound) and state is AttemptState.UNKNOWN:
        if may_call_not_found(attempt, policy, now):
            state = move_attempt(state, AttemptEvent.NOT_FOUND)
        elif not_found_at is None and not_found_counts(attempt, policy, now):
            not_found_at = now
    return replace(
        attempt, state=state, version=attempt.version + 1, updated=now, lease_owner="",
        lease_until=None, not_found_at=not_found_at, inquiries=attempt.inquiries + 1,
    )  # fmt: skip


def _tells_more(attempt: Attempt, outcome: Outcome) -> bool:
    """Whether an outcome that leaves the state still is worth a move: the PSP is deciding."""
    return attempt.state is AttemptState.PENDING and isinstance(outcome, Pending)


def _columns(attempt: Attempt, outcome: Outcome) -> dict[str, str | bool]:
    """What the outcome leaves in the attempt's row."""
    if isinstance(outcome, Declined):
        return {
            "code": outcome.code, "category": outcome.category, "cascade": outcome.cascade,
            "message": outcome.message[:MESSAGE_CHARACTERS_MAX],
            "psp_reference": outcome.psp_reference or attempt.psp_reference,
        }  # fmt: skip
    if isinstance(outcome, NotSent | Unknown):
        return {"code": outcome.reason, "category": EVENTS[type(outcome)].value}
    said = "" if isinstance(outcome, NotFound) else outcome.psp_reference
    plain: dict[str, str | bool] = {"code": "", "category": "", "cascade": False, "message": ""}
    if isinstance(outcome, Mismatch):
        plain["code"] = "amount_mismatch"
        plain["message"] = f"charged {outcome.minor} minor units of {outcome.currency[:8]}"
    return plain | {"psp_reference": said or attempt.psp_reference}


def follow(payment: Payment, step: Step) -> Payment:
    """The payment after a step of its walk; the same value when nothing changes.

    After `Charge` the caller gives the row its new `due_at` with `due` (the end of the lease).
    """
    if isinstance(step, Charge):
        return payment
    if isinstance(step, Wait):
        return due(payment, step.until)
    return _finish(payment, step)


def _finish(payment: Payment, step: Finish) -> Payment:
    state = move_payment(payment.state, PAYMENT_EVENTS[step.state])
    if state is payment.state:
        return due(payment, step.due)
    return replace(
        payment, state=state, reason=step.reason, due_at=step.due, version=payment.version + 1
    )


def due(payment: Payment, at: datetime | None) -> Payment:
    """The payment with another time to look at it."""
    if payment.due_at == at:
        return payment
    return replace(payment, due_at=at, version=payment.version + 1)
