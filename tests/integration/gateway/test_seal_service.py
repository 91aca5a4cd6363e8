"""The seal as a service: owned by one, handed over, anchored to a file and to a listener, counted.

It knows the service as the daemon starts it. It refuses to know the chain, which has its own tests.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import aiohttp
import asyncpg
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry

from config.settings import Address, Control, Secret
from gateway import gauges
from gateway.audit_check import read_anchors
from gateway.control import audit, keys
from gateway.control.audit import Command, audited
from gateway.control.sealing import Signer, new_key
from gateway.metrics import GatewayMetrics
from gateway.owners import Ownership
from gateway.seal import Seal
from ledger.ids import Ids
from tests.support.servers import Database

WAIT_S = 30.0
PEM = new_key()


def now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


class Listener:
    """A second place that may be down."""

    def __init__(self) -> None:
        self.status = 204
        self.taken: list[bytes] = []

    async def take(self, request: web.Request) -> web.Response:
        """Keep what came."""
        self.taken.append(await request.read())
        return web.Response(status=self.status)


@asynccontextmanager
async def listening(listener: Listener) -> AsyncIterator[str]:
    """The address of a listener."""
    application = web.Application()
    application.router.add_post("/anchors", listener.take)
    async with TestServer(application) as server:
        yield str(server.make_url("/anchors"))


@asynccontextmanager
async def serving(
    database: Database, pool: asyncpg.Pool, name: str, wanted: Control
) -> AsyncIterator[Seal]:
    """One replica's seal at work."""
    connect = partial(asyncpg.connect, database.daemon_dsn)
    owner = Ownership("control", name, connect, time.monotonic)
    async with aiohttp.ClientSession() as http:
        seal = Seal(wanted, pool, owner, http, now)
        work = asyncio.create_task(seal.run())
        try:
            yield seal
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


async def until(there: Callable[[], Awaitable[object]]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(WAIT_S):
        while not await there():
            await asyncio.sleep(0.02)


async def act(pool: asyncpg.Pool) -> None:
    """One act."""
    command = Command(keys.operator("ann"), "why", "CR1", now())
    ids = Ids(lambda: time.time_ns() // 1_000_000, os.urandom)
    row = audited(command, "key.revoke", "KY1", ids.new("AU"))
    async with pool.acquire() as conn, conn.transaction():
        await audit.write(conn, [row])


def wanted(file: Path, url: str = "") -> Control:
    """Settings with a key, and where anchors go."""
    return Control(
        pepper=Secret("p"), anchor_key=Secret(PEM), anchor_file=str(file),
        anchor_url=Address(url), anchor_s=0.05,
    )  # fmt: skip


async def test_it_seals_anchors_and_is_taken_over(
    database: Database, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    """Of two replicas one works; when it ends the other goes on with the same chain and file."""
    file, listener = tmp_path / "anchors.jsonl", Listener()

    async def sealed(count: int) -> bool:
        return bool(await pool.fetchval("SELECT count(*) = $1 FROM gateway.audit_seal", count))

    async def anchored(count: int) -> bool:
        rows = await pool.fetchval("SELECT max(count) FROM gateway.audit_anchor")
        return bool(rows == count) and f'"count":{count},' in file.read_text()

    async with listening(listener) as url, serving(database, pool, "b", wanted(file, url)):
        async with serving(database, pool, "a", wanted(file, url)):
            await act(pool)
            await until(partial(sealed, 1))
            await until(partial(anchored, 1))
        await act(pool)
        await until(partial(sealed, 2))
        await until(partial(anchored, 2))

    key = Signer(PEM).public_key()
    torn: list[int] = []
    anchors = list(read_anchors(file.read_text().splitlines(), key, torn))
    assert (anchors[-1].count, torn) == (2, [])
    told = [each.decode() for each in listener.taken]
    assert set(told) <= {f"{line}\n" for line in file.read_text().splitlines()}
    holders = await pool.fetch("SELECT holder FROM gateway.owner WHERE name = 'control'")
    assert len(holders) == 1


async def test_a_listener_that_refuses_is_a_trouble_until_it_does_not(
    database: Database, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    """`/readyz` names it; the file has every anchor meanwhile."""
    listener = Listener()
    listener.status = 503
    async with listening(listener) as url:
        settings = wanted(tmp_path / "anchors.jsonl", url)
        async with serving(database, pool, "a", settings) as seal:

            async def troubled() -> bool:
                return "503" in seal.trouble()

            async def well() -> bool:
                return bool(listener.taken) and seal.trouble() == ""

            await until(troubled)
            assert (tmp_path / "anchors.jsonl").read_text()
            listener.status = 204
            await until(well)
    assert seal.trouble() == "", "another replica's trouble is not ours"


async def test_how_far_the_seal_is_can_be_counted(database: Database, pool: asyncpg.Pool) -> None:
    """Sealed records, the age of the oldest that is not, and of the newest anchor."""
    metrics = GatewayMetrics(CollectorRegistry())

    async def value(name: str) -> float | None:
        async with pool.acquire() as conn:
            await gauges.read(conn, metrics, now())
        return metrics.registry.get_sample_value(f"brokerd_audit_{name}")

    assert await value("unsealed_seconds") == 0
    slow = await database.connect()
    async with slow.transaction():
        await slow.execute("SELECT pg_current_xact_id()")
        await act(pool)
        async with serving(database, pool, "a", Control(pepper=Secret("p"))):

            async def waits() -> bool:
                return (await value("unsealed_seconds") or 0) > 0.1

            await until(waits)
            assert await value("sealed_records") == 0
    assert await value("anchor_age_seconds") == 0, "nothing is anchored without a key"


def test_a_key_of_another_kind_is_refused_at_the_start() -> None:
    """The message says which setting, before anything is served."""
    with pytest.raises(ValueError):  # noqa: PT011 - whatever the library says of it
        Signer("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----")
    settings = msgspec.structs.replace(wanted(Path("x")), anchor_key=Secret("no key"))
    with pytest.raises(ValueError):  # noqa: PT011 - whatever the library says of it
        Seal(settings, None, None, None, now)  # type: ignore[arg-type]
