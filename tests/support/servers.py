"""Real servers for tests: one PostgreSQL and one Redis a session, a fresh database a test.

It knows how to start them once and how to copy a migrated database. It refuses to know any table.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import msgspec

from gateway.migrate import migrate
from gateway.servers import EmbeddedSettings, Servers, embedded
from gateway.servers.privileges import ServersError

TEMPLATE: Final = "brokerd_template"
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 60.0
CONNECT_TIMEOUT_S: Final = 10.0
POSTGRES_MAJOR_MIN: Final = 15
SYSTEM_FOLDER: Final = Path("/usr/lib/postgresql")
MEMORY: Final = Path("/dev/shm")
MEMORY_MIN: Final = 6 * 1024**3  # bytes free there: several workers keep a server each

VOLATILE: Final[Mapping[str, str]] = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "128MB",
    "max_wal_size": "256MB",
    "min_wal_size": "32MB",
    "autovacuum_naptime": "10s",
}
"""Settings for tests that do not kill the machine: nothing is waited for on disk."""


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """A PostgreSQL server that tests make their databases on."""

    owner_dsn: str  # a superuser's, to any database of the server
    daemon_dsn: str


class Database(msgspec.Struct, frozen=True, kw_only=True):
    """One fresh database of this build's schema, and the connections that a test opened to it."""

    name: str
    owner_dsn: str
    daemon_dsn: str
    opened: list[asyncpg.Connection] = []

    async def connect(self, *, owner: bool = False) -> asyncpg.Connection:
        """Open a connection as the daemon's role, or as the owner; closed with the database."""
        connection = await asyncpg.connect(
            self.owner_dsn if owner else self.daemon_dsn, timeout=CONNECT_TIMEOUT_S
        )
        self.opened.append(connection)
        return connection


def scrub_environment(environ: dict[str, str] | os._Environ[str]) -> None:
    """Remove what would make a test depend on the machine's own settings or servers."""
    for name in [name for name in environ if name.startswith(("BROKERD_", "PG", "REDIS_"))]:
        del environ[name]


def system_postgres(folder: Path = SYSTEM_FOLDER) -> Path | None:
    """Return the `bin` folder of the newest PostgreSQL of the system that is new enough."""
    found = [
        (int(path.name), path / "bin")
        for path in folder.glob("*")
        if path.name.isdigit() and (path / "bin" / "initdb").exists()
    ]
    major, path = max(found, default=(0, folder))
    return path if major >= POSTGRES_MAJOR_MIN else None


def open_folder() -> Path:
    """Make a temporary folder that an unprivileged user can pass through, so not pytest's own."""
    return _opened(None)


def _in_memory() -> Path:
    """The same in memory, where there is room: copying a database is mostly making files."""
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_MIN
    roomy = roomy and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC  # programs may stand there too
    return _opened(MEMORY if roomy else None)


def _opened(where: Path | None) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="brokerd-test-", dir=where))
    folder.chmod(0o711)
    return folder


@contextlib.contextmanager
def running(settings: EmbeddedSettings) -> Iterator[Servers]:
    """Run embedded servers on a thread with an event loop of its own, beside every test's loop."""
    started: list[Servers] = []
    failed: list[BaseException] = []
    up = threading.Event()
    loop = asyncio.new_event_loop()
    end = asyncio.Event()

    async def live() -> None:
        async with embedded(settings) as servers:
            started.append(servers)
            up.set()
            await end.wait()

    def work() -> None:
        try:
            loop.run_until_complete(live())
        except BaseException as error:  # noqa: BLE001 - raised again in the test's thread
            failed.append(error)
        finally:
            up.set()
            loop.close()

    thread = threading.Thread(target=work, name="embedded-servers")
    thread.start()
    try:
        if not up.wait(START_TIMEOUT_S):
            raise ServersError("the test servers did not start in time")
        if failed:
            raise failed[0]
        yield started[0]
    finally:
        with contextlib.suppress(RuntimeError):  # the loop is closed where the start failed
            loop.call_soon_threadsafe(end.set)
        thread.join(STOP_TIMEOUT_S)
        assert not thread.is_alive(), "the test servers did not stop"


