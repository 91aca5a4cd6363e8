"""Pages over HTTP: the link that opens a partner's page, the page, its rows, its day, its files.

Knows who is let in and which headers a page bears. Refuses to write HTML (`web/partner.py`) and to
know how a visit is kept (`people/visits.py`).

A page is for browsers, so whoever it does not open to is told on a page too. A link is looked at by
more than people (mail is scanned, messages are previewed, browsers fetch ahead), so looking shows a
door and uses nothing; its button does. The token of a link stands in the address of the door alone:
the button's answer leads to the bare address, and neither log nor metric holds a query.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from itertools import groupby
from typing import Final
from urllib.parse import parse_qs

import asyncpg
import msgspec
from aiohttp import web

from gateway.control.refusals import Refusal, not_found
from gateway.http.calls import Call, reply
from gateway.http.cookies import VISIT, from_here
from gateway.people.reach import InReach
from gateway.people.visits import LINK_LASTS, SESSION_LASTS
from gateway.web import partner as html
from gateway.web.assets import BY_PATH, PREFIX
from ledger import money
from ledger.rebates.course import Step
from ledger.rebates.reads import Line, contract_balances, latest

LINES_SHOWN: Final = 20
GUARD: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}  # fmt: skip
DOOR: Final[Mapping[str, str]] = {
    **GUARD,
    "Content-Security-Policy": GUARD["Content-Security-Policy"].replace(
        "form-action 'none'", "form-action 'self'"
    ),
}
FORM: Final = "application/x-www-form-urlencoded"
FOR_EVER: Final = "public, max-age=31536000, immutable"
CLOSED: Final = "Open the page with a new link"
USED: Final = (
    "This link was used already, is older than 15 minutes, or was taken back. Whoever gave it to "
    "you can give you another; it works once."
)
OVER: Final = (
    "Your visit is over, or this is not your page. Whoever gave you the link can give you another."
)


class PageLink(msgspec.Struct, frozen=True):
    """Where a partner's browser is sent, once, before `expires`."""

    url: str
    expires: datetime


class VisitsEnded(msgspec.Struct, frozen=True):
    """How many visits of a partner were open and are not any more."""

    ended: int


class DayOfCurrency(msgspec.Struct, frozen=True):
    """The day in one currency: minutes since 00:00 UTC in which lines were booked, and the sum of
    the day's lines after each.
    """

    currency: str
    minutes: tuple[int, ...]
    sums: tuple[str, ...]


class DayView(msgspec.Struct, frozen=True):
    """The running UTC day of a partner's contracts within reach."""

    partner: str
    day: date
    data: tuple[DayOfCurrency, ...]


async def link(call: Call) -> web.Response:
    """POST /v1/partners/{id}/page-link: never stored as an answer, so a repeat gives another."""
    partner_id, command = call.path("id"), call.command()
    await call.reaches_partner(partner_id)
    async with call.parts.pool.acquire() as conn:
        token = await call.parts.visits.link(conn, command, partner_id)
    url = f"/partners/{partner_id}?token={token}"
    response = reply(PageLink(url, command.at + LINK_LASTS))
    response.headers["Cache-Control"] = "no-store"
    return response


async def end(call: Call) -> web.Response:
    """DELETE /v1/partners/{id}/visits: whoever holds a link or a cookie of the partner is out."""
    partner_id, command = call.path("id"), call.command()
    await call.reaches_partner(partner_id)
    async with call.parts.pool.acquire() as conn:
        ended = await call.parts.visits.end(conn, command, partner_id)
    return reply(VisitsEnded(ended))


async def show(call: Call) -> web.Response:
    """GET /partners/{id}: with a token it is the door of a link; in a visit it is the page."""
    partner_id = call.path("id")
    try:
        if (token := call.request.query.get("token")) is not None:
            if await call.parts.visits.stands(partner_id, token):
                return _html(html.door(partner_id, token), guard=DOOR)
            return await _beyond(call, partner_id)
        contracts = await _visited(call, partner_id)
    except Refusal as no:
        if no.code == "limit-exceeded":
            raise
        return _closed(no)
    return _html(await _page(call, partner_id, contracts))


async def enter(call: Call) -> web.Response:
    """POST /partners/{id}: use the link whose door this browser was shown."""
    partner_id, visits = call.path("id"), call.parts.visits
    try:
        secret = await visits.open(partner_id, _token(call), call.correlation)
    except Refusal:
        try:
            return await _beyond(call, partner_id)
        except Refusal as void:
            return _closed(void)
    response = _bare(partner_id)
    VISIT.hand(call.request, response, secret, SESSION_LASTS)
    return response


async def leave(call: Call) -> web.Response:
    """POST /partners/{id}/leave: end the visit, whichever page of it this was said on."""
    if not from_here(call.request):
        raise Refusal("forbidden", "only a page of ours can end a visit")
    response = web.Response(status=204, headers=GUARD)
    VISIT.end(call.request, response)
    with suppress(Refusal):  # it is over already
        await call.parts.visits.leave(VISIT.read(call.request), call.correlation)
    return response


