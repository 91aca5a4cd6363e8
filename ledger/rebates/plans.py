"""Plans: what a contract earns a lot, compiled from the rulebook and published by content.

Knows what the rulebook's `plan` section means, what makes it wrong, and the canonical body whose
hash names a version. Refuses to know contracts, and which version was in force when.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cached_property
from typing import Literal

import msgspec

from config.findings import Finding
from config.rulebook import Plan as Written
from config.rulebook import Rulebook
from ledger.money import UnknownCurrency, currency
from ledger.rebates.rates import Rate, by_symbol, clashes, rate

Mode = Literal["direct", "differential"]


class Plan(msgspec.Struct, frozen=True, dict=True):
    """A plan as accrual reads it; `mode` as the rulebook's shape explains it."""

    id: str
    currency: str
    mode: Mode
    rates: tuple[Rate, ...]

    @cached_property
    def _by_symbol(self) -> Mapping[str, Rate]:
        return by_symbol(self.rates)

    def rule(self, symbol: str) -> Rate | None:
        """The rate that a symbol gets; None where the plan has none for it."""
        return self._by_symbol.get(symbol)

    def rate(self, symbol: str) -> int | None:
        """The same as 1e-8 minor units a lot."""
        found = self._by_symbol.get(symbol)
        return None if found is None else found.e8


class PlanVersion(msgspec.Struct, frozen=True):
    """A plan as it was published; in force from `since` until a later version of the same plan."""

    id: int
    plan: Plan
    since: datetime

    @property
    def hash(self) -> str:
        """What names its content."""
        return digest(self.plan)


class _Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """A rate in a plan's body."""

    per_lot: str
    symbol: str = ""
    group: str = ""
    symbols: tuple[str, ...] = ()


class _Body(msgspec.Struct, frozen=True):
    """A plan's canonical form: everything that its meaning depends on, in one order."""

    id: str
    currency: str
    mode: Mode
    rates: tuple[_Row, ...]


def body(plan: Plan) -> bytes:
    """The canonical JSON of a plan. Stored versions are read by it: its form never changes."""
    rows = sorted(
        (_Row(each.per_lot, each.symbol, each.group, each.symbols) for each in plan.rates),
        key=lambda row: (row.symbol, row.group),
    )
    return msgspec.json.encode(_Body(plan.id, plan.currency, plan.mode, tuple(rows)))


def digest(plan: Plan) -> str:
    """The hash that names a plan's content."""
    return hashlib.sha256(body(plan)).hexdigest()


def parse(stored: bytes | str) -> Plan:
    """Read a body back; `body` of what it returns is the same. Raises msgspec.ValidationError."""
    read = msgspec.json.decode(stored, type=_Body)
    exponent = currency(read.currency).exponent
    rates = tuple(
        rate(row.per_lot, exponent, symbol=row.symbol, group=row.group, symbols=row.symbols)
        for row in read.rates
    )
    return Plan(read.id, read.currency, read.mode, rates)


# --- from the rulebook --------------------------------------------------------------------------


def compile(book: Rulebook) -> tuple[Mapping[str, Plan], list[Finding]]:
    """Compile the plans of a rulebook. With findings they are incomplete: do not use them.

    Groups that do not exist and names that stand twice are found when the rulebook is loaded.
    """
    groups = {group.id: group.symbols for group in book.symbol_groups}
    plans: dict[str, Plan] = {}
    findings: list[Finding] = []
    for number, written in enumerate(book.plans):
        path = f"plan[{number}]"
        findings.extend(_unclear(book, path, written))
        try:
            unit = currency(written.currency)
        except UnknownCurrency as error:
            findings.append(_finding(book, f"{path}.currency", "currency-unknown", str(error)))
            continue
        rates = tuple(
            rate(
                each.per_lot, unit.exponent, symbol=each.symbol, group=each.group,
                symbols=groups.get(each.group, ()),
            )
            for each in written.rates
        )  # fmt: skip
        findings.extend(_clashing(book, path, rates))
        plans[written.id] = Plan(written.id, unit.code, written.mode, rates)
    return plans, findings


def _unclear(book: Rulebook, path: str, written: Written) -> Iterator[Finding]:
    """A rate is for a symbol or for a group, never for both or neither."""
    for number, each in enumerate(written.rates):
        if bool(each.symbol) == bool(each.group):
            why = "names both a symbol and a group" if each.symbol else "names no symbol, no group"
            yield _finding(book, f"{path}.rates[{number}]", "rate-unclear", why)


def _clashing(book: Rulebook, path: str, rates: tuple[Rate, ...]) -> Iterator[Finding]:
    """No symbol has two rates that are equally close to it."""
    for number, symbol, earlier in clashes(rates):
        why = f"`{symbol}` has a rate as close at rates[{earlier}]"
        yield _finding(book, f"{path}.rates[{number}]", "rate-ambiguous", why)


def _finding(book: Rulebook, path: str, code: str, why: str) -> Finding:
    return Finding(book.place(path), code, f"{path}: {why}", path)
