"""One manager session: a pinned connection, each side proved to the other, the clock read.

Knows how a session begins and what an HTTP status means for it. Refuses to retry, to dial again and
to decide what an unanswered call means: `pool.py` keeps sessions alive, callers judge outcomes.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from random import Random

import msgspec

from bridge.faults import AnswerLost, AuthenticationFailed, Denied, MaySend, always
from bridge.mt5 import auth, http
from bridge.mt5 import map as wire
from bridge.mt5.https import PinnedConnection
from config.secret import Secret


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A platform server and the limits of a session with it.

    ca_file          PEM file with the only authority believed; "" for the system's
    settle_time_s    how long a request whose answer was lost may still take effect there
    ping_s           silence after which the session is proved alive; the server's limit is idle_s
    backoff_*        pauses between failed dials: first, doubling up to max, each +- jitter (share)
    stable_s         a session that lived this long clears the count of failures
    """

    id: str
    url: str
    login: int
    password: Secret
    ca_file: str = ""
    settle_time_s: float = 60.0
    ping_s: float = 20.0
    idle_s: float = 180.0
    dial_timeout_s: float = 5.0
    call_timeout_s: float = 15.0
    backoff_first_s: float = 5.0
    backoff_max_s: float = 120.0
    backoff_jitter: float = 0.2
    stable_s: float = 20.0
    answer_bytes_max: int = 16_777_216


class SessionState(StrEnum):
    """Where a session stands."""

    DOWN = "down"
    DIALLING = "dialling"
    LIVE = "live"
    BACKING_OFF = "backing_off"


class SessionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What can be shown of a session.

    retries     dials that failed since the last session that lived
    lag_ms      how long the last ping took; None before the first
    offset_s    how far the server's wall clock is ahead of UTC, as measured
    """

    server: str
    state: SessionState
    since: datetime
    last_error: str = ""
    retries: int = 0
    next_retry: datetime | None = None
    lag_ms: float | None = None
    offset_s: int = 0
    clock_error_s: int = 0


def tls_context(server: Server) -> ssl.SSLContext:
    """What the server's certificate must prove. Raises OSError where `ca_file` cannot be read."""
    return ssl.create_default_context(cafile=server.ca_file or None)


class Session:
    """A manager session from its dial to its end; there is no second life.

    now     the clock; random  gives the challenge its bytes (a system source in production)
    """

    def __init__(
        self,
        server: Server,
        context: ssl.SSLContext,
        now: Callable[[], datetime],
        random: Random,
    ) -> None:
        self._server = server
        self._now = now
        self._random = random
        self._link = PinnedConnection(
            server.url,
            context,
            idle_s=server.idle_s,
            dial_timeout_s=server.dial_timeout_s,
            call_timeout_s=server.call_timeout_s,
            answer_bytes_max=server.answer_bytes_max,
        )
        self.opened_at = now()
        self.offset_s = 0
        self.clock_error_s = 0

    @property
    def gone(self) -> asyncio.Event:
        """Set for ever once the session has ended."""
        return self._link.gone

    @property
    def overfull(self) -> bool:
        """Whether we ended it ourselves because an answer was larger than we read."""
        return self._link.overfull

    async def open(self) -> None:
        """Dial, prove each side to the other and read the clock.

        Raises AuthenticationFailed, or a Fault of the connection. Whatever is raised, it is closed.
        """
        try:
            await self._authenticate()
            await self.measure_clock()
        except BaseException:
            await self.close()
            raise
        self.opened_at = self._now()

    async def _authenticate(self) -> None:
        hashed = auth.password_hash(self._server.password.reveal())
        start = await self._prove(http.auth_start(self._server.login))
        proof = auth.challenge_answer(hashed, _hex(start, "srv_rand"))
        ours = self._random.randbytes(auth.RAND_BYTES)
        answer = await self._prove(http.auth_answer(proof, ours))
        if not auth.server_is_genuine(hashed, ours, _hex(answer, "cli_rand_answer")):
            raise AuthenticationFailed(1008, "the server does not know the password")

    async def _prove(self, request: http.Request) -> http.Answer:
        """One step of the authentication: anything but success fails it."""
        try:
            answer = await self.call(request)
        except Denied as no:
            raise AuthenticationFailed(0, f"{request.command}: {no}") from no
        if not answer.ok:
            raise AuthenticationFailed(answer.code, f"{answer.code} {answer.text}")
        return answer

    async def measure_clock(self) -> None:
        """Read the server's wall clock; sets `offset_s` and `clock_error_s`."""
        answer = await self.call(http.time_server())
        if not answer.ok:
            raise Denied("clock", f"{answer.code} {answer.text}")
        try:
            there = wire.read_server_time(answer.answer)
        except wire.Unreadable as no:
            raise AnswerLost("unreadable", str(no)) from no
        here = self._now()
        self.offset_s = wire.measured_offset_s(there, here)
        self.clock_error_s = wire.clock_error_s(there, here)

    async def call(self, request: http.Request, may_send: MaySend = always) -> http.Answer:
        """One call and its readable answer, good or bad.

        Raises NothingSent, AnswerLost (the session is then gone: also for a status that says
        nothing about the call, and for an answer that cannot be read) or Denied (401, 403).
        Calls must not overlap: the pool sees to it.
        """
        status, body = await self._link.exchange(
            request.method, request.target, request.content, may_send
        )
        if status in (401, 403):
            raise Denied("denied", f"HTTP {status}")
        try:
            if status != 200:
                raise wire.Unreadable(f"HTTP {status}")
            return http.read_rows(body) if request.rows else http.read_answer(body)
        except wire.Unreadable as no:
            await self.close()
            raise AnswerLost("unreadable", str(no)) from no

    async def close(self) -> None:
        """End the session at once."""
        await self._link.close()


def _hex(answer: http.Answer, name: str) -> bytes:
    """A challenge or proof in an answer."""
    try:
        return auth.read_hex(wire.read_text(answer.top, name))
    except ValueError as no:
        raise AuthenticationFailed(0, f"{name}: {no}") from no
