"""Deals that are alike, computed a second time only once.

Knows when two deals must come to the same: the same contract nearest the client, symbol and volume,
and nothing dated that begins between them. Refuses to compute (`recompute.py`).
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime
from typing import Final

import msgspec

from ledger.deals import LandedDeal
from ledger.facts import Deal
from ledger.rebates.inputs import Dated, Inputs, in_force
from ledger.rebates.lines import UNIT
from ledger.rebates.recompute import Due, Rung, difference, due, trace

KEPT: Final = 20_000  # deals that differ before memory starts anew


class Outcome(msgspec.Struct, frozen=True):
    """What a deal comes to: its lines, and what they leave over by contract (1e-16 minor units)."""

    lines: tuple[Due, ...] = ()
    left: tuple[tuple[str, int], ...] = ()


class Alike:
    """Deals under one version of the inputs."""

    def __init__(self, known: Inputs) -> None:
        self._known = known
        self._cuts = _moments(known)
        self._outcomes: dict[tuple[str, str, int, bool, int], Outcome] = {}

    def outcome(self, landed: LandedDeal, attribution: Dated) -> Outcome:
        """What a landed deal comes to for the chain of its client."""
        deal = landed.deal
        if landed.previous is not None:
            now, was = (trace(each, attribution, self._known) for each in (deal, landed.previous))
            return _outcome(due(landed, attribution, self._known), difference(now, was))
        place = self._place(deal, attribution)
        found = self._outcomes.get(place)
        if found is None:
            if len(self._outcomes) >= KEPT:
                self._outcomes.clear()
            rungs = trace(deal, attribution, self._known).rungs
            found = _outcome(due(landed, attribution, self._known), rungs)
            self._outcomes[place] = found
        return found

    def _place(self, deal: Deal, attribution: Dated) -> tuple[str, str, int, bool, int]:
        moment = bisect_right(self._cuts, deal.at)
        nearest = in_force(attribution, deal.at)
        return nearest, deal.symbol, deal.closed, deal.action > 1, moment


def _outcome(lines: list[Due], rungs: tuple[Rung, ...]) -> Outcome:
    left = tuple((rung.contract, int(rung.left * UNIT)) for rung in rungs if rung.left)
    return Outcome(tuple(lines), left)


def _moments(known: Inputs) -> list[datetime]:
    """When anything dated begins, attributions apart."""
    rows = [row for each in known.contracts.values() for row in (*each.parents, *each.plans)]
    moments = {since for since, _ in rows}
    moments |= {version.since for versions in known.plans.values() for version in versions}
    return sorted(moments)
