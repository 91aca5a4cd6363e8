"""What two rulebooks say differently: parts, items by their name, keys.

Knows how a rulebook is written and what names an item. Refuses to know what a difference means.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from config.load import NAMED_BY

_ABSENT: Final = None
RULES: Final = "rule"


class Difference(msgspec.Struct, frozen=True):
    """One value that is not the same: null where it is absent on that side.

    part    the table, such as `plan`
    item    what names it there, such as `eu-partner`; "" for a table of one
    key     the key within the item; "" for the item as a whole, "place" for a rule that moved
    """

    part: str
    item: str
    key: str
    before: Any = None
    after: Any = None


def differences(before: bytes, after: bytes) -> list[Difference]:
    """Every difference of two canonical sources, in the order of parts and names."""
    old, new = json.loads(before), json.loads(after)
    return [each for part in sorted(old.keys() | new.keys()) for each in _part(part, old, new)]


def parts(found: Sequence[Difference]) -> frozenset[str]:
    """The tables in which anything differs."""
    return frozenset(each.part for each in found)


def _part(part: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Difference]:
    if not isinstance(old.get(part, new.get(part)), list):
        yield from _keys(part, "", old.get(part, {}), new.get(part, {}))
        return
    before, after = _items(part, old.get(part, [])), _items(part, new.get(part, []))
    for name in [*before, *(name for name in after if name not in before)]:
        if name not in after:
            yield Difference(part, name, "", before[name], _ABSENT)
        elif name not in before:
            yield Difference(part, name, "", _ABSENT, after[name])
        else:
            yield from _keys(part, name, before[name], after[name])
    if part == RULES:
        yield from _moved(before, after)


def _items(part: str, items: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The items by what names them; those that nothing names, by their whole content."""
    keys = NAMED_BY.get(part, ("id",) if part == RULES else ())
    return {
        " / ".join(str(item.get(key, "*")) for key in keys)
        or json.dumps(item, sort_keys=True): item
        for item in items
    }


def _keys(
    part: str, item: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[Difference]:
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield Difference(part, item, key, before.get(key), after.get(key))


def _moved(before: Sequence[str] | Any, after: Sequence[str] | Any) -> Iterator[Difference]:
    """Rules that stand elsewhere among those on both sides: the first that matches decides."""
    old = [name for name in before if name in after]
    new = [name for name in after if name in before]
    for place, name in enumerate(new):
        if old[place] != name:
            yield Difference(RULES, name, "place", old.index(name) + 1, place + 1)
