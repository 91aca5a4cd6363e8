"""The work of a platform server's owner: a session kept, due rows handled, its deals followed.

Knows which rows are due. Refuses to know what is done with each (`provisioning.py`,
`crediting.py`), how deals reach the books (`bridge/feed.py`, `landing.py`), and works only while it
owns the server. A row that fails in a way of its own is parked with an item after some tries, and
its neighbours go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

import asyncpg

from bridge import reads
from bridge.pool import Pool
from bridge.session import SessionState
from bridge.states import Account, Operation
from config.log import event
from gateway.flows.crediting import Crediter
from gateway.flows.faults import Patience, away
from gateway.flows.provisioning import AccountMaker
from gateway.flows.settlement import Case
from gateway.owners import Ownership
from ledger.deals import Fenced

log = logging.getLogger("gateway.platform")

POLL_S = 0.25
DUE_MAX = 100


class Platform:
    """One server while we own it.

    case  reads the deposit behind a balance operation
    also  what else runs as long as we own it, by name
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
        also: Mapping[str, Callable[[], Awaitable[None]]] | None = None,
    ) -> None:
        self._sessions = sessions
        self._accounts = accounts
        self._credits = credits
        self._pool = pool
        self._case = case
        self._now = now
        self._also = also or {}
        self._wake = asyncio.Event()
        self._patience = Patience()

    def wake(self) -> None:
        """A row of this server was just committed here."""
        self._wake.set()

    async def run(self) -> None:
        """Keep the session, work the rows and follow the deals until cancelled; returns where a
        newer owner has begun to land deals, so that the ownership is given up.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._sessions.run(), name="session")
                tasks.create_task(self._work(), name="rows")
                for name, work in self._also.items():
                    tasks.create_task(_awaited(work), name=name)
        except* Fenced:
            event(log, "platform.fenced", server=self._sessions.server.id)

    async def _work(self) -> None:
        before: frozenset[tuple[str, int]] = frozenset()
        while True:
            self._wake.clear()
            try:
                seen = await self._pass()
            except Exception as error:
                if not away(error):
                    raise
                event(log, "platform.world_away", server=self._sessions.server.id, why=repr(error))
                seen = frozenset()
            if seen <= before:  # nothing is due, or nothing that was has moved
                await self._pause()
            before = seen

    async def _pass(self) -> frozenset[tuple[str, int]]:
        """Handle what is due; which rows that were, in which versions.

        Without a session only what will never be sent is looked at: it goes back to the wallet.
        """
        server, now = self._sessions.server.id, self._now()
        live = self._sessions.status().state is SessionState.LIVE
        async with self._pool.acquire() as conn:
            accounts = await reads.accounts_due(conn, server, now, DUE_MAX) if live else ()
            operations = await reads.operations_due(conn, server, now, DUE_MAX)
        rows: list[Account | Operation] = [*accounts]
        rows += [o for o in operations if live or self._credits.too_old(o)]
        for row in rows:
            await self._handle(row)
        return frozenset((row.id, row.version) for row in rows)

    async def _handle(self, row: Account | Operation) -> None:
        """One row; when it fails in a way of its own, its neighbours are handled all the same."""
        try:
            if isinstance(row, Account):
                await self._accounts.handle(row)
            else:
                await self._credits.handle(row, await self._case(row.payment_id))
        except Exception as error:
            if away(error):
                raise
            log.exception("platform.row_failed", extra={"facts": {"row": row.id}})
            if self._patience.lost(row.id):
                await self._park(row, f"{type(error).__name__}: {error}")
        else:
            self._patience.forget(row.id)

    async def _park(self, row: Account | Operation, why: str) -> None:
        """Set it aside as it stands now: what failed may have moved it before."""
        async with self._pool.acquire() as conn:
            account = await reads.account(conn, row.id)
            operation = await reads.operation(conn, row.id)
        if account is not None:
            await self._accounts.park(account, why)
        if operation is not None:
            await self._credits.park(operation, why)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(POLL_S):
                await self._wake.wait()
        except TimeoutError:
            return


def session_trouble(owner: Ownership, sessions: Pool) -> str:
    """What is wrong with the session; a server another replica owns is not ours to worry about."""
    status = sessions.status()
    if not owner.held or status.state is SessionState.LIVE:
        return ""
    return status.last_error or status.state.value


async def _awaited(work: Callable[[], Awaitable[None]]) -> None:
    """The same as a coroutine, which is what a task is made of."""
    await work()
