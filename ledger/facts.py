"""Facts and entries as values: the words in which rooms speak to the books.

Knows their shapes only. Refuses to know how they are booked (`entries.py`), who may approve
(`gateway/control`), and where they are stored (`journal.py`).
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal

import msgspec


class Posting(msgspec.Struct, frozen=True):
    """One side of an entry. `minor` is signed: debit positive, credit negative, never zero."""

    account: AccountName
    minor: int


class AccountName(msgspec.Struct, frozen=True):
    """What an account is called before it has a number: unique in a book."""

    kind: str  # a kind of `chart.py`
    owner: str  # client, trading account, provider, partner id; "" for the house's own
    currency: str


class Entry(msgspec.Struct, frozen=True):
    """A balanced journal entry that is not booked yet.

    book       the legal entity's set of accounts
    kind       what happened, a kind of `chart.py`
    key        its natural key: with book and kind it exists once, for ever
    effective  the day it belongs to in the accounts
    postings   two or more; they sum to zero in each currency
    ref        the object it speaks of (payment, operation), for readers
    approved   by whom, for the kinds that are by approval only
    """

    book: int
    kind: str
    key: str
    effective: date
    postings: tuple[Posting, ...]
    ref: str = ""
    approved: Approved | None = None


class DepositSettled(msgspec.Struct, frozen=True, tag=True):
    """A client's deposit reached the wallet. Amount in minor units of `currency`."""

    book: int
    payment_id: str
    client_id: str
    psp: str
    currency: str
    minor: int


class ClientApproved(msgspec.Struct, frozen=True, tag=True):
    """A client passed review."""

    client_id: str
    entity: str


Fact = DepositSettled | ClientApproved


class Deal(msgspec.Struct, frozen=True, kw_only=True):
    """A deal of a trading platform in the books' words, as one look at the platform showed it.

    phase      DEAL on MT5; OPEN or CLOSE on MT4
    action     MT5's number: 0 buy, 1 sell, 2 balance and above: money without a trade
    entry      0 in, 1 out, 2 reversal, 3 out by an opposite position
    volume     1e-8 lots; `closed` is how much of it closed a position
    profit     and commission, swap, fee: minor units of the account's currency of `digits` decimals
    flags      not 0: the record was touched after it was made
    at         UTC, to the millisecond; `server_ms` is the wall clock it was made from
    opened     when the position it closes was opened; None where that is not known
    """

    ticket: int
    phase: int
    login: int
    position: int
    action: int
    entry: int
    reason: int
    symbol: str
    volume: int
    closed: int
    price: Decimal
    digits: int
    profit: int
    commission: int
    swap: int
    fee: int
    flags: int
    comment: str
    at: datetime
    server_ms: int
    opened: datetime | None = None


DEAL, OPEN, CLOSE = 0, 1, 2  # a deal's phase


class Approved(msgspec.Struct, frozen=True):
    """An approval as the books receive it; maker and checker are persons and never the same."""

    id: str
    maker: str
    checker: str
    policy_version: str

    def __post_init__(self) -> None:
        if self.maker == self.checker:
            raise ValueError(f"approval {self.id}: maker and checker are one person")
