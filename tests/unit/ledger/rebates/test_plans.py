"""Plans: compiled from the rulebook, named by their content, read back as they were published."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from config.load import load
from config.rulebook import Plan as Written
from config.rulebook import PlanRate, Rulebook, SymbolGroup
from ledger.rebates import plans as room
from ledger.rebates.inputs import Contract, Inputs, in_force
from ledger.rebates.plans import Plan, PlanVersion, body, digest, parse

DEMO = Path(__file__).parents[4] / "config" / "demo"
T0 = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)


def book(*rates: PlanRate, currency: str = "USD", id: str = "basic") -> Rulebook:
    """A rulebook of one plan over two groups."""
    return Rulebook(
        hash="",
        entities=(),
        symbol_groups=(
            SymbolGroup(id="fx-majors", symbols=("GBPUSD", "EURUSD")),
            SymbolGroup(id="metals", symbols=("XAUUSD",)),
        ),
        plans=(Written(id=id, currency=currency, rates=rates),),
    )


def made(*rates: PlanRate, **fields: str) -> Plan:
    """The one plan of such a rulebook."""
    plans, findings = room.compile(book(*rates, **fields))
    assert findings == []
    return plans[fields.get("id", "basic")]


OWN = PlanRate(symbol="EURUSD", per_lot="6")
SHARED = PlanRate(group="fx-majors", per_lot="4")


def test_each_symbol_gets_its_closest_rate() -> None:
    """The symbol's own, its group's, or none."""
    plan = made(OWN, SHARED)
    assert plan.rate("EURUSD") == 6 * 10**10
    assert plan.rate("GBPUSD") == 4 * 10**10
    assert plan.rate("XAUUSD") is None
    rule = plan.rule("GBPUSD")
    assert rule is not None
    assert (rule.subject, rule.per_lot) == ("group fx-majors", "4")


def test_the_demo_has_ladders_and_a_direct_plan_in_each_currency() -> None:
    """A level above never has a lower rate than the one below it, for any symbol it prices."""
    found, _ = load(DEMO)
    assert found is not None
    plans, findings = room.compile(found)
    assert findings == []
    for prefix, currency in (("eu", "EUR"), ("int", "USD")):
        names = ("partner", "senior", "lead", "regional", "master")
        ladder = [plans[f"{prefix}-{name}"] for name in names]
        assert {plan.currency for plan in ladder} == {currency}
        assert {plan.mode for plan in ladder} == {"differential"}
        for symbol in found.symbols:
            rates = [plan.rate(symbol) or 0 for plan in ladder]
            assert rates == sorted(rates), symbol
        assert plans[f"{prefix}-direct"].mode == "direct"


@pytest.mark.parametrize(
    ("rates", "code", "key"),
    [
        ((PlanRate(per_lot="1"),), "rate-unclear", "plan[0].rates[0]"),
        (
            (OWN, PlanRate(symbol="XAUUSD", group="metals", per_lot="1")),
            "rate-unclear",
            "plan[0].rates[1]",
        ),
        ((OWN, SHARED, OWN), "rate-ambiguous", "plan[0].rates[2]"),
        ((SHARED, SHARED), "rate-ambiguous", "plan[0].rates[1]"),
    ],
)
def test_what_makes_a_plan_wrong_is_found_at_its_rate(
    rates: tuple[PlanRate, ...], code: str, key: str
) -> None:
    """A rate for both or neither, and two rates as close as each other."""
    _, findings = room.compile(book(*rates))
    assert [(it.code, it.key) for it in findings] == [(code, key)]


def test_a_plan_is_in_money() -> None:
    """A currency nobody knows is a finding, not a crash."""
    _, findings = room.compile(book(OWN, currency="XYZ"))
    assert [(it.code, it.key) for it in findings] == [("currency-unknown", "plan[0].currency")]


# --- content ------------------------------------------------------------------------------------


def test_one_meaning_has_one_hash() -> None:
    """Neither the order of rates and symbols nor zeros at the end of a rate change it."""
    plan = made(OWN, SHARED)
    assert digest(made(SHARED, PlanRate(symbol="EURUSD", per_lot="6.00"))) == digest(plan)


@pytest.mark.parametrize(
    "other",
    [
        made(OWN, PlanRate(group="fx-majors", per_lot="4.01")),
        made(OWN),
        made(OWN, SHARED, currency="EUR"),
        made(OWN, SHARED, id="other"),
        msgspec.structs.replace(made(OWN, SHARED), mode="direct"),
    ],
)
def test_another_meaning_has_another_hash(other: Plan) -> None:
    """A rate, a rule, the currency, the mode, the name."""
    assert digest(other) != digest(made(OWN, SHARED))


def test_what_a_group_held_is_content() -> None:
    """A symbol that joins a group changes what the plan pays, so it makes a version."""
    before = book(SHARED)
    groups = (SymbolGroup(id="fx-majors", symbols=("GBPUSD", "EURUSD", "USDJPY")),)
    plans, _ = room.compile(msgspec.structs.replace(before, symbol_groups=groups))
    assert digest(plans["basic"]) != digest(made(SHARED))


def test_a_published_plan_reads_back() -> None:
    """As the database keeps it: with keys in another order, and paying the same."""
    plan = made(OWN, SHARED)
    stored = json.dumps(json.loads(body(plan)), sort_keys=True)
    assert digest(parse(stored)) == digest(plan)
    assert parse(stored).rate("GBPUSD") == plan.rate("GBPUSD")


def test_the_form_of_a_body_never_changes() -> None:
    """Hashes of published versions stand in the books: a change of the form would orphan them."""
    assert body(made(SHARED, OWN)) == (
        b'{"id":"basic","currency":"USD","mode":"differential","rates":['
        b'{"per_lot":"4","group":"fx-majors","symbols":["EURUSD","GBPUSD"]},'
        b'{"per_lot":"6","symbol":"EURUSD"}]}'
    )


# --- in time ------------------------------------------------------------------------------------


def test_what_is_dated_holds_from_its_moment_on() -> None:
    """Nothing before the first, and the last for ever."""
    dated = ((T0, "a"), (T0 + HOUR, "b"))
    assert in_force(dated, T0 - HOUR) == ""
    assert in_force(dated, T0) == "a"
    assert in_force(dated, T0 + HOUR - timedelta(microseconds=1)) == "a"
    assert in_force(dated, T0 + HOUR) == "b"
    assert in_force(dated, T0 + 9 * HOUR) == "b"


def test_a_contract_tells_its_parent_and_plan_of_a_moment() -> None:
    """Each by its own dates."""
    contract = Contract("CT1", "USD", ((T0, ""), (T0 + HOUR, "CT2")), ((T0, "basic"),))
    assert [contract.parent(T0 + HOUR * n) for n in range(3)] == ["", "CT2", "CT2"]
    assert [contract.plan(T0 + HOUR * n) for n in (-1, 0, 1)] == ["", "basic", "basic"]


def test_inputs_tell_the_version_of_a_plan_in_force() -> None:
    """The latest that had begun; none before the first, none of an unknown plan."""
    old, new = PlanVersion(1, made(OWN), T0), PlanVersion(2, made(SHARED), T0 + HOUR)
    inputs = Inputs(7, {}, {"basic": (old, new)})
    assert inputs.plan("basic", T0 - HOUR) is None
    assert inputs.plan("basic", T0) == old
    assert inputs.plan("basic", T0 + HOUR) == new
    assert inputs.plan("other", T0) is None
