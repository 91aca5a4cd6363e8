"""The simulated provider itself: what it does with charges, refunds and the wishes of its admin.

Knows the rules of a decent provider: one charge for a reference, never more back than was taken.
Refuses to know HTTP: `psp.py` is its door.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from ledger.money import BadAmount, UnknownCurrency, currency, parse
from router.sim.behaviour import Behaviour, Decline, Notices, Script, Settled, Status
from router.sim.books import Books, Charge, Refund
from router.sim.notices import Deliverer


class ChargeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/charges."""

    reference: str
    amount: str
    currency: str
    method: str
    country: str = ""
    customer: str = ""
    instrument: str = ""


class RefundRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/refunds."""

    reference: str
    charge_reference: str
    amount: str
    currency: str


class Settle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /admin/settle: what a charge becomes now; with notices as given."""

    reference: str
    status: Settled
    decline: Decline = Decline()
    notices: Notices = "once"


class Notify(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /admin/notify: send a notice about a charge, real or invented.

    status  None for the charge's own; another one makes it a lie that is properly signed
    """

    reference: str
    status: Status | None = None
    amount: str = ""
    currency: str = ""
    event_id: str = ""
    times: int = 1
    after_s: float = 0.0
    forged: bool = False


class Refused(Exception):
    """A request the provider answers with an error of its own."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Provider:
    """The provider behind the wire.

    now  the clock, seconds since the epoch
    """

    def __init__(
        self, name: str, books: Books, script: Script, deliverer: Deliverer,
        tasks: asyncio.TaskGroup, now: Callable[[], float],
    ) -> None:  # fmt: skip
        self.name = name
        self.books = books
        self.script = script
        self._deliverer = deliverer
        self._tasks = tasks
        self._now = now

    def resume(self) -> None:
        """Go on with what an earlier life left pending."""
        for charge in self.books.charges.values():
            if charge.status == "pending" and charge.becomes:
                self._settle_later(charge)

    # -- charges -----------------------------------------------------------------------------------

    def charge(self, request: ChargeRequest) -> tuple[Charge | None, Behaviour]:
        """Take the money, once for a reference; None when nothing took place (yet)."""
        fields: dict[str, str] = msgspec.structs.asdict(request)
        known = self.books.charges.get(request.reference)
        if known:
            if known.asked != fields:
                raise Refused(422, "idempotency_mismatch", "the key was used for another charge")
            return self.books.seen_again(known), Behaviour()
        self._check_amount(request.amount, request.currency)
        behaviour = self.script.choose(request.reference, fields)
        if not behaviour.charges:
            return None, behaviour
        if behaviour.effect_after_s:
            self._tasks.create_task(self._charge_later(request, fields, behaviour))
            return None, behaviour
        return self._charge_now(request, fields, behaviour), behaviour

    def _charge_now(
        self, request: ChargeRequest, fields: dict[str, str], behaviour: Behaviour
    ) -> Charge:
        now = self._now()
        declined = behaviour.status == "declined"
        charge = Charge(
            id=f"{self.name}_{len(self.books.charges) + 1:08d}", reference=request.reference,
            amount=behaviour.amount or request.amount, currency=request.currency,
            status=behaviour.status, decline=_reason(behaviour.decline) if declined else {},
            created=int(now), settled=0 if behaviour.status == "pending" else int(now),
            becomes=behaviour.becomes, becomes_at=now + behaviour.becomes_after_s,
            notices=behaviour.notices, notice_after_s=behaviour.notice_after_s, asked=fields,
        )  # fmt: skip
        self.books.write(charge)
        if charge.status == "pending":
            if charge.becomes:
                self._settle_later(charge)
        else:
            self._notify(charge, charge.notices, charge.notice_after_s)
        return charge

    async def _charge_later(
        self, request: ChargeRequest, fields: dict[str, str], behaviour: Behaviour
    ) -> None:
        await asyncio.sleep(behaviour.effect_after_s)
        if request.reference not in self.books.charges:
            self._charge_now(request, fields, behaviour)

    def _settle_later(self, charge: Charge) -> None:
        async def wait_and_settle() -> None:
            await asyncio.sleep(max(0.0, charge.becomes_at - self._now()))
            if self.books.charges[charge.reference].status == "pending" and charge.becomes:
                wish = Settle(
                    reference=charge.reference, status=charge.becomes, notices=charge.notices
                )
                self.settle(wish, charge.notice_after_s)

        self._tasks.create_task(wait_and_settle())

    def settle(self, wish: Settle, notice_after_s: float = 0.0) -> Charge:
        """Give a charge its final status, and tell."""
        charge = self._known(wish.reference)
        settled = replace(
            charge, status=wish.status, settled=int(self._now()), becomes=None,
            decline=_reason(wish.decline) if wish.status == "declined" else {},
        )  # fmt: skip
        self.books.write(settled)
        self._notify(settled, wish.notices, notice_after_s)
        return settled

    def inquire(self, reference: str) -> Charge:
        """The charge of this reference."""
        return self._known(reference)

    def _known(self, reference: str) -> Charge:
        if reference not in self.books.charges:
            raise Refused(404, "not_found", "no charge has this reference")
        return self.books.charges[reference]

    # -- refunds -----------------------------------------------------------------------------------

    def refund(self, request: RefundRequest) -> Refund:
        """Give money back, once for a reference, and never more than was charged."""
        known = self.books.refunds.get(request.reference)
        if known:
            if (known.charge_reference, known.amount) != (request.charge_reference, request.amount):
                raise Refused(422, "idempotency_mismatch", "the key was used for another refund")
            return known
        charge = self._known(request.charge_reference)
        if charge.status != "approved" or request.currency != charge.currency:
            raise Refused(409, "not_refundable", "only what was charged can be given back")
        unit = currency(charge.currency)
        wanted = self._check_amount(request.amount, request.currency)
        taken = sum(parse(refund.amount, unit).minor for refund in self.books.refunded(charge))
        if taken + wanted > parse(charge.amount, unit).minor:
            raise Refused(422, "refund_too_large", "more than was charged")
        refund = Refund(
            id=f"{self.name}_r{len(self.books.refunds) + 1:07d}", reference=request.reference,
            charge_reference=charge.reference, amount=request.amount, currency=charge.currency,
            status="approved", created=int(self._now()),
        )  # fmt: skip
        self.books.write(refund)
        return refund

    def inquire_refund(self, reference: str) -> Refund:
        """The refund of this reference."""
        if reference not in self.books.refunds:
            raise Refused(404, "not_found", "no refund has this reference")
        return self.books.refunds[reference]

    def _check_amount(self, amount: str, code: str) -> int:
        try:
            minor = parse(amount, currency(code)).minor
        except (BadAmount, UnknownCurrency) as error:
            raise Refused(422, "amount_invalid", str(error)) from None
        if minor <= 0:
            raise Refused(422, "amount_invalid", "nothing to charge")
        return minor

    # -- notices -----------------------------------------------------------------------------------

    def _notify(self, charge: Charge, how: Notices, after_s: float) -> None:
        """Tell of a charge's final status in the way its behaviour asks for."""
        if how == "none":
            return
        final = f"ev_{charge.id}_{charge.status}"
        if how == "forged":
            lie = replace(charge, status="approved", decline={})
            self._send(f"ev_{charge.id}_forged", lie, after_s, forged=True)
        for _ in range(2 if how == "twice" else 1):
            self._send(final, charge, after_s)
        if how == "reversed":
            before = replace(charge, status="pending", settled=0, decline={})
            self._send(f"ev_{charge.id}_pending", before, after_s + 0.1)

    def notify(self, wish: Notify) -> None:
        """Send a notice as the admin wishes."""
        charge = self.books.charges.get(wish.reference) or Charge(
            id=f"{self.name}_unknown", reference=wish.reference, amount="1.00", currency="EUR",
            status="approved", created=int(self._now()),
        )  # fmt: skip
        shown = replace(
            charge, status=wish.status or charge.status, amount=wish.amount or charge.amount,
            currency=wish.currency or charge.currency,
        )  # fmt: skip
        event_id = wish.event_id or f"ev_{charge.id}_{self.books.next_notice()}"
        for _ in range(wish.times):
            self._send(event_id, shown, wish.after_s, forged=wish.forged)

    def _send(self, event_id: str, charge: Charge, after_s: float, *, forged: bool = False) -> None:
        body = msgspec.json.encode(
            {
                "id": event_id, "type": "charge.updated", "created": int(self._now()),
                "data": charge_view(charge),
            }
        ).decode()  # fmt: skip
        self._deliverer.add(event_id, charge.reference, body, after_s, forged=forged)


def charge_view(charge: Charge) -> dict[str, object]:
    """A charge as the wire shows it."""
    view: dict[str, object] = {
        "id": charge.id, "reference": charge.reference, "status": charge.status,
        "amount": charge.amount, "currency": charge.currency, "created": charge.created,
    }  # fmt: skip
    return view | ({"decline": charge.decline} if charge.decline else {})


def refund_view(refund: Refund) -> dict[str, object]:
    """A refund as the wire shows it."""
    return {
        "id": refund.id, "reference": refund.reference, "status": refund.status,
        "charge_reference": refund.charge_reference, "amount": refund.amount,
        "currency": refund.currency, "created": refund.created,
    }  # fmt: skip


def _reason(decline: Decline) -> dict[str, str]:
    return {name: value for name, value in msgspec.structs.asdict(decline).items() if value}
