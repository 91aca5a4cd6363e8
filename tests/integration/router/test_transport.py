"""What the HTTP client for providers says about a peer that misbehaves at each byte."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from router.outcomes import NotSent, Unknown
from router.psp.connector import HttpAnswer, HttpRequest
from router.psp.transport import Transport, open_transport

BODY = b'{"status":"approved"}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 21\r\nConnection: close\r\n\r\n" + BODY
POST = HttpRequest("POST", "/v1/charges", {"Content-Type": "application/json"}, b'{"a":"b"}')
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Peer:
    """A raw TCP server: what arrived at it, and how it treats each connection."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve
        self.connections = 0
        self.arrived = bytearray()
        self.url = ""

    async def read_request(self, reader: asyncio.StreamReader) -> bytes:
        """One whole POST of this file, or nothing when the peer goes away."""
        got = await reader.readuntil(b"\r\n\r\n")
        got += await reader.readexactly(len(POST.body))
        self.arrived += got
        return got

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        try:
            await self.serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening(serve: Serve | None = None) -> AsyncIterator[Peer]:
    """A peer on the loopback interface."""
    peer = Peer(serve or answering(ANSWER))
    server = await asyncio.start_server(peer.handle, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        peer.url = f"http://{host}:{port}"
        PEERS.append(peer)
        yield peer
        PEERS.remove(peer)


PEERS: list[Peer] = []  # so that `answering` can note what arrives


def answering(*answers: bytes, reset: bool = False) -> Serve:
    """Read a request and write an answer, as often as there are answers; then end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for text in answers:
            await PEERS[-1].read_request(reader)
            writer.write(text)
            await writer.drain()
        if reset:
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    return serve


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """A client of our own, with a small limit on answers."""
    async with open_transport(answer_bytes_max=1000) as opened:
        yield opened


def yes() -> bool:
    """The lease is fresh."""
    return True


async def test_a_whole_answer_is_handed_on_whatever_its_status(transport: Transport) -> None:
    """Status and body reach the connector, which knows what they mean."""
    for status in (b"200 OK", b"402 Payment Required", b"429 Slow", b"500 No"):
        async with listening(answering(ANSWER.replace(b"200 OK", status))) as peer:
            got = await transport.exchange(peer.url, POST, 5, yes)
            assert got == HttpAnswer(int(status[:3]), BODY)


@pytest.mark.parametrize("reset", [False, True])
async def test_an_answer_cut_at_any_byte_is_unknown(transport: Transport, reset: bool) -> None:
    """After our request has left, only the complete answer is an answer."""
    for length in range(len(ANSWER)):
        async with listening(answering(ANSWER[:length], reset=reset)) as peer:
            got = await transport.exchange(peer.url, POST, 5, yes)
            assert isinstance(got, Unknown), (length, got)
            assert peer.arrived.endswith(POST.body)


async def test_a_reset_before_our_request_was_read_is_unknown(transport: Transport) -> None:
    """A peer that closes at once may have read what we wrote."""

    async def slam(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    async with listening(slam) as peer:
        assert isinstance(await transport.exchange(peer.url, POST, 5, yes), Unknown)


async def test_silence_after_our_request_is_unknown(transport: Transport) -> None:
    """A peer that never answers is waited for as long as the policy says, and no longer."""
    done = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await PEERS[-1].read_request(reader)
        await done.wait()

    async with listening(hang) as peer:
        assert await transport.exchange(peer.url, POST, 0.2, yes) == Unknown("read_timeout")
        assert peer.arrived.endswith(POST.body)
        done.set()


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/9.9 what\r\n\r\n",
                                    b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"])  # fmt: skip
async def test_an_answer_that_is_not_http_is_unknown(transport: Transport, answer: bytes) -> None:
    """Whoever answered, our request reached somebody."""
    async with listening(answering(answer)) as peer:
        assert isinstance(await transport.exchange(peer.url, POST, 5, yes), Unknown)


@pytest.mark.parametrize(
    "head",
    [b"Content-Length: 5000\r\n", b"Transfer-Encoding: chunked\r\n"],
    ids=["said", "chunked"],
)
async def test_an_answer_beyond_the_limit_is_not_read(transport: Transport, head: bytes) -> None:
    """A peer cannot fill our memory, whether it says so first or not."""
    body = b"5dc\r\n" + b"x" * 1500 + b"\r\n0\r\n\r\n" if b"chunked" in head else b"x" * 5000
    async with listening(answering(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body)) as peer:
        got = await transport.exchange(peer.url, POST, 5, yes)
        assert got == Unknown("answer_too_large")


async def test_a_refused_connection_is_not_sent(transport: Transport) -> None:
    """Where nobody listens nothing can have happened."""
    async with listening() as peer:
        url = peer.url
    assert await transport.exchange(url, POST, 5, yes) == NotSent("conn_refused")


async def test_a_name_that_does_not_exist_is_not_sent(transport: Transport) -> None:
    """Without an address nothing can have happened."""
    got = await transport.exchange("http://psp.invalid", POST, 5, yes)
    assert got == NotSent("dns_fail")


async def test_a_failed_or_unfinished_handshake_is_not_sent(transport: Transport) -> None:
    """Before TLS stands no byte of the request leaves us."""

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"I do not speak TLS\r\n")
        await writer.drain()

    done = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()

    async with listening(babble) as peer:
        url = peer.url.replace("http:", "https:")
        assert await transport.exchange(url, POST, 5, yes) == NotSent("tls_fail")
    async with listening(wait) as peer:
        url = peer.url.replace("http:", "https:")
        assert await transport.exchange(url, POST, 0.2, yes) == NotSent("connect_timeout")
        done.set()


async def test_without_the_lease_not_one_byte_leaves(transport: Transport) -> None:
    """`may_send` is asked when the connection stands, on a new one and on a reused one."""
    kept = ANSWER.replace(b"Connection: close\r\n", b"")
    seen = bytearray()

    async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(4096):
            seen.extend(chunk)
            if seen.endswith(POST.body):
                writer.write(kept)
                await writer.drain()

    def no() -> bool:
        return False

    async with listening(watch) as peer:
        assert await transport.exchange(peer.url, POST, 5, no) == NotSent("lease")
        assert peer.connections == 1
        assert seen == b""
        assert await transport.exchange(peer.url, POST, 5, yes) == HttpAnswer(200, BODY)
        once = bytes(seen)
        assert await transport.exchange(peer.url, POST, 5, no) == NotSent("lease")
        assert bytes(seen) == once


async def test_the_lease_is_asked_after_the_connection_stands(transport: Transport) -> None:
    """A slow connect cannot make an old permission count: the question comes last."""
    async with listening() as peer:
        seen = []

        def ask() -> bool:
            seen.append(peer.connections)
            return True

        await transport.exchange(peer.url, POST, 5, ask)
        assert len(seen) == 1


async def test_a_request_is_never_sent_twice(transport: Transport) -> None:
    """A kept connection that dies under our request is not tried again by the library."""
    kept = ANSWER.replace(b"Connection: close\r\n", b"")

    async with listening(answering(kept, b"")) as peer:
        assert await transport.exchange(peer.url, POST, 5, yes) == HttpAnswer(200, BODY)
        assert isinstance(await transport.exchange(peer.url, POST, 5, yes), Unknown)
        assert peer.arrived.count(POST.body) == 2
        assert peer.connections == 1


async def test_a_cancelled_call_says_nothing(transport: Transport) -> None:
    """Whoever is stopped while waiting learns no outcome: the row still says sent."""
    arrived, done = asyncio.Event(), asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await PEERS[-1].read_request(reader)
        arrived.set()
        await done.wait()

    async with listening(hang) as peer:
        call = asyncio.create_task(transport.exchange(peer.url, POST, 5, yes))
        await asyncio.wait_for(arrived.wait(), 5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        done.set()


async def test_a_redirect_is_an_answer_and_is_not_followed(transport: Transport) -> None:
    """Money is never sent to an address that an answer names."""
    moved = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    async with listening(answering(moved)) as peer:
        assert await transport.exchange(peer.url, POST, 5, yes) == HttpAnswer(302, b"")
