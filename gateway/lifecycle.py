"""One life of the process: starting, ready or degraded, draining, gone.

Knows the phases and what ends them (signals, a bug in a service). Refuses to know the services.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from gateway.http.parts import Degraded, Readiness

COLLECT_AFTER: Final = 50_000  # new objects that the collector may be asked to look through


class Lifecycle:
    """The phase of this process, and the wish that it should end."""

    def __init__(self) -> None:
        self.phase = "starting"
        self.stop = asyncio.Event()
        self._watched: dict[str, Callable[[], str]] = {}

    def watch(self, part: str, trouble: Callable[[], str]) -> None:
        """Name a part; `trouble` says what is wrong with it, "" for nothing."""
        self._watched[part] = trouble

    def troubles(self) -> Mapping[str, str]:
        """Every watched part and what is wrong with it, "" for nothing."""
        return {part: trouble() for part, trouble in self._watched.items()}

    def readiness(self) -> Readiness:
        """What `/readyz` says."""
        if self.phase != "ready":
            return Readiness(self.phase)
        wrong = tuple(Degraded(part, why) for part, why in self.troubles().items() if why)
        return Readiness("degraded" if wrong else "ready", wrong)

    @contextmanager
    def signals(self) -> Iterator[None]:
        """End on SIGTERM and SIGINT while the block lasts."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


def collect_seldom() -> None:
    """Have the collector look after many new objects, and never again at what is loaded by now.

    Requests make thousands of objects that end with them and hardly a cycle. At the usual threshold
    of 700 looking for cycles takes a seventh of a deposit's processor time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 50, 50)
