"""The ground that tests stand on: real servers, once a session, and a fresh database each.

    database    a migrated database of this test's own; `.connect()`, `.daemon_dsn`, `.owner_dsn`
    pool        an asyncpg pool on it as the daemon's role
    redis_url   an empty Redis
    durable     servers of this test's own with durability on, to be killed and restarted with
                `tests.support.servers.kill` and `restart`; their database is migrated

`--postgres=embedded|system|DSN` chooses the PostgreSQL; tests that use one bear the marker
`postgres`, so `pytest --postgres=system -m postgres` repeats them on the system's.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
import pytest_asyncio
from redis import asyncio as redis_client

from gateway.migrate import migrate
from gateway.servers import EmbeddedSettings, Servers
from tests.support.servers import (
    Cluster,
    Database,
    cluster,
    fresh_database,
    make_template,
    open_folder,
    running,
    scrub_environment,
    system_postgres,
)

scrub_environment(os.environ)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer the choice of the PostgreSQL that integration tests use."""
    parser.addoption(
        "--postgres",
        default="embedded",
        metavar="embedded|system|DSN",
        help="PostgreSQL for the tests: our own, the system's programs, or a superuser's DSN",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker that this file sets."""
    config.addinivalue_line("markers", "postgres: uses a PostgreSQL server (set by conftest)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test that uses a database."""
    for item in items:
        if "postgres_cluster" in getattr(item, "fixturenames", ()):
            item.add_marker("postgres")


@pytest.fixture(scope="session")
def postgres_cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """One PostgreSQL for the session, of the kind that was asked for."""
    choice: str = pytestconfig.getoption("--postgres")
    if choice == "system" and system_postgres() is None:
        pytest.skip("no PostgreSQL >= 15 among the system's programs")
    with cluster(choice) as server:
        yield server


@pytest.fixture(scope="session")
def migrated_cluster(postgres_cluster: Cluster) -> Cluster:
    """The same server, with a template database of this build's schema."""
    asyncio.run(make_template(postgres_cluster))
    return postgres_cluster


@pytest_asyncio.fixture
async def database(migrated_cluster: Cluster) -> AsyncIterator[Database]:
    """A fresh database at this build's schema."""
    async with fresh_database(migrated_cluster) as fresh:
        yield fresh


@pytest_asyncio.fixture
async def empty_database(postgres_cluster: Cluster) -> AsyncIterator[Database]:
    """A fresh database without any schema, for tests of the migrations themselves."""
    async with fresh_database(postgres_cluster, template="template0") as fresh:
        yield fresh


@pytest_asyncio.fixture
async def pool(database: Database) -> AsyncIterator[asyncpg.Pool]:
    """A small pool on the fresh database, as the daemon's role."""
    async with asyncpg.create_pool(
        database.daemon_dsn, min_size=1, max_size=10, command_timeout=30
    ) as opened:
        yield opened


@pytest.fixture
def durable() -> Iterator[Servers]:
    """A PostgreSQL and a Redis of this test's own that keep every promise over a crash."""
    folder = open_folder()
    settings = EmbeddedSettings(state_folder=folder / "state", outside=folder / "outside")
    try:
        with running(settings) as servers:
            assert servers.postgres is not None
            asyncio.run(migrate(servers.postgres.owner_dsn))
            yield servers
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """One Redis for the session; the URL of it."""
    folder = open_folder()
    settings = EmbeddedSettings(
        state_folder=folder / "state", outside=folder / "outside", want_postgres=False
    )
    try:
        with running(settings) as servers:
            assert servers.redis is not None
            yield servers.redis.url
    finally:
        shutil.rmtree(folder)


@pytest_asyncio.fixture
async def redis_url(redis_server: str) -> str:
    """The URL of an empty Redis."""
    client = redis_client.Redis.from_url(redis_server)
    try:
        await client.flushall()
    finally:
        await client.aclose()
    return redis_server
