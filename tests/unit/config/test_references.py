"""What a rulebook's parts say of each other."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from config.findings import Finding
from config.load import load
from config.references import references
from config.rulebook import Group, PlanRate, Psp, Rulebook, When

DEMO = Path(__file__).parents[3] / "config" / "demo"


@pytest.fixture(scope="module")
def book() -> Rulebook:
    """The demo broker, which is right."""
    found, _ = load(DEMO)
    assert found is not None
    return found


def changed(book: Rulebook, part: str, number: int, values: dict[str, object]) -> Rulebook:
    """The rulebook with other values in one item of one part."""
    items = list(getattr(book, part))
    items[number] = msgspec.structs.replace(items[number], **values)
    return msgspec.structs.replace(book, **{part: tuple(items)})


def added(book: Rulebook, part: str, item: object) -> Rulebook:
    """The rulebook with one more item."""
    return msgspec.structs.replace(book, **{part: (*getattr(book, part), item)})


def found(book: Rulebook) -> list[tuple[str, str]]:
    """Code and key of each finding."""
    return [(it.code, it.key) for it in references(book)]


def test_a_right_rulebook_has_no_findings(book: Rulebook) -> None:
    """The demo broker is what it says."""
    assert references(book) == []


MOON_GROUP = PlanRate(group="moon", per_lot="1")
MOON_SYMBOL = PlanRate(symbol="MOONUSD", per_lot="1")

MISTAKES: list[tuple[str, str, str, int, dict[str, object]]] = [
    ("unknown-name", "brand[0].entity", "brands", 0, {"entity": "moon"}),
    ("duplicate", "brand[1].id", "brands", 0, {"id": "northgate"}),
    ("duplicate", "entity[1].book", "entities", 1, {"book": 1}),
    ("unknown-name", "entity[1].jurisdiction", "entities", 1, {"jurisdiction": "UK"}),
    ("unknown-name", "platform[0].entities[0]", "platforms", 0, {"entities": ("moon", "fx-eu")}),
    ("unknown-name", "group[0].platform", "groups", 0, {"platform": "mt5-moon"}),
    ("unknown-name", "group[0].entity", "groups", 0, {"entity": "moon"}),
    ("unknown-name", "group[0].brand", "groups", 0, {"brand": "eastwind"}),
    ("not-served", "group[5].platform", "platforms", 0, {"entities": ("fx-eu",)}),
    ("out-of-order", "group[0].leverage", "groups", 0, {"leverage": 400}),
    ("out-of-order", "group[0].login_from", "groups", 0, {"login_from": 399_999, "login_to": 1}),
    ("unknown-name", "desk[0].entity", "desks", 0, {"entity": "moon"}),
    ("unknown-name", "desk[0].brand", "desks", 0, {"brand": "eastwind"}),
    ("unknown-name", "desk[0].countries[0]", "desks", 0, {"countries": ("UK",)}),
    ("duplicate", "desk[1].id", "desks", 0, {"id": "europe"}),
    ("unknown-name", "owner[0].entity", "owners", 0, {"entity": "moon"}),
    ("duplicate", "owner[1].process", "owners", 0, {"process": "kyc"}),
    ("group-of-another", "group[4].group", "groups", 0, {"group": "real\\INT\\standard-USD"}),
    ("duplicate", "group[2]", "groups", 1, {"currency": "USD"}),
    ("overlap", "group[2].login_from", "groups", 1, {"login_to": 200_001}),
    ("unknown-name", "psp[0].entities[0]", "psps", 0, {"entities": ("moon",)}),
    ("duplicate", "psp[0].entities[1]", "psps", 0, {"entities": ("fx-eu", "fx-eu")}),
    ("unknown-name", "psp[0].countries[1]", "psps", 0, {"countries": ("*", "EN")}),
    ("unknown-name", "psp[0].countries_blocked[0]", "psps", 0, {"countries_blocked": ("XX",)}),
    ("out-of-order", "psp[0].amount_min", "psps", 0, {"amount_min": "5000.01"}),
    ("unknown-name", "rule[3].route[1]", "rules", 3, {"route": ("acme", "moon")}),
    ("duplicate", "rule[3].route[1]", "rules", 3, {"route": ("acme", "acme")}),
    ("unknown-name", "rule[3].when.entity[0]", "rules", 3, {"when": When(entity=("moon",))}),
    ("unknown-name", "rule[3].when.country[0]", "rules", 3, {"when": When(country=("UK",))}),
    ("duplicate", "rule[4].id", "rules", 3, {"id": "eu-card"}),
    ("rule-unclear", "rule[3]", "rules", 3, {"route": ()}),
    ("rule-unclear", "rule[3]", "rules", 3, {"refuse": "no"}),
    ("duplicate", "symbol_group[1].id", "symbol_groups", 0, {"id": "fx-majors"}),
    ("duplicate", "symbol_group[1].symbols[1]", "symbol_groups", 0, {"symbols": ("EURUSD",)}),
    ("duplicate", "symbol_group[0].symbols[1]", "symbol_groups", 0, {"symbols": ("A", "A")}),
    ("duplicate", "plan[1].id", "plans", 0, {"id": "eu-lead"}),
    ("unknown-name", "plan[0].rates[0].group", "plans", 0, {"rates": (MOON_GROUP,)}),
    ("unknown-name", "plan[0].rates[0].symbol", "plans", 0, {"rates": (MOON_SYMBOL,)}),
]


@pytest.mark.parametrize(("code", "key", "part", "number", "values"), MISTAKES)
def test_a_mistake_is_found_where_it_is(
    book: Rulebook, code: str, key: str, part: str, number: int, values: dict[str, object]
) -> None:
    """One value that is wrong gives a finding of its code at its key."""
    assert (code, key) in found(changed(book, part, number, values))


def test_an_empty_band_is_found(book: Rulebook) -> None:
    """The upper end is not included, so equal ends let nothing through."""
    band = {"when": When(amount_from="5", amount_to="5.00")}
    assert ("out-of-order", "rule[3].when.amount_from") in found(changed(book, "rules", 3, band))


@pytest.mark.parametrize(
    ("code", "key", "part", "values"),
    [
        ("out-of-order", "routing.resolver_steps_s", "routing", {"resolver_steps_s": (1.0, 1.0)}),
        ("out-of-order", "outbox.steps_s", "outbox", {"steps_s": (2.0, 1.0)}),
        ("lease-too-short", "routing.lease_s", "routing", {"lease_s": 3.9}),
    ],
)
def test_times_are_in_order(
    book: Rulebook, code: str, key: str, part: str, values: dict[str, object]
) -> None:
    """Steps increase, and a lease outlives the longest answer to a call made in its first half."""
    section = msgspec.structs.replace(getattr(book, part), **values)
    assert found(msgspec.structs.replace(book, **{part: section})) == [(code, key)]


def test_ranges_of_two_platforms_may_be_equal(book: Rulebook) -> None:
    """Logins are leased from one server's range; another server has its own."""
    other = msgspec.structs.replace(book.platforms[0], id="mt5-other")
    twin: Group = msgspec.structs.replace(book.groups[0], platform="mt5-other")
    assert found(added(added(book, "platforms", other), "groups", twin)) == []


def test_a_near_miss_is_named(book: Rulebook) -> None:
    """Who writes UK is told of GB."""
    first: Psp = book.psps[0]
    wrong = changed(book, "psps", 0, {"countries": (*first.countries, "UK")})
    messages = [finding.message for finding in references(wrong)]
    assert messages == ["psp[0].countries[1]: there is no country `UK`, did you mean `GB`?"]


def test_a_finding_has_the_place_of_its_key(book: Rulebook) -> None:
    """The line is that of the value, so that an editor can go there."""
    finding: Finding = references(changed(book, "rules", 3, {"route": ("moon", "acme")}))[0]
    assert Path(finding.where.file).name == "rules.toml"
    assert finding.where == book.place("rule[3].route[0]")
