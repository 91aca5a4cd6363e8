"""Every deal of the simulated platform, found by ticket, by account and by the server's time.

Knows how to keep many of them small and to answer a window of thousands at once. Refuses to know
what a deal means, and the journal: whoever puts a deal here has written it there first.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Container, Iterable, Iterator
from itertools import islice
from typing import Final

import msgspec

from bridge.sim.trades import BALANCE, Trade, row

ROWS_KEPT: Final = 150_000  # encoded rows of the newest deals, which are asked for again and again
_TICKET_BITS: Final = 32
_TICKET_MASK: Final = (1 << _TICKET_BITS) - 1
_DECODER: Final = msgspec.json.Decoder(Trade)


class Tape:
    """Deals as encoded records: objects of Python would take four times the memory.

    A key is a deal's server second above its ticket, so that keys are in the order of time.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._records: dict[int, bytes] = {}
        self._rows: OrderedDict[int, msgspec.Raw] = OrderedDict()
        self._tickets = array("Q")
        self._keys = array("Q")
        self._logins = array("Q")  # beside the keys
        self._of: dict[int, array[int]] = {}  # the keys of one account

    def put(self, trade: Trade, record: bytes) -> None:
        """Keep a deal; one of the same ticket must have been taken off before."""
        key = _key(trade)
        at = bisect_left(self._keys, key)
        self._keys.insert(at, key)
        self._logins.insert(at, trade.login)
        mine = self._of.setdefault(trade.login, array("Q"))
        mine.insert(bisect_left(mine, key), key)
        self._tickets.insert(bisect_left(self._tickets, trade.ticket), trade.ticket)
        self._records[trade.ticket] = record
        self._rows[trade.ticket] = row(trade)
        if len(self._rows) > ROWS_KEPT:
            self._rows.popitem(last=False)
        self._count(trade, 1)

    def take_off(self, trade: Trade) -> None:
        """Forget a deal that is here."""
        key = _key(trade)
        at = bisect_left(self._keys, key)
        del self._keys[at], self._logins[at]
        mine = self._of[trade.login]
        del mine[bisect_left(mine, key)]
        del self._tickets[bisect_left(self._tickets, trade.ticket)]
        del self._records[trade.ticket]
        self._rows.pop(trade.ticket, None)
        self._count(trade, -1)

    def _count(self, trade: Trade, by: int) -> None:
        kind = "transfers" if trade.transfer else "balance"
        self.counts[kind if trade.action >= BALANCE else "trades"] += by
        self.counts["edits"] += by * trade.edits
        self.counts["edited"] += by * bool(trade.edits)
        self.counts["late"] += by * trade.late

    def get(self, ticket: int) -> Trade | None:
        """The deal of a ticket as it is now."""
        record = self._records.get(ticket)
        return None if record is None else _DECODER.decode(record)

    def after(self, ticket: int, limit: int) -> Iterator[Trade]:
        """Deals of higher tickets, in their order."""
        at = bisect_left(self._tickets, ticket + 1)
        return (_DECODER.decode(self._records[each]) for each in self._tickets[at : at + limit])

    def newest_of(self, login: int, limit: int) -> Iterator[Trade]:
        """An account's last deals, newest first."""
        keys = islice(reversed(self._of.get(login, array("Q"))), limit)
        return (_DECODER.decode(self._records[key & _TICKET_MASK]) for key in keys)

    def row(self, ticket: int) -> msgspec.Raw | None:
        """What the wire shows of a ticket."""
        known = self._rows.get(ticket)
        if known is None and (trade := self.get(ticket)) is not None:
            return row(trade)
        return known

    def window(self, since: int, until: int, wanted: Container[int]) -> list[msgspec.Raw]:
        """Rows of the wanted accounts with since <= Time <= until, oldest first."""
        low, high = _span(self._keys, since, until)
        pairs = zip(self._keys[low:high], self._logins[low:high], strict=True)
        return self._shown(key for key, login in pairs if login in wanted)

    def count_of(self, login: int, since: int, until: int) -> int:
        """How many deals an account has in a window."""
        low, high = _span(self._of.get(login, array("Q")), since, until)
        return high - low

    def page_of(
        self, login: int, since: int, until: int, offset: int, limit: int
    ) -> list[msgspec.Raw]:
        """Some rows of an account in a window, newest first."""
        keys = self._of.get(login, array("Q"))
        low, high = _span(keys, since, until)
        return self._shown(keys[at] for at in range(high - 1, low - 1, -1)[offset : offset + limit])

    def _shown(self, keys: Iterable[int]) -> list[msgspec.Raw]:
        rows = (self.row(key & _TICKET_MASK) for key in keys)
        return [shown for shown in rows if shown is not None]


def _key(trade: Trade) -> int:
    assert trade.ticket <= _TICKET_MASK, trade.ticket
    return (trade.wall_ms // 1000) << _TICKET_BITS | trade.ticket


def _span(keys: array[int], since: int, until: int) -> tuple[int, int]:
    """Where the keys of a window begin and end, both of its seconds included."""
    low = bisect_left(keys, since << _TICKET_BITS)
    return low, max(low, bisect_left(keys, (until + 1) << _TICKET_BITS))
