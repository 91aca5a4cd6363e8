"""Accrual of one book: who earns by a deal, which lines say so, and when an answer ends."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

import msgspec
import pytest

from ledger.rebates import accrual
from ledger.rebates.accrual import batch_length, compute, compute_in_slices
from ledger.rebates.days import MIDNIGHT, settlement_day
from ledger.rebates.inputs import Inputs
from ledger.rebates.lines import UNIT, Line, LineKind, Reason
from ledger.rebates.plans import PlanVersion
from ledger.rebates.rounding import Remainders, period
from tests.support.rebates import (
    BEFORE,
    BOOK,
    FEED,
    T0,
    accounts,
    accrue,
    contract,
    deal,
    engine,
    inputs,
    ladder,
    landed,
    lines,
    plan,
)

HOUR = timedelta(hours=1)


def said(found: list[Line], of: Inputs) -> list[tuple[int, str, int, str]]:
    """Lines as (deal, contract, amount, reason)."""
    names = {number: id for id, number in accounts(of).items()}
    return [(line.deal_no, names[line.account], line.amount, Reason(line.reason).name)
            for line in found]  # fmt: skip


def test_a_line_names_all_it_was_made_from() -> None:
    """A line bears its numbers, its deal twice, its account, its level and its plan's version."""
    of = ladder("5", "7")
    found = lines(*accrue(engine(of), landed([deal(1, "2")], begin=41)))
    common = {"book": BOOK, "batch": 1, "feed": FEED, "deal_no": 41, "concerned_no": 41,
              "component": 1, "kind": LineKind.ORDINARY, "reason": Reason.PAID}  # fmt: skip
    assert found == [
        Line(no=1, account=1001, level=1, plan=1, amount=1000, **common),
        Line(no=2, account=1002, level=2, plan=2, amount=400, **common),
    ]


def test_in_a_direct_plan_only_the_nearest_earns() -> None:
    """The mode of the nearest contract's plan decides, whatever stands above."""
    of = ladder("5", "7", mode="direct")
    assert said(lines(*accrue(engine(of), landed([deal()]))), of) == [(1, "CT1", 500, "PAID")]


def test_a_deal_pays_the_contract_it_belongs_to_when_it_is_made() -> None:
    """A client's contract, its parent and its plan are those in force at the deal's own time."""
    plans = [plan("P1", EURUSD="5"), plan("P2", EURUSD="8")]
    of = inputs([contract("CT1", "P1"), contract("CT2", "P2")], plans)
    moved = msgspec.structs.replace(
        of.contracts["CT1"],
        parents=((T0 + 2 * HOUR, "CT2"),),
        plans=((BEFORE, "P1"), (T0 + 3 * HOUR, "P2")),
    )
    of = msgspec.structs.replace(of, contracts={**of.contracts, "CT1": moved})
    by = engine(of, {1: ((BEFORE, "CT2"), (T0 + HOUR, "CT1"))})
    at = [T0, T0 + HOUR, T0 + 2 * HOUR, T0 + 3 * HOUR, T0 - HOUR]  # the last one came late
    found = lines(*accrue(by, landed(deal(n, at=when) for n, when in enumerate(at, 1))))
    assert said(found, of) == [
        (1, "CT2", 800, "PAID"),
        (2, "CT1", 500, "PAID"),
        (3, "CT1", 500, "PAID"), (3, "CT2", 300, "PAID"),
        (4, "CT1", 800, "PAID"), (4, "CT2", 0, "NO_DIFFERENTIAL"),
        (5, "CT2", 800, "PAID"),
    ]  # fmt: skip


def test_a_plan_pays_by_the_version_in_force() -> None:
    """Of a plan's versions the last one published at or before the deal pays, none before it."""
    of = ladder("5")
    later = PlanVersion(9, plan("P1", EURUSD="6"), T0 + HOUR)
    first = msgspec.structs.replace(of.plans["P1"][0], since=T0)
    of = msgspec.structs.replace(of, plans={"P1": (first, later)})
    deals = landed(deal(n, at=T0 + (n - 2) * HOUR) for n in (1, 2, 3))
    found = lines(*accrue(engine(of), deals))
    assert said(found, of) == [
        (1, "CT1", 0, "NO_PLAN"), (2, "CT1", 500, "PAID"), (3, "CT1", 600, "PAID"),
    ]  # fmt: skip
    assert [line.plan for line in found] == [0, 1, 9]


