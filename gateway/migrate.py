"""Bring a database to the schema this build was written for, or say what is different.

It knows the order of the packages, the numbered SQL files in them and the table that remembers
which were applied. It refuses to know what the files say, to go backwards, and to touch a database
in which an applied file has changed since.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

import asyncpg
import msgspec

from gateway import queries as q

PACKAGES: Final = ("ledger", "router", "bridge", "gateway")
"""Packages that own a schema, in the order in which their migrations run."""

LOCK_POLL_S: Final = 0.1
LOCK_WAIT_MAX_S: Final = 600.0
CONNECT_TIMEOUT_S: Final = 30.0

_FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_UP = re.compile(r"^--\s*migrate:up\b(.*)$", re.MULTILINE)
_DOWN = re.compile(r"^--\s*migrate:down\b", re.MULTILINE)


class MigrationError(Exception):
    """The database cannot be migrated; the message names the file and the reason."""


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """One numbered SQL file of one package."""

    package: str
    version: int
    name: str
    sql: str
    sha256: str  # of the file's whole bytes, hexadecimal
    line: int = 1  # of the file, where `sql` begins
    transactional: bool = True

    @property
    def label(self) -> str:
        """Return the name people use, such as `ledger/0001_books`."""
        return f"{self.package}/{self.version:04d}_{self.name}"


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What the database remembers of one migration."""

    package: str
    version: int
    name: str
    sha256: str

    @property
    def label(self) -> str:
        """Return the name people use, such as `ledger/0001_books`."""
        return f"{self.package}/{self.version:04d}_{self.name}"


async def migrate(
    owner_dsn: str,
    *,
    migrations: Sequence[Migration] | None = None,
    wait_s: float = LOCK_WAIT_MAX_S,
) -> list[str]:
    """Apply what is missing and return the labels applied, in order; safe with several runners.

    owner_dsn   a role that may create schemas, tables and roles
    migrations  what to apply; the files of this build unless given
    wait_s      seconds to wait for another runner before giving up
    raises      MigrationError where an applied file differs, is unknown to this build, or fails
    """
    wanted = tuple(migrations) if migrations is not None else collect()
    connection = await asyncpg.connect(owner_dsn, timeout=CONNECT_TIMEOUT_S)
    try:
        async with _alone(connection, wait_s):
            await _prepare(connection)
            applied = await _applied(connection)
            if wrong := contradictions(wanted, applied):
                raise MigrationError("; ".join(wrong))
            todo = missing(wanted, applied)
            for migration in todo:
                await _apply(connection, migration)
            return [migration.label for migration in todo]
    finally:
        await connection.close()


async def check(
    connection: asyncpg.Connection, *, migrations: Sequence[Migration] | None = None
) -> list[str]:
    """Return a sentence for each migration that is missing, differs or is unknown; empty = right.

    Reads only, and the daemon's role may call it.
    """
    wanted = tuple(migrations) if migrations is not None else collect()
    known = await connection.fetchval(q.MIGRATION_TABLE_EXISTS)
    applied = await _applied(connection) if known else ()
    absent = [f"{migration.label} is not applied" for migration in missing(wanted, applied)]
    return contradictions(wanted, applied) + absent


def missing(wanted: Iterable[Migration], applied: Iterable[Applied]) -> list[Migration]:
    """Return the wanted migrations that the database does not remember, in order."""
    done = {(row.package, row.version) for row in applied}
    return [migration for migration in wanted if (migration.package, migration.version) not in done]


def contradictions(wanted: Iterable[Migration], applied: Iterable[Applied]) -> list[str]:
    """Return a sentence for each applied migration that this build has otherwise, or not at all."""
    files = {(migration.package, migration.version): migration for migration in wanted}
    return [
        sentence
        for row in applied
        if (sentence := _contradiction(files.get((row.package, row.version)), row))
    ]


def _contradiction(file: Migration | None, row: Applied) -> str:
    if file is None:
        return f"{row.label} is applied but unknown to this build, which is older than the database"
    if file.sha256 != row.sha256:
        return f"{file.label} was changed after it was applied (its hash differs)"
    return ""


def collect(packages: Sequence[str] = PACKAGES) -> tuple[Migration, ...]:
    """Read the migrations of this build, in the order in which they run.

    raises  MigrationError for a file that is not named NNNN_name.sql, or a number used twice
    """
    found: list[Migration] = []
    for package in packages:
        found.extend(_collect_package(package))
    return tuple(found)


