"""Log lines: one line is one dated fact, a `noun.verb` that never changes, typed facts beside it.

Knows the two forms, JSON for machines and columns for people, and which facts are never written.
Refuses to know who logs what, and to hold a global: the trace of a request travels in a context.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

from config.secret import SHOWN, Secret

TRACE: Final[ContextVar[str]] = ContextVar("trace", default="")

_HIDDEN: Final = ("password", "secret", "token", "authorization", "api_key", "pepper", "dsn")
_TEXT_MAX: Final = 2000  # characters of one fact: a line is for reading
_COLOURS: Final = {"WARNING": "33", "ERROR": "31", "CRITICAL": "31;1", "DEBUG": "2"}


def event(log: logging.Logger, name: str, level: int = logging.INFO, /, **facts: object) -> None:
    """Log one fact: `event(log, "attempt.finished", psp="acme", outcome="unknown")`.

    Facts whose name speaks of a secret are written as `***`.
    """
    if log.isEnabledFor(level):
        log.log(level, name, extra={"facts": facts})


@contextmanager
def tracing(trace: str) -> Iterator[None]:
    """Mark every line logged inside the block, in this task and those it starts, with `trace`."""
    token = TRACE.set(trace)
    try:
        yield
    finally:
        TRACE.reset(token)


def set_up(
    level: str, form: Literal["auto", "json", "human"] = "auto", stream: TextIO | None = None
) -> None:
    """Send all log lines of this process to `stream` (standard error) in one form."""
    stream = stream if stream is not None else sys.stderr
    handler = logging.StreamHandler(stream)
    human = form == "human" or (form == "auto" and stream.isatty())
    handler.setFormatter(Columns(coloured=stream.isatty()) if human else JsonLines())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)


class JsonLines(logging.Formatter):
    """One JSON object a line: at, level, event, log, trace where there is one, then the facts."""

    def format(self, record: logging.LogRecord) -> str:
        """Write the record as JSON; a fact never hides one of the first names."""
        line: dict[str, Any] = {
            "at": _at(record),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "log": record.name,
        }
        if trace := TRACE.get():
            line["trace"] = trace
        for name, value in _facts(record).items():
            line.setdefault(name, value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, separators=(",", ":"), default=_plain)


class Columns(logging.Formatter):
    """Time of day, level, event, then `name=value`: for people at a terminal."""

    def __init__(self, *, coloured: bool) -> None:
        super().__init__()
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        """Write the record in columns."""
        facts = " ".join(f"{name}={_short(value)}" for name, value in _facts(record).items())
        event_name = record.getMessage()
        line = (
            f"{_at(record)[11:23]} {record.levelname.lower():<7} {event_name:<28} {facts}".rstrip()
        )
        if self._coloured and (colour := _COLOURS.get(record.levelname)):
            line = f"\x1b[{colour}m{line}\x1b[0m"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _at(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _facts(record: logging.LogRecord) -> dict[str, object]:
    facts: Mapping[str, object] = getattr(record, "facts", {})
    return {name: _safe(name, value) for name, value in facts.items()}


def _safe(name: str, value: object) -> object:
    """The value as it may be written: secrets hidden, long text cut, nested facts alike."""
    if isinstance(value, Secret) or any(word in name.lower() for word in _HIDDEN):
        return SHOWN
    if isinstance(value, Mapping):
        return {str(key): _safe(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_safe("", item) for item in value]
    if isinstance(value, str) and len(value) > _TEXT_MAX:
        return value[:_TEXT_MAX] + "..."
    return value


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _short(value: object) -> str:
    text = _plain(value)
    return json.dumps(text, ensure_ascii=False) if not text or set(text) & set(' "\n=') else text
