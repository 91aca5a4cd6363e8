"""A whole brokerd for measuring: the real daemon as a process of its own, with keys and clients.

Knows what runs before what. Refuses to measure, and to start the providers: a bench brings those
that answer at once, the load test brings the simulators.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import aiohttp
import asyncpg
import msgspec

from config.rulebook import Rulebook
from gateway.control import rulebook as rulebooks
from gateway.control.keys import NewKey
from gateway.demo import daemons
from gateway.demo.api import Api
from gateway.demo.children import Child
from gateway.demo.daemons import KeyRing, Wish
from gateway.demo.peers import Secrets, authority, free_port, start_platform
from gateway.demo.people import Desk, Person, settle_in
from ledger.ids import Ids
from loadtests.ground import Base

RULEBOOK: Final = Path(__file__).parent.parent / "config" / "demo"
STAFF: Final = (
    NewKey("portal", "svc.caller"),
    NewKey("olga", "kyc-analyst"),
    NewKey("carl", "compliance"),
)
REQUESTS_PER_S: Final = 100_000  # the limiter works and never refuses: one caller plays them all
END_LIMIT_S: Final = 15.0


class House(msgspec.Struct, frozen=True, kw_only=True):
    """What runs, and how to call it."""

    url: str
    token: str
    clients: tuple[str, ...]
    daemon: Child
    settings: Path
    desk: Desk


def rulebook() -> Rulebook:
    """The sample broker's rules."""
    book, findings = rulebooks.check(RULEBOOK)
    assert book is not None, findings
    return book


def secrets_in(folder: Path, base: Base, redis_url: str) -> Secrets:
    """The secrets of a house, with the addresses of its servers among them."""
    secrets = Secrets(folder / "secrets", os.urandom)
    secrets.write("daemon-dsn", base.daemon_dsn)
    secrets.write("owner-dsn", base.owner_dsn)
    secrets.write("redis-url", redis_url)
    return secrets


@asynccontextmanager
async def simulated(folder: Path, secrets: Secrets, book: Rulebook) -> AsyncIterator[str]:
    """The simulated platform while the block lasts: its address."""
    platform = await start_platform(folder, secrets, book.groups, dict(os.environ))
    try:
        yield platform.url
    finally:
        await platform.child.stop()


@asynccontextmanager
async def opened(
    folder: Path, secrets: Secrets, providers: Mapping[str, str], port: int, clients: int,
    platform: Callable[[Path, Secrets, Rulebook], AbstractAsyncContextManager[str]] = simulated,
) -> AsyncIterator[House]:  # fmt: skip
    """Start a platform and the daemon on a migrated database, and settle clients in.

    secrets    with the addresses of the database and of Redis, as `secrets_in` makes them
    providers  the address of each provider of the rulebook
    port       where the daemon listens; a provider's webhooks may have been told already
    platform   starts a platform whose authority stands where the simulated one's does
    """
    book = rulebook()
    environ = dict(os.environ)
    ids = Ids(lambda: time.time_ns() // 1_000_000, os.urandom)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(platform(folder, secrets, book))
        wish = Wish(
            name="brokerd", folder=folder, rulebook=RULEBOOK, port=port, psps=providers,
            platforms={each.id: url for each in book.platforms}, authority=authority(folder),
            requests_per_s=REQUESTS_PER_S,
        )  # fmt: skip
        settings = daemons.write_settings(wish, secrets)
        daemon = await daemons.start_daemon(wish, settings, environ)
        stack.push_async_callback(daemon.stop)
        tokens = await _tokens(book, secrets, ids)
        url = f"http://127.0.0.1:{port}"
        http = await stack.enter_async_context(aiohttp.ClientSession())
        desk = Desk(*[Api(http, url, tokens[who.owner], lambda: ids.new("CR")) for who in STAFF])
        known = await settle_in(desk, people(clients))
        yield House(
            url=url, token=tokens[STAFF[0].owner], clients=tuple(each.id for each in known),
            daemon=daemon, settings=settings, desk=desk,
        )  # fmt: skip


def people(wanted: int) -> list[Person]:
    """Clients who may pay by card through the first provider of the rules."""
    return [
        Person(
            reference=f"load-{number:04}", brand="southbank", country="DE", currency="USD",
            risk="low", goes_to="deposit_enabled",
        )
        for number in range(wanted)
    ]  # fmt: skip


async def _tokens(book: Rulebook, secrets: Secrets, ids: Ids) -> dict[str, str]:
    ring = KeyRing(book, secrets, ids, lambda: datetime.now(UTC), os.urandom)
    conn = await asyncpg.connect(secrets.read("daemon-dsn"))
    try:
        return {wish.owner: await ring.key(conn, wish) for wish in STAFF}
    finally:
        await conn.close()


# --- children that are not brokerd --------------------------------------------------------------


class Started(msgspec.Struct, frozen=True):
    """A script of this folder that runs and listens."""

    url: str
    pid: int
    admin: str = ""


@asynccontextmanager
async def script(
    name: str, arguments: Sequence[str], environ: Mapping[str, str] | None = None
) -> AsyncIterator[Started]:
    """Run `python -m loadtests.NAME ARGUMENTS` while the block lasts; it says where it listens."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"loadtests.{name}", *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **(environ or {})}, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        said = msgspec.json.decode(await process.stdout.readline())
        yield Started(said["listening"], process.pid, said.get("admin", ""))
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(END_LIMIT_S):
            await process.wait()


__all__ = ["House", "Started", "free_port", "opened", "people", "rulebook", "script", "secrets_in"]
