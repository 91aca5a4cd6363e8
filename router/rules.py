"""Routing rules and PSP offers, compiled from the rulebook into values that decide fast.

Knows what the rulebook's `psp` and `rule` sections mean and what makes them wrong; every fault is
a finding with file and line. Refuses to know intents and health: `decide.py` applies the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import msgspec

from config import rulebook as shape
from ledger.money import UnknownCurrency, currency


class Price(msgspec.Struct, frozen=True):
    """What a PSP takes and charges in one currency, in its minor units; both limits are allowed.

    fixed_minor  per charge, may have decimals
    rate         share of the amount, 0.019 for 1.9 %
    """

    min_minor: int
    max_minor: int
    fixed_minor: Decimal
    rate: Decimal


class Offer(msgspec.Struct, frozen=True):
    """What one PSP can take. `countries` None: every country that is not blocked."""

    psp: str
    entities: frozenset[str]
    methods: frozenset[str]
    countries: frozenset[str] | None
    blocked: frozenset[str]
    prices: Mapping[str, Price]


class Rule(msgspec.Struct, frozen=True):
    """One row of the routing table. None means any; `amount_from` is included, `amount_to` is not.

    route   PSP ids in the order of preference, empty when the rule refuses
    refuse  the reason code of a refusal, else ""
    """

    id: str
    entities: frozenset[str] | None
    currencies: frozenset[str] | None
    methods: frozenset[str] | None
    countries: frozenset[str] | None
    risks: frozenset[str] | None
    amount_from: Decimal | None
    amount_to: Decimal | None
    route: tuple[str, ...]
    refuse: str


class Rules(msgspec.Struct, frozen=True):
    """A rulebook's routing, ready to decide with. `rules` in order, the first match wins."""

    rulebook: str
    offers: Mapping[str, Offer]
    rules: tuple[Rule, ...]


class _Report:
    """Collects findings, each at the most exact place the rulebook kept for it."""

    def __init__(self, book: shape.Rulebook) -> None:
        self.findings: list[shape.Finding] = []
        self._book = book

    def add(self, path: str, code: str, why: str) -> None:
        where = self._book.place(path)
        self.findings.append(shape.Finding(where, code, f"{path}: {why}", path))


def compile(book: shape.Rulebook) -> tuple[Rules, list[shape.Finding]]:
    """Compile the routing of a rulebook. With findings the rules are incomplete: do not use them.

    What the rulebook shows by itself (ids that stand twice, limits out of order) is found when it
    is loaded; here is found what takes knowledge of routing.
    """
    report = _Report(book)
    offers = {psp.id: _offer(f"psp[{index}]", psp, report) for index, psp in enumerate(book.psps)}
    rules = tuple(
        _rule(f"rule[{index}]", rule, offers, report) for index, rule in enumerate(book.rules)
    )
    _check_reachable(rules, report)
    _check_entities_served(rules, offers, [entity.id for entity in book.entities], report)
    return Rules(book.hash, offers, rules), report.findings


# -- PSPs ------------------------------------------------------------------------------------------


def _offer(path: str, psp: shape.Psp, report: _Report) -> Offer:
    return Offer(
        psp.id,
        frozenset(psp.entities),
        frozenset(psp.methods),
        None if "*" in psp.countries else frozenset(psp.countries),
        frozenset(psp.countries_blocked),
        {
            code: _price(psp, _exponent(f"{path}.currencies[{position}]", code, report))
            for position, code in enumerate(psp.currencies)
        },
    )


def _price(psp: shape.Psp, exponent: int) -> Price:
    """The tariff in minor units; limits finer than these shrink to the amounts that exist."""
    least = Decimal(psp.amount_min).scaleb(exponent).to_integral_value(ROUND_CEILING)
    most = Decimal(psp.amount_max).scaleb(exponent).to_integral_value(ROUND_FLOOR)
    fixed = Decimal(psp.cost_fixed).scaleb(exponent)
    return Price(int(least), int(most), fixed, Decimal(psp.cost_percent) / 100)


