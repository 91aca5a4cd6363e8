"""A calling system that costs as little as possible: deposits over raw sockets, as fast as they are
answered or at a pace.

`python -m loadtests.caller` reads its order from standard input (`Order`, as JSON), plays it and
prints one JSON line (`Played`). It knows how to send a request and find the end of an answer. It
refuses to look at what an answer says beyond its status.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections import Counter, deque
from typing import Final, cast
from urllib.parse import urlsplit

import msgspec
import uvloop

from loadtests.peers import END_OF_HEAD, body_length

GRACE_S: Final = 20.0


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to play.

    callers    connections, each with one request under way
    warm_s     seconds that are played and not counted
    seconds    seconds that are counted
    per_s      requests a second, at even times whatever the answers do, each counted from the time
               it was due; 0 for the next as soon as the last is answered
    """

    url: str
    token: str
    clients: tuple[str, ...]
    callers: int
    warm_s: float
    seconds: float
    per_s: float = 0.0


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it.

    statuses  of the counted answers
    answers   how many were counted
    all       how many there were, the uncounted too: what processor time is divided by
    """

    statuses: dict[str, int]
    answers: int
    all: int
    per_s: float
    p50_ms: float
    p99_ms: float


class Play:
    """One play: when it counts, what was answered, and the bytes that are sent."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.statuses: Counter[str] = Counter()
        self.times: list[float] = []
        self.all = 0
        self.counts_from = self.counts_to = 0.0
        self._keys = itertools.count()
        self._run = os.urandom(6).hex()
        self._clients = itertools.cycle(order.clients)
        at = urlsplit(order.url)
        self.address = (at.hostname or "", at.port or 80)
        self._head = (
            f"POST /v1/deposits HTTP/1.1\r\nHost: {at.netloc}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {order.token}\r\n"
        )

    def request(self) -> bytes:
        """The next request, with a key of its own."""
        body = (
            f'{{"client":"{next(self._clients)}","amount":{{"amount":"20.00","currency":"USD"}},'
            '"method":"card"}'
        )
        return (
            f"{self._head}Idempotency-Key: {self._run}-{next(self._keys)}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    def answered(self, status: str, sent: float, now: float) -> bool:
        """Count an answer; whether another request is to be sent."""
        self.all += 1
        if self.counts_from <= now < self.counts_to:
            self.statuses[status] += 1
            self.times.append(now - sent)
        return now < self.counts_to

    def result(self) -> Played:
        """The figures of the counted seconds."""
        times = sorted(self.times)
        return Played(
            statuses=dict(self.statuses), answers=len(times), all=self.all,
            per_s=len(times) / self.order.seconds,
            p50_ms=quantile(times, 0.50) * 1000, p99_ms=quantile(times, 0.99) * 1000,
        )  # fmt: skip


def quantile(ordered: list[float], part: float) -> float:
    """The value that `part` of the ordered values do not exceed; 0 of none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0


class Caller(asyncio.Protocol):
    """One connection: the next request leaves when the last is answered."""

    def __init__(self, play: Play, pace: Pace | None) -> None:
        self._play = play
        self._pace = pace
        self._sent = 0.0
        self._waiting = b""
        self._transport: asyncio.Transport | None = None
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or stand by."""
        self._transport = cast("asyncio.Transport", transport)
        if self._pace is None:
            self.send(time.perf_counter())
        else:
            self._pace.free(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Whoever waits hears of it."""
        if not self.done.done():
            self.done.set_exception(error or ConnectionResetError("the server hung up"))

    def send(self, due: float) -> None:
        """The next request, which counts from `due`."""
        assert self._transport is not None
        self._sent = due
        self._transport.write(self._play.request())

    def data_received(self, data: bytes) -> None:
        """An answer, or a part of one."""
        self._waiting += data
        head = self._waiting.find(END_OF_HEAD)
        if head < 0:
            return
        if len(self._waiting) < head + len(END_OF_HEAD) + body_length(self._waiting[:head]):
            return
        status = self._waiting[9:12].decode()
        self._waiting = b""
        now = time.perf_counter()
        more = self._play.answered(status, self._sent, now)
        if self._pace is not None:
            self._pace.free(self)
        elif more:
            self.send(now)
        elif not self.done.done():
            self.done.set_result(None)


class Pace:
    """Requests that fall due at even times; one waits where no caller is free."""

    def __init__(self, callers: int) -> None:
        self._callers = callers
        self._free: list[Caller] = []
        self._due: deque[float] = deque()

    def free(self, caller: Caller) -> None:
        """Take back a caller that can send."""
        if self._due:
            caller.send(self._due.popleft())
        else:
            self._free.append(caller)

    async def run(self, begin: float, until: float, per_s: float) -> None:
        """Until the last is answered."""
        for number in range(int((until - begin) * per_s)):
            due = begin + number / per_s
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            if self._free:
                self._free.pop().send(due)
            else:
                self._due.append(due)
        while len(self._free) < self._callers:
            await asyncio.sleep(0.01)


async def play(order: Order) -> Played:
    """Play an order to its end."""
    played = Play(order)
    loop = asyncio.get_running_loop()
    now = time.perf_counter()
    played.counts_from = now + order.warm_s
    played.counts_to = played.counts_from + order.seconds
    pace = Pace(order.callers) if order.per_s else None
    callers = []
    for _ in range(order.callers):
        _, caller = await loop.create_connection(lambda: Caller(played, pace), *played.address)
        callers.append(caller)
    async with asyncio.timeout(order.warm_s + order.seconds + GRACE_S):
        if pace is None:
            await asyncio.gather(*[caller.done for caller in callers])
        else:
            await pace.run(now, played.counts_to, order.per_s)
    return played.result()


def main() -> None:
    """Play what standard input orders."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    print(msgspec.json.encode(uvloop.run(play(order))).decode(), flush=True)


if __name__ == "__main__":
    main()
