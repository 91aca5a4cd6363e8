"""Partners and contracts over HTTP: decode, call the flow, encode.

Knows paths and parameters. Refuses to know what was earned; `rebates.py` serves that.
"""

from __future__ import annotations

from typing import Annotated

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
                return reply(partner_view(partner, _within(call, held[partner.id])))
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
    views = [partner_view(partner, _within(call, held[partner.id])) for partner in data]
    return reply(PartnerPage(tuple(views), following))


async def show_contract(call: Call) -> web.Response:
    """GET /v1/contracts/{id}."""
    contract_id = call.path("id")
    if is_id(contract_id, "CT"):
        async with call.parts.pool.acquire() as conn:
            found = await partners.contract(conn, contract_id)
        if found is not None and call.caller.reaches(found.tags):
            return reply(contract_view(found))
    raise not_found("contract", contract_id)


def _within(call: Call, contracts: tuple[Contract, ...]) -> list[Contract]:
    return [each for each in contracts if call.caller.reaches(each.tags)]
