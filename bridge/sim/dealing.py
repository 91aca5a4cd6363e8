"""What clients and dealers of a simulated broker do: deals out of a seed.

Knows how positions open, close in parts, are turned round and are set against each other, and that
deals are edited, booked late and mixed with adjustments of money. Refuses to know the time, the
journal and the wire: moments and numbers are handed in, so that a seed and a list of accounts make
the same deals again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Annotated, Final, TypeVar

import msgspec

from bridge.sim import market, trades
from bridge.sim.market import DEFAULT_SYMBOLS, Instrument, Market
from bridge.sim.trades import BUY, IN, INOUT, LOT, OUT, OUT_BY, Trade

T = TypeVar("T")
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
LOTS: Final = (1, 1, 1, 2, 2, 5, 5, 10, 10, 20, 25, 50, 100, 300)  # hundredths
POSITIONS_MAX: Final = 8  # of one account
RECENT_MAX: Final = 2_000  # deals that may still be edited
LATE_MAX_S: Final = 60
ADJUSTMENT: Final = "manual adj"
OPENING_REASONS: Final = (0, 0, 0, 1, 1, 16, 17)  # client, expert, phone, web
CLOSING_REASONS: Final = (0, 0, 0, 1, 3, 4, 16)  # and stop loss, take profit
MODIFIERS: Final = (1, 2, 32)  # ModifyFlags: administrator, manager, a program of a manager


class Terms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to deal.

    per_s     deals a second; total  stop after so many, 0 goes on until it is told to stop
    logins    who deals; empty is every account there is
    edits     how many of the deals are touched later; late  how many are booked after their time
    partials  how many of the closings close a part; balances  how many deals only move money
    reversals, close_bys  how many turn a position round, and set two against each other
    """

    seed: int = 0
    per_s: Annotated[float, msgspec.Meta(gt=0, le=10_000)] = 10.0
    symbols: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = DEFAULT_SYMBOLS
    logins: tuple[int, ...] = ()
    total: Annotated[int, msgspec.Meta(ge=0)] = 0
    edits: Share = 0.01
    late: Share = 0.01
    partials: Share = 0.2
    balances: Share = 0.005
    reversals: Share = 0.005
    close_bys: Share = 0.005


class Holder(msgspec.Struct, frozen=True):
    """An account that deals; it was opened in second `opened` of the server's wall clock."""

    login: int
    currency: str
    digits: int
    opened: int = 0


class Moment(msgspec.Struct, frozen=True):
    """When it happens: the truth, and what the server's wall clock says at any moment of it."""

    utc_ms: int
    wall_ms: Callable[[int], int]


class Numbers:
    """The next tickets and orders."""

    def __init__(self, ticket: int, order: int) -> None:
        self._ticket, self._order = ticket, order

    def ticket(self) -> int:
        """A deal's number."""
        self._ticket += 1
        return self._ticket

    def order(self) -> int:
        """An order's number; a position is called by the order that opened it."""
        self._order += 1
        return self._order


class Position(msgspec.Struct):
    """What an account holds of a symbol; `side` is that of the deal that opened it."""

    id: int
    what: Instrument
    side: int
    volume: int
    price: int


