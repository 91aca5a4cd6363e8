"""One pinned HTTPS connection: authentication belongs to it, so there is never a second one.

Knows when the first byte of a request may have left. Refuses to dial again and to repeat anything:
when the connection is gone this object is spent, and whoever owns it makes a new one.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from bridge.faults import AnswerLost, MaySend, NothingSent, always

if TYPE_CHECKING:
    from aiohttp import ClientRequest, ClientTimeout
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

CHUNK_BYTES: Final = 65_536


class _GateShut(Exception):
    """The caller may no longer send."""


class _TooLarge(Exception):
    """The answer is larger than we are willing to hold."""


class _Spent(Exception):
    """The one connection is gone and another is not allowed."""


class _OneConnection(aiohttp.TCPConnector):
    """A connector that dials once, and asks the gate with the connection in hand."""

    def __init__(self, context: ssl.SSLContext, idle_s: float) -> None:
        super().__init__(limit=1, ssl=context, keepalive_timeout=idle_s)
        self.gate: MaySend = always
        self.first_byte_may_have_left = False
        self.protocol: ResponseHandler | None = None

    async def connect(
        self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        if not self.gate():
            connection.release()
            raise _GateShut
        self.first_byte_may_have_left = True
        return connection

    async def _create_connection(
        self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout
    ) -> ResponseHandler:
        if self.protocol is not None:
            raise _Spent
        self.protocol = await super()._create_connection(req, traces, timeout)
        return self.protocol


class PinnedConnection:
    """Requests one after another over one connection that is dialled by the first of them.

    base           `https://host:port`
    context        what the server's certificate must prove
    dial_timeout_s for TCP and TLS together; call_timeout_s for a whole exchange
    gone           set for ever once the connection is of no more use
    """

    def __init__(
        self,
        base: str,
        context: ssl.SSLContext,
        *,
        idle_s: float,
        dial_timeout_s: float,
        call_timeout_s: float,
        answer_bytes_max: int,
    ) -> None:
        self._base = base.rstrip("/")
        self._connector = _OneConnection(context, idle_s)
        self._client = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.CookieJar(unsafe=True),  # some servers set one, on an address
            timeout=aiohttp.ClientTimeout(total=None, connect=dial_timeout_s),
            headers={"Connection": "keep-alive"},
        )
        self._call_timeout_s = call_timeout_s
        self._answer_bytes_max = answer_bytes_max
        self.gone = asyncio.Event()
        self.overfull = False  # it is gone because we would not read all of an answer

    async def exchange(
        self, method: str, target: str, content: bytes, may_send: MaySend
    ) -> tuple[int, bytes]:
        """Send one request and read the whole answer: its status and body.

        Raises NothingSent (`lease`: the gate is shut and the connection still good; `session` and
        `dial`: there is no connection) or AnswerLost (`timeout`, `too-large`, `connection`); after
        any other failure than `lease` the connection is gone. Cancelling the call also ends it.
        """
        self._connector.gate = may_send
        self._connector.first_byte_may_have_left = False
        try:
            async with asyncio.timeout(self._call_timeout_s):
                return await self._exchange(method, target, content)
        except _GateShut:
            raise NothingSent("lease") from None
        except _TooLarge as no:
            self.overfull = True
            await self.close()
            raise AnswerLost("too-large", str(no)) from None
        except (_Spent, aiohttp.ClientError, OSError, TimeoutError) as no:
            raise await self._ended(no) from no
        except BaseException:
            await self.close()
            raise

    async def _exchange(self, method: str, target: str, content: bytes) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"} if content else {}
        url = URL(self._base + target, encoded=True)
        async with self._client.request(
            method, url, data=content or None, headers=headers, allow_redirects=False
        ) as answer:
            self._watch()
            body = bytearray()
            async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                body += chunk
                if len(body) > self._answer_bytes_max:
                    raise _TooLarge(f"over {self._answer_bytes_max} bytes")
            return answer.status, bytes(body)

    async def _ended(self, no: Exception) -> NothingSent | AnswerLost:
        """The fault that a failed exchange amounts to; the connection is closed in any case."""
        dialled = self._connector.protocol is not None
        await self.close()
        detail = f"{type(no).__name__} {no}".strip()
        if self._connector.first_byte_may_have_left:
            return AnswerLost("timeout" if isinstance(no, TimeoutError) else "connection", detail)
        return NothingSent("session" if dialled else "dial", detail)

    def _watch(self) -> None:
        """Learn of the connection's end the moment it happens, not at the next call."""
        protocol = self._connector.protocol
        if protocol is not None and (closed := protocol.closed) is not None:
            closed.add_done_callback(self._lost)

    def _lost(self, closed: asyncio.Future[None]) -> None:
        if not closed.cancelled():
            closed.exception()  # its text is the next caller's to report
        self.gone.set()

    async def close(self) -> None:
        """End the connection at once. Safe to call twice."""
        self.gone.set()
        if self._connector.protocol is not None:
            self._connector.protocol.abort()  # no farewell: what was under way must not linger
        await self._client.close()
