"""Values of the MT5 wire and ours: scalars that travel as JSON strings, money, users, deals, time.

Knows both spellings: it reads strings or numbers, and writes strings only. Refuses to guess: a
value that does not fit raises `Unreadable`, so a half-understood answer counts as no answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

import msgspec

BALANCE_TYPE: Final = 2  # trade/balance `type`, and the deal's Action, of a balance operation
OFFSET_STEP_S: Final = 900  # time zones differ by quarters of an hour; the rest is clock error
COMMENT_CHARACTERS_MAX: Final = 31

_INTEGER = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_DECIMAL = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,9})?", re.ASCII)


class Unreadable(ValueError):
    """The answer cannot be read: for a write that means its outcome is not known."""


class User(msgspec.Struct, frozen=True, kw_only=True):
    """An account record of the platform, the fields that we set and check."""

    login: int
    group: str
    rights: int
    leverage: int
    name: str
    id: str
    comment: str


class Deal(msgspec.Struct, frozen=True, kw_only=True):
    """A deal of the platform; for balance deals `profit` is the amount, exact, in major units.

    server_time  seconds as the server's wall clock writes them, not UTC
    """

    ticket: int
    login: int
    action: int
    profit: Decimal
    comment: str
    server_time: int


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """An account's money on the platform, minor units of `digits` decimals."""

    login: int
    digits: int
    balance_minor: int
    credit_minor: int


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A group of the platform."""

    name: str
    currency: str
    digits: int


def read_text(source: Mapping[str, object], name: str) -> str:
    """A field as text; numbers become their digits. Raises Unreadable."""
    value = source.get(name)
    if isinstance(value, str):
        return value
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return str(value)
    raise Unreadable(f"{name}: no text in {_short(value)}")


def read_integer(source: Mapping[str, object], name: str) -> int:
    """A field as a whole number, from `"17"` or `17`. Raises Unreadable."""
    text = read_text(source, name)
    if not _INTEGER.fullmatch(text):
        raise Unreadable(f"{name}: no whole number in {_short(text)}")
    return int(text)


def read_decimal(source: Mapping[str, object], name: str) -> Decimal:
    """A field of money or price, exact. Raises Unreadable."""
    text = read_text(source, name)
    if not _DECIMAL.fullmatch(text):
        raise Unreadable(f"{name}: no plain decimal number in {_short(text)}")
    return Decimal(text)


def read_minor(source: Mapping[str, object], name: str, digits: int) -> int:
    """A field of money as minor units; more decimals than `digits` must be zeros."""
    scaled = read_decimal(source, name).scaleb(digits)
    if scaled != (minor := int(scaled)):
        raise Unreadable(f"{name}: {scaled} minor units of {digits} decimals are not whole")
    return minor


def write_minor(minor: int, digits: int) -> str:
    """Minor units as the wire writes them: `-0.05`, `100.00`, `7`."""
    return f"{Decimal(minor).scaleb(-digits):.{digits}f}"


def read_user(answer: object) -> User:
    """The user record in an answer."""
    source = mapping(answer)
    return User(
        login=read_integer(source, "Login"),
        group=read_text(source, "Group"),
        rights=read_integer(source, "Rights"),
        leverage=read_integer(source, "Leverage"),
        name=read_text(source, "Name"),
        id=read_text(source, "ID"),
        comment=read_text(source, "Comment"),
    )


def read_balance(answer: object) -> Balance:
    """The account state in an answer."""
    source = mapping(answer)
    digits = read_integer(source, "CurrencyDigits")
    return Balance(
        login=read_integer(source, "Login"),
        digits=digits,
        balance_minor=read_minor(source, "Balance", digits),
        credit_minor=read_minor(source, "Credit", digits),
    )


def read_group(answer: object) -> Group:
    """The group record in an answer."""
    source = mapping(answer)
    return Group(
        name=read_text(source, "Group"),
        currency=read_text(source, "Currency"),
        digits=read_integer(source, "CurrencyDigits"),
    )


def read_deals(answer: object) -> tuple[Deal, ...]:
    """The deals in an answer; their order means nothing."""
    return tuple(_read_deal(mapping(each)) for each in array(answer))


def _read_deal(source: Mapping[str, object]) -> Deal:
    return Deal(
        ticket=read_integer(source, "Deal"),
        login=read_integer(source, "Login"),
        action=read_integer(source, "Action"),
        profit=read_decimal(source, "Profit"),
        comment=read_text(source, "Comment"),
        server_time=read_integer(source, "Time"),
    )


def read_server_time(answer: object) -> int:
    """The server's clock from `{"Time": "1572518788 2019.10.31 10:46:28"}`: its first number."""
    number = read_text(mapping(answer), "Time").partition(" ")[0]
    return read_integer({"Time": number}, "Time")


def measured_offset_s(server_time: int, now: datetime) -> int:
    """How far the server's wall clock is ahead of UTC, in whole quarters of an hour.

    The rest of the difference is delay and clock error, see `clock_error_s`.
    """
    ahead = server_time - int(now.timestamp())
    return round(ahead / OFFSET_STEP_S) * OFFSET_STEP_S


def clock_error_s(server_time: int, now: datetime) -> int:
    """What is left of the difference between the clocks once the time zone is taken out."""
    return server_time - int(now.timestamp()) - measured_offset_s(server_time, now)


def to_utc(server_time: int, offset_s: int) -> datetime:
    """A moment of the server's wall clock in UTC, by the offset measured when it was received."""
    return datetime.fromtimestamp(0, UTC) + timedelta(seconds=server_time - offset_s)


def to_server_time(moment: datetime, offset_s: int) -> int:
    """A moment as the server's wall clock writes it."""
    return int(moment.timestamp()) + offset_s


def mapping(value: object) -> Mapping[str, object]:
    """The JSON object that must stand here. Raises Unreadable."""
    if not isinstance(value, dict):
        raise Unreadable(f"no object in {_short(value)}")
    return value


def array(value: object) -> list[object]:
    """The JSON array that must stand here. Raises Unreadable."""
    if not isinstance(value, list):
        raise Unreadable(f"no array in {_short(value)}")
    return value


def _short(value: object) -> str:
    """Enough of a strange value to recognise it."""
    return repr(value)[:60]
