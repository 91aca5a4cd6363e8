"""Balance operations made once: sent behind a gate, and after an ambiguous answer looked up.

Knows that the platform has no idempotency key, so our reference in the deal's comment is all that
tells one operation from another. Refuses to wait and to repeat: it answers what may follow, and the
flow that owns the row does it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

import msgspec

from bridge.faults import AnswerLost, Fault, MaySend, NothingSent
from bridge.mt5 import http
from bridge.mt5 import map as wire
from bridge.outcomes import Done, Outcome, Unknown
from bridge.pool import Pool
from bridge.recorder import Recorder
from bridge.states import Operation
from ledger.money import currency

LOOKUPS_NEEDED: Final = 2
WINDOW_MARGIN_S: Final = 7200  # more than a change to or from summer time, and any clock error
GAP_SHARE: Final = 6  # the lookups are a sixth of the settle time apart
TICKETS_READ_MAX: Final = 10_000  # deals of one account in one window; beyond it we cannot tell


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """A balance deal that carries our reference; `amount` as booked there, exact, major units."""

    ticket: int
    amount: Decimal
    at: datetime


class Duplicate(msgspec.Struct, frozen=True, kw_only=True):
    """More than one deal carries our reference: a person must reverse all but the first."""

    tickets: tuple[Ticket, ...]


class Altered(msgspec.Struct, frozen=True, kw_only=True):
    """The one deal that carries our reference has another amount: a person must look."""

    ticket: Ticket


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """Look again at `until`; store `lookups` with the row."""

    until: datetime
    lookups: int


class Repeat(msgspec.Struct, frozen=True, kw_only=True):
    """It is not on the platform and will not come: it may be sent again."""

    lookups: int


NextStep = Done | Duplicate | Altered | Wait | Repeat


def next_step(
    operation: Operation,
    found: tuple[Ticket, ...] | Unknown,
    now: datetime,
    settle_time_s: float,
) -> NextStep:
    """What may follow a lookup of an operation whose outcome is not known.

    Done carries the ticket of the one deal there is. The arguments:

    found          what the lookup just made says
    settle_time_s  how long after losing the answer it may still take effect there; only lookups
                   after that count, and two of them must find nothing before it is repeated
    """
    gap = timedelta(seconds=settle_time_s / GAP_SHARE)
    if isinstance(found, Unknown):
        return Wait(until=now + gap, lookups=operation.lookups)
    if found:
        return _judge(operation, found)
    assert operation.sent_at is not None, operation
    settled = (operation.unknown_at or operation.sent_at) + timedelta(seconds=settle_time_s)
    if now < settled:
        return Wait(until=settled, lookups=operation.lookups)
    lookups = operation.lookups + 1
    if lookups >= LOOKUPS_NEEDED:
        return Repeat(lookups=lookups)
    return Wait(until=now + gap, lookups=lookups)


def _judge(operation: Operation, found: tuple[Ticket, ...]) -> Done | Duplicate | Altered:
    """What it means that our reference is there."""
    if len(found) > 1:
        return Duplicate(tickets=found)
    digits = currency(operation.currency).exponent  # the platform may keep more, or fewer
    if found[0].amount != Decimal(operation.amount_minor).scaleb(-digits):
        return Altered(ticket=found[0])
    return Done(ticket=found[0].ticket, detail="found")


class Crediting:
    """Sends balance operations of one server and looks them up."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def apply(self, operation: Operation, may_send: MaySend) -> Outcome:
        """Send an operation once. The row that says *sent* must be committed before.

        may_send  asked with the connection in hand; False ends in NotSent(`lease`)

        After an ambiguous end the session is dropped, so that nothing of it lingers on the way.
        """
        record = Recorder(self._pool)
        amount = wire.write_minor(operation.amount_minor, currency(operation.currency).exponent)
        request = http.trade_balance(operation.login, amount, operation.reference)
        try:
            answer = await record.call(request, may_send)
        except Fault as no:
            return record.failed(no)
        outcome = self._done(answer, record) if answer.ok else record.refused(answer)
        if isinstance(outcome, Unknown):
            await self._drop()
        return outcome

    def _done(self, answer: http.Answer, record: Recorder) -> Outcome:
        try:
            ticket = wire.read_integer(wire.mapping(answer.answer), "Ticket")
        except wire.Unreadable as no:
            return Unknown(reason=f"ticket: {no}", calls=record.calls)
        return Done(ticket=ticket, login=None, detail=answer.text, calls=record.calls)

    async def _drop(self) -> None:
        """Leave the session behind; if our turn does not come, the lookup's own session is new."""
        try:
            await self._pool.drop()
        except NothingSent:
            return

    async def find(self, operation: Operation) -> tuple[Ticket, ...] | Unknown:
        """Balance deals that carry our reference, oldest first, read on a session newer than it.

        Unknown where the platform cannot be asked, or what it shows does not add up.
        """
        try:
            await self._pool.fresh(operation.unknown_at or operation.sent_at)
            since, until = self._window(operation)
            deals = await self._deals(operation.login, since, until)
        except Fault as no:
            return Unknown(reason=f"{no.reason}: lookup")
        ours = [deal for deal in deals if _carries(deal, operation.reference)]
        return tuple(sorted(map(self._ticket, ours), key=lambda ticket: ticket.ticket))

    def _ticket(self, deal: wire.Deal) -> Ticket:
        at = wire.to_utc(deal.server_time, self._pool.offset_s)
        return Ticket(ticket=deal.ticket, amount=deal.profit, at=at)

    def _window(self, operation: Operation) -> tuple[int, int]:
        """Where the deal can be, in the server's own time, generous at both ends."""
        offset_s = self._pool.offset_s
        since = wire.to_server_time(operation.created, offset_s) - WINDOW_MARGIN_S
        return since, wire.to_server_time(self._pool.now(), offset_s) + WINDOW_MARGIN_S

    async def _deals(self, login: int, since: int, until: int) -> list[wire.Deal]:
        """Every deal of an account in a window, page by page; their number must add up."""
        total = await self._total(login, since, until)
        if total > TICKETS_READ_MAX:
            raise AnswerLost("too many deals", str(total))
        deals: dict[int, wire.Deal] = {}
        for offset in range(0, total + http.PAGE_MAX, http.PAGE_MAX):
            page = await self._page(login, since, until, offset)
            deals |= {deal.ticket: deal for deal in page}
            if len(page) < http.PAGE_MAX:
                break
        if len(deals) < total:
            raise AnswerLost("pages", f"{len(deals)} of {total} deals")
        return list(deals.values())

    async def _total(self, login: int, since: int, until: int) -> int:
        answer = await self._read(http.deal_total(login, since, until))
        try:
            return wire.read_integer(wire.mapping(answer.answer), "Total")
        except wire.Unreadable as no:
            raise AnswerLost("unreadable", str(no)) from no

    async def _page(self, login: int, since: int, until: int, offset: int) -> tuple[wire.Deal, ...]:
        answer = await self._read(http.deal_page(login, since, until, offset))
        try:
            return wire.read_deals(answer.answer)
        except wire.Unreadable as no:
            raise AnswerLost("unreadable", str(no)) from no

    async def _read(self, request: http.Request) -> http.Answer:
        """A read that must succeed: a refusal of it says nothing about the deal."""
        answer = await self._pool.call(request)
        if not answer.ok:
            raise AnswerLost("retcode", f"{answer.code} {answer.text}")
        return answer


def _carries(deal: wire.Deal, reference: str) -> bool:
    """Whether a deal moved money under our reference."""
    return deal.action == wire.BALANCE_TYPE and deal.comment == reference
