"""What a process opens around its rooms: its clocks, its servers, a pool, a Redis, and its door.

Knows which limits every connection bears. Refuses to know what it is used for.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import asyncpg
import msgspec
from aiohttp import web
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from bridge.session import Server
from config.settings import Http, PlatformServer, Settings
from gateway.servers import EmbeddedSettings, embedded

READ_STATEMENT_S: Final = 10.0


class Addresses(msgspec.Struct, frozen=True):
    """The servers this process uses. Their passwords are in them: never logged."""

    dsn: str
    owner_dsn: str
    redis_url: str
    notes: tuple[str, ...] = ()


class Clocks(msgspec.Struct, frozen=True):
    """Time and chance for every constructor."""

    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    boot_time: Callable[[], float]
    random_bytes: Callable[[int], bytes]


def real_clocks() -> Clocks:
    """The machine's own."""
    return Clocks(
        now=partial(datetime.now, UTC),
        monotonic=time.monotonic,
        boot_time=partial(time.clock_gettime, time.CLOCK_BOOTTIME),
        random_bytes=os.urandom,
    )


@asynccontextmanager
async def open_servers(settings: Settings, *, fresh: bool = False) -> AsyncIterator[Addresses]:
    """The configured servers, or our own where none is configured."""
    dsn, url = settings.database.dsn.reveal(), settings.redis.url.reveal()
    if dsn and url:
        yield Addresses(dsn, settings.database.owner_dsn.reveal(), url)
        return
    async with embedded(_wanted(settings, fresh=fresh)) as servers:
        owner = settings.database.owner_dsn.reveal()
        if servers.postgres is not None:
            dsn, owner = servers.postgres.daemon_dsn, servers.postgres.owner_dsn
        if servers.redis is not None:
            url = servers.redis.url
        yield Addresses(dsn, owner, url, servers.notes)


def _wanted(settings: Settings, *, fresh: bool) -> EmbeddedSettings:
    """Those that are configured elsewhere are not ours to run."""
    return EmbeddedSettings(
        state_folder=Path(settings.embedded.state_folder).absolute(),
        want_postgres=not settings.database.dsn.reveal(),
        want_redis=not settings.redis.url.reveal(),
        fresh=fresh,
        run_as=settings.embedded.run_as or None,
        start_timeout_s=settings.embedded.start_timeout_s,
    )


@asynccontextmanager
async def open_pool(settings: Settings, dsn: str) -> AsyncIterator[asyncpg.Pool]:
    """Connections for reads and short transactions; the server ends what takes too long."""
    async with asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=settings.database.pool_size,
        timeout=settings.database.connect_timeout_s,
        command_timeout=READ_STATEMENT_S,
        max_inactive_connection_lifetime=0,
        reset=_nothing_to_reset,
        server_settings={
            "application_name": "brokerd",
            "idle_in_transaction_session_timeout": "2s",
            "statement_timeout": f"{READ_STATEMENT_S:.0f}s",
            "jit": "off",  # to compile takes longer than any of our reads
        },
    ) as pool:
        yield pool


async def _nothing_to_reset(_: object) -> None:
    """Spare the round trip that resets a session after each use.

    Nobody sets, listens or takes session locks on a pooled connection: owners and lanes have
    connections of their own. An open transaction is rolled back all the same.
    """


@asynccontextmanager
async def open_redis(settings: Settings, url: str) -> AsyncIterator[Redis]:
    """A client that gives up soon and is not asked twice: whoever asks can do without."""
    client = Redis.from_url(
        url,
        socket_timeout=settings.redis.answer_timeout_s,
        socket_connect_timeout=settings.redis.answer_timeout_s,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def listening(application: web.Application, settings: Settings) -> AsyncIterator[str]:
    """Take requests while the block lasts; those under way are finished before it ends."""
    runner = web.AppRunner(
        application, handle_signals=False, access_log=None,
        keepalive_timeout=settings.http.keep_alive_s,
        shutdown_timeout=settings.process.drain_s,
    )  # fmt: skip
    await runner.setup()
    try:
        held = settings.http
        site = web.TCPSite(runner, held.host, held.port, backlog=1024, ssl_context=tls(held))
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"{'https' if held.certificate else 'http'}://{host}:{port}"
    finally:
        await runner.cleanup()


def tls(wanted: Http) -> ssl.SSLContext | None:
    """How TLS ends here, where the settings give a certificate; callers may show one too."""
    if not wanted.certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(wanted.certificate, wanted.certificate_key or None)
    if wanted.client_ca:
        context.load_verify_locations(wanted.client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def platform_server(name: str, reached: PlatformServer, settle_time_s: float) -> Server:
    """A platform of the rulebook with the settings of how to reach it."""
    return Server(
        id=name, url=reached.url, login=reached.manager_login, password=reached.password,
        ca_file=reached.ca, settle_time_s=settle_time_s, ping_s=reached.ping_s,
        dial_timeout_s=reached.dial_timeout_s, call_timeout_s=reached.call_timeout_s,
        backoff_first_s=reached.backoff_first_s, backoff_max_s=reached.backoff_max_s,
    )  # fmt: skip
