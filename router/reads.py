"""What the router's tables hold, as values.

Knows how rows become the types of `intents.py` and `decide.py`. Refuses to write.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import asyncpg
import msgspec

from ledger.money import Money, currency
from router import queries as q
from router.decide import Route
from router.intents import Attempt, Intent, Payment
from router.psp.inbox import InboxEntry
from router.states import OPEN, AttemptState, PaymentState

Row = Mapping[str, Any]
_ROUTE: Final = msgspec.json.Decoder(Route)


class EventRow(msgspec.Struct, frozen=True):
    """One change of state, as it was written."""

    object_id: str
    version: int
    from_state: str
    to_state: str
    event: str
    cause: dict[str, object]
    actor: str
    at: datetime


class Surveyed(msgspec.Struct, frozen=True):
    """One attempt and its payment, to be compared with a provider's own books.

    reference  "" with the other fields of an attempt for a payment that never had one
    resolved   whether it was unknown once and its end was found out
    """

    payment_id: str
    payment_state: str
    minor: int
    currency: str
    created: datetime
    reference: str
    no: int
    psp: str
    state: str
    resolved: bool


async def payment(
    conn: asyncpg.Connection, payment_id: str
) -> tuple[Payment, tuple[Attempt, ...], Route] | None:
    """A payment with its attempts in order and its decision; None when there is none.

    Two statements: read inside one transaction where the versions must belong together. Otherwise
    the attempts may be newer than the payment, and a move decided on the pair fails by its version.
    """
    row = await conn.fetchrow(q.PAYMENT, payment_id)
    if row is None:
        return None
    attempts = await conn.fetch(q.ATTEMPTS, payment_id)
    return read_payment(row), tuple(map(read_attempt, attempts)), _ROUTE.decode(row["trace"])


async def payments(
    conn: asyncpg.Connection, *, client_id: str, within: str | None, state: str, after: str,
    limit: int,
) -> list[Payment]:  # fmt: skip
    """Payments newest first, below the cursor; empty strings and None ask for nothing.

    within  JSON: a list of sets {entities, brands}, null for no limit; one of them must hold both
    """
    rows = await conn.fetch(q.PAYMENTS, client_id, within, state, after, limit)
    return [read_payment(row) for row in rows]


async def by_reference(
    conn: asyncpg.Connection, reference: str
) -> tuple[Payment, tuple[Attempt, ...], Route] | None:
    """The payment that made the attempt of this reference of ours; None when there is none."""
    payment_id = await conn.fetchval(q.PAYMENT_OF_REFERENCE, reference)
    return None if payment_id is None else await payment(conn, payment_id)


async def due(conn: asyncpg.Connection, now: datetime, limit: int) -> list[str]:
    """Ids of payments somebody must look at by `now`, the longest waiting first."""
    return [row["id"] for row in await conn.fetch(q.DUE, now, limit)]


async def events(conn: asyncpg.Connection, payment_id: str) -> list[EventRow]:
    """The history of a payment and its attempts, oldest first."""
    rows = await conn.fetch(q.EVENTS, payment_id)
    return [msgspec.convert(_with_cause(row), EventRow) for row in rows]


async def parked(conn: asyncpg.Connection, limit: int) -> list[InboxEntry]:
    """Parked notices whose attempt exists by now (`payment_id` says whose), oldest first."""
    return [InboxEntry(**row, applied_at=None) for row in await conn.fetch(q.PARKED, limit)]


async def parked_count(conn: asyncpg.Connection) -> int:
    """How many notices are parked."""
    count: int = await conn.fetchval(q.PARKED_COUNT)
    return count


async def newest_intents(conn: asyncpg.Connection, limit: int) -> list[tuple[str, Intent]]:
    """The newest payments, each by its id with what routing looked at."""
    found = [read_payment(row) for row in await conn.fetch(q.NEWEST, limit)]
    return [(each.id, each.intent) for each in found]


async def open_attempts(conn: asyncpg.Connection, psps: list[str]) -> dict[str, int]:
    """How many attempts at each of these providers have no end yet."""
    rows = await conn.fetch(q.OPEN_ATTEMPTS, psps, [state.value for state in OPEN])
    return {row["psp"]: row["attempts"] for row in rows}


async def survey(conn: asyncpg.Connection) -> list[Surveyed]:
    """Every attempt of every payment, by payment and number."""
    return [Surveyed(**row) for row in await conn.fetch(q.SURVEY)]


def read_payment(row: Row) -> Payment:
    """A row of `router.payment` as a value."""
    return Payment(
        id=row["id"], version=row["version"], state=PaymentState(row["state"]), book=row["book"],
        client_id=row["client_id"], entity=row["entity"], brand=row["brand"],
        country=row["country"], method=row["method"], risk_band=row["risk_band"],
        instrument=row["instrument"], amount=Money(row["amount_minor"], currency(row["currency"])),
        account_id=row["account_id"], caller=row["caller"], correlation=row["correlation"],
        rulebook=row["rulebook"], created=row["created"], due_at=row["due_at"],
        reason=row["reason"],
    )  # fmt: skip


def read_attempt(row: Row) -> Attempt:
    """A row of `router.attempt` as a value."""
    return Attempt(
        payment_id=row["payment_id"], no=row["no"], psp=row["psp"], reference=row["id"],
        state=AttemptState(row["state"]), version=row["version"], sent_at=row["sent_at"],
        updated=row["updated"], lease_owner=row["lease_owner"], lease_until=row["lease_until"],
        psp_reference=row["psp_reference"], code=row["code"], category=row["category"],
        cascade=row["cascade"], message=row["message"], inquiries=row["inquiries"],
        not_found_at=row["not_found_at"],
    )  # fmt: skip


def _with_cause(row: Row) -> dict[str, object]:
    return {**row, "cause": msgspec.json.decode(row["cause"])}
