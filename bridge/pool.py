"""Keeping a manager session alive, and giving calls their turn on it.

Knows when to dial, to ping, to wait longer, and that a read may be asked again. Refuses to repeat a
call that may change something, and to judge what an unanswered one means.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from random import Random
from typing import Final, Protocol

from bridge.faults import (
    AnswerLost,
    AuthenticationFailed,
    Denied,
    Fault,
    MaySend,
    NothingSent,
    always,
)
from bridge.mt5 import http, retcodes
from bridge.mt5 import map as wire
from bridge.session import Server, Session, SessionState, SessionStatus, tls_context
from config.log import event

LOG: Final = logging.getLogger("brokerd.bridge")


class Observer(Protocol):
    """Who counts what sessions do."""

    def called(self, server: str, command: str, result: str, seconds: float) -> None:
        """A call ended: `result` is a retcode class, or `not_sent`, `lost`, `denied`."""
        ...

    def session_moved(self, server: str, state: SessionState) -> None:
        """A session changed its state."""
        ...


class Unobserved:
    """An observer that counts nothing."""

    def called(self, server: str, command: str, result: str, seconds: float) -> None:
        """Count nothing."""

    def session_moved(self, server: str, state: SessionState) -> None:
        """Count nothing."""


def backoff_s(server: Server, failures: int, chance: float) -> float:
    """How long to wait before the next dial: nothing at first, then doubling to the maximum.

    chance  0 <= chance < 1, spreads the pause by +- `backoff_jitter`
    """
    if failures == 0:
        return 0.0
    pause = min(server.backoff_first_s * 2.0 ** min(failures - 1, 30), server.backoff_max_s)
    return pause * (1 + server.backoff_jitter * (2 * chance - 1))


class Pool:
    """The manager session of one server: `run` keeps it alive, calls take turns on it.

    now        the clock of records; monotonic  the clock of durations, seconds
    random     challenges and jitter; SystemRandom in production
    """

    def __init__(
        self,
        server: Server,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        random: Random,
        observer: Observer | None = None,
    ) -> None:
        self.server = server
        self.now = now
        self.monotonic = monotonic
        self._random = random
        self._observer = observer or Unobserved()
        self._context = tls_context(server)
        self._turn = asyncio.Lock()
        self._live = asyncio.Event()
        self._session: Session | None = None
        self._status = SessionStatus(server=server.id, state=SessionState.DOWN, since=now())
        self._failures = 0
        self._dismissed = False  # we ended the session ourselves: nothing has failed
        self._lag_ms: float | None = None

    async def run(self) -> None:
        """Keep a session alive until cancelled: dial, prove, ping, and dial again when it ends."""
        try:
            while True:
                ended = await self._live_once()
                pause = backoff_s(self.server, self._failures, self._random.random())
                if self._dismissed:
                    pause = 0.0
                self._move(SessionState.BACKING_OFF, error=ended, pause_s=pause)
                await asyncio.sleep(pause)
        finally:
            await self._end_session()
            self._move(SessionState.DOWN)

    async def _live_once(self) -> str:
        """One session from dial to end; returns how it ended and counts it if it failed."""
        self._dismissed = False
        self._move(SessionState.DIALLING)
        session = Session(self.server, self._context, self.now, self._random)
        try:
            await session.open()
        except (Fault, AuthenticationFailed) as no:
            self._failures += 1
            return str(no)
        began = self.monotonic()
        self._session = session
        self._live.set()
        self._move(SessionState.LIVE)
        try:
            ended = await self._keep(session)
        finally:
            await self._end_session()
        self._dismissed = self._dismissed or session.overfull
        if self.monotonic() - began >= self.server.stable_s:
            self._failures = 0
        elif not self._dismissed:
            self._failures += 1
        return ended

    async def _keep(self, session: Session) -> str:
        """Ping after each silence until the session ends; returns why it did."""
        while True:
            try:
                async with asyncio.timeout(self.server.ping_s):
                    await session.gone.wait()
                ours = self._dismissed or session.overfull
                return "dismissed" if ours else "connection closed"
            except TimeoutError:
                pass
            try:
                await self._ping(session)
            except Fault as no:
                return f"ping: {no}"

    async def _ping(self, session: Session) -> None:
        """Prove the session alive and measure its delay and clock."""
        async with self._turn:
            if session.gone.is_set():
                return
            began = self.monotonic()
            await self._observed(session, http.test_access(), always)
            self._lag_ms = (self.monotonic() - began) * 1000
            await session.measure_clock()

    async def _end_session(self) -> None:
        self._live.clear()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _move(self, state: SessionState, *, error: str = "", pause_s: float = 0.0) -> None:
        """Note the state for status, logs and whoever counts."""
        now = self.now()
        retry = now + timedelta(seconds=pause_s) if state is SessionState.BACKING_OFF else None
        self._status = SessionStatus(
            server=self.server.id,
            state=state,
            since=now,
            last_error=error or self._status.last_error,
            retries=self._failures,
            next_retry=retry,
        )
        self._observer.session_moved(self.server.id, state)
        event(LOG, "session.moved", server=self.server.id, state=state.value, error=error)

    def status(self) -> SessionStatus:
        """How the session stands now."""
        session = self._session
        base = self._status
        return SessionStatus(
            server=base.server,
            state=base.state,
            since=base.since,
            last_error=base.last_error,
            retries=base.retries,
            next_retry=base.next_retry,
            lag_ms=self._lag_ms,
            offset_s=session.offset_s if session else 0,
            clock_error_s=session.clock_error_s if session else 0,
        )

    async def call(self, request: http.Request, may_send: MaySend = always) -> http.Answer:
        """One call on the live session, in turn; waits for turn and session within limits.

        Raises NothingSent (`lease`, `session`, `queue`, `dial`), AnswerLost, or Denied where the
        manager may not make this call. Only reads are asked a second time, unless their answer was
        `too-large`; a call of which nothing left us is offered once to the next session.
        """
        async with self._my_turn():
            return await self._call(request, may_send)

    @asynccontextmanager
    async def _my_turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.server.call_timeout_s):
                await self._turn.acquire()
        except TimeoutError:
            raise NothingSent("queue") from None
        try:
            yield
        finally:
            self._turn.release()

    async def _call(self, request: http.Request, may_send: MaySend) -> http.Answer:
        try:
            return await self._attempt(request, may_send)
        except NothingSent as no:
            if no.reason == "lease":
                raise
        except AnswerLost as no:
            if request.writes or no.reason == "too-large":  # the same answer would be as large
                raise
        return await self._attempt(request, may_send)

    async def _attempt(self, request: http.Request, may_send: MaySend) -> http.Answer:
        """One try; where the platform denied it, find out whether session or permission is gone."""
        session = await self._live_session()
        try:
            return await self._observed(session, request, may_send)
        except Denied as no:
            if await self._still_open(session):
                raise
            raise AnswerLost("denied", str(no)) from no

    async def _still_open(self, session: Session) -> bool:
        """Whether the session that denied a call is good; if not, it is ended."""
        try:
            return (await self._observed(session, http.test_access(), always)).ok
        except Fault:
            await session.close()
            return False

    async def _live_session(self) -> Session:
        """The session, waiting for one as long as a dial may take. Raises NothingSent."""
        try:
            async with asyncio.timeout(self.server.dial_timeout_s):
                while self._session is None or self._session.gone.is_set():
                    self._live.clear()
                    await self._live.wait()
                return self._session
        except TimeoutError:
            raise NothingSent("session", self._status.last_error) from None

    async def _observed(
        self, session: Session, request: http.Request, may_send: MaySend
    ) -> http.Answer:
        """A call whose end is counted."""
        began, result = self.monotonic(), "cancelled"
        try:
            answer = await session.call(request, may_send)
            result = retcodes.class_of(answer.code)
            return answer
        except NothingSent:
            result = "not_sent"
            raise
        except Denied:
            result = "denied"
            raise
        except AnswerLost:
            result = "lost"
            raise
        finally:
            took_s = self.monotonic() - began
            self._observer.called(self.server.id, request.command, result, took_s)

    async def drop(self) -> None:
        """End the session after whatever is under way: a new one is dialled at once."""
        async with self._my_turn():
            await self._dismiss()

    async def _dismiss(self) -> None:
        if self._session is not None and not self._session.gone.is_set():
            self._dismissed = True
            await self._session.close()

    async def fresh(self, after: datetime | None = None) -> None:
        """Make sure that the session was opened after a moment; without one, end it and dial anew.

        Raises NothingSent where no session comes up within the limit.
        """
        async with self._my_turn():
            session = self._session
            if session is None or after is None or session.opened_at <= after:
                await self._dismiss()
            await self._live_session()

    @property
    def offset_s(self) -> int:
        """How far the server's wall clock is ahead of UTC, as measured; 0 without a session."""
        return self._session.offset_s if self._session else 0

    async def balance(self, login: int) -> wire.Balance | None:
        """An account's money on the platform; None where there is no such account.

        Raises a Fault of the call, or AnswerLost (`unreadable`, `retcode`).
        """
        answer = await self.call(http.account_get(login))
        if answer.code == retcodes.NOT_FOUND:
            return None
        if not answer.ok:
            raise AnswerLost("retcode", f"{answer.code} {answer.text}")
        try:
            return wire.read_balance(answer.answer)
        except wire.Unreadable as no:
            raise AnswerLost("unreadable", str(no)) from no
