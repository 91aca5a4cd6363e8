"""The rooms of the house in a real browser: by keyboard, by eye, by who uses neither.

The browser signs in as a person does; axe looks at every room.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect
from redis.asyncio import Redis

from gateway import queries as gateway_queries
from gateway.control import audit, codes, keys, staff
from gateway.control.access import Reach
from gateway.control.audit import Command
from gateway.control.codes import Safe
from gateway.control.grants import Grant, given, person_known
from gateway.control.items import item_opened
from gateway.control.passwords import Passwords
from gateway.control.sealing import Sealer
from ledger.units import Done, Unit
from tests.integration.gateway.conftest import PEPPER, Api, serving
from tests.integration.gateway.test_rulebook_api import BOOK, dearer, drafted
from tests.support.browser import Troubles, chromium, flaws
from tests.support.servers import Database

pytestmark = pytest.mark.slow

PASSWORD = "correct horse battery"
PHONE = {"width": 360, "height": 740}


class Ground:
    """The broker, a browser before it, and Bob, who may do everything."""

    def __init__(self, api: Api, page: Page, secret: bytes) -> None:
        self.api = api
        self.page = page
        self.troubles = Troubles(page)
        self.url = f"http://127.0.0.1:{api.client.port}"
        self._secret = secret

    def code(self) -> str:
        """What Bob's device shows."""
        return codes.code_at(self._secret, codes.step_of(self.api.clock.now()))

    async def enters(self) -> None:
        """Sign in by the keyboard alone."""
        await self.page.goto(f"{self.url}/desk/approvals?state=open")
        assert self.page.url == f"{self.url}/sign-in"
        keyboard = self.page.keyboard
        for typed in ("bob", PASSWORD, self.code()):
            await keyboard.press("Tab")
            await keyboard.type(typed)
        await keyboard.press("Enter")
        await self.page.wait_for_url(f"{self.url}/desk")

    async def opens(self, room: str) -> None:
        """Follow a link of the frame."""
        await self.page.get_by_role("navigation").get_by_role("link", name=room).click()
        await expect(self.page.get_by_role("heading", level=1)).to_have_text(room)

    async def looked_over(self) -> None:
        """Nothing that axe finds, nothing wider than the window, on both grounds."""
        for scheme in ("light", "dark"):
            await self.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            assert await flaws(self.page) == [], self.page.url
        await self.page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        wide = await self.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= PHONE["width"], self.page.url
        await self.page.set_viewport_size({"width": 1280, "height": 900})


async def _bob(api: Api) -> bytes:
    """Bob, with a password and a device; returns the device's secret."""
    by = Command(keys.operator("root"), "test", "test", api.clock.now())
    made = staff.Staff(Passwords(os.urandom), Safe(PEPPER, os.urandom), api.parts.ids)
    now = datetime.now(UTC)
    grant = Grant(
        id=api.parts.ids.new("GR"), person="bob", role="everything", reach=Reach(),
        valid_from=now, created=now, created_by="root",
    )  # fmt: skip
    async with api.pool.acquire() as conn:
        async with conn.transaction():
            await audit.write(conn, [person_known("bob", "human", now, "root"), given(grant)])
        await made.password(conn, by, "bob", PASSWORD)
        address = await made.device(conn, by, "bob")
    found = re.search(r"secret=(\w+)", address)
    assert found is not None
    return base64.b32decode(found[1])


@pytest_asyncio.fixture
async def ground(api: Api) -> AsyncIterator[Ground]:
    """All of it, for one test."""
    async with AsyncExitStack() as opened:
        browser = await opened.enter_async_context(chromium())
        context = await browser.new_context()
        page = await context.new_page()
        yield Ground(api, page, await _bob(api))
        await context.close()


async def _question(api: Api) -> dict[str, Any]:
    view = await api.new_client()
    view = await api.walk(view, "registered", "kyc_pending", "kyc_under_review")
    return dict(await (await api.move(view, "approved")).json())


