"""The embedded servers with real programs, real signals and, as root, real other users."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
from redis import asyncio as redis_client

from gateway.migrate import check
from gateway.servers import (
    EmbeddedSettings,
    PostgresServer,
    Servers,
    ServersError,
    embedded,
    find_running,
)
from gateway.servers.binaries import find_postgres, place
from gateway.servers.privileges import Account, can_enter, choose_account, identity
from gateway.servers.supervisor import clean_environment
from tests.support.servers import kill, open_folder, restart

ROOT = os.geteuid() == 0
WAIT_S = 60.0
OTHER = "daemon"  # a user of every machine that neither we nor the servers run as

as_root = pytest.mark.skipif(not ROOT, reason="only root can become another user")


@pytest.fixture
def room() -> Iterator[Path]:
    """A folder that the servers' user can reach, removed afterwards."""
    folder = open_folder()
    yield folder
    shutil.rmtree(folder)


def settings_in(room: Path, **changes: Any) -> EmbeddedSettings:
    settings = EmbeddedSettings(
        state_folder=room / "state",
        outside=room / "outside",
        want_redis=False,
        postgres_settings={"shared_buffers": "64MB"},
    )
    return msgspec.structs.replace(settings, **changes)


async def wait_until(true: Callable[[], bool]) -> None:
    """Wait for a condition, with a limit."""
    async with asyncio.timeout(WAIT_S):
        while not true():
            await asyncio.sleep(0.02)


def postgres_of(servers: Servers) -> PostgresServer:
    assert servers.postgres is not None
    return servers.postgres


async def store(dsn: str, value: int) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE IF NOT EXISTS public.kept (value int)")
    await connection.execute("INSERT INTO public.kept VALUES ($1)", value)
    await connection.close()


async def stored(dsn: str) -> list[int]:
    """Read what was stored; a server that is just coming back is asked again."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                connection = await asyncpg.connect(dsn)
            except (OSError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError):
                await asyncio.sleep(0.05)
                continue
            rows = await connection.fetch("SELECT value FROM public.kept ORDER BY value")
            await connection.close()
            return [row["value"] for row in rows]


def alive(pid: int) -> bool:
    """Say whether a process runs (a zombie does not)."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def user_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def of_process(pid: int, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()


def python_for(account: Account) -> str:
    """Return a Python that `account` can run: ours may stand in a private home."""
    for name in (sys.executable, "/usr/bin/python3"):
        path = Path(name).resolve()
        if path.exists() and can_enter(path.parent, account):
            return str(path)
    pytest.skip(f"user {account.name!r} can run no Python")


