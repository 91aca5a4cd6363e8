"""What partners earned over HTTP: balances, lines, what is owed in all.

Knows paths, parameters and how amounts are written. Refuses to compute and to know who may see a
contract: the ledger answers, and the call says what is in reach.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.control.refusals import Refusal, not_found
from gateway.flows.live_events import ContractNow
from gateway.http.bodies import Params
from gateway.http.books import Entity, Moment, amount_text, closed, entities_of
from gateway.http.calls import Call, reply
from gateway.http.paging import Limit, NumberCursor
from gateway.people.reach import InReach
from ledger.rebates import reads
from ledger.rebates.liability import Liability, liability
from ledger.rebates.lines import LineKind, Reason
from ledger.verdicts import LOT

if TYPE_CHECKING:
    import asyncpg

NO_BOOK: Final = 0


class BalancesParams(Params, frozen=True):
    """Now, or as they were at a closed moment, RFC 3339 with its offset."""

    as_of: Moment | None = None


class LinesParams(Params, frozen=True):
    """Which lines: those after a number in their order, or the newest first before one.

    contract  needed where the partner has more than one: numbers count within a book
    as_of     only those that were booked up to a closed moment
    """

    contract: Annotated[str, Meta(max_length=20)] = ""
    after: NumberCursor = 0
    before: NumberCursor = 0
    newest: bool = False
    as_of: Moment | None = None
    limit: Limit = 50


class LiabilityParams(Params, frozen=True):
    """Of one entity or of all within reach; now, or at a closed moment."""

    entity: Entity = ""
    as_of: Moment | None = None


class ContractBalancesView(ContractNow, frozen=True, kw_only=True):
    """The same as a stream tells, and `at`, when the contract's newest batch was booked."""

    at: datetime | None


class PartnerBalances(msgspec.Struct, frozen=True, kw_only=True):
    """The balances of a partner's contracts within the caller's reach."""

    partner: str
    as_of: datetime | None
    contracts: tuple[ContractBalancesView, ...]


class DealtView(msgspec.Struct, frozen=True, kw_only=True):
    """The deal that a line pays for; `lots` is how much of it closed a position."""

    ticket: int
    version: int
    symbol: str
    lots: str
    at: datetime


class LineView(msgspec.Struct, frozen=True, kw_only=True):
    """What a deal paid a contract, or why it paid nothing.

    id      names it for its explanation; `no` counts the lines of a book
    kind    `ordinary`, `difference` (an edited deal), `rounding` (concerns no deal)
    level   1 is the contract nearest the client
    reason  `paid`, or why the amount is zero
    """

    id: str
    no: int
    contract: str
    currency: str
    amount: str
    kind: str
    level: int
    reason: str
    plan: int
    at: datetime
    deal: DealtView | None


class LinePage(msgspec.Struct, frozen=True):
    """A page of lines; `next` is the number to go on from, null on the last page."""

    data: tuple[LineView, ...]
    next: int | None
    as_of: datetime | None


class LiabilityView(msgspec.Struct, frozen=True, kw_only=True):
    """What an entity owes its partners in one currency.

    total   accrued, held and payable
    earned  the sum of all lines ever
    """

    entity: str
    currency: str
    accrued: str
    held: str
    payable: str
    total: str
    earned: str
    contracts: int


class LiabilityList(msgspec.Struct, frozen=True):
    """By entity and currency."""

    data: tuple[LiabilityView, ...]
    as_of: datetime | None


async def balances(call: Call) -> web.Response:
    """GET /v1/partners/{id}/balances."""
    asked = call.params(BalancesParams)
    contracts = await call.reaches_partner(call.path("id"))
    wanted = [(each.book, each.id) for each in contracts]
    async with call.parts.pool.acquire() as conn:
        if asked.as_of is None:
            today = call.parts.now().astimezone(UTC).date()
            found = await reads.contract_balances(conn, wanted, today)
        else:
            found = await closed(reads.contract_balances_as_of(conn, wanted, asked.as_of))
    views = tuple(map(balances_view, contracts, found))
    return reply(PartnerBalances(partner=call.path("id"), as_of=asked.as_of, contracts=views))


