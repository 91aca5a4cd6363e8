"""One reader's stream as the hub sees it, with a socket that can be closed under it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import HttpVersion11

from gateway.flows.live import LiveLimits
from gateway.flows.live_events import Event
from gateway.http.stream import Stream

EVENT = Event(1, b"text", b"chunk")


class Wire:
    """A socket; written to once it is closed it raises, as the loop's own does."""

    def __init__(self) -> None:
        self.closed = False
        self.written: list[bytes] = []

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        if self.closed:
            raise RuntimeError("the handler is closed")
        self.written.append(data)

    def get_extra_info(self, _: str) -> None:
        return None


@pytest.fixture
async def wire_and_stream(monkeypatch: pytest.MonkeyPatch) -> tuple[Wire, Stream]:
    """A stream whose head is sent."""
    wire = Wire()
    parts = SimpleNamespace(live=SimpleNamespace(limits=LiveLimits()), metrics=None)
    request = SimpleNamespace(version=HttpVersion11, transport=wire)
    call = SimpleNamespace(parts=parts, request=request, correlation="CR1")
    stream = Stream(cast("Any", call), "PA1", (), None)

    async def nothing(*_: object) -> None:
        """No head and no first word."""

    monkeypatch.setattr(stream.response, "prepare", nothing)
    monkeypatch.setattr(stream.response, "write", nothing)
    await stream.open()
    return wire, stream


async def test_an_event_goes_to_the_socket_at_once(wire_and_stream: tuple[Wire, Stream]) -> None:
    """While the reader reads nothing is kept for later."""
    wire, stream = wire_and_stream
    stream.take(EVENT)
    assert wire.written == [b"chunk"]


async def test_a_reader_who_has_just_gone_harms_nobody(
    wire_and_stream: tuple[Wire, Stream],
) -> None:
    """The hub may tell a stream before its own task has seen that the socket is closed."""
    wire, stream = wire_and_stream
    wire.closed = True
    stream.take(EVENT)
    stream.unchanged()
    assert wire.written == []
    assert stream.gone
