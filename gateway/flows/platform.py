"""The work of a platform server's owner: its session kept, its due rows handled one by one.

Knows which rows are due. Refuses to know what is done with each (`provisioning.py`,
`crediting.py`), and works only while it owns the server.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime

import asyncpg

from bridge import reads
from bridge.pool import Pool
from bridge.session import SessionState
from config.log import event
from gateway.flows.crediting import Crediter
from gateway.flows.provisioning import AccountMaker
from gateway.flows.settlement import Case

log = logging.getLogger("gateway.platform")

POLL_S = 0.25
DUE_MAX = 100


class Platform:
    """One server while we own it.

    case  reads the deposit behind a balance operation
    """

    def __init__(
        self,
        *,
        sessions: Pool,
        accounts: AccountMaker,
        credits: Crediter,
        pool: asyncpg.Pool,
        case: Callable[[str], Awaitable[Case | None]],
        now: Callable[[], datetime],
    ) -> None:
        self._sessions = sessions
        self._accounts = accounts
        self._credits = credits
        self._pool = pool
        self._case = case
        self._now = now
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """A row of this server was just committed here."""
        self._wake.set()

    async def run(self) -> None:
        """Keep the session and work the rows until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sessions.run(), name="session")
            tasks.create_task(self._work(), name="rows")

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            live = self._sessions.status().state is SessionState.LIVE
            try:
                busy = live and await self._pass()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                event(log, "platform.database_away", why=repr(error))
                busy = False
            if not busy:
                await self._pause()

    async def _pass(self) -> bool:
        """Handle what is due; whether there was anything."""
        server, now = self._sessions.server.id, self._now()
        async with self._pool.acquire() as conn:
            accounts = await reads.accounts_due(conn, server, now, DUE_MAX)
            operations = await reads.operations_due(conn, server, now, DUE_MAX)
        for account in accounts:
            await self._accounts.handle(account)
        for operation in operations:
            await self._credits.handle(operation, await self._case(operation.payment_id))
        return bool(accounts or operations)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(POLL_S):
                await self._wake.wait()
        except TimeoutError:
            return
