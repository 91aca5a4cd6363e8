"""A partner's stream over HTTP: Server-Sent Events, until the reader or we go away.

Knows sockets, pings and how long a reader may leave a part unread. Refuses to know balances; the
hub hands over whole states, and what a slow reader has not been sent yet is forgotten for the next.

An event is written to the socket by whoever brings it, when the socket has room, and otherwise by
the stream's own task when it has: with thousands of readers one task each for every event is what
would cost most.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from aiohttp import HttpVersion11, web

from gateway.control.refusals import Refusal
from gateway.flows import live_events
from gateway.flows.faults import away
from gateway.flows.live import Contracts, LiveLimits
from gateway.flows.live_events import Event
from gateway.http.calls import Call
from gateway.http.cookies import VISIT
from gateway.http.serving import CORRELATION

SCOPE: Final = "partners:read"
RETRY_MS: Final = 2_000
LOOK_S: Final = 0.05  # between two looks whether a slow reader has read
ADMIT_EVERY: Final = 4  # pings until what is within reach is asked again
_LAST_EVENT: Final = "Last-Event-ID"


async def stream(call: Call) -> web.StreamResponse:
    """GET /v1/partners/{id}/stream."""
    partner = call.path("id")
    contracts = await _contracts(call, partner)
    following = Stream(call, partner, contracts, _last_event(call))
    following.begin()  # refuses while that can still be answered
    try:
        await following.open()
        await following.follow()
    except OSError:
        pass  # the reader went away in the middle of a word
    finally:
        following.leave()
    return following.response


class Stream:
    """One reader: what the hub tells it, and the task that keeps it."""

    def __init__(self, call: Call, partner: str, contracts: Contracts, last: int | None) -> None:
        self._call = call
        self._live = call.parts.live
        self._limits = call.parts.live.limits
        self._observer = call.parts.metrics
        self._partner = partner
        self._contracts = contracts
        self._last = last
        self._newest: Event | None = None
        self._woken = asyncio.Event()
        self._retry: int | None = None  # set: the stream ends
        self._look = False
        self._ping_at = 0.0  # on the loop's clock, once there is somebody to ping
        self._pings = 0
        self._wire: asyncio.Transport | None = None  # once the head is sent
        self._parted = call.request.version >= HttpVersion11
        headers = {
            "Content-Type": "text/event-stream", "Cache-Control": "no-store",
            "X-Accel-Buffering": "no", CORRELATION: call.correlation,
        }  # fmt: skip
        self.response = web.StreamResponse(headers=headers)

    # --- what the hub says ----------------------------------------------------------------------

    @property
    def owner(self) -> str:
        """Whose stream it is."""
        return self._call.caller.owner

    @property
    def places(self) -> int:
        """A partner has some windows; a calling system reads for many partners."""
        limits = self._limits
        return limits.visitor_max if self._call.caller.partner else limits.owner_max

    @property
    def gone(self) -> bool:
        """Whether nobody reads any more."""
        return self._call.request.transport is None or self._closing()

    def take(self, event: Event) -> None:
        """Send the newest state now, or as soon as the reader has read."""
        wire = self._wire
        if wire is not None and wire.is_closing():
            return  # its task leaves in a moment; a closed socket must not be written to
        if wire is not None and self._newest is None and not wire.get_write_buffer_size():
            wire.write(event.chunk if self._parted else event.text)
            return
        self._newest = event
        self._woken.set()

    def unchanged(self) -> None:
        """Say that what the reader has is how it is."""
        self._write(live_events.UNCHANGED)

    def look_again(self) -> None:
        """There may be another contract within reach."""
        self._look = True
        self._woken.set()

    def end(self, retry_ms: int) -> None:
        """End the stream; the reader comes back after this time."""
        self._retry = retry_ms
        self._woken.set()

    # --- the stream's own task ------------------------------------------------------------------

    def begin(self) -> None:
        """Be told from now on; raises Refusal `overloaded`."""
        self._live.watch(self._partner, self._contracts, self, self._last)

    def leave(self) -> None:
        """Be told nothing more."""
        self._live.leave(self._partner, self._contracts, self)

    async def open(self) -> None:
        """Send the head, and how soon to come back after a break."""
        request = self._call.request
        await self.response.prepare(request)
        _bound(request.transport, self._limits)
        await self.response.write(live_events.retry(RETRY_MS))
        self._wire = request.transport

    async def follow(self) -> None:
        """Until it ends: send what could not be sent at once, ping, and see who may read on."""
        self._ping_at = asyncio.get_running_loop().time() + self._limits.ping_s
        while self._retry is None and not self.gone:
            try:
                async with asyncio.timeout_at(self._ping_at):
                    await self._woken.wait()
            except TimeoutError:
                pass  # nothing is to be sent; a ping is due
            self._woken.clear()
            await self._ping()
            if not await self._flush():
                self._drop()
                return
            if self._look:
                await self._reach()
        if self._retry:
            self._write(live_events.retry(self._retry))

    async def _ping(self) -> None:
        """When it is time, however much is told: say that we live, and see who reads."""
        now = asyncio.get_running_loop().time()
        if now < self._ping_at:
            return
        self._ping_at = now + self._limits.ping_s
        self._pings += 1
        self._look = self._look or self._pings % ADMIT_EVERY == 0
        self._write(live_events.PING)
        await self._admit()

    async def _flush(self) -> bool:
        """Send what waits once the reader has read; False when it does not read in time."""
        wire = self._wire
        if wire is None or (self._newest is None and not wire.get_write_buffer_size()):
            return True
        try:
            async with asyncio.timeout(self._limits.write_s):
                await asyncio.sleep(0)  # what was written a moment ago leaves at the loop's turn
                while wire.get_write_buffer_size() and not wire.is_closing():
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            return False
        event, self._newest = self._newest, None
        if event is not None and not wire.is_closing():
            wire.write(event.chunk if self._parted else event.text)
        return True

    def _closing(self) -> bool:
        return self._wire is not None and self._wire.is_closing()

    def _write(self, text: bytes) -> None:
        """A few words beside the events, unless the reader is gone."""
        if self._wire is not None and not self._wire.is_closing():
            self._wire.write(live_events.chunk(text) if self._parted else text)

    def _drop(self) -> None:
        self._observer.reader_dropped()
        if self._wire is not None:
            self._wire.abort()

    async def _admit(self) -> None:
        """End the stream of a credential that is not in force any more; one nobody can ask about
        now goes on.
        """
        call = self._call
        try:
            if call.caller.partner:
                await call.parts.visits.caller(VISIT.read(call.request))
            else:
                caller = await call.parts.entrance.caller(call.request, reads=True)
                caller.narrowed(SCOPE)
        except Refusal:
            self.end(RETRY_MS)
        except Exception as error:
            if not away(error):
                raise

    async def _reach(self) -> None:
        """Watch what is within reach now; a stream that reaches nothing ends."""
        self._look = False
        try:
            contracts = await _contracts(self._call, self._partner)
            if contracts != self._contracts:
                self.leave()
                self._contracts, self._last = contracts, None
                self.begin()
        except Refusal:
            self.end(RETRY_MS)
        except Exception as error:
            if not away(error):
                raise
            self._look = True


async def _contracts(call: Call, partner: str) -> Contracts:
    reached = await call.reaches_partner(partner)
    return tuple([(each.book, each.id, each.currency) for each in reached])


def _last_event(call: Call) -> int | None:
    """The id of the event that the reader had last; what is not one of ours says nothing."""
    text = call.request.headers.get(_LAST_EVENT, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _bound(transport: asyncio.Transport | None, limits: LiveLimits) -> None:
    """Keep what the system buffers for this reader small, and let a dead machine be noticed."""
    wire = transport.get_extra_info("socket") if transport is not None else None
    if wire is None or wire.family not in (socket.AF_INET, socket.AF_INET6):
        return
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limits.socket_bytes)
    unread_ms = int(limits.write_s * 2000)  # later than we notice by ourselves, where we can
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unread_ms)
