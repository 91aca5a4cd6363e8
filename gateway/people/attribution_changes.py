"""Changes of attribution: the record of who moved a client from whom to whom, since when, and why.

Knows that a change is dated from now or later, that changes of one client stand in the order of
time, and what both partners may see of one. Refuses to decide who may ask or agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from gateway.control.refusals import Refusal
from gateway.people import queries_attribution as q
from gateway.people.clients import Client
from ledger.units import Change, Kind, Step

if TYPE_CHECKING:
    import asyncpg

RECORD: Final = Kind("gateway.attribution_change.insert", Step.INSERT, q.INSERT_CHANGE)
AHEAD_MAX: Final = timedelta(days=366)
OF_CLIENT_MAX: Final = 1_000

Ground = Literal["wrong-code", "client-asked", "agreement", "dispute", "other"]


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a question about a client's attribution keeps until it is decided.

    before, after  contracts; "" is nobody
    effective      None: as soon as it is agreed to
    """

    before: str
    after: str
    ground: Ground
    evidence: str
    effective: datetime | None


class Last(msgspec.Struct, frozen=True):
    """The last row of a client's attribution; `ahead` says that it has not begun."""

    contract_id: str
    since: datetime
    ahead: bool


class AttributionChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change as it was made: the six things that are asked of its record, and where it belongs.

    old_contract, new_contract  with their codes; "" is nobody
    effective                   since when the new one holds
    inputs                      the version of the book's inputs that it made
    """

    id: str
    client_id: str
    effective: datetime
    old_contract: str
    new_contract: str
    old_code: str
    new_code: str
    entity: str
    brand: str
    book: int
    inputs: int
    asked_by: str
    asked_role: str
    approved_by: tuple[str, ...]
    ground: str
    reason: str
    evidence: str
    approval: str
    at: datetime


def require_possible(client: Client, last: Last, wish: Wish, now: datetime) -> None:
    """Refuse a change that cannot be made. Pure; raises Refusal.

    Codes: `evidence-missing`, `effective-in-past`, `effective-too-far`, `attribution-same`,
    `attribution-ahead` while a change that was agreed to has not begun.
    """
    if not wish.evidence:
        raise Refusal("evidence-missing", "name the evidence by its id")
    if wish.effective is not None and wish.effective < now:
        raise Refusal("effective-in-past", "what was earned stays: a change begins now or later")
    if wish.effective is not None and wish.effective > now + AHEAD_MAX:
        raise Refusal("effective-too-far", f"a change begins within {AHEAD_MAX.days} days")
    if last.ahead:
        said = f"a change that was agreed to begins at {last.since.isoformat()}"
        raise Refusal("attribution-ahead", said, {"effective": last.since.isoformat()})
    if wish.after == last.contract_id:
        raise Refusal("attribution-same", f"{client.id} comes through this contract already")


def require_unmoved(last: Last, wish: Wish) -> None:
    """Raise Refusal `approval-stale` when the client's attribution changed since it was asked."""
    if last.contract_id != wish.before or last.ahead:
        raise Refusal("approval-stale", "the attribution changed since; refuse this and ask again")


def recorded(change: AttributionChange) -> Change:
    """Store the record; it goes with the dated row and the version of the inputs that it names."""
    row = (
        change.id, change.client_id, change.effective, change.old_contract, change.new_contract,
        change.entity, change.brand, change.book, change.inputs, change.asked_by,
        change.asked_role, ",".join(change.approved_by), change.ground, change.reason,
        change.evidence, change.approval,
    )  # fmt: skip
    return Change(RECORD, row)


# --- in a transaction, and reads ----------------------------------------------------------------


async def last_of(conn: asyncpg.Connection, client_id: str) -> Last:
    """The last row of a client's attribution; each client has one."""
    row = await conn.fetchrow(q.LAST_ATTRIBUTION, client_id)
    assert row is not None, client_id
    return Last(row["contract_id"], row["since"], row["ahead"])


async def begin(
    conn: asyncpg.Connection, client: Client, wish: Wish, change_id: str, inputs: int, actor: str
) -> datetime:
    """Add the dated row in the caller's transaction, which holds the book's inputs; returns since
    when it holds: the wished moment, or this one where that has passed or none was wished.
    """
    assert conn.is_in_transaction()
    captured = msgspec.json.encode({"change": change_id}).decode()
    since: datetime = await conn.fetchval(
        q.ADD_ATTRIBUTION, client.id, wish.effective, wish.after, client.book, captured,
        inputs, actor,
    )  # fmt: skip
    return since


async def of_client(conn: asyncpg.Connection, client_id: str) -> Sequence[AttributionChange]:
    """A client's changes, newest first."""
    return _changes(await conn.fetch(q.SELECT_CHANGES_OF, client_id, OF_CLIENT_MAX))


async def by_contracts(
    conn: asyncpg.Connection, contracts: Sequence[str], *, after: str, limit: int
) -> Sequence[AttributionChange]:
    """Changes that took clients from these contracts or to them, newest first below the cursor."""
    return _changes(await conn.fetch(q.SELECT_CHANGES_BY, list(contracts), after, limit))


def _changes(rows: Sequence[asyncpg.Record]) -> list[AttributionChange]:
    return [
        AttributionChange(**(dict(row) | {"approved_by": tuple(row["approved_by"])}))
        for row in rows
    ]
