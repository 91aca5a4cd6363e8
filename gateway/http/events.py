"""A calling system's own events: pulled, re-sent, and where they are pushed to.

Knows paths. Refuses to show one system the events of another.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from aiohttp import web

from gateway.control.refusals import not_found
from gateway.flows.outbox import events_after
from gateway.flows.webhooks_out import EventView, SubscriptionOrder, event_view
from gateway.http.bodies import Params
from gateway.http.calls import Call, answered, reply
from gateway.http.paging import Limit, NumberCursor


class EventParams(Params, frozen=True):
    """Events with a number above `after`; numbers are dense, so a gap means ask again.

    delivery  only those whose delivery stands there: `dead` is the list of what was given up
    """

    after: NumberCursor = 0
    limit: Limit = 100
    delivery: Literal["waiting", "done", "dead"] | None = None


class EventPage(msgspec.Struct, frozen=True):
    """Events in their order. `next` is what to give as `after` next time, also when it is empty."""

    data: tuple[EventView, ...]
    next: int


class Resent(msgspec.Struct, frozen=True):
    """The event waits for its delivery again."""

    no: int
    state: str


async def page(call: Call) -> web.Response:
    """GET /v1/events."""
    asked = call.params(EventParams)
    async with call.parts.pool.acquire() as conn:
        rows = await events_after(
            conn, call.caller.owner, asked.after, asked.limit, asked.delivery or ""
        )
    data = tuple(map(event_view, rows))
    return reply(EventPage(data, data[-1].no if data else asked.after))


async def resend(call: Call) -> web.Response:
    """POST /v1/events/{no}/resend."""
    text = call.path("no")
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise not_found("event", text)
    return answered(await call.parts.subscriptions.resend(call.command(), int(text), call.idem()))


async def subscribe(call: Call) -> web.Response:
    """PUT /v1/subscription."""
    order = call.taken(SubscriptionOrder)
    return reply(await call.parts.subscriptions.set(call.command(), order))
