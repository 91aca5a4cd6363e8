"""What a look at a platform's deal means for the books: new, seen before, edited, or set aside.

Knows which fields make a deal the same deal, which may be edited, which values no deal can have,
and when the position it closes was opened. Refuses to know tables and other rooms: who a login is
and which symbols exist is asked before (`gateway/flows/landing.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Final

import msgspec

from ledger.facts import CLOSE, DEAL, Deal
from ledger.money import MINOR_MAX

LOT: Final = 100_000_000  # volumes are 1e-8 lots
VOLUME_MAX: Final = 10_000 * LOT
FIRST_TIME: Final = datetime(2000, 1, 1, tzinfo=UTC)
AHEAD_MAX: Final = timedelta(days=1)
EARLY_MAX: Final = timedelta(minutes=15)  # as far as a server's clock may be wrong
DIGITS_MAX: Final = 8
TEXT_MAX: Final = 256  # longer than any platform's comment
PRICE_DIGITS_MAX: Final = 20  # before the point, and in all
SMALL, WHOLE, LONG = 2**15 - 1, 2**31 - 1, 2**63 - 1  # what the columns hold
VERSIONS_MAX: Final = SMALL
CONTENT_BYTES: Final = 16
BALANCE: Final = 2  # this action and those above it move money without a trade
IN, REVERSAL = 0, 2


class Reason(StrEnum):
    """Why a deal waits beside the books; stored, so a name never changes."""

    LOGIN = "unknown-login"
    SYMBOL = "unknown-symbol"
    ABSURD = "absurd-value"
    IDENTITY = "identity-changed"
    AHEAD = "ahead-of-time"


class Parked(msgspec.Struct, frozen=True):
    """A deal, or a row that cannot be read as one, to wait beside the books.

    content  tells one look at the ticket from another
    subject  whom or what the reason is about: a login, a symbol, a ticket, a minute
    body     JSON text: `deal` as it was seen, or `raw`; and `detail` for a person
    """

    ticket: int
    phase: int
    content: bytes
    reason: Reason
    subject: str
    body: str


class Body(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a parked row; `deal` is there where it could be read."""

    detail: str
    deal: Deal | None = None
    raw: str = ""


class Known(msgspec.Struct, frozen=True):
    """The newest version of a ticket in the books."""

    book: int
    version: int
    deal: Deal


class Meaning(Enum):
    """What one look at a deal says, beside the books."""

    NEW = "new"
    REPEATED = "repeated"
    EDITED = "edited"
    ALTERED = "altered"  # its login, symbol, side, volume or time is another


class Opening(msgspec.Struct, frozen=True):
    """A deal that opened a position, or turned it round."""

    at: datetime
    ticket: int
    entry: int


def identity(book: int, deal: Deal) -> tuple[object, ...]:
    """What stays as long as the deal is the same deal."""
    return (
        book, deal.login, deal.position, deal.action, deal.entry, deal.symbol, deal.volume,
        deal.closed, deal.server_ms,
    )  # fmt: skip


def amounts(deal: Deal) -> tuple[object, ...]:
    """What an edit may change."""
    return (
        deal.price, deal.profit, deal.commission, deal.swap, deal.fee, deal.digits, deal.flags,
        deal.reason, deal.comment,
    )  # fmt: skip


def content(deal: Deal) -> bytes:
    """Sixteen bytes that differ when anything the platform said of the deal differs."""
    price = deal.price.normalize() if _is_price(deal.price) else deal.price  # 1.10 is 1.1
    said = repr((identity(0, deal), str(price), amounts(deal)[1:]))
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).digest()[:CONTENT_BYTES]


def meaning(book: int, deal: Deal, known: Known | None) -> Meaning:
    """What this look at a deal says beside the newest version in the books."""
    if known is None:
        return Meaning.NEW
    if identity(book, deal) != identity(known.book, known.deal):
        return Meaning.ALTERED
    same = amounts(deal) == amounts(known.deal)
    return Meaning.REPEATED if same else Meaning.EDITED


def changed(deal: Deal, known: Known) -> str:
    """The fields of its identity that a deal's look changed, for a person."""
    fields = [
        field
        for field in ("login", "position", "action", "entry", "symbol", "volume", "closed",
                      "server_ms")
        if getattr(deal, field) != getattr(known.deal, field)
    ]  # fmt: skip
    said = [f"{f} {getattr(known.deal, f)} is now {getattr(deal, f)}" for f in fields]
    return "; ".join(said) or "its account moved to another book"


def absurd(deal: Deal, now: datetime) -> str:
    """Why no deal can look like this; "" where it may be booked."""
    for field, least, most in _BOUNDS:
        if not least <= getattr(deal, field) <= most:
            return f"{field} is {getattr(deal, field)}"
    if deal.closed > deal.volume:
        return f"closed is {deal.closed} of a volume of {deal.volume}"
    if not _is_price(deal.price):
        return f"price is {str(deal.price)[:60]}"
    if not FIRST_TIME <= deal.at <= now + AHEAD_MAX:
        return f"at is {deal.at.isoformat()}"
    if "\0" in deal.symbol or "\0" in deal.comment:
        return "symbol or comment holds a NUL"
    if len(deal.symbol) > TEXT_MAX or len(deal.comment) > TEXT_MAX:
        return "symbol or comment is too long"
    return "" if deal.action >= BALANCE else _absurd_trade(deal)


