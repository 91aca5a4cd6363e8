"""Bodies and parameters: bytes become values, or a refusal that says which field is wrong.

Knows JSON and its traps. Refuses to know what a value means: amounts are parsed by the flows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from gateway.control.refusals import Refusal
from gateway.http.problems import FieldError

T = TypeVar("T")

_AT = re.compile(r" - at `([^`]*)`$")
_FIELD = re.compile(r"`([^`]*)`$")
_CODES: Final = (
    ("Object contains unknown field", "field-unknown"),
    ("Object missing required field", "field-missing"),
    ("matching regex", "field-pattern"),
    ("of length", "field-length"),
    ("Invalid enum value", "field-value"),
    ("out of range", "field-range"),
    (">=", "field-range"),
    ("<=", "field-range"),
)


class Repeated(ValueError):
    """An object names a key twice."""


class Unstorable(ValueError):
    """A text holds what no table can: a NUL, half of a surrogate pair, a final line break."""


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Read a body; raises Refusal `malformed-json` or `invalid-request`.

    The typed reader goes first, so a good body is looked at twice, cheaply: by it for the shape,
    then for repeated keys and texts no table can store. Whether a bad one is JSON at all is asked
    before its first wrong field is named.
    """
    try:
        value = decoder.decode(body)
    except msgspec.ValidationError as error:
        _look_at(body)
        found = field_error(str(error))
        raise Refusal("invalid-request", found.message, {"errors": (found,)}) from None
    except ValueError as error:  # msgspec's DecodeError, and UnicodeDecodeError
        raise Refusal("malformed-json", str(error)[:200]) from None
    _look_at(body)
    return value


def _look_at(body: bytes) -> None:
    try:
        _LOOK.decode(body.decode())
    except Unstorable as error:
        found = FieldError("$", "field-text", str(error))
        raise Refusal("invalid-request", str(error), {"errors": (found,)}) from None
    except (ValueError, RecursionError) as error:
        raise Refusal("malformed-json", str(error)[:200]) from None


def field_error(message: str) -> FieldError:
    """Split the reader's sentence into path, code and words."""
    at = _AT.search(message)
    path, words = (at[1], message[: at.start()]) if at else ("$", message)
    code = next((code for sign, code in _CODES if sign in words), "field-type")
    if code in ("field-unknown", "field-missing") and (name := _FIELD.search(words)):
        path = f"{path}.{name[1]}"
    return FieldError(path, code, words)


def _look(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        raise Repeated(f"a key stands twice: {max(names, key=names.count)[:40]!r}")
    for item in value.values():
        if type(item) is str:
            _check_text(item)
    return value


def _check_text(text: str) -> None:
    if "\x00" in text or text.endswith("\n"):
        raise Unstorable("a text holds a NUL or ends with a line break")
    if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
        raise Unstorable("a text holds half of a surrogate pair")


_LOOK: Final = json.JSONDecoder(object_pairs_hook=_look)


class Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of a route's query parameters: unknown ones are refused, so a typo is not ignored."""


P = TypeVar("P", bound=Params)


def read_params(kind: type[P], query: Mapping[str, str]) -> P:
    """Read the query string; raises Refusal `invalid-parameter`."""
    raw = dict(query)
    if len(raw) != len(query):
        raise _bad_parameter(FieldError("$", "field-repeated", "a parameter stands twice"))
    try:
        params = msgspec.convert(raw, kind, strict=False)
        for text in raw.values():
            _check_text(text)
    except msgspec.ValidationError as error:
        raise _bad_parameter(field_error(str(error))) from None
    except Unstorable as error:
        raise _bad_parameter(FieldError("$", "field-text", str(error))) from None
    return params


def _bad_parameter(found: FieldError) -> Refusal:
    return Refusal("invalid-parameter", found.message, {"errors": (found,)})
