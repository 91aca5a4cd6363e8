"""Signing in over HTTP: the page, the way to an identity provider and back, sessions and their end.

Knows forms, cookies and redirects. Refuses to judge a proof (`control/signing_in.py`), and to write
HTML (`web/desk.py`).

A person who is not let in is told so on the page they came from, in one sentence that is the same
for every reason. A session begins with a POST or with a provider's answer to a question that this
very browser took there: nobody can sign a browser in as somebody else behind its back.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Final
from urllib.parse import parse_qs

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.control.oidc import QUESTION_LASTS
from gateway.control.refusals import Refusal, not_found
from gateway.control.sign_ins import SignIn
from gateway.control.signing_in import PasswordSignIn
from gateway.http.bodies import Params
from gateway.http.calls import Call, reply
from gateway.http.cookies import QUESTION, SESSION, from_here, surely_from_here
from gateway.http.pages import DOOR, FORM, GUARD
from gateway.http.paging import Cursor, Limit, cut
from gateway.http.serving import PUBLIC, RAW, Route
from gateway.web import desk as html
from ledger.ids import is_id

HOME: Final = "/desk"
_SAID: Final[Mapping[str, str]] = {
    "sign-in-failed": "That did not work. Name, password or code is wrong, or the code was used.",
    "limit-exceeded": "Too many tries. Wait a minute, then try again.",
    "overloaded": "Too many people are signing in at this moment. Try again.",
    "issuer-away": "Your identity provider does not answer. Try again, or ask its operators.",
}


class SignInParams(Params, frozen=True):
    """Which sessions in force."""

    after: Cursor = ""
    limit: Limit = 50
    person: Annotated[str, Meta(max_length=64)] = ""


class SignInPage(msgspec.Struct, frozen=True):
    """A page of sessions and the cursor of the next."""

    data: tuple[SignIn, ...]
    next: str | None


class SignInEnded(msgspec.Struct, frozen=True):
    """Whose session it was."""

    id: str
    person: str


# --- programs -----------------------------------------------------------------------------------


async def create(call: Call) -> web.Response:
    """POST /v1/sign-ins: the answer's cookie is the session."""
    if not from_here(call.request):
        raise Refusal("forbidden", "only a page of ours can sign a browser in")
    address = call.parts.entrance.origins.address(call.request)
    entered = await call.parts.entrance.signing_in.enter(
        call.taken(PasswordSignIn), address, call.correlation
    )
    response = reply(entered[0], 201)
    _let_in(call, response, entered[1])
    return response


async def page(call: Call) -> web.Response:
    """GET /v1/sign-ins."""
    asked = call.params(SignInParams)
    async with call.parts.pool.acquire() as conn:
        found = await call.parts.entrance.sign_ins.page(
            conn, person=asked.person, after=asked.after, limit=asked.limit + 1
        )
    data, following = cut(found, asked.limit, lambda each: each.id)
    return reply(SignInPage(tuple(data), following))


async def revoke(call: Call) -> web.Response:
    """DELETE /v1/sign-ins/{id}."""
    id, command = call.path("id"), call.command()
    if not is_id(id, "SI"):
        raise not_found("sign-in", id)
    async with call.parts.pool.acquire() as conn:
        person = await call.parts.entrance.sign_ins.revoke(conn, command, id)
    return reply(SignInEnded(id, person))


# --- browsers -----------------------------------------------------------------------------------


async def show(call: Call) -> web.Response:
    """GET /sign-in: the door; whoever is signed in goes home."""
    with suppress(Refusal):
        await call.parts.entrance.sign_ins.caller(SESSION.read(call.request))
        return _led(HOME)
    return _door(call)


async def enter(call: Call) -> web.Response:
    """POST /sign-in: the form of the door."""
    try:
        order = _order(call)
        address = call.parts.entrance.origins.address(call.request)
        _, secret = await call.parts.entrance.signing_in.enter(order, address, call.correlation)
    except Refusal as no:
        return _door(call, no)
    response = _led(HOME)
    _let_in(call, response, secret)
    return response


async def ask(call: Call) -> web.Response:
    """GET /sign-in/{issuer}: to the identity provider, with a question."""
    try:
        to, cookie = await call.parts.entrance.signing_in.ask(
            call.path("issuer"), call.parts.entrance.origins.address(call.request)
        )
    except Refusal as no:
        return _door(call, no)
    response = _led(to)
    QUESTION.hand(call.request, response, cookie, QUESTION_LASTS)
    return response


