"""A batch is computed a slice at a time, also by an engine that has resolved nothing yet."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random

import pytest

from ledger.deals import LandedDeal
from ledger.rebates.accrual import DEALS_MAX, Engine, Share, Sheet, Sums, compute_in_slices
from ledger.rebates.rounding import Remainders, period
from tests.support.rebates import FEED, T0, contract, deal, engine, inputs, landed, plan

LEVELS = range(1, 6)
CHAINS = 40
SYMBOLS = tuple(f"SYM{n:02}" for n in range(60))
DEALS_AT_ONCE = 100  # cold and of five levels some 3 ms of a processor, at worst 5
SHARES_AT_ONCE = 300  # some 2 ms


def cold() -> tuple[Engine, Sequence[LandedDeal]]:
    """The most work there is: each deal of the largest batch is by another login, in a volume that
    nobody dealt before, and five levels earn by it.
    """
    plans = [plan(f"P{n}", **dict.fromkeys(SYMBOLS, str(n))) for n in LEVELS]
    contracts = [
        contract(f"C{chain}L{n}", f"P{n}", f"C{chain}L{n + 1}" if n < max(LEVELS) else "")
        for chain in range(CHAINS)
        for n in LEVELS
    ]
    attributed = {login: f"C{login % CHAINS}L1" for login in range(1, DEALS_MAX + 1)}
    chance = Random(7)
    deals = landed(
        deal(n, chance.randint(10**6, 10**10), login=n, symbol=chance.choice(SYMBOLS))
        for n in range(1, DEALS_MAX + 1)
    )
    return engine(inputs(contracts, plans), attributed), deals


async def test_others_are_served_between_slices_of_a_cold_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between two turns of the loop no more deals are computed, and no more shares added up, than
    take a few milliseconds.
    """
    turn = 0
    computed: list[tuple[int, int]] = []  # turn, deals
    summed: list[int] = []  # the turn of each share
    add, add_up = Engine.add, Sums.add

    def adds(self: Engine, sheet: Sheet, deals: Sequence[LandedDeal]) -> None:
        computed.append((turn, len(deals)))
        add(self, sheet, deals)

    def adds_up(self: Sums, share: Share, times: int) -> None:
        summed.append(turn)
        add_up(self, share, times)

    async def others() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(Engine, "add", adds)
    monkeypatch.setattr(Sums, "add", adds_up)
    by, deals = cold()
    left = Remainders()
    left.learn(period(T0.date()), ())
    serving = asyncio.create_task(others())
    await asyncio.sleep(0)
    batch = await compute_in_slices(by, left, FEED, deals)
    serving.cancel()

    assert (batch.first_deal, batch.last_deal) == (1, DEALS_MAX)
    assert sum(count for _, count in computed) == DEALS_MAX
    for each in {at for at, _ in computed}:
        assert sum(count for at, count in computed if at == each) <= DEALS_AT_ONCE
    ordinary = summed[:DEALS_MAX]  # each deal has a share of its own; those of rounding follow
    assert max(ordinary.count(each) for each in set(ordinary)) <= SHARES_AT_ONCE
    assert len(set(ordinary)) >= DEALS_MAX // SHARES_AT_ONCE
    rounding = len(summed) - DEALS_MAX
    assert rounding <= len(LEVELS) * CHAINS  # what is left for the end is one an account at most
