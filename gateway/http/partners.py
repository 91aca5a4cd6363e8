"""Partners and contracts over HTTP: decode, call the flow, encode.

Knows paths and parameters. Refuses to know what was earned; `rebates.py` serves that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import asyncpg
from aiohttp import web
from msgspec import Meta

from gateway.control.refusals import not_found
from gateway.http.bodies import Params
from gateway.http.calls import Call, answered, reply
from gateway.http.paging import Cursor, Limit, cut
from gateway.people import partners
from gateway.people.partners import Contract
from gateway.people.views_partners import (
    NewContract,
    NewPartner,
    PartnerPage,
    contract_view,
    partner_view,
)
from ledger.ids import is_id


class PartnerParams(Params, frozen=True):
    """Which partners. `reference` looks among those the caller itself made known."""

    after: Cursor = ""
    limit: Limit = 50
    reference: Annotated[str, Meta(max_length=64)] = ""


async def create(call: Call) -> web.Response:
    """POST /v1/partners."""
    order = call.taken(NewPartner)
    return answered(await call.parts.partnering.create(call.command(), order, call.idem()))


async def contract(call: Call) -> web.Response:
    """POST /v1/partners/{id}/contracts."""
    order = call.taken(NewContract)
    partner_id = call.path("id")
    return answered(
        await call.parts.partnering.contract(call.command(), partner_id, order, call.idem())
    )


async def show(call: Call) -> web.Response:
    """GET /v1/partners/{id}."""
    partner_id = call.path("id")
    if is_id(partner_id, "PA"):
        async with call.parts.pool.acquire() as conn:
            partner = await partners.find(conn, call.caller, partner_id)
            if partner is not None:
                held = await partners.contracts_of(conn, [partner.id])
                mine = await _within(conn, call, held)
                return reply(partner_view(partner, mine[partner.id]))
    raise not_found("partner", partner_id)


async def page(call: Call) -> web.Response:
    """GET /v1/partners."""
    asked = call.params(PartnerParams)
    async with call.parts.pool.acquire() as conn:
        found = await partners.page(
            conn, call.caller, reference=asked.reference, after=asked.after, limit=asked.limit + 1
        )
        data, following = cut(found, asked.limit, lambda partner: partner.id)
        held = await partners.contracts_of(conn, [partner.id for partner in data])
        mine = await _within(conn, call, held)
    views = [partner_view(partner, mine[partner.id]) for partner in data]
    return reply(PartnerPage(tuple(views), following))


async def show_contract(call: Call) -> web.Response:
    """GET /v1/contracts/{id}."""
    contract_id = call.path("id")
    if is_id(contract_id, "CT"):
        async with call.parts.pool.acquire() as conn:
            found = await partners.contract_within(conn, call.caller, contract_id)
        if found is not None:
            return reply(contract_view(found))
    raise not_found("contract", contract_id)


async def _within(
    conn: asyncpg.Connection, call: Call, held: Mapping[str, tuple[Contract, ...]]
) -> dict[str, list[Contract]]:
    """Of each partner's contracts those that exist for the caller."""
    ids = [each.id for contracts in held.values() for each in contracts]
    mine = await partners.within(conn, call.caller, ids)
    return {key: [each for each in them if each.id in mine] for key, them in held.items()}
