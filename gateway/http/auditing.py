"""The audit over HTTP: looking into it, which is itself on record.

Knows paths and parameters. Refuses to judge what a grant reaches; `control/reading.py` does.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.control import reading
from gateway.control.exporting import Asked
from gateway.control.reading import AuditRecord
from gateway.http.bodies import Params
from gateway.http.books import Moment
from gateway.http.calls import Call, reply
from gateway.http.paging import Limit, NumberCursor, cut
from gateway.http.serving import Route

Word = Annotated[str, Meta(max_length=128)]


class AuditParams(Params, frozen=True):
    """Which records, and why they are looked at.

    purpose       why; it stands in the record of this looking
    person        who acted
    client        the client concerned, whatever the object was
    since, until  when the acts were asked for: from, and before
    """

    purpose: Annotated[str, Meta(max_length=500)] = ""
    person: Word = ""
    subject: Word = ""
    client: Word = ""
    command: Word = ""
    since: Moment | None = None
    until: Moment | None = None
    after: NumberCursor = 0
    limit: Limit = 50


class AuditPage(msgspec.Struct, frozen=True):
    """Sealed records newest first; `next` is the cursor of the following page, null on the last."""

    data: tuple[AuditRecord, ...]
    next: int | None


async def page(call: Call) -> web.Response:
    """GET /v1/audit."""
    wish = call.params(AuditParams)
    asked = Asked(
        since=wish.since, until=wish.until, person=wish.person, subject=wish.subject,
        client=wish.client,
    )  # fmt: skip
    async with call.parts.pool.acquire() as conn:
        found = await reading.read(
            conn, call.command(wish.purpose), call.parts.ids, asked, wish.command, wish.after,
            wish.limit + 1,
        )  # fmt: skip
    data, following = cut(found, wish.limit, lambda record: str(record.no))
    return reply(AuditPage(tuple(data), int(following) if following else None))


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/audit",
        scope="audit:read",
        masked=("audit:area",),
        handler=page,
        summary="Look into the audit: sealed records, newest first",
        params=AuditParams,
        responses={200: AuditPage},
        problems=("reason-missing",),
    ),
)
