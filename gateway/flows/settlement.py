"""What an outcome means for a deposit as a whole: one unit of work, composed without I/O.

Knows how the router's verdict, the books, the outbox, facts and items move together. Refuses to
know where the outcome came from, and to store anything: `deposit.py` hands the unit to the lane.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from bridge.rows import operation_queued
from bridge.states import Account, Operation
from config.rulebook import Routing
from gateway.control.items import item_opened
from gateway.flows.outbox import Emitter
from gateway.flows.views import PaymentView, payment_view
from ledger import entries
from ledger.changes import fact
from ledger.facts import DepositSettled, Entry
from ledger.ids import Ids
from ledger.money import Money, UnknownCurrency, currency
from ledger.units import Change
from router import moves, rows
from router.attempts import refund_reference
from router.cascade import Charge, Finish, Step, next_step
from router.decide import Route
from router.intents import Attempt, Payment
from router.moves import Moved
from router.outcomes import Mismatch, Outcome
from router.states import OPEN, AttemptState, PaymentState

ACTOR = "svc.router"


class Case(msgspec.Struct, frozen=True):
    """A deposit as it stands. `account` is where the money goes on to, None for the wallet."""

    payment: Payment
    attempts: tuple[Attempt, ...]
    route: Route
    account: Account | None = None
    operation: Operation | None = None

    def view(self) -> PaymentView:
        """The deposit as it is told."""
        return payment_view(self.payment, self.attempts, self.operation)


class Settlement(msgspec.Struct, frozen=True):
    """The unit an outcome asks for, and the case once it is committed.

    charge    the next attempt, stored as sent by this very unit; None when nobody is charged next
    decided   the payment reached its end in this unit
    """

    case: Case
    changes: tuple[Change, ...]
    entries: tuple[Entry, ...]
    charge: Attempt | None = None
    decided: bool = False


class Composer:
    """Composes settlements.

    routing  the limits of the rulebook in force, asked for at each use
    replica  who we are, for leases
    """

    def __init__(
        self,
        routing: Callable[[], Routing],
        replica: str,
        ids: Ids,
        emit: Emitter,
        now: Callable[[], datetime],
    ) -> None:
        self._routing = routing
        self.replica = replica
        self._ids = ids
        self._emit = emit
        self.now = now

    @property
    def policy(self) -> Routing:
        """The routing limits of the rulebook in force."""
        return self._routing()

    def settle(
        self, case: Case, reference: str, outcome: Outcome, source: str, *, inquiry: bool = False
    ) -> Settlement:
        """What `outcome` of the attempt `reference` asks for; nothing at all for old news."""
        now = self.now()
        attempt = next(a for a in case.attempts if a.reference == reference)
        moved = moves.apply(case.payment, attempt, outcome, self.policy, now, inquiry=inquiry)
        if moved.absorbed:
            return Settlement(case, (), ())
        attempts = tuple(moved.after if a is attempt else a for a in case.attempts)
        after = msgspec.structs.replace(case, attempts=attempts)
        told = rows.attempt_moved(moved, ACTOR, {"source": source})
        noted = self._noted(case, moved)
        extra: tuple[Change, ...] = ()
        booked: tuple[Entry, ...] = ()
        if case.payment.state is PaymentState.APPROVED:  # decided before; this is only more news
            extra, booked = self._second_charge(case, moved)
        booked += self._other_amount(case, moved)
        step = next_step(case.payment, attempts, case.route, self.policy, now)
        settled = self._with_step(after, step, (*told, *noted, *extra), source)
        return msgspec.structs.replace(settled, entries=(*settled.entries, *booked))

    def proceed(self, case: Case, source: str) -> Settlement:
        """What the rows ask for without news: a walk that stopped between two attempts."""
        step = next_step(case.payment, case.attempts, case.route, self.policy, self.now())
        return self._with_step(case, step, (), source)

    def parked(self, case: Case, why: str) -> Settlement:
        """Nobody looks at it again by itself: its handling fails again and again."""
        payment = case.payment
        text = f"handling {payment.id} fails: {why}"[:300].replace("\0", "")
        after = moves.due(payment, None)
        changes = rows.payment_moved(payment, after, ACTOR, self.now())
        item = self._item("payment-parked", payment.id, text, payment)
        return Settlement(msgspec.structs.replace(case, payment=after), (*changes, item), ())

    def notice_set_aside(self, psp: str, key: str, why: str) -> Change:
        """The item of a provider's notice that nobody can apply."""
        said = f"a notice of {psp} cannot be applied: {why}"[:300].replace("\0", "")
        return item_opened(
            self._ids.new("IT"), "notice-set-aside", "payments", key, said, self.now()
        )

    def lease_until(self) -> datetime:
        """The end of a lease taken now."""
        return self.now() + timedelta(seconds=self.policy.lease_s)

    def first_charge(self, payment: Payment, step: Charge) -> Attempt:
        """The attempt of a step, about to be stored as sent under a lease of ours."""
        reference, until = self._ids.new("AT"), self.lease_until()
        return moves.sent(payment, step.no, step.psp, reference, self.replica, until, self.now())

    def _with_step(
        self, case: Case, step: Step, changes: tuple[Change, ...], source: str
    ) -> Settlement:
        if isinstance(step, Charge):
            return self._charge_next(case, step, changes)
        before, now = case.payment, self.now()
        after = moves.follow(before, step)
        changes += self._unresolved(case, step)
        changes += rows.payment_moved(before, after, ACTOR, now, {"source": source})
        case = msgspec.structs.replace(case, payment=after)
        if not isinstance(step, Finish) or after.state is before.state:
            return Settlement(case, changes, ())
        case, more, booked = self._finish(case, before, after)
        return Settlement(case, (*changes, *more, self.told(case)), booked, decided=True)

    def _unresolved(self, case: Case, step: Step) -> tuple[Change, ...]:
        """An attempt left open beside a decided payment, about which asking has come to its end."""
        left = [attempt for attempt in case.attempts if attempt.state in OPEN]
        asked = isinstance(step, Finish) and step.due is None and left
        if not asked or case.payment.state is PaymentState.IN_PROGRESS:  # that goes to review
            return ()
        why = f"{left[-1].psp} never said what became of {left[-1].reference}"
        return (self._item("attempt-unresolved", left[-1].reference, why, case.payment),)

    def told(self, case: Case) -> Change:
        """What the calling system hears of a deposit that reached an end."""
        payment, view = case.payment, msgspec.json.encode(case.view())
        kind = f"payment.{payment.state.value}"
        return self._emit(payment.caller, kind, payment.id, view, payment.correlation)

    def _charge_next(self, case: Case, step: Charge, changes: tuple[Change, ...]) -> Settlement:
        """The next provider, in the unit that says why the last one failed."""
        attempt = self.first_charge(case.payment, step)
        after = moves.due(case.payment, attempt.lease_until)
        changes += rows.payment_moved(case.payment, after, ACTOR, self.now())
        changes += rows.attempt_sent(attempt, ACTOR)
        case = msgspec.structs.replace(case, payment=after, attempts=(*case.attempts, attempt))
        return Settlement(case, changes, (), charge=attempt)

    def _finish(
        self, case: Case, before: Payment, after: Payment
    ) -> tuple[Case, tuple[Change, ...], tuple[Entry, ...]]:
        """What the end of a walk brings with it beside the payment's own move."""
        if after.state is PaymentState.APPROVED:
            return self._approved(case, before)
        if after.state is PaymentState.REVIEW:
            why = f"payment {after.id}: {after.reason}; its outcome must be settled by a person"
            return case, (self._item("payment-review", after.id, why, after),), ()
        return case, (), ()

    def _approved(
        self, case: Case, before: Payment
    ) -> tuple[Case, tuple[Change, ...], tuple[Entry, ...]]:
        """Credit the wallet once, and send the money on when the deposit names an account."""
        payment, day = case.payment, self.now().date()
        psp = next(a.psp for a in case.attempts if a.state is AttemptState.APPROVED)
        book, amount, client = payment.book, payment.amount, payment.client_id
        booked = [entries.deposit(book, payment.id, client, psp, amount, day)]
        settled = DepositSettled(book, payment.id, client, psp, amount.currency.code, amount.minor)
        changes: tuple[Change, ...] = (fact(settled, payment.id),)
        if before.state is PaymentState.DECLINED:
            why = f"{psp} charged {payment.id} after it was declined; the wallet was credited"
            changes += (self._item("late-success", payment.id, why, payment),)
        if case.account is not None:
            operation = self._operation(payment, case.account)
            case = msgspec.structs.replace(case, operation=operation)
            changes += operation_queued(operation, ACTOR)
            booked.append(
                entries.transfer(
                    "transfer_out", book, operation.id, client, operation.server,
                    operation.account_id, amount, day,
                )
            )  # fmt: skip
        return case, changes, tuple(booked)

    def _operation(self, payment: Payment, account: Account) -> Operation:
        assert account.login is not None, account
        now = self.now()
        return Operation(
            id=self._ids.new("BO"), account_id=account.id, server=account.server,
            login=account.login, book=payment.book, amount_minor=payment.amount.minor,
            currency=payment.amount.currency.code, payment_id=payment.id, due_at=now,
            correlation=payment.correlation, created=now, updated=now,
        )  # fmt: skip

    def _second_charge(
        self, case: Case, moved: Moved
    ) -> tuple[tuple[Change, ...], tuple[Entry, ...]]:
        """Another provider charged a paid deposit too: never a second credit, always a refund."""
        payment, attempt = case.payment, moved.after
        if attempt.state is AttemptState.MISMATCH:
            why = f"{attempt.psp} charged another amount for {payment.id}, which is paid already"
            return (self._item("payment-review", attempt.reference, why, payment),), ()
        if attempt.state is not AttemptState.APPROVED:
            return (), ()
        why = f"{attempt.psp} charged {payment.id}, which is paid already; a refund is asked for"
        asked = msgspec.json.encode({"attempt": attempt.reference, "payment": payment.id})
        changes = (
            self._item("second-charge", attempt.reference, why, payment),
            self._emit.ask(
                f"psp:{attempt.psp}", "refund", refund_reference(attempt), asked,
                payment.correlation,
            ),
        )  # fmt: skip
        booked = entries.surplus(
            payment.book, attempt.reference, payment.id, attempt.psp, payment.amount,
            self.now().date(),
        )  # fmt: skip
        return changes, (booked,)

    def _other_amount(self, case: Case, moved: Moved) -> tuple[Entry, ...]:
        """A charge of another amount than asked stands in the books, in nobody's wallet."""
        outcome, payment = moved.outcome, case.payment
        if not isinstance(outcome, Mismatch) or not moved.changed or outcome.minor <= 0:
            return ()
        try:
            charged = Money(outcome.minor, currency(outcome.currency))
        except UnknownCurrency:  # no book can hold it; the item says what the provider wrote
            return ()
        day, attempt = self.now().date(), moved.after
        return (
            entries.mismatch(
                payment.book, attempt.reference, payment.id, attempt.psp, charged, day
            ),
        )

    def _noted(self, case: Case, moved: Moved) -> tuple[Change, ...]:
        """A decline nobody has classified is for a person; it never cascades until then."""
        attempt = moved.after
        if attempt.state is not AttemptState.DECLINED or attempt.category != "unmapped":
            return ()
        why = f"{attempt.psp} declines with {attempt.code}, which the taxonomy does not know"
        return (self._item("decline-unmapped", f"{attempt.psp}:{attempt.code}", why, case.payment),)

    def _item(self, kind: str, subject: str, why: str, payment: Payment) -> Change:
        return item_opened(
            self._ids.new("IT"), kind, "payments", subject, why, self.now(),
            entity=payment.entity, correlation=payment.correlation,
        )  # fmt: skip
