"""Calls on behalf of one account or operation, each written down as the job log will keep it.

Knows how a call's end becomes a record without secrets. Refuses to store it and to decide anything.
"""

from __future__ import annotations

from bridge.faults import Denied, Fault, MaySend, NothingSent, always
from bridge.mt5 import http, retcodes
from bridge.outcomes import Call, NotSent, Refused, Unknown
from bridge.pool import Pool

DENIED = 403


class Recorder:
    """Makes calls through a pool; `calls` is what was made so far."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._calls: list[Call] = []

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every call so far, in order."""
        return tuple(self._calls)

    async def call(self, request: http.Request, may_send: MaySend = always) -> http.Answer:
        """One call, recorded however it ends. Raises what the pool raises."""
        at, began = self._pool.now(), self._pool.monotonic()
        code: int | None = None
        text, kind = "", "lost"
        try:
            answer = await self._pool.call(request, may_send)
            code, text, kind = answer.code, answer.text, retcodes.class_of(answer.code)
            return answer
        except Fault as no:
            text, kind = str(no), _kind(no)
            raise
        finally:
            took_ms = round((self._pool.monotonic() - began) * 1000)
            record = Call(
                method=request.command,
                payload=request.redacted,
                payload_hash=request.fingerprint,
                code=code,
                text=text,
                class_=kind,
                took_ms=took_ms,
                at=at,
            )
            self._calls.append(record)

    def failed(self, no: Fault) -> NotSent | Refused | Unknown:
        """The outcome that a fault of a call amounts to, for a call that may change something."""
        if isinstance(no, NothingSent):
            return NotSent(reason=no.reason, calls=self.calls)
        if isinstance(no, Denied):
            # The session lives, so what the manager lacks is the right to make this call.
            return Refused(code=DENIED, text=str(no), kind="configuration", calls=self.calls)
        return Unknown(reason=no.reason, calls=self.calls)

    def refused(self, answer: http.Answer) -> Refused | Unknown:
        """The outcome that an answer other than success amounts to; a doubtful one is unknown."""
        match retcodes.class_of(answer.code):
            case "ok" | "ambiguous":
                return Unknown(reason=f"retcode {answer.code} {answer.text}", calls=self.calls)
            case kind:
                return Refused(code=answer.code, text=answer.text, kind=kind, calls=self.calls)


def _kind(no: Fault) -> str:
    """How a fault is called in the job log."""
    if isinstance(no, NothingSent):
        return "not_sent"
    return "denied" if isinstance(no, Denied) else "lost"
