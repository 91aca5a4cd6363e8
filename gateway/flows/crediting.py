"""From the wallet to a trading account: each balance operation sent once, and booked as it ended.

Knows the order of commits around a platform's answer, who may send, and what the books say then.
Refuses to know the platform's protocol (`bridge/credit.py`) and to guess: an operation without an
answer is looked up, and only one that is proved absent is sent again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from bridge import credit, rows
from bridge.credit import Altered, Crediting, Duplicate, Repeat, Ticket, Wait
from bridge.outcomes import Done, NotSent, Outcome, Refused, Unknown
from bridge.states import Operation, OperationState
from gateway.control.items import item_opened
from gateway.flows.outbox import Emitter, Submit
from gateway.flows.settlement import Case
from gateway.owners import Ownership
from ledger import entries, units
from ledger.facts import Entry
from ledger.ids import Ids
from ledger.money import Money, currency
from ledger.units import Change, Unit, Why

ACTOR: Final = "svc.mt"
GIVE_UP: Final = timedelta(hours=24)
UNKNOWN_TOO_LONG: Final = timedelta(hours=1)  # then a person hears of it; we go on asking
PAUSE_FIRST_S, PAUSE_MAX_S = 1.0, 60.0


class Unbookable(Exception):
    """The books will not take what the platform did: a mistake of ours, for a person."""


class Limits(msgspec.Struct, frozen=True):
    """lease_s: how long one sending may take; settle_time_s: the server's own, of the rulebook."""

    lease_s: float
    settle_time_s: float


