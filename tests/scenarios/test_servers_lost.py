"""Stories of PostgreSQL and Redis going away under a daemon: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
import pytest_asyncio

from gateway.demo.api import Answer
from gateway.demo.people import Known
from gateway.servers import Servers
from tests.support.house import Addresses, House, open_house, until
from tests.support.proxy import Proxy, UnixUpstream
from tests.support.servers import kill, open_folder, restart

pytestmark = [pytest.mark.slow]

REPEAT_S = 0.3
REPEATS = 60
DEPOSITS = 30
CUTS = 12
BETWEEN_CUTS_S = 0.15
SOCKET = ".s.PGSQL.5432"


@pytest_asyncio.fixture
async def house(durable: Servers, tmp_path: Path) -> AsyncIterator[House]:
    """A house on servers that may be killed; at the end of the story every book agrees."""
    assert durable.postgres is not None
    assert durable.redis is not None
    addresses = Addresses(
        durable.postgres.daemon_dsn, durable.postgres.owner_dsn, durable.redis.url
    )
    async with open_house(addresses, tmp_path) as opened:
        yield opened
        assert await opened.disagreements() == []


async def insisted(house: House, order: dict[str, object], key: str) -> Answer:
    """What a caller does: repeat the request with its key until it is taken or told where."""
    for _ in range(REPEATS):
        try:
            answer = await house.portal.send("POST", "/v1/deposits", order, key=key)
        except (aiohttp.ClientError, TimeoutError):
            answer = None
        if answer is not None and answer.status in (201, 202, 409) and answer.location:
            return answer
        await asyncio.sleep(REPEAT_S)
    raise AssertionError(f"never answered: {answer}")


@pytest.mark.parametrize("how", [kill, restart], ids=["killed", "restarted"])
async def test_postgres_goes_away_under_load(
    house: House, durable: Servers, how: Callable[[Servers, str], Awaitable[None]]
) -> None:
    """While PostgreSQL is away callers are told 503; each deposit they insist on happens once."""
    client = await house.client(account="standard")
    asked = insisting(house, client)
    await house.charge_appears("acme", 0)
    await how(durable, "postgres")
    await all_ended_once(house, client, asked)


async def test_connections_to_postgres_break_under_load(durable: Servers, tmp_path: Path) -> None:
    """Connections cut anywhere, also between a commit and its answer: each deposit happens once."""
    assert durable.postgres is not None
    assert durable.redis is not None
    folder = open_folder()
    real = Path(parse_qs(urlsplit(durable.postgres.daemon_dsn).query)["host"][0])
    dsn = durable.postgres.daemon_dsn.replace(str(real), str(folder))
    addresses = Addresses(dsn, durable.postgres.owner_dsn, durable.redis.url)
    async with (
        Proxy(UnixUpstream(real / SOCKET), listen_on=folder / SOCKET) as proxy,
        open_house(addresses, tmp_path) as house,
    ):
        client = await house.client(account="standard")
        asked = insisting(house, client)
        await house.charge_appears("acme", 0)
        for _ in range(CUTS):
            proxy.cut_all()
            await asyncio.sleep(BETWEEN_CUTS_S)
        await all_ended_once(house, client, asked)
        assert await house.disagreements() == []
    shutil.rmtree(folder)


def insisting(house: House, client: Known) -> list[asyncio.Task[Answer]]:
    """Many deposits to the client's account, each insisted on."""
    order = house.order(client, to="account")
    return [
        asyncio.create_task(insisted(house, order, house.ids.new("CR"))) for _ in range(DEPOSITS)
    ]


async def all_ended_once(house: House, client: Known, asked: list[asyncio.Task[Answer]]) -> None:
    """Each of the deposits was charged once and is on the platform once."""
    for answer in await asyncio.gather(*asked):
        await house.becomes(answer.location.rpartition("/")[2], transfer="done")
    assert len(await house.payments(client)) == DEPOSITS
    assert len(await house.deals(client)) == len(await house.charges(client)) == DEPOSITS


async def test_redis_goes_away_and_no_money_waits_for_it(house: House, durable: Servers) -> None:
    """Without Redis deposits go on, and readiness names what is degraded until it is back."""
    client = await house.client()
    await house.pays(client, "10.00")
    await kill(durable, "redis")
    answer = await house.pays(client, "20.00")
    assert (answer.status, answer.body["state"]) == (201, "approved")
    assert await house.wallet(client) == "30.00"

    async def ready() -> bool:
        async with house.http.get(house.daemon.url + "/readyz") as ready_answer:
            said = await ready_answer.json()
        await house.portal.get("/v1/clients?limit=1")
        return bool(said["phase"] == "ready")

    await until(ready, "readiness with Redis back")


async def test_a_stopped_daemon_ends_in_order(house: House) -> None:
    """SIGTERM lets what is under way end, and the exit is 0."""
    client = await house.client()
    before = await house.charge_count("acme")
    await house.will("acme", answer_after_s=0.5, notices="none")
    asked = asyncio.create_task(house.pays(client))
    await house.charge_appears("acme", before)
    assert await house.daemon.stop() == 0
    assert (await asked).body["state"] == "approved"
    await house.daemon.start()
    assert await house.wallet(client) == "100.00"
