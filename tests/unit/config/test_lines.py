"""Lines of TOML keys: every key is found where it was written, whatever the spelling."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.findings import Path
from config.lines import lines_of

TRICKY = r'''# a comment with [brackets] and "quotes"
title = "a # that is no comment"   # and one that is
'quoted key' = 1
a.b."c.d" = "dotted"

[table]
text = """
[not_a_table]
key = "no key" \"""\" still inside"""
literal = QQQ"""QQQ
x = 1
more = QQQ
y = 'QQQ
list = [
  1, # one
  [ "]", '}' ],
  { inner = 2, "odd key" = [3] },
]
date = 1979-05-27 07:32:00

[[item]]
name = "first"
[[item.sub]]
deep = 1
[[item.sub]]
deep = 2
[item.more]
x = { y = { z = 1 } }
[[ item ]]
name = """"quoted" end"""
[[item.sub]]
deep = 3
empty = {}
none = []
[ spaced . "out" ]
last = true'''.replace("QQQ", "'" * 3)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 2),
        (("quoted key",), 3),
        (("a", "b", "c.d"), 4),
        (("table",), 6),
        (("table", "text"), 7),
        (("table", "literal"), 10),
        (("table", "more"), 12),
        (("table", "list"), 14),
        (("table", "list", 0), 15),
        (("table", "list", 1, 1), 16),
        (("table", "list", 2, "inner"), 17),
        (("table", "list", 2, "odd key", 0), 17),
        (("table", "date"), 19),
        (("item", 0), 21),
        (("item", 0, "name"), 22),
        (("item", 0, "sub", 0, "deep"), 24),
        (("item", 0, "sub", 1), 25),
        (("item", 0, "sub", 1, "deep"), 26),
        (("item", 0, "more", "x", "y", "z"), 28),
        (("item", 1), 29),
        (("item", 1, "name"), 30),
        (("item", 1, "sub", 0, "deep"), 32),
        (("item", 1, "sub", 0, "none"), 34),
        (("spaced", "out", "last"), 36),
    ],
)
def test_a_key_is_found_on_its_line(path: Path, line: int) -> None:
    """Strings, comments, dotted keys, nested lists and repeated tables do not mislead the count."""
    assert lines_of(TRICKY)[path] == line


def test_nothing_is_found_that_is_not_there() -> None:
    """What looks like a key inside a string is not one, and every real key has a line."""
    assert set(lines_of(TRICKY)) == set(paths(tomllib.loads(TRICKY)))


def test_line_ends_of_other_systems_count_once() -> None:
    """A file with carriage returns has the same lines."""
    assert lines_of(TRICKY.replace("\n", "\r\n")) == lines_of(TRICKY)


def test_an_empty_text_has_no_lines() -> None:
    """A file of comments alone is a file without keys."""
    assert lines_of("# nothing\n\n") == {}


names = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=6)
scalars = st.one_of(
    st.booleans(),
    st.integers(-9, 9),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)
)


@given(st.lists(st.dictionaries(names, values, max_size=3), max_size=4))
def test_every_key_of_any_document_has_its_line(tables: list[dict[str, object]]) -> None:
    """One table a line: each key below it is on that line, however deep."""
    text = "".join(f"[[it]] # {number}\n{written(table)}" for number, table in enumerate(tables))
    found = lines_of(text)
    document = tomllib.loads(text)
    assert set(found) == set(paths(document))
    assert [found[("it", number)] for number in range(len(tables))] == [
        text[: text.index(f"# {number}\n")].count("\n") + 1 for number in range(len(tables))
    ]


def paths(value: object, path: Path = ()) -> Iterator[Path]:
    """Every path of a decoded document."""
    if path:
        yield path
    steps = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for step, item in steps:
        yield from paths(item, (*path, step))


def written(table: dict[str, object]) -> str:
    """A table's keys, a line each."""
    return "".join(f"{quoted(key)} = {inline(value)}\n" for key, value in table.items())


def inline(value: object) -> str:
    """A value on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{quoted(key)} = {inline(item)}" for key, item in value.items()) + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(inline(item) for item in value) + "]"
    return quoted(value) if isinstance(value, str) else str(value)


def quoted(text: str) -> str:
    """A basic string of TOML; everything outside ASCII letters is escaped."""
    return (
        '"' + "".join(c if c.isascii() and c.isalnum() else f"\\U{ord(c):08X}" for c in text) + '"'
    )
