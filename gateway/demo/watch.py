"""Partners who watch: some streams of live balances, each as a browser would read it.

Knows Server-Sent Events and how old a number is when it arrives. Refuses to add anything up: what
arrives is the whole state, and the last one must equal the books.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

import aiohttp
import msgspec

from gateway.demo.partners import Contracted

PAUSE_S: Final = 0.5
EVENTS_KEPT: Final = 200_000


class Watching:
    """Streams of several partners, until cancelled.

    now  the clock that ages are measured with; the server runs on the same machine
    """

    def __init__(
        self, http: aiohttp.ClientSession, url: str, token: str, now: Callable[[], datetime]
    ) -> None:
        self._http = http
        self._url = url
        self._token = token
        self._now = now
        self.latest: dict[str, dict[str, Any] | None] = {}  # None: watched, and nothing heard yet
        self._last: dict[str, str] = {}  # the id of each partner's last event
        self._lines: dict[str, tuple[list[int], list[float]]] = {}
        """By contract: the last line that each event knew, and when it came, ms since 1970."""
        self.ages_ms: list[float] = []
        self.updates = 0
        self.lost = 0

    async def run(self, partners: Sequence[Contracted]) -> None:
        """Watch them all; a stream that ends is taken up again where it was."""
        self.latest = {each.partner: None for each in partners}
        async with asyncio.TaskGroup() as tasks:
            for each in partners:
                tasks.create_task(self._watch(each.partner))

    async def _watch(self, partner: str) -> None:
        while True:
            try:
                await self._read(partner)
            except (aiohttp.ClientError, TimeoutError):
                self.lost += 1
            await asyncio.sleep(PAUSE_S)

    async def _read(self, partner: str) -> None:
        """One connection, from its first event to its end, however it ends."""
        last = self._last.get(partner, "")
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "text/event-stream"}
        if last:
            headers["Last-Event-ID"] = last
        unlimited = aiohttp.ClientTimeout(total=None, sock_connect=5)
        url = f"{self._url}/v1/partners/{partner}/stream"
        async with self._http.get(url, headers=headers, timeout=unlimited) as answer:
            answer.raise_for_status()
            fresh, id = not last, last
            async for raw in answer.content:
                line = raw.decode().rstrip("\n")
                if line.startswith("id:"):
                    id = line[3:].strip()
                elif line.startswith("data:"):
                    self._told(partner, line[5:], first=fresh)
                    fresh, self._last[partner] = False, id

    def _told(self, partner: str, data: str, *, first: bool) -> None:
        """An event; the one that a connection begins with tells no news and has no age."""
        body, now = msgspec.json.decode(data), self._now()
        self.latest[partner] = body
        for it in body["contracts"]:
            lines, times = self._lines.setdefault(it["contract"], ([], []))
            if len(lines) < EVENTS_KEPT and (not lines or it["last_line"] > lines[-1]):
                lines.append(it["last_line"])
                times.append(now.timestamp() * 1000)
        if first or body["at"] is None:
            return
        self.updates += 1
        if len(self.ages_ms) < EVENTS_KEPT:
            age = now - datetime.fromisoformat(body["at"])
            self.ages_ms.append(age.total_seconds() * 1000)

    def seen_ms(self, contract: str, line: int) -> float | None:
        """When a line of a contract was first counted in what was shown, ms since 1970.

        None where it never was, or was there before we watched.
        """
        lines, times = self._lines.get(contract, ([], []))
        place = bisect_left(lines, line)
        return times[place] if 0 < place < len(lines) else None

    def p99_ms(self) -> float:
        """The age that one update of a hundred exceeded; 0 without any."""
        return quantile(self.ages_ms, 99)


def quantile(found: Iterable[float], percent: int) -> float:
    """What so many of a hundred do not exceed; 0 without any."""
    ordered = sorted(found)
    place = min(len(ordered) - 1, len(ordered) * percent // 100)
    return round(ordered[place], 1) if ordered else 0.0
