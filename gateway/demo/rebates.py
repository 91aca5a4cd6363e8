"""What partners should have earned: a second computation, plain and slow, from the platform's book.

Knows the plans as the rulebook writes them and the deals as the platform has them. Refuses to use
anything of `ledger/rebates`: two computations that agree must not be one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from fractions import Fraction
from math import floor, trunc
from typing import Any, Final

from config.rulebook import Plan, Rulebook
from gateway.demo.partners import Contracted
from gateway.demo.people import Known
from ledger import money

LOT: Final = 10**8  # VolumeExt of one lot
TRADES: Final = (0, 1)  # the actions that are trades

Period = tuple[int, int]  # year, month of the settlement day


class Expected:
    """Adds up deal by deal what each contract earns, by contract and month.

    known  the clients, with the code they came through and their login
    """

    def __init__(
        self, book: Rulebook, partners: Iterable[Contracted], known: Iterable[Known]
    ) -> None:
        self._groups = {group.id: frozenset(group.symbols) for group in book.symbol_groups}
        self._plans = {plan.id: plan for plan in book.plans}
        self._partners = {each.planned.reference: each for each in partners}
        rests = {entity.id: _rest_of_day(entity.settlement_cut_off) for entity in book.entities}
        self._rests = {brand.id: rests[brand.entity] for brand in book.brands}
        codes = {each.planned.code: each for each in self._partners.values()}
        self._brought = {it.login: codes[it.person.code] for it in known if it.person.code}
        self._rounded: defaultdict[tuple[str, Period], int] = defaultdict(int)
        self._left: defaultdict[tuple[str, Period], Fraction] = defaultdict(Fraction)

    def add(self, deals: Iterable[Mapping[str, Any]]) -> None:
        """Take deals of the platform as its admin tells them."""
        for deal in deals:
            nearest = self._brought.get(deal["login"])
            if nearest is not None and deal["action"] in TRADES and deal["closed_ext"]:
                self._earn(nearest, deal)

    def minor(self) -> dict[str, int]:
        """What each contract has earned, whole minor units: what was rounded, and of what all of a
        month left over the whole units.
        """
        total: defaultdict[str, int] = defaultdict(int)
        for (contract, period), rounded in self._rounded.items():
            total[contract] += rounded + trunc(self._left[contract, period])
        return dict(total)

    def _earn(self, nearest: Contracted, deal: Mapping[str, Any]) -> None:
        shares = self._shares(nearest, deal["symbol"])
        if not shares:
            return
        lots = Fraction(deal["closed_ext"], LOT)
        at = datetime.fromtimestamp(deal["utc_ms"] / 1000, UTC) + self._rests[nearest.planned.brand]
        exact = [share * lots for _, share in shares]
        for (each, _), whole, wanted in zip(shares, _whole(exact), exact, strict=True):
            place = each.contract, (at.year, at.month)
            self._rounded[place] += whole
            self._left[place] += wanted - whole

    def _shares(self, nearest: Contracted, symbol: str) -> list[tuple[Contracted, Fraction]]:
        """Who of the chain earns how many minor units a lot."""
        if self._plans[nearest.planned.plan].mode == "direct":
            return [(nearest, self._rate(nearest, symbol) or Fraction(0))]
        shares, highest = [], Fraction(0)
        for each in self._chain(nearest):
            rate = self._rate(each, symbol) or Fraction(0)
            shares.append((each, max(Fraction(0), rate - highest)))
            highest = max(highest, rate)
        return shares

    def _chain(self, nearest: Contracted) -> Sequence[Contracted]:
        chain = [nearest]
        while chain[-1].planned.parent:
            chain.append(self._partners[chain[-1].planned.parent])
        return chain

    def _rate(self, each: Contracted, symbol: str) -> Fraction | None:
        """Minor units a lot: the rate of the symbol, else of its group, else none."""
        plan: Plan = self._plans[each.planned.plan]
        unit = Fraction(10) ** money.currency(plan.currency).exponent
        for rate in plan.rates:
            if rate.symbol == symbol:
                return Fraction(rate.per_lot) * unit
        for rate in plan.rates:
            if rate.group and symbol in self._groups[rate.group]:
                return Fraction(rate.per_lot) * unit
        return None


def _rest_of_day(cut_off: str) -> timedelta:
    """From a cut-off to midnight: by so much later, deals are dated by their settlement day."""
    cut = time.fromisoformat(cut_off)
    return -timedelta(hours=cut.hour, minutes=cut.minute) % timedelta(days=1)


def _whole(exact: Sequence[Fraction]) -> list[int]:
    """Whole units: the sum rounded half to even, then shared out by the largest remainder."""
    whole = [floor(each) for each in exact]
    missing = round(sum(exact)) - sum(whole)
    order = sorted(range(len(exact)), key=lambda place: (whole[place] - exact[place], place))
    for place in order[:missing]:
        whole[place] += 1
    return whole
