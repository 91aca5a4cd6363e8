"""Changes of the business as changes of data: what a room decides differently, and what it finds.

Those that need a broker at work are played in `tests/scenarios/test_rulebook.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import ledger.rebates.plans
from bridge.mapping import Placement, Wish
from config.difference import differences, parts
from config.load import from_source
from config.rulebook import Document as Written
from gateway.control import areas, obstacles
from gateway.control.rulebook import check, findings_of
from gateway.control.rules import Compiled, compiled
from router.decide import decide
from router.intents import Intent
from tests.support.rulebooks import Document, changed, named

ROOT = Path(__file__).parents[4]
SAMPLE, _ = check(ROOT / "config" / "demo")
Change = Callable[[Document], object]


def after(change: Change, *, area: str) -> Compiled:
    """The sample broker after a change that no room objects to, and that one area answers for."""
    assert SAMPLE is not None
    book = changed(SAMPLE, change)
    assert findings_of(book) == []
    assert obstacles.never(SAMPLE, book) == []
    found = differences(SAMPLE.source, book.source)
    assert areas.of_parts(parts(found)) == (area,)
    return compiled(book)[0]


def intent(**fields: object) -> Intent:
    """A card payment of 100 euro from Germany."""
    plain = Intent(
        payment_id="PY", client_id="CL", entity="fx-eu", brand="northgate", country="DE",
        currency="EUR", minor=10_000, method="card", risk_band="low", instrument="",
    )  # fmt: skip
    return msgspec.structs.replace(plain, **fields)


def way(rules: Compiled, **fields: object) -> tuple[str, ...]:
    """The providers in order, or the code it is refused with."""
    route = decide(intent(**fields), rules.routing, {})
    return (route.refused,) if route.refused else tuple(it.psp for it in route.candidates)


def test_a_group_rule() -> None:
    """Accounts are created elsewhere, with other leverage."""

    def change(document: Document) -> None:
        document["group"][0] |= {"group": "real\\EU\\new", "leverage": 20}

    wish = Wish(entity="fx-eu", brand="northgate", account_type="raw", currency="EUR")
    placed = after(change, area="platforms").mapping.place(wish)
    assert isinstance(placed, Placement)
    assert (placed.group, placed.leverage) == ("real\\EU\\new", 20)


def test_a_fee_and_a_limit() -> None:
    """A provider costs more and takes less: a payment above its limit goes elsewhere."""

    def change(document: Document) -> None:
        named(document, "psp", "acme").update(amount_max="50", cost_fixed="1.00")

    assert way(after(change, area="routing")) == ("bolt",)


def test_a_reason_code() -> None:
    """A refusal says another word."""

    def change(document: Document) -> None:
        named(document, "rule", "not-served")["refuse"] = "sanctioned-country"

    assert way(after(change, area="routing"), country="IR") == ("sanctioned-country",)


def test_how_unknown_attempts_are_looked_up() -> None:
    """Terms of routing are data too."""

    def change(document: Document) -> None:
        document["routing"]["attempts_max"] = 2

    assert after(change, area="routing").book.routing.attempts_max == 2


def test_a_new_plan() -> None:
    """New contracts may be on it at once, in its currency."""

    def change(document: Document) -> None:
        document["plan"].append(
            {"id": "eu-flat", "currency": "EUR", "mode": "direct",
             "rates": [{"group": "metals", "per_lot": "3.00"}]}
        )  # fmt: skip

    assert after(change, area="plans").plans["eu-flat"] == "EUR"


def test_a_symbol() -> None:
    """It is traded here, and priced with its group."""

    def change(document: Document) -> None:
        named(document, "symbol_group", "metals")["symbols"].append("XPTUSD")

    rules = after(change, area="plans")
    assert "XPTUSD" in rules.symbols
    plans, _ = ledger.rebates.plans.compile(rules.book)
    assert plans["eu-partner"].rate("XPTUSD") == plans["eu-partner"].rate("XAGUSD")


def test_webhooks() -> None:
    """How often a subscriber is told again."""

    def change(document: Document) -> None:
        document["outbox"]["attempts_max"] = 3

    assert after(change, area="rules").book.outbox.attempts_max == 3


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda it: named(it, "entity", "fx-eu").update(book=9), "book-changed"),
        (lambda it: named(it, "entity", "fx-eu").update(currency="USD"), "currency-changed"),
        (lambda it: named(it, "brand", "northgate").update(entity="fx-int"), "brand-moved"),
        (lambda it: it["entity"].pop(0), "entity-removed"),
        (lambda it: it["plan"][0].update(currency="JPY"), "plan-currency-changed"),
        (
            lambda it: [
                role.update(scopes=[each for each in role["scopes"] if each != "plans:publish"])
                for role in it["role"]
            ],
            "nobody-publishes",
        ),
    ],
)
def test_what_no_later_version_may_say(change: Change, code: str) -> None:
    """Books are for ever, and somebody may always agree to the next change."""
    assert SAMPLE is not None
    assert code in {each.code for each in obstacles.never(SAMPLE, changed(SAMPLE, change))}


@pytest.mark.parametrize(
    ("change", "restart"),
    [
        (lambda it: it["platform"][0].update(settle_time_s=9), True),
        (lambda it: named(it, "entity", "fx-eu").update(settlement_cut_off="20:00"), True),
        (lambda it: it["platform"][0]["entities"].pop(), False),
        (lambda it: named(it, "brand", "southbank").update(name="South"), False),
    ],
)
def test_what_a_running_process_cannot_take_up(change: Change, restart: bool) -> None:
    """Sessions and cut-offs begin with a process; all else is read at each decision."""
    assert SAMPLE is not None
    found = obstacles.needs_restart(SAMPLE, changed(SAMPLE, change))
    assert bool(found) is restart


def test_a_rollback_restores_every_decision_exactly() -> None:
    """Of payments of every kind each goes the way it went before, though not in between: a content
    brought back is the same bytes, and names itself by the same hash.
    """
    assert SAMPLE is not None

    def change(document: Document) -> None:
        document["rule"] = [*reversed(document["rule"][3:]), *document["rule"][:3]]

    grid = [
        intent(entity=entity, country=country, method=method, risk_band=risk, minor=minor)
        for entity in ("fx-eu", "fx-int")
        for country in ("DE", "BR", "IR")
        for method in ("card", "bank_transfer", "ewallet")
        for risk in ("low", "high")
        for minor in (500, 20_000, 300_000)
    ]
    first, between = compiled(SAMPLE)[0], compiled(changed(SAMPLE, change))[0]
    back = compiled(from_source(SAMPLE.source))[0]
    assert back.hash == first.hash
    said = [[decide(each, it.routing, {}) for each in grid] for it in (first, between, back)]
    assert said[0] == said[2] != said[1]


def test_every_part_of_a_rulebook_belongs_to_one_area() -> None:
    """A part that nobody claims would be published by whoever publishes rules."""
    written = [part for area in areas.AREAS.values() for part in area.parts]
    assert len(written) == len(set(written))
    assert set(Written.__struct_fields__) <= set(written)


def test_rules_that_change_places_are_a_difference() -> None:
    """The order of rules is their meaning; that of other tables is none."""
    assert SAMPLE is not None

    def swaps(document: Document) -> None:
        document["rule"][0], document["rule"][1] = document["rule"][1], document["rule"][0]

    found = differences(SAMPLE.source, changed(SAMPLE, swaps).source)
    assert [(it.key, it.before, it.after) for it in found] == [("place", 2, 1), ("place", 1, 2)]
    turned = changed(SAMPLE, lambda it: it["plan"].reverse())
    assert turned.hash == SAMPLE.hash


def test_the_list_of_changes_names_tests_that_exist() -> None:
    """Twenty changes; each test that the page names is there."""
    page = (ROOT / "docs" / "changes.md").read_text()
    assert len(re.findall(r"^\| \d+ \|", page, re.MULTILINE)) == 20
    story = (ROOT / "tests" / "scenarios" / "test_rulebook.py").read_text()
    for name in re.findall(r"`(test_\w+)`", page):
        assert f"def {name}(" in story, name
