"""Which PSPs are worth trying now: a small circuit breaker for each, in this process's memory.

Knows consecutive failures and an injected monotonic clock. Refuses to know routing rules: it only
tells `decide.py` what it saw. After `failures_max` failures in a row a PSP is left out for `open_s`
seconds, then one probe is let through and its outcome decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from router.outcomes import NotSent, Outcome, Unknown

FAILURES_MAX: Final = 5
OPEN_S: Final = 10.0


class Health(msgspec.Struct, frozen=True):
    """What routing may know of a PSP's state. `open`: the circuit is open, leave it out."""

    open: bool
    reason: str = ""


HEALTHY: Final = Health(open=False)


class _Circuit:
    """The memory of one PSP."""

    __slots__ = ("failures", "open_until", "probing")

    def __init__(self) -> None:
        self.failures = 0
        self.open_until = 0.0
        self.probing = False


class Breakers:
    """The circuits of all PSPs.

    monotonic     a clock in seconds that never goes back
    failures_max  failures in a row that open a circuit
    open_s        seconds for which an open circuit stays closed to payments
    """

    def __init__(
        self,
        psps: Iterable[str],
        monotonic: Callable[[], float],
        failures_max: int = FAILURES_MAX,
        open_s: float = OPEN_S,
    ) -> None:
        self._circuits = {psp: _Circuit() for psp in psps}
        self._monotonic = monotonic
        self._failures_max = failures_max
        self._open_s = open_s

    def know(self, psps: Iterable[str]) -> None:
        """Keep a circuit for each of these too; what was learnt of the others stays."""
        for psp in psps:
            self._circuits.setdefault(psp, _Circuit())

    def health(self) -> Mapping[str, Health]:
        """What each PSP looks like now."""
        return {psp: self._look(circuit) for psp, circuit in self._circuits.items()}

    def admit(self, psp: str) -> None:
        """A charge is about to be sent: with a half-open circuit it is the probe."""
        circuit = self._circuits[psp]
        circuit.probing = circuit.failures >= self._failures_max

    def abandon(self, psp: str) -> None:
        """The charge ended without any outcome (we were stopped): it proved nothing."""
        self._circuits[psp].probing = False

    def record(self, psp: str, outcome: Outcome) -> None:
        """Learn from the outcome of a charge."""
        circuit = self._circuits[psp]
        circuit.probing = False
        if outcome == NotSent("lease"):  # we held back ourselves: says nothing of the PSP
            return
        if not isinstance(outcome, NotSent | Unknown):
            circuit.failures = 0
            return
        circuit.failures += 1
        if circuit.failures >= self._failures_max:
            circuit.open_until = self._monotonic() + self._open_s

    def _look(self, circuit: _Circuit) -> Health:
        if circuit.failures < self._failures_max:
            return HEALTHY
        if self._monotonic() < circuit.open_until:
            return Health(open=True, reason=f"{circuit.failures} failures in a row")
        return Health(open=True, reason="a probe is under way") if circuit.probing else HEALTHY
