"""The database an operator's command works on: the configured one, the daemon's own, or our own.

Knows how to find it from the settings alone, whether or not a daemon runs. Refuses to know what the
command does there.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import asyncpg
import msgspec

from config.settings import Settings
from gateway.servers import EmbeddedSettings, ServersError, embedded
from gateway.servers.postgres import DAEMON, DATABASE, OWNER, PORT
from gateway.servers.privileges import choose_account
from gateway.servers.state import State, open_state, password, socket_folder

CONNECT_TIMEOUT_S = 5.0


class Reach(msgspec.Struct, frozen=True):
    """How to reach the database. The addresses hold passwords and are left out of the repr.

    daemon_dsn  as the daemon's role
    owner_dsn   as the owner of the schemas; "" where the settings do not say
    notes       what the operator should be told of servers that were started
    """

    daemon_dsn: str
    owner_dsn: str
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Show nothing of the addresses."""
        return f"Reach(notes={self.notes!r})"


@asynccontextmanager
async def database(settings: Settings) -> AsyncIterator[Reach]:
    """Reach the database while the block lasts.

    A configured one is used as it is. Without one it is that of the daemon that runs on the state
    folder, or else our own server, started for the length of the block. Raises ServersError.
    """
    if settings.database.dsn:
        yield Reach(settings.database.dsn.reveal(), settings.database.owner_dsn.reveal())
        return
    running = await _running(settings)
    if running is not None:
        yield running
        return
    async with embedded(_embedded_settings(settings)) as servers:
        assert servers.postgres is not None, "it was asked for"
        yield Reach(servers.postgres.daemon_dsn, servers.postgres.owner_dsn, servers.notes)


def _embedded_settings(settings: Settings) -> EmbeddedSettings:
    return EmbeddedSettings(
        state_folder=Path(settings.embedded.state_folder),
        run_as=settings.embedded.run_as or None,
        want_redis=False,
        start_timeout_s=settings.embedded.start_timeout_s,
    )


async def _running(settings: Settings) -> Reach | None:
    """The server a daemon runs on the state folder; None where nobody answers there."""
    wanted = _embedded_settings(settings)
    if not wanted.state_folder.exists():
        return None
    account = choose_account(wanted.run_as, euid=os.geteuid())
    state = open_state(
        wanted.state_folder, outside=wanted.outside, account=account, random_bytes=os.urandom
    )
    try:
        reach = Reach(_dsn(state, DAEMON, "daemon"), _dsn(state, OWNER, "owner"))
    except ServersError:  # no passwords yet: no server has ever run here
        return None
    with suppress(OSError, asyncpg.PostgresError):
        connection = await asyncpg.connect(reach.daemon_dsn, timeout=CONNECT_TIMEOUT_S)
        await connection.close()
        return reach
    return None


def _dsn(state: State, user: str, name: str) -> str:
    sockets, _ = socket_folder(state, "postgres")
    secret = password(state, f"postgres-{name}", must_exist=True)
    host = quote(str(sockets), safe="/")
    return f"postgresql://{user}:{secret}@/{DATABASE}?host={host}&port={PORT}"
