"""PostgreSQL is killed and restarted under load: what was acknowledged is there, once."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from gateway.servers import Servers
from ledger.connections import connect_writer
from ledger.journal import Numbers
from ledger.lane import Lane, LaneLimits
from ledger.units import Done, Unit
from ledger.verify import verify
from tests.integration.ledger.conftest import deposit
from tests.support.servers import kill, restart

CALLERS = 40
ROUNDS = 4
WAIT_S = 90.0


@pytest.mark.slow
async def test_a_server_killed_under_load_loses_and_doubles_nothing(durable: Servers) -> None:
    """Callers hand units in without a pause while the server is killed and restarted: each of their
    units is acknowledged, none is lost, none stands twice, and the books agree.
    """
    assert durable.postgres is not None
    dsn = durable.postgres.daemon_dsn
    lane = Lane(
        "restart", lambda: connect_writer(dsn), Numbers(), time.monotonic,
        LaneLimits(redial_s=0.02, redial_max_s=0.2),
    )  # fmt: skip
    running = asyncio.create_task(lane.run())
    ended = asyncio.Event()
    acknowledged: list[str] = []

    async def caller(n: int) -> None:
        turn = 0
        while not ended.is_set():
            key, turn = f"PY-{n}-{turn}", turn + 1
            assert isinstance(await lane.submit(Unit((), (deposit(key, f"CL{n}"),))), Done)
            acknowledged.append(key)

    async with asyncio.timeout(WAIT_S):
        callers = [asyncio.create_task(caller(n)) for n in range(CALLERS)]
        for disturb in [kill, restart] * (ROUNDS // 2):
            before = len(acknowledged)
            await disturb(durable, "postgres")
            while len(acknowledged) < before + CALLERS:
                await asyncio.sleep(0.02)
        ended.set()
        await asyncio.gather(*callers)
        lane.close()
        await running
    reader = await asyncpg.connect(dsn)
    try:
        booked = [row["key"] for row in await reader.fetch("SELECT key FROM ledger.entry")]
        assert sorted(booked) == sorted(acknowledged)
        assert await verify(reader) == []
    finally:
        await reader.close()
