"""Readers of streams that cost as little as possible: raw sockets that note when an event came.

`python -m loadtests.readers` reads its order from the first line of standard input (`Order`, as
JSON), opens its streams, prints a line when each has had its first event, reads on until standard
input ends, and prints what came when (`Arrivals`, as JSON). It refuses to look into an event beyond
its id, and the time that it bears.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import defaultdict
from datetime import datetime
from typing import Final, cast
from urllib.parse import urlsplit

import msgspec
import uvloop

AT_ONCE: Final = 100  # streams that are being opened
LIMIT_S: Final = 60.0
_ID: Final = b"\nid: "
_AT: Final = b'"at":"'
_END: Final = b"\n\n"


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Which streams to read: every path, `each` times, and a name for what comes by them."""

    url: str
    token: str
    paths: dict[str, tuple[str, ...]]
    each: int


class Arrivals(msgspec.Struct, frozen=True):
    """For each name and event id when it came, in seconds of the machine's monotonic clock.

    ages  how old each event was when it came, by the time that it bears; without the first of each
          stream, which tells of long ago
    """

    came: dict[str, dict[int, list[float]]]
    ages: list[float]


class Reader(asyncio.Protocol):
    """One stream."""

    def __init__(self, head: bytes, came: dict[int, list[float]], ages: list[float]) -> None:
        self._head = head
        self._came = came
        self._ages = ages
        self._begun = b""
        self.first = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        cast("asyncio.Transport", transport).write(self._head)

    def connection_lost(self, error: Exception | None) -> None:
        """Whoever waits for the first event hears of it."""
        if not self.first.done():
            self.first.set_exception(error or ConnectionResetError("the server hung up"))

    def data_received(self, data: bytes) -> None:
        """Note each event that is whole."""
        now = time.perf_counter()
        self._begun += data
        while (at := self._begun.find(_ID)) >= 0:
            end = self._begun.find(_END, at)
            if end < 0:
                return
            number = int(self._begun[at + len(_ID) : self._begun.index(b"\n", at + 1)])
            event, self._begun = self._begun[at:end], self._begun[end + len(_END) :]
            self._came[number].append(now)
            if not self.first.done():
                self.first.set_result(None)
            elif (told := event.find(_AT)) >= 0:
                told += len(_AT)
                text = event[told : event.index(b'"', told)].decode()
                self._ages.append(time.time() - datetime.fromisoformat(text).timestamp())


async def read(order: Order, source: asyncio.StreamReader) -> Arrivals:
    """Open all streams, say so, and read until `source` ends."""
    at = urlsplit(order.url)
    loop = asyncio.get_running_loop()
    turns = asyncio.Semaphore(AT_ONCE)
    came: dict[str, dict[int, list[float]]] = {}
    ages: list[float] = []

    async def open_one(path: str, into: dict[int, list[float]]) -> Reader:
        head = (
            f"GET {path} HTTP/1.1\r\nHost: {at.netloc}\r\nAuthorization: Bearer {order.token}\r\n"
            "Accept: text/event-stream\r\n\r\n"
        )
        async with turns:
            _, reader = await loop.create_connection(
                lambda: Reader(head.encode(), into, ages), at.hostname, at.port
            )
            await reader.first
        return reader

    async with asyncio.timeout(LIMIT_S):
        readers = await asyncio.gather(
            *[
                open_one(path, came.setdefault(name, defaultdict(list)))
                for name, paths in order.paths.items()
                for path in paths
                for _ in range(order.each)
            ]
        )
    print(msgspec.json.encode({"open": len(readers)}).decode(), flush=True)
    await source.read()
    return Arrivals({name: dict(times) for name, times in came.items()}, ages)


async def work() -> None:
    """Follow standard input's order."""
    loop = asyncio.get_running_loop()
    source = asyncio.StreamReader(limit=2**22)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(source), sys.stdin)
    order = msgspec.json.decode(await source.readline(), type=Order)
    print(msgspec.json.encode(await read(order, source)).decode(), flush=True)


def main() -> None:
    """Read what standard input orders."""
    uvloop.run(work())


if __name__ == "__main__":
    main()
