"""The one HTTP client for providers: sends a request once and says what can be known about it.

Knows when a byte may have left us. Refuses to know what an answer means: a complete answer of any
status goes to the connector, everything else is *not sent* or *unknown* and never anything between.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Final

import aiohttp
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from router.outcomes import NotSent, Unknown
from router.psp.connector import HttpAnswer, HttpRequest

ANSWER_BYTES_MAX: Final = 64 * 1024
CONNECTIONS_MAX: Final = 64  # to one provider
KEEP_ALIVE_S: Final = 15.0

MaySend = Callable[[], bool]


class _HeldBack(Exception):
    """`may_send` said no when the connection stood and nothing had been written."""


class _TooLarge(Exception):
    """The answer's body is larger than we read."""


class _Gate:
    """Stands before the first byte of one request; `passed` once a byte may have left us."""

    __slots__ = ("_may_send", "passed")

    def __init__(self, may_send: MaySend) -> None:
        self._may_send = may_send
        self.passed = False

    def pass_or_hold(self) -> None:
        if not self._may_send():
            raise _HeldBack
        self.passed = True


_GATE: Final[ContextVar[_Gate]] = ContextVar("gate")  # of the request that this task is sending


class _GatedConnector(aiohttp.TCPConnector):
    """Hands out a connection only through the gate of the request that is about to use it.

    Between this and the first byte the client awaits nothing of the network. Cheaper by a third of
    the whole exchange than the client's tracing, which offers the same moment.
    """

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """A new or kept connection; _HeldBack, with the connection kept, when the gate is shut."""
        connection = await super().connect(req, traces, timeout)
        try:
            _GATE.get().pass_or_hold()
        except _HeldBack:
            connection.release()
            raise
        return connection


class Transport:
    """Sends requests over one pool of connections; `open_transport` makes one."""

    def __init__(self, session: aiohttp.ClientSession, answer_bytes_max: int) -> None:
        self._session = session
        self._answer_bytes_max = answer_bytes_max

    async def exchange(
        self, base_url: str, request: HttpRequest, timeout_s: float, may_send: MaySend
    ) -> HttpAnswer | NotSent | Unknown:
        """Send `request` once and read the whole answer within `timeout_s`.

        may_send  asked when the connection stands, immediately before the first byte; False
                  gives NotSent("lease") and no byte leaves
        A cancelled call says nothing: the caller's row still says *sent*.
        """
        gate = _Gate(may_send)
        token = _GATE.set(gate)
        try:
            return await self._send(base_url, request, timeout_s)
        except _HeldBack:
            return NotSent("lease")
        except _TooLarge:
            return Unknown("answer_too_large")
        except (aiohttp.ClientError, OSError) as error:  # a timeout is an OSError too
            return Unknown(_after_write(error)) if gate.passed else NotSent(_before_write(error))
        finally:
            _GATE.reset(token)

    async def _send(self, base_url: str, request: HttpRequest, timeout_s: float) -> HttpAnswer:
        async with self._session.request(
            request.method,
            _url(base_url, request.target),
            data=request.body or None,
            headers=request.headers,
            allow_redirects=False,
            timeout=_limit(timeout_s),
        ) as response:
            return HttpAnswer(response.status, await self._body(response))

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        """The body, or _TooLarge as soon as it is known to be."""
        said = response.content_length
        if said is not None:
            if said > self._answer_bytes_max:
                raise _TooLarge
            return await response.read()  # the parser lets no more than was said through
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self._answer_bytes_max:
                raise _TooLarge
        return bytes(body)


def _before_write(error: Exception) -> str:
    """Why no byte left us, in the taxonomy's words where it has them."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "dns_fail"
    if isinstance(error, aiohttp.ClientSSLError):
        return "tls_fail"
    return "connect_timeout" if isinstance(error, TimeoutError) else "conn_refused"


def _after_write(error: Exception) -> str:
    """Why we do not know what happened."""
    if isinstance(error, TimeoutError):
        return "read_timeout"
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
        return "eof_after_write"
    return "conn_reset_after_write" if isinstance(error, OSError) else "answer_malformed"


@lru_cache(maxsize=256)
def _url(base_url: str, target: str) -> URL:
    """The address of a request; those without a query repeat, the others leave the cache."""
    return URL(base_url.rstrip("/") + target, encoded=True)


@lru_cache(maxsize=16)
def _limit(timeout_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=timeout_s, ceil_threshold=timeout_s + 1)


@asynccontextmanager
async def open_transport(
    connections_max: int = CONNECTIONS_MAX,
    answer_bytes_max: int = ANSWER_BYTES_MAX,
    keep_alive_s: float = KEEP_ALIVE_S,
) -> AsyncIterator[Transport]:
    """A client with its own pool of connections, closed on leaving.

    connections_max  to one provider at a time; further requests wait within their own time
    """
    connector = _GatedConnector(
        limit=0, limit_per_host=connections_max, keepalive_timeout=keep_alive_s
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        skip_auto_headers=("User-Agent",),
    ) as session:
        yield Transport(session, answer_bytes_max)
