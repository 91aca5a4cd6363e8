"""The servers that brokerd starts for itself where none are configured.

It knows how one PostgreSQL and one Redis are found, started, watched and ended. It refuses to know
what is stored in them, and to touch servers that someone else runs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, Protocol, TypeVar

import msgspec

from gateway.servers.binaries import Binaries, find_postgres, find_redis, place
from gateway.servers.postgres import Postgres, PostgresServer, describe_running
from gateway.servers.privileges import ServersError, choose_account
from gateway.servers.redis import Redis, RedisServer
from gateway.servers.state import State, folder_of, held, holder, open_state, socket_folder
from gateway.servers.supervisor import Supervisor

__all__ = [
    "EmbeddedSettings",
    "PostgresServer",
    "RedisServer",
    "Servers",
    "ServersError",
    "embedded",
    "find_running",
]

Running_co = TypeVar("Running_co", covariant=True)

OUTSIDE: Final = Path("/var/lib/brokerd")


class EmbeddedSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which servers to run, where, and as whom."""

    state_folder: Path
    want_postgres: bool = True
    want_redis: bool = True
    fresh: bool = False  # wipe the servers' data first
    run_as: str | None = None  # as root: the user to drop to
    start_timeout_s: float = 120.0  # recovery after a crash with much log takes long
    outside: Path = OUTSIDE  # as root: state and copies where that user cannot reach the checkout
    postgres_bin: Path | None = None  # a `bin` folder to use instead of the embedded programs
    postgres_settings: Mapping[str, str] = {}  # over the defaults in postgres.py


class Servers(msgspec.Struct, frozen=True, kw_only=True):
    """What runs now, where, and what people should be told about it."""

    state_folder: Path
    postgres: PostgresServer | None
    redis: RedisServer | None
    notes: tuple[str, ...]
    supervisors: Mapping[str, Supervisor]


@asynccontextmanager
async def embedded(
    settings: EmbeddedSettings, *, random_bytes: Callable[[int], bytes] = os.urandom
) -> AsyncIterator[Servers]:
    """Run the wanted servers while the block lasts; their data stays for the next time.

    random_bytes  makes the passwords, the first time
    raises  ServersError where the folder is held by another process, no unprivileged user exists,
            programs are missing, or a server does not come up
    """
    account = choose_account(settings.run_as, euid=os.geteuid())
    async with AsyncExitStack() as opened:
        state = open_state(
            settings.state_folder,
            outside=settings.outside,
            account=account,
            random_bytes=random_bytes,
        )
        opened.enter_context(held(state))
        notes = list(state.notes)
        supervisors: dict[str, Supervisor] = {}
        postgres = redis = None
        if settings.want_postgres:
            database = await _postgres(state, settings, notes)
            postgres = await _run(database, opened, fresh=settings.fresh)
            supervisors["postgres"] = database.supervisor
        if settings.want_redis:
            cache = await _redis(state, settings, notes)
            redis = await _run(cache, opened, fresh=settings.fresh)
            supervisors["redis"] = cache.supervisor
        yield Servers(
            state_folder=state.folder,
            postgres=postgres,
            redis=redis,
            notes=tuple(notes),
            supervisors=supervisors,
        )


def find_running(settings: EmbeddedSettings) -> PostgresServer | None:
    """Return the PostgreSQL that another process runs on this state folder; None where none does.

    Nothing is made or started: this is how a command beside a running daemon finds its database.
    """
    account = choose_account(settings.run_as, euid=os.geteuid())
    folder = folder_of(settings.state_folder, outside=settings.outside, account=account)
    if not holder(folder) or not (folder / "postgres" / "data").is_dir():
        return None
    return describe_running(State(folder=folder, account=account, random_bytes=os.urandom))


class _Kept(Protocol[Running_co]):
    async def wipe(self) -> None: ...
    async def start(self) -> Running_co: ...
    async def stop(self) -> None: ...


async def _run(server: _Kept[Running_co], opened: AsyncExitStack, *, fresh: bool) -> Running_co:
    if fresh:
        await server.wipe()
    opened.push_async_callback(server.stop)
    return await server.start()


async def _postgres(state: State, settings: EmbeddedSettings, notes: list[str]) -> Postgres:
    found = await asyncio.to_thread(find_postgres, settings.postgres_bin)
    sockets, note = socket_folder(state, "postgres")
    return Postgres(
        state,
        await _place(found, state, settings, notes, note),
        sockets,
        start_timeout_s=settings.start_timeout_s,
        settings=settings.postgres_settings,
    )


async def _redis(state: State, settings: EmbeddedSettings, notes: list[str]) -> Redis:
    found = await asyncio.to_thread(find_redis)
    sockets, note = socket_folder(state, "redis")
    placed = await _place(found, state, settings, notes, note)
    return Redis(state, placed, sockets, start_timeout_s=settings.start_timeout_s)


async def _place(
    found: Binaries, state: State, settings: EmbeddedSettings, notes: list[str], note: str
) -> Binaries:
    placed, copied = await asyncio.to_thread(
        place, found, state.account, settings.outside / "binaries"
    )
    notes.extend(text for text in (note, copied) if text)
    return placed
