"""Deposits and payments over HTTP, and the way a payment would go.

Knows paths. Refuses to decide anything: the deposit's flow does, and payments are read as stored.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec
from aiohttp import web

from bridge import reads as platform
from gateway.control.access import Tags
from gateway.control.refusals import Refusal, not_found
from gateway.flows.views import (
    NewDeposit,
    PaymentLine,
    PaymentView,
    RouteView,
    masked_line,
    masked_view,
    payment_line,
    payment_view,
    route_view,
)
from gateway.http.bodies import Params
from gateway.http.calls import Call, answered, reply
from gateway.http.clients import known, reaches
from gateway.http.paging import Cursor, Limit, cut
from ledger.ids import is_id
from router import reads
from router.decide import Route
from router.intents import Attempt, Payment
from router.states import PaymentState

SCOPE: Final = "deposits:read"


class PaymentMoment(msgspec.Struct, frozen=True):
    """One change of a payment, of one of its attempts, or of its transfer to the platform."""

    object_id: str
    from_state: str
    to_state: str
    event: str
    cause: Any
    actor: str
    at: datetime


class TraceView(msgspec.Struct, frozen=True):
    """Why a payment went the way it did, and everything that happened to it, oldest first."""

    payment: PaymentView
    route: RouteView
    history: tuple[PaymentMoment, ...]


class PaymentParams(Params, frozen=True):
    """Which payments: of one client, in one state; newest first."""

    after: Cursor = ""
    limit: Limit = 50
    client: Cursor = ""
    state: PaymentState | None = None


class PaymentPage(msgspec.Struct, frozen=True):
    """Payments newest first; `next` is the cursor of the next page, null on the last."""

    data: tuple[PaymentLine, ...]
    next: str | None


async def page(call: Call) -> web.Response:
    """GET /v1/payments."""
    asked = call.params(PaymentParams)
    caller, tags = call.caller, None
    if asked.client:
        tags = (await known(call, asked.client)).tags
    elif caller.tied:
        # A payment has no desk and no partner of its own; a page is not to be sieved afterwards.
        caller = caller.untied()
        if not caller.grants:
            raise Refusal("client-needed", "within a desk or partners payments are one client's")
    async with call.parts.pool.acquire() as conn:
        found = await reads.payments(
            conn,
            client_id=asked.client,
            within=None if asked.client else caller.filter,
            state=asked.state.value if asked.state else "",
            after=asked.after,
            limit=asked.limit + 1,
        )
    data, following = cut(found, asked.limit, lambda payment: payment.id)
    lines = []
    for payment in data:
        full = call.caller.sees(SCOPE, tags or Tags(payment.entity, payment.brand))
        lines.append(payment_line(payment) if full else masked_line(payment_line(payment)))
    return reply(PaymentPage(tuple(lines), following))


async def start(call: Call) -> web.Response:
    """POST /v1/deposits."""
    order = call.taken(NewDeposit)
    return answered(await call.parts.deposits.start(call.command(), order, call.idem()))


async def explain(call: Call) -> web.Response:
    """POST /v1/routing/explain."""
    return reply(await call.parts.deposits.explain(call.command(), call.taken(NewDeposit)))


async def show(call: Call) -> web.Response:
    """GET /v1/deposits/{id} and GET /v1/payments/{id}."""
    view, (payment, _, _) = await _known(call)
    tags = Tags(payment.entity, payment.brand)
    if call.caller.tied:
        tags = (await known(call, payment.client_id)).tags
    return reply(view if call.caller.sees(SCOPE, tags) else masked_view(view))


async def trace(call: Call) -> web.Response:
    """GET /v1/payments/{id}/trace."""
    view, (payment, _, route) = await _known(call)
    async with call.parts.pool.acquire() as conn:
        moments = [
            PaymentMoment(e.object_id, e.from_state, e.to_state, e.event, e.cause, e.actor, e.at)
            for e in await reads.events(conn, payment.id)
        ]
        for operation in await platform.operations_of_payment(conn, payment.id):
            moments += [
                PaymentMoment(
                    e.object_id, e.from_state, e.to_state, e.event, msgspec.Raw(e.cause.encode()),
                    e.actor, e.at,
                )
                for e in await platform.events_of(conn, operation.id)
            ]  # fmt: skip
    moments.sort(key=lambda moment: moment.at)
    return reply(TraceView(view, route_view(route, payment.amount), tuple(moments)))


async def _known(call: Call) -> tuple[PaymentView, tuple[Payment, tuple[Attempt, ...], Route]]:
    """The payment of the path, if it lies within the caller's entities."""
    payment_id = call.path("id")
    if is_id(payment_id, "PY"):
        async with call.parts.pool.acquire() as conn:
            found = await reads.payment(conn, payment_id)
            if found is not None and await reaches(
                conn, call.caller, found[0].client_id, Tags(found[0].entity, found[0].brand)
            ):
                operation = None
                if found[0].account_id:
                    operations = await platform.operations_of_payment(conn, payment_id)
                    operation = operations[-1] if operations else None
                return payment_view(found[0], found[1], operation), found
    raise not_found("payment", payment_id)
