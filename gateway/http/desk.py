"""The rooms of the house's own people over HTTP: each a page over a route of the API.

Knows forms and which API route each page reads, by calling it: a page shows nothing that the route
would not, masked and filtered the same. Refuses to write HTML (`web/rooms.py`), and to let anybody
in: `serving.py` does, by the same permissions as for the API.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Iterator, Mapping
from typing import Final, TypeVar
from urllib.parse import parse_qs

import msgspec
from aiohttp import web

from gateway.control.access import Caller
from gateway.control.idempotency import Idem
from gateway.control.refusals import Refusal
from gateway.control.views import ApprovalPage, Decide, ItemPage, ResolveItem
from gateway.control.views_rulebook import DifferencesView, VersionPage, VersionView
from gateway.flows.effects import Effects
from gateway.http import auditing, control, rulebook
from gateway.http.calls import Call
from gateway.http.idempotency import fingerprint, read_key
from gateway.http.pages import DOOR, FORM, GUARD
from gateway.http.serving import RAW, Route
from gateway.web import desk as html
from gateway.web import rooms

T = TypeVar("T")

_MINUTE: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2})?", re.ASCII)


async def approvals(call: Call) -> web.Response:
    """GET /desk/approvals."""
    _cleaned(call)
    page = await _read(control.approval_page(call), ApprovalPage)
    state = call.request.query.get("state", "")
    body = rooms.inbox(page, state, call.caller.person, _keys(call))
    return await _room(call, "Approvals", body, "/desk/approvals")


async def decide(call: Call) -> web.Response:
    """POST /desk/approvals/{id}."""
    form = _form(call)
    order = _order(form, Decide)
    command = call.command(order.reason)
    await call.parts.approving.decide(command, call.path("id"), order, _idem(call, form))
    return _led("/desk/approvals?state=open")


async def items(call: Call) -> web.Response:
    """GET /desk/items."""
    _cleaned(call)
    page = await _read(control.item_page(call), ItemPage)
    query = call.request.query
    body = rooms.worklist(page, query.get("state", ""), query.get("team", ""), _keys(call))
    return await _room(call, "Items", body, "/desk/items")


async def resolve(call: Call) -> web.Response:
    """POST /desk/items/{id}."""
    form = _form(call)
    order = _order(form, ResolveItem)
    command = call.command(order.reason)
    await call.parts.approving.resolve(command, call.path("id"), order, _idem(call, form))
    return _led("/desk/items?state=open")


async def audit(call: Call) -> web.Response:
    """GET /desk/audit: nothing is read before somebody says why."""
    asked = dict(call.request.query)
    _cleaned(call)
    if not call.request.query.get("purpose"):
        return await _room(call, "Audit", rooms.audit_search(asked, None, None), "/desk/audit")
    page = await _read(auditing.page(call), rooms.Records)
    body = rooms.audit_search(asked, page.data, page.next)
    return await _room(call, "Audit", body, "/desk/audit")


async def history(call: Call) -> web.Response:
    """GET /desk/rulebook."""
    _cleaned(call)
    page = await _read(rulebook.page(call), VersionPage)
    return await _room(call, "Rulebook", rooms.history(page), "/desk/rulebook")


async def version(call: Call) -> web.Response:
    """GET /desk/rulebook/{id}."""
    shown = await _read(rulebook.show(call), VersionView)
    changes = await _read(rulebook.diff(call), DifferencesView)
    effects = await _read(rulebook.effects(call), Effects)
    body = rooms.version(shown, changes, effects)
    return await _room(call, f"Version {shown.id}", body, "/desk/rulebook")


async def _read(answer: Awaitable[web.Response], kind: type[T]) -> T:
    """What the route of the API says."""
    body = (await answer).body
    assert isinstance(body, bytes)
    return msgspec.json.decode(body, type=kind)


async def _room(call: Call, title: str, body: str, here: str) -> web.Response:
    """The page of a room, with the links of all that its reader may enter."""
    reader: Caller = await call.parts.entrance.caller(call.request, reads=True)
    text = html.frame(reader, title, body, here=here)
    return web.Response(text=text, content_type="text/html", charset="utf-8", headers=DOOR)


def _cleaned(call: Call) -> None:
    """A form sends what was left empty, and moments without their zone: make them parameters."""
    query = [(name, _zoned(value)) for name, value in call.request.query.items() if value]
    call.request = call.request.clone(rel_url=call.request.rel_url.with_query(query))


def _zoned(value: str) -> str:
    """A moment as a browser's field says it, of UTC; anything else as it is."""
    if _MINUTE.fullmatch(value) is None:
        return value
    return f"{value}Z" if value.count(":") == 2 else f"{value}:00Z"