def as_user(account: Account, argv: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command as another user."""
    return subprocess.run(
        argv,
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
        cwd="/",
        env=clean_environment(os.environ),
    )


def other_account() -> Account:
    entry = pwd.getpwnam(OTHER)
    return Account(name=OTHER, uid=entry.pw_uid, gid=entry.pw_gid, dropped=True)


async def test_data_and_passwords_survive_a_restart(room: Path) -> None:
    """The same folder gives the same rows, keys and addresses the next time."""
    settings = settings_in(room, want_redis=True)
    async with embedded(settings) as first:
        assert first.redis is not None
        await store(postgres_of(first).owner_dsn, 1)
        client = redis_client.Redis.from_url(first.redis.url)
        await client.set("kept", "1")
        await client.aclose()
    async with embedded(settings) as second:
        assert second.redis is not None
        assert second.redis.url == first.redis.url
        assert postgres_of(second).daemon_dsn == postgres_of(first).daemon_dsn
        assert await stored(postgres_of(second).owner_dsn) == [1]
        client = redis_client.Redis.from_url(second.redis.url)
        assert await client.get("kept") == b"1"
        await client.aclose()


async def test_fresh_wipes_what_was_stored(room: Path) -> None:
    """`--fresh` starts from nothing."""
    async with embedded(settings_in(room)) as first:
        await store(postgres_of(first).owner_dsn, 1)
    async with embedded(settings_in(room, fresh=True)) as second:
        connection = await asyncpg.connect(postgres_of(second).owner_dsn)
        assert await connection.fetchval("SELECT to_regclass('public.kept')") is None
        await connection.close()


async def test_only_what_is_wanted_is_started(room: Path) -> None:
    """With a DSN configured, no PostgreSQL is started beside it."""
    settings = settings_in(room, want_postgres=False, want_redis=True)
    async with embedded(settings) as servers:
        assert servers.postgres is None
        assert not (servers.state_folder / "postgres").exists()


async def test_the_daemons_role_is_no_superuser(room: Path) -> None:
    """The daemon logs in with a role that may not change the schema, another may."""
    async with embedded(settings_in(room)) as servers:
        connection = await asyncpg.connect(postgres_of(servers).daemon_dsn)
        assert await connection.fetchval("SELECT current_user") == "brokerd_daemon"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("CREATE TABLE public.mine (n int)")
        await connection.close()


async def test_a_killed_postgres_comes_back_with_what_was_committed(room: Path) -> None:
    """`kill -9` of the server: the supervisor starts it again, and commits are still there."""
    async with embedded(settings_in(room)) as servers:
        await store(postgres_of(servers).owner_dsn, 7)
        before = postgres_of(servers).pid
        os.kill(before, signal.SIGKILL)
        await wait_until(lambda: servers.supervisors["postgres"].pid not in {0, before})
        assert await stored(postgres_of(servers).owner_dsn) == [7]


async def test_the_ground_for_crash_tests_restarts_servers(durable: Servers) -> None:
    """A test may kill or restart a server beside its own loop, and goes on when it serves."""
    connection = await asyncpg.connect(postgres_of(durable).daemon_dsn)
    assert await check(connection) == []
    await connection.close()
    await store(postgres_of(durable).owner_dsn, 1)
    for disturb in (kill, restart):
        await disturb(durable, "postgres")
        await disturb(durable, "redis")
        connection = await asyncpg.connect(postgres_of(durable).daemon_dsn)
        await connection.close()
    assert await stored(postgres_of(durable).owner_dsn) == [1]


async def test_a_killed_redis_comes_back_with_what_was_acknowledged(room: Path) -> None:
    """`kill -9` of the server: the append-only file brings the keys back."""
    settings = settings_in(room, want_postgres=False, want_redis=True)
    async with embedded(settings) as servers:
        assert servers.redis is not None
        client = redis_client.Redis.from_url(servers.redis.url)
        await client.set("kept", "1")
        await client.aclose()
        os.kill(servers.redis.pid, signal.SIGKILL)
        supervisor = servers.supervisors["redis"]
        before = servers.redis.pid
        await wait_until(lambda: supervisor.pid not in {0, before})
    async with embedded(settings) as again:
        assert again.redis is not None
        client = redis_client.Redis.from_url(again.redis.url)
        assert await client.get("kept") == b"1"
        await client.aclose()


PARENT = """
import asyncio, codecs, concurrent.futures.thread, os, signal, sys
import asyncpg, msgspec
from gateway.migrate import check
from gateway.servers import EmbeddedSettings, embedded

async def main():
    settings = msgspec.json.decode(
        sys.argv[1], type=EmbeddedSettings, dec_hook=lambda kind, value: kind(value)
    )
    if sys.argv[2]:  # an interpreter that the user cannot reach has to be loaded before
        os.setgroups([])
        os.setgid(int(sys.argv[2]))
        os.setuid(int(sys.argv[2]))
    async with embedded(settings) as servers:
        pids = [servers.postgres.pid] + ([servers.redis.pid] if servers.redis else [])
        print(*pids, servers.postgres.owner_dsn, flush=True)
        await asyncio.sleep(3600)

codecs.lookup("ascii")  # codecs are loaded on first use
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
asyncio.run(main())
"""


@contextmanager
def start_parent(
    settings: EmbeddedSettings, uid: int | str = ""
) -> Iterator[subprocess.Popen[str]]:
    """Run the servers under another process, which says their pids and the owner's DSN."""
    given = msgspec.json.encode(settings, enc_hook=str).decode()
    argv = [sys.executable, "-c", PARENT, given, str(uid)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as parent:
        try:
            yield parent
        finally:
            parent.kill()


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
async def test_servers_of_a_killed_parent_are_found_and_ended(room: Path, *, stopped: bool) -> None:
    """`kill -9` of brokerd leaves its servers; the next start ends them, even stopped ones."""
    settings = settings_in(room, want_redis=True)
    with start_parent(settings) as parent:
        assert parent.stdout is not None
        line = await asyncio.to_thread(parent.stdout.readline)
        first, second, dsn = line.split()
        await store(dsn, 3)
        parent.kill()
        parent.wait(WAIT_S)
    orphans = [int(first), int(second)]
    assert all(alive(pid) for pid in orphans)
    if stopped:
        for pid in orphans:
            os.kill(pid, signal.SIGSTOP)
    async with embedded(settings) as servers:
        assert not any(alive(pid) for pid in orphans)
        assert await stored(postgres_of(servers).owner_dsn) == [3]


@contextmanager
def bystander_in(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the servers' user that stands in `folder` and is none of our servers."""
    who = identity(choose_account(None, euid=os.geteuid()))
    with subprocess.Popen(["/bin/sleep", "600"], cwd=folder, **who) as process:
        try:
            yield process
        finally:
            process.kill()


async def test_a_process_of_someone_else_is_never_ended(room: Path) -> None:
    """A shell standing in the data folder, and a pid that a dead server left behind, are spared."""
    async with embedded(settings_in(room)) as servers:
        data = servers.state_folder / "postgres" / "data"
    with bystander_in(data) as bystander:
        (data / "postmaster.pid").write_text(f"{bystander.pid}\n{data}\n")
        async with embedded(settings_in(room)) as servers:
            assert postgres_of(servers).pid != bystander.pid
        assert bystander.poll() is None


async def test_the_servers_live_in_sessions_of_their_own(room: Path) -> None:
    """Ctrl-C at the terminal reaches brokerd alone, which then stops its servers in order."""
    async with embedded(settings_in(room, want_redis=True)) as servers:
        assert servers.redis is not None
        sessions = {os.getsid(postgres_of(servers).pid), os.getsid(servers.redis.pid)}
        assert os.getsid(0) not in sessions


async def test_nothing_of_ours_runs_after_the_end(room: Path) -> None:
    """Leaving the block ends the servers and every process that they started."""
    async with embedded(settings_in(room, want_redis=True)) as servers:
        assert servers.redis is not None
        pids = [postgres_of(servers).pid, servers.redis.pid]
    assert not any(alive(pid) for pid in pids)


async def test_a_second_process_is_told_who_holds_the_folder(room: Path) -> None:
    """Two daemons on one folder would run two servers on one data folder: the second is refused."""
    async with embedded(settings_in(room)):
        with pytest.raises(ServersError, match=rf"process {os.getpid()} already runs"):
            async with embedded(settings_in(room)):
                pass


async def test_a_command_beside_a_daemon_finds_its_database(room: Path) -> None:
    """While a process runs the servers, another finds their address, and nothing is made else."""
    settings = settings_in(room)
    assert find_running(settings) is None
    assert not settings.state_folder.exists()
    async with embedded(settings) as servers:
        found = find_running(settings)
        assert found is not None
        assert found.daemon_dsn == postgres_of(servers).daemon_dsn
        assert found.pid == postgres_of(servers).pid
    assert find_running(settings) is None


@as_root
async def test_a_command_finds_a_database_kept_outside_the_checkout(
    room: Path, tmp_path: Path
) -> None:
    """The command looks where the daemon put the state, not only where it was configured."""
    (tmp_path / "home").mkdir(mode=0o700)
    settings = settings_in(room, state_folder=tmp_path / "home" / "state")
    async with embedded(settings) as servers:
        found = find_running(settings)
        assert found is not None
        assert found.owner_dsn == postgres_of(servers).owner_dsn


async def test_folders_are_0700_and_secrets_0600(room: Path) -> None:
    """Nothing in the state folder can be read by another user."""
    async with embedded(settings_in(room, want_redis=True)) as servers:
        state = servers.state_folder
        assert stat.S_IMODE(state.stat().st_mode) == (0o710 if ROOT else 0o700)
        for folder in (path for path in state.iterdir() if path.is_dir()):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
        for folder in ("postgres/data", "postgres/run", "postgres/log", "redis/data", "redis/run"):
            assert stat.S_IMODE((state / folder).stat().st_mode) == 0o700, folder
        for file in (*(state / "secrets").iterdir(), *(state / "logs").iterdir(), state / "lock"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


async def test_passwords_are_in_no_command_line_log_or_repr(room: Path) -> None:
    """What other users and support bundles can see never holds a password."""
    async with embedded(settings_in(room, want_redis=True)) as servers:
        assert servers.redis is not None
        state = servers.state_folder
        secrets = [path.read_bytes() for path in (state / "secrets").iterdir()]
        seen = [repr(servers).encode()]
        for pid in (postgres_of(servers).pid, servers.redis.pid):
            seen += [of_process(pid, name) for name in ("cmdline", "environ")]
        for log in (*state.glob("logs/*"), *state.glob("postgres/log/*")):
            seen.append(log.read_bytes())
    assert len(secrets) == 3
    assert not [secret for secret in secrets for text in seen if secret in text]


async def test_no_network_port_is_open(room: Path) -> None:
    """The servers listen on sockets in a private folder and nowhere else."""
    async with embedded(settings_in(room, want_redis=True)) as servers:
        assert servers.redis is not None
        connection = await asyncpg.connect(postgres_of(servers).owner_dsn)
        assert await connection.fetchval("SHOW listen_addresses") == ""
        await connection.close()
        client = redis_client.Redis.from_url(servers.redis.url)
        assert (await client.config_get("port"))["port"] == "0"
        await client.aclose()


async def test_the_socket_alone_opens_nothing(room: Path) -> None:
    """Whoever reaches the sockets still needs the passwords, even as the servers' own user."""
    async with embedded(settings_in(room, want_redis=True)) as servers:
        assert servers.redis is not None
        wrong = re.sub(r":[0-9a-f]+@", ":wrong@", postgres_of(servers).owner_dsn)
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(wrong)
        path = servers.state_folder / "redis" / "run" / "redis.sock"
        client = redis_client.Redis(unix_socket_path=str(path), protocol=2)
        with pytest.raises(Exception, match="Authentication required"):
            await client.ping()
        await client.aclose()


@as_root
async def test_another_user_reaches_neither_socket_nor_file(room: Path) -> None:
    """Another user of the machine can neither connect nor read data, passwords or logs."""
    connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    python = python_for(other_account())
    async with embedded(settings_in(room, want_redis=True)) as servers:
        state = servers.state_folder
        for path in ("postgres/run/.s.PGSQL.5432", "redis/run/redis.sock"):
            assert (state / path).is_socket()
            tried = as_user(other_account(), [python, "-I", "-S", "-c", connect, str(state / path)])
            assert "PermissionError" in tried.stderr, tried
        for path in ("secrets/postgres-owner", "postgres/data/PG_VERSION", "logs/redis.log"):
            tried = as_user(other_account(), ["cat", str(state / path)])
            assert "Permission denied" in tried.stderr, tried


@as_root
async def test_as_root_the_servers_run_as_an_unprivileged_user(room: Path) -> None:
    """PostgreSQL refuses root; neither server keeps root's user, group or further groups."""
    account = choose_account(None, euid=0)
    async with embedded(settings_in(room, want_redis=True)) as servers:
        assert servers.redis is not None
        assert any(account.name in note for note in servers.notes)
        for pid in (postgres_of(servers).pid, servers.redis.pid):
            status = of_process(pid, "status").decode()
            assert f"Uid:\t{account.uid}\t{account.uid}\t{account.uid}\t{account.uid}" in status
            assert f"Gid:\t{account.gid}\t{account.gid}\t{account.gid}\t{account.gid}" in status
            assert re.search(r"^Groups:\s*$", status, re.MULTILINE)


@as_root
async def test_run_as_names_the_user(room: Path) -> None:
    """The operator's choice of user wins over ours."""
    async with embedded(settings_in(room, run_as="nobody")) as servers:
        assert user_of(postgres_of(servers).pid) == pwd.getpwnam("nobody").pw_uid


@as_root
async def test_a_checkout_that_the_user_cannot_reach_stays_closed(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a 0700 parent, state and programs go elsewhere, it is said where, no mode changes."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    programs = find_postgres(None)
    for part in (*programs.parts, *(path.name for path in programs.base.glob("*postgres*-info"))):
        shutil.copytree(programs.base / part, home / "site" / part, symlinks=True)
    monkeypatch.syspath_prepend(home / "site")
    parents = (home, *home.parents)
    before = [path.stat().st_mode for path in parents]
    settings = settings_in(room, state_folder=home / "checkout" / "state")
    async with embedded(settings) as first:
        await store(postgres_of(first).owner_dsn, 5)
        assert first.state_folder.parent == room / "outside"
        assert any(str(first.state_folder) in note for note in first.notes)
        assert any(str(room / "outside" / "binaries") in note for note in first.notes)
    async with embedded(settings) as second:
        assert await stored(postgres_of(second).owner_dsn) == [5]
    assert [path.stat().st_mode for path in parents] == before
    assert not (home / "checkout" / "state").exists()


@as_root
async def test_an_ordinary_user_runs_the_servers_as_itself(room: Path) -> None:
    """Without root nothing is dropped or copied, and the state folder is 0700."""
    nobody = choose_account("nobody", euid=0)
    programs = find_postgres(None)
    own = room / "own"
    own.mkdir(mode=0o700)
    os.chown(own, nobody.uid, nobody.gid)
    placed, _ = place(programs, nobody, room / "binaries")
    settings = settings_in(room, state_folder=own / "state", postgres_bin=placed.path.parent)
    with start_parent(settings, nobody.uid) as parent:
        assert parent.stdout is not None
        line = await asyncio.to_thread(parent.stdout.readline)
        await store(line.split()[-1], 9)
        assert stat.S_IMODE((own / "state").stat().st_mode) == 0o700
        assert user_of(int(line.split()[0])) == nobody.uid
        parent.send_signal(signal.SIGINT)
        await asyncio.to_thread(parent.wait, WAIT_S)
    assert not alive(int(line.split()[0]))


async def test_a_path_too_long_for_a_socket_is_no_hindrance(room: Path) -> None:
    """A deep checkout moves the sockets to a short private folder, and says so."""
    deep = room / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    async with embedded(settings_in(room, state_folder=deep / "state")) as servers:
        sockets = postgres_of(servers).socket_folder
        assert room not in sockets.parents
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        assert any(str(sockets) in note for note in servers.notes)
        await store(postgres_of(servers).owner_dsn, 1)
    shutil.rmtree(sockets, ignore_errors=True)


async def test_data_of_another_major_version_is_refused(room: Path) -> None:
    """PostgreSQL cannot read another major version's files; the message says what to do."""
    async with embedded(settings_in(room)) as servers:
        version = servers.state_folder / "postgres" / "data" / "PG_VERSION"
    version.write_text("14\n")
    with pytest.raises(ServersError, match=r"was made by PostgreSQL 14.*pg_upgrade"):
        async with embedded(settings_in(room)):
            pass


async def test_lost_passwords_are_named(room: Path) -> None:
    """Data without its password cannot be opened; a new one would only hide that."""
    async with embedded(settings_in(room)) as servers:
        secret = servers.state_folder / "secrets" / "postgres-owner"
    secret.unlink()
    with pytest.raises(ServersError, match=r"postgres-owner is missing.*start afresh"):
        async with embedded(settings_in(room)):
            pass
    async with embedded(settings_in(room, fresh=True)) as servers:
        await store(postgres_of(servers).owner_dsn, 1)


async def test_an_interrupted_first_start_is_begun_again(room: Path) -> None:
    """The data folder appears by a rename: half an initialisation is thrown away, not used."""
    async with embedded(settings_in(room)) as servers:
        data = servers.state_folder / "postgres" / "data"
    data.rename(data.with_name("data.new"))
    async with embedded(settings_in(room)) as servers:
        await store(postgres_of(servers).owner_dsn, 1)
    assert not data.with_name("data.new").exists()


async def test_a_state_folder_with_other_things_in_it_keeps_its_mode(room: Path) -> None:
    """An empty folder becomes private; one that is used for more is the user's own affair."""
    empty, used = room / "empty", room / "used"
    for folder in (empty, used):
        folder.mkdir()
        folder.chmod(0o755)
    (used / "notes").write_text("mine\n")
    for folder in (empty, used):
        async with embedded(settings_in(room, state_folder=folder)):
            pass
    assert stat.S_IMODE(empty.stat().st_mode) == (0o710 if ROOT else 0o700)
    assert stat.S_IMODE(used.stat().st_mode) == 0o755
    assert stat.S_IMODE((used / "postgres").stat().st_mode) == 0o700


async def test_a_server_that_cannot_start_says_why(room: Path) -> None:
    """The server's last words are in the error, and nothing is left running or locked."""
    bad = settings_in(room, postgres_settings={"shared_buffers": "a lot"})
    with pytest.raises(ServersError, match=r"ended while starting: .*shared_buffers"):
        async with embedded(bad):
            pass
    async with embedded(settings_in(room)) as servers:
        await store(postgres_of(servers).owner_dsn, 1)


async def test_durability_is_on_by_default(room: Path) -> None:
    """What was committed is on disk: nobody has to ask for it."""
    async with embedded(settings_in(room)) as servers:
        connection = await asyncpg.connect(postgres_of(servers).daemon_dsn)
        for name in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
            assert await connection.fetchval("SELECT current_setting($1)", name) == "on", name
        await connection.close()
