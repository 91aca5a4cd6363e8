"""Sample values for the router's tests: a small rulebook, a payment, an attempt.

It knows one example of each. It refuses to assert anything.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from config.rulebook import Entity, Psp, Routing, Rule, Rulebook, When
from ledger.money import Money, currency
from router.decide import Candidate, Route
from router.intents import Attempt, Intent, Payment
from router.states import AttemptState, PaymentState

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
REFERENCE = "AT000000000000000001"
POLICY = Routing(
    answer_timeout_s=2, lease_s=5, resolver_steps_s=(5, 15, 60), not_found_grace_s=30,
    not_found_gap_s=10, walk_limit_s=100, attempts_max=3,
)  # fmt: skip


def psp(name: str, **changes: Any) -> Psp:
    """A provider that takes cards in euro and dollars from 10 to 1000, everywhere but in Iran."""
    plain = Psp(
        id=name, connector="simpay", entities=("fx-eu", "fx-int"), methods=("card",),
        currencies=("EUR", "USD"), countries=("*",), countries_blocked=("IR",), amount_min="10",
        amount_max="1000", cost_fixed="0.25", cost_percent="1.40",
    )  # fmt: skip
    return replace(plain, **changes)


def rulebook(*rules: Rule, psps: tuple[Psp, ...] | None = None, **changes: Any) -> Rulebook:
    """Two entities, three providers, and the rules given, or one that routes everything."""
    plain = Rulebook(
        hash="a" * 64,
        entities=(
            Entity(id="fx-eu", name="FX EU", jurisdiction="CY", book=1, currency="EUR"),
            Entity(id="fx-int", name="FX Int", jurisdiction="SC", book=2, currency="USD"),
        ),
        psps=psps if psps is not None else (psp("acme"), psp("bolt"), psp("coral")),
        rules=rules or (Rule(id="all", when=When(), route=("acme", "bolt")),),
        routing=POLICY,
    )
    return replace(plain, **changes)


def intent(**changes: Any) -> Intent:
    """A card payment of 100 euro by a client of fx-eu in Germany."""
    plain = Intent(
        payment_id="PY000000000000000001", client_id="CL000000000000000001", entity="fx-eu",
        brand="northgate", country="DE", currency="EUR", minor=10_000, method="card",
        risk_band="low",
    )  # fmt: skip
    return replace(plain, **changes)


def payment(**changes: Any) -> Payment:
    """The payment of that intent, on its way since NOW."""
    plain = Payment(
        id="PY000000000000000001", version=1, state=PaymentState.IN_PROGRESS, book=1,
        client_id="CL000000000000000001", entity="fx-eu", brand="northgate", country="DE",
        method="card", risk_band="low", instrument="tok_1", amount=Money(10_000, currency("EUR")),
        account_id="", caller="crm", correlation="CR000000000000000001", rulebook="a" * 64,
        created=NOW, due_at=NOW + timedelta(seconds=5),
    )  # fmt: skip
    return replace(plain, **changes)


def attempt(state: AttemptState = AttemptState.SENT, no: int = 1, **changes: Any) -> Attempt:
    """An attempt at acme, sent at NOW under a lease of five seconds while it is `sent`."""
    sent = state is AttemptState.SENT
    plain = Attempt(
        payment_id="PY000000000000000001", no=no, psp=("acme", "bolt", "coral")[no - 1],
        reference=f"AT{no:018d}", state=state, version=1, sent_at=NOW, updated=NOW,
        lease_owner="r1" if sent else "", lease_until=NOW + timedelta(seconds=5) if sent else None,
    )  # fmt: skip
    return replace(plain, **changes)


def route(*psps: str, refused: str = "") -> Route:
    """A decision for these providers."""
    return Route("a" * 64, "all", tuple(Candidate(name, 165) for name in psps), (), refused)


def after(seconds: float) -> datetime:
    """So long after NOW."""
    return NOW + timedelta(seconds=seconds)
