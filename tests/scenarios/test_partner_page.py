"""Stories of a partner before the page: a platform's deals in a real browser, on whole daemons.

Here nobody but the feed looks again by the clock while a story lasts: what moves a page is that a
landing wakes accrual and that a batch wakes the streams. Whatever breaks that chain leaves the page
still, where in production it would only be late.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any, Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from gateway.demo.people import Known
from tests.support.browser import WAIT_MS, Visitor, chromium, enter
from tests.support.house import Addresses, House, open_house, until
from tests.support.market import Market, open_market
from tests.support.servers import Cluster, fresh_database

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

BELOW: Final = "northgate-partner"  # the lowest of five levels: 5.00 a lot in EURUSD
LEVELS: Final = 5
COOKIE: Final = "brokerd_partner"
WOKEN_ONLY: Final = {"BROKERD_ACCRUAL__POLL_S": "3600", "BROKERD_LIVE__PING_S": "300"}
"""Each is much longer than any story waits."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(
    migrated_cluster: Cluster, redis_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    """A broker whose accrual and streams must be woken; at the end every book agrees."""
    folder = tmp_path_factory.mktemp("house")
    async with fresh_database(migrated_cluster) as database:
        addresses = Addresses(database.daemon_dsn, database.owner_dsn, redis_server)
        async with open_house(addresses, folder, environ=WOKEN_ONLY) as opened:
            yield opened
            assert await opened.disagreements() == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def market(house: House) -> AsyncIterator[Market]:
    """Partners and traders of this file; at the end lines, books and platform agree."""
    async with open_market(house) as opened:
        yield opened
        await opened.agrees()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One browser for the stories; each has a context of its own."""
    async with chromium() as opened:
        yield opened


@pytest.fixture
def trader(market: Market) -> Known:
    """A client of the lowest partner."""
    return market.trader_of(BELOW)


async def link(market: Market) -> str:
    """A fresh link to the lowest partner's page."""
    path = f"/v1/partners/{market.partner(BELOW).partner}/page-link"
    answer = await market.house.portal.send("POST", path)
    assert answer.status == 200, answer
    return market.house.daemon.url + str(answer.body["url"])


async def visits(market: Market, browser: Browser) -> Visitor:
    """Open the lowest partner's page."""
    page = await (await browser.new_context()).new_page()
    visitor = Visitor(page)
    await enter(page, await link(market))
    await visitor.is_live()
    return visitor


async def today(market: Market) -> Decimal:
    """What the API says of today."""
    held: dict[str, Any] = await market.balances(BELOW)
    return Decimal(held["today"])


async def test_a_deal_wakes_accrual_and_accrual_wakes_every_stream(
    market: Market, trader: Known
) -> None:
    """Without a look by the clock anywhere behind the feed a deal reaches all five levels."""
    async with market.watched() as screen:

        async def all_there() -> bool:
            return all(screen.latest.values()) and len(screen.latest) == len(market.partners)

        await until(all_there, "the first event of every stream")
        before = screen.updates
        await market.tells(trader, lots="1")

        async def all_told() -> bool:
            return screen.updates - before >= LEVELS

        await until(all_told, "a word to every level")
        assert await market.astray(screen) == []


async def test_a_deal_of_the_platform_moves_the_page(
    market: Market, browser: Browser, trader: Known
) -> None:
    """From the platform's tape to the screen without a reload, and it is what the books say."""
    visitor = await visits(market, browser)
    before = await today(market)

    await market.tells(trader, lots="0.37")

    await visitor.shows("today", str(before + Decimal("1.85")))
    await expect(visitor.rows.first).to_contain_text("0.37", timeout=WAIT_MS)
    await market.rests()
    assert await today(market) == before + Decimal("1.85")
    await visitor.rows.first.get_by_role("button").click()
    await expect(visitor.page.locator(".why li").last).to_contain_text("as the line says")
    assert visitor.troubles.said == []


async def test_the_page_survives_the_end_of_a_daemon(
    market: Market, browser: Browser, trader: Known
) -> None:
    """Killed and started again while deals go on: the page says so, comes back and is right."""
    visitor = await visits(market, browser)
    before = await today(market)

    await market.house.daemon.kill()
    await expect(visitor.state).to_have_text("Reconnecting", timeout=WAIT_MS)
    for _ in range(3):
        await market.tells(trader, lots="2")
    await market.house.daemon.restart()

    await visitor.is_live()
    await visitor.shows("today", str(before + 30))
    await expect(visitor.rows.first).to_contain_text("2.00", timeout=WAIT_MS)
    assert visitor.troubles.without_lost_connections() == []


async def test_the_daemons_log_never_holds_a_link_or_a_cookie(
    market: Market, browser: Browser
) -> None:
    """Nothing the daemon wrote in all its lives has a token, used or void, or a visit's secret."""
    context = await browser.new_context()
    page = await context.new_page()
    url = await link(market)
    void = "f" * 64
    await enter(page, url)
    for address in (url, f"{url.partition('?')[0]}?token={void}"):
        await page.goto(address, wait_until="domcontentloaded")
    secrets = [each["value"] for each in await context.cookies() if each["name"] == COOKIE]
    token = url.partition("token=")[2]
    written = market.house.daemon.log()

    assert len(secrets) == 1
    for hidden in (*secrets, void, token, *token.split(".")[1:]):
        assert hidden not in written
