"""What a service may meet while it works a row: the world unwell, or a row that is poison.

Knows which failures pass by themselves, what one may hide, and how often a row may fail before it
is set aside. Refuses to know what the rows are and how one is set aside: its own service does that,
and says why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Final

import asyncpg

from ledger.lane import MET, SLOW, UNWELL, LaneClosed, LaneFull, LaneLost

POISON_TRIES_MAX: Final = 5
_WORLD: Final = (OSError, TimeoutError, LaneFull, LaneClosed, LaneLost)


def away(error: BaseException) -> bool:
    """Whether the world fails and waiting helps: database or lane gone, ending, full or slow.

    Whether the unit in hand was written is then not known: its rows say so at the next look.
    Everything else is about the row in hand, or a bug.
    """
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state.startswith(UNWELL) or state in SLOW or state in MET
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        return not isinstance(error, ValueError)  # a value that could not be sent fails for ever
    return isinstance(error, _WORLD)


def end_if_cancelled() -> None:
    """End the task here if it was told to end and has not heard it.

    Whoever tries again for ever asks this after a failure; else whoever waits for its end may wait
    for ever. A cancellation is lost where leaving a block fails in its place, as a transaction does
    on a connection that is closed; and where `asyncio.wait_for`, before Python 3.12, is done at
    that very moment, as in the client of Redis.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class Patience:
    """How often rows failed in a way of their own; rows that do not fail cost nothing."""

    def __init__(self, tries_max: int = POISON_TRIES_MAX) -> None:
        self._tries_max = tries_max
        self._failed: dict[Hashable, int] = {}

    def lost(self, row: Hashable) -> bool:
        """Count one more failure; True, and counted from zero again, when it was the last."""
        tries = self._failed.pop(row, 0) + 1
        if tries >= self._tries_max:
            return True
        self._failed[row] = tries
        return False

    def forget(self, row: Hashable) -> None:
        """It went well."""
        self._failed.pop(row, None)
