"""Questions that nobody decided in time: closed, and their makers told.

Knows when to look. Refuses to own anything: any replica may close a question, and its version says
which one did; one that is decided at that moment is decided.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

import asyncpg

from config.log import event
from gateway.control import approvals
from gateway.control.access import Caller
from gateway.control.audit import Command
from gateway.flows.approving import Emit, Lane
from gateway.flows.asking import expired
from gateway.flows.faults import away

log = logging.getLogger("gateway.expiring")

LOOK_S: Final = 5.0
AT_ONCE_MAX: Final = 200
CLOCK: Final = Caller(key_id="", person="clock", owner="clock")


class Expiring:
    """Looks for questions whose time has passed. now: the wall clock, UTC."""

    def __init__(
        self, lane: Lane, pool: asyncpg.Pool, emit: Emit, now: Callable[[], datetime]
    ) -> None:
        self._lane = lane
        self._pool = pool
        self._emit = emit
        self._now = now

    async def run(self) -> None:
        """Look until cancelled; while the database is away nothing expires, and nothing is lost."""
        while True:
            try:
                more = await self.sweep() == AT_ONCE_MAX
            except Exception as error:
                if not away(error):
                    raise
                event(log, "expiring.database_away", why=repr(error))
                more = False
            await asyncio.sleep(0 if more else LOOK_S)

    async def sweep(self) -> int:
        """Close what has lapsed, the oldest first; returns how many were found."""
        now = self._now()
        async with self._pool.acquire() as conn:
            found = await approvals.due(conn, now, AT_ONCE_MAX)
        for each in found:
            command = Command(CLOCK, "its time passed", each.correlation, now)
            await self._lane.submit(expired(each, command, self._emit))
        return len(found)
