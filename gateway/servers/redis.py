"""The embedded Redis or Valkey: append-only, on a socket, behind a password.

It knows how the server is configured so that a crash keeps what was acknowledged. It refuses to
know what is kept in it: nothing there is money.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from gateway.servers.binaries import Binaries
from gateway.servers.privileges import private_folder
from gateway.servers.state import State, password, remove_folder
from gateway.servers.supervisor import Program, Supervisor, end_processes

ANSWER_TIMEOUT_S: Final = 5.0

ENDINGS: Final = ((signal.SIGTERM, 30.0), (signal.SIGKILL, 15.0))

SETTINGS: Final[Mapping[str, str]] = {
    "port": "0",  # nothing listens on the network
    "unixsocketperm": "700",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": '""',
    "databases": "16",
    "maxmemory": "256mb",
    "maxmemory-policy": "noeviction",  # a full server refuses; it never forgets a pushed deal
    "loglevel": "warning",
    "daemonize": "no",
}


class RedisServer(msgspec.Struct, frozen=True, kw_only=True):
    """A running Redis of our own. The URL holds a password and is left out of its repr."""

    url: str
    pid: int  # as started; the supervisor may have replaced it since
    state_folder: Path
    version: str

    def __repr__(self) -> str:
        """Name the server without its password."""
        return f"RedisServer(pid={self.pid}, state_folder={str(self.state_folder)!r})"


class Redis:
    """One Redis or Valkey in one state folder, from `start` to `stop`."""

    def __init__(
        self, state: State, binaries: Binaries, sockets: Path, *, start_timeout_s: float
    ) -> None:
        """Take a held state folder, a program its user can run, and a private socket folder."""
        self._state = state
        self._binaries = binaries
        self._socket = sockets / "redis.sock"
        self._secret = password(state, "redis")
        self._data = state.server_folder("redis") / "data"
        self.supervisor = Supervisor(
            self._program(), ready=self._ready, start_timeout_s=start_timeout_s
        )

    @property
    def url(self) -> str:
        """Return the address, with the password."""
        return f"unix://:{self._secret}@{quote(str(self._socket), safe='/')}?db=0"

    async def start(self) -> RedisServer:
        """Start the server and wait until it has loaded its data.

        raises  ServersError with the server's last words where it does not come up
        """
        account = self._state.account
        private_folder(self._data, uid=account.uid, gid=account.gid)
        await self.supervisor.start()
        return RedisServer(
            url=self.url,
            pid=self.supervisor.pid,
            state_folder=self._state.folder,
            version=self._binaries.version,
        )

    async def wipe(self) -> None:
        """End what runs on the data folder and remove it; the password stays."""
        await end_processes(self._program())
        await asyncio.to_thread(remove_folder, self._data)

    async def stop(self) -> None:
        """Shut the server down; its append-only file is on disk."""
        await self.supervisor.stop()

    def _program(self) -> Program:
        return Program(
            name="redis",
            argv=(str(self._binaries.path), "-"),  # the configuration comes on standard input
            folder=self._data,
            log_file=self._state.our_folder("logs") / "redis.log",
            account=self._state.account,
            endings=ENDINGS,
            stdin=self._configuration().encode(),
            leader=lambda _folder: None,
        )

    def _configuration(self) -> str:
        lines = [f"{name} {value}" for name, value in SETTINGS.items()]
        lines += [
            f'dir "{self._data}"',
            f'unixsocket "{self._socket}"',
            f"requirepass {self._secret}",
        ]
        return "\n".join(lines) + "\n"

    async def _ready(self) -> bool:
        """Ask for a PONG in the server's own words.

        The client library is not used: it swallows a cancellation that comes while it connects.
        """
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                try:
                    writer.write(f"AUTH {self._secret}\r\nPING\r\n".encode())
                    return [await reader.readline() for _ in range(2)] == [b"+OK\r\n", b"+PONG\r\n"]
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False  # not listening yet; while it loads its data, the PONG is an error