@pytest.mark.parametrize(
    ("rates", "lots", "symbol", "reason"),
    [
        (("5", "7"), "0", "EURUSD", "OPENING"),
        (("5", "7"), "1", "XAUUSD", "NO_RATE_RULE"),
        (("0", "0"), "1", "EURUSD", "NO_DIFFERENTIAL"),
        (("0.1", "0.2"), "0.01", "EURUSD", "CARRIED"),
    ],
)
def test_a_deal_that_pays_nobody_has_one_line_that_says_why(
    rates: tuple[str, ...], lots: str, symbol: str, reason: str
) -> None:
    """One zero line at the level nearest the client; those above it are implied."""
    of = ladder(*rates)
    found = lines(*accrue(engine(of), landed([deal(1, lots, symbol=symbol)])))
    assert said(found, of) == [(1, "CT1", 0, reason)]


def test_of_levels_that_get_nothing_the_lowest_says_so() -> None:
    """Zeros above the lowest one are implied; what is paid has its line wherever it stands."""
    of = ladder("5", "5", "4", "9")
    found = lines(*accrue(engine(of), landed([deal()])))
    assert said(found, of) == [
        (1, "CT1", 500, "PAID"), (1, "CT2", 0, "NO_DIFFERENTIAL"), (1, "CT4", 400, "PAID"),
    ]  # fmt: skip


def test_who_has_no_partner_and_what_is_no_trade_have_no_line() -> None:
    """An organic client's deal and a balance deal are counted and leave nothing."""
    by = engine(ladder("5"), {1: "CT1", 2: ""})
    [batch] = accrue(by, landed([deal(1, login=2), deal(2, action=2), deal(3, login=2)]))
    assert lines(batch) == []
    assert (batch.first_deal, batch.last_deal, batch.contracts) == (1, 3, {})


def test_an_edit_that_moves_nothing_says_so_once() -> None:
    """A later version with the same volume pays a difference of zero, at the nearest level."""
    of = ladder("5", "7")
    found = lines(*accrue(engine(of), landed([deal(1, "1"), deal(1, "1", comment="edited")])))
    assert said(found, of)[2:] == [(2, "CT1", 0, "UNCHANGED")]
    assert (found[2].kind, found[2].deal_no, found[2].concerned_no) == (LineKind.DIFFERENCE, 2, 1)


def test_an_edit_pays_what_it_changes() -> None:
    """A later version pays the difference to the one before it, for the deal as first seen."""
    of = ladder("5", "7")
    deals = landed([deal(1, "1"), deal(1, "0.5"), deal(1, "3")])
    found = lines(*accrue(engine(of), deals))
    assert said(found, of)[2:] == [
        (2, "CT1", -250, "PAID"), (2, "CT2", -100, "PAID"),
        (3, "CT1", 1250, "PAID"), (3, "CT2", 500, "PAID"),
    ]  # fmt: skip
    assert {line.concerned_no for line in found} == {1}


def test_an_edit_takes_its_remainders_back() -> None:
    """What an edited deal left below a minor unit is replaced by what its new version leaves."""
    small = [deal(n, "0.01") for n in range(1, 4)]  # 0.4 minor units each, of which one is paid
    by, left = engine(ladder("0.40")), Remainders()
    left.learn(period(T0.date()), ())
    accrue(by, landed(small), remainders=left)
    edits = [msgspec.structs.replace(each, closed=0, comment="edited") for each in small]
    [batch] = accrue(by, landed([*small, *edits])[3:], remainders=left)
    found = lines(batch)
    assert [(line.kind, line.amount) for line in found if line.amount] == [(LineKind.ROUNDING, -1)]
    assert [each.exact for each in batch.remainders.values()] == [0]


def test_a_rounding_line_has_no_deal_of_its_own() -> None:
    """It is caused by the batch's last deal, concerns none and stands at no level."""
    found = lines(*accrue(engine(ladder("0.40")), landed(deal(n, "0.01") for n in range(1, 4))))
    last = found[-1]
    assert (last.kind, last.reason, last.amount) == (LineKind.ROUNDING, Reason.ROUNDING, 1)
    assert (last.deal_no, last.concerned_no, last.level, last.plan) == (3, 0, 0, 0)


def test_a_batch_tells_what_it_did_to_each_contract() -> None:
    """Net, number of lines and last row of each account are those of the lines."""
    by = engine(ladder("0.333", "5"), {1: "CT1", 2: "CT2"})
    deals = landed(deal(n, n * 12_345_678, login=1 + n % 2) for n in range(30))
    [batch] = accrue(by, deals)
    found = lines(batch)
    for account, told in batch.contracts.items():
        own = [line for line in found if line.account == account]
        assert told == (sum(line.amount for line in own), len(own), own[-1].no - 1)
    assert {line.account for line in found} == set(batch.contracts)
    counted = {reason: n for reason, n in batch.reasons.items() if n}
    assert counted == {
        reason: n for reason in Reason if (n := sum(line.reason == reason for line in found))
    }


