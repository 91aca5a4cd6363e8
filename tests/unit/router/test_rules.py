"""Compiling the routing of a rulebook."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from config.rulebook import Rule, When, Where
from router.rules import compile as compile_rules
from tests.unit.router.values import psp, rulebook


def codes(book: object) -> list[str]:
    """The codes of what is found in a rulebook."""
    return [finding.code for finding in compile_rules(book)[1]]  # type: ignore[arg-type]


def test_a_tariff_becomes_exact_minor_units() -> None:
    """Limits and costs per currency unit are whole or exact minor units of each currency."""
    rules, findings = compile_rules(rulebook(psps=(psp("acme", currencies=("EUR", "JPY")),
                                                   psp("bolt"))))  # fmt: skip
    assert findings == []
    euro, yen = rules.offers["acme"].prices["EUR"], rules.offers["acme"].prices["JPY"]
    assert (euro.min_minor, euro.max_minor, euro.fixed_minor) == (1000, 100_000, Decimal(25))
    assert (yen.min_minor, yen.max_minor, euro.rate) == (10, 1000, Decimal("0.014"))


def test_limits_finer_than_the_currency_shrink_inwards() -> None:
    """A limit between two amounts that exist never lets an amount beyond it through."""
    tight = psp("acme", currencies=("JPY",), amount_min="10.5", amount_max="20.5")
    rules, _ = compile_rules(rulebook(psps=(tight, psp("bolt"))))
    price = rules.offers["acme"].prices["JPY"]
    assert (price.min_minor, price.max_minor) == (11, 20)


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (Rule(id="r", when=When(), route=("nobody", "acme")), "psp-unknown"),
        (Rule(id="r", when=When(method=("cheque",)), refuse="no"), "method-unknown"),
        (Rule(id="r", when=When(currency=("XXZ",)), refuse="no"), "currency-unknown"),
        (Rule(id="r", when=When(currency=("GBP",)), route=("acme",)), "rule-without-psp"),
        (Rule(id="r", when=When(country=("IR",)), route=("acme",)), "rule-without-psp"),
    ],
)
def test_a_rule_that_cannot_work_is_a_finding(rule: Rule, code: str) -> None:
    """A rule naming what does not exist, or that no provider can serve, is found before it runs."""
    assert code in codes(rulebook(rule))


def test_a_psp_with_an_unknown_currency_is_a_finding() -> None:
    """A currency nobody knows has no minor unit and cannot be priced."""
    assert codes(rulebook(psps=(psp("acme", currencies=("EUR", "QQQ")), psp("bolt")))) == [
        "currency-unknown"
    ]


def test_a_rule_must_serve_each_entity_it_speaks_of() -> None:
    """A catch-all whose only provider does not serve an entity leaves its clients without."""
    book = rulebook(
        Rule(id="all", route=("acme",)), psps=(psp("acme", entities=("fx-eu",)), psp("bolt"))
    )
    found = compile_rules(book)[1]
    assert [f.code for f in found] == ["rule-without-psp"]
    assert "fx-int" in found[0].message


@pytest.mark.parametrize(
    ("above", "below", "found"),
    [
        (When(), When(method=("card",)), True),
        (When(country=("DE", "FR")), When(country=("DE",), risk=("low",)), True),
        (When(country=("DE",)), When(country=("DE", "FR")), False),
        (When(risk=("high",)), When(), False),
        (When(amount_from="10"), When(amount_from="20", amount_to="30"), True),
        (When(amount_from="20"), When(amount_from="10"), False),
        (When(amount_to="20"), When(amount_to="20"), True),
        (When(amount_to="20"), When(), False),
    ],
)
def test_a_rule_that_can_never_match_is_found(above: When, below: When, found: bool) -> None:
    """A rule covered completely by an earlier one is unreachable; one that adds anything is not."""
    book = rulebook(
        Rule(id="a", when=above, route=("acme",)), Rule(id="b", when=below, route=("bolt",))
    )
    assert ("rule-unreachable" in codes(book)) is found


def test_a_finding_says_file_and_line() -> None:
    """A finding points at the line of the value, or of the nearest table around it."""
    rule = Rule(id="r", when=When(method=("cheque",)), refuse="no")
    book = rulebook(rule, where={"rule[0].when": Where("rules.toml", 7)})
    finding = compile_rules(book)[1][0]
    assert finding.where == Where("rules.toml", 7)
    assert finding.key == "rule[0].when.method[0]"


def test_the_demo_rulebook_compiles() -> None:
    """The sample broker's routing has no findings."""
    from config.load import load

    book, findings = load(Path("config/demo"))
    assert findings == []
    assert book is not None
    rules, wrong = compile_rules(book)
    assert wrong == []
    assert len(rules.rules) == len(book.rules)
