"""Refunds of second charges: asked of the provider once, booked when it says so.

The handler of `psp:` lanes. Knows that a refund bears a reference of its own, always the same, so
that an unknown outcome is asked about and never guessed: each try is counted in its row before its
first byte leaves, and every try but the first begins with the question. Refuses to know why it is
due.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import asyncpg
import msgspec

from gateway.flows.outbox import Again, Ended, Row
from gateway.owners import Ownership
from ledger import entries
from router import reads
from router.attempts import Attempts, refund_reference
from router.intents import Attempt, Payment
from router.outcomes import (
    Approved,
    Declined,
    Mismatch,
    NotFound,
    Outcome,
    Pending,
    Unknown,
    checked,
)


class Asked(msgspec.Struct, frozen=True):
    """The body of a refund's row."""

    attempt: str
    payment: str


class Refunds:
    """Gives surplus charges back."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        attempts: Attempts,
        ownership: Ownership,
        now: Callable[[], datetime],
    ) -> None:
        self._pool = pool
        self._attempts = attempts
        self._ownership = ownership
        self._now = now

    async def handle(self, row: Row) -> Ended | Again:
        """One try. After the first, the provider is asked before anything is sent again."""
        asked = msgspec.json.decode(row.body, type=Asked)
        async with self._pool.acquire() as conn:
            found = await reads.by_reference(conn, asked.attempt)
        assert found is not None, asked
        payment, attempts, _ = found
        attempt = next(a for a in attempts if a.reference == asked.attempt)
        outcome = await self._outcome(payment, attempt, first=row.attempts == 1)
        return self._ended(payment, attempt, outcome)

    async def _outcome(self, payment: Payment, attempt: Attempt, *, first: bool) -> Outcome:
        amount = payment.amount
        if not first:
            known = await self._attempts.ask_refund(attempt)
            if not isinstance(known, NotFound):
                return checked(known, amount.minor, amount.currency.code)
        return await self._attempts.refund(
            attempt, amount.minor, amount.currency.code, self._ownership.fresh
        )

    def _ended(self, payment: Payment, attempt: Attempt, outcome: Outcome) -> Ended | Again:
        if isinstance(outcome, Approved):
            mine, day = refund_reference(attempt), self._now().date()
            booked = entries.refund(
                payment.book, mine, payment.id, attempt.psp, payment.amount, day
            )
            return Ended("done", entries=(booked,))
        if isinstance(outcome, Declined):
            return Ended("refused", f"{outcome.code} {outcome.message}")
        if isinstance(outcome, Mismatch):  # something was given back: a person must book it
            return Ended("dead", f"gave back {outcome.minor} minor units of {outcome.currency}")
        lost = isinstance(outcome, Unknown | Pending)
        return Again(f"{type(outcome).__name__} {outcome}"[:200], unknown=lost)
