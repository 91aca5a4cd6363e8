"""How a call to a platform can fail, each failure answering one question: may it have been done?

Knows the question and nothing else: no protocol, no retry. Refusals of the platform are not faults,
they are answers.
"""

from __future__ import annotations

from collections.abc import Callable

MaySend = Callable[[], bool]
"""Asked with the connection in hand, immediately before the first byte; False sends nothing."""


class Fault(Exception):
    """A call did not end in an answer. `reason` is a stable word for logs and rows."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class NothingSent(Fault):
    """No byte of the request left us: `lease`, `session`, `queue` or `dial`."""


class AnswerLost(Fault):
    """Bytes may have left us and no readable answer came: it may or may not have been done."""


class Denied(Fault):
    """The platform turned the request away unread (401, 403): session gone, or not permitted."""


class AuthenticationFailed(Fault):
    """The platform will not open a session for us; `code` is its retcode, 0 where it gave none."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__("authentication", detail)
        self.code = code


def always() -> bool:
    """The gate of calls that need no ownership: reads."""
    return True
