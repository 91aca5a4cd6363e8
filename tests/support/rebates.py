"""A small world of partners for tests of accrual: plans, contracts, deals, and lines read back.

Knows how to make the values that the engine takes and to read the bytes that it makes. Asserts
nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal

from ledger.deals import LandedDeal
from ledger.facts import Deal
from ledger.rebates.accrual import DEALS_MAX, Computed, Engine, batch_length, compute
from ledger.rebates.days import MIDNIGHT, settlement_day
from ledger.rebates.inputs import Contract, Dated, Inputs
from ledger.rebates.lines import Line
from ledger.rebates.plans import Mode, Plan, PlanVersion
from ledger.rebates.rates import rate
from ledger.rebates.rounding import Remainders, period

T0 = datetime(2026, 3, 2, 10, tzinfo=UTC)
BEFORE = T0 - timedelta(days=365)
BOOK, FEED = 1, 3
LOT = 10**8
COPY_HEADER = 19  # bytes before the first row


def plan(id: str, mode: Mode = "differential", currency: str = "USD", **per_lot: str) -> Plan:
    """A plan of rates by symbol; two decimals a unit of money."""
    rates = tuple(rate(value, 2, symbol=symbol) for symbol, value in per_lot.items())
    return Plan(id, currency, mode, rates)


def contract(
    id: str, plan_id: str = "", parent: str = "", since: datetime = BEFORE, currency: str = "USD"
) -> Contract:
    """A contract that has been on one plan and under one parent since `since`."""
    parents: Dated = ((since, parent),) if parent else ()
    return Contract(id, currency, parents, ((since, plan_id),) if plan_id else ())


def inputs(contracts: Iterable[Contract], plans: Iterable[Plan], version: int = 1) -> Inputs:
    """These contracts and plans, each plan in one version since long ago."""
    versions = {each.id: (PlanVersion(n, each, BEFORE),) for n, each in enumerate(plans, 1)}
    return Inputs(version, {each.id: each for each in contracts}, versions)


def ladder(*rates: str, mode: Mode = "differential", symbol: str = "EURUSD") -> Inputs:
    """A chain with these rates from the client outward: contracts CT1, CT2, ... on plans P1, ..."""
    plans = [plan(f"P{n}", mode, **{symbol: each}) for n, each in enumerate(rates, 1)]
    contracts = [
        contract(f"CT{n}", f"P{n}", f"CT{n + 1}" if n < len(rates) else "")
        for n in range(1, len(rates) + 1)
    ]
    return inputs(contracts, plans)


def accounts(of: Inputs) -> dict[str, int]:
    """A number for each contract's account, in the order of ids."""
    return {id: 1000 + n for n, id in enumerate(sorted(of.contracts), 1)}


def engine(
    of: Inputs, attributed: Mapping[int, str | Dated] | None = None, cut_off: time = MIDNIGHT
) -> Engine:
    """An engine that knows these logins' contracts; login 1 is CT1's unless told otherwise."""
    made = Engine(BOOK, of, accounts(of), cut_off=cut_off)
    told = {1: "CT1"} if attributed is None else attributed
    made.learn(FEED, {login: since_ever(to) for login, to in told.items()})
    return made


def since_ever(to: str | Dated) -> Dated:
    """A contract as a client's since long ago, "" as nobody's; dated rows as they are."""
    if isinstance(to, str):
        return ((BEFORE, to),) if to else ()
    return to


def deal(
    ticket: int = 1, closed: str | int = "1", *, login: int = 1, symbol: str = "EURUSD",
    at: datetime = T0, action: int = 0, comment: str = "",
) -> Deal:  # fmt: skip
    """A deal that closed lots (text) or 1e-8 lots (a number)."""
    volume = int(Decimal(closed) * LOT) if isinstance(closed, str) else closed
    return Deal(
        ticket=ticket, phase=0, login=login, position=ticket, action=action, entry=1, reason=0,
        symbol=symbol, volume=volume, closed=volume, price=Decimal("1.1"), digits=2, profit=0,
        commission=0, swap=0, fee=0, flags=0, comment=comment, at=at,
        server_ms=int(at.timestamp() * 1000),
    )  # fmt: skip


def landed(deals: Iterable[Deal], begin: int = 1) -> list[LandedDeal]:
    """Deals numbered densely in their order; a ticket seen before is a later version."""
    first: dict[int, int] = {}
    newest: dict[int, tuple[int, Deal]] = {}
    found = []
    for no, each in enumerate(deals, begin):
        version, previous = newest.get(each.ticket, (0, None))
        first.setdefault(each.ticket, no)
        newest[each.ticket] = (version + 1, each)
        found.append(LandedDeal(no, version + 1, each, first[each.ticket], previous))
    return found


def accrue(
    by: Engine, deals: Sequence[LandedDeal], limit: int = DEALS_MAX,
    remainders: Remainders | None = None,
) -> list[Computed]:  # fmt: skip
    """Every batch of these deals, computed from empty books or with what is remembered."""
    left = remainders or Remainders()
    done, begin = [], 0
    while begin < len(deals):
        end = begin + batch_length(deals[begin:], limit, by.cut_off)
        month = period(settlement_day(deals[begin].deal.at, by.cut_off))
        if not left.knows(month):
            left.learn(month, ())
        done.append(compute(by, left, FEED, deals[begin:end]))
        begin = end
    return done


def lines(*batches: Computed) -> list[Line]:
    """The lines of computed batches, numbered as the writer would from 1 on."""
    found: list[Line] = []
    for number, batch in enumerate(batches, 1):
        batch.copy.number(number, len(found) + 1)
        found += decoded(bytes(batch.copy.stream))
    return found


def decoded(stream: bytes) -> list[Line]:
    """Read a binary COPY stream field by field, as the server does."""
    place, found = COPY_HEADER, []
    while (fields := struct.unpack_from(">h", stream, place)[0]) != -1:
        place, row = place + 2, []
        for _ in range(fields):
            (width,) = struct.unpack_from(">i", stream, place)
            row.append(int.from_bytes(stream[place + 4 : place + 4 + width], signed=True))
            place += 4 + width
        found.append(Line(*row))
    return found
