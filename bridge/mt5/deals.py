"""Deals of the MT5 wire as the books' own deals, or as rows that do not fit and why.

Knows the fields of a row, both scales of volumes, and what of a deal closed a position. Refuses to
repair: numbers that contradict, money that is not whole minor units and fields that are missing
make a row unfit, and its neighbours go on. It does not know who earns by a deal, nor where it goes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec

from bridge.mt5 import map as wire
from ledger.facts import DEAL, Deal

LOT: Final = 100_000_000  # VolumeExt of one lot
VOLUME_STEP: Final = 10_000  # Volume counts in steps of 1e-4 lots: so many of VolumeExt
IN, OUT, INOUT, OUT_BY = range(4)  # Entry
TRADES: Final = frozenset({0, 1})  # Action: buy and sell; all others only move money
RAW_CHARACTERS_MAX: Final = 4000

_INTEGER_MAX: Final = 2**63 - 1  # the books' widest number
_SMALL_MAX: Final = 2**15 - 1
_FLAGS_MAX: Final = 2**31 - 1
_MS_MAX: Final = 4_102_444_800_000  # the year 2100; what lies beyond is no time
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_AMOUNT: Final = re.compile(r"(-?[0-9]{1,17})(?:\.([0-9]{1,16}))?", re.ASCII)
_TICKET: Final = re.compile(rb'"Deal"\s*:\s*"?([0-9]{1,18})\b')


class Unfit(msgspec.Struct, frozen=True, kw_only=True):
    """A row that is no deal of the books.

    ticket  0 where even that cannot be read
    why     for people: the field and what is wrong with it
    raw     the row's text, shortened; it may be no JSON, and never holds a NUL
    """

    ticket: int
    why: str
    raw: str


class _Row(msgspec.Struct, frozen=True, rename="pascal"):
    """A deal as the wire writes it, the fields that we read; every scalar is text."""

    deal: str
    login: str
    action: str
    entry: str
    reason: str
    digits_currency: str
    symbol: str
    price: str
    volume: str
    profit: str
    storage: str
    commission: str
    comment: str
    position: str = msgspec.field(name="PositionID")
    time: str = ""
    time_msc: str = ""
    volume_ext: str = ""  # the rest is absent on older builds, or goes by two names
    volume_closed: str = ""
    volume_closed_ext: str = ""
    fee: str = "0"
    modify_flags: str = ""
    modification_flags: str = ""


class _Numbered(msgspec.Struct, frozen=True, rename="pascal"):
    """Of a row only its ticket."""

    deal: str | int


_ROW: Final = msgspec.json.Decoder(_Row)
_NUMBERED: Final = msgspec.json.Decoder(_Numbered)
_TOLERANT: Final = msgspec.json.Decoder(float_hook=Decimal)
_FIELDS: Final = frozenset(_Row.__struct_encode_fields__)


def ticket_of(raw: msgspec.Raw) -> int:
    """A row's ticket alone, read quickly; 0 where it cannot be read."""
    try:
        text = _NUMBERED.decode(raw).deal
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = _TICKET.search(bytes(raw))
        return int(found[1]) if found else 0
    if isinstance(text, str):
        text = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
    return text if 0 < text <= _INTEGER_MAX else 0


def read(raw: msgspec.Raw, utc_ms: Callable[[int], int]) -> Deal | Unfit:
    """One row as a deal of the books; utc_ms turns the server's wall clock into UTC."""
    try:
        return _deal(_row(raw), utc_ms)
    except wire.Unreadable as no:
        text = bytes(raw).decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
        return Unfit(ticket=ticket_of(raw), why=str(no)[:300], raw=text[:RAW_CHARACTERS_MAX])


def _row(raw: msgspec.Raw) -> _Row:
    """The fields of a row as text: at once where all of them are, else one by one."""
    try:
        return _ROW.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        source = wire.mapping(_TOLERANT.decode(raw))
        named = {name: _text(value, name) for name, value in source.items() if name in _FIELDS}
        return msgspec.convert(named, _Row)
    except (msgspec.DecodeError, UnicodeDecodeError) as no:
        raise wire.Unreadable(str(no)) from None


