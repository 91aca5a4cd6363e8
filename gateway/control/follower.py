"""Following the rulebook: whichever comes into force, this process decides with it within a second.

Knows when to look and how a newer rulebook is compiled and taken up. Refuses to know what taking it
up means for the rooms: `ready` is told the rules before they are used, and says what is missing.

A look costs one small query; it also brings into force what was approved and whose time has come.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final

import asyncpg

from config.findings import Finding
from config.load import from_source
from config.log import event
from config.rulebook import Rulebook
from gateway.control import rulebook as rulebooks
from gateway.control.rules import Compiled, Rules, compiled

log = logging.getLogger("gateway.rulebook")

POLL_S: Final = 0.25

Ready = Callable[[Compiled], Sequence[Finding]]
Enact = Callable[[asyncpg.Connection], Awaitable[None]]


class Follower:
    """Reads which rulebook is in force and has the process decide with it.

    enact    brings into force what is due, in transactions of its own; any replica may be first
    ready    makes the process able to serve these rules; with findings it cannot, and decides
             nothing until it is started again
    swapped  told after the rules of the process were replaced, and how many seconds late
    """

    def __init__(
        self,
        rules: Rules,
        pool: asyncpg.Pool,
        enact: Enact,
        ready: Ready,
        swapped: Callable[[Compiled, float], None],
        now: Callable[[], datetime],
    ) -> None:
        self._rules = rules
        self._pool = pool
        self._enact = enact
        self._ready = ready
        self._swapped = swapped
        self._now = now
        self._turn = asyncio.Lock()
        rules.followed_by(self.look)

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            try:
                await self.look()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                event(log, "rulebook.database_away", why=repr(error))
            await asyncio.sleep(POLL_S)

    async def look(self) -> None:
        """Which rulebook is in force? Returns when this process decides with it, or knows why not.

        Raises what the database raises.
        """
        async with self._turn:
            async with self._pool.acquire() as conn:
                await self._enact(conn)
                found = await rulebooks.in_force(conn)
                if found is None or found.hash == self._rules.now.hash:
                    self._rules.in_force("" if found is None else found.hash)
                    return
                why, book = await self._read(conn, found.hash)
            await self._follow(found, book, why)

    async def _read(self, conn: asyncpg.Connection, hash: str) -> tuple[str, Rulebook | None]:
        source = await rulebooks.source(conn, hash)
        try:
            return "", await asyncio.to_thread(from_source, source)
        except ValueError as error:  # a newer version of the program wrote it
            return f"this version cannot read it: {error}"[:300], None

    async def _follow(self, found: rulebooks.InForce, book: Rulebook | None, why: str) -> None:
        if book is not None:
            # Rooms compile in milliseconds; a big rulebook must not hold up the event loop.
            rules, findings = await asyncio.to_thread(compiled, book)
            findings = [*findings, *(self._ready(rules) if not findings else ())]
            why = "; ".join(finding.message for finding in findings)[:300]
            if not findings:
                self._rules.swap(rules)
                self._swapped(rules, (self._now() - found.since).total_seconds())
                event(log, "rulebook.followed", hash=found.hash, version=found.version)
                return
        if self._rules.trouble != why:
            event(log, "rulebook.not_followed", logging.ERROR, hash=found.hash, why=why)
        self._rules.stuck(f"another one is in force, start again to follow: {why}")
