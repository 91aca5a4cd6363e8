"""Why a line says what it says: the stored deals, plans and dated rows it follows from.

Knows where each of them stands, and which of them a batch could know: what bears a version of the
inputs that the batch had, what was published before it. Refuses to compute (`recompute.py`), and to
know partners and clients: they are handed in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from fractions import Fraction

import asyncpg
import msgspec

from ledger import deals
from ledger import queries_rebate_reads as q
from ledger.deals import LandedDeal
from ledger.facts import Deal
from ledger.rebates import inputs as read_inputs
from ledger.rebates.inputs import Contract, Dated, Inputs
from ledger.rebates.lines import LineKind, Reason
from ledger.rebates.reads import Line
from ledger.rebates.recompute import Due, Trace, difference, due, trace, whole
from ledger.rebates.rounding import period

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


class Altered(msgspec.Struct, frozen=True):
    """A line that does not say what is computed, by its number or by its deal."""

    subject: str
    detail: str


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


async def altered(
    conn: asyncpg.Connection, book: int, batch_no: int, sources: Sources
) -> list[Altered]:
    """Compute a whole batch again: each line that says something else, is missing or too many."""
    batch = await _batch(conn, book, batch_no)
    if batch is None:
        return [Altered(f"{book}/{batch_no}", "lines of a batch that is not there")]
    expected = await _expected(conn, batch, sources)
    wrong = []
    for row in await conn.fetch(q.LINES_OF_BATCH, book, batch.feed, batch.first_deal,
                                batch.last_deal):  # fmt: skip
        key = (row["deal_no"], row["concerned_no"], row["owner"], row["kind"])
        computes = expected.pop(key, None)
        said = Due(row["owner"], LineKind(row["kind"]), row["level"], Reason(row["reason"]),
                   row["plan"], row["amount"])  # fmt: skip
        if said != computes:
            detail = f"says {_words(said)}, computes {_words(computes)}"
            wrong.append(Altered(f"{book}-{row['no']}", detail))
    return wrong + [
        Altered(f"{book} deal {deal_no}", f"has no line, computes {_words(computes)}")
        for (deal_no, _, _, _), computes in expected.items()
    ]


async def _expected(
    conn: asyncpg.Connection, batch: Batch, sources: Sources
) -> dict[tuple[int, int, str, int], Due]:
    """The lines of a batch by (deal, deal concerned, contract, kind), rounding lines at its end."""
    known = await _inputs(conn, batch, sources)
    expected: dict[tuple[int, int, str, int], Due] = {}
    for landed, mine in await _deals(conn, batch, sources):
        for each in due(landed, mine, known):
            expected[landed.no, landed.first_no, each.contract, each.kind] = each
    before = await _left_before(conn, batch, sources)
    for contract, left in (await _left_by(conn, batch, known, sources)).items():
        was = before.get(contract, Fraction(0))
        pays = Rounding(period(batch.day), was, was + left).amount
        if pays:
            line = Due(contract, LineKind.ROUNDING, 0, Reason.ROUNDING, 0, pays)
            expected[batch.last_deal, 0, contract, LineKind.ROUNDING] = line
    return expected


async def _explain_rounding(
    conn: asyncpg.Connection, line: Line, batch: Batch, known: Inputs, sources: Sources
) -> Explanation:
    before = (await _left_before(conn, batch, sources, line.contract)).get(
        line.contract, Fraction(0)
    )
    left = (await _left_by(conn, batch, known, sources)).get(line.contract, Fraction(0))
    rounding = Rounding(period(batch.day), before, before + left)
    computes = Due(line.contract, LineKind.ROUNDING, 0, Reason.ROUNDING, 0, rounding.amount)
    return Explanation(
        line=line, batch=batch, landed=None, trace=None, before=None, rounding=rounding,
        amount=rounding.amount, agrees=computes == _said(line) and line.concerned_no == 0,
    )  # fmt: skip


# --- what is left over --------------------------------------------------------------------------


async def _left_by(
    conn: asyncpg.Connection, batch: Batch, known: Inputs, sources: Sources
) -> dict[str, Fraction]:
    """What the deals of one batch leave over, by contract."""
    left: dict[str, Fraction] = {}
    for landed, mine in await _deals(conn, batch, sources):
        rungs = trace(landed.deal, mine, known).rungs
        if landed.previous is not None:
            rungs = difference(trace(landed.deal, mine, known), trace(landed.previous, mine, known))
        for rung in rungs:
            left[rung.contract] = left.get(rung.contract, Fraction(0)) + rung.left
    return left


async def _left_before(
    conn: asyncpg.Connection, batch: Batch, sources: Sources, contract: str = ""
) -> dict[str, Fraction]:
    """What all deals of the period left over before a batch, by contract.

    Deals that are alike are computed once: same client, symbol, volume and nothing dated between.
    contract  only clients that may have come to it; "" is everyone
    """
    begin = period(batch.day)
    left: dict[str, Fraction] = {}
    for run in await conn.fetch(q.RUNS, batch.book, batch.batch, begin, _next(begin)):
        part = Batch(batch.book, 0, run["feed"], run["server"], run["first_deal"],
                     run["last_deal"], begin, run["inputs"], run["at"])  # fmt: skip
        known = await _inputs(conn, part, sources)
        span = part.book, part.feed, part.first_deal, part.last_deal
        logins = [row["login"] for row in await conn.fetch(q.LOGINS, *span)]
        clients = await sources.attributions(conn, part.server, logins, part.inputs)
        if contract:
            below = _below(known, contract)
            clients = {
                login: mine for login, mine in clients.items() if any(c in below for _, c in mine)
            }
        cuts = _cuts(known, clients.values(), begin)
        for row in await conn.fetch(q.ALIKE, *span, list(clients), cuts):
            deal = _alike(row)
            for rung in trace(deal, clients[deal.login], known).rungs:
                left[rung.contract] = left.get(rung.contract, Fraction(0)) + rung.left * row["n"]
        for row in await conn.fetch(q.MOVED_EDITS, *span):
            landed = (await deals.after(conn, part.book, part.feed, row["no"] - 1, 1))[0]
            mine = clients.get(landed.deal.login, ())
            assert landed.previous is not None
            now, was = trace(landed.deal, mine, known), trace(landed.previous, mine, known)
            for rung in difference(now, was):
                left[rung.contract] = left.get(rung.contract, Fraction(0)) + rung.left
    return left


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


def _cuts(known: Inputs, attributions: Iterable[Dated], begin: date) -> list[datetime]:
    """The moments of a period at which anything dated changes."""
    first, end = (datetime.combine(day, time(), UTC) for day in (begin, _next(begin)))
    moments = {since for mine in attributions for since, _ in mine}
    moments |= {since for each in known.contracts.values() for since, _ in each.parents}
    moments |= {since for each in known.contracts.values() for since, _ in each.plans}
    moments |= {version.since for versions in known.plans.values() for version in versions}
    return sorted(moment for moment in moments if first < moment < end)


def _next(begin: date) -> date:
    """The period after this one."""
    return begin.replace(year=begin.year + begin.month // 12, month=begin.month % 12 + 1)


# --- rows ---------------------------------------------------------------------------------------


async def _batch(conn: asyncpg.Connection, book: int, batch: int) -> Batch | None:
    row = await conn.fetchrow(q.BATCH, book, batch)
    return None if row is None else Batch(*row.values())


async def _inputs(conn: asyncpg.Connection, batch: Batch, sources: Sources) -> Inputs:
    """What the batch could know. Plans take effect under a lock that no batch commits beside."""
    contracts = await sources.contracts(conn, batch.book, batch.inputs)
    plans = {
        id: tuple(version for version in versions if version.since <= batch.at)
        for id, versions in (await read_inputs.plan_versions(conn)).items()
    }
    return Inputs(batch.inputs, {each.id: each for each in contracts}, plans)


async def _deals(
    conn: asyncpg.Connection, batch: Batch, sources: Sources
) -> list[tuple[LandedDeal, Dated]]:
    """The deals of a batch, each with whose client its login is."""
    found = await deals.after(
        conn, batch.book, batch.feed, batch.first_deal - 1, batch.last_deal - batch.first_deal + 1
    )
    logins = sorted({landed.deal.login for landed in found})
    clients = await sources.attributions(conn, batch.server, logins, batch.inputs)
    return [(landed, clients.get(landed.deal.login, ())) for landed in found]


def _alike(row: asyncpg.Record) -> Deal:
    """One deal for all that are alike: only what accrual looks at."""
    return Deal(
        ticket=0, phase=0, login=row["login"], position=0, action=0, entry=1, reason=0,
        symbol=row["symbol"], volume=row["closed"], closed=row["closed"], price=Decimal(0),
        digits=0, profit=0, commission=0, swap=0, fee=0, flags=0, comment="", at=row["at"],
        server_ms=0,
    )  # fmt: skip


def _said(line: Line) -> Due:
    """A stored line as what it says."""
    return Due(
        line.contract, LineKind(line.kind), line.level, Reason(line.reason), line.plan, line.amount
    )


def _words(line: Due | None) -> str:
    if line is None:
        return "no line"
    return f"{line.amount} ({line.reason.name.lower()}, level {line.level}, plan {line.plan})"
