"""What is wrong with a configuration: one finding a mistake, with the place where it was written.

Knows how a mistake is named, placed and said. Refuses to know any rule that makes something one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

Step = str | int
Path = tuple[Step, ...]  # ("psp", 2, "cost_fixed"): names of tables and keys, positions in lists


class Where(msgspec.Struct, frozen=True, order=True):
    """A place in a file; `line` counts from 1, and 0 stands for the file as a whole."""

    file: str
    line: int = 0

    @property
    def text(self) -> str:
        """The place as editors understand it: `file:line`, or the file alone."""
        return f"{self.file}:{self.line}" if self.line else self.file


NOWHERE = Where("")


class Finding(msgspec.Struct, frozen=True):
    """One mistake: a stable `code` for programs, a `message` for people, the `key` it is about."""

    where: Where
    code: str
    message: str
    key: str = ""

    @property
    def text(self) -> str:
        """The finding as one line: `file:line: code: message`."""
        place = f"{self.where.text}: " if self.where.file else ""
        return f"{place}{self.code}: {self.message}"


class Flaw(msgspec.Struct, frozen=True):
    """A mistake known by its path, before anybody has looked up the line."""

    path: Path
    code: str
    message: str


def path_text(path: Path) -> str:
    """Write a path as people do: `psp[2].cost_fixed`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


def place(path: Path, lines: Mapping[Path, Where], otherwise: Where = NOWHERE) -> Where:
    """The place of the longest part of `path` that was written down.

    A missing key has no line of its own: its table has.
    """
    for length in range(len(path), 0, -1):
        if (found := lines.get(path[:length])) is not None:
            return found
    return otherwise


def placed(
    flaws: Iterable[Flaw], lines: Mapping[Path, Where], otherwise: Where = NOWHERE
) -> list[Finding]:
    """The flaws with their places, each message headed by its path."""
    return [
        Finding(
            place(flaw.path, lines, otherwise),
            flaw.code,
            f"{path_text(flaw.path)}: {flaw.message}" if flaw.path else flaw.message,
            path_text(flaw.path),
        )
        for flaw in flaws
    ]
