"""Which PSPs may take a payment, in which order, at what cost, and why each other one may not.

A pure decision on an intent, compiled rules and the health seen at that moment; the same inputs
give the same answer for ever. Refuses to know attempts, clocks and storage.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal

import msgspec

from ledger.money import currency, text
from router.health import Health
from router.intents import Intent
from router.rules import Offer, Rule, Rules


class Candidate(msgspec.Struct, frozen=True):
    """A PSP that may be tried, in route order. `cost_minor` is in the payment's currency."""

    psp: str
    cost_minor: int


class Verdict(msgspec.Struct, frozen=True):
    """Why a PSP was left out: rule, entity, currency, method, country, amount or health."""

    psp: str
    code: str
    detail: str


class Route(msgspec.Struct, frozen=True):
    """The decision and its reasons; every PSP of the rulebook is a candidate or has a verdict.

    rulebook  hash of the rulebook decided with
    rule      id of the rule that matched, "" when none did
    refused   why the payment may not be tried at all (a stable code), "" when it may
    level     where that rule was written: for an `entity`, or `global`; "" without one
    """

    rulebook: str
    rule: str
    candidates: tuple[Candidate, ...]
    left_out: tuple[Verdict, ...]
    refused: str = ""
    level: str = ""


def decide(intent: Intent, rules: Rules, health: Mapping[str, Health]) -> Route:
    """Route a payment. A PSP without an entry in `health` counts as healthy."""
    rule = first_match(intent, rules)
    wanted = rule.route if rule else ()
    left_out = [
        Verdict(psp, "rule", f"not in the route of {rule.id}" if rule else "no rule matches")
        for psp in rules.offers
        if psp not in wanted
    ]
    candidates = []
    for psp in wanted:
        offer = rules.offers[psp]
        objection = objection_to(intent, offer, health.get(psp))
        if objection:
            left_out.append(objection)
        else:
            candidates.append(Candidate(psp, cost_minor(intent, offer)))
    refused = "no-rule" if rule is None else rule.refuse
    if not refused and not candidates:
        refused = "no-route"
    return Route(
        rules.rulebook, rule.id if rule else "", tuple(candidates), tuple(left_out), refused,
        _level(rule),
    )  # fmt: skip


def _level(rule: Rule | None) -> str:
    if rule is None:
        return ""
    return "global" if rule.entities is None else "entity"


def first_match(intent: Intent, rules: Rules) -> Rule | None:
    """The first rule whose every condition holds, in the order of the rulebook."""
    amount = _major(intent)
    return next((rule for rule in rules.rules if _matches(rule, intent, amount)), None)


def _matches(rule: Rule, intent: Intent, amount: Decimal) -> bool:
    return (
        (rule.entities is None or intent.entity in rule.entities)
        and (rule.currencies is None or intent.currency in rule.currencies)
        and (rule.methods is None or intent.method in rule.methods)
        and (rule.countries is None or intent.country in rule.countries)
        and (rule.risks is None or intent.risk_band in rule.risks)
        and (rule.amount_from is None or amount >= rule.amount_from)
        and (rule.amount_to is None or amount < rule.amount_to)
    )


def objection_to(intent: Intent, offer: Offer, health: Health | None) -> Verdict | None:
    """Why this PSP cannot take the payment now, by the first condition that fails, or None."""
    psp = offer.psp
    if intent.entity not in offer.entities:
        return Verdict(psp, "entity", f"no agreement with {intent.entity}")
    price = offer.prices.get(intent.currency)
    if price is None:
        return Verdict(psp, "currency", f"does not take {intent.currency}")
    if intent.method not in offer.methods:
        return Verdict(psp, "method", f"does not offer {intent.method}")
    if intent.country in offer.blocked:
        return Verdict(psp, "country", f"{intent.country} is blocked")
    if offer.countries is not None and intent.country not in offer.countries:
        return Verdict(psp, "country", f"does not serve {intent.country}")
    if not price.min_minor <= intent.minor <= price.max_minor:  # both ends are allowed
        exponent = currency(intent.currency).exponent
        least, most = text(price.min_minor, exponent), text(price.max_minor, exponent)
        return Verdict(psp, "amount", f"takes {least} to {most} {intent.currency}")
    if health is not None and health.open:
        return Verdict(psp, "health", health.reason)
    return None


def cost_minor(intent: Intent, offer: Offer) -> int:
    """What the PSP's tariff charges us, in the payment's minor units, rounded half-even once."""
    price = offer.prices[intent.currency]
    exact = price.fixed_minor + intent.minor * price.rate
    return int(exact.to_integral_value(ROUND_HALF_EVEN))


def _major(intent: Intent) -> Decimal:
    return Decimal(intent.minor).scaleb(-currency(intent.currency).exponent)
