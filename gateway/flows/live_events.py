"""What a partner's stream says: the balances of all contracts in reach, as one Server-Sent Event.

Knows the event's shape and its bytes. Refuses to read, and to say what changed: an event is the
whole state, so that one that was missed can never make a wrong number.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Final

import msgspec

from ledger import money
from ledger.rebates.reads import ContractBalances

PING: Final = b": here\n\n"
UNCHANGED: Final = b": as you know it\n\n"
_encode = msgspec.json.Encoder().encode


class ContractNow(msgspec.Struct, frozen=True, kw_only=True):
    """One contract as it stands.

    today      what the lines of the event's day come to
    lines      how many it has: the difference to what a reader knows is what is new, and
               `GET /v1/partners/{id}/lines?contract=&after=` with the last number known has them
    last_line  the number of the newest line; 0 before the first
    """

    contract: str
    currency: str
    accrued: str
    held: str
    payable: str
    today: str
    lines: int
    last_line: int
    version: int


class PartnerNow(msgspec.Struct, frozen=True, kw_only=True):
    """The data of an event.

    at   when the newest batch among these contracts was booked; null before the first
    day  the UTC day that `today` is about
    """

    partner: str
    at: datetime | None
    day: date
    contracts: tuple[ContractNow, ...]


class Event(msgspec.Struct, frozen=True):
    """An event, encoded once for all who read it; `chunk` is the same as HTTP/1.1 sends a part."""

    id: int
    text: bytes
    chunk: bytes


def event(partner: str, day: date, held: Sequence[ContractBalances]) -> Event:
    """The event of these balances. Its id rises with each entry, and with each contract: whoever
    comes back with it knows all of them.
    """
    now = PartnerNow(
        partner=partner, at=newest(held), day=day, contracts=tuple(map(_contract, held))
    )
    id = sum(each.version for each in held) + len(held)
    text = b"event: balances\nid: %d\ndata: %b\n\n" % (id, _encode(now))
    return Event(id, text, chunk(text))


def chunk(text: bytes) -> bytes:
    """One part of a body whose length is not known."""
    return b"%x\r\n%b\r\n" % (len(text), text)


def retry(wait_ms: int) -> bytes:
    """The last words of a stream that ends: when to come back."""
    return b"retry: %d\n\n" % wait_ms


def newest(held: Sequence[ContractBalances]) -> datetime | None:
    """When the newest batch among them was booked."""
    return max((each.at for each in held if each.at is not None), default=None)


def _contract(held: ContractBalances) -> ContractNow:
    decimals = money.currency(held.currency).exponent if held.currency else 0
    return ContractNow(
        contract=held.contract, currency=held.currency,
        accrued=money.text(held.accrued, decimals), held=money.text(held.held, decimals),
        payable=money.text(held.payable, decimals), today=money.text(held.today, decimals),
        lines=held.lines, last_line=held.last_line, version=held.version,
    )  # fmt: skip
