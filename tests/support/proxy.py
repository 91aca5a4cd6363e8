"""A TCP proxy that misbehaves on order, between a client under test and a real server.

It knows bytes, delays and how a connection dies. It refuses to know what the bytes mean, except
where an answer begins, after the first byte of a request was passed on, and words it was told to
listen for.

    async with Proxy(upstream) as proxy:
        connect to proxy.host, proxy.port
        proxy.fault = Fault(kind=Kind.DROP_ANSWER)
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

import msgspec

CHUNK_BYTES: Final = 65_536
CONNECT_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 5.0


class Kind(enum.Enum):
    """What happens to a connection."""

    NONE = "none"
    REFUSE = "refuse"  # closed with a reset before a byte of the request is read
    STALL = "stall"  # stays open, passes nothing on in either direction
    CUT = "cut"  # closed in order once `after_bytes` of the answer have passed
    RESET = "reset"  # the same, with a reset instead of an end
    DROP_REQUEST = "drop_request"  # reset at the first byte of a request; the server sees nothing
    DROP_ANSWER = "drop_answer"  # the request is passed on; reset in place of its answer


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One misbehaviour; it strikes open connections too, at their next byte."""

    kind: Kind = Kind.NONE
    latency_s: float = 0.0  # added before each piece, in each direction
    after_bytes: int = 0  # of answers, counted per connection: for CUT and RESET
    times: int | None = None  # connections that it strikes; None is all of them
    words: tuple[bytes, ...] = ()  # what a client must have said before, in this order


class TcpUpstream(msgspec.Struct, frozen=True):
    """A server on a port."""

    host: str
    port: int


class UnixUpstream(msgspec.Struct, frozen=True):
    """A server on a Unix socket."""

    path: Path


Upstream = TcpUpstream | UnixUpstream


class _Link:
    """One connection of a client, and its own one to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.upstream: asyncio.StreamWriter | None = None
        self.answered_bytes = 0
        self.struck = False
        self.heard = 0  # of the words that the fault waits for


class Proxy:
    """Listens on a loopback port of its own while the block lasts."""

    def __init__(self, upstream: Upstream, *, listen_on: Path | None = None) -> None:
        """Take the server to stand in front of; `listen_on` is a socket path instead of a port."""
        self._upstream = upstream
        self._listen_on = listen_on
        self._fault = Fault()
        self._left: int | None = None
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.host = "127.0.0.1"
        self.port = 0
        self.connections = 0  # accepted so far
        self.strikes = 0  # connections struck so far
        self.request_bytes = 0  # passed on to the server so far

    @property
    def fault(self) -> Fault:
        """The misbehaviour in force."""
        return self._fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        self._fault = fault
        self._left = fault.times
        for link in self._links:
            link.struck, link.heard = False, 0
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()  # what stalls looks again

    def heal(self) -> None:
        """Behave again; a stalled connection goes on."""
        self.fault = Fault()

    def cut_all(self, *, reset: bool = True) -> None:
        """End every open connection now."""
        for link in list(self._links):
            _end(link, reset=reset)

    async def __aenter__(self) -> Self:
        """Start to listen."""
        if self._listen_on is not None:
            self._server = await asyncio.start_unix_server(self._accept, self._listen_on)
        else:
            self._server = await asyncio.start_server(self._accept, self.host, 0)
            self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening and end every connection."""
        assert self._server is not None
        self._server.close()
        self.cut_all()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT_S)
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(_Link(reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, link: _Link) -> None:
        self._links.add(link)
        try:
            if self._strikes(link, Kind.REFUSE):
                _end(link, reset=True)
                return
            reader, link.upstream = await self._dial()
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass_requests(link))
                both.create_task(self._pass_answers(link, reader))
        except* (OSError, TimeoutError, asyncio.IncompleteReadError):
            _end(link, reset=True)  # one side is gone: so is the other
        finally:
            self._links.discard(link)
            _close(link)

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            if isinstance(self._upstream, UnixUpstream):
                return await asyncio.open_unix_connection(self._upstream.path)
            return await asyncio.open_connection(self._upstream.host, self._upstream.port)

    def _strikes(self, link: _Link, *kinds: Kind) -> bool:
        """Say whether the fault in force is one of `kinds` and has a connection left to strike."""
        if self._fault.kind not in kinds or link.heard < len(self._fault.words):
            return False
        if not link.struck:
            if self._left == 0:
                return False
            link.struck = True
            self.strikes += 1
            self._left = None if self._left is None else self._left - 1
        return True

    def _listen(self, link: _Link, piece: bytes) -> None:
        """Note which of the words the fault waits for are said by now."""
        words = self._fault.words
        while link.heard < len(words) and words[link.heard] in piece:
            link.heard += 1

    async def _pass_requests(self, link: _Link) -> None:
        assert link.upstream is not None
        while piece := await link.reader.read(CHUNK_BYTES):
            await self._delay(link)
            self._listen(link, piece)
            if self._strikes(link, Kind.DROP_REQUEST):
                _end(link, reset=True)
                return
            self.request_bytes += len(piece)
            link.upstream.write(piece)
            await link.upstream.drain()
        with contextlib.suppress(OSError):
            link.upstream.write_eof()

    async def _pass_answers(self, link: _Link, reader: asyncio.StreamReader) -> None:
        while piece := await reader.read(CHUNK_BYTES):
            await self._delay(link)
            if self._strikes(link, Kind.DROP_ANSWER):
                _end(link, reset=True)
                return
            if not await self._pass_answer(link, piece):
                _end(link, reset=self._fault.kind is Kind.RESET)
                return
        with contextlib.suppress(OSError):
            link.writer.write_eof()

    async def _pass_answer(self, link: _Link, piece: bytes) -> bool:
        """Pass on what the fault lets through; say whether the connection lives on."""
        lives = not self._strikes(link, Kind.CUT, Kind.RESET)
        room = len(piece) if lives else max(0, self._fault.after_bytes - link.answered_bytes)
        link.answered_bytes += len(piece[:room])
        link.writer.write(piece[:room])
        await link.writer.drain()
        return lives or link.answered_bytes < self._fault.after_bytes

    async def _delay(self, link: _Link) -> None:
        while self._strikes(link, Kind.STALL):
            await self._changed.wait()
        if self._fault.latency_s:
            await asyncio.sleep(self._fault.latency_s)


def _end(link: _Link, *, reset: bool) -> None:
    """Close both sides; with `reset` the client's peer sees a connection reset, not an end."""
    if reset:
        _linger_nothing(link.writer)
    _close(link)


def _close(link: _Link) -> None:
    for writer in (link.writer, link.upstream):
        if writer is not None:
            _quietly(writer.close)


def _linger_nothing(writer: asyncio.StreamWriter) -> None:
    """Make the coming close send RST: abort() alone would send an ordinary end."""
    taken: socket.socket | None = writer.get_extra_info("socket")
    if taken is not None and taken.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _quietly(close: Callable[[], None]) -> None:
    with contextlib.suppress(OSError, RuntimeError):
        close()
