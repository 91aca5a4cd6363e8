"""The partner's page in a real browser: it moves, it comes back, and everybody can use it.

The broker is the application of these tests with its accrual and its hub; the browser reaches it
through a proxy that can be told to lose it. Whole daemons: `tests/scenarios/test_partner_page.py`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.integration.gateway.conftest import Api
from tests.integration.gateway.earning import Earner
from tests.support.browser import WAIT_MS, Troubles, Visitor, chromium, enter, flaws
from tests.support.proxy import Fault, Kind, Proxy, TcpUpstream
from tests.support.servers import Database

pytestmark = pytest.mark.slow

PHONE = {"width": 360, "height": 740}
NARROW_NO_BREAK = "\u202f"
LONG_SILENCE_MS = 46_000


class Ground:
    """The broker, the way to it, and a browser."""

    def __init__(self, api: Api, earner: Earner, proxy: Proxy, browser: Browser) -> None:
        self.api = api
        self.earner = earner
        self.proxy = proxy
        self.browser = browser
        self.url = f"http://{proxy.host}:{proxy.port}"

    async def visitor(
        self, contract: dict[str, Any], *, clock: bool = False, **wish: Any
    ) -> Visitor:
        """Open the contract's partner's page with a fresh link."""
        context = await self.browser.new_context(**wish)
        page = await context.new_page()
        visitor = Visitor(page)
        if clock:
            await page.clock.install(time=self.api.clock.now())
        path = f"/v1/partners/{contract['partner']}/page-link"
        link = await (await self.api.call("POST", path, key=None)).json()
        await enter(page, self.url + link["url"])
        return visitor

    def lost(self) -> None:
        """The broker is away: what is open ends, nothing new opens."""
        self.proxy.fault = Fault(kind=Kind.REFUSE)
        self.proxy.cut_all()

    def later(self, **time: float) -> None:
        """Move the broker's clock."""
        self.api.clock.skew_s += timedelta(**time).total_seconds()

    def day_begins_in(self, minutes: float) -> None:
        """Move the broker's clock on to so long before a midnight; it never goes back."""
        now = self.api.clock.now()
        following = now + timedelta(minutes=minutes, days=1)
        midnight = datetime(following.year, following.month, following.day, tzinfo=UTC)
        self.later(seconds=(midnight - now).total_seconds() - minutes * 60)


@pytest_asyncio.fixture
async def ground(api: Api, database: Database) -> AsyncIterator[Ground]:
    """All of it, for one test."""
    async with AsyncExitStack() as opened:
        browser = await opened.enter_async_context(chromium())
        earner = await opened.enter_async_context(Earner(api, database).at_work())
        assert api.client.port is not None
        upstream = TcpUpstream("127.0.0.1", api.client.port)
        proxy = await opened.enter_async_context(Proxy(upstream))
        hub = asyncio.create_task(api.parts.live.run())
        try:
            yield Ground(api, earner, proxy, browser)
        finally:
            await browser.close()  # before what its streams are read from
            hub.cancel()
            await asyncio.gather(hub, return_exceptions=True)


async def test_the_page_moves_with_a_deal(ground: Ground) -> None:
    """Figures, chart and lines follow the books without a reload, and nothing complains."""
    contract = await ground.api.new_contract()
    await ground.earner.earns(contract, "1")
    visitor = await ground.visitor(contract)
    await visitor.is_live()
    await visitor.shows("today", "5.00")

    await ground.earner.earns(contract, "250")

    await visitor.shows("today", "1255.00")
    await visitor.shows("accrued", "1255.00")
    await expect(visitor.figure("today")).to_have_text(f"1{NARROW_NO_BREAK}255.00")
    await expect(visitor.rows).to_have_count(2, timeout=WAIT_MS)
    await expect(visitor.rows.first).to_contain_text("250.00")
    chart = visitor.page.locator(".chart")
    await expect(chart).to_have_attribute("aria-label", re.compile("1255.00"), timeout=WAIT_MS)
    await expect(chart.locator("canvas")).to_be_visible()
    assert visitor.troubles.said == []


