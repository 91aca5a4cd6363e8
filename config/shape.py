"""Turning a decoded document into frozen Structs, or into *every* mistake that stands in the way.

Knows how to ask msgspec part by part and how to say its answers in plain words. Refuses to know
where the document came from and what its values mean.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from types import NoneType
from typing import Annotated, Any, Final, TypeVar, get_args, get_origin

import msgspec
from msgspec.structs import FieldInfo, fields

from config.findings import Flaw, Path

T = TypeVar("T")
Hook = Callable[[type, Any], Any]  # makes a value of a type msgspec does not know, or ValueError

_WORDS: Final = {
    "`str`": "text", "`int`": "a whole number", "`float`": "a number", "`bool`": "true or false",
    "`array`": "a list", "`object`": "a table", "`null`": "nothing",
    "`datetime`": "a date and time", "`date`": "a date", "`time`": "a time of day",
}  # fmt: skip


class Misfit(ValueError):
    """A value that is not what its key asks for; `code` is stable, the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def shape(value: object, kind: type[T], hook: Hook | None = None) -> tuple[T | None, list[Flaw]]:
    """Convert `value` to `kind`, or return None and everything that is wrong with it."""
    flaws = list(_flaws(value, kind, (), hook))
    if flaws:
        return None, flaws
    return msgspec.convert(value, kind, dec_hook=hook), []


def leaf(value: object, kind: Any, hook: Hook | None = None, *, strict: bool = True) -> Any:
    """Convert one value of a simple type; raises Misfit.

    strict  False where the value is text that stands for another type (an environment variable)
    """
    try:
        return msgspec.convert(value, kind, strict=strict, dec_hook=hook)
    except msgspec.ValidationError as error:
        raise Misfit(*_plain(str(error), value, kind)) from None


def unknown(name: str, known: Iterable[str]) -> str:
    """What to say of a name nobody knows: the nearest known one, where there is a near one."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"unknown key `{name}`" + (f", did you mean `{near[0]}`?" if near else "")


def bare(kind: Any) -> Any:
    """The type without its bounds, and without `| None`."""
    if get_origin(kind) is Annotated:
        return bare(get_args(kind)[0])
    members = [member for member in get_args(kind) if member is not NoneType]
    if NoneType in get_args(kind) and len(members) == 1:
        return bare(members[0])
    return kind


def is_struct(kind: Any) -> bool:
    """Whether the type is a Struct, which a document writes as a table."""
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def fields_of(kind: Any) -> dict[str, FieldInfo]:
    """The keys of a Struct's table."""
    return {field.encode_name: field for field in fields(kind)}


def _flaws(value: object, kind: Any, path: Path, hook: Hook | None) -> Iterator[Flaw]:
    plain = bare(kind)
    if is_struct(plain) and isinstance(value, dict):
        yield from _table(value, plain, path, hook)
    elif get_origin(plain) is dict and isinstance(value, dict):
        yield from _map(value, plain, path, hook)
    elif get_origin(plain) is tuple and isinstance(value, list):
        yield from _list(value, kind, path, hook)
    else:
        yield from _one(value, kind, path, hook)


def _table(value: dict[str, object], kind: Any, path: Path, hook: Hook | None) -> Iterator[Flaw]:
    known = fields_of(kind)
    missing = [name for name, field in known.items() if field.required and name not in value]
    for name in value:
        if name not in known:
            yield Flaw((*path, name), "unknown-key", unknown(name, [*missing, *known]))
    for name in missing:
        yield Flaw((*path, name), "missing-key", f"`{name}` is missing")
    for name, field in known.items():
        if name in value:
            yield from _flaws(value[name], field.type, (*path, name), hook)


def _map(value: dict[str, object], kind: Any, path: Path, hook: Hook | None) -> Iterator[Flaw]:
    key_kind, item_kind = get_args(kind)
    for name, item in value.items():
        yield from _one(name, key_kind, (*path, name), None)
        yield from _flaws(item, item_kind, (*path, name), hook)


def _list(value: list[object], kind: Any, path: Path, hook: Hook | None) -> Iterator[Flaw]:
    item_kind = get_args(bare(kind))[0]
    flaws = [
        flaw
        for number, item in enumerate(value)
        for flaw in _flaws(item, item_kind, (*path, number), hook)
    ]
    yield from flaws
    if not flaws:  # only then can a complaint be about the list itself: its length
        yield from _one(value, kind, path, hook)


def _one(value: object, kind: Any, path: Path, hook: Hook | None) -> Iterator[Flaw]:
    try:
        leaf(value, kind, hook)
    except Misfit as error:
        yield Flaw(path, error.code, str(error))


def _plain(reason: str, value: object, kind: Any) -> tuple[str, str]:
    """Say a complaint of msgspec to a person who has never heard of it: a code, and words."""
    if "matching regex" in reason and (wanted := _description(kind)):
        return "wrong-value", f"expected {wanted}, found {value!r}"
    if reason.startswith("Invalid enum value"):
        choices = ", ".join(f"`{choice}`" for choice in get_args(bare(kind)))
        return "wrong-value", f"expected one of {choices}, found {value!r}"
    code = "wrong-type" if reason.startswith("Expected") and ", got " in reason else "wrong-value"
    for word, plain in _WORDS.items():
        reason = reason.replace(word, plain)
    return code, reason.replace("Expected", "expected").replace(", got", ", found")


def _description(kind: Any) -> str:
    if get_origin(kind) is not Annotated:
        return ""
    return next((meta.description for meta in kind.__metadata__ if meta.description), "")
