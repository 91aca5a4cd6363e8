"""Partners and their contracts: who brings clients, who stands above whom, and on which plan.

Knows partners without names: ids, references, codes, a dated tree. Refuses to know rates and what
was earned; accrual is handed contracts as its own values.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.control.access import Caller, Tags
from gateway.people import queries_partners as q
from ledger.rebates import inputs
from ledger.rebates.inputs import Dated
from ledger.units import Change, Kind, Step

if TYPE_CHECKING:
    import asyncpg

PARTNER: Final = Kind("gateway.partner.create", Step.CLAIM, q.CLAIM_PARTNER, q.LOOK_PARTNER)
CONTRACT: Final = Kind("gateway.contract.create", Step.CLAIM, q.CLAIM_CONTRACT, q.LOOK_CONTRACT)
CODE: Final = Kind("gateway.contract.code", Step.CHECK, q.CODE_FREE)
EDGE: Final = Kind("gateway.contract_edge.insert", Step.INSERT, q.INSERT_EDGE)
TERMS: Final = Kind("gateway.contract_terms.insert", Step.INSERT, q.INSERT_TERMS)

LATEST: Final = 2**63 - 1  # every version of a book's inputs
SLICE: Final = 1_000  # contracts put together before the loop serves others


class Partner(msgspec.Struct, frozen=True, kw_only=True):
    """A partner as stored; `caller` and `reference` as a client's."""

    id: str
    version: int
    caller: str
    reference: str
    kind: str
    state: str
    correlation: str
    created: datetime


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """A partner's contract with one brand of one entity, as it stands now.

    parent    the contract above it, "" at the top
    plan      the id of the plan it is on
    inputs    the version of its book's inputs that it made
    children  how many contracts stand directly below it
    """

    id: str
    partner_id: str
    brand: str
    entity: str
    book: int
    currency: str
    code: str
    parent: str
    plan: str
    inputs: int
    children: int
    correlation: str
    created: datetime

    @property
    def tags(self) -> Tags:
        """What decides for whom it exists."""
        return Tags(self.entity, self.brand, contracts=(self.id,))


# --- changes ------------------------------------------------------------------------------------


def partner_created(partner: Partner) -> Change:
    """Insert a new partner; the claim is lost when the caller's reference is taken."""
    row = (
        f"{partner.caller}:{partner.reference}", partner.id, partner.caller, partner.reference,
        partner.kind, partner.state, partner.correlation, partner.created,
    )  # fmt: skip
    return Change(PARTNER, row)


def contract_created(contract: Contract) -> tuple[Change, ...]:
    """Insert a new contract with its place in the tree and its plan, from when they are written on.

    The claim is lost when the partner has a contract with this brand, the check when another
    contract has the code. Goes with `inputs.moved` to the version that the contract names.
    """
    made = (contract.book, contract.inputs)
    row = (
        f"{contract.partner_id}:{contract.brand}:{contract.entity}", contract.id,
        contract.partner_id, contract.brand, contract.entity, contract.book, contract.currency,
        contract.code, contract.inputs, contract.correlation, contract.created,
    )  # fmt: skip
    return (
        Change(CODE, (contract.code,)),
        Change(CONTRACT, row),
        Change(EDGE, (contract.id, contract.parent, *made)),
        Change(TERMS, (contract.id, contract.plan, *made)),
    )


# --- reads --------------------------------------------------------------------------------------


async def find(conn: asyncpg.Connection, caller: Caller, id: str) -> Partner | None:
    """The partner, if it exists for this caller: it made it known, or reaches a contract of it."""
    row = await conn.fetchrow(q.SELECT_PARTNER, id, caller.filter, caller.owner)
    return None if row is None else Partner(**dict(row))


async def page(
    conn: asyncpg.Connection, caller: Caller, *, reference: str, after: str, limit: int
) -> list[Partner]:
    """Partners newest first, below the cursor; `reference` is looked up among the caller's own."""
    rows = await conn.fetch(q.SELECT_PARTNERS, after, caller.filter, caller.owner, reference, limit)
    return [Partner(**dict(row)) for row in rows]