def _exponent(path: str, code: str, report: _Report) -> int:
    try:
        return currency(code).exponent
    except UnknownCurrency as error:
        report.add(path, "currency-unknown", str(error))
        return 0


# -- rules -----------------------------------------------------------------------------------------


def _rule(path: str, rule: shape.Rule, offers: Mapping[str, Offer], report: _Report) -> Rule:
    when = rule.when
    methods = frozenset().union(*(offer.methods for offer in offers.values()))
    _known(f"{path}.route", rule.route, offers, "psp", report)
    _known(f"{path}.when.method", when.method, methods, "method", report)
    for position, code in enumerate(when.currency):
        _exponent(f"{path}.when.currency[{position}]", code, report)
    return Rule(
        id=rule.id,
        entities=_any_of(when.entity),
        currencies=_any_of(when.currency),
        methods=_any_of(when.method),
        countries=_any_of(when.country),
        risks=_any_of(when.risk),
        amount_from=Decimal(when.amount_from) if when.amount_from else None,
        amount_to=Decimal(when.amount_to) if when.amount_to else None,
        route=tuple(psp for psp in rule.route if psp in offers),
        refuse=rule.refuse,
    )


def _known(
    path: str, names: Iterable[str], known: Container[str], what: str, report: _Report
) -> None:
    for position, name in enumerate(names):
        if name not in known:
            report.add(f"{path}[{position}]", f"{what}-unknown", f"there is no {what} {name!r}")


def _any_of(names: Iterable[str]) -> frozenset[str] | None:
    return frozenset(names) or None


def _check_reachable(rules: tuple[Rule, ...], report: _Report) -> None:
    """A rule that an earlier one covers completely can never match."""
    for index, rule in enumerate(rules):
        covering = next((above for above in rules[:index] if _covers(above, rule)), None)
        if covering:
            message = f"{rule.id} can never match: {covering.id} takes everything before it"
            report.add(f"rule[{index}]", "rule-unreachable", message)


def _covers(above: Rule, rule: Rule) -> bool:
    sets: tuple[Callable[[Rule], frozenset[str] | None], ...] = (
        lambda r: r.entities,
        lambda r: r.currencies,
        lambda r: r.methods,
        lambda r: r.countries,
        lambda r: r.risks,
    )
    for dimension in sets:
        broad, narrow = dimension(above), dimension(rule)
        if broad is not None and (narrow is None or not narrow <= broad):
            return False
    starts = above.amount_from is None or above.amount_from <= (rule.amount_from or 0)
    ends = above.amount_to is None or (
        rule.amount_to is not None and rule.amount_to <= above.amount_to
    )
    return starts and ends


def _check_entities_served(
    rules: tuple[Rule, ...], offers: Mapping[str, Offer], entities: list[str], report: _Report
) -> None:
    """A rule that routes must have, for each entity it speaks of, one PSP that can take it."""
    for index, rule in enumerate(rules):
        for entity in sorted(rule.entities or entities):
            if rule.route and not any(_could_take(offers[psp], entity, rule) for psp in rule.route):
                message = f"no PSP of its route can take a payment of {entity} that matches it"
                report.add(f"rule[{index}].route", "rule-without-psp", message)


def _could_take(offer: Offer, entity: str, rule: Rule) -> bool:
    return (
        entity in offer.entities
        and (rule.currencies is None or not rule.currencies.isdisjoint(offer.prices))
        and (rule.methods is None or not rule.methods.isdisjoint(offer.methods))
        and (rule.countries is None or _serves_any(offer, rule.countries))
    )


def _serves_any(offer: Offer, countries: frozenset[str]) -> bool:
    open_to = countries - offer.blocked
    return bool(open_to) and (offer.countries is None or not open_to.isdisjoint(offer.countries))
