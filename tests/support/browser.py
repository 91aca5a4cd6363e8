"""The system's Chromium for tests of pages, what went wrong in it, and axe to look at a page.

It knows how the browser is started so that it calls nobody, and that a test needs it: without a
Chromium the tests are skipped, unless BROKERD_REQUIRE_BROWSER says that they must run. It refuses
to know any page but the names of the figures on a partner's.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import Browser, Locator, Page, async_playwright, expect

WAIT_MS: Final = 15_000
PROGRAMS: Final = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
REQUIRE: Final = "BROKERD_REQUIRE_BROWSER"
QUIET: Final = (
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
AXE: Final = Path(__file__).parent / "vendor" / "axe-core-4.14.1" / "axe.min.js.gz"
AXE_SHA256: Final = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
RULES: Final = "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa', 'best-practice']})"


def program() -> str:
    """The path of the browser; skips the test where there is none and none is required."""
    for name in PROGRAMS:
        if found := shutil.which(name):
            return found
    if os.environ.get(REQUIRE):
        pytest.fail(f"{REQUIRE} is set and there is no {' or '.join(PROGRAMS)} here")
    pytest.skip("no Chromium here")


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser without a screen, of this test's own."""
    executable = program()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=list(QUIET))
        try:
            yield browser
        finally:
            await browser.close()


class Troubles:
    """What a page complained of: errors of scripts, blocked loads, failed requests of its own."""

    def __init__(self, page: Page) -> None:
        self.said: list[str] = []
        page.on("console", lambda message: self._console(message.type, message.text))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))

    def _console(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.said.append(f"{kind}: {text}")

    def without_lost_connections(self) -> list[str]:
        """The same, but for what a browser says of a server that is away."""
        lost = ("net::ERR_", "Failed to load resource")
        return [each for each in self.said if not any(sign in each for sign in lost)]


class Visitor:
    """A partner before the page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.troubles = Troubles(page)
        self.state = page.locator("#state")
        self.rows = page.locator("#rows tr[data-line]")

    def figure(self, name: str, currency: str = "EUR") -> Locator:
        """The element that holds an exact amount."""
        return self.page.locator(f"[data-currency={currency}] [data-figure={name}] data")

    async def shows(self, name: str, amount: str) -> None:
        """Wait until the figure says this."""
        await expect(self.figure(name)).to_have_attribute("value", amount, timeout=WAIT_MS)

    async def is_live(self) -> None:
        """Wait until the stream has said something."""
        await expect(self.state).to_have_attribute("data-state", "live", timeout=WAIT_MS)


async def enter(page: Page, url: str) -> None:
    """Go through the door of a link."""
    await page.goto(url, wait_until="domcontentloaded")
    await page.get_by_role("button", name="Open").click(no_wait_after=True)
    await page.wait_for_url(url.partition("?")[0], wait_until="domcontentloaded")


async def flaws(page: Page) -> list[str]:
    """What axe finds: the rule and the elements that break it."""
    script = gzip.decompress(AXE.read_bytes())
    assert hashlib.sha256(script).hexdigest() == AXE_SHA256
    await page.evaluate(script.decode())
    result: dict[str, Any] = await page.evaluate(RULES)
    return [
        f"{rule['id']}: {node['html'][:120]} ({node['failureSummary'][:200]})"
        for rule in result["violations"]
        for node in rule["nodes"]
    ]
