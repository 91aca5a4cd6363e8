"""The computation behind explanations beside the engine: both reach the same lines, to the cent."""

from __future__ import annotations

from fractions import Fraction

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.rebates.lines import LineKind, Reason
from ledger.rebates.recompute import due, trace, whole
from tests.support.rebates import BEFORE, accounts, deal, ladder, landed, lines
from tests.unit.ledger.rebates.test_against_plain import World, computed, world, worlds


@settings(worlds, max_examples=60)
@given(world(), st.integers(1, 9))
def test_what_is_computed_again_is_what_the_engine_wrote(given: World, limit: int) -> None:
    """Each line but those of rounding, with its level, reason and plan, and no other."""
    seen = [msgspec.structs.replace(each, login=1 + each.ticket % 3) for each in given.deals]
    deals, names = landed(seen), {n: id for id, n in accounts(given.inputs).items()}
    again = [
        (each.no, each.first_no, line.contract, line.kind, line.level, line.reason, line.plan,
         line.amount)
        for each in deals
        for line in due(each, given.attributed[each.deal.login], given.inputs)
    ]  # fmt: skip
    wrote = [
        (line.deal_no, line.concerned_no, names[line.account], line.kind, line.level, line.reason,
         line.plan, line.amount)
        for line in lines(*computed(given, deals, limit))
        if line.kind != LineKind.ROUNDING
    ]  # fmt: skip
    assert again == wrote


def test_a_trace_says_every_step() -> None:
    """Rates, what is below them, what is left, exact and rounded: V01 in its parts."""
    of = ladder("5", "7", "10")
    said = trace(deal(1, "0.5"), ((BEFORE, "CT1"),), of)
    assert (said.contract, said.since, said.mode) == ("CT1", BEFORE, "differential")
    assert said.lots == Fraction(1, 2)
    assert [rung.rate for rung in said.rungs] == [500, 700, 1000]
    assert [rung.below for rung in said.rungs] == [0, 500, 700]
    assert [rung.earned for rung in said.rungs] == [500, 200, 300]
    assert [rung.amount for rung in said.rungs] == [250, 100, 150]
    assert (said.exact, said.total) == (500, 500)


def test_what_is_rounded_up_is_taken_from_what_is_left() -> None:
    """The parts of a total are rounded together; each keeps the difference, which may be less."""
    said = trace(deal(1, "0.001"), ((BEFORE, "CT1"),), ladder("7", "12"))
    assert [(rung.exact, rung.amount, rung.left) for rung in said.rungs] == [
        (Fraction(7, 10), 1, Fraction(-3, 10)), (Fraction(1, 2), 0, Fraction(1, 2)),
    ]  # fmt: skip


def test_a_sum_of_remainders_pays_whole_units_only() -> None:
    """What is below one is dropped on both sides of zero."""
    halves = [Fraction(n, 2) for n in (-5, -2, -1, 0, 1, 2, 5)]
    assert [whole(each) for each in halves] == [-2, -1, 0, 0, 0, 1, 2]


def test_who_came_by_themselves_and_what_is_no_trade_earn_nobody_anything() -> None:
    """There is nothing to say: no line, not even a zero."""
    of = ladder("5")
    for mine, action in (((), 0), (((BEFORE, ""),), 0), (((BEFORE, "CT1"),), 2)):
        (each,) = landed([deal(1, action=action)])
        assert due(each, mine, of) == []
    (opening,) = landed([deal(1, 0)])
    (line,) = due(opening, ((BEFORE, "CT1"),), of)
    assert (line.reason, line.amount) == (Reason.OPENING, 0)
