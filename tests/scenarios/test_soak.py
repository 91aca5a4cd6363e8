"""Hours in minutes: daemon, PostgreSQL and Redis killed at random moments under deposits and deals.

The moments come from a seed that is printed, so that a failure can be looked at again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest
import pytest_asyncio

from gateway.servers import Servers
from tests.scenarios.test_deal_faults import RUN, battered, open_ground
from tests.scenarios.test_servers_lost import insisted
from tests.support.house import Addresses, House, open_house
from tests.support.servers import kill

pytestmark = [pytest.mark.soak, pytest.mark.slow]

ROUNDS = 20
DEPOSITS_A_ROUND = 12
PAUSE_MAX_S = 0.8
RUNS = 10
CALM_PER_S = 1_000
SEED = int.from_bytes(os.urandom(4))


@pytest_asyncio.fixture
async def house(durable: Servers, tmp_path: Path) -> AsyncIterator[House]:
    """A house on servers that may be killed."""
    assert durable.postgres is not None
    assert durable.redis is not None
    addresses = Addresses(
        durable.postgres.daemon_dsn, durable.postgres.owner_dsn, durable.redis.url
    )
    async with open_house(addresses, tmp_path) as opened:
        yield opened


@pytest.mark.timeout(1800)
async def test_kills_at_random_moments_lose_and_repeat_nothing(
    house: House, durable: Servers
) -> None:
    """Whatever is killed whenever: each deposit insisted on is charged once and credited once."""
    chance = Random(SEED)
    print(f"seed {SEED}")  # noqa: T201 shown with a failure
    client = await house.client(account="standard")
    order = house.order(client, to="account")
    for _ in range(ROUNDS):
        asked = [
            asyncio.create_task(insisted(house, order, house.ids.new("CR")))
            for _ in range(DEPOSITS_A_ROUND)
        ]
        await asyncio.sleep(chance.random() * PAUSE_MAX_S)
        match chance.choice(("daemon", "daemon", "postgres", "redis")):
            case "daemon":
                await house.daemon.kill()
                await house.daemon.start()
            case server:
                await kill(durable, server)
        for answer in await asyncio.gather(*asked):
            await house.becomes(answer.location.rpartition("/")[2], transfer="done")
    wanted = ROUNDS * DEPOSITS_A_ROUND
    assert len(await house.payments(client)) == wanted
    assert len(await house.deals(client)) == len(await house.charges(client)) == wanted
    assert await house.disagreements() == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("run", range(RUNS))
async def test_kills_amid_many_deals_pay_as_a_calm_run_does(
    durable: Servers, tmp_path: Path, run: int
) -> None:
    """Whatever is killed whenever: each deal pays once, and as the same deals do in calm.

    The same traders deal by the same seed again, and nothing is killed: what that adds is what the
    run amid kills came to. Half a cent that was carried may be paid in the one or in the other.
    """
    print(f"seed {SEED} run {run}")  # noqa: T201 shown with a failure
    async with open_ground(durable, tmp_path) as market:
        battered_nets = await battered(market, durable, Random(SEED + run))
        before = await market.made()
        await market.deals(CALM_PER_S, RUN)
        await market.dealt()
        both = await market.agrees()
        assert await market.made() >= before + RUN
        off = {name: both[name] - 2 * net for name, net in battered_nets.items()}
        assert all(abs(minor) <= 1 for minor in off.values()), off
        assert await market.house.disagreements() == []