def _collect_package(package: str) -> list[Migration]:
    folder = resources.files(package) / "migrations"
    if not folder.is_dir():
        return []
    by_version: dict[int, Migration] = {}
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".sql"):
            continue
        migration = _read(package, file)
        if (other := by_version.get(migration.version)) is not None:
            raise MigrationError(f"{migration.label} and {other.label} bear one number")
        by_version[migration.version] = migration
    return [by_version[version] for version in sorted(by_version)]


def _read(package: str, file: Traversable) -> Migration:
    if (match := _FILE_NAME.fullmatch(file.name)) is None:
        raise MigrationError(f"{package}/migrations/{file.name} is not named NNNN_name.sql")
    return read_migration(package, int(match[1]), match[2], file.read_bytes())


def read_migration(package: str, version: int, name: str, content: bytes) -> Migration:
    """Read one file; the header lines of dbmate are understood and optional.

    `-- migrate:up transaction:false` runs the file outside a transaction, for what PostgreSQL
    refuses inside one; such a file holds one statement that may be repeated.
    """
    text = content.decode("utf-8")
    up = _UP.search(text)
    start = up.end() if up else 0
    body = text[start:]
    if down := _DOWN.search(body):
        body = body[: down.start()]
    return Migration(
        package=package,
        version=version,
        name=name,
        sql=body,
        line=text.count("\n", 0, start) + 1,
        sha256=hashlib.sha256(content).hexdigest(),
        transactional=not (up and "transaction:false" in up[1]),
    )


@asynccontextmanager
async def _alone(connection: asyncpg.Connection, wait_s: float) -> AsyncIterator[None]:
    """Hold the migration lock, polling: waiting inside PostgreSQL would hold a snapshot.

    A runner waiting in pg_advisory_lock deadlocks with a holder that builds an index concurrently.
    """
    try:
        async with asyncio.timeout(wait_s):
            while not await connection.fetchval(q.MIGRATION_LOCK):
                await asyncio.sleep(LOCK_POLL_S)
    except TimeoutError:
        raise MigrationError(f"another migration is still running after {wait_s:g} s") from None
    try:
        yield
    finally:
        if not connection.is_closed():
            await connection.execute(q.MIGRATION_UNLOCK)


async def _prepare(connection: asyncpg.Connection) -> None:
    """Make sure that the daemon's role and the migration table exist."""
    if not await connection.fetchval(q.DAEMON_ROLE_EXISTS):
        # Roles belong to the cluster: a runner in another database may be faster.
        with suppress(asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
            await connection.execute(q.CREATE_DAEMON_ROLE)
    if not await connection.fetchval(q.MIGRATION_TABLE_EXISTS):
        await connection.execute(q.CREATE_MIGRATION_TABLE)


async def _applied(connection: asyncpg.Connection) -> tuple[Applied, ...]:
    rows: Sequence[Mapping[str, object]] = await connection.fetch(q.APPLIED_MIGRATIONS)
    return tuple(msgspec.convert(dict(row), Applied) for row in rows)


async def _apply(connection: asyncpg.Connection, migration: Migration) -> None:
    """Run one file and remember it: in one transaction, unless the file refuses that."""
    try:
        if migration.transactional:
            async with connection.transaction():
                await _run(connection, migration)
        else:
            await _run(connection, migration)
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise MigrationError(f"{migration.label}{_place(migration, error)}: {error}") from error
    await connection.execute(q.RESET_SETTINGS)


def _place(migration: Migration, error: Exception) -> str:
    """Return the line of the file that PostgreSQL objects to, as `:12`, where it says so."""
    position: str | None = getattr(error, "position", None)
    if position is None:
        return ""
    return f":{migration.line + migration.sql.count(chr(10), 0, int(position) - 1)}"


async def _run(connection: asyncpg.Connection, migration: Migration) -> None:
    await connection.execute(migration.sql)
    if connection.is_in_transaction() != migration.transactional:
        raise MigrationError(f"{migration.label} begins or ends a transaction itself")
    await connection.execute(
        q.RECORD_MIGRATION, migration.package, migration.version, migration.name, migration.sha256
    )
