"""The seal at work: who of all replicas seals the audit and anchors it, and where anchors go.

Knows the settings of the seal and puts its parts together. Refuses to know how a record is hashed
or an anchor signed (`control/sealing.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

import aiohttp
import asyncpg

from config.log import event
from config.settings import Control
from gateway.control.sealing import Anchorer, AnchorFile, AnchorLine, Place, Sealer, Signer
from gateway.owners import Ownership

log = logging.getLogger("gateway.seal")

POST_S: Final = 10.0


class Seal:
    """One service: owned by one replica, it seals, and anchors where the settings say how.

    Raises ValueError when the anchor key of the settings is no Ed25519 private key.
    """

    def __init__(
        self, wanted: Control, pool: asyncpg.Pool, owner: Ownership, http: aiohttp.ClientSession,
        now: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self._owner = owner
        self._sealer = Sealer(pool, owner, now)
        self._anchorer: Anchorer | None = None
        if wanted.anchor_key:
            file = AnchorFile(Path(wanted.anchor_file)) if wanted.anchor_file else None
            url = wanted.anchor_url.reveal()
            self._anchorer = Anchorer(
                pool, owner, Signer(wanted.anchor_key.reveal()), file,
                [posted(http, url)] if url else [], wanted.anchor_s, now,
            )  # fmt: skip

    def trouble(self) -> str:
        """Why anchors do not reach their places; "" if they do, or another replica sends them."""
        if self._anchorer is None or not self._owner.held:
            return ""
        return self._anchorer.trouble()

    async def run(self) -> None:
        """Own the work, and do it while it is owned."""
        if self._anchorer is None:
            event(log, "audit.unanchored", logging.WARNING, why="control.anchor_key is not set")
        await self._owner.run(self._work)

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sealer.run())
            if self._anchorer is not None:
                tasks.create_task(self._anchorer.run())


def posted(http: aiohttp.ClientSession, url: str) -> Place:
    """A second place that is told over HTTP; anything but a 2xx is a failure."""

    async def place(anchor: AnchorLine) -> None:
        try:
            await _post(http, url, anchor.line())
        except aiohttp.ClientError as error:
            raise ConnectionError(repr(error)) from error

    return place


async def _post(http: aiohttp.ClientSession, url: str, line: str) -> None:
    headers = {"Content-Type": "application/json"}
    limit = aiohttp.ClientTimeout(total=POST_S)
    async with http.post(
        url, data=line, headers=headers, timeout=limit, allow_redirects=False
    ) as answer:
        if not 200 <= answer.status < 300:
            raise ConnectionError(f"the anchor was answered {answer.status}")
