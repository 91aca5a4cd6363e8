"""The second computation of rebates agrees with what was computed by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from config.rulebook import Brand, Entity, Plan, PlanRate, Rulebook, SymbolGroup
from gateway.demo.partners import Contracted, Planned
from gateway.demo.people import Known, Person
from gateway.demo.rebates import Expected

NOVEMBER = int(datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp() * 1000)
DECEMBER = int(datetime(2026, 12, 1, tzinfo=UTC).timestamp() * 1000)


def expected(*rates: str, mode: str = "differential", cut_off: str = "00:00") -> Expected:
    """A chain of contracts C1, C2, ... from the client outward, each with its rate for EURUSD."""
    book = Rulebook(
        hash="",
        entities=(
            Entity(
                id="e",
                name="E",
                jurisdiction="CY",
                book=1,
                currency="USD",
                settlement_cut_off=cut_off,
            ),
        ),
        brands=(Brand(id="b", entity="e", name="B"),),
        symbol_groups=(SymbolGroup(id="fx", symbols=("EURUSD", "GBPUSD")),),
        plans=tuple(
            Plan(id=f"p{n}", currency="USD", mode=mode, rates=(PlanRate(group="fx", per_lot=rate),))
            for n, rate in enumerate(rates, start=1)
        ),
    )
    last = len(rates)
    partners = [
        Contracted(Planned(f"r{n}", "b", "USD", f"p{n}", 1, f"r{n + 1}" if n < last else ""),
                   f"P{n}", f"C{n}")
        for n in range(1, last + 1)
    ]  # fmt: skip
    person = Person(reference="x", brand="b", country="DE", currency="USD", risk="low", code="R1")
    return Expected(book, partners, [Known(person, "CL", "AC", login=7)])


def deal(lots: str, **more: Any) -> dict[str, Any]:
    """A closing deal of the client."""
    closed = round(float(lots) * 10**8)
    plain = {"login": 7, "action": 1, "symbol": "EURUSD", "utc_ms": NOVEMBER}
    return plain | {"closed_ext": closed} | more


def test_each_level_earns_what_its_rate_is_above_those_below() -> None:
    """Differential: the lowest rate first, then the differences."""
    sums = expected("5", "7", "10")
    sums.add([deal("2.35")])
    assert sums.minor() == {"C1": 1175, "C2": 470, "C3": 705}


def test_a_level_that_is_not_above_those_below_earns_nothing() -> None:
    """No difference, no share."""
    sums = expected("5", "4", "10")
    sums.add([deal("2.35")])
    assert sums.minor() == {"C1": 1175, "C2": 0, "C3": 1175}


def test_what_is_below_a_minor_unit_adds_up_within_its_month() -> None:
    """Remainders are kept by month and paid in whole units."""
    sums = expected("0.40")
    sums.add([deal("0.01")] * 100)
    assert sums.minor() == {"C1": 40}
    other = expected("0.40")
    other.add([deal("0.01")] * 2 + [deal("0.01", utc_ms=DECEMBER)] * 2)
    assert other.minor() == {"C1": 0}  # 0.8 of a cent in each month


def test_a_month_ends_at_the_cut_off_of_its_last_day() -> None:
    """What is dealt from then on is settled the day after, in the next month."""
    for minute_ms, minor in ((-1, 0), (0, 1)):
        sums = expected("0.40", cut_off="21:30")
        at = DECEMBER - 150 * 60_000 + minute_ms
        sums.add([deal("0.01", utc_ms=at)] * 2 + [deal("0.01", utc_ms=DECEMBER)])
        assert sums.minor() == {"C1": minor}, minute_ms


def test_a_direct_plan_pays_the_nearest_alone() -> None:
    """Nobody above a contract on a direct plan earns."""
    sums = expected("5", "7", mode="direct")
    sums.add([deal("1")])
    assert sums.minor() == {"C1": 500}


def test_only_what_closes_a_position_of_a_client_of_a_partner_pays() -> None:
    """Openings, money without a trade, strangers and unpriced symbols pay nothing."""
    sums = expected("5")
    sums.add([deal("0"), deal("1", action=2), deal("1", login=8), deal("1", symbol="XAUUSD")])
    assert not any(sums.minor().values())
