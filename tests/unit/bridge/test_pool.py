"""The pauses between dials: nothing, then doubling to a maximum, spread by chance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.pool import backoff_s
from bridge.session import Server
from config.secret import Secret

SERVER = Server(id="s", url="https://127.0.0.1:1", login=1, password=Secret("x"))


@pytest.mark.parametrize(
    ("failures", "pause"), [(0, 0), (1, 5), (2, 10), (3, 20), (4, 40), (5, 80), (6, 120), (99, 120)]
)
def test_the_pause_doubles_to_its_maximum(failures: int, pause: float) -> None:
    """Five seconds first, then twice as long each time, never above two minutes."""
    assert backoff_s(SERVER, failures, 0.5) == pause


@given(failures=st.integers(1, 10_000), chance=st.floats(0, 1, exclude_max=True))
def test_chance_spreads_the_pause_by_a_fifth(failures: int, chance: float) -> None:
    """Jitter keeps replicas apart and stays within twenty per cent."""
    middle = backoff_s(SERVER, failures, 0.5)
    assert 0.8 * middle <= backoff_s(SERVER, failures, chance) <= 1.2 * middle


def test_the_password_is_not_in_the_servers_text() -> None:
    """Printing a server's settings shows no secret."""
    server = Server(id="s", url="https://127.0.0.1:1", login=1, password=Secret("hunter2"))
    assert "hunter2" not in repr(server)
