"""What the flows take and show: orders as they come in, payments and accounts as they are told.

Knows the wire's shapes. Refuses to know HTTP and tables: one shape serves the answer to a request,
a later read, and the event that is pushed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from bridge.states import Account, Operation
from ledger.ids import LENGTH
from ledger.money import AMOUNT_PATTERN, Money
from router.decide import Route
from router.intents import Attempt, Payment
from router.states import AttemptState

Code = Annotated[str, Meta(pattern="^[a-z][a-z0-9_-]{0,31}$")]
CurrencyCode = Annotated[str, Meta(pattern="^[A-Z]{3,5}$", examples=["EUR"])]
Id = Annotated[str, Meta(min_length=LENGTH, max_length=LENGTH)]


class Amount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Money on the wire: a decimal string with at most the currency's decimals."""

    amount: Annotated[str, Meta(pattern=AMOUNT_PATTERN, max_length=24, examples=["100.00"])]
    currency: CurrencyCode


class NewDeposit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A deposit asked for.

    to          `wallet`, or the id of one of the client's trading accounts
    instrument  the caller's opaque token of the means of payment; never a card number
    """

    client: Id
    amount: Amount
    method: Code
    to: Annotated[str, Meta(min_length=1, max_length=LENGTH, examples=["wallet"])] = "wallet"
    instrument: Annotated[str, Meta(pattern="^[A-Za-z0-9._~-]{0,64}$")] = ""


class NewAccount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A trading account asked for. `leverage` 0 takes the group's own."""

    client: Id
    type: Code
    currency: CurrencyCode
    leverage: Annotated[int, Meta(ge=0, le=5000)] = 0


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One charge at one provider, as far as it came."""

    no: int
    psp: str
    reference: str
    psp_reference: str
    state: str
    code: str
    category: str
    message: str
    inquiries: int
    sent_at: datetime
    updated: datetime


class TransferView(msgspec.Struct, frozen=True, kw_only=True):
    """The way of the money from the wallet to a trading account."""

    id: str
    account: str
    state: str
    ticket: int | None
    reason: str


class PaymentView(msgspec.Struct, frozen=True, kw_only=True):
    """A deposit. `psp` is the provider that took the money, "" while none has.

    masked  whether the caller sees what was paid and how it stands, not which way it went
    """

    id: str
    version: int
    state: str
    reason: str
    client: str
    to: str
    amount: Amount
    method: str
    psp: str
    attempts: tuple[AttemptView, ...]
    transfer: TransferView | None
    correlation: str
    created: datetime
    masked: bool = False


class PaymentLine(msgspec.Struct, frozen=True, kw_only=True):
    """A payment in a list; its attempts and its transfer are read one by one."""

    id: str
    version: int
    state: str
    reason: str
    client: str
    to: str
    amount: Amount
    method: str
    created: datetime
    masked: bool = False


class RouteView(msgspec.Struct, frozen=True, kw_only=True):
    """The way a payment takes or would take, with a verdict for every provider left out.

    level  where the rule was written: for the `entity`, or `global`
    """

    rulebook: str
    rule: str
    refused: str
    candidates: tuple[CandidateView, ...]
    left_out: tuple[VerdictView, ...]
    level: str = ""


class CandidateView(msgspec.Struct, frozen=True):
    """A provider that may be tried, in order, and what it would cost us."""

    psp: str
    cost: Amount


class VerdictView(msgspec.Struct, frozen=True):
    """A provider that may not be tried, and why."""

    psp: str
    code: str
    detail: str


class AccountView(msgspec.Struct, frozen=True, kw_only=True):
    """A trading account. `login` is None until the platform's number is known."""

    id: str
    version: int
    client: str
    state: str
    reason: str
    brand: str
    type: str
    currency: str
    platform: str
    group: str
    leverage: int
    login: int | None
    created: datetime
    updated: datetime


def amount_view(money: Money) -> Amount:
    """Money as the wire writes it."""
    return Amount(money.text, money.currency.code)


def payment_view(
    payment: Payment, attempts: Sequence[Attempt], operation: Operation | None
) -> PaymentView:
    """A payment with its attempts and, when it goes on to a trading account, its transfer."""
    paid = next((a.psp for a in attempts if a.state is AttemptState.APPROVED), "")
    return PaymentView(
        id=payment.id, version=payment.version, state=payment.state.value, reason=payment.reason,
        client=payment.client_id, to=payment.account_id or "wallet",
        amount=amount_view(payment.amount), method=payment.method, psp=paid,
        attempts=tuple(map(_attempt_view, attempts)),
        transfer=_transfer_view(operation) if operation is not None else None,
        correlation=payment.correlation, created=payment.created,
    )  # fmt: skip


def masked_view(view: PaymentView) -> PaymentView:
    """A payment as who may see it masked does: no provider, attempt, account or reason."""
    return msgspec.structs.replace(
        view, masked=True, reason="", to="", psp="", attempts=(), transfer=None, correlation=""
    )


def masked_line(line: PaymentLine) -> PaymentLine:
    """The same of a line of a list."""
    return msgspec.structs.replace(line, masked=True, reason="", to="")


def payment_line(payment: Payment) -> PaymentLine:
    """A payment as a line of a list."""
    return PaymentLine(
        id=payment.id,
        version=payment.version,
        state=payment.state.value,
        reason=payment.reason,
        client=payment.client_id,
        to=payment.account_id or "wallet",
        amount=amount_view(payment.amount),
        method=payment.method,
        created=payment.created,
    )


def _attempt_view(a: Attempt) -> AttemptView:
    return AttemptView(
        no=a.no, psp=a.psp, reference=a.reference, psp_reference=a.psp_reference,
        state=a.state.value, code=a.code, category=a.category, message=a.message,
        inquiries=a.inquiries, sent_at=a.sent_at, updated=a.updated,
    )  # fmt: skip


def _transfer_view(o: Operation) -> TransferView:
    return TransferView(
        id=o.id, account=o.account_id, state=o.state.value, ticket=o.ticket, reason=o.reason
    )


def route_view(route: Route, money: Money) -> RouteView:
    """A route with its costs in the payment's currency."""
    return RouteView(
        rulebook=route.rulebook, rule=route.rule, refused=route.refused,
        candidates=tuple(
            CandidateView(c.psp, amount_view(Money(c.cost_minor, money.currency)))
            for c in route.candidates
        ),
        left_out=tuple(VerdictView(v.psp, v.code, v.detail) for v in route.left_out),
        level=route.level,
    )  # fmt: skip


def account_view(a: Account) -> AccountView:
    """A trading account as it is told."""
    return AccountView(
        id=a.id, version=a.version, client=a.client_id, state=a.state.value, reason=a.reason,
        brand=a.brand, type=a.account_type, currency=a.currency, platform=a.server,
        group=a.platform_group, leverage=a.leverage, login=a.login, created=a.created,
        updated=a.updated,
    )  # fmt: skip
