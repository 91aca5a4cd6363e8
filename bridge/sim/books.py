"""The simulated platform's own books: groups, accounts and deals, kept in an append-only journal.

Knows what is stored and that a record is in the file before it is in an answer. Refuses to know the
wire and who may do what: that is `commands.py`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import IO, Final

import msgspec

from bridge.sim.tape import Tape
from bridge.sim.trades import CREDIT, MANAGER_REASON, Trade


class Group(msgspec.Struct, frozen=True, kw_only=True, tag="group"):
    """A group; `login_from` 0 means that it brings no range of its own."""

    group: str
    currency: str
    digits: int = 2
    password_min: int = 8
    login_from: int = 0
    login_to: int = 0


class User(msgspec.Struct, frozen=True, kw_only=True, tag="user"):
    """An account as it is now: a later record of the same login replaces it. No passwords."""

    login: int
    group: str
    rights: int
    leverage: int
    name: str
    id: str
    comment: str
    registration: int


class Deal(msgspec.Struct, frozen=True, kw_only=True, tag="deal"):
    """A deal that only moves money and came by trade/balance: `minor` is its Profit.

    time  server seconds; utc_ms  the same moment in truth, 0 in journals that are older than it
    """

    ticket: int
    login: int
    action: int
    minor: int
    comment: str
    time: int
    utc_ms: int = 0
    dealer: int = 0


class Margin(msgspec.Struct, frozen=True, kw_only=True, tag="margin"):
    """Margin that open positions of an account use, minor units."""

    login: int
    minor: int


Record = Group | User | Deal | Margin | Trade
_DECODER: Final = msgspec.json.Decoder(Group | User | Deal | Margin)
_TRADES: Final = msgspec.json.Decoder(Trade)
_FIRST_ORDER: Final = 1_000_000


class Books:
    """State in memory, rebuilt from the journal when it is opened.

    deals  the deals that came by trade/balance, by login; tape  every deal, those among them
    """

    def __init__(self, path: Path) -> None:
        self.groups: dict[str, Group] = {}
        self.users: dict[int, User] = {}
        self.deals: dict[int, list[Deal]] = {}
        self.margins: dict[int, int] = {}
        self.tape = Tape()
        self.last_ticket = 100_000
        self.last_order = _FIRST_ORDER
        self._money: Counter[int] = Counter()
        self._credit: Counter[int] = Counter()
        self._transfers: Counter[int] = Counter()
        self._file = self._reopen(path)

    def _reopen(self, path: Path) -> IO[bytes]:
        """Replay every whole line; a torn last one was never answered and is cut off."""
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
        file.seek(0)
        whole = 0
        for line in file:
            if not line.endswith(b"\n"):
                break
            decoder = _TRADES if line.startswith(b"[") else _DECODER
            self._apply(decoder.decode(line), line)
            whole += len(line)
        file.truncate(whole)
        return file

    def record(self, *records: Record) -> None:
        """Store records: first all of them in the file, in one write, then in memory."""
        lines = [msgspec.json.encode(record) + b"\n" for record in records]
        self._file.write(b"".join(lines))
        self._file.flush()
        for record, line in zip(records, lines, strict=True):
            self._apply(record, line)

    def _apply(self, record: Record, line: bytes) -> None:
        match record:
            case Group():
                self.groups[record.group] = record
            case User():
                self.users[record.login] = record
            case Deal():
                self.deals.setdefault(record.login, []).append(record)
                trade = self._as_trade(record)
                self._show(trade, msgspec.json.encode(trade))
            case Margin():
                self.margins[record.login] = record.minor
            case Trade():
                self._show(record, line)

    def _show(self, trade: Trade, line: bytes) -> None:
        """Put a deal on the tape, in place of what its ticket was, and move its money."""
        before = self.tape.get(trade.ticket)
        if before is not None:
            self.tape.take_off(before)
            self._move(before, -1)
        self.tape.put(trade, line)
        self._move(trade, 1)
        self.last_ticket = max(self.last_ticket, trade.ticket)
        self.last_order = max(self.last_order, trade.order)

    def _move(self, trade: Trade, sign: int) -> None:
        if trade.action == CREDIT:
            self._credit[trade.login] += sign * trade.moved
            return
        self._money[trade.login] += sign * trade.moved
        if trade.transfer:
            self._transfers[trade.login] += sign * trade.moved

    def _as_trade(self, deal: Deal) -> Trade:
        """The whole deal behind a balance operation."""
        user = self.users.get(deal.login)
        return Trade(
            ticket=deal.ticket,
            login=deal.login,
            action=deal.action,
            wall_ms=deal.time * 1000,
            utc_ms=deal.utc_ms,
            money_digits=self.groups[user.group].digits if user else 2,
            reason=MANAGER_REASON,
            profit=deal.minor,
            comment=deal.comment,
            dealer=deal.dealer,
            transfer=True,
        )

    def balance(self, login: int) -> int:
        """What an account's deals but credits (action 3) come to, minor units."""
        return self._money[login]

    def transfers(self, login: int) -> int:
        """The part of the balance that came by trade/balance, minor units."""
        return self._transfers[login]

    def credit(self, login: int) -> int:
        """Sum of an account's credits, minor units."""
        return self._credit[login]

    def free(self, login: int) -> int:
        """What could be withdrawn with the check on: money that no position needs."""
        balance = self.balance(login)
        return min(balance, balance + self.credit(login) - self.margins.get(login, 0))

    def close(self) -> None:
        """Close the journal."""
        self._file.close()
