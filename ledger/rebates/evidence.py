"""Why a line says what it says: the stored deals, plans and dated rows it follows from.

Knows where each of them stands, and which of them a batch could know: what bears a version of the
inputs that the batch had, what was published before it. Refuses to compute (`recompute.py`), and to
know partners and clients: they are handed in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from fractions import Fraction
from typing import Final

import asyncpg
import msgspec

from ledger import deals
from ledger import queries_rebate_reads as q
from ledger import queries_rebate_verify as qv
from ledger.deals import LandedDeal
from ledger.rebates import inputs as read_inputs
from ledger.rebates.alike import Alike
from ledger.rebates.inputs import Contract, Dated, Inputs
from ledger.rebates.lines import UNIT, LineKind, Reason
from ledger.rebates.plans import PlanVersion
from ledger.rebates.reads import Line
from ledger.rebates.recompute import Due, Trace, due, trace, whole
from ledger.rebates.rounding import period

SLICE: Final = 25  # deals computed before the loop serves others

ReadContracts = Callable[[asyncpg.Connection, int, int], Awaitable[Sequence[Contract]]]
ReadAttributions = Callable[
    [asyncpg.Connection, str, Sequence[int], int], Awaitable[Mapping[int, Dated]]
]


class Sources(msgspec.Struct, frozen=True):
    """Who is asked for what other rooms keep, as of a version of the inputs.

    contracts     the contracts of a book
    attributions  whose clients the logins of a server are
    """

    contracts: ReadContracts
    attributions: ReadAttributions


class Batch(msgspec.Struct, frozen=True):
    """A batch as it was booked."""

    book: int
    batch: int
    feed: int
    server: str
    first_deal: int
    last_deal: int
    day: date
    settles: date
    inputs: int
    at: datetime


class Rounding(msgspec.Struct, frozen=True):
    """What lines of a period had left over for a contract, before a batch and after it.

    before  the sum of remainders in minor units, exact; `paid` of it are whole units
    """

    period: date
    before: Fraction
    after: Fraction

    @property
    def paid(self) -> int:
        """Minor units that rounding lines had paid before the batch."""
        return whole(self.before)

    @property
    def amount(self) -> int:
        """What a rounding line of the batch pays."""
        return whole(self.after) - whole(self.before)


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A line with all it follows from; `trace` and `before` are of the deal, or none for rounding.

    before  what the deal's last version came to, for a line of difference
    amount  what was computed; `agrees` when the line says the same in all it says
    """

    line: Line
    batch: Batch
    landed: LandedDeal | None
    trace: Trace | None
    before: Trace | None
    rounding: Rounding | None
    amount: int
    agrees: bool


async def explain(conn: asyncpg.Connection, line: Line, sources: Sources) -> Explanation:
    """Compute a line again from what its batch could know."""
    batch = await _batch(conn, line.book, line.batch)
    assert batch is not None, line
    known = await _inputs(conn, batch, sources)
    if line.kind == LineKind.ROUNDING:
        return await _explain_rounding(conn, line, batch, known, sources)
    landed = (await deals.after(conn, line.book, line.feed, line.deal_no - 1, 1))[0]
    login = landed.deal.login
    mine = (await sources.attributions(conn, batch.server, [login], batch.inputs)).get(login, ())
    expected = [each for each in due(landed, mine, known) if each.contract == line.contract]
    previous = landed.previous
    return Explanation(
        line=line, batch=batch, landed=landed, trace=trace(landed.deal, mine, known),
        before=None if previous is None else trace(previous, mine, known), rounding=None,
        amount=sum(each.amount for each in expected),
        agrees=expected == [_said(line)] and line.concerned_no == landed.first_no,
    )  # fmt: skip


async def _explain_rounding(
    conn: asyncpg.Connection, line: Line, batch: Batch, known: Inputs, sources: Sources
) -> Explanation:
    """The batch is computed again; what was left over before it stands in the books."""
    of = period(batch.settles)
    place = line.book, line.account, line.component, of
    before = Fraction(await conn.fetchval(qv.LEFT_BEFORE, *place, batch.batch - 1) or 0) / UNIT
    after = Fraction(await conn.fetchval(qv.LEFT_BEFORE, *place, batch.batch) or 0) / UNIT
    left = await _left_by(conn, batch, known, sources, line.contract)
    rounding = Rounding(of, before, before + left)
    computes = Due(line.contract, LineKind.ROUNDING, 0, Reason.ROUNDING, 0, rounding.amount)
    agrees = computes == _said(line) and line.concerned_no == 0 and rounding.after == after
    return Explanation(
        line=line, batch=batch, landed=None, trace=None, before=None, rounding=rounding,
        amount=rounding.amount, agrees=agrees,
    )  # fmt: skip


async def _left_by(
    conn: asyncpg.Connection, batch: Batch, known: Inputs, sources: Sources, contract: str
) -> Fraction:
    """What the deals of one batch leave over for a contract."""
    found = await deals.after(
        conn, batch.book, batch.feed, batch.first_deal - 1, batch.last_deal - batch.first_deal + 1
    )
    logins = sorted({landed.deal.login for landed in found})
    clients = await sources.attributions(conn, batch.server, logins, batch.inputs)
    below, alike, left = _below(known, contract), Alike(known), 0
    for number, landed in enumerate(found):
        if number % SLICE == 0:
            await asyncio.sleep(0)
        mine = clients.get(landed.deal.login, ())
        if any(came in below for _, came in mine):
            left += dict(alike.outcome(landed, mine).left).get(contract, 0)
    return Fraction(left, UNIT)


def _below(known: Inputs, contract: str) -> set[str]:
    """The contract and all that ever stood below it."""
    found, fresh = {contract}, {contract}
    while fresh:
        fresh = {
            each.id for each in known.contracts.values()
            if each.id not in found and any(parent in fresh for _, parent in each.parents)
        }  # fmt: skip
        found |= fresh
    return found


# --- rows ---------------------------------------------------------------------------------------


async def _batch(conn: asyncpg.Connection, book: int, batch: int) -> Batch | None:
    row = await conn.fetchrow(q.BATCH, book, batch)
    return None if row is None else Batch(*row.values())


async def _inputs(conn: asyncpg.Connection, batch: Batch, sources: Sources) -> Inputs:
    """What the batch could know."""
    contracts = await sources.contracts(conn, batch.book, batch.inputs)
    return known_inputs(
        batch.inputs, contracts, await read_inputs.plan_versions(conn), batch.at
    )  # fmt: skip


def known_inputs(
    version: int, contracts: Iterable[Contract], plans: Mapping[str, tuple[PlanVersion, ...]],
    at: datetime,
) -> Inputs:  # fmt: skip
    """What a batch of a moment could know: plans take effect under a lock that no batch commits
    beside.
    """
    in_force = {
        id: tuple(each for each in versions if each.since <= at) for id, versions in plans.items()
    }
    return Inputs(version, {each.id: each for each in contracts}, in_force)


def _said(line: Line) -> Due:
    """A stored line as what it says."""
    return Due(
        line.contract, LineKind(line.kind), line.level, Reason(line.reason), line.plan, line.amount
    )
