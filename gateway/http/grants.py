"""Grants of roles and people over HTTP.

Knows paths and parameters. Refuses to judge who may be given what; `flows/assigning.py` does.
"""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from msgspec import Meta

from gateway.control import acts, assigning, grants
from gateway.control.refusals import not_found
from gateway.control.views_grants import (
    GrantPage,
    NewGrant,
    NewTie,
    PersonView,
    RevokeGrant,
    TieView,
    exception_view,
    grant_view,
)
from gateway.flows.tying import known
from gateway.http.bodies import Params
from gateway.http.calls import Call, answered, reply
from gateway.http.paging import Cursor, Limit, cut


class GrantParams(Params, frozen=True):
    """Which grants."""

    after: Cursor = ""
    limit: Limit = 50
    person: Annotated[str, Meta(max_length=64)] = ""
    role: Annotated[str, Meta(max_length=32)] = ""


async def ask(call: Call) -> web.Response:
    """POST /v1/grants."""
    order = call.taken(NewGrant)
    return answered(await call.parts.assigning.ask(call.command(order.reason), order, call.idem()))


async def page(call: Call) -> web.Response:
    """GET /v1/grants."""
    asked = call.params(GrantParams)
    async with call.parts.pool.acquire() as conn:
        found = await grants.page(
            conn, entities=call.caller.entity_filter, person=asked.person, role=asked.role,
            after=asked.after, limit=asked.limit + 1,
        )  # fmt: skip
    data, following = cut(found, asked.limit, lambda grant: grant.id)
    now = call.parts.now()
    return reply(GrantPage(tuple(grant_view(each, now) for each in data), following))


async def revoke(call: Call) -> web.Response:
    """POST /v1/grants/{id}/revoke."""
    command = call.command(call.taken(RevokeGrant).reason)
    return answered(await call.parts.assigning.revoke(command, call.path("id"), call.idem()))


async def tie(call: Call) -> web.Response:
    """POST /v1/people/{id}/ties."""
    order = call.taken(NewTie)
    command = call.command(order.reason)
    return answered(await call.parts.tying.tie(command, call.path("id"), order, call.idem()))


async def person(call: Call) -> web.Response:
    """GET /v1/people/{id}: whoever holds or held a role within the caller's entities."""
    person_id, now = call.path("id"), call.parts.now()
    async with call.parts.pool.acquire() as conn:
        kind = await grants.kind_known(conn, person_id)
        held = await grants.of_person(conn, person_id)
        excepted = await assigning.exceptions(
            conn, assigning.BEGINNING, assigning.FOR_EVER, person_id
        )
        ties = [
            it
            for it in await acts.ties(conn, person_id)
            if await known(conn, call.caller, it.subject)
        ]
    mine = [grant for grant in held if assigning.within(grant.reach, call.caller)]
    if kind is None or not mine:
        raise not_found("person", person_id)
    shown = {grant.id for grant in mine}
    return reply(
        PersonView(
            id=person_id, kind=kind, grants=tuple(grant_view(it, now) for it in mine),
            conflicts=tuple(
                it.number for it in assigning.holding(call.parts.rules.now.access, mine, now)
            ),
            exceptions=tuple(exception_view(it) for it in excepted if it.grant_id in shown),
            ties=tuple(
                TieView(tie=it.action, subject=it.subject, said=it.at, said_by=it.actor)
                for it in ties
            ),
        )
    )  # fmt: skip