def _form(call: Call) -> Mapping[str, str]:
    """What a form of ours says; raises Refusal `invalid-request`."""
    if call.request.content_type == FORM:
        try:
            said = parse_qs(call.body.decode(), max_num_fields=8)
            return {name: values[0] for name, values in said.items()}
        except ValueError:
            pass
    raise Refusal("invalid-request", "the form cannot be read")


def _order(form: Mapping[str, str], kind: type[T]) -> T:
    plain = {name: value for name, value in form.items() if name != "key"}
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise Refusal("invalid-request", str(error)) from None


def _idem(call: Call, form: Mapping[str, str]) -> Idem:
    """A form has a key of its own: sent twice, it is done once."""
    key = read_key(form.get("key"))
    request = call.request
    return Idem(call.caller.owner, key, fingerprint(request.method, request.path, call.body))


def _keys(call: Call) -> Iterator[str]:
    while True:
        yield call.parts.ids.new("CR")


def _led(to: str) -> web.Response:
    return web.Response(status=303, headers={**GUARD, "Location": to})


ROUTES: Final = (
    Route(
        method="GET", path="/desk/approvals", scope="approvals:read", handler=approvals,
        room=True, media="text/html", summary="Questions, with the forms that decide them",
        params=control.ApprovalParams, responses={200: None, 303: None},
    ),
    Route(
        method="POST", path="/desk/approvals/{id}", scope="approvals:decide",
        handler=decide, room=True, media="text/html", request=RAW, takes=FORM,
        summary="Agree to a question, or refuse it, by its form", responses={303: None},
        problems=("invalid-request", "idempotency-key-missing", "idempotency-key-malformed",
                  "reason-missing", "duty-conflict", "already-decided", "approval-expired"),
    ),
    Route(
        method="GET", path="/desk/items", scope="items:read", handler=items, room=True,
        media="text/html", summary="What a person must look at, with the forms that close it",
        params=control.ItemParams, responses={200: None, 303: None},
    ),
    Route(
        method="POST", path="/desk/items/{id}", scope="items:resolve", handler=resolve,
        room=True, media="text/html", request=RAW, takes=FORM,
        summary="Close an item by its form", responses={303: None},
        problems=("invalid-request", "idempotency-key-missing", "idempotency-key-malformed",
                  "already-resolved", "duty-conflict"),
    ),
    Route(
        method="GET", path="/desk/audit", scope="audit:read", masked=("audit:area",),
        handler=audit, room=True, media="text/html",
        summary="Search the audit: which records, and why", params=auditing.AuditParams,
        responses={200: None, 303: None}, problems=("reason-missing",),
    ),
    Route(
        method="GET", path="/desk/rulebook", scope="rulebook:read", handler=history,
        room=True, media="text/html", summary="The history of the rulebook",
        params=rulebook.VersionParams, responses={200: None, 303: None},
    ),
    Route(
        method="GET", path="/desk/rulebook/{id}", scope="rulebook:read", handler=version,
        room=True, media="text/html", summary="A version: what it changes, and for whom",
        responses={200: None, 303: None},
    ),
)  # fmt: skip
