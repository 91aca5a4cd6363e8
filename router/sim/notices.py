"""Delivers the simulated provider's notices: signed, late, twice, out of order or forged.

Knows the journal's notices and the signature. Refuses to decide what is worth a notice. A notice
that is not accepted is repeated with growing pauses until it is dead; a restart goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import aiohttp
from msgspec.structs import replace

from router.psp.signatures import sign_timestamped
from router.sim.books import Books, Notice

PAUSES_S: Final = (0.2, 0.5, 1.0, 2.0, 2.0, 5.0, 5.0, 10.0, 10.0, 30.0, 30.0, 60.0)
DELIVERY_TIMEOUT_S: Final = 10.0
DELIVERIES_AT_ONCE: Final = 16
HEADER: Final = "Simpay-Signature"
FORGERS_KEY: Final = b"a key that nobody gave us"


class Deliverer:
    """Posts due notices to one address until stopped.

    url     where to, "" delivers nothing
    secret  what signs them
    now     the clock, seconds since the epoch
    """

    def __init__(self, books: Books, url: str, secret: bytes, now: Callable[[], float]) -> None:
        self._books = books
        self._url = url
        self._secret = secret
        self._now = now
        self._queue: asyncio.Queue[Notice] = asyncio.Queue()
        self._slots = asyncio.Semaphore(DELIVERIES_AT_ONCE)

    def add(
        self, event_id: str, reference: str, body: str, after_s: float, *, forged: bool
    ) -> None:
        """Write a notice down and deliver it after `after_s` seconds."""
        if not self._url:
            return
        notice = Notice(
            no=self._books.next_notice(), event_id=event_id, reference=reference, body=body,
            due=self._now() + after_s, forged=forged,
        )  # fmt: skip
        self._books.write(notice)
        self._queue.put_nowait(notice)

    async def run(self) -> None:
        """Deliver until cancelled, beginning with what an earlier life left undelivered."""
        for notice in self._books.notices.values():
            if not notice.outcome and self._url:
                self._queue.put_nowait(notice)
        limit = aiohttp.ClientTimeout(total=DELIVERY_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=limit) as session, asyncio.TaskGroup() as tasks:
            while True:
                notice = await self._queue.get()
                tasks.create_task(self._deliver(session, notice))

    async def _deliver(self, session: aiohttp.ClientSession, notice: Notice) -> None:
        await asyncio.sleep(max(0.0, notice.due - self._now()))
        for pause_s in (*PAUSES_S, None):
            async with self._slots:
                accepted = await self._post(session, notice)
            notice = replace(notice, deliveries=notice.deliveries + 1)
            if accepted or notice.forged:  # nobody insists on a forged one
                self._books.write(replace(notice, outcome="delivered" if accepted else "dead"))
                return
            if pause_s is not None:
                await asyncio.sleep(pause_s)
        self._books.write(replace(notice, outcome="dead"))

    async def _post(self, session: aiohttp.ClientSession, notice: Notice) -> bool:
        raw = notice.body.encode()
        secret = FORGERS_KEY if notice.forged else self._secret
        at = datetime.fromtimestamp(self._now(), UTC)
        headers = {HEADER: sign_timestamped(secret, raw, at), "Content-Type": "application/json"}
        try:
            async with session.post(self._url, data=raw, headers=headers) as answer:
                return 200 <= answer.status < 300
        except (aiohttp.ClientError, OSError):
            return False
