"""Which failures pass by themselves, and when a row that keeps failing is set aside."""

from __future__ import annotations

import asyncpg
import pytest

from gateway.flows.faults import Patience, away
from ledger.lane import LaneClosed, LaneFailed, LaneFull, LaneLost


@pytest.mark.parametrize(
    "error",
    [
        LaneFull("full"), LaneClosed("ending"), LaneLost("lost"), TimeoutError(),
        ConnectionRefusedError(), asyncpg.ConnectionDoesNotExistError("gone"),
        asyncpg.AdminShutdownError("restart"), asyncpg.CannotConnectNowError("starting up"),
        asyncpg.QueryCanceledError("slow"), asyncpg.LockNotAvailableError("busy"),
        asyncpg.DeadlockDetectedError("met"), asyncpg.InterfaceError("closed"),
        asyncpg.TooManyConnectionsError("full"), asyncpg.IdleInTransactionSessionTimeoutError("x"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_a_world_that_is_unwell_is_waited_for(error: Exception) -> None:
    """A database or a lane that is gone, ending, full or slow stops no service."""
    assert away(error)


@pytest.mark.parametrize(
    "error",
    [
        LaneFailed("23505", "twice"), asyncpg.UndefinedColumnError("typo"), KeyError("x"),
        asyncpg.CheckViolationError("row"), AssertionError("bug"), ValueError("bug"),
        asyncpg.InsufficientPrivilegeError("grant"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_a_bug_and_a_poison_row_are_not_the_world(error: Exception) -> None:
    """What waiting cannot mend is never waited for."""
    assert not away(error)


def test_a_row_is_set_aside_after_its_last_try_and_counted_anew_when_it_went_well() -> None:
    """Failures are counted row by row; one that went well in between begins again."""
    patience = Patience(3)
    assert [patience.lost("a"), patience.lost("b"), patience.lost("a")] == [False] * 3
    patience.forget("b")
    assert patience.lost("a")
    assert [patience.lost("b"), patience.lost("b"), patience.lost("b")] == [False, False, True]
    assert not patience.lost("a"), "it was set aside: whoever takes it up begins again"
