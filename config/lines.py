"""Where each key of a TOML text is written: path -> line.

Knows TOML's grammar well enough to walk a text that `tomllib` has accepted. Refuses to judge it:
on a text that was not accepted the answer means nothing.
"""

from __future__ import annotations

import re
import tomllib
from typing import Final

from config.findings import Path, Step

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR: Final = re.compile(r"[^,\]}#\n]+")
_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRING: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?!")' r"|'''.*?'''(?!')" r'|"(?:\\.|[^"\\\n])*"' r"|'[^'\n]*'",
    re.DOTALL,
)


def lines_of(text: str) -> dict[Path, int]:
    """The line (from 1) of each table, key and list item of a valid TOML text.

    A table that several headers open has the line of the first; an item of `[[name]]` has the line
    of its own header.
    """
    return _Walk(text.replace("\r\n", "\n")).run()


class _Walk:
    """One pass over one text: a position, the table we are in, and what was found."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line_at = 0  # the offset up to which `_line` has been counted
        self._line = 1
        self._items: dict[Path, int] = {}  # path of a list of tables -> items seen so far
        self._found: dict[Path, int] = {}

    def run(self) -> dict[Path, int]:
        table: Path = ()
        while not self._ended():
            if self._peek("[["):
                table = self._header("[[", "]]", repeats=True)
            elif self._peek("["):
                table = self._header("[", "]", repeats=False)
            else:
                self._pair(table)
        return self._found

    def _header(self, opening: str, closing: str, *, repeats: bool) -> Path:
        line = self._here()
        self._at += len(opening)
        path = self._resolve(self._key())
        self._skip(closing)
        if repeats:
            position = self._items.get(path, 0)
            self._items[path] = position + 1
            path = (*path, position)
        for length in range(1, len(path) + 1):
            self._note(path[:length], line)
        return path

    def _resolve(self, key: tuple[str, ...]) -> Path:
        """A header names the *last* item of each list of tables on its way."""
        path: Path = ()
        for number, name in enumerate(key):
            path = (*path, name)
            if number + 1 < len(key):
                path = self._last_item(path)
        return path

    def _last_item(self, path: Path) -> Path:
        count = self._items.get(path)
        return path if count is None else (*path, count - 1)

    def _pair(self, table: Path) -> None:
        """`a.b = value`: each part of the dotted key is on this line."""
        self._blank()
        line = self._here()
        path = table
        for name in self._key():
            path = (*path, name)
            self._note(path, line)
        self._skip("=")
        self._value(path)

    def _key(self) -> tuple[str, ...]:
        names = [self._name()]
        while self._peek("."):
            self._skip(".")
            names.append(self._name())
        return tuple(names)

    def _name(self) -> str:
        self._blank()
        if (bare := _BARE.match(self._text, self._at)) is not None:
            self._at = bare.end()
            name = bare.group()
        else:
            quoted = self._string()
            name = tomllib.loads(f"it = {quoted}")["it"]
        self._blank()
        return name

    def _value(self, path: Path) -> None:
        self._blank()
        if self._peek("["):
            self._list(path)
        elif self._peek("{"):
            self._inline(path)
        elif self._text[self._at] in "\"'":
            self._string()
        elif (scalar := _SCALAR.match(self._text, self._at)) is not None:
            self._at = scalar.end()

    def _list(self, path: Path) -> None:
        self._skip("[")
        position = 0
        while not self._peek("]"):
            item: tuple[Step, ...] = (*path, position)
            self._note(item, self._here())
            self._value(item)
            self._skip_if(",")
            position += 1
        self._skip("]")

    def _inline(self, path: Path) -> None:
        self._skip("{")
        while not self._peek("}"):
            self._pair(path)
            self._skip_if(",")
        self._skip("}")

    def _string(self) -> str:
        found = _STRING.match(self._text, self._at)
        assert found is not None, "the text was not valid TOML"
        self._at = found.end()
        return found.group()

    def _note(self, path: Path, line: int) -> None:
        self._found.setdefault(path, line)

    def _blank(self) -> None:
        found = _BLANK.match(self._text, self._at)
        assert found is not None
        self._at = found.end()

    def _peek(self, mark: str) -> bool:
        self._blank()
        return self._text.startswith(mark, self._at)

    def _skip(self, mark: str) -> None:
        assert self._peek(mark), "the text was not valid TOML"
        self._at += len(mark)

    def _skip_if(self, mark: str) -> None:
        if self._peek(mark):
            self._at += len(mark)

    def _ended(self) -> bool:
        self._blank()
        return self._at >= len(self._text)

    def _here(self) -> int:
        """The line of the current position; counted onwards, so that a text is read once."""
        self._line += self._text.count("\n", self._line_at, self._at)
        self._line_at = self._at
        return self._line