class Dealing:
    """The people. Each call of `happens` is one thing that somebody does."""

    def __init__(self, terms: Terms, random: Random, manager: int) -> None:
        self._terms = terms
        self._random = random
        self._manager = manager
        self._market = Market(terms.symbols, random)
        self._open: dict[int, list[Position]] = {}
        self._recent: deque[int] = deque(maxlen=RECENT_MAX)

    def happens(self, holders: Sequence[Holder], numbers: Numbers, moment: Moment) -> list[Trade]:
        """One deal, or the two of a closing by the opposite position."""
        holder = self._any(holders)
        made = [self._timed(deal, holder, moment) for deal in self._deals(holder, numbers)]
        self._recent.extend(deal.ticket for deal in made)
        return made

    def touched(self) -> int | None:
        """With the chance of the terms the ticket of a recent deal that somebody touches now."""
        if not self._recent or not self._chance(self._terms.edits):
            return None
        return self._any(self._recent)

    def edited(self, deal: Trade) -> Trade:
        """The deal with another profit, commission or comment."""
        change: dict[str, int | str]
        match self._any(("profit", "profit", "commission", "comment")):
            case "profit":
                change = {"profit": deal.profit + self._any((-250, -100, -1, 1, 100, 250))}
            case "commission":
                change = {"commission": deal.commission + self._any((-50, 50))}
            case _:
                change = {"comment": f"checked {deal.edits + 1}"}
        flags = deal.flags | self._any(MODIFIERS)
        return msgspec.structs.replace(deal, **change, flags=flags, edits=deal.edits + 1)

    def _timed(self, deal: Trade, holder: Holder, moment: Moment) -> Trade:
        """The deal at its moment, or at an earlier one that it is booked for too late.

        No deal is older than its account.
        """
        utc_ms, late = moment.utc_ms, self._chance(self._terms.late)
        if late:
            utc_ms -= 1_000 + int(self._random.random() * (LATE_MAX_S - 1) * 1_000)
            too_early = (holder.opened + 1) * 1_000 - moment.wall_ms(utc_ms)
            utc_ms = min(moment.utc_ms, utc_ms + max(0, too_early))
        return msgspec.structs.replace(
            deal, utc_ms=utc_ms, wall_ms=moment.wall_ms(utc_ms), late=late
        )

    def _deals(self, holder: Holder, numbers: Numbers) -> list[Trade]:
        if self._chance(self._terms.balances):
            return [self._adjustment(holder, numbers)]
        held = self._open.setdefault(holder.login, [])
        if held and self._chance(self._terms.reversals):
            return [self._turn_round(holder, self._any(held), numbers)]
        if held and self._chance(self._terms.close_bys):
            return self._set_against(holder, held, numbers)
        if not held or (len(held) < POSITIONS_MAX and self._chance(0.5)):
            return [self._open_new(holder, held, numbers, self._market.pick(), self._any((0, 1)))]
        return [self._close(holder, held, numbers)]

    def _adjustment(self, holder: Holder, numbers: Numbers) -> Trade:
        """Money moved by hand: balance, credit, charge, correction or bonus."""
        return Trade(
            ticket=numbers.ticket(),
            login=holder.login,
            action=self._any((2, 2, 2, 3, 4, 5, 6)),
            wall_ms=0,
            utc_ms=0,
            money_digits=holder.digits,
            reason=trades.MANAGER_REASON,
            profit=self._any((-1, 1)) * (1 + int(self._random.random() * 5_000)),
            comment=ADJUSTMENT,
            dealer=self._manager,
        )

    def _open_new(
        self, holder: Holder, held: list[Position], numbers: Numbers, what: Instrument, side: int
    ) -> Trade:
        order = numbers.order()
        position = Position(order, what, side, self._volume(what), self._market.price(what))
        held.append(position)
        deal = self._deal(holder, position, numbers, (side, IN), position.volume, position.price)
        return msgspec.structs.replace(deal, order=order, reason=self._any(OPENING_REASONS))

    def _close(self, holder: Holder, held: list[Position], numbers: Numbers) -> Trade:
        """The whole position or a part of it."""
        position = self._any(held)
        volume = position.volume
        if self._chance(self._terms.partials) and volume > position.what.step:
            steps = (volume - 1) // position.what.step
            volume = position.what.step * (1 + int(self._random.random() * steps))
        price = self._market.price(position.what)
        deal = self._deal(holder, position, numbers, (1 - position.side, OUT), volume, price)
        position.volume -= volume
        if position.volume == 0:
            held.remove(position)
        reason = self._any(CLOSING_REASONS)
        comment = {3: f"[sl {trades.decimal(price, deal.digits)}]",
                   4: f"[tp {trades.decimal(price, deal.digits)}]"}.get(reason, "")  # fmt: skip
        storage = -int(self._random.random() * 200) if self._chance(0.1) else 0
        return msgspec.structs.replace(
            deal, order=numbers.order(), reason=reason, comment=comment, storage=storage
        )

    def _turn_round(self, holder: Holder, position: Position, numbers: Numbers) -> Trade:
        """One deal that closes the position and opens it the other way."""
        closed, more = position.volume, self._volume(position.what)
        price = self._market.price(position.what)
        kind = (1 - position.side, INOUT)
        deal = self._deal(holder, position, numbers, kind, closed + more, price)
        position.side, position.volume, position.price = 1 - position.side, more, price
        return msgspec.structs.replace(deal, order=numbers.order())

    def _set_against(self, holder: Holder, held: list[Position], numbers: Numbers) -> list[Trade]:
        """Two opposite positions of a symbol close each other; without such a pair one is made."""
        one = self._any(held)
        other = next((it for it in held if it.what == one.what and it.side != one.side), None)
        if other is None:
            return [self._open_new(holder, held, numbers, one.what, 1 - one.side)]
        volume, order, price = min(one.volume, other.volume), numbers.order(), other.price
        pair = []
        for position in (one, other):  # the profit stands in the first, the second made none
            kind = (1 - position.side, OUT_BY)
            deal = self._deal(holder, position, numbers, kind, volume, price)
            pair.append(msgspec.structs.replace(deal, order=order))
            position.volume -= volume
            if position.volume == 0:
                held.remove(position)
        return pair

    def _deal(
        self,
        holder: Holder,
        position: Position,
        numbers: Numbers,
        kind: tuple[int, int],
        volume: int,
        price: int,
    ) -> Trade:
        """A deal on a position as it was before; `kind` is Action and Entry."""
        what, (action, entry) = position.what, kind
        closed = 0 if entry == IN else min(volume, position.volume)
        gained = price - position.price if position.side == BUY else position.price - price
        rate = market.rate_e8(what.quote, holder.currency)
        return Trade(
            ticket=numbers.ticket(),
            login=holder.login,
            action=action,
            wall_ms=0,
            utc_ms=0,
            money_digits=holder.digits,
            entry=entry,
            symbol=what.symbol,
            digits=what.digits,
            contract=what.contract,
            position=position.id,
            volume=volume,
            closed=closed,
            price=price,
            position_price=position.price if closed else 0,
            profit=market.profit(what, gained, closed, rate, holder.digits) if closed else 0,
            commission=-(volume * 300 // LOT),
            fee=-1 if what.step < LOT // 1_000 else 0,
            rate_e8=rate,
        )

    def _volume(self, what: Instrument) -> int:
        """A volume of a client's taste, in whole steps of the symbol."""
        wanted = self._any(LOTS) * LOT // 100
        if what.step < LOT // 1_000:  # fine steps are used
            wanted = int(wanted * self._random.random())
        return max(what.step, wanted // what.step * what.step)

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def _any(self, of: Sequence[T]) -> T:
        return of[int(self._random.random() * len(of))]
