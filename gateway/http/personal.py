"""People's data over HTTP.

Knows paths and parameters. Refuses to open a field; `flows/personal.py` does, on record.
"""

from __future__ import annotations

from typing import Annotated, Final

from aiohttp import web
from msgspec import Meta

from gateway.control.views import ApprovalView
from gateway.http.bodies import Params
from gateway.http.calls import Call, answered, reply
from gateway.http.clients import known
from gateway.http.serving import Route
from gateway.people.views_personal import Erasure, PersonalData, PersonalView


class ViewParams(Params, frozen=True):
    """Why the data is looked at; it stands in the audit. Not needed where it is shown masked."""

    purpose: Annotated[str, Meta(max_length=500)] = ""


async def keep(call: Call) -> web.Response:
    """PUT /v1/clients/{id}/personal."""
    client = await known(call, call.path("id"))
    order = call.taken(PersonalData)
    return reply(await call.parts.personal.keep(call.command(), client, order))


async def view(call: Call) -> web.Response:
    """GET /v1/clients/{id}/personal."""
    purpose = call.params(ViewParams).purpose
    client = await known(call, call.path("id"))
    shown = reply(await call.parts.personal.view(call.command(purpose), client))
    shown.headers["Cache-Control"] = "no-store"
    return shown


async def erase(call: Call) -> web.Response:
    """POST /v1/clients/{id}/erasures."""
    order = call.taken(Erasure)
    client = await known(call, call.path("id"))
    command = call.command(order.reason)
    return answered(await call.parts.personal.ask(command, client, order, call.idem()))


ROUTES: Final = (
    Route(
        method="PUT",
        path="/v1/clients/{id}/personal",
        scope="clients:write",
        handler=keep,
        summary="Keep what is known of a client as a person, as ciphertext",
        request=PersonalData,
        responses={200: PersonalView},
        problems=("erased", "personal-off"),
    ),
    Route(
        method="GET",
        path="/v1/clients/{id}/personal",
        scope="clients:read",
        masked=("clients:masked",),
        handler=view,
        params=ViewParams,
        summary="Read what is known of a client as a person: on record with its purpose, or masked",
        responses={200: PersonalView},
        problems=("reason-missing", "personal-off"),
    ),
    Route(
        method="POST",
        path="/v1/clients/{id}/erasures",
        scope="purges:request",
        handler=erase,
        summary="Ask that what is known of a client as a person is erased",
        request=Erasure,
        idempotent=True,
        responses={202: ApprovalView},
        problems=(
            "client-state",
            "reason-missing",
            "approval-open",
            "duty-conflict",
            "conflict",
            "version-conflict",
            "rulebook-moved",
        ),
    ),
)
