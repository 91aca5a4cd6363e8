"""What the process says of itself: alive, ready, its metrics, its sessions, its own description.

Knows who may read the metrics without a key. Refuses to measure: it asks those who know.
"""

from __future__ import annotations

from datetime import datetime
from ipaddress import ip_address

import msgspec
from aiohttp import web

from bridge.session import SessionStatus
from gateway.control.access import Tags
from gateway.control.refusals import Refusal, not_found
from gateway.http import problems
from gateway.http.calls import Call, reply
from gateway.metrics import CONTENT_TYPE
from gateway.owners import last_holders

FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-Ip")


class Alive(msgspec.Struct, frozen=True):
    """The process answers."""

    status: str
    version: str


class SessionElsewhere(msgspec.Struct, frozen=True):
    """A server that another replica owns; how its session stands, that replica knows."""

    server: str
    replica: str
    since: datetime


class SessionList(msgspec.Struct, frozen=True):
    """Platform sessions: `data` are those this replica keeps, `elsewhere` those of others."""

    data: tuple[SessionStatus, ...]
    elsewhere: tuple[SessionElsewhere, ...]


async def livez(call: Call) -> web.Response:
    """GET /livez: 200 as long as the event loop turns."""
    return reply(Alive("alive", call.parts.version))


async def readyz(call: Call) -> web.Response:
    """GET /readyz: 200 when ready or degraded, with what is degraded; 503 else."""
    readiness = call.parts.readiness()
    return reply(readiness, 200 if readiness.takes_work else 503)


async def metrics(call: Call) -> web.Response:
    """GET /metrics: without a key for a scraper on this machine, with `metrics:read` for others."""
    parts = call.parts
    if not _local(call.request):
        caller = await parts.keys.caller(call.request.headers.get("Authorization"))
        caller.narrowed("metrics:read")
    await parts.refresh_metrics()
    text = await parts.metrics.render()
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})


def _local(request: web.Request) -> bool:
    """Whether the request was made on this machine; one that a proxy passed on was not."""
    if any(header in request.headers for header in FORWARDED):
        return False
    try:
        return request.remote is None or ip_address(request.remote).is_loopback
    except ValueError:  # a Unix socket's peer has no address
        return True


async def sessions(call: Call) -> web.Response:
    """GET /v1/sessions: those of platforms that serve an entity of the caller's."""
    book, caller = call.parts.rulebook, call.caller

    def reached(entity: str) -> bool:
        return caller.reaches(Tags(entity))

    mine = {each.id for each in book.platforms if any(map(reached, each.entities))}
    here = tuple(s for s in call.parts.sessions() if s.server in mine)
    others = sorted(mine - {status.server for status in here})
    async with call.parts.pool.acquire() as conn:
        held = await last_holders(conn, [f"platform:{server}" for server in others])
    elsewhere = [
        SessionElsewhere(server, *held[f"platform:{server}"])
        for server in others
        if f"platform:{server}" in held
    ]
    return reply(SessionList(here, tuple(elsewhere)))


async def problem(call: Call) -> web.Response:
    """GET /problems/{code}: what a problem's type means."""
    found = problems.explain(call.path("code"))
    if found is None:
        raise not_found("problem", call.path("code"))
    return reply(found)


class Taken(msgspec.Struct, frozen=True):
    """A provider's webhook was taken: `applied`, `repeated` or `parked`."""

    result: str


async def notice(call: Call) -> web.Response:
    """POST /v1/psps/{psp}/webhooks: verified on its raw bytes."""
    psp = call.path("psp")
    if psp not in {each.id for each in call.parts.rulebook.psps}:
        raise Refusal("psp-unknown", "no provider of this name")
    result = await call.parts.deposits.notice(psp, call.request.headers, call.body)
    return reply(Taken(result))
