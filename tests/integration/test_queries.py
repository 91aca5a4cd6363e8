"""Every statement of the product against the schema that the migrations make.

Knows the statements by their files. Refuses to run one: preparing shows that it fits the tables and
its types, explaining it as the daemon's role shows that the grants reach.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from types import ModuleType

import asyncpg
import pytest

from tests.house.tree import product
from tests.support.servers import Database

PREPARABLE = re.compile(
    r"\s*(--[^\n]*\n\s*)*(SELECT|INSERT|UPDATE|DELETE|WITH|VALUES)\b", re.DOTALL
)
# What only the owner of the schemas or the supervisor runs: the daemon needs no grant for it.
OWNERS_FILES = {"gateway.queries", "gateway.servers.queries"}
# What the daemon's role must not be able to do, however it is asked.
REFUSED_FILES = {"gateway.demo.queries"}


def rooms() -> list[str]:
    """The modules that hold statements."""
    return [
        ".".join(path.with_suffix("").parts)
        for path in product()
        if path.name.startswith("queries")
    ]


def statements(module: ModuleType) -> Iterator[tuple[str, str]]:
    """The named statements of a module that can be prepared; the rest is DDL and settings.

    A name that begins with an underscore is a part of statements, which are tried whole.
    """
    for name, value in vars(module).items():
        whole = name.isupper() and not name.startswith("_")
        if whole and isinstance(value, str) and PREPARABLE.match(value):
            yield name, value


async def explain(connection: asyncpg.Connection, sql: str) -> None:
    """Plan a statement for any arguments; the server checks the caller's rights on each table."""
    await connection.execute(f"PREPARE statement AS {sql}")
    try:
        count = await connection.fetchval(
            "SELECT cardinality(parameter_types) FROM pg_prepared_statements "
            "WHERE name = 'statement'"
        )
        arguments = f"({', '.join(['NULL'] * count)})" if count else ""
        await connection.execute(f"EXPLAIN EXECUTE statement{arguments}")
    finally:
        await connection.execute("DEALLOCATE statement")


@pytest.mark.parametrize("room", sorted(REFUSED_FILES))
async def test_each_statement_that_must_be_refused_is_refused(
    room: str, database: Database
) -> None:
    """It fits the schema, so that it is the missing right alone that stops it."""
    owner, connection = await database.connect(owner=True), await database.connect()
    for _, sql in statements(importlib.import_module(room)):
        await owner.execute(f"PREPARE statement AS {sql}; DEALLOCATE statement")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await explain(connection, sql)


@pytest.mark.parametrize("room", [room for room in rooms() if room not in REFUSED_FILES])
async def test_each_statement_fits_the_schema_and_the_grants(room: str, database: Database) -> None:
    """A statement prepares against the migrated schema, and its role may touch what it names."""
    connection = await database.connect(owner=room in OWNERS_FILES)
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    wrong = []
    for name, sql in statements(importlib.import_module(room)):
        try:
            await explain(connection, sql)
        except asyncpg.PostgresError as error:
            wrong.append(f"{name}: {type(error).__name__}: {error}")
    assert not wrong, f"{room}: {wrong}"
