"""The hand that plays deals into the books of the simulated platform at a rate.

Knows how many deals are due and that those of one tick are one write of the journal. Refuses to
know what is dealt (`dealing.py`) and who asked for it (`floor.py`).
"""

from __future__ import annotations

import asyncio
import sys
from random import Random
from typing import Final

from bridge.sim.books import Books
from bridge.sim.clock import Wall
from bridge.sim.dealing import Dealing, Holder, Moment, Numbers, Terms
from bridge.sim.trades import Trade

TICK_S: Final = 0.05
PER_TICK_MAX: Final = 500  # what is more is made in the next: the server has to answer as well


class Dealer:
    """Deals on and on, by one set of terms at a time."""

    def __init__(self, books: Books, wall: Wall, manager: int) -> None:
        self._books = books
        self._wall = wall
        self._manager = manager
        self._task: asyncio.Task[None] | None = None
        self.terms: Terms | None = None

    @property
    def running(self) -> bool:
        """Whether deals are being made. Raises what ended it, if that was not its own end."""
        if self._task is None:
            return False
        if self._task.done() and not self._task.cancelled():
            self._task.result()
        return not self._task.done()

    async def start(self, terms: Terms) -> None:
        """Deal by these terms, from their seed on, in place of any others."""
        await self.stop()
        self.terms = terms
        self._task = asyncio.create_task(self._run(terms))

    async def stop(self) -> None:
        """Make no more deals. What is open stays open."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self, terms: Terms) -> None:
        dealing = Dealing(terms, Random(terms.seed), self._manager)
        loop = asyncio.get_running_loop()
        before, owed, left = loop.time(), 0.0, terms.total or sys.maxsize
        while left > 0:
            await asyncio.sleep(TICK_S)
            now = loop.time()
            owed, before = owed + (now - before) * terms.per_s, now
            made = self.play(dealing, min(int(owed), PER_TICK_MAX, left), terms)
            owed = owed - made if made else min(owed, 1.0)  # where nobody deals no debt grows
            left -= made

    def play(self, dealing: Dealing, count: int, terms: Terms) -> int:
        """Make some deals now, and now and then an edit; returns how many new deals there are.

        None without accounts. A closing by the opposite position may make one more than asked.
        """
        holders = self._holders(terms)
        if not holders:
            return 0
        now_ms = self._wall.utc_ms()
        numbers = Numbers(self._books.last_ticket, self._books.last_order)
        pending: dict[int, Trade] = {}  # as they will be once this tick is recorded
        records: list[Trade] = []
        new = 0
        while new < count:
            utc_ms = now_ms - int(TICK_S * 1000) * (count - new - 1) // count
            made = dealing.happens(holders, numbers, Moment(utc_ms, self._wall.wall_ms))
            new += len(made)
            pending |= {deal.ticket: deal for deal in made}
            records += made
            ticket = dealing.touched()
            deal = None if ticket is None else pending.get(ticket) or self._books.tape.get(ticket)
            if deal is not None:
                pending[deal.ticket] = dealing.edited(deal)
                records.append(pending[deal.ticket])
        self._books.record(*records)
        return new

    def _holders(self, terms: Terms) -> list[Holder]:
        """Who deals, in the order of their numbers."""
        logins = terms.logins or self._books.users
        users = (self._books.users.get(login) for login in sorted(logins))
        groups = self._books.groups
        return [
            Holder(
                user.login, groups[user.group].currency, groups[user.group].digits,
                user.registration,
            )
            for user in users
            if user is not None
        ]  # fmt: skip
