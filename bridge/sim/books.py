"""The simulated platform's own books: groups, accounts and deals, kept in an append-only journal.

Knows what is stored and that a record is in the file before it is in an answer. Refuses to know the
wire and who may do what: that is `commands.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

import msgspec


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
    """A deal that only moves money: `minor` is its Profit, `time` server seconds."""

    ticket: int
    login: int
    action: int
    minor: int
    comment: str
    time: int


class Margin(msgspec.Struct, frozen=True, kw_only=True, tag="margin"):
    """Margin that open positions of an account use, minor units."""

    login: int
    minor: int


Record = Group | User | Deal | Margin
_DECODER = msgspec.json.Decoder(Record)


class Books:
    """State in memory, rebuilt from the journal when it is opened."""

    def __init__(self, path: Path) -> None:
        self.groups: dict[str, Group] = {}
        self.users: dict[int, User] = {}
        self.deals: dict[int, list[Deal]] = {}
        self.margins: dict[int, int] = {}
        self.last_ticket = 100_000
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
            self._apply(_DECODER.decode(line))
            whole += len(line)
        file.truncate(whole)
        return file

    def record(self, record: Record) -> None:
        """Store one record: first in the file, then in memory."""
        self._file.write(msgspec.json.encode(record) + b"\n")
        self._file.flush()
        self._apply(record)

    def _apply(self, record: Record) -> None:
        match record:
            case Group():
                self.groups[record.group] = record
            case User():
                self.users[record.login] = record
            case Deal():
                self.deals.setdefault(record.login, []).append(record)
                self.last_ticket = max(self.last_ticket, record.ticket)
            case Margin():
                self.margins[record.login] = record.minor

    def balance(self, login: int) -> int:
        """Sum of an account's deals but credits (action 3), minor units."""
        return sum(deal.minor for deal in self.deals.get(login, ()) if deal.action != 3)

    def credit(self, login: int) -> int:
        """Sum of an account's credits, minor units."""
        return sum(deal.minor for deal in self.deals.get(login, ()) if deal.action == 3)

    def free(self, login: int) -> int:
        """What could be withdrawn with the check on: money that no position needs."""
        balance = self.balance(login)
        return min(balance, balance + self.credit(login) - self.margins.get(login, 0))

    def close(self) -> None:
        """Close the journal."""
        self._file.close()
