"""The migration runner against a real PostgreSQL."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from gateway.migrate import Migration, MigrationError, check, collect, migrate, read_migration
from tests.support.servers import Cluster, Database, fresh_database


def step(version: int, sql: str, *, package: str = "ledger", name: str = "step") -> Migration:
    return read_migration(package, version, name, sql.encode())


SOME = (
    step(
        1,
        "CREATE SCHEMA demo; CREATE TABLE demo.a (n int)",
    ),
    step(2, "INSERT INTO demo.a VALUES (1); INSERT INTO demo.a VALUES (2)"),
    step(1, "CREATE TABLE demo.b (n int)", package="gateway"),
)


async def test_a_migrated_database_is_found_right_by_the_daemons_role(database: Database) -> None:
    """The schema of this build, applied by the owner, passes the check that serve makes."""
    assert await check(await database.connect()) == []
    assert await migrate(database.owner_dsn) == []


async def test_an_empty_database_lacks_every_migration(empty_database: Database) -> None:
    """A database that never saw a migration is refused with the whole list, not with an error."""
    connection = await empty_database.connect()
    assert len(await check(connection, migrations=SOME)) == len(SOME)


async def test_files_are_applied_once_in_order(empty_database: Database) -> None:
    """Labels come back in the order applied; a second run applies nothing."""
    first = await migrate(empty_database.owner_dsn, migrations=SOME)
    assert first == ["ledger/0001_step", "ledger/0002_step", "gateway/0001_step"]
    assert await migrate(empty_database.owner_dsn, migrations=SOME) == []
    connection = await empty_database.connect(owner=True)
    assert await connection.fetchval("SELECT count(*) FROM demo.a") == 2


async def test_eight_runners_at_once_apply_each_file_once(empty_database: Database) -> None:
    """Replicas starting together do not apply a file twice, nor deadlock on an index build."""
    concurrent = "-- migrate:up transaction:false\nCREATE INDEX CONCURRENTLY a_n ON demo.a (n)"
    steps = (*SOME, step(2, concurrent, package="gateway"))
    runs = await asyncio.gather(
        *(migrate(empty_database.owner_dsn, migrations=steps) for _ in range(8))
    )
    assert sorted(label for run in runs for label in run) == sorted(s.label for s in steps)
    connection = await empty_database.connect(owner=True)
    assert await connection.fetchval("SELECT count(*) FROM demo.a") == 2


async def test_a_changed_file_is_refused_by_name(empty_database: Database) -> None:
    """Once applied, a file may not change: migrate refuses it and applies nothing after it."""
    await migrate(empty_database.owner_dsn, migrations=SOME)
    changed = (SOME[0], step(2, "SELECT 2"), SOME[2], step(2, "SELECT 1", package="gateway"))
    with pytest.raises(MigrationError, match="ledger/0002_step was changed"):
        await migrate(empty_database.owner_dsn, migrations=changed)
    said = await check(await empty_database.connect(), migrations=changed)
    assert [line.split(" ")[0] for line in said] == ["ledger/0002_step", "gateway/0002_step"]


async def test_a_database_newer_than_the_build_is_refused(empty_database: Database) -> None:
    """An older build must not work on a schema that it does not know."""
    await migrate(empty_database.owner_dsn, migrations=SOME)
    with pytest.raises(MigrationError, match="gateway/0001_step is applied but unknown"):
        await migrate(empty_database.owner_dsn, migrations=SOME[:2])
    assert await check(await empty_database.connect(), migrations=SOME[:2]) != []


async def test_clients_of_the_time_before_partners_came_through_nobody(
    empty_database: Database,
) -> None:
    """Each client has an answer: the migration that makes the table gives old ones theirs."""
    files = collect()
    (partners,) = [each for each in files if each.label == "gateway/0011_partners"]
    await migrate(empty_database.owner_dsn, migrations=files[: files.index(partners)])
    connection = await empty_database.connect(owner=True)
    await connection.execute(
        "INSERT INTO gateway.client (reference_key, id, version, caller, reference, brand, entity, "
        "book, country, currency, client_type, risk_band, state, correlation, created, updated) "
        "VALUES ('crm:c', 'CL000000000000000000', 1, 'crm', 'c', 'northgate', 'fx-eu', 1, 'DE', "
        "'EUR', 'individual', 'low', 'new_lead', '', '2026-01-02', '2026-01-02')"
    )
    await migrate(empty_database.owner_dsn)
    (row,) = await connection.fetch(
        "SELECT a.*, c.created FROM gateway.attribution a, gateway.client c"
    )
    assert (row["client_id"], row["contract_id"], row["book"]) == ("CL000000000000000000", "", 1)
    assert row["since"] == row["created"]


async def test_a_failing_file_leaves_nothing_behind(empty_database: Database) -> None:
    """A file is one transaction: what it did before its error is undone, and it is not recorded."""
    broken = (*SOME[:2], step(3, "CREATE TABLE demo.half (n int); SELECT 1/0"))
    with pytest.raises(MigrationError, match="ledger/0003_step: division by zero"):
        await migrate(empty_database.owner_dsn, migrations=broken)
    connection = await empty_database.connect(owner=True)
    assert await connection.fetchval("SELECT to_regclass('demo.half')") is None
    assert await migrate(empty_database.owner_dsn, migrations=SOME) == ["gateway/0001_step"]


async def test_a_mistake_is_named_with_its_line(empty_database: Database) -> None:
    """Whoever wrote the file is sent to the line, counted in the file with its header."""
    sql = "-- migrate:up\nSELECT 1;\nCREATE TABLE only (n int)\n-- migrate:down\n"
    with pytest.raises(MigrationError, match="ledger/0001_step:3: syntax error"):
        await migrate(empty_database.owner_dsn, migrations=(step(1, sql),))


async def test_a_file_may_not_end_the_transaction_itself(empty_database: Database) -> None:
    """A COMMIT inside a file would record it apart from its work, so it is refused."""
    with pytest.raises(MigrationError, match="begins or ends a transaction itself"):
        await migrate(empty_database.owner_dsn, migrations=(step(1, "COMMIT"),))


async def test_settings_of_one_file_do_not_reach_the_next(empty_database: Database) -> None:
    """A search_path set in one file would silently move the tables of the next one."""
    steps = (
        step(1, "CREATE SCHEMA demo; SET search_path TO demo"),
        step(2, "CREATE TABLE found_in (n int)"),
    )
    await migrate(empty_database.owner_dsn, migrations=steps)
    connection = await empty_database.connect(owner=True)
    assert await connection.fetchval("SELECT to_regclass('public.found_in')") is not None


async def test_waiting_for_another_runner_is_bounded(empty_database: Database) -> None:
    """A runner that never ends is named after the wait, instead of hanging every start."""
    connection = await empty_database.connect(owner=True)
    assert await connection.fetchval("SELECT pg_try_advisory_lock(1651666795, 1)")
    with pytest.raises(MigrationError, match="still running"):
        await migrate(empty_database.owner_dsn, migrations=SOME, wait_s=0.3)


async def test_the_daemons_role_cannot_change_the_record(database: Database) -> None:
    """Only the owner migrates: the daemon's role reads what was applied and no more."""
    connection = await database.connect()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("DELETE FROM public.schema_migration")


async def test_databases_of_one_server_migrate_together(postgres_cluster: Cluster) -> None:
    """The daemon's role belongs to the whole server: two databases may both try to make it."""
    async with (
        fresh_database(postgres_cluster, template="template0") as one,
        fresh_database(postgres_cluster, template="template0") as two,
    ):
        runs = await asyncio.gather(
            *(migrate(each.owner_dsn, migrations=SOME) for each in (one, two))
        )
    assert [len(run) for run in runs] == [3, 3]


def test_every_file_of_this_build_is_named_and_numbered_properly() -> None:
    """A file with a wrong name would silently never run; collecting refuses it."""
    packages = ["ledger", "router", "bridge", "gateway"]
    found = [migration.package for migration in collect()]
    assert found == sorted(found, key=packages.index)
