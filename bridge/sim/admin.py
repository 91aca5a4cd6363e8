"""The admin port of the simulated platform: tell it to misbehave, and look into its books.

Knows plain HTTP with JSON for whoever writes the story of a test or a demo; trading has its own
part of the port, `floor.py`. Refuses to serve the product, which speaks the Web API only.
"""

from __future__ import annotations

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from bridge.sim.books import Group, Margin
from bridge.sim.faults import Fault
from bridge.sim.platform import Platform, reply_json


class Admin:
    """The admin port: plain HTTP with JSON, for whoever writes the story of a test."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def routes(self) -> list[web.RouteDef]:
        """Every endpoint."""
        return [
            web.post("/faults", self.add_fault),
            web.get("/faults", self.show_faults),
            web.delete("/faults", self.clear_faults),
            web.get("/books", self.show_books),
            web.post("/cut", self.cut),
            web.post("/groups", self.add_groups),
            web.post("/margin", self.set_margin),
        ]

    async def add_fault(self, request: web.Request) -> web.Response:
        """Append faults, given as one object or a list, to the script."""
        for fault in _faults(await request.read()):
            self._platform.script.add(fault)
        return await self.show_faults(request)

    async def show_faults(self, request: web.Request) -> web.Response:
        """What is still to come."""
        return reply_json(msgspec.json.encode(self._platform.script.open))

    async def clear_faults(self, request: web.Request) -> web.Response:
        """Behave well again."""
        self._platform.script.clear()
        return await self.show_faults(request)

    async def show_books(self, request: web.Request) -> web.Response:
        """Accounts with balances in minor units, deals, and how often each command came.

        `transfers_minor` is the part of a balance that came by trade/balance, and `deals` are those
        operations. Trades, and adjustments made by hand, are shown by `floor.py`.
        """
        books = self._platform.books
        accounts = [
            {
                "login": user.login,
                "group": user.group,
                "currency": books.groups[user.group].currency,
                "digits": books.groups[user.group].digits,
                "balance_minor": books.balance(user.login),
                "transfers_minor": books.transfers(user.login),
                "credit_minor": books.credit(user.login),
                "rights": user.rights,
                "leverage": user.leverage,
                "name": user.name,
                "id": user.id,
                "comment": user.comment,
            }
            for user in books.users.values()
        ]
        deals = [
            {
                "ticket": deal.ticket,
                "login": deal.login,
                "action": deal.action,
                "minor": deal.minor,
                "comment": deal.comment,
                "time": deal.time,
            }
            for deals in books.deals.values()
            for deal in deals
        ]
        shown = {
            "accounts": accounts,
            "deals": deals,
            "received": dict(self._platform.received),
            "windows": list(self._platform.windows),
        }
        return reply_json(msgspec.json.encode(shown))

    async def cut(self, request: web.Request) -> web.Response:
        """End every connection of the Web API at once."""
        return reply_json(msgspec.json.encode({"connections": self._platform.cut()}))

    async def add_groups(self, request: web.Request) -> web.Response:
        """Create or change groups, given as a list."""
        for group in msgspec.json.decode(await request.read(), type=list[Group]):
            self._platform.books.record(group)
        return reply_json(msgspec.json.encode(list(self._platform.books.groups.values())))

    async def set_margin(self, request: web.Request) -> web.Response:
        """Let open positions of an account use margin."""
        self._platform.books.record(msgspec.json.decode(await request.read(), type=Margin))
        return web.Response(status=204)


def _faults(body: bytes) -> list[Fault]:
    """One fault, or a list of them."""
    if body.lstrip().startswith(b"["):
        return msgspec.json.decode(body, type=list[Fault])
    return [msgspec.json.decode(body, type=Fault)]


@web.middleware
async def explain(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A request of the admin port that does not fit is the caller's error, in words."""
    try:
        return await handler(request)
    except (msgspec.DecodeError, ValueError) as no:
        return web.Response(status=400, text=str(no))
