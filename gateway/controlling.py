"""The control rooms put together: what `daemon.py` opens beside the journeys of money.

Knows their constructors and what each is handed. Refuses to decide anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import asyncpg

from config.findings import Finding
from config.rulebook import Entity
from config.settings import Settings, peers
from gateway.control.follower import Enact, Follower
from gateway.control.obstacles import needs_restart
from gateway.control.rules import Compiled, Rules
from router.attempts import Attempts, terminals
from router.psp.connector import Connector

# --- the rulebook -------------------------------------------------------------------------------


async def nothing_due(conn: asyncpg.Connection) -> None:
    """No version waits for its time."""


def follower(
    *,
    settings: Settings,
    rules: Rules,
    pool: asyncpg.Pool,
    enact: Enact,
    attempts: Attempts,
    connectors: Mapping[str, Connector],
    open_book: Callable[[Entity], None],
    swapped: Callable[[Compiled], None],
) -> Follower:
    """Who keeps the process in step with the rulebook in force.

    open_book  begins to accrue the book of an entity that is new, and knows those that are not
    """

    def ready(wanted: Compiled) -> Sequence[Finding]:
        book = wanted.book
        wrong = [*needs_restart(rules.now.book, book), *peers(settings, book)]
        if wrong:
            return wrong
        reached, wrong = terminals(book, settings.psps, connectors)
        if wrong:
            return wrong
        attempts.offer(reached, book.routing.answer_timeout_s)
        for entity in book.entities:
            open_book(entity)
        return ()

    return Follower(rules, pool, enact, ready, swapped)
