"""The rooms of the house's own people: who is let in, what they see, and what their forms do.

It knows the pages as text. It refuses to know how they look: `test_desk_browser.py` has a browser.
"""

from __future__ import annotations

import html
import re
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis
from yarl import URL

from gateway.control.items import item_opened
from ledger.units import Done, Unit
from tests.integration.gateway.conftest import Api, serving
from tests.integration.gateway.test_rulebook_api import BOOK, dearer, drafted
from tests.support.servers import Database

PAGE = {"Accept": "text/html,*/*;q=0.8"}
ROOMS = ("/desk/approvals", "/desk/items", "/desk/audit", "/desk/rulebook")


async def shown(api: Api, path: str, token: str = "") -> str:
    """A room as its reader sees it."""
    answer = await api.call("GET", path, token=token or None, headers=PAGE)
    assert answer.status == 200, await answer.text()
    assert answer.content_type == "text/html"
    assert "form-action 'self'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"
    return await answer.text()


async def sent(api: Api, path: str, token: str, **fields: str) -> Any:
    """A form sent by its page."""
    headers = PAGE | {"Content-Type": "application/x-www-form-urlencoded"}
    body = str(URL.build(query=fields).raw_query_string).encode()
    return await api.client.post(
        path, data=body, headers=headers | {"Authorization": f"Bearer {token}"},
        allow_redirects=False,
    )  # fmt: skip


async def asked(api: Api) -> str:
    """A question about a client."""
    view = await api.new_client()
    view = await api.walk(view, "registered", "kyc_pending", "kyc_under_review")
    answer = await api.move(view, "approved", reason="<b>papers</b> & all")
    assert answer.status == 202, await answer.text()
    return str((await answer.json())["id"])


def key_of(page: str) -> str:
    """The key of the first form on a page."""
    found = re.search(r'name="key" value="(\w+)"', page)
    assert found is not None, page
    return found[1]


@pytest.mark.parametrize("room", ROOMS)
async def test_a_room_is_entered_by_who_may_and_by_nobody_else(api: Api, room: str) -> None:
    """A stranger is led to the door, somebody without the permission is told so on a page, and a
    program gets a problem.
    """
    api.client.session.cookie_jar.clear()
    stranger = await api.client.get(room, headers=PAGE, allow_redirects=False)
    assert (stranger.status, stranger.headers["Location"]) == (303, "/sign-in")
    nobody = await api.key("nothing", owner="nobody")
    denied = await api.call("GET", room, token=nobody, headers=PAGE)
    assert (denied.status, denied.content_type) == (403, "text/html")
    program = await api.call("GET", room, token=nobody)
    assert (program.status, program.content_type) == (403, "application/problem+json")
    page = await shown(api, room)
    for other in ROOMS:
        assert f'href="{other}' in page
    assert re.search(rf'href="{room}[^>]*aria-current="page"', page)


async def test_a_question_is_decided_by_its_form_once(api: Api) -> None:
    """Another person agrees; the same form sent again changes nothing; then it is gone."""
    approval = await asked(api)
    token = await api.key("compliance", owner="desk", person="bob")
    page = await shown(api, "/desk/approvals?state=open", token)
    assert approval in page
    assert "<b>papers" not in page
    assert "<b>papers</b> & all" in html.unescape(page)

    form = {"key": key_of(page), "reason": "seen", "decision": "approve"}
    path = f"/desk/approvals/{approval}"
    for _ in range(2):
        done = await sent(api, path, token, **form)
        assert (done.status, done.headers["Location"]) == (303, "/desk/approvals?state=open")
    view = await (await api.call("GET", f"/v1/approvals/{approval}")).json()
    assert (view["state"], view["votes"]) == ("approved", ["bob"])
    assert approval not in await shown(api, "/desk/approvals?state=open", token)
    assert approval in await shown(api, "/desk/approvals?state=approved", token)


