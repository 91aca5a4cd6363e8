"""Log lines: dated facts that machines can read and that never tell a secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from config import log
from config.secret import Secret

LOG = logging.getLogger("brokerd.test")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where lines go while the test lasts; the root's own handlers come back afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield io.StringIO()
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    """The lines as a machine reads them."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_dated_fact(stream: io.StringIO) -> None:
    """The event's name, its facts with their types, when, how grave, and who says so."""
    log.set_up("info", "json", stream)
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    log.event(LOG, "attempt.finished", psp="acme", took_ms=1004, ok=True, at_psp=at)
    (line,) = lines(stream)
    assert datetime.fromisoformat(str(line.pop("at"))).tzinfo is not None
    assert line == {
        "level": "info",
        "event": "attempt.finished",
        "log": "brokerd.test",
        "psp": "acme",
        "took_ms": 1004,
        "ok": True,
        "at_psp": "2026-01-02T03:04:05+00:00",
    }


def test_lines_of_one_request_bear_its_trace(stream: io.StringIO) -> None:
    """Inside the block each line has it, outside none."""
    log.set_up("info", "json", stream)
    with log.tracing("CR1"):
        log.event(LOG, "payment.started")
    log.event(LOG, "clock.ticked")
    assert [line.get("trace") for line in lines(stream)] == ["CR1", None]


@pytest.mark.parametrize("form", ["json", "human"])
def test_secrets_are_never_written(stream: io.StringIO, form: str) -> None:
    """Neither a Secret nor a fact whose name speaks of one, however deep it lies."""
    log.set_up("info", form, stream)  # type: ignore[arg-type]
    log.event(LOG, "peer.dialled", it=Secret("hunter2"), password="hunter2", owner_dsn="hunter2")
    log.event(LOG, "peer.answered", headers={"Authorization": "hunter2"}, all=[Secret("hunter2")])
    assert "hunter2" not in stream.getvalue()
    assert "***" in stream.getvalue()


def test_a_fact_never_hides_the_event(stream: io.StringIO) -> None:
    """A fact named like one of the first names is left out."""
    log.set_up("info", "json", stream)
    log.event(LOG, "thing.happened", event="forged", level="none")
    (line,) = lines(stream)
    assert (line["event"], line["level"]) == ("thing.happened", "info")


def test_a_long_text_is_cut(stream: io.StringIO) -> None:
    """A line stays readable whatever a peer answers."""
    log.set_up("info", "json", stream)
    log.event(LOG, "peer.answered", body="x" * 100_000)
    assert len(str(lines(stream)[0]["body"])) < 3000


def test_a_line_break_in_a_fact_stays_inside_its_line(stream: io.StringIO) -> None:
    """What a peer sends cannot forge a line, in either form."""
    for form in ("json", "human"):
        log.set_up("info", form, stream)  # type: ignore[arg-type]
        log.event(LOG, "peer.answered", body="a\nforged.event")
    assert len(stream.getvalue().splitlines()) == 2


def test_an_exception_keeps_its_trace(stream: io.StringIO) -> None:
    """A line about a fault holds where it came from."""
    log.set_up("info", "json", stream)
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        LOG.exception("thing.broke")
    (line,) = lines(stream)
    assert "RuntimeError: broken" in str(line["exception"])


def test_the_level_is_kept(stream: io.StringIO) -> None:
    """Below the level nothing is written."""
    log.set_up("warning", "json", stream)
    log.event(LOG, "thing.happened")
    log.event(LOG, "thing.failed", logging.ERROR)
    assert [line["event"] for line in lines(stream)] == ["thing.failed"]


def test_people_read_columns(stream: io.StringIO) -> None:
    """Off a terminal `auto` is JSON; the human form has no colours there."""
    log.set_up("info", "auto", stream)
    log.event(LOG, "thing.happened", n=1)
    log.set_up("info", "human", stream)
    log.event(LOG, "thing.happened", n=1, text="two words")
    first, second = stream.getvalue().splitlines()
    assert json.loads(first)["n"] == 1
    assert second.endswith('thing.happened               n=1 text="two words"')
    assert "\x1b" not in second
