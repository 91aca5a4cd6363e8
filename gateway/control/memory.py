"""Memory: what a table said, for a few seconds, so that most requests ask no table.

Knows ages, how many answers are kept, and that those who wait for one answer share one question.
Refuses to know what is asked: a credential is told by whoever looks it up, and "there is none" is
remembered like any other answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memory(Generic[K, V]):
    """Answers by key.

    ask       looks one up
    ttl_s     how long an answer is remembered, and thus how long one taken back may still work
    size_max  how many are remembered
    asks_max  how many are looked up at once: strangers who make up keys cannot take the pool
    under     what answers depend on besides: they hold while it is the same object
    """

    def __init__(
        self,
        ask: Callable[[K], Awaitable[V]],
        monotonic: Callable[[], float],
        ttl_s: float = 3.0,
        size_max: int = 10_000,
        asks_max: int = 4,
        under: Callable[[], object] = lambda: None,
    ) -> None:
        self._ask = ask
        self._monotonic = monotonic
        self._ttl_s = ttl_s
        self._size_max = size_max
        self._under = under
        self._known: dict[K, tuple[float, object, V]] = {}
        self._asking: dict[K, asyncio.Lock] = {}
        self._turns = asyncio.Semaphore(asks_max)

    async def get(self, key: K) -> V:
        """What is remembered of the key, or what the table says now."""
        known = self._fresh(key)
        return known[2] if known is not None else await self._look_up(key)

    def forget(self, key: K) -> None:
        """Ask again the next time."""
        self._known.pop(key, None)

    def forget_where(self, over: Callable[[V], bool]) -> None:
        """Forget every answer of which this holds."""
        for key in [key for key, (_, _, value) in self._known.items() if over(value)]:
            del self._known[key]

    def _fresh(self, key: K) -> tuple[float, object, V] | None:
        known = self._known.get(key)
        if known is None or known[0] <= self._monotonic():
            return None
        return known if known[1] is self._under() else None

    async def _look_up(self, key: K) -> V:
        """Ask once for all requests that wait for the same answer."""
        lock = self._asking.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                if (known := self._fresh(key)) is not None:
                    return known[2]
                under = self._under()
                async with self._turns:
                    value = await self._ask(key)
                self._remember(key, under, value)
                return value
        finally:
            if not lock.locked():
                self._asking.pop(key, None)

    def _remember(self, key: K, under: object, value: V) -> None:
        if len(self._known) >= self._size_max:
            self._known.clear()  # strangers can fill it; refilling costs one question a key
        self._known[key] = (self._monotonic() + self._ttl_s, under, value)
