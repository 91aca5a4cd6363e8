"""What deals should have paid, computed a second time in the plainest way from what is stored.

Knows the rules of chains, rates, sharing and rounding as they are written, one deal at a time and
remembering nothing: it is what explanations show and what `verify` compares lines with. Refuses to
use the engine (`accrual.py`), which must reach the same cent, and to read anything (`evidence.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from fractions import Fraction

import msgspec

from ledger.deals import LandedDeal
from ledger.facts import Deal
from ledger.rebates.inputs import Contract, Dated, Inputs, in_force
from ledger.rebates.lines import LineKind, Reason
from ledger.rebates.plans import PlanVersion
from ledger.verdicts import BALANCE


class Rung(msgspec.Struct, frozen=True, kw_only=True):
    """One contract of the chain and what it earns by a deal.

    level    1 is nearest the client
    rule     what its plan's rate is for; "" where the plan has none for the symbol
    rate     the plan's rate a lot and `below` the highest rate below it, in minor units
    earned   what is left of the rate for this contract; `exact` is that times the lots
    amount   whole minor units, `left` what rounding left over (may be negative)
    zero     why it earns nothing, where it does not
    """

    level: int
    contract: str
    plan: str
    version: PlanVersion | None
    rule: str
    rate: Fraction
    below: Fraction
    earned: Fraction
    exact: Fraction
    amount: int
    left: Fraction
    zero: Reason


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """All that follows from one deal for the chain of its client; no rungs: nobody earns.

    since  when the client's attribution began
    mode   `direct` or `differential`, of the plan nearest the client; "" without one
    """

    deal: Deal
    contract: str
    since: datetime | None
    mode: str
    lots: Fraction
    rungs: tuple[Rung, ...]
    exact: Fraction
    total: int


class Due(msgspec.Struct, frozen=True):
    """A line as it should stand, before it has a number."""

    contract: str
    kind: LineKind
    level: int
    reason: Reason
    plan: int
    amount: int


NOBODY = Fraction(0)


def trace(deal: Deal, attribution: Dated, inputs: Inputs) -> Trace:
    """Who earns by a deal, and how much: by what was in force at the deal's time."""
    nearest = in_force(attribution, deal.at)
    since = max((begin for begin, _ in attribution if begin <= deal.at), default=None)
    lots = Fraction(deal.closed, 10**8)
    chain = _chain(inputs, nearest, deal.at) if deal.action < BALANCE else []
    first = chain[0][1] if chain else None
    if first is None or first.plan.mode == "direct":
        chain = chain[:1]
    rungs = _shared(_rungs(chain, deal, lots))
    return Trace(
        deal=deal, contract=nearest, since=since, mode="" if first is None else first.plan.mode,
        lots=lots, rungs=rungs, exact=sum((r.exact for r in rungs), NOBODY),
        total=sum(r.amount for r in rungs),
    )  # fmt: skip


def due(landed: LandedDeal, attribution: Dated, inputs: Inputs) -> list[Due]:
    """The lines that a landed deal must have caused, rounding apart."""
    now = trace(landed.deal, attribution, inputs)
    if landed.previous is None:
        zero = Reason.OPENING if landed.deal.closed == 0 else None
        return _lines(now.rungs[: 1 if zero else None], LineKind.ORDINARY, zero)
    before = trace(landed.previous, attribution, inputs)
    return _lines(difference(now, before), LineKind.DIFFERENCE, Reason.UNCHANGED)


def difference(now: Trace, before: Trace) -> tuple[Rung, ...]:
    """What a later version of a deal changes, contract by contract."""
    was = {rung.contract: rung for rung in before.rungs}
    rungs = [_less(rung, was.pop(rung.contract, None)) for rung in now.rungs]
    rungs += [
        msgspec.structs.replace(
            rung, exact=-rung.exact, amount=-rung.amount, left=-rung.left, earned=-rung.earned
        )
        for rung in was.values()
    ]
    return tuple(sorted(rungs, key=lambda rung: rung.level))


def whole(exact: Fraction) -> int:
    """Minor units of a sum of remainders: what is below one is dropped on both sides of zero."""
    return int(exact)


def minor(fraction: Fraction) -> int:
    """The nearest whole minor unit, a half to the even one."""
    return round(fraction)


def _chain(
    inputs: Inputs, nearest: str, at: datetime
) -> list[tuple[Contract, PlanVersion | None, str]]:
    """Contracts from the client outward, each with its plan in force."""
    found: list[tuple[Contract, PlanVersion | None, str]] = []
    while nearest:
        if len(found) == len(inputs.contracts):
            raise ValueError(f"the chain comes back to {nearest}")
        contract = inputs.contracts[nearest]
        plan = contract.plan(at)
        found.append((contract, inputs.plan(plan, at), plan))
        nearest = contract.parent(at)
    return found


def _rungs(
    chain: Sequence[tuple[Contract, PlanVersion | None, str]], deal: Deal, lots: Fraction
) -> list[Rung]:
    """What each contract earns exactly; amounts are still open."""
    rungs: list[Rung] = []
    highest = NOBODY
    for level, (contract, version, plan) in enumerate(chain, start=1):
        found = None if version is None else version.plan.rule(deal.symbol)
        rate = NOBODY if found is None else Fraction(found.e8, 10**8)
        earned = max(rate - highest, NOBODY)
        zero = Reason.NO_PLAN if version is None else Reason.NO_DIFFERENTIAL
        if version is not None and found is None:
            zero = Reason.NO_RATE_RULE
        rung = Rung(
            level=level, contract=contract.id, plan=plan, version=version,
            rule="" if found is None else found.subject, rate=rate, below=highest, earned=earned,
            exact=earned * lots, amount=0, left=NOBODY,
            zero=Reason.CARRIED if earned else zero,
        )  # fmt: skip
        rungs.append(rung)
        highest = max(highest, rate)
    return rungs


def _shared(rungs: Sequence[Rung]) -> tuple[Rung, ...]:
    """The total rounded once, half to even; what is missing goes to the largest remainders."""
    amounts = [int(rung.exact) for rung in rungs]
    missing = minor(sum((rung.exact for rung in rungs), NOBODY)) - sum(amounts)
    order = sorted(range(len(rungs)), key=lambda n: (amounts[n] - rungs[n].exact, n))
    for n in order[:missing]:
        amounts[n] += 1
    return tuple(
        msgspec.structs.replace(rung, amount=amount, left=rung.exact - amount)
        for rung, amount in zip(rungs, amounts, strict=True)
    )


def _less(rung: Rung, was: Rung | None) -> Rung:
    if was is None:
        return rung
    return msgspec.structs.replace(
        rung, earned=rung.earned - was.earned, exact=rung.exact - was.exact,
        amount=rung.amount - was.amount, left=rung.left - was.left,
    )  # fmt: skip


def _lines(rungs: Sequence[Rung], kind: LineKind, zero: Reason | None) -> list[Due]:
    """A line for each who is paid, and one for the lowest who is not."""
    lines, said = [], False
    for rung in rungs:
        if rung.amount == 0 and said:
            continue
        said = said or rung.amount == 0
        reason = Reason.PAID if rung.amount else zero or rung.zero
        plan = 0 if rung.version is None else rung.version.id
        lines.append(Due(rung.contract, kind, rung.level, reason, plan, rung.amount))
    return lines
