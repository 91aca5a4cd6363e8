"""The embedded PostgreSQL: its data folder, its settings, its two roles.

It knows how a data folder is made whole or not at all and who may log in. It refuses to know any
table: the schema comes from the migrations.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

import asyncpg
import msgspec

from gateway.servers import queries as q
from gateway.servers.binaries import Binaries
from gateway.servers.privileges import ServersError, identity, private_folder
from gateway.servers.state import State, password, remove_folder, socket_folder, write_private
from gateway.servers.supervisor import Program, Supervisor, clean_environment, end_processes

OWNER: Final = "brokerd_owner"
DAEMON: Final = "brokerd_daemon"
DATABASE: Final = "brokerd"
PORT: Final = 5432  # names the socket; nothing listens on the network
CONNECT_TIMEOUT_S: Final = 5.0
INITDB_TIMEOUT_S: Final = 300.0

ENDINGS: Final = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 15.0), (signal.SIGKILL, 15.0))
"""Fast shutdown with a checkpoint, then immediate (recovery at the next start), then by force."""

NOT_READY: Final = (
    OSError,  # not listening yet
    TimeoutError,
    asyncpg.OperatorInterventionError,  # replaying its log after a crash, or shutting down
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,  # every connection is taken
    asyncpg.InterfaceError,
)

BUILTIN_LOCALE_SINCE: Final = 17

SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "password_encryption": "scram-sha-256",
    "ssl": "off",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # One file a weekday, each replaced after a week: the log cannot fill the disk.
    "logging_collector": "on",
    "log_filename": "postgres-%u.log",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
    "log_file_mode": "0600",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    # Values of rows and statements may be personal data, or a password in a CREATE ROLE.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}


class PostgresServer(msgspec.Struct, frozen=True, kw_only=True):
    """A running PostgreSQL of our own. The DSNs hold passwords and are left out of its repr."""

    owner_dsn: str  # superuser: migrations
    daemon_dsn: str  # brokerd_daemon: everything else
    pid: int  # as started; the supervisor may have replaced it since
    state_folder: Path
    socket_folder: Path
    version: str

    def __repr__(self) -> str:
        """Name the server without its passwords."""
        return f"PostgresServer(pid={self.pid}, state_folder={str(self.state_folder)!r})"


class Postgres:
    """One PostgreSQL in one state folder, from `start` to `stop`."""

    def __init__(
        self,
        state: State,
        binaries: Binaries,
        sockets: Path,
        *,
        start_timeout_s: float,
        settings: Mapping[str, str],
    ) -> None:
        """Take a held state folder, programs its user can run, and a private socket folder."""
        self._state = state
        self._binaries = binaries
        self._sockets = sockets
        self._folder = state.server_folder("postgres")
        self._data = self._folder / "data"
        own = {"log_directory": str(self._folder / "log")}
        self._settings = {**SETTINGS, **own, **settings}
        self._start_timeout_s = start_timeout_s
        self._owner_password = ""
        self.supervisor = Supervisor(
            self._program(), ready=self._ready, start_timeout_s=start_timeout_s
        )

    async def start(self) -> PostgresServer:
        """Make the data folder the first time, start the server, make sure of roles and database.

        raises  ServersError with the server's last words where it does not come up
        """
        exists = await asyncio.to_thread(self._require_same_major)
        self._owner_password = password(self._state, "postgres-owner", must_exist=exists)
        daemon_password = password(self._state, "postgres-daemon")
        if not exists:
            await asyncio.to_thread(self._initialise)
        uid, gid = self._state.account.uid, self._state.account.gid
        private_folder(self._folder / "log", uid=uid, gid=gid)
        await self.supervisor.start()
        try:
            await self._make_roles(daemon_password)
        except BaseException:
            await self.supervisor.stop()
            raise
        return PostgresServer(
            owner_dsn=dsn(self._sockets, OWNER, self._owner_password),
            daemon_dsn=dsn(self._sockets, DAEMON, daemon_password),
            pid=self.supervisor.pid,
            state_folder=self._state.folder,
            socket_folder=self._sockets,
            version=self._binaries.version,
        )

    async def wipe(self) -> None:
        """End what runs on the data folder and remove it; the passwords stay."""
        await end_processes(self._program())
        await asyncio.to_thread(remove_folder, self._data)

    async def stop(self) -> None:
        """Shut the server down; committed data is on disk."""
        await self.supervisor.stop()

    def _program(self) -> Program:
        settings = self._settings | {"unix_socket_directories": str(self._sockets)}
        options = [f"--{name}={value}" for name, value in settings.items()]
        return Program(
            name="postgres",
            argv=(str(self._binaries.path), "-D", str(self._data), f"--port={PORT}", *options),
            folder=self._data,
            log_file=self._state.our_folder("logs") / "postgres-start.log",
            account=self._state.account,
            endings=ENDINGS,
            stale=(self._data / "postmaster.pid", self._sockets / f".s.PGSQL.{PORT}.lock"),
            leader=read_postmaster_pid,
        )

    def _require_same_major(self) -> bool:
        """Say whether the data folder exists; refuse one of another major version."""
        try:
            found = (self._data / "PG_VERSION").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return False
        if found != str(self._binaries.major):
            raise ServersError(
                f"{self._data} was made by PostgreSQL {found}, the programs are "
                f"{self._binaries.version}: upgrade it with pg_upgrade, or start afresh"
            )
        return True

    def _initialise(self) -> None:
        """Make the data folder beside its place and rename it: it is whole or absent."""
        account = self._state.account
        unfinished = self._folder / "data.new"
        remove_folder(unfinished)
        secret_file = self._folder / "owner-password"
        secret = self._owner_password.encode("ascii")
        write_private(secret_file, secret, uid=account.uid, gid=account.gid)
        try:
            done = subprocess.run(
                self._initdb(unfinished, secret_file),
                cwd=self._folder,
                env=clean_environment(os.environ),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=INITDB_TIMEOUT_S,
                check=False,
                **identity(account),
            )
        finally:
            secret_file.unlink()
        if done.returncode != 0:
            raise ServersError(f"initdb failed: {(done.stderr or done.stdout).strip()[-2000:]}")
        unfinished.rename(self._data)

    def _initdb(self, folder: Path, secret_file: Path) -> Sequence[str]:
        builtin = self._binaries.major >= BUILTIN_LOCALE_SINCE
        locale = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8") if builtin else ()
        return (
            str(self._binaries.program("initdb")),
            f"--pgdata={folder}",
            f"--username={OWNER}",
            f"--pwfile={secret_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C" if builtin else "--locale=C.UTF-8",
            *locale,
            "--data-checksums",
        )

    async def _ready(self) -> bool:
        try:
            connection = await self._connect("postgres")
        except NOT_READY:
            return False
        except asyncpg.InvalidAuthorizationSpecificationError as error:
            raise ServersError(
                f"postgres refuses the password in the state folder: {error}"
            ) from None
        try:
            await connection.fetchval(q.READY)
        finally:
            connection.terminate()
        return True

    async def _connect(self, database: str) -> asyncpg.Connection:
        return await asyncpg.connect(
            dsn(self._sockets, OWNER, self._owner_password, database), timeout=CONNECT_TIMEOUT_S
        )

    async def _make_roles(self, daemon_password: str) -> None:
        """Make the daemon's role and the database where they are missing; set the password."""
        connection = await self._connect("postgres")
        try:
            exists = await connection.fetchval(q.DAEMON_ROLE_EXISTS)
            write = q.WRITE_ALTER_DAEMON_ROLE if exists else q.WRITE_CREATE_DAEMON_ROLE
            await connection.execute(await connection.fetchval(write, daemon_password))
            if not await connection.fetchval(q.DATABASE_EXISTS):
                await connection.execute(q.CREATE_DATABASE)
        finally:
            await connection.close()


def dsn(sockets: Path, user: str, secret: str, database: str = DATABASE) -> str:
    """Return the address of a database for a role."""
    host = quote(str(sockets), safe="/")
    return f"postgresql://{user}:{secret}@/{database}?host={host}&port={PORT}"


def describe_running(state: State) -> PostgresServer:
    """Return the server that another process runs in a state folder, from what it left there.

    raises  ServersError where the passwords are missing
    """
    sockets, _ = socket_folder(state, "postgres")
    data = state.folder / "postgres" / "data"
    return PostgresServer(
        owner_dsn=dsn(sockets, OWNER, password(state, "postgres-owner", must_exist=True)),
        daemon_dsn=dsn(sockets, DAEMON, password(state, "postgres-daemon", must_exist=True)),
        pid=read_postmaster_pid(data) or 0,
        state_folder=state.folder,
        socket_folder=sockets,
        version=(data / "PG_VERSION").read_text(encoding="ascii").strip(),
    )


def read_postmaster_pid(data: Path) -> int | None:
    """Return the pid that the running or crashed server wrote into its data folder."""
    try:
        first = (data / "postmaster.pid").read_text(encoding="ascii").split("\n", 1)[0]
        return int(first)
    except (OSError, ValueError):
        return None
