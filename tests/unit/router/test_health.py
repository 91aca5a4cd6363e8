"""The circuit breaker of a PSP."""

from __future__ import annotations

from router.health import Breakers
from router.outcomes import Approved, Declined, NotSent, Unknown

FAILED = Unknown("read_timeout")


class Clock:
    """A monotonic clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def tripped(clock: Clock) -> Breakers:
    """A breaker that has just opened after two failures, for ten seconds."""
    breakers = Breakers(["acme", "bolt"], clock, failures_max=2, open_s=10)
    for _ in range(2):
        breakers.record("acme", FAILED)
    return breakers


def is_open(breakers: Breakers, psp: str = "acme") -> bool:
    """Whether routing would leave this PSP out now."""
    return breakers.health()[psp].open


def test_failures_in_a_row_open_the_circuit_of_that_psp_only() -> None:
    """A PSP that keeps failing is left out; its neighbours are not."""
    breakers = tripped(Clock())
    assert is_open(breakers)
    assert not is_open(breakers, "bolt")


def test_an_answer_in_between_keeps_the_circuit_closed() -> None:
    """A decline is an answer: the PSP works."""
    breakers = Breakers(["acme"], Clock(), failures_max=2)
    for outcome in (FAILED, Declined("iso:51", "funds", "", ""), FAILED):
        breakers.record("acme", outcome)
    assert not is_open(breakers)


def test_after_its_time_one_probe_is_let_through() -> None:
    """A half-open circuit admits one charge, and no second one until that is answered."""
    clock = Clock()
    breakers = tripped(clock)
    clock.now = 10.0
    assert not is_open(breakers)
    breakers.admit("acme")
    assert is_open(breakers)


def test_the_probe_decides() -> None:
    """A failed probe opens the circuit for another while; an answered one closes it."""
    clock = Clock()
    breakers = tripped(clock)
    clock.now = 10.0
    breakers.admit("acme")
    breakers.record("acme", FAILED)
    assert is_open(breakers)
    clock.now = 20.0
    breakers.admit("acme")
    breakers.record("acme", Approved("a", 1, "EUR"))
    assert not is_open(breakers)


def test_an_abandoned_probe_leaves_room_for_another() -> None:
    """A probe that ended without any outcome proves nothing and blocks nobody."""
    clock = Clock()
    breakers = tripped(clock)
    clock.now = 10.0
    breakers.admit("acme")
    breakers.abandon("acme")
    assert not is_open(breakers)


def test_holding_back_ourselves_is_no_failure_of_the_psp() -> None:
    """A charge not sent for want of a lease says nothing about the PSP."""
    breakers = Breakers(["acme"], Clock(), failures_max=1)
    breakers.record("acme", NotSent("lease"))
    assert not is_open(breakers)