async def lines(call: Call) -> web.Response:
    """GET /v1/partners/{id}/lines."""
    asked = call.params(LinesParams)
    contract = _one(await call.reaches_partner(call.path("id")), asked.contract)
    more = asked.limit + 1
    async with call.parts.pool.acquire() as conn:
        last = await closed(_last_line(conn, contract, asked.as_of))
        if contract is None:
            found = []
        elif asked.newest:
            before = min(asked.before or reads.NUMBER_MAX, last + 1)
            found = await reads.latest(conn, contract.book, contract.id, more, before)
        else:
            found = await reads.lines(conn, contract.book, contract.id, asked.after, more, last)
    data = found[: asked.limit]
    following = data[-1].no if len(found) > asked.limit else None
    return reply(LinePage(tuple(map(line_view, data)), following, asked.as_of))


async def _last_line(
    conn: asyncpg.Connection, contract: InReach | None, as_of: datetime | None
) -> int:
    """The last line that may be shown; who has no contract yet may have lines by then too."""
    if as_of is None:
        return reads.NUMBER_MAX - 1
    book = NO_BOOK if contract is None else contract.book
    return await reads.last_line_as_of(conn, book, as_of)


async def owed(call: Call) -> web.Response:
    """GET /v1/rebates/liability."""
    asked = call.params(LiabilityParams)
    books = entities_of(call, asked.entity)
    async with call.parts.pool.acquire() as conn:
        found = await closed(liability(conn, list(books), asked.as_of))
    data = tuple(_liability(each, books[each.book]) for each in found)
    return reply(LiabilityList(data, asked.as_of))


def balances_view(contract: InReach, held: reads.ContractBalances) -> ContractBalancesView:
    """As callers see them; a contract that never earned has zeros of its currency."""
    unit = contract.currency
    return ContractBalancesView(
        contract=held.contract,
        currency=unit,
        accrued=amount_text(held.accrued, unit),
        held=amount_text(held.held, unit),
        payable=amount_text(held.payable, unit),
        today=amount_text(held.today, unit),
        lines=held.lines,
        last_line=held.last_line,
        version=held.version,
        at=held.at,
    )


def line_view(line: reads.Line) -> LineView:
    """A line as callers see it."""
    return LineView(
        id=f"{line.book}-{line.no}",
        no=line.no,
        contract=line.contract,
        currency=line.currency,
        amount=amount_text(line.amount, line.currency),
        kind=LineKind(line.kind).name.lower(),
        level=line.level,
        reason=Reason(line.reason).name.lower(),
        plan=line.plan,
        at=line.at,
        deal=None if line.deal is None else _dealt(line.deal),
    )


def _dealt(deal: reads.Dealt) -> DealtView:
    return DealtView(
        ticket=deal.ticket,
        version=deal.version,
        symbol=deal.symbol,
        lots=lots(deal.closed),
        at=deal.at,
    )


def lots(volume: int) -> str:
    """A volume of 1e-8 lots as people write it: `0.01`, `1`."""
    whole, rest = divmod(volume, LOT)
    return f"{whole}.{rest:08}".rstrip("0").rstrip(".")


def _one(contracts: tuple[InReach, ...], wanted: str) -> InReach | None:
    """The contract whose lines are asked for; None for a partner who has none yet."""
    if not wanted and len(contracts) > 1:
        raise Refusal("contract-needed", "the partner has several contracts: name one")
    for each in contracts:
        if wanted in ("", each.id):
            return each
    if wanted:
        raise not_found("contract", wanted)
    return None


def _liability(owed: Liability, entity: str) -> LiabilityView:
    unit = owed.currency
    return LiabilityView(
        entity=entity,
        currency=unit,
        accrued=amount_text(owed.accrued, unit),
        held=amount_text(owed.held, unit),
        payable=amount_text(owed.payable, unit),
        total=amount_text(owed.accrued + owed.held + owed.payable, unit),
        earned=amount_text(owed.earned, unit),
        contracts=owed.contracts,
    )
