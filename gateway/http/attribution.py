"""Changes of attribution over HTTP.

Knows paths and parameters, and that partners read them masked. Refuses to judge a change;
`flows/reattributing.py` does.
"""

from __future__ import annotations

from aiohttp import web

from gateway.http.bodies import Params
from gateway.http.calls import Call, answered, reply
from gateway.http.clients import known
from gateway.http.paging import Cursor, Limit, cut
from gateway.people import attribution_changes as changes
from gateway.people.views_attribution import (
    AttributionChangeList,
    MaskedPage,
    NewAttribution,
    change_view,
    masked_view,
)


class ChangeParams(Params, frozen=True):
    """Which changes."""

    after: Cursor = ""
    limit: Limit = 50


async def ask(call: Call) -> web.Response:
    """POST /v1/clients/{id}/attribution-changes."""
    order = call.taken(NewAttribution)
    command = call.command(order.reason)
    flow = call.parts.reattributing
    return answered(await flow.ask(command, call.path("id"), order, call.idem()))


async def of_client(call: Call) -> web.Response:
    """GET /v1/clients/{id}/attribution-changes."""
    client = await known(call, call.path("id"))
    async with call.parts.pool.acquire() as conn:
        found = await changes.of_client(conn, client.id)
    return reply(AttributionChangeList(tuple(map(change_view, found))))


async def of_partner(call: Call) -> web.Response:
    """GET /v1/partners/{id}/attribution-changes."""
    asked = call.params(ChangeParams)
    own = [each.id for each in await call.reaches_partner(call.path("id"))]
    async with call.parts.pool.acquire() as conn:
        found = await changes.by_contracts(conn, own, after=asked.after, limit=asked.limit + 1)
    data, following = cut(list(found), asked.limit, lambda change: change.id)
    return reply(MaskedPage(tuple(masked_view(each, own) for each in data), following))
