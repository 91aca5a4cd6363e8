"""Delegations over HTTP.

Knows paths and parameters. Refuses to judge who may lend what; `control/delegations.py` does.
"""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from msgspec import Meta

from gateway.control import delegations
from gateway.control.views import (
    DelegationPage,
    EndDelegation,
    NewDelegation,
    delegation_view,
)
from gateway.http.bodies import Params
from gateway.http.calls import Call, answered, reply
from gateway.http.paging import Cursor, Limit, cut


class DelegationParams(Params, frozen=True):
    """Which delegations; `person` is their giver or their delegate."""

    after: Cursor = ""
    limit: Limit = 50
    person: Annotated[str, Meta(max_length=64)] = ""


async def give(call: Call) -> web.Response:
    """POST /v1/delegations."""
    order = call.taken(NewDelegation)
    return answered(await call.parts.lending.give(call.command(order.reason), order, call.idem()))


async def end(call: Call) -> web.Response:
    """POST /v1/delegations/{id}/end."""
    command = call.command(call.taken(EndDelegation).reason)
    return answered(await call.parts.lending.end(command, call.path("id"), call.idem()))


async def page(call: Call) -> web.Response:
    """GET /v1/delegations."""
    asked = call.params(DelegationParams)
    async with call.parts.pool.acquire() as conn:
        found = await delegations.page(
            conn, call.caller, person=asked.person, after=asked.after, limit=asked.limit + 1
        )
    data, following = cut(found, asked.limit, lambda each: each.id)
    now = call.parts.now()
    return reply(DelegationPage(tuple(delegation_view(each, now) for each in data), following))