async def test_a_person_works_through_every_room(ground: Ground) -> None:
    """Sign in, agree to a question, close an item, search the audit, look at the rulebook, leave;
    each room is one that everybody can use.
    """
    api, page = ground.api, ground.page
    approval = await _question(api)
    item = api.parts.ids.new("IT")
    opened = item_opened(item, "feed-stopped", "platform", "mt5", "it stopped", api.clock.now())
    assert isinstance(await api.lane.submit(Unit((opened,))), Done)
    await page.goto(f"{ground.url}/sign-in")
    await ground.looked_over()

    await ground.enters()
    await ground.looked_over()
    await ground.opens("Approvals")
    card = page.locator(f"#{approval['id']}")
    await expect(card).to_contain_text("asks to move a client to another state")
    await card.get_by_text("What will be applied").click()
    await ground.looked_over()
    await card.get_by_label("Reason").fill("the papers are good")
    await card.get_by_role("button", name="Agree").click()
    await expect(page.get_by_text("Nothing is here.")).to_be_visible()

    await ground.opens("Items")
    await ground.looked_over()
    await page.get_by_label("What was done about it").fill("restarted it")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("Nothing is here.")).to_be_visible()

    await _sealed(api)
    await ground.opens("Audit")
    await page.get_by_label("Purpose: why you look; it is on record").fill("a complaint")
    await page.get_by_label("Who acted").fill("bob")
    await page.get_by_role("button", name="Show").click()
    row = page.get_by_role("row").filter(has_text="approval.decide")
    await expect(row).to_contain_text("the papers are good")
    await row.get_by_text("All").click()
    await expect(row.locator("pre")).to_contain_text('"session"')
    await ground.looked_over()

    await ground.opens("Rulebook")
    await ground.looked_over()
    await page.get_by_role("button", name="Sign out").click()
    await page.wait_for_url(f"{ground.url}/sign-in")
    await page.goto(f"{ground.url}/desk/audit")
    assert page.url == f"{ground.url}/sign-in"
    assert ground.troubles.said == []


async def _sealed(api: Api) -> None:
    """Every record so far is sealed."""
    await api.pool.execute(gateway_queries.NEW_EPOCH, "control", "tests")
    while await Sealer(api.pool, _Owned(), api.clock.now).seal():
        pass


class _Owned:
    """The one who seals."""

    name = "control"
    epoch = 1


async def test_who_is_not_let_in_is_told_so_and_may_try_again(ground: Ground) -> None:
    """One sentence, read aloud, above the same form; nothing else is given away."""
    page = ground.page
    await page.goto(f"{ground.url}/sign-in")
    await page.get_by_label("Name").fill("bob")
    await page.get_by_label("Password").fill("wrong horse battery")
    await page.get_by_label("Code that your device shows now").fill("000 000")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_contain_text("That did not work.")
    await ground.looked_over()
    await ground.enters()
    assert "401" in "".join(ground.troubles.said)
    assert len(ground.troubles.said) == 1


async def test_a_session_of_the_browser_is_of_no_use_to_another_site(ground: Ground) -> None:
    """A form on a page of another origin reaches nothing with the cookie of this one."""
    approval = await _question(ground.api)
    await ground.enters()
    path = f"{ground.url}/desk/approvals/{approval['id']}"
    form = f"""<form method=post action="{path}"><input name=key value=k><input name=reason value=x>
    <input name=decision value=approve><button>go</button></form>"""
    await ground.page.goto("data:text/html," + form.replace("\n", ""))
    await ground.page.get_by_role("button", name="go").click()
    await ground.page.wait_for_load_state()
    view = await (await ground.api.call("GET", f"/v1/approvals/{approval['id']}")).json()
    assert (view["state"], view["votes"]) == ("open", [])


async def test_a_version_of_the_rulebook_can_be_read_by_everybody(
    database: Database, pool: asyncpg.Pool, redis: Redis
) -> None:
    """What it changes is text in order, not colour alone."""
    async with AsyncExitStack() as opened:
        api = await opened.enter_async_context(serving(database, pool, redis, book=BOOK))
        version = await drafted(api, dearer)
        browser = await opened.enter_async_context(chromium())
        token = await api.key("everything")
        headers = {"Authorization": f"Bearer {token}"}
        page = await browser.new_page(extra_http_headers=headers)
        ground = Ground(api, page, b"")
        await page.goto(f"{ground.url}/desk/rulebook")
        await ground.looked_over()
        await page.get_by_role("link", name=version["id"]).click()
        await expect(page.get_by_label("Differences")).to_contain_text("@ plan eu-partner")
        await ground.looked_over()
