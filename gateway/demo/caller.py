"""The calling system's ear: an address that takes webhooks, verifies them, and keeps a journal.

Knows Standard Webhooks from the receiver's side, and what order it was promised: within one object
numbers rise. Refuses to trust a webhook that is not signed or too old. Source: the Standard
Webhooks specification 1.0.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
from aiohttp import web

TOLERANCE_S: Final = 300
ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"


class Told(msgspec.Struct, frozen=True):
    """One event as it was told the first time; `aggregate` is the object it is about."""

    id: str
    no: int
    type: str
    aggregate: str


class Envelope(msgspec.Struct, frozen=True):
    """The body of a webhook."""

    no: int
    id: str
    type: str
    data: dict[str, Any]


class Ear:
    """What a calling system heard.

    journal   an append-only file of what was taken; an earlier life's is read first
    now       the clock, for the age of a signature
    refuses   asked with the number of a delivery whether this one is answered 503: a system that
              calls others is sometimes away itself
    """

    def __init__(
        self, journal: Path, now: Callable[[], datetime], refuses: Callable[[int], bool]
    ) -> None:
        self.told: dict[str, Told] = {}
        self.secret = ""
        self.forged = 0
        self.repeated = 0
        self.disordered: list[str] = []
        self.on_event: Callable[[Envelope], None] = lambda _: None
        self._journal = journal
        self._now = now
        self._refuses = refuses
        self._deliveries = 0
        self._last: dict[str, int] = {}
        self._file: BinaryIO | None = None

    @asynccontextmanager
    async def listening(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
        """Take webhooks while the block lasts; yields the address to name."""
        self._reopen()
        app = web.Application()
        app.router.add_post("/webhooks", self._take)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            bound = runner.addresses[0]
            yield f"http://{bound[0]}:{bound[1]}/webhooks"
        finally:
            await runner.cleanup()
            assert self._file is not None
            self._file.close()

    def _reopen(self) -> None:
        if self._journal.exists():
            for line in self._journal.read_bytes().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    self._remember(msgspec.json.decode(line, type=Told))
        self._file = self._journal.open("ab")

    def _remember(self, told: Told) -> None:
        self.told[told.id] = told
        self._last[told.aggregate] = max(told.no, self._last.get(told.aggregate, 0))

    async def _take(self, request: web.Request) -> web.Response:
        raw = await request.read()
        if not self._signed(request, raw):
            self.forged += 1
            return web.Response(status=401)
        self._deliveries += 1
        if self._refuses(self._deliveries):
            return web.Response(status=503)
        self._hear(msgspec.json.decode(raw, type=Envelope))
        return web.Response(status=204)

    def _signed(self, request: web.Request, raw: bytes) -> bool:
        stamp = request.headers.get(TIMESTAMP, "")
        if not stamp.isdecimal() or abs(self._now().timestamp() - int(stamp)) > TOLERANCE_S:
            return False
        key = base64.b64decode(self.secret.removeprefix("whsec_"))
        signed = f"{request.headers.get(ID, '')}.{stamp}.".encode() + raw
        ours = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        given = request.headers.get(SIGNATURE, "").split()
        return any(hmac.compare_digest(f"v1,{ours}", each) for each in given)

    def _hear(self, event: Envelope) -> None:
        if event.id in self.told:
            self.repeated += 1
            return
        told = Told(event.id, event.no, event.type, str(event.data.get("id", "")))
        if told.no < self._last.get(told.aggregate, 0):
            self.disordered.append(event.id)
        assert self._file is not None
        self._file.write(msgspec.json.encode(told) + b"\n")
        self._file.flush()
        self._remember(told)
        self.on_event(event)