async def test_the_first_numbers_need_no_script(ground: Ground) -> None:
    """The server writes them: the page says something before and without any script."""
    contract = await ground.api.new_contract()
    await ground.earner.earns(contract, "1.5")
    visitor = await ground.visitor(contract, java_script_enabled=False)

    await visitor.shows("today", "7.50")
    await expect(visitor.rows).to_have_count(1)
    await expect(visitor.page.get_by_text("reload the page")).to_be_visible()


async def test_a_first_line_takes_the_place_of_the_note(ground: Ground) -> None:
    """A partner without lines is told so, until there is one."""
    contract = await ground.api.new_contract()
    visitor = await ground.visitor(contract)
    await visitor.is_live()
    note = visitor.page.locator("#no-rows")
    await expect(note).to_be_visible()

    await ground.earner.earns(contract, "1")

    await expect(visitor.rows).to_have_count(1, timeout=WAIT_MS)
    await expect(note).to_be_hidden()


async def test_it_says_that_it_is_lost_and_comes_back_right(ground: Ground) -> None:
    """While the broker is away the numbers stand and say so; then they are those of the books."""
    contract = await ground.api.new_contract()
    await ground.earner.earns(contract, "1")
    visitor = await ground.visitor(contract)
    await visitor.is_live()

    ground.lost()
    await expect(visitor.state).to_have_text("Reconnecting", timeout=WAIT_MS)
    await ground.earner.earns(contract, "3")
    await visitor.shows("today", "5.00")
    ground.proxy.heal()

    await visitor.is_live()
    await visitor.shows("today", "20.00")
    await expect(visitor.rows).to_have_count(2, timeout=WAIT_MS)
    assert visitor.troubles.without_lost_connections() == []


async def test_after_a_night_asleep_the_numbers_are_right(ground: Ground) -> None:
    """The lid closes in the evening and opens in the morning: a new day, and all that came."""
    contract = await ground.api.new_contract()
    ground.day_begins_in(minutes=60)
    await ground.earner.earns(contract, "1")
    visitor = await ground.visitor(contract, clock=True)
    await visitor.is_live()
    await visitor.shows("today", "5.00")

    ground.lost()
    await ground.earner.earns(contract, "2")
    ground.later(hours=9)
    await ground.earner.earns(contract, "4")
    ground.proxy.heal()
    await visitor.page.clock.fast_forward("09:00:00")

    await visitor.is_live()
    await visitor.shows("today", "20.00")
    await visitor.shows("accrued", "35.00")
    chart = visitor.page.locator(".chart")
    await expect(chart).to_have_attribute(
        "aria-label", re.compile("from 0 at 00:00 to 20.00"), timeout=WAIT_MS
    )
    assert visitor.troubles.without_lost_connections() == []


async def test_at_midnight_the_day_begins_at_nothing(ground: Ground) -> None:
    """Today's sum and the chart start again, what is accrued stays."""
    contract = await ground.api.new_contract()
    ground.day_begins_in(minutes=0.2)
    await ground.earner.earns(contract, "1")
    visitor = await ground.visitor(contract, clock=True)
    await visitor.is_live()
    await visitor.shows("today", "5.00")

    async with visitor.page.expect_request("**/day", timeout=WAIT_MS):  # the chart's new day
        ground.later(seconds=24)
        await visitor.page.clock.run_for(24_000)

    await visitor.shows("today", "0.00")
    await visitor.shows("accrued", "5.00")
    await ground.earner.earns(contract, "2")
    await visitor.shows("today", "10.00")
    await visitor.shows("accrued", "15.00")
    chart = visitor.page.locator(".chart")
    await expect(chart).to_have_attribute(
        "aria-label", re.compile("from 0 at 00:00 to 10.00 at 00:0"), timeout=WAIT_MS
    )


async def test_a_silent_stream_is_left_for_another(ground: Ground) -> None:
    """A connection that is dead without an end is noticed by its silence."""
    contract = await ground.api.new_contract()
    visitor = await ground.visitor(contract, clock=True)
    await visitor.is_live()
    ground.proxy.fault = Fault(kind=Kind.STALL)
    await ground.earner.earns(contract, "1")

    await visitor.page.clock.run_for(LONG_SILENCE_MS)
    await expect(visitor.state).to_have_text("Reconnecting", timeout=WAIT_MS)
    ground.proxy.heal()
    ground.proxy.cut_all()
    await visitor.page.clock.run_for(LONG_SILENCE_MS)

    await visitor.is_live()
    await visitor.shows("today", "5.00")


