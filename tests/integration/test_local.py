"""An operator's commands on the house's own database, with and without a daemon that runs it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import asyncpg
import pytest

from config.settings import Settings, load_settings
from gateway.local import Reach, database
from gateway.servers import EmbeddedSettings
from tests.support.servers import Database, open_folder, running

ROOT = Path(__file__).parents[2]
BASE = {
    "BROKERD_RULEBOOK__FOLDER": str(ROOT / "config" / "demo"),
    "BROKERD_CONTROL__PEPPER": "env:PEPPER",
    "PEPPER": "pepper",
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the servers' user can reach."""
    made = open_folder()
    yield made
    shutil.rmtree(made)


def settings_of(environ: Mapping[str, str]) -> Settings:
    """The settings of an environment that is right."""
    settings, findings = load_settings(None, BASE | dict(environ))
    assert settings is not None, findings
    return settings


def brokerd(dsn: str, *arguments: str) -> tuple[int, str, str]:
    """Status, output and errors of one command on a configured database."""
    environ = {"PATH": os.environ["PATH"], "BROKERD_DATABASE__DSN": "env:DSN", "DSN": dsn}
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", *arguments],
        env=environ | BASE, capture_output=True, text=True, timeout=100, check=False, cwd=ROOT,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


async def started(dsn: str) -> object:
    """When the server behind an address was started: which server it is."""
    conn = await asyncpg.connect(dsn, timeout=30)
    try:
        return await conn.fetchval("SELECT pg_postmaster_start_time()")
    finally:
        await conn.close()


async def test_a_configured_database_is_used_as_it_is() -> None:
    """Nothing is started where the settings name a server, and its address is not shown."""
    environ = {"BROKERD_DATABASE__DSN": "env:DSN", "DSN": "postgresql://me:hunter2@h/b"}
    async with database(settings_of(environ)) as reach:
        assert reach == Reach("postgresql://me:hunter2@h/b", "")
        assert "hunter2" not in repr(reach)


async def test_the_house_own_server_is_found_or_started(folder: Path) -> None:
    """A daemon's server is shared and outlives the command; without one the command starts it."""
    settings = settings_of({"BROKERD_EMBEDDED__STATE_FOLDER": str(folder / "state")})
    outside = folder / "outside"
    embedded = EmbeddedSettings(state_folder=folder / "state", want_redis=False, outside=outside)
    with running(embedded) as servers:
        assert servers.postgres is not None
        first = await started(servers.postgres.daemon_dsn)
        async with database(settings, outside=outside) as reach:
            assert await started(reach.daemon_dsn) == first
            assert await started(reach.owner_dsn) == first
        assert await started(servers.postgres.daemon_dsn) == first
    async with database(settings, outside=outside) as reach:
        assert await started(reach.owner_dsn) != first
    with pytest.raises(OSError, match=r"No such file|refused"):
        await started(reach.daemon_dsn)


async def test_keys_are_given_listed_and_taken_back(database: Database) -> None:
    """The token is printed once and alone, so that it can be piped; the list never shows it."""
    dsn = database.daemon_dsn
    add = ("keys", "add", "portal", "--role", "svc.caller", "--entity", "fx-eu")
    status, token, err = await asyncio.to_thread(brokerd, dsn, *add)
    assert status == 0, err
    key_id = token.split("_")[2]
    assert token.startswith("bk_live_")
    assert token.count("\n") == 1
    status, listed, _ = await asyncio.to_thread(brokerd, dsn, "keys", "list")
    row = listed.splitlines()[1].split("\t")
    assert row[:5] == [key_id, "portal", "portal", "svc.caller", "fx-eu"]
    assert token.strip().rsplit("_", 1)[1] not in listed
    status, out, _ = await asyncio.to_thread(brokerd, dsn, "keys", "revoke", key_id)
    assert (status, out) == (0, f"key {key_id} of portal is revoked\n")
    status, _, err = await asyncio.to_thread(brokerd, dsn, "keys", "revoke", key_id)
    assert (status, err) == (1, f"Error: not-found: no key '{key_id}' that could be revoked\n")


async def test_a_role_that_is_not_in_force_gets_no_key(database: Database) -> None:
    """The refusal names the role, and nothing is stored."""
    add = ("keys", "add", "portal", "--role", "emperor")
    status, out, err = await asyncio.to_thread(brokerd, database.daemon_dsn, *add)
    assert (status, out) == (1, "")
    assert "role-unknown" in err


async def test_commands_ask_for_the_right_schema(empty_database: Database) -> None:
    """Before `brokerd migrate` nothing is touched, and the operator is told what to do."""
    status, _, err = await asyncio.to_thread(brokerd, empty_database.daemon_dsn, "keys", "list")
    assert status == 1
    assert err.endswith("run `brokerd migrate`\n")


async def test_verify_proves_the_books_or_says_what_is_wrong(database: Database) -> None:
    """Nothing wrong is status 0; each finding is a line, and the status is 1."""
    clean = await asyncio.to_thread(brokerd, database.daemon_dsn, "verify")
    assert clean == (0, "the books agree\n", "")
    owner = await database.connect(owner=True)
    try:
        await owner.execute("ALTER TABLE ledger.posting DISABLE TRIGGER ALL")
    finally:
        await owner.close()
    status, out, _ = await asyncio.to_thread(brokerd, database.daemon_dsn, "verify")
    assert status == 1
    assert out.splitlines()[0] == "code\tsubject\tdetail"
    assert "posting" in out
