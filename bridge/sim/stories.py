"""One deal told exactly, and one changed exactly: what a test plays by hand.

Knows how lots and money of a story become a deal's fields. Refuses to judge: a story may be one
that no real platform would tell.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import msgspec

from bridge.sim.books import Books
from bridge.sim.clock import Wall
from bridge.sim.dealing import Holder
from bridge.sim.market import instrument, rate_e8
from bridge.sim.trades import BALANCE, IN, LOT, Trade

LOOKED_BACK_MAX: Final = 1_000


class Told(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A deal as a story tells it. Lots, prices and money are decimals, as text or numbers.

    symbol       a deal of action 2 and above has none
    closed_lots  absent: all of `lots` but where `entry` is 0
    position     absent: a new one where `entry` is 0, else the account's last of the symbol
    late_s       how long after its own time it is booked
    raw          fields of the wire's row that shall say something else, such as an absurd Volume
    """

    login: int
    symbol: str = ""
    action: int = 0
    entry: int = 0
    lots: Decimal = Decimal(0)
    closed_lots: Decimal | None = None
    price: Decimal | None = None
    profit: Decimal = Decimal(0)
    commission: Decimal = Decimal(0)
    storage: Decimal = Decimal(0)
    fee: Decimal = Decimal(0)
    position: int | None = None
    reason: int = 0
    comment: str = ""
    late_s: float = 0.0
    raw: dict[str, str] = {}


class Changed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is changed of a deal; absent fields stay. `flags` are its ModifyFlags from then on.

    moved_s  its time, later (or earlier where it is negative) by so many seconds
    """

    ticket: int
    login: int | None = None
    symbol: str | None = None
    action: int | None = None
    entry: int | None = None
    lots: Decimal | None = None
    closed_lots: Decimal | None = None
    price: Decimal | None = None
    profit: Decimal | None = None
    commission: Decimal | None = None
    storage: Decimal | None = None
    fee: Decimal | None = None
    position: int | None = None
    reason: int | None = None
    comment: str | None = None
    flags: int = 2
    moved_s: int = 0
    raw: dict[str, str] | None = None


class Untellable(ValueError):
    """The story speaks of what is not there, in words."""


def tell(told: Told, books: Books, wall: Wall, manager: int) -> Trade:
    """The deal, with the next ticket; it is not recorded yet. Raises Untellable."""
    holder = _holder(books, told.login)
    moves_money = told.action >= BALANCE
    what = instrument(told.symbol)
    order = 0 if moves_money else books.last_order + 1
    volume = _ext(told.lots)
    closed = _ext(told.closed_lots) if told.closed_lots is not None else volume
    utc_ms = wall.utc_ms() - round(told.late_s * 1000)
    return Trade(
        ticket=books.last_ticket + 1,
        login=told.login,
        action=told.action,
        wall_ms=wall.wall_ms(utc_ms),
        utc_ms=utc_ms,
        money_digits=holder.digits,
        entry=told.entry,
        reason=told.reason,
        symbol=told.symbol,
        digits=0 if moves_money else what.digits,
        contract=0 if moves_money else what.contract,
        order=order,
        position=_position(told, books, order),
        volume=volume,
        closed=closed if told.entry != IN or told.closed_lots is not None else 0,
        price=_points(told.price, what.digits)
        if told.price is not None
        else what.start * bool(order),
        position_price=what.start if told.entry != IN else 0,
        profit=_points(told.profit, holder.digits),
        commission=_points(told.commission, holder.digits),
        storage=_points(told.storage, holder.digits),
        fee=_points(told.fee, holder.digits),
        rate_e8=0 if moves_money else rate_e8(what.quote, holder.currency),
        comment=told.comment,
        dealer=manager if moves_money else 0,
        late=told.late_s > 0,
        raw=tuple(told.raw.items()),
    )


def change(changed: Changed, books: Books) -> Trade:
    """The deal as it is after the change; it is not recorded yet. Raises Untellable."""
    deal = books.tape.get(changed.ticket)
    if deal is None:
        raise Untellable(f"there is no deal {changed.ticket}")
    _holder(books, changed.login or deal.login)
    fields: dict[str, Any] = {
        name: getattr(changed, name)
        for name in ("login", "symbol", "action", "entry", "position", "reason", "comment")
        if getattr(changed, name) is not None
    }
    if changed.lots is not None:
        fields["volume"] = _ext(changed.lots)
        fields["closed"] = 0 if deal.entry == IN else fields["volume"]
    if changed.closed_lots is not None:
        fields["closed"] = _ext(changed.closed_lots)
    if changed.price is not None:
        fields["price"] = _points(changed.price, deal.digits)
    if changed.raw is not None:
        fields["raw"] = tuple(changed.raw.items())
    fields |= _money(changed, deal.money_digits)
    return msgspec.structs.replace(
        deal,
        **fields,
        flags=changed.flags,
        edits=deal.edits + 1,
        wall_ms=deal.wall_ms + changed.moved_s * 1000,
        utc_ms=deal.utc_ms + changed.moved_s * 1000,
    )


def _holder(books: Books, login: int) -> Holder:
    user = books.users.get(login)
    if user is None:
        raise Untellable(f"there is no account {login}")
    group = books.groups[user.group]
    return Holder(login, group.currency, group.digits)


def _position(told: Told, books: Books, order: int) -> int:
    """The position that is meant; 0 where a deal only moves money."""
    if told.position is not None or not order:
        return told.position or 0
    if told.entry == IN:
        return order
    for deal in books.tape.newest_of(told.login, LOOKED_BACK_MAX):
        if deal.symbol == told.symbol and deal.position:
            return deal.position
    return order


def _money(changed: Changed, digits: int) -> dict[str, int]:
    """Amounts of a change in minor units, those that it names."""
    named = {name: getattr(changed, name) for name in ("profit", "commission", "storage", "fee")}
    return {name: _points(value, digits) for name, value in named.items() if value is not None}


def _ext(lots: Decimal) -> int:
    return _whole(lots * LOT, f"lots {lots}")


def _points(value: Decimal, digits: int) -> int:
    return _whole(value.scaleb(digits), f"{value} of {digits} decimals")


def _whole(value: Decimal, what: str) -> int:
    if not value.is_finite() or value != int(value):
        raise Untellable(f"{what}: too fine to say")
    return int(value)