@contextlib.contextmanager
def cluster(choice: str) -> Iterator[Cluster]:
    """Offer a server: `embedded`, `system` (which must be there), or an owner's DSN."""
    if choice not in {"embedded", "system"}:
        yield Cluster(owner_dsn=choice, daemon_dsn=asyncio.run(_open_daemon(choice)))
        return
    folder = _in_memory()
    settings = EmbeddedSettings(
        state_folder=folder / "state",
        outside=folder / "outside",
        want_redis=False,
        start_timeout_s=START_TIMEOUT_S,
        postgres_bin=system_postgres() if choice == "system" else None,
        postgres_settings=VOLATILE,
    )
    try:
        with running(settings) as servers:
            assert servers.postgres is not None
            yield Cluster(
                owner_dsn=servers.postgres.owner_dsn, daemon_dsn=servers.postgres.daemon_dsn
            )
    finally:
        shutil.rmtree(folder)


async def _open_daemon(owner_dsn: str) -> str:
    """Let the daemon's role log in to a server that is not ours; return its DSN."""
    secret = os.urandom(16).hex()
    connection = await asyncpg.connect(owner_dsn, timeout=CONNECT_TIMEOUT_S)
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = 'brokerd_daemon'"):
            with contextlib.suppress(asyncpg.DuplicateObjectError):
                await connection.execute("CREATE ROLE brokerd_daemon")
        await connection.execute(f"ALTER ROLE brokerd_daemon LOGIN PASSWORD '{secret}'")
    finally:
        await connection.close()
    return with_user(owner_dsn, "brokerd_daemon", secret)


def with_user(dsn: str, user: str, secret: str) -> str:
    """Return `dsn` for another role."""
    parts = urlsplit(dsn)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}:{secret}@{place}"))


def with_database(dsn: str, name: str) -> str:
    """Return `dsn` for another database of the same server."""
    parts = urlsplit(dsn)
    return urlunsplit(("postgresql", parts.netloc or "localhost", f"/{name}", parts.query, ""))


async def make_template(server: Cluster) -> None:
    """Make the template anew, at the schema of this build."""
    await _administer(server, f"DROP DATABASE IF EXISTS {TEMPLATE} WITH (FORCE)")
    await _administer(server, f"CREATE DATABASE {TEMPLATE}")
    await migrate(with_database(server.owner_dsn, TEMPLATE))


@contextlib.asynccontextmanager
async def fresh_database(server: Cluster, *, template: str = TEMPLATE) -> AsyncIterator[Database]:
    """Offer a copy of the template; it is dropped afterwards, whoever is still connected."""
    name = f"brokerd_test_{os.getpid()}_{next(_numbers)}"
    await _administer(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY = file_copy")
    database = Database(
        name=name,
        owner_dsn=with_database(server.owner_dsn, name),
        daemon_dsn=with_database(server.daemon_dsn, name),
        opened=[],
    )
    try:
        yield database
    finally:
        for connection in database.opened:
            connection.terminate()
        await _administer(server, f"DROP DATABASE {name} WITH (FORCE)")


_numbers = itertools.count(1)


async def _administer(server: Cluster, statement: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_ ()=]+", statement), statement
    connection = await asyncpg.connect(server.owner_dsn, timeout=CONNECT_TIMEOUT_S)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def kill(servers: Servers, name: str) -> None:
    """Kill a server (`postgres` or `redis`) with SIGKILL; return when its next life serves."""
    await _next_life(servers, name, signal.SIGKILL)


async def restart(servers: Servers, name: str) -> None:
    """End a server in order, as an operator would; return when its next life serves."""
    await _next_life(servers, name, signal.SIGINT if name == "postgres" else signal.SIGTERM)


async def _next_life(servers: Servers, name: str, number: signal.Signals) -> None:
    supervisor = servers.supervisors[name]
    before = supervisor.pid
    assert before, f"{name} does not run"
    os.kill(before, number)
    async with asyncio.timeout(START_TIMEOUT_S):
        while supervisor.pid in {0, before} or not supervisor.serving:
            await asyncio.sleep(0.02)
