"""The ground that benchmarks stand on: servers with durability on, a fresh database for each run.

Knows how to start our own PostgreSQL in a temporary folder and to fill a database with the schema.
Refuses to know what is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import msgspec

from gateway.migrate import migrate
from gateway.servers import EmbeddedSettings, embedded

TEMPLATE = "bench_template"


class Base(msgspec.Struct, frozen=True):
    """One fresh database, for its owner and for the daemon."""

    owner_dsn: str
    daemon_dsn: str


class Ground:
    """A running server; `base()` gives a fresh migrated database, dropped after the block."""

    def __init__(self, owner_dsn: str, daemon_dsn: str, redis_url: str, version: str) -> None:
        self._owner_dsn = owner_dsn
        self._daemon_dsn = daemon_dsn
        self._numbers = itertools.count(1)
        self.redis_url = redis_url
        self.version = version

    @contextlib.asynccontextmanager
    async def base(self) -> AsyncIterator[Base]:
        """A fresh database at this build's schema."""
        name = f"bench_{os.getpid()}_{next(self._numbers)}"
        await self.administer(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        try:
            yield Base(in_database(self._owner_dsn, name), in_database(self._daemon_dsn, name))
        finally:
            await self.administer(f"DROP DATABASE {name} WITH (FORCE)")

    async def administer(self, statement: str) -> None:
        """Run one statement as the owner, outside any transaction."""
        connection = await asyncpg.connect(self._owner_dsn)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def prepare(self) -> None:
        """Make the template that each base is copied from."""
        await self.administer(f"CREATE DATABASE {TEMPLATE}")
        await migrate(in_database(self._owner_dsn, TEMPLATE))


def in_database(dsn: str, name: str) -> str:
    """The DSN for another database of the same server."""
    parts = urlsplit(dsn)
    return urlunsplit(("postgresql", parts.netloc or "localhost", f"/{name}", parts.query, ""))


def open_folder() -> Path:
    """A temporary folder that an unprivileged user, as whom root runs servers, can pass through."""
    folder = Path(tempfile.mkdtemp(prefix="brokerd-bench-"))
    folder.chmod(0o711)
    return folder


@contextlib.asynccontextmanager
async def ground() -> AsyncIterator[Ground]:
    """Start servers of our own in a temporary folder; durable as in production."""
    folder = open_folder()
    settings = EmbeddedSettings(state_folder=folder / "state", outside=folder / "outside")
    try:
        async with embedded(settings) as servers:
            assert servers.postgres is not None
            assert servers.redis is not None
            stood = Ground(
                servers.postgres.owner_dsn, servers.postgres.daemon_dsn, servers.redis.url,
                servers.postgres.version,
            )  # fmt: skip
            await stood.prepare()
            yield stood
    finally:
        await asyncio.to_thread(shutil.rmtree, folder)
