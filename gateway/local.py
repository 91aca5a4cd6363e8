"""The database an operator's command works on: the configured one, the daemon's own, or our own.

Knows how to find it from the settings alone, whether or not a daemon runs. Refuses to know what the
command does there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from config.settings import Settings
from gateway.servers import OUTSIDE, EmbeddedSettings, embedded, find_running


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
async def database(settings: Settings, *, outside: Path = OUTSIDE) -> AsyncIterator[Reach]:
    """Reach the database while the block lasts.

    A configured one is used as it is. Without one it is that of the daemon that runs on the state
    folder, or else our own server, started for the length of the block.

    outside  where root keeps what an unprivileged user could not reach in the checkout
    raises   ServersError
    """
    if settings.database.dsn:
        yield Reach(settings.database.dsn.reveal(), settings.database.owner_dsn.reveal())
        return
    wanted = _embedded_settings(settings, outside)
    if (running := find_running(wanted)) is not None:
        yield Reach(running.daemon_dsn, running.owner_dsn)
        return
    async with embedded(wanted) as servers:
        assert servers.postgres is not None, "it was asked for"
        yield Reach(servers.postgres.daemon_dsn, servers.postgres.owner_dsn, servers.notes)


def _embedded_settings(settings: Settings, outside: Path) -> EmbeddedSettings:
    return EmbeddedSettings(
        state_folder=Path(settings.embedded.state_folder),
        run_as=settings.embedded.run_as or None,
        want_redis=False,
        outside=outside,
        start_timeout_s=settings.embedded.start_timeout_s,
    )