async def answered(call: Call) -> web.Response:
    """GET /sign-in/{issuer}/callback: back from the identity provider, with its answer."""
    request = call.request
    try:
        _, secret = await call.parts.entrance.signing_in.answered(
            call.path("issuer"), QUESTION.read(request), dict(request.query),
            call.parts.entrance.origins.address(request), call.correlation,
        )  # fmt: skip
    except Refusal as no:
        response = _door(call, no)
    else:
        response = _led(HOME)
        _let_in(call, response, secret)
    QUESTION.end(request, response)
    return response


async def leave(call: Call) -> web.Response:
    """POST /sign-out: end the session that the cookie belongs to."""
    if not surely_from_here(call.request):
        raise Refusal("forbidden", "only a page of ours can end a session")
    response = _led("/sign-in")
    with suppress(Refusal):  # it is over already
        await call.parts.entrance.sign_ins.leave(SESSION.read(call.request), call.correlation)
    SESSION.end(call.request, response)
    return response


async def home(call: Call) -> web.Response:
    """GET /desk: who is signed in, and what they may look at."""
    try:
        caller = await call.parts.entrance.sign_ins.caller(SESSION.read(call.request))
    except Refusal:
        return _led("/sign-in")
    return _html(html.home(caller))


def _order(call: Call) -> PasswordSignIn:
    """What the form says; raises Refusal `sign-in-failed` for what no form of ours says."""
    if call.request.content_type == FORM and surely_from_here(call.request):
        try:
            said = parse_qs(call.body.decode(), max_num_fields=4)
            plain = {name: values[0] for name, values in said.items()}
            plain["code"] = plain.get("code", "").replace(" ", "")
            return msgspec.convert(plain, PasswordSignIn)
        except (ValueError, msgspec.ValidationError):
            pass
    raise Refusal("sign-in-failed", "the form cannot be read")


def _let_in(call: Call, response: web.Response, secret: str) -> None:
    SESSION.hand(call.request, response, secret, call.parts.entrance.sign_ins.lasting.at_most)
    response.headers["Cache-Control"] = "no-store"


def _door(call: Call, no: Refusal | None = None) -> web.Response:
    """The page that asks who comes; after a refusal it says so."""
    signing = call.parts.entrance.signing_in
    status, said = 200, ""
    if no is not None:
        call.parts.metrics.http_refusals.labels(no.code).inc()
        status = 429 if no.code == "limit-exceeded" else 401
        said = _SAID.get(no.code, _SAID["sign-in-failed"])
    return _html(html.door(signing.providers, passwords=signing.by_password, said=said), status)


def _led(to: str) -> web.Response:
    return web.Response(status=303, headers={**GUARD, "Location": to})


def _html(text: str, status: int = 200, guard: Mapping[str, str] = DOOR) -> web.Response:
    return web.Response(
        text=text, status=status, content_type="text/html", charset="utf-8", headers=guard
    )


ROUTES: Final = (
    Route(
        method="POST", path="/v1/sign-ins", scope=PUBLIC, handler=create,
        summary="Sign in by name, password and code: the answer's cookie is the session",
        request=PasswordSignIn, responses={201: SignIn},
        problems=("sign-in-failed", "limit-exceeded", "forbidden"),
    ),
    Route(
        method="GET", path="/v1/sign-ins", scope="sign-ins:read", handler=page,
        summary="List sessions in force, newest first", params=SignInParams,
        responses={200: SignInPage},
    ),
    Route(
        method="DELETE", path="/v1/sign-ins/{id}", scope="sign-ins:revoke", handler=revoke,
        summary="End somebody's session", responses={200: SignInEnded},
        problems=("not-found",),
    ),
    Route(
        method="GET", path="/sign-in", scope=PUBLIC, handler=show, media="text/html",
        summary="The page that asks who comes", responses={200: None, 303: None},
    ),
    Route(
        method="POST", path="/sign-in", scope=PUBLIC, handler=enter, request=RAW,
        takes=FORM, media="text/html", summary="Sign in by name, password and code",
        responses={303: None, 401: None, 429: None},
    ),
    Route(
        method="GET", path="/sign-in/{issuer}", scope=PUBLIC, handler=ask,
        media="text/html", summary="Go to an identity provider to sign in",
        responses={303: None, 401: None, 429: None},
    ),
    Route(
        method="GET", path="/sign-in/{issuer}/callback", scope=PUBLIC, handler=answered,
        media="text/html", summary="Come back from an identity provider",
        responses={303: None, 401: None, 429: None},
    ),
    Route(
        method="POST", path="/sign-out", scope=PUBLIC, handler=leave, media="text/html",
        summary="End the session that the cookie belongs to", responses={303: None},
        problems=("forbidden",),
    ),
    Route(
        method="GET", path="/desk", scope=PUBLIC, handler=home, media="text/html",
        summary="Who is signed in, and where to go", responses={200: None, 303: None},
    ),
)  # fmt: skip
