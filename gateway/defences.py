"""What the database itself refuses to the daemon: triggers, functions and grants of the rooms.

Knows how to read from the migrations what they made, and compares it with what stands. Refuses to
repair, and to know schema `ledger`, whose own `verify` does the same for the books.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import asyncpg
import msgspec

from gateway import migrate
from gateway import queries_verify as q
from ledger.verify import Wrong

ROOMS: Final = ("router", "bridge", "gateway")

_COMMENT: Final = re.compile(r"--[^\n]*")
_TRIGGER: Final = re.compile(r"\bCREATE TRIGGER (\w+) [^;]+;")
_FUNCTION: Final = re.compile(
    r"\bCREATE (?:OR REPLACE )?FUNCTION (\w+)\.(\w+)\(.*?AS \$\$(.*?)\$\$", re.DOTALL
)
_EVENTS: Final = re.compile(r"\b(BEFORE|AFTER) ((?:\w+ OR )*\w+) ON")
_TABLE_OR_GRANT: Final = re.compile(
    r"\bCREATE TABLE (?:IF NOT EXISTS )?(?P<table>\w+\.\w+)"
    r"|\bGRANT (?P<rights>[^;]+?) ON (?P<on>[^;]+?) TO brokerd_daemon;"
)
_RIGHT: Final = re.compile(r"(\w+)(?:\s*\(([^)]*)\))?")

Grant = tuple[str, str, str]  # schema.table, right, column ("" for the whole table)


class Made(msgspec.Struct, frozen=True):
    """What the migrations made: triggers by name, bodies of functions by name, grants."""

    triggers: dict[str, str]
    functions: dict[str, str]
    grants: frozenset[Grant]


def made(text: str) -> Made:
    """What the text of the migrations, in their order, makes."""
    functions = {f"{schema}.{name}": body for schema, name, body in _FUNCTION.findall(text)}
    plain = _COMMENT.sub("", text)
    triggers = {match[1]: one_form(match[0].rstrip(";")) for match in _TRIGGER.finditer(plain)}
    return Made(triggers, functions, frozenset(_grants(plain)))


def one_form(definition: str) -> str:
    """A trigger's definition with single blanks and its events in one order."""
    text = " ".join(definition.split())
    return _EVENTS.sub(lambda m: f"{m[1]} {' OR '.join(sorted(m[2].split(' OR ')))} ON", text)


def _grants(text: str) -> Iterator[Grant]:
    """Each right given to the daemon; "all tables" are those made so far."""
    tables: list[str] = []
    for match in _TABLE_OR_GRANT.finditer(text):
        if match["table"]:
            tables.append(match["table"])
            continue
        for table in _named(match["on"], tables):
            for right, columns in _RIGHT.findall(match["rights"]):
                for column in columns.split(",") if columns else [""]:
                    yield table, right.lower(), column.strip()


def _named(on: str, tables: list[str]) -> list[str]:
    """The tables a grant speaks of; none for schemas and sequences."""
    if on.startswith("ALL TABLES IN SCHEMA "):
        schema = on.rsplit(maxsplit=1)[-1] + "."
        return [table for table in tables if table.startswith(schema)]
    if on.startswith(("SCHEMA ", "ALL ", "SEQUENCE ")):
        return []
    return [name.removeprefix("TABLE ").strip() for name in on.split(",")]


async def stand(conn: asyncpg.Connection) -> list[Wrong]:
    """Each trigger, function and grant of the rooms that is not as the migrations made it."""
    wanted = made("\n".join(each.sql for each in migrate.collect(ROOMS)))
    return [
        *await _triggers(conn, wanted.triggers),
        *await _functions(conn, wanted.functions),
        *await _rights(conn, wanted.grants),
    ]


async def _triggers(conn: asyncpg.Connection, made: dict[str, str]) -> list[Wrong]:
    wrong: list[Wrong] = []
    missing = dict(made)
    for row in await conn.fetch(q.TRIGGERS, list(ROOMS)):
        subject = f"{row['table_name']}.{row['name']}"
        wanted = missing.pop(row["name"], None)
        if wanted is None:
            wrong.append(Wrong("trigger-added", subject, "no migration made it"))
        elif wanted != one_form(row["definition"]):
            wrong.append(Wrong("trigger-changed", subject, row["definition"]))
        if row["enabled"] != "O":
            wrong.append(Wrong("trigger-disabled", subject, "it is switched off"))
    gone = "the migrations made it, it is gone"
    return wrong + [Wrong("trigger-missing", name, gone) for name in sorted(missing)]


async def _functions(conn: asyncpg.Connection, made: dict[str, str]) -> list[Wrong]:
    found = {row["name"]: row for row in await conn.fetch(q.FUNCTIONS, list(ROOMS))}
    return [
        Wrong("function-changed", name, "it does not run the text of the migrations")
        for name in sorted(made.keys() | found.keys())
        if name not in found or found[name]["body"] != made.get(name) or found[name]["altered"]
    ]


async def _rights(conn: asyncpg.Connection, made: frozenset[Grant]) -> list[Wrong]:
    found = {
        (row["table_name"], row["privilege"], row["column_name"])
        for row in await conn.fetch(q.RIGHTS, list(ROOMS))
    }
    added = [
        Wrong("grant-added", table, f"the daemon may {right} {column}".strip())
        for table, right, column in sorted(found - made)
    ]
    missing = [
        Wrong("grant-missing", table, f"the daemon may not {right} {column}".strip())
        for table, right, column in sorted(made - found)
    ]
    return added + missing