async def test_who_asked_has_no_form_and_is_told_why_when_they_send_one(api: Api) -> None:
    """The engine decides, not the page."""
    approval = await asked(api)
    own = await api.key()
    assert 'name="decision"' not in await shown(api, "/desk/approvals", own)
    form = {"key": "k", "reason": "mine", "decision": "approve"}
    refused = await sent(api, f"/desk/approvals/{approval}", own, **form)
    assert refused.status == 403
    assert "One person may not do both" in await refused.text()
    for broken, status in (
        ({"reason": "x", "decision": "approve"}, 400),
        ({"key": "k2", "reason": "x", "decision": "perhaps"}, 422),
        ({"key": "k3", "reason": "", "decision": "approve"}, 422),
    ):
        answer = await sent(api, f"/desk/approvals/{approval}", own, **broken)
        assert answer.status == status, broken


async def test_an_item_is_closed_by_its_form(api: Api) -> None:
    """With the words of whoever closed it."""
    ids, now = api.parts.ids, api.clock.now()
    item = ids.new("IT")
    opened = item_opened(item, "feed-stopped", "platform", "mt5", "it <stopped>", now)
    assert isinstance(await api.lane.submit(Unit((opened,))), Done)
    page = await shown(api, "/desk/items?state=open&team=platform")
    assert "it &lt;stopped&gt;" in page
    assert item not in await shown(api, "/desk/items?state=open&team=payments")
    token = await api.key()
    done = await sent(api, f"/desk/items/{item}", token, key=key_of(page), reason="restarted")
    assert done.status == 303
    closed = await shown(api, "/desk/items?state=resolved")
    assert item in closed
    assert "restarted" in closed


async def test_the_audit_is_searched_with_a_purpose_alone(api: Api) -> None:
    """Nothing is read before somebody says why; a form's empty fields ask for nothing."""
    page = await shown(api, "/desk/audit")
    assert "<table" not in page
    count = "SELECT count(*) AS n FROM gateway.audit WHERE command = 'audit.read'"
    assert (await api.rows(count))[0]["n"] == 0
    query = "purpose=a+<question>&person=&subject=&client=&command=&since=2026-01-01T00:00&until="
    page = await shown(api, f"/desk/audit?{query}")
    assert 'value="a &lt;question&gt;"' in page
    (row,) = await api.rows("SELECT * FROM gateway.audit WHERE command = 'audit.read'")
    assert row["reason"] == "a <question>"
    wrong = await api.call("GET", "/desk/audit?purpose=x&since=yesterday", headers=PAGE)
    assert wrong.status == 422


async def test_the_history_of_the_rulebook_is_of_the_whole_house(api: Api) -> None:
    """Who reaches a part of it is told so; a version nobody knows is not there."""
    assert "aria-current" in await shown(api, "/desk/rulebook")
    eu = await api.key("everything", owner="eu", entities=("fx-eu",))
    assert (await api.call("GET", "/desk/rulebook", token=eu, headers=PAGE)).status == 403
    missing = await api.call("GET", "/desk/rulebook/RV" + "0" * 18, headers=PAGE)
    assert missing.status == 404


async def test_a_version_says_what_it_changes_and_for_whom(
    database: Database, pool: asyncpg.Pool, redis: Redis
) -> None:
    """The history leads to each version, and that shows what was, what would be, and whom."""
    async with serving(database, pool, redis, book=BOOK) as api:
        version = await drafted(api, dearer)
        assert f'href="/desk/rulebook/{version["id"]}"' in await shown(api, "/desk/rulebook")
        page = await shown(api, f"/desk/rulebook/{version['id']}")
    text = html.unescape(re.sub("<[^>]+>", "", page))
    assert "@ plan eu-partner" in text
    assert '"per_lot":"5"' in next(line for line in text.splitlines() if line.startswith("\u2212"))
    assert '"per_lot":"6"' in next(line for line in text.splitlines() if line.startswith("+"))
    assert "the board wants it" in text
    assert '"differences": 1' in text
