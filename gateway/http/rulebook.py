"""Versions of the rulebook over HTTP: what is in force, its history, drafts, and what they change.

Knows paths and parameters. Refuses to judge who may draft and agree (`flows/publishing.py`), and to
show a rulebook to whoever reaches only a part of the house: it names every entity.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from config.difference import differences
from gateway.control import rulebook as rulebooks
from gateway.control import versions
from gateway.control.access import Tags
from gateway.control.refusals import Refusal, not_found
from gateway.control.versions import Version
from gateway.control.views_rulebook import (
    DifferencesView,
    DraftRulebook,
    PublishRulebook,
    RulebookView,
    VersionPage,
    WithdrawRulebook,
    version_view,
)
from gateway.http.bodies import Params
from gateway.http.calls import Call, answered, reply
from gateway.http.paging import Cursor, Limit, cut
from ledger.ids import is_id


class VersionParams(Params, frozen=True):
    """Which versions."""

    after: Cursor = ""
    limit: Limit = 50
    state: Literal[
        "", "draft", "checked", "asked", "approved", "effective", "superseded", "withdrawn",
        "outdated",
    ] = ""  # fmt: skip


class DifferenceParams(Params, frozen=True):
    """Against which: the number of one that was in force; without it, what it was drafted on."""

    against: Annotated[int, Meta(ge=0, le=2**53)] = 0


async def in_force(call: Call) -> web.Response:
    """GET /v1/rulebook."""
    _whole(call)
    async with call.parts.pool.acquire() as conn:
        found = await rulebooks.in_force(conn)
        assert found is not None, "a process serves with a rulebook in force"
        source = await rulebooks.source(conn, found.hash)
        version = await versions.effective(conn)
    if version is not None and version.hash != found.hash:
        version = None  # brought into force by who tries rules out, past every version
    view = RulebookView(
        found.hash, found.version, found.since, msgspec.json.decode(source),
        version_view(version) if version else None,
    )  # fmt: skip
    return reply(view)


async def page(call: Call) -> web.Response:
    """GET /v1/rulebook/versions."""
    _whole(call)
    asked = call.params(VersionParams)
    async with call.parts.pool.acquire() as conn:
        found = await versions.page(
            conn, state=asked.state, after=asked.after, limit=asked.limit + 1
        )
    data, following = cut(found, asked.limit, lambda version: version.id)
    return reply(VersionPage(tuple(map(version_view, data)), following))


async def show(call: Call) -> web.Response:
    """GET /v1/rulebook/versions/{id}."""
    return reply(version_view(await _known(call)))


async def diff(call: Call) -> web.Response:
    """GET /v1/rulebook/versions/{id}/diff."""
    version, asked = await _known(call), call.params(DifferenceParams)
    async with call.parts.pool.acquire() as conn:
        base = version.base
        if asked.against:
            base = await versions.numbered(conn, asked.against)
        before = await rulebooks.source(conn, base) if base else b"{}"
        after = await rulebooks.source(conn, version.hash)
    found = await asyncio.to_thread(differences, before, after)
    return reply(DifferencesView(base, version.hash, tuple(found)))


async def effects(call: Call) -> web.Response:
    """GET /v1/rulebook/versions/{id}/effects."""
    version = await _known(call)
    return reply(await call.parts.effects.of(version))


async def draft(call: Call) -> web.Response:
    """POST /v1/rulebook/versions."""
    order = call.taken(DraftRulebook)
    command = call.command(order.reason)
    return answered(await call.parts.publishing.draft(command, order, call.idem()))


async def publish(call: Call) -> web.Response:
    """POST /v1/rulebook/versions/{id}/publish."""
    order = call.taken(PublishRulebook)
    command = call.command(order.reason)
    return answered(
        await call.parts.publishing.publish(command, call.path("id"), order, call.idem())
    )


async def withdraw(call: Call) -> web.Response:
    """POST /v1/rulebook/versions/{id}/withdraw."""
    command = call.command(call.taken(WithdrawRulebook).reason)
    return answered(await call.parts.publishing.withdraw(command, call.path("id"), call.idem()))


async def _known(call: Call) -> Version:
    _whole(call)
    version_id = call.path("id")
    if is_id(version_id, "RV"):
        async with call.parts.pool.acquire() as conn:
            found = await versions.find(conn, version_id)
        if found is not None:
            return found
    raise not_found("version of the rulebook", version_id)


def _whole(call: Call) -> None:
    if not call.caller.reaches(Tags()):
        said = "the rulebook is of the whole house, your grants are of a part of it"
        raise Refusal("forbidden", said, {"scope": "rulebook:read"})
