"""Reading a folder of TOML into one rulebook, or into every mistake in it with file and line.

Knows how files are merged, sorted and hashed. Refuses to know what the rules mean, and stops at no
mistake: who corrects a rulebook wants to see all of them.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path as FilePath
from typing import Any, Final, get_origin

import msgspec

from config.findings import Finding, Path, Where, path_text, placed
from config.lines import lines_of
from config.references import references
from config.rulebook import Document, Rulebook, from_document
from config.shape import bare, fields_of, shape

# What names an item: lists of these are sorted by it, so that neither the order of files nor that
# of tables changes the hash. Rules are absent: their order is their meaning.
NAMED_BY: Final[dict[str, tuple[str, ...]]] = {
    "entity": ("id",),
    "brand": ("id",),
    "platform": ("id",),
    "group": ("platform", "entity", "brand", "account_type", "currency"),
    "psp": ("id",),
    "role": ("id",),
    "symbol_group": ("id",),
    "plan": ("id",),
}
_LINE: Final = re.compile(r"\(at line (\d+), column \d+\)$")


class Text(msgspec.Struct, frozen=True):
    """One TOML file: what it says and where."""

    file: str
    data: dict[str, Any]
    lines: dict[Path, int]


def load(folder: FilePath) -> tuple[Rulebook | None, list[Finding]]:
    """Read a rulebook that is right by itself. With any finding there is no rulebook."""
    book, findings = read_folder(folder)
    if book is not None:
        findings = references(book)
    return (None if findings else book), findings


def read_folder(folder: FilePath) -> tuple[Rulebook | None, list[Finding]]:
    """Read every `*.toml` of a folder as one rulebook, judging its shape alone."""
    texts, findings = _texts(folder)
    findings += _split(texts)
    document, where = _merge(texts)
    if texts:
        shaped, flaws = shape(document, Document)
        findings += placed(flaws, where, Where(str(folder)))
        if shaped is not None and not findings:
            source = canonical(document)
            places = {path_text(path): found for path, found in where.items()}
            return from_document(shaped, hash_of(source), source, places), []
    return None, sorted(findings, key=lambda finding: finding.where)


def from_source(source: bytes) -> Rulebook:
    """The rulebook of a stored canonical source, to explain a decision taken with it.

    Raises ValueError where this version of the program cannot read it any more.
    """
    document, flaws = shape(json.loads(source), Document)
    if document is None:
        raise ValueError("; ".join(f"{path_text(flaw.path)}: {flaw.message}" for flaw in flaws))
    return from_document(document, hash_of(source), source, {})


def read_document(document: dict[str, Any]) -> tuple[Rulebook | None, list[Finding]]:
    """A rulebook that was sent as JSON rather than written in files; judges its shape alone."""
    shaped, flaws = shape(document, Document)
    if shaped is None or flaws:
        return None, placed(flaws, {})
    ordered = {
        kind: sorted(items, key=partial(_name, kind)) if kind in NAMED_BY else items
        for kind, items in document.items()
    }
    return from_source(canonical(ordered)), []


def canonical(document: dict[str, Any]) -> bytes:
    """The one way to write a document: sorted keys, no white space, no escapes, UTF-8."""
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def hash_of(source: bytes) -> str:
    """The name of a rulebook: hex SHA-256 of its canonical source."""
    return hashlib.sha256(source).hexdigest()


def read_toml(path: FilePath) -> tuple[Text | None, list[Finding]]:
    """Read one file; a file that is absent, no UTF-8 or no TOML is a finding."""
    name = str(path)
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        return None, [Finding(Where(name), "unreadable", f"cannot be read: {error.strerror}")]
    except UnicodeDecodeError:
        return None, [Finding(Where(name), "not-utf-8", "the file is not UTF-8 text")]
    try:
        return Text(name, tomllib.loads(text), lines_of(text)), []
    except tomllib.TOMLDecodeError as error:
        line = _LINE.search(str(error))
        where = Where(name, int(line.group(1)) if line else text.count("\n") + 1)
        return None, [Finding(where, "not-toml", _LINE.sub("", str(error)).strip())]


def _texts(folder: FilePath) -> tuple[list[Text], list[Finding]]:
    files = sorted(folder.glob("*.toml")) if folder.is_dir() else []
    if not files:
        why = "no rulebook: the folder has no *.toml file"
        return [], [Finding(Where(str(folder)), "no-rulebook", why)]
    read = [read_toml(file) for file in files]
    texts = [text for text, _ in read if text is not None]
    return texts, [finding for _, findings in read for finding in findings]


def _merge(texts: Sequence[Text]) -> tuple[dict[str, Any], dict[Path, Where]]:
    """One document of all files, and the place of each of its paths."""
    document: dict[str, Any] = {}
    where: dict[Path, Where] = {}
    for kind, holders in _holders(texts).items():
        odd = [text for text in holders if not isinstance(text.data[kind], list)]
        if _is_list(kind) and not odd:
            document[kind] = _merge_list(kind, holders, where)
            where[(kind,)] = Where(holders[0].file, holders[0].lines[(kind,)])
        else:  # a single table, or something misshapen: the shape is judged where it is odd
            only = (odd or holders)[0]
            document[kind] = only.data[kind]
            _keep_places(only, (kind,), (kind,), where)
    return document, where


def _holders(texts: Sequence[Text]) -> dict[str, list[Text]]:
    kinds = dict.fromkeys(kind for text in texts for kind in text.data)
    return {kind: [text for text in texts if kind in text.data] for kind in kinds}


def _split(texts: Sequence[Text]) -> list[Finding]:
    """Rules stand in one file, since they are read in order; so does each single table."""
    findings = []
    for kind, (first, *others) in _holders(texts).items():
        for text in others if kind not in NAMED_BY else ():
            at = Where(first.file, first.lines[(kind,)])
            why = f"`{kind}` stands in one file, and it is already at {at.text}"
            findings.append(Finding(Where(text.file, text.lines[(kind,)]), "split", why, kind))
    return findings


def _is_list(kind: str) -> bool:
    field = fields_of(Document).get(kind)
    return field is not None and get_origin(bare(field.type)) is tuple


def _merge_list(kind: str, holders: Iterable[Text], where: dict[Path, Where]) -> list[Any]:
    """All items of one kind, sorted by name where order says nothing, with their places."""
    items = [
        (item, text, number) for text in holders for number, item in enumerate(text.data[kind])
    ]
    if kind in NAMED_BY:
        items.sort(key=lambda entry: _name(kind, entry[0]))
    for position, (_, text, number) in enumerate(items):
        _keep_places(text, (kind, number), (kind, position), where)
    return [item for item, _, _ in items]


def _name(kind: str, item: object) -> tuple[str, ...]:
    values = item if isinstance(item, dict) else {}
    return tuple(str(values.get(key, "")) for key in NAMED_BY[kind])


def _keep_places(text: Text, path: Path, becomes: Path, where: dict[Path, Where]) -> None:
    """Remember the lines under `path` of one file as those under `becomes` of the whole."""
    for found, line in text.lines.items():
        if found[: len(path)] == path:
            where[becomes + found[len(path) :]] = Where(text.file, line)
