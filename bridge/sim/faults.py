"""Faults that the simulated platform was told to show, and which of them is due.

Knows the script: what, for which command, how often. Refuses to know how each is carried out on a
socket: `mt5.py` does that.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Action = Literal[
    "drop_before",  # the connection ends, nothing was done
    "drop_after",  # it was done, then the connection ends without an answer
    "delay_before",  # wait `seconds`, then do and answer
    "delay_after",  # do it, wait `seconds`, then answer
    "hang_before",  # never answer, nothing was done
    "hang_after",  # do it, never answer
    "retcode_before",  # answer `code`, nothing was done
    "retcode_after",  # do it, then answer `code`
    "http_before",  # answer HTTP `code`, nothing was done
    "http_after",  # do it, then answer HTTP `code`
    "expire",  # HTTP 403 and the session is no longer authenticated; nothing was done
    "deny",  # HTTP 403 as for a call this manager may not make; the session stays
    "garbage_after",  # do it, then answer what is no JSON
]


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of the script.

    command  a path without `/api/`, or `*` for every command but authentication and ping
    times    how often it happens; every  it happens on each n-th call that it could happen on
    """

    command: str
    action: Action
    times: int = 1
    every: int = 1
    seconds: float = 0.0
    code: int = 9


class Script:
    """The faults in the order in which they were given; the first that is due happens."""

    def __init__(self) -> None:
        self._lines: list[Fault] = []
        self._seen: list[int] = []

    def add(self, fault: Fault) -> None:
        """Append one fault."""
        self._lines.append(fault)
        self._seen.append(0)

    def clear(self) -> None:
        """Behave well again."""
        self._lines.clear()
        self._seen.clear()

    @property
    def open(self) -> list[Fault]:
        """What is still to come."""
        return list(self._lines)

    def take(self, command: str) -> Fault | None:
        """The fault that this call shows, counted down; None for good behaviour."""
        for index, fault in enumerate(self._lines):
            if not _concerns(fault, command):
                continue
            self._seen[index] += 1
            if self._seen[index] % fault.every:
                continue
            self._count_down(index, fault)
            return fault
        return None

    def _count_down(self, index: int, fault: Fault) -> None:
        if fault.times > 1:
            self._lines[index] = msgspec.structs.replace(fault, times=fault.times - 1)
            return
        del self._lines[index], self._seen[index]


def _concerns(fault: Fault, command: str) -> bool:
    if fault.command == "*":
        return not command.startswith("auth/") and command != "test/access"
    return fault.command == command
