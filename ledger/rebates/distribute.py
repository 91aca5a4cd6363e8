"""Who earns how much a lot on a chain, and how one deal's total becomes whole minor units.

Knows the modes `direct` and `differential` and the largest remainder. Refuses to know deals,
accounts and how often it is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ledger.rebates.chain import Link
from ledger.rebates.lines import UNIT, Reason


class Level(msgspec.Struct, frozen=True):
    """One contract of a chain: what it earns a lot in 1e-8 minor units.

    number  1 is nearest the client
    plan    the plan version its rate comes from, 0 for none
    zero    why it earns nothing where `rate_e8` is 0
    """

    number: int
    contract: str
    plan: int
    rate_e8: int
    zero: Reason


class Part(msgspec.Struct, frozen=True, gc=False):
    """What one level gets: whole minor units, and the exact rest they leave (1e-16, signed)."""

    amount: int
    left: int


def levels(links: Sequence[Link], symbol: str) -> tuple[Level, ...]:
    """What each level of a chain earns a lot of `symbol`, by the mode of the nearest one's plan.

    Without a plan in force at the nearest level nothing says how to share: nobody earns.
    """
    nearest = links[0].version
    if nearest is None:
        return (Level(1, links[0].contract.id, 0, 0, Reason.NO_PLAN),)
    reached = links[:1] if nearest.plan.mode == "direct" else links
    found, highest = [], 0
    for number, link in enumerate(reached, start=1):
        version = link.version
        rate = None if version is None else version.plan.rate(symbol)
        earned = max(0, (rate or 0) - highest)
        highest += earned
        plan = 0 if version is None else version.id
        found.append(Level(number, link.contract.id, plan, earned, _zero(link, rate)))
    return tuple(found)


def _zero(link: Link, rate: int | None) -> Reason:
    if link.version is None:
        return Reason.NO_PLAN
    return Reason.NO_RATE_RULE if rate is None else Reason.NO_DIFFERENTIAL


def half_even(exact: int) -> int:
    """Whole minor units of an exact amount of 1e-16: the nearest, a half to the even one."""
    whole, rest = divmod(exact, UNIT)
    twice = 2 * rest
    return whole + (twice > UNIT or (twice == UNIT and whole % 2))


def distribute(rates_e8: Sequence[int], volume: int) -> tuple[Part, ...]:
    """Share what `volume` (1e-8 lots) earns at these rates: the parts' sum is the rounded total.

    What is lost below a minor unit goes to the largest remainders, ties to the level nearest the
    client, which is the first.
    """
    exact = [rate * volume for rate in rates_e8]
    amounts = [each // UNIT for each in exact]
    missing = half_even(sum(exact)) - sum(amounts)
    if missing:
        by_rest = sorted(range(len(exact)), key=lambda n: -(exact[n] % UNIT))  # stable: ties stay
        for n in by_rest[:missing]:
            amounts[n] += 1
    return tuple(
        Part(amount, whole - amount * UNIT) for amount, whole in zip(amounts, exact, strict=True)
    )