async def test_a_machine_that_slept_asks_again_at_once(ground: Ground) -> None:
    """After a nap the old connection is not trusted, however lately it was heard."""
    contract = await ground.api.new_contract()
    visitor = await ground.visitor(contract, clock=True)
    await visitor.is_live()
    ground.proxy.fault = Fault(kind=Kind.STALL)

    await visitor.page.clock.fast_forward("00:30")

    await expect(visitor.state).to_have_text("Reconnecting", timeout=WAIT_MS)


async def test_a_visit_that_is_over_says_so(ground: Ground) -> None:
    """After twelve hours the page stops asking and says what to do."""
    contract = await ground.api.new_contract()
    visitor = await ground.visitor(contract)
    await visitor.is_live()

    ground.later(hours=12, minutes=1)
    ground.proxy.cut_all()

    await expect(visitor.state).to_have_text(re.compile("ended"), timeout=WAIT_MS)


async def test_the_door_of_a_link_needs_no_script_and_is_sound(ground: Ground) -> None:
    """Tab and Enter go through it without a script, and axe finds nothing."""
    contract = await ground.api.new_contract()
    path = f"/v1/partners/{contract['partner']}/page-link"
    url = ground.url + (await (await ground.api.call("POST", path, key=None)).json())["url"]
    looked = await (await ground.browser.new_context(viewport=PHONE)).new_page()
    troubles = Troubles(looked)
    await looked.goto(url)
    assert await flaws(looked) == []

    context = await ground.browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(url)
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")

    await expect(page.get_by_role("heading", name="Rebates", exact=True)).to_be_visible()
    assert page.url == url.partition("?")[0]
    assert troubles.said == []


async def test_back_from_the_page_leads_to_the_page(ground: Ground) -> None:
    """The door is behind whoever went through it: going back is no dead end."""
    contract = await ground.api.new_contract()
    visitor = await ground.visitor(contract)
    await visitor.is_live()

    await visitor.page.go_back()

    await visitor.is_live()
    assert "token" not in visitor.page.url


async def test_a_visit_is_ended_by_its_button(ground: Ground) -> None:
    """The page closes and stays closed, and another window of the visit says that it is over."""
    contract = await ground.api.new_contract()
    visitor = await ground.visitor(contract)
    await visitor.is_live()
    other = Visitor(await visitor.page.context.new_page())
    await other.page.goto(visitor.page.url)
    await other.is_live()

    await visitor.page.get_by_role("button", name="End this visit").click()

    over = visitor.page.get_by_role("heading", name="Open the page with a new link")
    await expect(over).to_be_visible(timeout=WAIT_MS)
    assert await visitor.page.context.cookies() == []
    ground.proxy.cut_all()
    await expect(other.state).to_have_text(re.compile("ended"), timeout=WAIT_MS)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, {"width": 1280, "height": 900}], ids=["phone", "desk"])
async def test_axe_finds_nothing(ground: Ground, scheme: Any, size: Any) -> None:
    """Contrast, names, roles and order hold in both schemes and sizes, with a line explained."""
    contract = await ground.api.new_contract()
    await ground.earner.earns(contract, "1", "0.01")
    visitor = await ground.visitor(contract, color_scheme=scheme, viewport=size)
    await visitor.is_live()
    await visitor.page.locator(".hours summary").click()
    await visitor.rows.first.get_by_role("button").click()
    await expect(visitor.page.locator(".why .steps")).to_be_visible()

    assert await flaws(visitor.page) == []


async def test_the_page_for_those_it_does_not_open_to_is_sound_too(ground: Ground) -> None:
    """A link that was used leads to a page that says what to do, and axe finds nothing."""
    contract = await ground.api.new_contract()
    page = await (await ground.browser.new_context()).new_page()
    await page.goto(f"{ground.url}/partners/{contract['partner']}?token=used")

    await expect(page.get_by_role("heading")).to_have_text("Open the page with a new link")
    assert await flaws(page) == []