async def contracts_of(
    conn: asyncpg.Connection, partner_ids: Sequence[str]
) -> Mapping[str, tuple[Contract, ...]]:
    """The contracts of these partners, by partner, oldest first."""
    found: dict[str, tuple[Contract, ...]] = dict.fromkeys(partner_ids, ())
    for row in await conn.fetch(q.SELECT_CONTRACTS_OF, list(partner_ids)):
        found[row["partner_id"]] = (*found[row["partner_id"]], Contract(**dict(row)))
    return found


async def contract(conn: asyncpg.Connection, id: str) -> Contract | None:
    """The contract of this id, whoever asks."""
    row = await conn.fetchrow(q.SELECT_CONTRACT, id)
    return None if row is None else Contract(**dict(row))


async def contract_within(conn: asyncpg.Connection, caller: Caller, id: str) -> Contract | None:
    """The contract of this id, if it exists for the caller."""
    return await contract(conn, id) if await within(conn, caller, [id]) else None


async def within(conn: asyncpg.Connection, caller: Caller, ids: Sequence[str]) -> frozenset[str]:
    """Those of these contracts that exist for the caller."""
    rows = await conn.fetch(q.CONTRACTS_WITHIN, list(ids), caller.filter)
    return frozenset(row["id"] for row in rows)


async def contract_of_code(conn: asyncpg.Connection, code: str) -> Contract | None:
    """The contract that a registration names by this code."""
    row = await conn.fetchrow(q.SELECT_CONTRACT_OF_CODE, code)
    return None if row is None else Contract(**dict(row))


async def read_contracts(
    conn: asyncpg.Connection, book: int, inputs_max: int = LATEST
) -> Sequence[inputs.Contract]:
    """Every contract of a book as accrual sees it, with all that its dates ever said.

    inputs_max  leaves out what a later version of the book's inputs added
    """
    return await _as_accrual_sees(
        await conn.fetch(q.BOOK_CONTRACTS, book, inputs_max),
        await conn.fetch(q.BOOK_EDGES, book, inputs_max),
        await conn.fetch(q.BOOK_TERMS, book, inputs_max),
    )


async def contracts_since(
    conn: asyncpg.Connection, book: int, after: int
) -> Sequence[inputs.Contract]:
    """The same as they are now, of those only that versions of the inputs above `after` changed."""
    if not after:
        return await read_contracts(conn, book)
    ids = [row["id"] for row in await conn.fetch(q.CHANGED_CONTRACTS, book, after)]
    if not ids:
        return []
    return await _as_accrual_sees(
        await conn.fetch(q.CONTRACTS, ids),
        await conn.fetch(q.EDGES, ids),
        await conn.fetch(q.TERMS, ids),
    )


async def _as_accrual_sees(
    contracts: Sequence[asyncpg.Record], edges: Sequence[asyncpg.Record],
    terms: Sequence[asyncpg.Record],
) -> list[inputs.Contract]:  # fmt: skip
    parents, plans = dated(edges, "contract_id"), dated(terms, "contract_id")
    found: list[inputs.Contract] = []
    for place in range(0, len(contracts), SLICE):
        found += [
            inputs.Contract(
                row["id"], row["currency"], parents.get(row["id"], ()), plans.get(row["id"], ())
            )
            for row in contracts[place : place + SLICE]
        ]
        await asyncio.sleep(0)
    return found


def dated(rows: Sequence[asyncpg.Record], owner: str) -> Mapping[str, Dated]:
    """Rows of (owner, since, value) in the order of time, as what held for each owner."""
    found: dict[str, list[tuple[datetime, str]]] = {}
    for row in rows:
        found.setdefault(row[owner], []).append((row["since"], row["value"]))
    return {id: tuple(each) for id, each in found.items()}
