"""Clients over HTTP: decode, call the flow, encode; and their wallets as the books have them.

Knows paths and parameters. Refuses to decide a move; `flows/onboarding.py` does.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import asyncpg
import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.control.access import Caller, Tags
from gateway.control.refusals import not_found
from gateway.http.bodies import Params
from gateway.http.books import Moment, closed
from gateway.http.calls import Call, answered, reply
from gateway.http.paging import Cursor, Limit, cut
from gateway.people import clients
from gateway.people.clients import Client
from gateway.people.states import State
from gateway.people.views import (
    ClientPage,
    ClientView,
    HistoryView,
    MoveClient,
    NewClient,
    client_view,
)
from ledger import money
from ledger import reads as books
from ledger.ids import is_id

WALLET = ("client_wallet", "client_hold")
HISTORY_MAX = 1000


class ClientParams(Params, frozen=True):
    """Which clients. `reference` looks among those the caller itself made known."""

    after: Cursor = ""
    limit: Limit = 50
    state: State | None = None
    reference: Annotated[str, Meta(max_length=64)] = ""


class WalletParams(Params, frozen=True):
    """Now, or as of a closed moment of the past, RFC 3339 with its offset."""

    as_of: Moment | None = None


class WalletLine(msgspec.Struct, frozen=True):
    """What the broker owes the client in one currency: free, and set aside."""

    currency: str
    available: str
    held: str


class WalletView(msgspec.Struct, frozen=True):
    """A client's wallet, one line a currency."""

    client: str
    as_of: datetime | None
    data: tuple[WalletLine, ...]


async def create(call: Call) -> web.Response:
    """POST /v1/clients."""
    order = call.taken(NewClient)
    return answered(await call.parts.onboarding.create(call.command(), order, call.idem()))


async def move(call: Call) -> web.Response:
    """POST /v1/clients/{id}/moves."""
    order = call.taken(MoveClient)
    command = call.command(order.reason)
    return answered(await call.parts.onboarding.move(command, call.path("id"), order, call.idem()))


async def show(call: Call) -> web.Response:
    """GET /v1/clients/{id}."""
    return reply(_view(call, await known(call, call.path("id"))))


async def page(call: Call) -> web.Response:
    """GET /v1/clients."""
    asked = call.params(ClientParams)
    async with call.parts.pool.acquire() as conn:
        found = await clients.page(
            conn,
            call.caller,
            state=asked.state.value if asked.state else "",
            reference=asked.reference,
            after=asked.after,
            limit=asked.limit + 1,
        )
    data, following = cut(found, asked.limit, lambda client: client.id)
    return reply(ClientPage(tuple(_view(call, client) for client in data), following))


def _view(call: Call, client: Client) -> ClientView:
    """In full to who may read it in full within one grant that reaches it, else masked."""
    return client_view(client, masked=not call.caller.sees("clients:read", client.tags))


async def history(call: Call) -> web.Response:
    """GET /v1/clients/{id}/history."""
    client = await known(call, call.path("id"))
    async with call.parts.pool.acquire() as conn:
        moments = await clients.history(conn, client.id, HISTORY_MAX)
    return reply(HistoryView(tuple(moments)))


async def wallet(call: Call) -> web.Response:
    """GET /v1/clients/{id}/wallet."""
    as_of = call.params(WalletParams).as_of
    client = await known(call, call.path("id"))
    lines: dict[str, dict[str, int]] = {client.currency: {}}
    async with call.parts.pool.acquire() as conn:
        for kind in WALLET:
            for held in await closed(
                books.balances(conn, [client.book], kind=kind, owner=client.id, as_of=as_of)
            ):
                lines.setdefault(held.currency, {})[kind] = held.minor
    data = tuple(_line(code, lines[code]) for code in sorted(lines))
    return reply(WalletView(client.id, as_of, data))


def _line(code: str, minor: dict[str, int]) -> WalletLine:
    exponent = money.currency(code).exponent
    available, held = (money.text(minor.get(kind, 0), exponent) for kind in WALLET)
    return WalletLine(code, available, held)


async def reaches(conn: asyncpg.Connection, caller: Caller, client_id: str, tags: Tags) -> bool:
    """Whether what belongs to a client exists for the caller, by its own tags or by the client's.

    The client is asked only for who is tied to a desk or to partners: its entity never changes.
    """
    if caller.tied and not caller.untied().reaches(tags):
        return await clients.find_within(conn, caller, client_id) is not None
    return caller.reaches(tags)


async def known(call: Call, client_id: str) -> Client:
    """The client, if it exists for the caller; raises Refusal `not-found`."""
    if is_id(client_id, "CL"):
        async with call.parts.pool.acquire() as conn:
            client = await clients.find_within(conn, call.caller, client_id)
        if client is not None:
            return client
    raise not_found("client", client_id)
