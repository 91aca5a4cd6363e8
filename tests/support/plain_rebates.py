"""A second computation of rebates: slow, plain, in fractions, remembering nothing.

Written apart from the engine to be compared with it: it shares the words and the dated rows, none
of the arithmetic. Refuses to be quick.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from math import trunc

import msgspec

from ledger.deals import LandedDeal
from ledger.facts import Deal
from ledger.rebates.inputs import Dated, Inputs, in_force

Key = tuple[int, int, str, int]  # causing deal, deal it pays for, contract, kind
Said = tuple[int, int, str, int]  # level, minor units, reason, plan version

ORDINARY, DIFFERENCE, ROUNDING = 1, 2, 3


class Part(msgspec.Struct, frozen=True):
    """What one level of a chain gets by one deal; `why` it is zero where its rate is."""

    level: int
    contract: str
    version: int
    exact: Fraction
    amount: int
    why: str


class Plain:
    """What every line of a book must say, batch by batch."""

    def __init__(self, inputs: Inputs, attributed: Mapping[int, Dated]) -> None:
        self._inputs = inputs
        self._attributed = attributed
        self._left: dict[tuple[str, object], Fraction] = defaultdict(Fraction)
        self._paid: dict[tuple[str, object], int] = defaultdict(int)
        self.lines: dict[Key, Said] = {}

    def batch(self, deals: Sequence[LandedDeal]) -> None:
        """Add the lines of one batch."""
        touched = set()
        for each in deals:
            if each.deal.action >= 2:
                continue
            for contract, rest in self._edit(each) if each.previous else self._first(each):
                if rest:
                    place = (contract, each.deal.at.date().replace(day=1))
                    self._left[place] += rest
                    touched.add(place)
        for place in touched:
            due = trunc(self._left[place]) - self._paid[place]
            if due:
                self._paid[place] += due
                self.lines[deals[-1].no, 0, place[0], ROUNDING] = (0, due, "ROUNDING", 0)

    def _first(self, each: LandedDeal) -> list[tuple[str, Fraction]]:
        said, opening = False, not each.deal.closed
        for part in (parts := self.parts(each.deal)):
            if part.amount:
                self._say(each.no, each.no, ORDINARY, part, part.amount, "PAID")
            elif not said:
                said = True
                reason = "OPENING" if opening else "CARRIED" if part.exact else part.why
                self._say(each.no, each.no, ORDINARY, part, 0, reason)
        return [(part.contract, part.exact - part.amount) for part in parts]

    def _edit(self, each: LandedDeal) -> list[tuple[str, Fraction]]:
        assert each.previous is not None
        now = {part.contract: part for part in self.parts(each.deal)}
        was = {part.contract: part for part in self.parts(each.previous)}
        rests, unchanged = [], []
        for contract, part in {**was, **now}.items():
            exact, amount = Fraction(), 0
            if contract in now:
                exact, amount = now[contract].exact, now[contract].amount
            if contract in was:
                exact, amount = exact - was[contract].exact, amount - was[contract].amount
            rests.append((contract, exact - amount))
            if amount:
                self._say(each.no, each.first_no, DIFFERENCE, part, amount, "PAID")
            else:
                unchanged.append(part)
        if unchanged:
            lowest = min(unchanged, key=lambda part: (part.level, part.contract not in now))
            self._say(each.no, each.first_no, DIFFERENCE, lowest, 0, "UNCHANGED")
        return rests

    def _say(self, no: int, of: int, kind: int, part: Part, amount: int, reason: str) -> None:
        self.lines[no, of, part.contract, kind] = (part.level, amount, reason, part.version)

    def parts(self, deal: Deal) -> list[Part]:
        """What each level gets by a deal."""
        lots = Fraction(deal.closed, 10**8)
        steps = self._steps(deal.login, deal.symbol, deal.at)
        exact = [lots * rate for *_, rate, _ in steps]
        whole = [each.numerator // each.denominator for each in exact]
        rests = [each - floor for each, floor in zip(exact, whole, strict=True)]
        for _ in range(round(sum(exact, Fraction())) - sum(whole)):  # round() is half-even
            richest = rests.index(max(rests))  # the first of equals is nearest the client
            whole[richest] += 1
            rests[richest] = Fraction(-1)
        return [
            Part(level, contract, version, share, paid, why)
            for (level, contract, version, _, why), share, paid in zip(
                steps, exact, whole, strict=True
            )
        ]

    def _steps(
        self, login: int, symbol: str, at: datetime
    ) -> list[tuple[int, str, int, Fraction, str]]:
        """Who earns how many minor units a lot: (level, contract, plan version, rate, why zero)."""
        steps: list[tuple[int, str, int, Fraction, str]] = []
        best, mode = Fraction(), ""
        contract = in_force(self._attributed[login], at)
        while contract:
            terms = self._inputs.contracts[contract]
            version = self._inputs.plan(terms.plan(at), at)
            if version is None:
                steps.append((len(steps) + 1, contract, 0, Fraction(), "NO_PLAN"))
            else:
                rule = version.plan.rule(symbol)
                own = Fraction(rule.per_lot) * 100 if rule else Fraction()
                why = "NO_DIFFERENTIAL" if rule else "NO_RATE_RULE"
                more = own - best if own > best else Fraction()
                steps.append((len(steps) + 1, contract, version.id, more, why))
                best = max(best, own)
            mode = mode or ("none" if version is None else version.plan.mode)
            if mode != "differential":
                break
            contract = terms.parent(at)
        return steps
