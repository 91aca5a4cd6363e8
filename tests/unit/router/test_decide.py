"""The routing decision."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.rulebook import Rule, When
from router.decide import decide
from router.health import Health
from router.intents import Intent
from router.rules import Rules
from router.rules import compile as compile_rules
from tests.unit.router.values import intent, psp, rulebook

DOWN = Health(open=True, reason="5 failures in a row")


def rules(*given_rules: Rule, **changes: object) -> Rules:
    """A rulebook's rules, without findings."""
    compiled, findings = compile_rules(rulebook(*given_rules, **changes))  # type: ignore[arg-type]
    assert findings == []
    return compiled


def left_out(wanted: Intent, compiled: Rules, health: Mapping[str, Health]) -> dict[str, str]:
    """PSP -> code of its verdict."""
    return {verdict.psp: verdict.code for verdict in decide(wanted, compiled, health).left_out}


def test_candidates_stand_in_the_order_of_the_rule_with_their_cost() -> None:
    """The rule's order is the order of trying; each candidate says what it would cost us."""
    route = decide(intent(), rules(), {})
    assert [(c.psp, c.cost_minor) for c in route.candidates] == [("acme", 165), ("bolt", 165)]
    assert (route.rule, route.refused, route.rulebook) == ("all", "", "a" * 64)


@pytest.mark.parametrize(("minor", "cost"), [(10_000, 165), (1100, 40), (1250, 42), (1750, 50)])
def test_the_cost_is_rounded_half_even_once(minor: int, cost: int) -> None:
    """0.25 + 1.40 % is exact in decimals and rounded once: 40.4 -> 40, 42.5 -> 42, 49.5 -> 50."""
    assert decide(intent(minor=minor), rules(), {}).candidates[0].cost_minor == cost


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"entity": "fx-other"}, "entity"),
        ({"currency": "GBP"}, "currency"),
        ({"method": "ewallet"}, "method"),
        ({"country": "IR"}, "country"),
        ({"minor": 999}, "amount"),
        ({"minor": 100_001}, "amount"),
    ],
)
def test_each_reason_to_leave_a_psp_out_has_its_verdict(
    changes: dict[str, object], code: str
) -> None:
    """A PSP that cannot take the payment says why, by the first condition that fails."""
    route = decide(intent(**changes), rules(), {})
    assert {verdict.code for verdict in route.left_out} == {code, "rule"}
    assert (route.candidates, route.refused) == ((), "no-route")


@pytest.mark.parametrize("minor", [1000, 100_000])
def test_both_limits_of_a_psp_are_allowed(minor: int) -> None:
    """Minimum and maximum are amounts that a PSP takes."""
    assert decide(intent(minor=minor), rules(), {}).candidates


@pytest.mark.parametrize(("minor", "rule"), [(49_99, "rest"), (50_00, "band"), (99_99, "band"),
                                             (100_00, "rest")])  # fmt: skip
def test_a_band_of_amounts_includes_its_start_and_not_its_end(minor: int, rule: str) -> None:
    """`amount_from` is inside and `amount_to` outside, so bands that touch do not overlap."""
    band = Rule(id="band", when=When(amount_from="50", amount_to="100"), route=("acme",))
    compiled = rules(band, Rule(id="rest", route=("bolt",)))
    assert decide(intent(minor=minor), compiled, {}).rule == rule


def test_an_unhealthy_psp_is_left_out_with_what_was_seen() -> None:
    """An open circuit leaves a PSP out, and the verdict keeps the reason for later readers."""
    route = decide(intent(), rules(), {"acme": DOWN})
    assert [candidate.psp for candidate in route.candidates] == ["bolt"]
    verdict = next(v for v in route.left_out if v.psp == "acme")
    assert (verdict.code, verdict.detail) == ("health", "5 failures in a row")


def test_a_country_list_admits_only_its_countries() -> None:
    """A PSP with a list of countries serves these and no others."""
    compiled = rules(psps=(psp("acme", countries=("DE",)), psp("bolt")))
    assert left_out(intent(country="FR"), compiled, {}) == {"acme": "country"}
    assert left_out(intent(country="DE"), compiled, {}) == {}


def test_the_first_rule_that_matches_wins_and_a_refusal_keeps_its_code() -> None:
    """A refusing rule ends the search with its own code and every PSP left out by the rule."""
    refuse = Rule(id="risky", when=When(risk=("high",)), refuse="high-risk")
    compiled = rules(refuse, Rule(id="rest", route=("acme",)))
    route = decide(intent(risk_band="high"), compiled, {})
    assert (route.rule, route.refused, route.candidates) == ("risky", "high-risk", ())
    assert {verdict.code for verdict in route.left_out} == {"rule"}
    assert decide(intent(), compiled, {}).rule == "rest"


def test_a_route_says_where_its_rule_was_written() -> None:
    """An entity's own rule stands above the one for all, and each says which it is."""
    own = Rule(id="own", when=When(entity=("fx-eu",)), route=("acme",))
    compiled = rules(own, Rule(id="rest", route=("bolt",)))
    met = [decide(intent(entity=entity), compiled, {}) for entity in ("fx-eu", "fx-int")]

    assert [(route.rule, route.level) for route in met] == [("own", "entity"), ("rest", "global")]


def test_without_any_matching_rule_the_payment_is_refused() -> None:
    """No rule, no route: nothing is tried by default."""
    compiled = rules(Rule(id="only-usd", when=When(currency=("USD",)), route=("acme",)))
    route = decide(intent(), compiled, {})
    assert (route.rule, route.refused, route.candidates) == ("", "no-rule", ())


intents = st.builds(
    intent,
    entity=st.sampled_from(["fx-eu", "fx-int", "fx-other"]),
    country=st.sampled_from(["DE", "IR", "FR", "BR"]),
    currency=st.sampled_from(["EUR", "USD", "GBP"]),
    method=st.sampled_from(["card", "ewallet"]),
    risk_band=st.sampled_from(["low", "medium", "high"]),
    minor=st.integers(1, 200_000),
)
healths = st.dictionaries(st.sampled_from(["acme", "bolt", "coral"]), st.just(DOWN))
RULES = rules(
    Rule(id="high", when=When(risk=("high",)), refuse="high-risk"),
    Rule(id="large", when=When(amount_from="500"), route=("bolt", "acme")),
    Rule(id="eu", when=When(entity=("fx-eu",)), route=("acme", "coral")),
    psps=(psp("acme"), psp("bolt", methods=("card", "ewallet")), psp("coral", countries=("DE",))),
)


@given(wanted=intents, health=healths)
def test_every_psp_is_a_candidate_or_has_one_verdict(
    wanted: Intent, health: dict[str, Health]
) -> None:
    """No PSP disappears from a decision without a reason, and none appears twice."""
    route = decide(wanted, RULES, health)
    named = [c.psp for c in route.candidates] + [v.psp for v in route.left_out]
    assert sorted(named) == sorted(RULES.offers)
    assert bool(route.refused) == (not route.candidates)


@given(wanted=intents, health=healths)
def test_a_decision_is_a_function_of_its_inputs(wanted: Intent, health: dict[str, Health]) -> None:
    """The same intent, rules and health give the same answer, so it can be explained for ever."""
    assert decide(wanted, RULES, health) == decide(wanted, RULES, dict(health))