async def test_a_phone_needs_no_sideways_scrolling(ground: Ground) -> None:
    """At 360 pixels nothing is wider than the screen, millions and explanations included."""
    contract = await ground.api.new_contract()
    await ground.earner.earns(contract, "1", "190000.01")
    visitor = await ground.visitor(contract, viewport=PHONE)
    await visitor.is_live()
    await visitor.rows.first.get_by_role("button").click()
    await expect(visitor.page.locator(".why .steps")).to_be_visible()

    width = await visitor.page.evaluate("document.documentElement.scrollWidth")

    assert width <= PHONE["width"]


async def test_everything_is_reached_by_keyboard(ground: Ground) -> None:
    """Tab reaches the way past the head, the table of hours and each line; Enter works them."""
    contract = await ground.api.new_contract()
    await ground.earner.earns(contract, "1", "2")
    visitor = await ground.visitor(contract)
    await visitor.is_live()
    keyboard, page = visitor.page.keyboard, visitor.page
    reached = []
    for _ in range(4):
        await keyboard.press("Tab")
        focus = page.locator(":focus")
        reached.append(await focus.evaluate("each => each.className || each.tagName"))
        outline = await focus.evaluate("each => getComputedStyle(each).outlineStyle")
        assert outline != "none", reached
    await keyboard.press("Enter")

    assert reached == ["skip", "SUMMARY", "BUTTON", "BUTTON"]
    asked = visitor.rows.nth(1).get_by_role("button")
    await expect(asked).to_have_attribute("aria-expanded", "true")
    await keyboard.press("Enter")
    await expect(page.locator(".why")).to_have_count(0)


async def test_new_lines_leave_what_is_being_read_in_peace(ground: Ground) -> None:
    """An open explanation and the focus stay where they are while lines come in above."""
    contract = await ground.api.new_contract()
    await ground.earner.earns(contract, "1")
    visitor = await ground.visitor(contract)
    await visitor.is_live()
    await visitor.rows.first.get_by_role("button").focus()
    await visitor.page.keyboard.press("Enter")
    name = await visitor.rows.first.get_attribute("data-line")

    await ground.earner.earns(contract, *["0.1"] * 30)

    await expect(visitor.rows).to_have_count(21, timeout=WAIT_MS)
    await ground.earner.earns(contract, "0.77")
    await expect(visitor.rows.first).to_contain_text("0.77", timeout=WAIT_MS)
    await expect(visitor.rows).to_have_count(21)
    await expect(visitor.page.locator(".why .steps")).to_be_visible()
    names = await visitor.rows.evaluate_all("rows => rows.map(row => row.dataset.line)")
    assert len(set(names)) == len(names)
    focused = visitor.page.locator(f"tr[data-line='{name}'] button:focus")
    await expect(focused).to_have_count(1)


async def test_a_line_explains_itself_in_sentences(ground: Ground) -> None:
    """Deal, attribution, plan, rate and rounding with their numbers, and that it agrees."""
    contract = await ground.api.new_contract()
    await ground.earner.earns(contract, "0.5")
    visitor = await ground.visitor(contract)
    await visitor.is_live()
    await visitor.rows.first.get_by_role("button").click()
    steps = visitor.page.locator(".why li")

    await expect(steps.first).to_contain_text("0.5 lots EURUSD", timeout=WAIT_MS)
    said = " ".join(await steps.all_inner_texts())

    assert "5.00 EUR a lot" in said
    assert f"through contract {contract['id']}" in said
    assert "0.5 lots is exactly 2.50 EUR" in said
    assert "2.50 EUR, as the line says" in said
    assert visitor.troubles.said == []


async def test_totals_are_spoken_seldom(ground: Ground) -> None:
    """A reader of the screen is told the sums, not each change of them."""
    contract = await ground.api.new_contract()
    visitor = await ground.visitor(contract)
    await visitor.is_live()
    spoken = visitor.page.locator("#spoken")
    await ground.earner.earns(contract, "1")
    await expect(spoken).to_have_text(re.compile("EUR: today 5.00"), timeout=WAIT_MS)

    await ground.earner.earns(contract, "1")

    await visitor.shows("today", "10.00")
    await expect(spoken).to_have_text(re.compile("EUR: today 5.00"))
    await expect(spoken).to_have_attribute("aria-live", "polite")
