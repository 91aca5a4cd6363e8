"""From a document to Structs, or to every mistake between them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta

from config.shape import Misfit, leaf, shape


class Leaf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The inner table."""

    size: Annotated[int, Meta(gt=0)]
    kind: Literal["a", "b"] = "a"


class Tree(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The outer table."""

    leaf: Leaf
    leaves: tuple[Leaf, ...] = ()
    named: dict[Annotated[str, Meta(pattern="^[a-z]+$", description="a word")], Leaf] = {}
    names: Annotated[tuple[str, ...], Meta(max_length=2)] = ()
    maybe: float | None = None


def flaws(value: object) -> list[tuple[object, str, str]]:
    """Path, code and message of each mistake."""
    found, wrong = shape(value, Tree)
    assert (found is None) == bool(wrong)
    return [(flaw.path, flaw.code, flaw.message) for flaw in wrong]


def test_a_right_document_becomes_its_structs() -> None:
    """Lists become tuples, absent keys their defaults."""
    found, wrong = shape(
        {"leaf": {"size": 1}, "leaves": [{"size": 2, "kind": "b"}], "maybe": 1}, Tree
    )
    assert wrong == []
    assert found == Tree(Leaf(1), (Leaf(2, "b"),), maybe=1.0)


def test_every_level_is_judged() -> None:
    """A mistake in one table hides none in another."""
    document = {
        "leaf": {"size": 0, "kind": "c"},
        "leaves": [{"size": 1}, {"sise": 1}, 3],
        "named": {"ok": {"size": 1}, "Bad": {"size": "x"}},
        "names": ["a", 1],
        "moon": 1,
    }
    assert flaws(document) == [
        (("moon",), "unknown-key", "unknown key `moon`"),
        (("leaf", "size"), "wrong-value", "expected a whole number >= 1"),
        (("leaf", "kind"), "wrong-value", "expected one of `a`, `b`, found 'c'"),
        (("leaves", 1, "sise"), "unknown-key", "unknown key `sise`, did you mean `size`?"),
        (("leaves", 1, "size"), "missing-key", "`size` is missing"),
        (("leaves", 2), "wrong-type", "expected a table, found a whole number"),
        (("named", "Bad"), "wrong-value", "expected a word, found 'Bad'"),
        (("named", "Bad", "size"), "wrong-type", "expected a whole number, found text"),
        (("names", 1), "wrong-type", "expected text, found a whole number"),
    ]


def test_the_length_of_a_list_is_judged_when_its_items_are_right() -> None:
    """Too many right names are one mistake, of the list."""
    assert flaws({"leaf": {"size": 1}, "names": ["a", "b", "c"]}) == [
        (("names",), "wrong-value", "expected a list of length <= 2")
    ]


def test_a_document_that_is_no_table_is_one_mistake() -> None:
    """There is nothing else to say of it."""
    assert flaws([]) == [((), "wrong-type", "expected a table, found a list")]


def test_text_stands_for_other_types_only_where_it_must() -> None:
    """A variable's text is read as its type; in a document "1" is no number."""
    assert leaf("1", int, strict=False) == 1
    with pytest.raises(Misfit, match="expected a whole number, found text"):
        leaf("1", int)