def _text(value: Any, name: str) -> str:
    """A scalar as the text it stands for: some servers write numbers."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    return wire.read_text({name: value}, name)


def _deal(row: _Row, utc_ms: Callable[[int], int]) -> Deal:
    """A row as a deal. Raises Unreadable."""
    digits = _integer(row.digits_currency, "DigitsCurrency", 8)
    action = _integer(row.action, "Action", _SMALL_MAX)
    entry = _integer(row.entry, "Entry", _SMALL_MAX)
    volume = _volume(row.volume, row.volume_ext, "Volume")
    server_ms = _server_ms(row)
    if "\0" in row.symbol:
        raise wire.Unreadable("Symbol: holds a NUL")
    return Deal(
        ticket=_integer(row.deal, "Deal", _INTEGER_MAX),
        phase=DEAL,
        login=_integer(row.login, "Login", _INTEGER_MAX),
        position=_integer(row.position, "PositionID", _INTEGER_MAX),
        action=action,
        entry=entry,
        reason=_integer(row.reason, "Reason", _SMALL_MAX),
        symbol=row.symbol,
        volume=volume,
        closed=_closed(row, entry, volume) if action in TRADES else 0,
        price=_price(row.price),
        digits=digits,
        profit=_minor(row.profit, digits, "Profit"),
        commission=_minor(row.commission, digits, "Commission"),
        swap=_minor(row.storage, digits, "Storage"),
        fee=_minor(row.fee, digits, "Fee"),
        flags=_integer(
            row.modify_flags or row.modification_flags or "0", "ModifyFlags", _FLAGS_MAX
        ),
        comment=row.comment.replace("\0", ""),
        at=_EPOCH + timedelta(milliseconds=utc_ms(server_ms)),
        server_ms=server_ms,
    )


def _server_ms(row: _Row) -> int:
    """The wall clock's milliseconds; an older build has seconds only."""
    if row.time_msc:
        return _integer(row.time_msc, "TimeMsc", _MS_MAX)
    return _integer(row.time, "Time", _MS_MAX // 1000) * 1000


def _closed(row: _Row, entry: int, volume: int) -> int:
    """How much of a trade closed a position, 1e-8 lots."""
    if entry == IN:
        return 0
    if entry in (OUT, OUT_BY):
        return volume
    if entry != INOUT:
        raise wire.Unreadable(f"Entry: {entry} is no way to enter or leave a position")
    if not row.volume_closed and not row.volume_closed_ext:
        raise wire.Unreadable("VolumeClosed: missing, and a reversal closes a part of its volume")
    return _volume(row.volume_closed or "0", row.volume_closed_ext, "VolumeClosed")


def _volume(text: str, text_ext: str, name: str) -> int:
    """A volume in 1e-8 lots from its two scales; the coarse one may have cut off what it lacks."""
    coarse = _integer(text, name, _INTEGER_MAX // VOLUME_STEP) * VOLUME_STEP
    fine = _integer(text_ext, f"{name}Ext", _INTEGER_MAX) if text_ext else 0
    if not fine:
        return coarse
    if abs(fine - coarse) >= VOLUME_STEP:
        raise wire.Unreadable(f"{name}: {text} and {name}Ext {text_ext} contradict each other")
    return fine


def _integer(text: str, name: str, maximum: int) -> int:
    """A whole number of 0 to maximum."""
    if not (text.isascii() and text.isdigit() and len(text) < 20) or int(text) > maximum:
        raise wire.Unreadable(f"{name}: no whole number up to {maximum} in {text[:40]!r}")
    return int(text)


def _minor(text: str, digits: int, name: str) -> int:
    """Money as minor units of `digits` decimals; further decimals must be zeros."""
    found = _AMOUNT.fullmatch(text)
    if found is None:
        raise wire.Unreadable(f"{name}: no plain decimal number in {text[:40]!r}")
    whole, part = found[1], found[2] or ""
    if len(part) != digits:
        if part[digits:].strip("0"):
            raise wire.Unreadable(f"{name}: {text} has more than {digits} decimals")
        part = part[:digits].ljust(digits, "0")
    minor = int(whole + part)
    if abs(minor) > _INTEGER_MAX:
        raise wire.Unreadable(f"{name}: {text} is more than the books can hold")
    return minor


def _price(text: str) -> Decimal:
    if not _AMOUNT.fullmatch(text):
        raise wire.Unreadable(f"Price: no plain decimal number in {text[:40]!r}")
    return Decimal(text)