class Crediter:
    """Works the balance operations of one server for its owner.

    entity_of  the legal entity of each book: whose people see an item
    boot_time  the clock that also counts while the machine sleeps
    """

    def __init__(
        self,
        *,
        server: str,
        replica: str,
        crediting: Crediting,
        lane: Submit,
        ownership: Ownership,
        limits: Limits,
        ids: Ids,
        emit: Emitter,
        now: Callable[[], datetime],
        boot_time: Callable[[], float],
        entity_of: Callable[[int], str],
    ) -> None:
        self._server = server
        self._replica = replica
        self._crediting = crediting
        self._lane = lane
        self._ownership = ownership
        self._limits = limits
        self._ids = ids
        self._emit = emit
        self._now = now
        self._boot_time = boot_time
        self._entity_of = entity_of

    async def handle(self, operation: Operation, case: Case | None) -> None:
        """One look at a due operation; it ends in rows whatever happens."""
        match operation.state:
            case OperationState.QUEUED:
                await self._send(operation, case)
            case OperationState.SENT:  # the lease ended and nobody wrote an answer
                await self._lost(operation, "lease_expired")
            case OperationState.UNKNOWN:
                await self._look_up(operation, case)
            case _:
                await self._rest(operation)

    def too_old(self, operation: Operation) -> bool:
        """Whether it waited so long that it will not be sent any more."""
        queued = operation.state is OperationState.QUEUED
        return queued and operation.created + GIVE_UP < self._now()

    async def park(self, operation: Operation, why: str) -> None:
        """Look at it no more: its handling fails again and again, a person must find out why."""
        text = f"handling it fails: {why}"[:300].replace("\0", "")
        item = self._item("credit-parked", operation.id, text, operation)
        parked = rows.operation_parked(operation, "parked", self._now(), ACTOR)
        await self._lane.submit(Unit((self._ownership.still(), *parked, item)))

    async def _send(self, operation: Operation, case: Case | None) -> None:
        now = self._now()
        if self.too_old(operation):
            why = f"it could not be sent since {operation.created.isoformat()}"
            await self._ended(operation, case, OperationState.REFUSED, "given_up", why)
            return
        boot, until = self._boot_time(), now + timedelta(seconds=self._limits.lease_s)
        columns: dict[str, Any] = {
            "due_at": until, "lease_owner": self._replica, "lease_until": until,
        }  # fmt: skip
        if not await self._moved(operation, OperationState.SENT, **columns):
            return
        sent = rows.operation_after(operation, OperationState.SENT, now, **columns)

        def may_send() -> bool:
            young = self._boot_time() - boot < self._limits.lease_s / 2
            return young and self._ownership.fresh()

        await self._answered(sent, case, await self._crediting.apply(sent, may_send))

    async def _answered(self, operation: Operation, case: Case | None, outcome: Outcome) -> None:
        match outcome:
            case Done():
                await self._done(operation, case, outcome.ticket, outcome)
            case NotSent():
                await self._later(operation, outcome.reason, outcome)
            case Refused(kind="transient"):
                await self._later(operation, f"retcode-{outcome.code}", outcome)
            case Refused(kind="configuration"):
                why = f"{self._server} refuses balance operations: {outcome.code} {outcome.text}"
                item = self._item("platform-configuration", self._server, why, operation)
                await self._later(operation, f"retcode-{outcome.code}", outcome, item)
            case Refused():
                why = f"the platform refused it: {outcome.code} {outcome.text}"
                code = f"retcode-{outcome.code}"
                await self._ended(operation, case, OperationState.REFUSED, code, why, outcome)
            case Unknown():
                await self._lost(operation, outcome.reason, outcome)

    async def _look_up(self, operation: Operation, case: Case | None) -> None:
        """Ask the platform whether our reference is there; what may follow is `next_step`'s."""
        found = await self._crediting.find(operation)
        step = credit.next_step(operation, found, self._now(), self._limits.settle_time_s)
        match step:
            case Done():
                await self._done(operation, case, step.ticket, None)
            case Duplicate():
                await self._done(operation, case, step.tickets[0].ticket, None, step.tickets[1:])
            case Altered():
                why = f"ticket {step.ticket.ticket} carries {operation.id} with another amount"
                item = self._item("platform-altered", operation.id, why, operation)
                await self._moved(operation, OperationState.UNKNOWN, extra=(item,), due_at=None)
            case Repeat():
                await self._moved(
                    operation, OperationState.QUEUED, lookups=step.lookups, due_at=self._now()
                )
            case Wait():
                await self._moved(
                    operation, OperationState.UNKNOWN, lookups=step.lookups, due_at=step.until,
                    extra=self._alarm(operation),
                )  # fmt: skip

    def _alarm(self, operation: Operation) -> tuple[Change, ...]:
        """An item when nobody could say for too long what became of it; the asking goes on."""
        since = operation.unknown_at
        if since is None or self._now() - since < UNKNOWN_TOO_LONG:
            return ()
        why = f"{self._server} has not said since {since.isoformat()} whether it was done"
        return (self._item("credit-unknown", operation.id, why, operation),)

    async def _done(
        self, operation: Operation, case: Case | None, ticket: int | None,
        outcome: Outcome | None, surplus: tuple[Ticket, ...] = (),
    ) -> None:  # fmt: skip
        """The platform has it: out of transit, onto the platform."""
        extra = tuple(
            self._item(
                "platform-duplicate", str(more.ticket),
                f"ticket {more.ticket} repeats {operation.id}; reverse it", operation,
            )
            for more in surplus
        )  # fmt: skip
        columns = {"ticket": ticket, "due_at": None, "reason": "", **_NO_LEASE}
        after = rows.operation_after(operation, OperationState.DONE, self._now(), **columns)
        told = self._tell(case, after, "payment.credited")
        booked = self._entry("transfer_done", operation, case)
        await self._moved(
            operation, OperationState.DONE, outcome=outcome, extra=(*extra, *told),
            booked=booked, **columns,
        )  # fmt: skip

    async def _ended(
        self, operation: Operation, case: Case | None, to: OperationState, code: str, why: str,
        outcome: Outcome | None = None,
    ) -> None:  # fmt: skip
        """It will not happen: the money goes back to the wallet, and a person hears of it."""
        columns = {"due_at": None, "reason": code, **_NO_LEASE}
        after = rows.operation_after(operation, to, self._now(), **columns)
        item = self._item("credit-refused", operation.id, f"{why}; back in the wallet", operation)
        told = self._tell(case, after, "payment.credit_refused")
        booked = self._entry("transfer_back", operation, case)
        await self._moved(
            operation, to, outcome=outcome, extra=(item, *told), booked=booked, **columns
        )

    async def _later(
        self, operation: Operation, why: str, outcome: Outcome, *extra: Change
    ) -> None:
        """Nothing happened there: queued again after a pause."""
        pause = min(PAUSE_FIRST_S * 2.0 ** min(operation.attempts - 1, 10), PAUSE_MAX_S)
        due = self._now() + timedelta(seconds=pause)
        await self._moved(
            operation, OperationState.QUEUED, outcome=outcome, extra=extra, due_at=due,
            reason=why, **_NO_LEASE,
        )  # fmt: skip

    async def _lost(self, operation: Operation, why: str, outcome: Outcome | None = None) -> None:
        """No answer: nothing may be sent before the settle time is over and it is proved absent."""
        due = self._now() + timedelta(seconds=self._limits.settle_time_s / credit.GAP_SHARE)
        await self._moved(
            operation, OperationState.UNKNOWN, outcome=outcome, due_at=due, reason=why,
            lookups=0, **_NO_LEASE,
        )  # fmt: skip

    async def _rest(self, operation: Operation) -> None:
        raise AssertionError(f"an ended operation is due: {operation}")

    async def _moved(
        self, operation: Operation, to: OperationState, *, outcome: Outcome | None = None,
        extra: tuple[Change, ...] = (), booked: tuple[Entry, ...] = (), **columns: Any,
    ) -> bool:  # fmt: skip
        """One unit: the move with its event, the calls made, entries, what is told. Ours only.

        False when another owner has it or it has moved. Raises Unbookable.
        """
        now = self._now()
        calls: tuple[Change, ...] = ()
        if outcome is not None:
            calls = rows.jobs_logged(operation.id, operation.attempts, self._server, outcome)
        move = rows.operation_moved(operation, to, at=now, actor=ACTOR, **columns)
        unit = Unit((self._ownership.still(), *move, *calls, *extra), booked)
        left = await self._lane.submit(unit)
        if isinstance(left, units.Done):
            return True
        if left.why not in (Why.CHECK, Why.STALE):
            raise Unbookable(f"{left.kind} {left.key}: {left.why.value}")
        return False

    def _entry(self, kind: str, operation: Operation, case: Case | None) -> tuple[Entry, ...]:
        assert case is not None, f"{operation.id} has no payment behind it"
        amount = Money(operation.amount_minor, currency(operation.currency))
        return (
            entries.transfer(
                kind, operation.book, operation.id, case.payment.client_id, operation.server,
                operation.account_id, amount, self._now().date(),
            ),
        )  # fmt: skip

    def _tell(self, case: Case | None, after: Operation, kind: str) -> tuple[Change, ...]:
        if case is None:
            return ()
        view = msgspec.structs.replace(case, operation=after).view()
        body = msgspec.json.encode(view)
        return (
            self._emit(case.payment.caller, kind, case.payment.id, body, case.payment.correlation),
        )

    def _item(self, kind: str, subject: str, why: str, operation: Operation) -> Change:
        team = "payments" if kind == "credit-refused" else "platform"
        return item_opened(
            self._ids.new("IT"), kind, team, subject, why, self._now(),
            entity=self._entity_of(operation.book), correlation=operation.correlation,
        )  # fmt: skip


_NO_LEASE: Final[dict[str, Any]] = {"lease_owner": "", "lease_until": None}
