"""A composer with a clock that tests move, and ways to read what its units ask for.

It knows where a change keeps its kind and row. It refuses to assert anything.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import msgspec

from bridge.states import Account, AccountState
from config.rulebook import Routing
from gateway.flows.outbox import Emitter
from gateway.flows.settlement import Case, Composer, Settlement
from ledger.ids import Ids
from ledger.units import Change
from router.intents import Attempt
from router.outcomes import Approved, Declined, NotFound, NotSent, Outcome, Pending, Unknown
from tests.unit.router.values import NOW, POLICY, attempt, payment, route

APPROVED = Approved("p-1", 10_000, "EUR")
SOFT = Declined("iso:91", "technical", "try later", "p-1", cascade=True)
HARD = Declined("iso:43", "fraud", "stolen", "p-1")
UNMAPPED = Declined("simpay:new", "unmapped", "what?", "p-1")
PENDING = Pending("p-1")
UNKNOWN = Unknown("timeout")
NOT_SENT = NotSent("connect")
NOT_FOUND = NotFound()
OTHER_AMOUNT = Approved("p-1", 9_000, "EUR")
OUTCOMES: tuple[Outcome, ...] = (
    APPROVED, SOFT, HARD, UNMAPPED, PENDING, UNKNOWN, NOT_SENT, NOT_FOUND, OTHER_AMOUNT,
)  # fmt: skip


class Clock:
    """The time, moved by hand."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        """UTC."""
        return self.at

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self.at += timedelta(seconds=seconds)


def composer(clock: Clock, policy: Routing = POLICY) -> Composer:
    """A composer whose ids are counted."""
    numbers = itertools.count(8, 8)  # an id keeps all but three bits of its chance
    ids = Ids(lambda: 1_772_000_000_000, lambda n: next(numbers).to_bytes(n, "big"))
    return Composer(lambda: policy, "r1", ids, Emitter(clock.now), clock.now)


def case(*attempts: Attempt, psps: tuple[str, ...] = ("acme", "bolt"), **changes: Any) -> Case:
    """A deposit on its way; its first attempt at acme is sent unless others are given."""
    account = changes.pop("account", None)
    return Case(payment(**changes), attempts or (attempt(),), route(*psps), account)


def account() -> Account:
    """A verified trading account in euro."""
    return Account(
        id="AC000000000000000001", client_id="CL000000000000000001", book=1, server="mt5-live",
        entity="fx-eu", brand="northgate", account_type="standard", currency="EUR",
        platform_group="real", leverage=30, rights=355, login=100_001,
        state=AccountState.VERIFIED, correlation="CR1", created=NOW, updated=NOW,
    )  # fmt: skip


def of(changes: Iterable[Change], kind: str) -> list[tuple[Any, ...]]:
    """The rows of one kind of change."""
    return [change.row for change in changes if change.kind.name == kind]


def items(settled: Settlement) -> list[tuple[str, str]]:
    """What a person is asked to look at: kind and subject."""
    return [(row[1], row[3]) for row in of(settled.changes, "gateway.item.open")]


def told(settled: Settlement) -> list[tuple[str, str]]:
    """What the outbox is asked for: lane and kind."""
    return [(row[0], row[1]) for row in of(settled.changes, "gateway.outbox.insert")]


def views(settled: Settlement) -> list[dict[str, Any]]:
    """The bodies of what callers are told."""
    rows = of(settled.changes, "gateway.outbox.insert")
    return [msgspec.json.decode(row[3]) for row in rows if row[0].startswith("subscriber:")]


def booked(settled: Settlement) -> list[tuple[str, str]]:
    """What goes into the books: kind and key."""
    return [(entry.kind, entry.key) for entry in settled.entries]
