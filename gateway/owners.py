"""Owners: of all replicas exactly one works a platform server or a lane of the outbox.

Knows how ownership is taken (an advisory lock on a direct connection), kept (a ping each second,
which the server ends after five silent ones), proved (an epoch checked in each commit, an age
checked before each byte to a peer) and lost. Refuses to know what the owner does with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

import asyncpg

from config.log import event
from gateway import queries as q
from ledger.units import Change, Kind, Step

log = logging.getLogger("gateway.owners")

LIMIT_S: Final = 5.0  # the server ends a silent owner's session after this long
PING_S: Final = 1.0
TRY_S: Final = 0.5
PING_TIMEOUT_S: Final = 2.0

AWAY: Final = (
    OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)  # fmt: skip

OWNER: Final = Kind("gateway.owner.still", Step.CHECK, q.OWNER_STILL)


class Ownership:
    """One name to own, tried for as long as `run` runs.

    name       what is owned: `platform:mt5-live`, `outbox`
    holder     who we are, for people
    connect    opens a direct connection (never through a pooler) with the session limit set
    boot_time  seconds on the clock that also counts while the machine sleeps
    """

    def __init__(
        self,
        name: str,
        holder: str,
        connect: Callable[[], Awaitable[asyncpg.Connection]],
        boot_time: Callable[[], float],
    ) -> None:
        self.name = name
        self._holder = holder
        self._connect = connect
        self._boot_time = boot_time
        self._epoch = 0
        self._proved = float("-inf")
        self._held = asyncio.Event()

    @property
    def held(self) -> bool:
        """Whether we believe to own it; what matters is checked by `fresh` and `still`."""
        return self._held.is_set()

    @property
    def epoch(self) -> int:
        """The number of our ownership; 0 before the first."""
        return self._epoch

    def fresh(self) -> bool:
        """Whether a byte may leave: our last proof is younger than half the limit."""
        return self.held and self._boot_time() - self._proved < LIMIT_S / 2

    def still(self) -> Change:
        """For a unit of work: it is left out unless we own the name at its commit."""
        return Change(OWNER, (f"{self.name}@{self._epoch}",))

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Own, work while owning, give up, try again; until cancelled.

        `work` is started with each ownership and cancelled when it is lost. If it returns or
        fails of itself the ownership is given up too, and a failure is raised: it is a bug.
        """
        while True:
            conn = await self._taken()
            try:
                await self._work_while_held(conn, work)
            finally:
                self._held.clear()
                conn.terminate()
            await asyncio.sleep(TRY_S)

    async def _taken(self) -> asyncpg.Connection:
        """Try until the lock is ours and its epoch is committed."""
        while True:
            conn: asyncpg.Connection | None = None
            try:
                conn = await self._connect()
                while not await conn.fetchval(q.TRY_OWN, self.name):
                    await asyncio.sleep(TRY_S)
                proved = self._boot_time()
                self._epoch = await conn.fetchval(q.NEW_EPOCH, self.name, self._holder)
            except AWAY as error:
                event(log, "owner.trying", owns=self.name, why=repr(error))
                if conn is not None:
                    conn.terminate()
                await asyncio.sleep(TRY_S)
            except BaseException:
                if conn is not None:
                    conn.terminate()
                raise
            else:
                self._proved = proved
                self._held.set()
                event(log, "owner.taken", owns=self.name, epoch=self._epoch)
                return conn

    async def _work_while_held(
        self, conn: asyncpg.Connection, work: Callable[[], Awaitable[None]]
    ) -> None:
        working = asyncio.ensure_future(work())
        pinging = asyncio.ensure_future(self._ping(conn))
        try:
            await asyncio.wait({working, pinging}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._held.clear()
            for task in (working, pinging):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await asyncio.shield(asyncio.gather(task, return_exceptions=True))
        event(log, "owner.lost", owns=self.name, epoch=self._epoch)
        for task in (working, pinging):
            bug = None if task.cancelled() else task.exception()
            if bug is not None:
                raise bug

    async def _ping(self, conn: asyncpg.Connection) -> None:
        """Prove ownership each second; returns when it can no longer be proved."""
        while True:
            asked = self._boot_time()
            try:
                async with asyncio.timeout(PING_TIMEOUT_S):
                    await conn.fetchval(q.OWNER_PING)
            except AWAY as error:
                event(log, "owner.ping_failed", owns=self.name, why=repr(error))
                return
            self._proved = asked
            await asyncio.sleep(PING_S)


async def last_holders(
    conn: asyncpg.Connection, names: Sequence[str]
) -> dict[str, tuple[str, datetime]]:
    """Who took each name last, and when; whether it still holds it only it can say."""
    rows = await conn.fetch(q.OWNERS, list(names))
    return {row["name"]: (row["holder"], row["since"]) for row in rows}
