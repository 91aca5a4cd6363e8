"""Reach: which contracts of a partner exist for a caller.

Knows that an API key sees contracts of its entities, and a partner on a page of their own sees
their own contracts and those below them. Refuses to know what is then read of a contract.
"""

from __future__ import annotations

from datetime import datetime

import asyncpg
import msgspec

from gateway.control.access import Caller
from gateway.control.refusals import not_found
from gateway.people import queries_reach as q
from ledger.ids import is_id


class InReach(msgspec.Struct, frozen=True):
    """A contract that the caller may read."""

    id: str
    partner_id: str
    book: int
    brand: str
    code: str
    currency: str


async def contracts(
    conn: asyncpg.Connection, caller: Caller, partner_id: str, now: datetime
) -> tuple[InReach, ...]:
    """The partner's contracts within the caller's reach, by id.

    Empty for a partner who has no contract yet. Raises Refusal `not-found` for a partner who does
    not exist, and for one none of whose contracts is in reach.
    """
    rows = []
    if is_id(partner_id, "PA"):
        if caller.partner:
            rows = await conn.fetch(q.CONTRACTS_OF_PARTNER, partner_id, caller.partner, now)
        else:
            rows = await conn.fetch(q.CONTRACTS_OF_KEY, partner_id, caller.filter)
    if not rows:
        raise not_found("partner", partner_id)
    return tuple(
        InReach(
            row["id"], row["partner_id"], row["book"], row["brand"], row["code"], row["currency"]
        )
        for row in rows
        if not row["none"]
    )


async def contract(
    conn: asyncpg.Connection, caller: Caller, contract_id: str, now: datetime
) -> InReach:
    """One contract; raises Refusal `not-found` when it does not exist or is not in reach."""
    partner_id = await conn.fetchval(q.PARTNER_OF_CONTRACT, contract_id)
    if partner_id is not None:
        for each in await contracts(conn, caller, partner_id, now):
            if each.id == contract_id:
                return each
    raise not_found("contract", contract_id)
