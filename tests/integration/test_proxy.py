"""The fault proxy itself: a test ground that misbehaves must do so exactly as ordered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.proxy import Fault, Kind, Proxy, TcpUpstream, UnixUpstream


class Echo:
    """A server that answers each line with itself and remembers what it heard."""

    def __init__(self) -> None:
        self.heard = asyncio.Queue[bytes]()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.heard.put_nowait(line)
                writer.write(line)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[Proxy, Echo]]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    async with server:
        upstream = TcpUpstream("127.0.0.1", server.sockets[0].getsockname()[1])
        async with Proxy(upstream) as proxy:
            yield proxy, echo


async def ask(proxy: Proxy, line: bytes = b"hello\n") -> bytes:
    """Send one line on a new connection and return all that comes back."""
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    try:
        async with asyncio.timeout(10):
            writer.write(line)
            await writer.drain()
            return await reader.readline()
    finally:
        writer.close()


async def test_without_a_fault_bytes_pass_both_ways() -> None:
    """A proxy in its default state is invisible."""
    async with proxied() as (proxy, _):
        assert await ask(proxy) == b"hello\n"


async def test_a_unix_socket_is_passed_on_as_well(tmp_path: Path) -> None:
    """PostgreSQL and Redis listen on Unix sockets; the proxy stands in front of those too."""
    echo = Echo()
    server = await asyncio.start_unix_server(echo.serve, tmp_path / "s")
    async with server, Proxy(UnixUpstream(tmp_path / "s")) as proxy:
        assert await ask(proxy) == b"hello\n"


@pytest.mark.parametrize("kind", [Kind.DROP_REQUEST, Kind.REFUSE])
async def test_a_dropped_request_never_reaches_the_server(kind: Kind) -> None:
    """The client sees a reset, and the server has heard nothing."""
    async with proxied() as (proxy, echo):
        proxy.fault = Fault(kind=kind)
        with pytest.raises(ConnectionError):
            await ask(proxy)
        assert echo.heard.empty()


async def test_a_dropped_answer_comes_after_the_effect() -> None:
    """The server has acted, the client sees a reset: the case that must become *unknown*."""
    async with proxied() as (proxy, echo):
        proxy.fault = Fault(kind=Kind.DROP_ANSWER)
        with pytest.raises(ConnectionError):
            await ask(proxy)
        assert echo.heard.get_nowait() == b"hello\n"


async def test_a_cut_answer_ends_in_the_middle() -> None:
    """Exactly the ordered number of bytes arrives, then an orderly end."""
    async with proxied() as (proxy, _):
        proxy.fault = Fault(kind=Kind.CUT, after_bytes=3)
        assert await ask(proxy) == b"hel"


async def test_a_fault_strikes_as_often_as_ordered() -> None:
    """A fault for one connection leaves the next one alone."""
    async with proxied() as (proxy, _):
        proxy.fault = Fault(kind=Kind.DROP_ANSWER, times=1)
        with pytest.raises(ConnectionError):
            await ask(proxy)
        assert await ask(proxy) == b"hello\n"


async def test_a_stalled_connection_goes_on_when_healed() -> None:
    """A stall holds the bytes back and loses none of them."""
    async with proxied() as (proxy, echo):
        proxy.fault = Fault(kind=Kind.STALL)
        waiting = asyncio.create_task(ask(proxy))
        done, _ = await asyncio.wait({waiting}, timeout=0.2)
        assert not done
        assert echo.heard.empty()
        proxy.heal()
        assert await waiting == b"hello\n"


async def test_latency_delays_and_changes_nothing() -> None:
    """A slow line is still a right line."""
    async with proxied() as (proxy, _):
        proxy.fault = Fault(latency_s=0.05)
        assert await ask(proxy) == b"hello\n"


async def test_open_connections_can_be_cut_at_once() -> None:
    """An idle connection sees the cut without sending anything."""
    async with proxied() as (proxy, _):
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        proxy.cut_all()
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(10):
                await reader.readexactly(1)
        writer.close()
