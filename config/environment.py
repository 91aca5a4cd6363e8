"""The environment over the settings' file: `BROKERD_HTTP__PORT=8081` is `http.port`.

Knows how a variable's name becomes a key and its text a value of the key's type. Refuses to guess:
a variable of ours that names no setting is a mistake, as it is in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, get_args, get_origin

import msgspec

from config.findings import Finding, Path, Where
from config.secret import Secret
from config.shape import Misfit, bare, fields_of, is_struct, leaf, unknown

PREFIX: Final = "BROKERD_"
JOINT: Final = "__"
NOT_SETTINGS: Final = frozenset({"BROKERD_CONFIG"})  # read by the command line


def overlay(
    document: dict[str, Any],
    where: dict[Path, Where],
    environ: Mapping[str, str],
    settings: type[msgspec.Struct],
) -> list[Finding]:
    """Write each variable into `document` and its place into `where`; return the mistakes."""
    findings: list[Finding] = []
    used = NOT_SETTINGS | frozenset(_secret_names(document)) | frozenset(_secret_names(environ))
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in used:
            continue
        place = Where(f"environment {variable}")
        try:
            path, value = _read(variable, environ[variable], settings)
        except Misfit as error:
            findings.append(Finding(place, error.code, str(error), variable))
        else:
            _put(document, path, value)
            where[path] = place
    return findings


def _read(variable: str, text: str, settings: type[msgspec.Struct]) -> tuple[Path, object]:
    """The key a variable names and its value; raises Misfit."""
    path: Path = ()
    kind: Any = settings
    for name in variable.removeprefix(PREFIX).lower().split(JOINT):
        step, kind = _step(kind, name, variable)
        path = (*path, step)
    if is_struct(bare(kind)) or get_origin(bare(kind)) is dict:
        raise Misfit("unknown-key", "this names a section: its keys follow after two underscores")
    return path, _value(text, kind)


def _step(kind: Any, name: str, variable: str) -> tuple[str, Any]:
    plain = bare(kind)
    if get_origin(plain) is dict:
        return name.replace("_", "-"), get_args(plain)[1]  # names of servers have hyphens
    known = fields_of(plain) if is_struct(plain) else {}
    if name not in known:
        raise Misfit("unknown-key", f"{unknown(name, known)}{_tip(variable, known)}")
    return name, known[name].type


def _tip(variable: str, known: Mapping[str, object]) -> str:
    """The commonest mistake: one underscore between section and key."""
    rest = variable.removeprefix(PREFIX)
    section, _, key = rest.partition("_")
    if JOINT not in rest and section.lower() in known and key:
        return f", did you mean `{PREFIX}{section}{JOINT}{key}`?"
    return ""


def _value(text: str, kind: Any) -> object:
    plain = bare(kind)
    if isinstance(plain, type) and issubclass(plain, Secret):
        return text  # still `env:NAME` or `file:PATH`, read with those of the file
    if get_origin(plain) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    value: object = leaf(text, kind, strict=False)
    return value


def _put(document: dict[str, Any], path: Path, value: object) -> None:
    table: Any = document
    for step in path[:-1]:
        table = table.setdefault(step, {}) if isinstance(table, dict) else None
    if isinstance(table, dict):  # else the file is misshapen here, and its shape is judged as such
        table[path[-1]] = value


def _secret_names(value: object) -> Iterator[str]:
    """The variables that secrets name: they are ours to read and no settings."""
    if isinstance(value, str) and value.startswith("env:"):
        yield value.removeprefix("env:")
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _secret_names(item)
