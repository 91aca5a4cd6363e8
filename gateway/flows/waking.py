"""Waking other replicas: which contracts were moved, told over a Redis channel.

Knows the channel and whether it is heard. Refuses to carry a number: whoever hears of a contract
reads it from the ledger, and what is lost here is read a little later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from config.log import event
from gateway.flows.faults import end_if_cancelled

log = logging.getLogger("gateway.waking")

CHANNEL: Final = "brokerd:live"
ASKED_MAX: Final = 3  # silent looks, each of one poll, until a channel counts as lost


class Moved(msgspec.Struct, frozen=True):
    """Contracts of one book that a committed batch moved; `at` is when it was booked."""

    book: int
    contracts: tuple[str, ...]
    at: datetime


class _Told(msgspec.Struct, frozen=True):
    """A message: who says it, and what."""

    by: str
    moved: tuple[Moved, ...]


class Channel:
    """Tells the other replicas, and hears them.

    poll_s   how long a silent channel is trusted before it is asked whether it lives, and how long
             a lost one is left alone
    waiting_max  contracts that wait to be told; beyond it the oldest are forgotten: readers look
             for themselves as well
    """

    def __init__(
        self, redis: Redis, replica: str, poll_s: float, waiting_max: int = 10_000
    ) -> None:
        self._redis = redis
        self._replica = replica
        self._poll_s = poll_s
        self._waiting_max = waiting_max
        self._waiting: dict[tuple[int, str], datetime] = {}
        self._filled = asyncio.Event()
        self.heard = False

    def tell(self, moved: Moved) -> None:
        """Have the other replicas told; never waits."""
        for contract in moved.contracts:
            self._waiting.setdefault((moved.book, contract), moved.at)
        while len(self._waiting) > self._waiting_max:
            del self._waiting[next(iter(self._waiting))]
        self._filled.set()

    async def run(self, hear: Callable[[Moved], None], missed: Callable[[], None]) -> None:
        """Tell and hear until cancelled.

        hear    called with what another replica told
        missed  called when the channel is heard again: what was told meanwhile is not known
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._telling(), name="telling")
            tasks.create_task(self._hearing(hear, missed), name="hearing")

    async def _telling(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            waiting, self._waiting = self._waiting, {}
            told = msgspec.json.encode(_Told(self._replica, _by_book(waiting)))
            try:
                await self._redis.publish(CHANNEL, told)
                end_if_cancelled()
            except (RedisError, OSError, TimeoutError) as error:
                log.debug("live.not_told", extra={"facts": {"why": repr(error)}})
                await asyncio.sleep(self._poll_s)

    async def _hearing(self, hear: Callable[[Moved], None], missed: Callable[[], None]) -> None:
        while True:
            try:
                await self._hear(hear, missed)
            except (RedisError, OSError, TimeoutError) as error:
                if self.heard:
                    event(log, "live.redis_lost", logging.WARNING, why=repr(error))
            self.heard = False
            await asyncio.sleep(self._poll_s)

    async def _hear(self, hear: Callable[[Moved], None], missed: Callable[[], None]) -> None:
        """Listen until the channel is lost; one that is silent is asked whether it lives."""
        listening = self._redis.pubsub()
        try:
            await listening.subscribe(CHANNEL)
            asked = 0
            while asked < ASKED_MAX:
                end_if_cancelled()
                message = await listening.get_message(timeout=self._poll_s)
                if message is None:
                    asked += 1
                    await listening.ping()
                    continue
                asked = 0
                if message["type"] == "subscribe":
                    self.heard = True
                    missed()
                self._take(message, hear)
            raise TimeoutError("the channel is silent")
        finally:
            await listening.aclose()  # type: ignore[no-untyped-call]

    def _take(self, message: dict[str, Any], hear: Callable[[Moved], None]) -> None:
        if message["type"] != "message":
            return
        try:
            told = msgspec.json.decode(message["data"], type=_Told)
        except msgspec.DecodeError as error:
            event(log, "live.unreadable", logging.WARNING, why=repr(error))
            return
        if told.by != self._replica:  # what we told ourselves was heard before it left
            for moved in told.moved:
                hear(moved)


def _by_book(waiting: dict[tuple[int, str], datetime]) -> tuple[Moved, ...]:
    """One word a book; the earliest time, which is how long somebody has waited."""
    books: dict[int, list[str]] = {}
    for book, contract in waiting:
        books.setdefault(book, []).append(contract)
    return tuple(
        Moved(book, tuple(ids), min(waiting[book, each] for each in ids))
        for book, ids in books.items()
    )
