"""Rulebooks for tests: written out as they would be read from a folder, and changed as data.

It knows the document's parts. It refuses to know what any of them means.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

from config.load import canonical, from_source, read_document
from config.rulebook import Rulebook

Document = dict[str, Any]


def written(book: Rulebook, **parts: object) -> Rulebook:
    """The same rules with the source and the hash that they would have in a folder."""
    document = {
        "entity": book.entities, "brand": book.brands, "desk": book.desks, "owner": book.owners,
        "platform": book.platforms, "group": book.groups, "psp": book.psps, "rule": book.rules,
        "role": book.roles, "symbol_group": book.symbol_groups, "plan": book.plans,
        "routing": book.routing, "outbox": book.outbox, "approval": book.approvals,
    } | parts  # fmt: skip
    return from_source(canonical(_said(msgspec.to_builtins(document))))


def _said(value: Any) -> Any:
    """Without texts that say nothing: they are defaults, and nobody writes them."""
    if isinstance(value, dict):
        return {key: _said(each) for key, each in value.items() if each != ""}
    return [_said(each) for each in value] if isinstance(value, list | tuple) else value


def document(book: Rulebook) -> Document:
    """What the rulebook says, to be changed."""
    found: Document = json.loads(book.source)
    return found


def changed(book: Rulebook, change: Callable[[Document], object]) -> Rulebook:
    """Another rulebook: the same document after a change of its data."""
    wanted = document(book)
    change(wanted)
    made, findings = read_document(wanted)
    assert made is not None, findings
    return made


def named(document: Document, part: str, name: str) -> dict[str, Any]:
    """One item of a document by its id."""
    return next(item for item in document[part] if item["id"] == name)
