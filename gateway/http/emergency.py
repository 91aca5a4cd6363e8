"""Break-glass over HTTP.

Knows paths and parameters. Refuses to judge who may be given what; `flows/glass.py` does.
"""

from __future__ import annotations

from aiohttp import web

from gateway.control import glass
from gateway.control.glass import BreakGlass, BrokenPage
from gateway.http.bodies import Params
from gateway.http.calls import Call, answered, reply
from gateway.http.paging import Cursor, Limit, cut


class BrokenParams(Params, frozen=True):
    """Which uses."""

    after: Cursor = ""
    limit: Limit = 50


async def ask(call: Call) -> web.Response:
    """POST /v1/break-glass: for whoever asks."""
    order = call.taken(BreakGlass)
    return answered(await call.parts.glass.ask(call.command(order.reason), order, call.idem()))


async def page(call: Call) -> web.Response:
    """GET /v1/break-glass."""
    asked = call.params(BrokenParams)
    async with call.parts.pool.acquire() as conn:
        found = await glass.page(
            conn, entities=call.caller.entity_filter, after=asked.after, limit=asked.limit + 1
        )
    data, following = cut(found, asked.limit, lambda each: each.grant_id)
    return reply(BrokenPage(tuple(data), following))
