"""The engine beside a second computation of the same, over worlds made at random."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.deals import LandedDeal
from ledger.facts import Deal
from ledger.rebates.accrual import Computed, batch_length
from ledger.rebates.inputs import Contract, Dated, Inputs
from ledger.rebates.lines import Line, LineKind, Reason
from ledger.rebates.plans import Mode, PlanVersion
from ledger.rebates.rounding import period
from tests.support.plain_rebates import Plain
from tests.support.rebates import T0, accounts, accrue, deal, engine, landed, lines, plan

SYMBOLS = ("EURUSD", "XAUUSD")
RATES = ("0", "0.4", "0.33333333", "1", "2.5", "5", "7.77", "10")
MODES: tuple[Mode, ...] = ("differential", "differential", "direct")
VOLUMES = (0, 1, 1_000_000, 2_000_000, 3_333_333, 50_000_000, 10**8, 235_000_000)
DAYS = 40  # deals of about two months

moments = st.integers(-24, 24 * DAYS).map(lambda hours: T0 + timedelta(hours=hours))
worlds = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


class World(msgspec.Struct, frozen=True):
    """Inputs, whose clients the logins are, and deals in the order of landing."""

    inputs: Inputs
    attributed: dict[int, Dated]
    deals: tuple[Deal, ...]


@st.composite
def dated(draw: st.DrawFn, values: Sequence[str]) -> Dated:
    """Up to two dated rows of these values, each beginning at another moment."""
    since = draw(st.lists(moments, max_size=2, unique=True))
    first = draw(st.booleans())
    begin = [T0 - timedelta(days=99)] if first else []
    return tuple((at, draw(st.sampled_from(values))) for at in sorted([*begin, *since]))


@st.composite
def world(draw: st.DrawFn, *, edits: bool = True) -> World:
    """A tree that changes over time, plans in versions, and deals of three clients."""
    names = [f"CT{n}" for n in range(1, draw(st.integers(1, 6)) + 1)]
    plans, number = {}, 0
    for id in ("P1", "P2", "P3"):
        versions = []
        since = [T0 - timedelta(days=99), *draw(st.lists(moments, max_size=1))]
        for at in sorted(since):
            number += 1
            rates = draw(st.dictionaries(st.sampled_from(SYMBOLS), st.sampled_from(RATES)))
            versions.append(
                PlanVersion(number, plan(id, draw(st.sampled_from(MODES)), **rates), at)
            )
        plans[id] = tuple(versions)
    contracts = {
        name: Contract(name, "USD", draw(dated(["", *names[n:]])), draw(dated(["P1", "P2", "P3"])))
        for n, name in enumerate(names, 1)
    }
    attributed = {login: draw(dated(["", *names])) for login in (1, 2, 3)}
    made = st.builds(
        deal, st.integers(1, 12) if edits else st.just(0), st.sampled_from(VOLUMES),
        login=st.integers(1, 3), symbol=st.sampled_from(SYMBOLS), at=moments,
        action=st.sampled_from((0, 1, 1, 2)),
    )  # fmt: skip
    deals = draw(st.lists(made, min_size=1, max_size=25))
    if not edits:
        deals = [msgspec.structs.replace(each, ticket=n) for n, each in enumerate(deals, 1)]
    first = {each.ticket: each.action for each in reversed(deals)}  # it is landed for good
    deals = [msgspec.structs.replace(each, action=first[each.ticket]) for each in deals]
    return World(Inputs(1, contracts, plans), attributed, tuple(deals))


def computed(given: World, deals: Sequence[LandedDeal], limit: int) -> list[Computed]:
    """The engine's batches."""
    return accrue(engine(given.inputs, given.attributed), deals, limit)


def nets(batches: Sequence[Computed], tickets: dict[int, int]) -> dict[tuple[int, int], int]:
    """What each contract got by each deal, by ticket."""
    found: dict[tuple[int, int], int] = defaultdict(int)
    for line in lines(*batches):
        if line.kind != LineKind.ROUNDING:
            found[line.account, tickets[line.concerned_no]] += line.amount
    return {place: net for place, net in found.items() if net}


def rounding(batches: Sequence[Computed]) -> dict[tuple[int, object], int]:
    """What rounding lines paid, by account and period."""
    paid: dict[tuple[int, object], int] = defaultdict(int)
    months = {number: period(batch.settles) for number, batch in enumerate(batches, 1)}
    for line in lines(*batches):
        if line.kind == LineKind.ROUNDING:
            paid[line.account, months[line.batch]] += line.amount
    return {place: total for place, total in paid.items() if total}


@worlds
@given(world(), st.integers(1, 9))
def test_the_engine_says_what_a_plain_computation_says(given: World, limit: int) -> None:
    """Each line's amount, level, reason and plan, in every batch, and no line more or fewer."""
    deals, names = landed(given.deals), {n: id for id, n in accounts(given.inputs).items()}
    plain, begin = Plain(given.inputs, given.attributed), 0
    while begin < len(deals):
        end = begin + batch_length(deals[begin:], limit)
        plain.batch(deals[begin:end])
        begin = end
    found = {
        (line.deal_no, line.concerned_no, names[line.account], line.kind): (
            line.level, line.amount, Reason(line.reason).name, line.plan,
        )
        for line in lines(*computed(given, deals, limit))
    }  # fmt: skip
    assert found == plain.lines


@worlds
@given(world(), st.integers(1, 30), st.integers(1, 30))
def test_where_batches_are_cut_changes_no_net(given: World, one: int, other: int) -> None:
    """Any two cuts give the same nets, the same rounding in total and the same remainders."""
    deals = landed(given.deals)
    tickets = {each.no: each.deal.ticket for each in deals}
    first, second = computed(given, deals, one), computed(given, deals, other)
    assert nets(first, tickets) == nets(second, tickets)
    assert rounding(first) == rounding(second)


@worlds
@given(world(edits=False), st.randoms(use_true_random=False), st.integers(1, 9))
def test_the_order_of_arrival_changes_no_net(given: World, chance: object, limit: int) -> None:
    """Deals in any order give the same net per contract and deal, and the same rounding."""
    mixed = list(given.deals)
    chance.shuffle(mixed)  # type: ignore[attr-defined]
    outcomes = []
    for order in (given.deals, mixed):
        deals = landed(order)
        batches = computed(given, deals, limit)
        tickets = {each.no: each.deal.ticket for each in deals}
        outcomes.append((nets(batches, tickets), rounding(batches)))
    assert outcomes[0] == outcomes[1]


@worlds
@given(world(), st.integers(1, 9))
def test_every_zero_line_has_its_reason_and_every_key_is_single(given: World, limit: int) -> None:
    """Zero and only zero has a reason, a deal at most one zero line, and no key stands twice."""
    found = lines(*computed(given, landed(given.deals), limit))
    zeros: dict[int, list[Line]] = defaultdict(list)
    for line in found:
        assert (line.reason in {Reason.PAID, Reason.ROUNDING}) == (line.amount != 0)
        if not line.amount:
            zeros[line.deal_no].append(line)
    assert all(len(of_deal) == 1 for of_deal in zeros.values())
    keys = [(line.deal_no, line.concerned_no, line.account, line.component, line.kind)
            for line in found]  # fmt: skip
    assert len(set(keys)) == len(keys)