async def rows(call: Call) -> web.Response:
    """GET /partners/{id}/lines: the newest rows, as the page shows them; of those contracts only
    that are named, where any is.
    """
    contracts = await _visited(call, call.path("id"))
    named = call.request.query.getall("contract", [])
    contracts = tuple(each for each in contracts if not named or each.id in named)
    async with call.parts.pool.acquire() as conn:
        newest = await _newest(conn, contracts)
    return _html(html.rows(newest, call.parts.now().date()))


async def day(call: Call) -> web.Response:
    """GET /v1/partners/{id}/day."""
    partner_id = call.path("id")
    contracts = await call.reaches_partner(partner_id)
    today = call.parts.now().astimezone(UTC).date()
    steps = await call.parts.courses.read(call.parts.pool, _keys(contracts), today)
    found = {code: _summed(code, list(each)) for code, each in groupby(steps, _currency)}
    for code in {each.currency for each in contracts} - set(found):
        found[code] = DayOfCurrency(code, (), ())
    return reply(DayView(partner_id, today, tuple(found[code] for code in sorted(found))))


async def asset(call: Call) -> web.Response:
    """GET /assets/{hash}/{name}: a file that never changes at its address."""
    found = BY_PATH.get(f"{PREFIX}/{call.path('hash')}/{call.path('name')}")
    if found is None:
        raise not_found("file", call.path("name"))
    headers = {**GUARD, "Cache-Control": FOR_EVER}
    return web.Response(body=found.body, content_type=found.media, charset="utf-8", headers=headers)


async def _beyond(call: Call, partner_id: str) -> web.Response:
    """A link that is void still leads on for the browser that used it before; raises Refusal
    `link-void` for any other.
    """
    try:
        await _visited(call, partner_id)
    except Refusal:
        raise Refusal("link-void", "the link opens nothing, and no visit is in force") from None
    return _bare(partner_id)


def _bare(partner_id: str) -> web.Response:
    return web.Response(status=303, headers={**GUARD, "Location": f"/partners/{partner_id}"})


def _token(call: Call) -> str:
    """What the door's form says; "" is no link of ours, and so is what another page sent."""
    if call.request.content_type != FORM or not from_here(call.request):
        return ""
    try:
        said = parse_qs(call.body.decode("ascii"), max_num_fields=4)
    except ValueError:
        return ""
    return said.get("token", [""])[0]


def _closed(no: Refusal) -> web.Response:
    """The page for those to whom this one does not open."""
    text = USED if no.code == "link-void" else OVER
    return _html(html.closed(CLOSED, text), 404 if no.code == "not-found" else 401)


async def _visited(call: Call, partner_id: str) -> tuple[InReach, ...]:
    """The partner's contracts, for a visitor; raises Refusal for anybody else."""
    call.caller = await call.parts.visits.caller(VISIT.read(call.request))
    await call.parts.limiter.admit(call.caller.owner, reads=True)
    return await call.reaches_partner(partner_id)


async def _page(call: Call, partner_id: str, contracts: tuple[InReach, ...]) -> str:
    now = call.parts.now().astimezone(UTC)
    async with call.parts.pool.acquire() as conn:
        balances = await contract_balances(conn, _keys(contracts), now.date())
        newest = await _newest(conn, contracts)
    shown = html.Shown(
        partner=partner_id, codes=[each.code for each in contracts], day=now.date(), now=now,
        figures=html.figures({each.id: each.currency for each in contracts}, balances),
        lines=newest,
    )  # fmt: skip
    return html.page(shown)


async def _newest(conn: asyncpg.Connection, contracts: tuple[InReach, ...]) -> list[Line]:
    """The newest lines over all contracts, in the order in which they were booked."""
    found = [
        line for each in contracts for line in await latest(conn, each.book, each.id, LINES_SHOWN)
    ]
    return sorted(found, key=lambda line: (line.at, line.no), reverse=True)[:LINES_SHOWN]


def _keys(contracts: tuple[InReach, ...]) -> list[tuple[int, str]]:
    return [(each.book, each.id) for each in contracts]


def _currency(step: Step) -> str:
    return step.currency


def _summed(code: str, steps: list[Step]) -> DayOfCurrency:
    exponent, total, sums = money.currency(code).exponent, 0, []
    for step in steps:
        total += step.net
        sums.append(money.text(total, exponent))
    return DayOfCurrency(code, tuple(step.minute for step in steps), tuple(sums))


def _html(text: str, status: int = 200, guard: Mapping[str, str] = GUARD) -> web.Response:
    return web.Response(
        text=text, status=status, content_type="text/html", charset="utf-8", headers=guard
    )
