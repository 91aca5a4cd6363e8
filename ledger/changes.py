"""What the books add to a unit of work besides entries: facts and holds.

Knows how each becomes a row and who reads which fact. Refuses to know what a reader does with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import asyncpg
import msgspec

from ledger import queries as q
from ledger.facts import Fact
from ledger.units import Change, Kind, Step

FACT: Final = Kind("ledger.fact.insert", Step.INSERT, q.STORE_FACT)
FACT_TOLD: Final = Kind("ledger.fact.told", Step.INSERT, q.TELL_FACT)
HOLD_PLACED: Final = Kind("ledger.hold.insert", Step.INSERT, q.PLACE_HOLD)
HOLD_ENDED: Final = Kind("ledger.hold.move", Step.MOVE, q.END_HOLD, q.LOOK_HOLDS)

# Who must act on a fact; a reader that is not named here is never told.
READERS: Final[Mapping[str, tuple[str, ...]]] = {}


def fact(what: Fact, subject: str, readers: Mapping[str, tuple[str, ...]] = READERS) -> Change:
    """Store a fact and one work row for each of its readers."""
    kind = type(what).__name__
    body = msgspec.json.encode(what).decode()
    told = readers.get(kind, ())
    if not told:
        return Change(FACT, (kind, subject, body))
    return Change(FACT_TOLD, (kind, subject, body, ",".join(told)))


def hold_placed(
    hold_id: str, book: int, client_id: str, currency: str, minor: int, at: datetime
) -> Change:
    """The row of a hold; goes with a `hold` entry of the same amount in the same unit."""
    return Change(HOLD_PLACED, (hold_id, book, client_id, currency, minor, at))


def hold_ended(hold_id: str, version: int, state: str) -> Change:
    """End a hold (`released`, `captured`); goes with the entry that empties it."""
    return Change(HOLD_ENDED, (hold_id, version, state))


async def claim_facts(conn: asyncpg.Connection, reader: str, limit: int) -> list[asyncpg.Record]:
    """Facts this reader has not acted on, taken out of its work in the caller's transaction.

    The effect belongs into the same transaction: rolled back, the work is there again.
    """
    assert conn.is_in_transaction()
    return list(await conn.fetch(q.CLAIM_FACTS, reader, limit))
