"""The worked examples of the domain, to the cent."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ledger.money import text
from ledger.rebates.lines import Line, Reason
from ledger.rebates.plans import Plan
from ledger.rebates.rates import rate
from tests.support.rebates import accrue, contract, deal, engine, inputs, ladder, landed, lines

GOLDEN = Path(__file__).parents[3] / "golden" / "ib_vectors.json"
VECTORS: dict[str, Any] = json.loads(GOLDEN.read_text())


def told(line: Line) -> str:
    """A line as the examples write it: the amount, and the reason where there is none."""
    amount = text(line.amount, 2)
    return amount if line.amount else f"{amount} {Reason(line.reason).name}"


def test_a_symbol_then_its_group_then_no_rate() -> None:
    """V01: the symbol's own rate is taken before its group's, and without one the line says so."""
    given = VECTORS["V01"]["input"]
    group = [symbol for symbol, name, _ in given["trades"] if name == "FX_MAJORS"]
    plan = Plan("P1", "USD", "direct", (
        rate(given["rules"]["sym:EURUSD"], 2, symbol="EURUSD"),
        rate(given["rules"]["grp:FX_MAJORS"], 2, group="FX_MAJORS", symbols=group),
    ))  # fmt: skip
    by = engine(inputs([contract("CT1", "P1")], [plan]))
    deals = landed(
        deal(n, lots, symbol=symbol) for n, (symbol, _, lots) in enumerate(given["trades"], 1)
    )
    assert [told(line) for line in lines(*accrue(by, deals))] == VECTORS["V01"]["expected"]


@pytest.mark.parametrize("name", ["V02a", "V02b", "V02c"])
def test_each_level_earns_what_it_has_above_those_below(name: str) -> None:
    """V02: the differential of rates 5/7/10, 5/5/10 and 5/4/10 on 2.35 lots."""
    given, expected = VECTORS[name]["input"], VECTORS[name]["expected"]
    by = engine(ladder(*given["rates_client_outward"]))
    found = lines(*accrue(by, landed([deal(1, given["lots"])])))
    assert [text(line.amount, 2) for line in found] == expected["lines"]
    assert sum(line.amount for line in found) == Decimal(expected["sum"]) * 100
    for line in found:
        assert (line.reason == Reason.NO_DIFFERENTIAL) == (line.amount == 0)


def test_small_deals_add_up_to_what_they_earn() -> None:
    """A hundred deals of 0.01 lot at 0.40 a lot pay 0.40, each line of its own CARRIED."""
    deals = landed(deal(n, "0.01") for n in range(1, 101))
    found = lines(*accrue(engine(ladder("0.40")), deals))
    assert sum(line.amount for line in found) == 40
    of_deals = [line for line in found if line.concerned_no]
    assert {(line.amount, line.reason) for line in of_deals} == {(0, Reason.CARRIED)}
    assert len(of_deals) == 100
