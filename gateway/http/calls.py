"""A call: one request with its caller and its correlation, and how it is answered.

Knows how values leave as JSON. Refuses to know routes and refusals; those belong to `serving.py`.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from aiohttp import web

from gateway.control.access import Caller
from gateway.control.audit import Command
from gateway.control.idempotency import Answer, Idem
from gateway.http.bodies import P, read_params
from gateway.http.idempotency import fingerprint
from gateway.http.parts import Parts
from gateway.people import reach
from gateway.people.reach import InReach

S = TypeVar("S", bound=msgspec.Struct)

NOBODY = Caller(key_id="", person="", owner="")
_encode = msgspec.json.Encoder().encode


class Call:
    """What a handler is given.

    caller       NOBODY on public routes
    key          its Idempotency-Key on routes that demand one
    body         the raw bytes; `order` is what they decoded to on routes that take a body
    correlation  joins everything that follows from this request
    """

    __slots__ = ("body", "caller", "correlation", "key", "order", "parts", "request")

    def __init__(self, request: web.Request, parts: Parts, correlation: str) -> None:
        self.request = request
        self.parts = parts
        self.correlation = correlation
        self.caller = NOBODY
        self.key = ""
        self.body = b""
        self.order: object = None

    def command(self, reason: str = "") -> Command:
        """The envelope of a command: who, why, when; all but the reason from the credential."""
        return Command(self.caller, reason, self.correlation, self.parts.now())

    def idem(self) -> Idem:
        """The request's own identity, on routes that demand a key."""
        assert self.key, self.request.path
        request = self.request
        return Idem(
            self.caller.owner, self.key, fingerprint(request.method, request.path, self.body)
        )

    async def reaches_partner(self, partner_id: str) -> tuple[InReach, ...]:
        """The partner's contracts within the caller's reach; raises Refusal `not-found`."""
        async with self.parts.pool.acquire() as conn:
            return await reach.contracts(conn, self.caller, partner_id, self.parts.now())

    async def reaches_contract(self, contract_id: str) -> InReach:
        """The contract, if it is within the caller's reach; raises Refusal `not-found`."""
        async with self.parts.pool.acquire() as conn:
            return await reach.contract(conn, self.caller, contract_id, self.parts.now())

    def path(self, name: str) -> str:
        """A variable of the route's path."""
        return self.request.match_info[name]

    def params(self, kind: type[P]) -> P:
        """The query string as this type; raises Refusal `invalid-parameter`."""
        return read_params(kind, self.request.query)

    def taken(self, kind: type[S]) -> S:
        """The decoded body; the route's table says which type it is."""
        order = self.order
        assert isinstance(order, kind), (self.request.path, kind)
        return order


def reply(value: object, status: int = 200) -> web.Response:
    """Answer with a value as JSON."""
    return web.Response(body=_encode(value), status=status, content_type="application/json")


def answered(answer: Answer) -> web.Response:
    """Answer with what a flow decided, byte for byte."""
    headers: dict[str, str] = {}
    if answer.location:
        headers["Location"] = answer.location
    if answer.retry_after_s:
        headers["Retry-After"] = str(answer.retry_after_s)
    return web.Response(
        body=answer.body, status=answer.status, headers=headers, content_type="application/json"
    )
