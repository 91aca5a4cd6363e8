"""The chain above a client: contracts from the client outward as they stood at a moment.

Knows dated rows and for how long an answer holds. Refuses to know rates and amounts.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from ledger.rebates.inputs import Contract, Dated, Inputs
from ledger.rebates.plans import PlanVersion

ALWAYS: Final = datetime.min.replace(tzinfo=UTC)
NEVER: Final = datetime.max.replace(tzinfo=UTC)


class Span(msgspec.Struct, frozen=True):
    """From `since` on, until before `until`."""

    since: datetime = ALWAYS
    until: datetime = NEVER

    def __and__(self, other: Span) -> Span:
        return Span(max(self.since, other.since), min(self.until, other.until))


class Link(msgspec.Struct, frozen=True):
    """One contract of a chain and the version of its plan; None where none was in force."""

    contract: Contract
    version: PlanVersion | None


class Chain(msgspec.Struct, frozen=True):
    """Contracts from the client outward and the span in which the chain is the same."""

    links: tuple[Link, ...]
    span: Span


def dated(rows: Dated, at: datetime) -> tuple[str, Span]:
    """What holds at a moment, "" before the first row, and the span in which it does."""
    place = bisect_right(rows, at, key=lambda row: row[0])
    until = rows[place][0] if place < len(rows) else NEVER
    if not place:
        return "", Span(until=until)
    since, value = rows[place - 1]
    return value, Span(since, until)


def chain(inputs: Inputs, nearest: str, at: datetime) -> Chain:
    """The chain that begins with contract `nearest`; raises KeyError for a contract unknown.

    Edges never lead in a circle: whoever makes one refuses it, and here it would be a bug.
    """
    links: list[Link] = []
    span, contract_id = Span(), nearest
    while contract_id:
        contract = inputs.contracts[contract_id]
        assert len(links) < len(inputs.contracts), f"the chain of {nearest} leads in a circle"
        plan_id, on_plan = dated(contract.plans, at)
        version, in_force = _version(inputs.plans, plan_id, at)
        links.append(Link(contract, version))
        contract_id, below = dated(contract.parents, at)
        span = span & on_plan & in_force & below
    return Chain(tuple(links), span)


def _version(
    plans: Mapping[str, tuple[PlanVersion, ...]], plan_id: str, at: datetime
) -> tuple[PlanVersion | None, Span]:
    """The version of a plan in force at a moment and how long it is."""
    versions = plans.get(plan_id, ())
    place = bisect_right(versions, at, key=lambda each: each.since)
    until = versions[place].since if place < len(versions) else NEVER
    if not place:
        return None, Span(until=until)
    return versions[place - 1], Span(versions[place - 1].since, until)
