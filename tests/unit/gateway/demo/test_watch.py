"""Partners who watch know what they saw when, and go on where a connection ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import aiohttp
import msgspec
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.demo.partners import Contracted, Planned
from gateway.demo.watch import Watching, quantile

PARTNER = Contracted(Planned("r", "b", "USD", "p", 1), "PA1", "CT1")
BEGIN = datetime(2026, 3, 2, 12, tzinfo=UTC)


def event(id: int, last_line: int) -> bytes:
    """An event as the stream writes it, of a batch booked at the beginning."""
    contracts = [{"contract": "CT1", "accrued": "1.00", "last_line": last_line}]
    data = msgspec.json.encode({"at": BEGIN.isoformat(), "contracts": contracts})
    return b"event: balances\nid: %d\ndata: %b\n\n" % (id, data)


class Stream:
    """A stream that is cut amid its third event and goes on at the next connection."""

    def __init__(self) -> None:
        self.resumed: list[str] = []
        self.over = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One connection."""
        self.resumed.append(request.headers.get("Last-Event-ID", ""))
        answer = web.StreamResponse()
        await answer.prepare(request)
        if len(self.resumed) == 1:
            await answer.write(event(5, 10) + event(7, 12) + b"event: balances\nid: 9\n")
            await asyncio.sleep(0)
            assert request.transport is not None
            request.transport.close()
        else:
            await answer.write(event(9, 15))
            await self.over.wait()
        return answer


@asynccontextmanager
async def watched(stream: Stream) -> AsyncIterator[Watching]:
    """Somebody who watches and saw the last event; each look at the clock takes a second."""
    times = (BEGIN + timedelta(seconds=n) for n in range(1, 100))
    application = web.Application()
    application.router.add_get("/v1/partners/PA1/stream", stream.answer)
    async with TestServer(application) as server, aiohttp.ClientSession() as http:
        watching = Watching(http, str(server.make_url("")).rstrip("/"), "t", lambda: next(times))
        task = asyncio.create_task(watching.run([PARTNER]))
        async with asyncio.timeout(20):
            while watching.seen_ms("CT1", 15) is None:
                await asyncio.sleep(0.01)
        yield watching
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        stream.over.set()


async def test_a_line_is_seen_with_the_first_event_that_counts_it() -> None:
    """What was there before, and what nobody showed yet, has no time."""
    async with watched(Stream()) as watching:
        seen = {line: watching.seen_ms("CT1", line) for line in (10, 11, 12, 13, 15, 16)}
    second = BEGIN.timestamp() * 1000 + 2_000
    third = second + 1_000
    assert seen == {10: None, 11: second, 12: second, 13: third, 15: third, 16: None}
    assert watching.seen_ms("CT2", 11) is None
    assert watching.ages_ms == [2_000.0, 3_000.0]


async def test_a_stream_is_taken_up_after_the_last_whole_event() -> None:
    """The id of an event that was cut off is not one that was seen."""
    stream = Stream()
    async with watched(stream) as watching:
        assert watching.lost == 1
    assert stream.resumed == ["", "7"]


def test_what_so_many_of_a_hundred_do_not_exceed() -> None:
    """The one at that place in order, or the greatest there is."""
    assert quantile([], 99) == 0.0
    assert quantile([3.0], 99) == 3.0
    assert quantile((float(n) for n in range(1, 201)), 99) == 199.0
    assert quantile([5.0, 1.0, 3.0], 50) == 3.0
