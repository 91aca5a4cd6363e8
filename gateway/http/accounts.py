"""Trading accounts over HTTP.

Knows paths and parameters. Refuses to know platforms; the flow asks the bridge.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from bridge import reads
from gateway.control.access import Tags
from gateway.control.refusals import not_found
from gateway.flows.views import AccountView, NewAccount, account_view
from gateway.http.bodies import Params
from gateway.http.calls import Call, answered, reply
from gateway.http.clients import known, reaches
from ledger.ids import is_id


class AccountParams(Params, frozen=True):
    """Whose accounts."""

    client: Annotated[str, Meta(min_length=20, max_length=20)]


class AccountList(msgspec.Struct, frozen=True):
    """All accounts of one client, oldest first."""

    data: tuple[AccountView, ...]


async def request(call: Call) -> web.Response:
    """POST /v1/accounts."""
    order = call.taken(NewAccount)
    return answered(await call.parts.accounts.request(call.command(), order, call.idem()))


async def show(call: Call) -> web.Response:
    """GET /v1/accounts/{id}."""
    account_id = call.path("id")
    if is_id(account_id, "AC"):
        async with call.parts.pool.acquire() as conn:
            account = await reads.account(conn, account_id)
            if account is not None and await reaches(
                conn, call.caller, account.client_id, Tags(account.entity, account.brand)
            ):
                return reply(account_view(account))
    raise not_found("account", account_id)


async def page(call: Call) -> web.Response:
    """GET /v1/accounts?client=."""
    client = await known(call, call.params(AccountParams).client)
    async with call.parts.pool.acquire() as conn:
        accounts = await reads.accounts_of(conn, client.id)
    return reply(AccountList(tuple(map(account_view, accounts))))