def early(deal: Deal, now: datetime) -> str:
    """The minute from which a deal of the future may be booked; "" where it may be now.

    What is in force at a deal's time must be known when it is accrued, so it may not come first.
    """
    if deal.at <= now + EARLY_MAX:
        return ""
    minute = (deal.at - EARLY_MAX).replace(second=0, microsecond=0) + timedelta(minutes=1)
    return minute.isoformat(timespec="minutes")


def has_come(minute: str, now: datetime) -> bool:
    """Whether deals that wait for this minute may be booked."""
    return datetime.fromisoformat(minute) <= now


def _is_price(price: Decimal) -> bool:
    """Whether the number is one that can be stored and compared."""
    if not price.is_finite():
        return False
    return max(len(price.as_tuple().digits), abs(price.adjusted())) <= PRICE_DIGITS_MAX


def _absurd_trade(deal: Deal) -> str:
    if not deal.symbol:
        return "a trade without a symbol"
    return f"price is {deal.price}" if deal.price <= 0 else ""


_BOUNDS: Final = (
    ("ticket", 1, LONG), ("phase", DEAL, CLOSE), ("login", 1, LONG), ("position", 0, LONG),
    ("action", 0, SMALL), ("entry", 0, SMALL), ("reason", 0, SMALL), ("volume", 0, VOLUME_MAX),
    ("closed", 0, VOLUME_MAX), ("digits", 0, DIGITS_MAX), ("profit", -MINOR_MAX, MINOR_MAX),
    ("commission", -MINOR_MAX, MINOR_MAX), ("swap", -MINOR_MAX, MINOR_MAX),
    ("fee", -MINOR_MAX, MINOR_MAX), ("flags", 0, WHOLE), ("server_ms", 0, LONG),
)  # fmt: skip


def park(deal: Deal, reason: Reason, detail: str, minute: str = "") -> Parked:
    """Set a deal aside.

    minute  what one of the future waits for
    """
    subject = {
        Reason.LOGIN: str(deal.login), Reason.SYMBOL: deal.symbol, Reason.AHEAD: minute,
    }.get(reason, str(deal.ticket))  # fmt: skip
    kept = msgspec.structs.replace(
        deal, opened=None, symbol=_kept(deal.symbol), comment=_kept(deal.comment)
    )
    return Parked(
        _storable(deal.ticket, LONG), _storable(deal.phase, SMALL), content(deal), reason,
        subject, msgspec.json.encode(Body(detail, kept)).decode(),
    )  # fmt: skip


def park_unread(ticket: int, why: str, raw: str) -> Parked:
    """Set a row aside that cannot be read as a deal."""
    digest = hashlib.sha256(raw.encode("utf-8", "surrogatepass")).digest()[:CONTENT_BYTES]
    body = msgspec.json.encode(Body(why, raw=_kept(raw))).decode()
    return Parked(_storable(ticket, LONG), DEAL, digest, Reason.ABSURD, str(ticket), body)


def _kept(text: str) -> str:
    """Text as the server can keep it: it refuses a NUL."""
    return text.replace("\0", "\ufffd")


def parked_deal(body: str) -> Deal | None:
    """The deal that was set aside; None where it could not be read."""
    return msgspec.json.decode(body, type=Body).deal


def _storable(number: int, most: int) -> int:
    """The number where its column can hold it; 0 else: the content still tells rows apart."""
    return number if 0 <= number <= most else 0


def opened(deal: Deal, openings: Iterable[Opening]) -> datetime | None:
    """When the position that a deal closes was opened: at its last reversal before, else at its
    first deal in. None where the books hold neither.
    """
    before = [o for o in openings if (o.at, o.ticket) < (deal.at, deal.ticket)]
    turned = [o.at for o in before if o.entry == REVERSAL]
    return max(turned) if turned else min([o.at for o in before], default=None)


def opens(deal: Deal) -> bool:
    """Whether a later deal may close what this one opens."""
    return deal.entry in (IN, REVERSAL) and deal.position > 0 and deal.action < BALANCE


def with_openings(
    deals: Sequence[tuple[int, Deal]], stored: Mapping[tuple[int, int, int], Sequence[Opening]]
) -> list[tuple[int, Deal]]:
    """The deals with `opened` filled from one another and from what is stored.

    stored  (book, login, position) -> what the books hold of it
    """
    known: dict[tuple[int, int, int], list[Opening]] = {k: list(v) for k, v in stored.items()}
    for book, deal in deals:
        if opens(deal):
            mine = known.setdefault((book, deal.login, deal.position), [])
            mine.append(Opening(deal.at, deal.ticket, deal.entry))
    return [
        (book, _opened(deal, known.get((book, deal.login, deal.position), ())))
        for book, deal in deals
    ]


def closes(deal: Deal) -> bool:
    """Whether the deal closes some of a position."""
    return deal.closed > 0 and deal.position > 0 and deal.action < BALANCE


def _opened(deal: Deal, openings: Sequence[Opening]) -> Deal:
    at = opened(deal, openings) if closes(deal) else None
    return deal if at is deal.opened else msgspec.structs.replace(deal, opened=at)
