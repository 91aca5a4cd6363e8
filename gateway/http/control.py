"""Approvals and items over HTTP.

Knows paths and parameters. Refuses to judge who may decide; `control/approvals.py` does.
"""

from __future__ import annotations

from typing import Annotated, Literal

import asyncpg
from aiohttp import web
from msgspec import Meta

from gateway.control import approvals, delegations, items
from gateway.control.approvals import Approval
from gateway.control.refusals import not_found
from gateway.control.views import (
    ApprovalPage,
    Decide,
    ItemPage,
    ResolveItem,
    Withdraw,
    approval_view,
    item_view,
)
from gateway.http.bodies import Params
from gateway.http.calls import Call, answered, reply
from gateway.http.paging import Cursor, Limit, cut
from ledger.ids import is_id


class ApprovalParams(Params, frozen=True):
    """Which approvals. An open one whose time has passed is shown as `expired`."""

    after: Cursor = ""
    limit: Limit = 50
    state: Literal["", "open", "approved", "refused", "expired", "withdrawn"] = ""


class ItemParams(Params, frozen=True):
    """Which items."""

    after: Cursor = ""
    limit: Limit = 50
    state: Literal["", "open", "resolved"] = ""
    team: Annotated[str, Meta(max_length=32)] = ""


async def approval_page(call: Call) -> web.Response:
    """GET /v1/approvals."""
    asked = call.params(ApprovalParams)
    async with call.parts.pool.acquire() as conn:
        found = await approvals.page(
            conn, within=call.caller.filter, state=asked.state, after=asked.after,
            limit=asked.limit + 1,
        )  # fmt: skip
    data, following = cut(found, asked.limit, lambda approval: approval.id)
    now = call.parts.now()
    return reply(ApprovalPage(tuple(approval_view(each, now) for each in data), following))


async def approval(call: Call) -> web.Response:
    """GET /v1/approvals/{id}."""
    approval_id = call.path("id")
    if is_id(approval_id, "AP"):
        async with call.parts.pool.acquire() as conn:
            found = await approvals.find(conn, approval_id)
            if found is not None and await _exists(call, conn, found):
                return reply(approval_view(found, call.parts.now()))
    raise not_found("approval", approval_id)


async def _exists(call: Call, conn: asyncpg.Connection, found: Approval) -> bool:
    """Whether the caller reaches the question, or may decide it by a lent right."""
    if call.caller.reaches(found.tags):
        return True
    access, now = call.parts.rules.now.access, call.parts.now()
    return await delegations.voter(conn, access, call.caller, found, now) is not None


async def decide(call: Call) -> web.Response:
    """POST /v1/approvals/{id}/decide."""
    order = call.taken(Decide)
    command = call.command(order.reason)
    return answered(await call.parts.approving.decide(command, call.path("id"), order, call.idem()))


async def withdraw(call: Call) -> web.Response:
    """POST /v1/approvals/{id}/withdraw."""
    order = call.taken(Withdraw)
    command = call.command(order.reason)
    return answered(await call.parts.approving.withdraw(command, call.path("id"), call.idem()))


async def item_page(call: Call) -> web.Response:
    """GET /v1/items."""
    asked = call.params(ItemParams)
    async with call.parts.pool.acquire() as conn:
        found = await items.page(
            conn, call.caller, state=asked.state, team=asked.team,
            after=asked.after, limit=asked.limit + 1,
        )  # fmt: skip
    data, following = cut(found, asked.limit, lambda item: item.id)
    return reply(ItemPage(tuple(map(item_view, data)), following))


async def item(call: Call) -> web.Response:
    """GET /v1/items/{id}."""
    item_id = call.path("id")
    if is_id(item_id, "IT"):
        async with call.parts.pool.acquire() as conn:
            found = await items.find(conn, call.caller, item_id)
        if found is not None:
            return reply(item_view(found))
    raise not_found("item", item_id)


async def resolve(call: Call) -> web.Response:
    """POST /v1/items/{id}/resolve."""
    order = call.taken(ResolveItem)
    command = call.command(order.reason)
    return answered(
        await call.parts.approving.resolve(command, call.path("id"), order, call.idem())
    )