def test_a_batch_is_of_one_day_and_not_too_long() -> None:
    """A batch ends before the first deal of another UTC day, earlier or later, and at the limit."""
    midnight = datetime(2026, 3, 3, tzinfo=UTC)
    at = [T0, midnight - timedelta(microseconds=1), midnight, T0]
    deals = landed(deal(n, at=when) for n, when in enumerate(at, 1))
    assert [batch_length(deals[n:]) for n in range(5)] == [2, 1, 1, 1, 0]
    assert batch_length(deals, limit=1) == 1


def test_a_batch_is_of_one_side_of_the_settlement_cut_off() -> None:
    """A batch ends before the first deal of another settlement period, earlier or later."""
    cut = datetime(2026, 3, 2, 21, tzinfo=UTC)
    at = [
        cut - timedelta(hours=21), cut - timedelta(microseconds=1), cut, cut + timedelta(hours=2),
        cut - timedelta(microseconds=1), cut + timedelta(hours=3),
    ]  # fmt: skip
    deals = landed(deal(n, at=when) for n, when in enumerate(at, 1))
    lengths = [batch_length(deals[n:], cut_off=time(21)) for n in range(7)]
    assert lengths == [2, 1, 2, 1, 1, 1, 0]


def test_a_batch_settles_on_the_day_on_which_its_period_ends() -> None:
    """From the cut-off on it is the next day; what is left over is carried in that day's month."""
    cut = datetime(2026, 3, 31, 21, tzinfo=UTC)
    by = engine(ladder("0.40"), cut_off=time(21))
    left = Remainders()
    for month in (date(2026, 3, 1), date(2026, 4, 1)):
        left.learn(month, ())
    said = []
    for no, at in enumerate((cut - timedelta(microseconds=1), cut, cut + timedelta(hours=4)), 1):
        batch = compute(by, left, FEED, landed([deal(no, "0.01", at=at)], no))
        exact = [each.exact for each in batch.remainders.values()]
        said.append((batch.day.day, batch.settles, batch.cut_off, exact))
    rest = 4 * UNIT // 10
    assert said == [
        (31, date(2026, 3, 31), time(21), [rest]),
        (31, date(2026, 4, 1), time(21), [rest]),  # March's stays in March
        (1, date(2026, 4, 1), time(21), [2 * rest]),
    ]


def test_a_cut_off_at_midnight_settles_on_the_calendar_day() -> None:
    """It ends the day that it closes."""
    begin = datetime(2026, 3, 31, tzinfo=UTC)
    for at in (begin, begin + timedelta(days=1, microseconds=-1)):
        assert settlement_day(at, MIDNIGHT) == begin.date()


def test_what_was_never_learned_is_asked_for() -> None:
    """Logins are unknown until their attribution is learned, an organic client's among them."""
    by = engine(ladder("5"), {1: "CT1", 2: ""})
    assert by.unknown(FEED, landed(deal(n, login=n) for n in (1, 2, 3))) == {3}
    assert by.unknown(FEED + 1, landed([deal()])) == {1}


def test_memory_that_starts_anew_gives_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolved ways and priced volumes are bounded; losing them changes nothing."""
    of = ladder("0.77", "5")
    deals = landed(deal(n, n % 7 * 1_234_567, login=n % 3) for n in range(60))
    attributed = {0: "CT1", 1: "CT2", 2: ""}
    whole = lines(*accrue(engine(of, attributed), deals))
    monkeypatch.setattr(accrual, "WAYS_KEPT", 2)
    monkeypatch.setattr(accrual, "SHARES_KEPT", 3)
    assert lines(*accrue(engine(of, attributed), deals)) == whole


async def test_a_batch_computed_in_slices_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Serving others between slices changes nothing of the batch."""
    monkeypatch.setattr(accrual, "SLICE", 7)
    of = ladder("0.77", "5")
    deals = landed(deal(n, n * 1_234_567) for n in range(60))
    left = Remainders()
    left.learn(period(T0.date()), ())
    sliced = await compute_in_slices(engine(of), left, FEED, deals)
    [whole] = accrue(engine(of), deals)
    assert lines(sliced) == lines(whole)
    assert (sliced.contracts, sliced.remainders) == (whole.contracts, whole.remainders)


def test_a_chain_that_leads_in_a_circle_is_a_bug() -> None:
    """Edges are made without circles; where one stands all the same nothing is paid by it."""
    of = inputs([contract("CT1", "P1", "CT2"), contract("CT2", "P1", "CT1")], [plan("P1")])
    with pytest.raises(AssertionError, match="circle"):
        accrue(engine(of), landed([deal()]))
