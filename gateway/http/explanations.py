"""Why a line says what it says, as callers read it: every step with its exact numbers.

Knows how exact amounts are written and what a partner who visits may not see: logins, and what
those above earn. Refuses to compute: the ledger does, from what is stored.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from fractions import Fraction
from typing import Final

import msgspec
from aiohttp import web

from gateway.control.refusals import not_found
from gateway.flows.attributions import SOURCES
from gateway.http.books import amount_text
from gateway.http.calls import Call, reply
from gateway.http.rebates import LineView, line_view, lots
from ledger import money
from ledger.facts import Deal
from ledger.rebates import evidence, reads
from ledger.rebates.evidence import Explanation, Rounding
from ledger.rebates.recompute import Rung, Trace

DECIMALS: Final = 16  # of a minor unit: a rate has eight, a volume has eight
_LINE: Final = re.compile(r"(\d{1,5})-(\d{1,18})", re.ASCII)


class FactView(msgspec.Struct, frozen=True, kw_only=True):
    """The deal: `closed` lots of it closed a position. `login` is null for a partner who visits."""

    server: str
    ticket: int
    version: int
    login: int | None
    symbol: str
    action: int
    entry: int
    lots: str
    closed: str
    at: datetime


class AttributionView(msgspec.Struct, frozen=True, kw_only=True):
    """Whom the client came through, and since when."""

    contract: str
    since: datetime | None


class LevelView(msgspec.Struct, frozen=True, kw_only=True):
    """One contract of the chain, 1 nearest the client.

    plan_hash  names the content of the plan's version; null without a plan in force
    rule       what the rate is for: `symbol EURUSD`, `group fx-majors`; "" for no rate
    per_lot    the rate a lot; `below` the highest rate below it, `earned` what is left
    exact      `earned` times the lots; `amount` is in whole minor units, `left` the difference
    reason     `paid`, or why nothing is
    """

    level: int
    contract: str
    plan: str
    plan_version: int
    plan_hash: str | None
    rule: str
    per_lot: str
    below: str
    earned: str
    exact: str
    amount: str
    left: str
    reason: str


class TotalView(msgspec.Struct, frozen=True):
    """What the chain earns by the deal: exact, and rounded once, half to even."""

    exact: str
    amount: str


class RoundingView(msgspec.Struct, frozen=True, kw_only=True):
    """What lines of the period had left over before the batch and after it, exact; whole units of
    it are paid, and `paid` were before.
    """

    period: date
    before: str
    after: str
    paid: str


class ExplanationView(msgspec.Struct, frozen=True, kw_only=True):
    """A line computed again from what is stored.

    amount    what is computed; `agrees` when the line says that, for that reason
    inputs    the version of contracts, terms, plans and attribution it was computed with
    before    the levels as the deal's last version had them, for a line of difference
    total     null for a partner who visits: it tells what others earn
    """

    line: LineView
    amount: str
    agrees: bool
    batch: int
    inputs: int
    fact: FactView | None
    attribution: AttributionView | None
    mode: str
    base: str
    levels: tuple[LevelView, ...]
    before: tuple[LevelView, ...]
    total: TotalView | None
    rounding: RoundingView | None


async def explanation(call: Call) -> web.Response:
    """GET /v1/rebates/{line}/explanation."""
    wanted = call.path("line")
    match = _LINE.fullmatch(wanted)
    if match is None:
        raise not_found("line", wanted)
    async with call.parts.pool.acquire() as conn:
        line = await reads.line(conn, int(match[1]), int(match[2]))
    if line is None:
        raise not_found("line", wanted)
    await call.reaches_contract(line.contract)
    async with call.parts.pool.acquire() as conn:
        found = await evidence.explain(conn, line, SOURCES)
    return reply(_view(found, visiting=bool(call.caller.partner)))


def _view(found: Explanation, *, visiting: bool) -> ExplanationView:
    line, trace = found.line, found.trace
    unit = line.currency
    seen = line.level if visiting else None
    total = None
    if trace is not None and not visiting:
        total = TotalView(exact_text(trace.exact, unit), amount_text(trace.total, unit))
    return ExplanationView(
        line=line_view(line),
        amount=amount_text(found.amount, unit),
        agrees=found.agrees,
        batch=found.batch.batch,
        inputs=found.batch.inputs,
        fact=None if trace is None else _fact(found, trace.deal, visiting=visiting),
        attribution=None if trace is None else _attribution(trace),
        mode="" if trace is None else trace.mode,
        base="" if trace is None else lots(trace.deal.closed),
        levels=_levels(trace, unit, seen),
        before=_levels(found.before, unit, seen),
        total=total,
        rounding=None if found.rounding is None else _rounding(found.rounding, unit),
    )


def _attribution(trace: Trace) -> AttributionView:
    return AttributionView(contract=trace.contract, since=trace.since)


def _rounding(rounding: Rounding, unit: str) -> RoundingView:
    return RoundingView(
        period=rounding.period,
        before=exact_text(rounding.before, unit),
        after=exact_text(rounding.after, unit),
        paid=amount_text(rounding.paid, unit),
    )


def _fact(found: Explanation, deal: Deal, *, visiting: bool) -> FactView:
    return FactView(
        server=found.batch.server,
        ticket=deal.ticket,
        version=1 if found.landed is None else found.landed.version,
        login=None if visiting else deal.login,
        symbol=deal.symbol,
        action=deal.action,
        entry=deal.entry,
        lots=lots(deal.volume),
        closed=lots(deal.closed),
        at=deal.at,
    )


def _levels(trace: Trace | None, unit: str, seen: int | None) -> tuple[LevelView, ...]:
    """The chain; up to level `seen` where one is given: those above are not theirs to see."""
    rungs = () if trace is None else trace.rungs
    return tuple(_level(rung, unit) for rung in rungs if seen is None or rung.level <= seen)


def _level(rung: Rung, unit: str) -> LevelView:
    version = rung.version
    return LevelView(
        level=rung.level,
        contract=rung.contract,
        plan=rung.plan,
        plan_version=0 if version is None else version.id,
        plan_hash=None if version is None else version.hash,
        rule=rung.rule,
        per_lot=exact_text(rung.rate, unit),
        below=exact_text(rung.below, unit),
        earned=exact_text(rung.earned, unit),
        exact=exact_text(rung.exact, unit),
        amount=amount_text(rung.amount, unit),
        left=exact_text(rung.left, unit),
        reason="paid" if rung.amount else rung.zero.name.lower(),
    )


def exact_text(minor: Fraction, code: str) -> str:
    """An exact amount of minor units as major units, with as many decimals as it has."""
    units = minor * 10**DECIMALS
    assert units.denominator == 1, minor
    exponent = money.currency(code).exponent
    text = money.text(units.numerator, exponent + DECIMALS)
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals[:exponent]}{decimals[exponent:].rstrip('0')}".rstrip(".")
