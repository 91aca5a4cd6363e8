"""Serving a route: credential, scope, limit, body, handler, and every failure as a problem.

Knows the order of these steps and what each failure is answered with. Refuses to know any handler.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import asyncpg
import msgspec
from aiohttp import web
from prometheus_client import Counter, Histogram

from config.log import TRACE
from gateway.control.access import Caller
from gateway.control.refusals import Refusal
from gateway.http import problems
from gateway.http.bodies import decode
from gateway.http.calls import Call
from gateway.http.cookies import VISIT
from gateway.http.idempotency import HEADER, read_key
from gateway.http.pages import GUARD
from gateway.http.parts import Parts
from gateway.web import desk
from ledger.lane import LaneClosed, LaneFull, LaneLost

log = logging.getLogger("gateway.http")

CORRELATION: Final = "X-Correlation-Id"
PUBLIC: Final = "public"
_CORRELATION: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_AWAY: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.QueryCanceledError,
    asyncpg.InterfaceError,
    OSError,
    TimeoutError,
)

Handler = Callable[[Call], Awaitable[web.StreamResponse]]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the API.

    scope       what the credential must allow; PUBLIC asks for no credential
    masked      permissions with which it is answered too, but masked
    request     what the body decodes to; None takes no body; RAW leaves the bytes to the handler
    takes       the media of a RAW body
    responses   every status that is not a problem, with its type (None: not JSON, or no body)
    idempotent  whether an Idempotency-Key is demanded
    streams     whether its answer goes on for as long as the caller reads
    partners    whether a partner who visits a page of their own may read it too, without a key;
                the handler then asks `call.reaches_partner` or `call.reaches_contract`
    room        whether it is a page for people of the house: told to go and sign in, not refused
    media       of answers that are not JSON
    params      the query parameters
    problems    codes of this route's own; the usual ones are added by `openapi.py`
    """

    method: str
    path: str
    scope: str
    handler: Handler
    summary: str
    responses: Mapping[int, Any]
    request: Any = None
    takes: str = "application/json"
    idempotent: bool = False
    streams: bool = False
    partners: bool = False
    room: bool = False
    masked: tuple[str, ...] = ()
    media: str = "text/plain"
    params: Any = None
    problems: tuple[str, ...] = ()

    @property
    def reads(self) -> bool:
        """Whether it changes nothing."""
        return not self.idempotent and self.method == "GET"


RAW: Final = bytes


class Serving:
    """One route at work, with its decoder and its metrics made once."""

    def __init__(self, route: Route, parts: Parts) -> None:
        self._route = route
        self._parts = parts
        takes_json = route.request is not None and route.request is not RAW
        self._decoder = msgspec.json.Decoder(route.request) if takes_json else None
        metrics = parts.metrics
        self._seconds: Histogram = metrics.http_seconds.labels(route.method, route.path)
        self._statuses: dict[int, Counter] = {}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request, whatever happens."""
        parts = self._parts
        began = parts.monotonic()
        call = Call(request, parts, correlation(request, parts))
        TRACE.set(call.correlation)  # until this connection's next request sets its own
        response: web.StreamResponse
        try:
            response = await self._answer(call)
        except Refusal as no:
            parts.metrics.http_refusals.labels(no.code).inc()
            response = self._refused(call, no)
        except web.HTTPException as no:
            response = unserved(no, call.correlation)
        except LaneFull:
            response = _ours("overloaded", "too many commands wait already", call)
        except (LaneClosed, LaneLost, *_AWAY) as error:
            log.warning("http.unavailable", extra={"facts": _facts(call) | {"why": repr(error)}})
            response = _ours("unavailable", "nothing is known to have happened; ask again", call)
        except Exception:
            log.exception("http.failed", extra={"facts": _facts(call)})
            response = problems.problem("internal", "this is a fault of ours", call.correlation)
        response.headers[CORRELATION] = call.correlation
        self._note(call, response.status, parts.monotonic() - began)
        return response

    async def _answer(self, call: Call) -> web.StreamResponse:
        route, parts, request = self._route, self._parts, call.request
        if route.scope != PUBLIC:
            call.caller = await self._caller(request)
            await parts.limiter.admit(call.caller.owner, reads=route.reads)
        if route.idempotent:
            call.key = read_key(request.headers.get(HEADER))  # before a word about the body
        if route.request is not None:
            await self._read(call)
        return await route.handler(call)

    def _refused(self, call: Call, no: Refusal) -> web.Response:
        """A problem; to a browser that asked for a room, a page, or the way to sign in."""
        if not self._route.room or "text/html" not in call.request.headers.get("Accept", ""):
            return problems.refused(no, call.correlation)
        if no.code == "unauthenticated":
            return web.Response(status=303, headers={**GUARD, "Location": "/sign-in"})
        meaning = problems.TABLE[no.code]
        text = desk.refused(meaning.title, f"{no.detail}. {meaning.advice}")
        return web.Response(
            text=text, status=meaning.status, content_type="text/html", charset="utf-8",
            headers=GUARD,
        )  # fmt: skip

    async def _caller(self, request: web.Request) -> Caller:
        """By whatever credential it shows; or by the cookie of a visit, where the route is open to
        partners.

        What the handler gets holds the route's permission: only grants that have it are left.
        """
        header = request.headers.get("Authorization")
        if self._route.partners and header is None and (secret := VISIT.read(request)):
            return await self._parts.visits.caller(secret)
        caller = await self._parts.entrance.caller(request, reads=self._route.reads)
        return caller.narrowed(self._route.scope, *self._route.masked)

    async def _read(self, call: Call) -> None:
        request = call.request
        if self._decoder is not None and request.content_type != "application/json":
            raise Refusal("unsupported-media-type", f"not {request.content_type[:60]}")
        call.body = await request.read()
        if self._decoder is not None:
            call.order = decode(self._decoder, call.body)

    def _note(self, call: Call, status: int, seconds: float) -> None:
        """Count and log one answer."""
        route = self._route
        counter = self._statuses.get(status)
        if counter is None:
            counter = self._parts.metrics.http_requests.labels(
                route.method, route.path, str(status)
            )
            self._statuses[status] = counter
        counter.inc()
        if not route.streams:
            self._seconds.observe(seconds)
        level = logging.DEBUG if status < 400 else logging.INFO  # what went well is counted
        if log.isEnabledFor(level):
            facts = _facts(call) | {"status": status, "took_ms": round(seconds * 1000, 2)}
            log.log(level, "http.request", extra={"facts": facts})


def correlation(request: web.Request, parts: Parts) -> str:
    """The caller's correlation where it is well formed, else a new one."""
    given = request.headers.get(CORRELATION)
    if given is not None and _CORRELATION.fullmatch(given) is not None:
        return given
    return parts.ids.new("CR")


def unserved(no: web.HTTPException, request_id: str) -> web.Response:
    """What aiohttp itself refuses, as one of our problems."""
    codes = {404: "route-unknown", 405: "method-not-allowed", 413: "body-too-large"}
    code = codes.get(no.status, "malformed-request")
    headers = {"Allow": no.headers["Allow"]} if "Allow" in no.headers else None
    response = problems.problem(code, problems.TABLE[code].title, request_id, headers=headers)
    response.headers[CORRELATION] = request_id
    return response


def _ours(code: str, detail: str, call: Call) -> web.Response:
    return problems.problem(code, detail, call.correlation, headers={"Retry-After": "1"})


def _facts(call: Call) -> dict[str, object]:
    request = call.request
    return {
        "method": request.method,
        "path": request.path,
        "caller": call.caller.owner,
        "key": call.caller.key_id,
    }
