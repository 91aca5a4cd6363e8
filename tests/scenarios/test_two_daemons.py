"""Stories of two daemons on one database: one owns the platform, the other takes over, and whoever
lost it stays silent.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Final

import pytest
import pytest_asyncio

from tests.support.house import House, until
from tests.support.pair import (
    AWAKE_S,
    GOODBYE_BYTES,
    TAKEN_OVER_WITHIN_S,
    Pair,
    open_pair,
    within,
)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

ENTRIES: Final = "SELECT count(*) FROM ledger.entry"


@pytest_asyncio.fixture(loop_scope="module")
async def pair(house: House) -> AsyncIterator[Pair]:
    """Two daemons of this story's own; the house's first one is away meanwhile."""
    async with open_pair(house) as opened:
        yield opened


async def test_both_take_deposits(pair: Pair) -> None:
    """Each of two daemons takes deposits; one of them alone speaks to the platform."""
    house = pair.house
    client = await house.client(account="standard")
    owner = await pair.owner()
    for daemon in pair.daemons.values():
        answer = await house.pays(client, "10.00", to="account", daemon=daemon)
        await house.becomes(answer.body["id"], transfer="done")
    assert len(await house.deals(client)) == 2
    assert pair.ways[pair.other(owner)].connections == 0


async def test_the_same_key_at_both_daemons_is_one_deposit(pair: Pair) -> None:
    """One idempotency key at two daemons at once: one payment, one charge."""
    house = pair.house
    client = await house.client()
    key = house.ids.new("CR")
    answers = await asyncio.gather(
        *(house.pays(client, key=key, daemon=daemon) for daemon in pair.daemons.values())
    )
    assert {answer.status for answer in answers} <= {201, 409}
    assert len(await house.payments(client)) == len(await house.charges(client)) == 1


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=lambda it: it.name)
async def test_the_other_takes_the_platform_over(pair: Pair, end: signal.Signals) -> None:
    """Killed or stopped, its owner is followed by the other within ten seconds.

    The money that was on its way arrives once; an old owner that wakes up again sends nothing to
    the platform and moves nothing that the new one works at.
    """
    house = pair.house
    client = await house.client(account="standard")
    owner = await pair.owner()
    other = pair.other(owner)
    epoch = await pair.epoch()
    await house.fault("trade/balance", "hang_after")
    house.daemon = pair.daemons[other]
    answer = await house.pays(client, "30.00", to="account")
    await until(lambda: house.deals(client), "the deal that nobody was told of")
    pair.daemons[owner].send(end)

    async def taken() -> bool:
        return await pair.epoch() > epoch

    await within(TAKEN_OVER_WITHIN_S, taken)
    sent, dialled = pair.ways[owner].request_bytes, pair.ways[owner].connections
    await house.becomes(answer.body["id"], transfer="done")
    again = await house.pays(client, "20.00", to="account")
    await house.becomes(again.body["id"], transfer="done")
    held = await pair.held()
    async with house.database() as conn:
        booked = await conn.fetchval(ENTRIES)
    if end is signal.SIGSTOP:
        pair.daemons[owner].send(signal.SIGCONT)
        await asyncio.sleep(AWAKE_S)
    assert await pair.held() == held
    async with house.database() as conn:
        assert await conn.fetchval(ENTRIES) == booked
    assert pair.ways[owner].request_bytes - sent <= GOODBYE_BYTES
    assert pair.ways[owner].connections == dialled
    assert [deal["minor"] for deal in await house.deals(client)] == [3000, 2000]


async def test_an_owner_that_wakes_up_writes_nothing_it_began(pair: Pair) -> None:
    """Stopped with the platform's answer on its way, an old owner books nothing when it wakes."""
    house = pair.house
    client = await house.client(account="standard")
    owner = await pair.owner()
    other = pair.other(owner)
    epoch = await pair.epoch()
    await house.fault("trade/balance", "delay_after", seconds=0.5)
    house.daemon = pair.daemons[other]
    answer = await house.pays(client, "30.00", to="account")
    await until(lambda: house.deals(client), "the deal whose answer is on its way")
    pair.daemons[owner].send(signal.SIGSTOP)

    async def taken() -> bool:
        return await pair.epoch() > epoch

    await within(TAKEN_OVER_WITHIN_S, taken)
    pair.daemons[owner].send(signal.SIGCONT)
    view = await house.becomes(answer.body["id"], transfer="done")
    trace = await house.portal.get(f"/v1/payments/{view['id']}/trace")
    moves = [it["to_state"] for it in trace["history"] if it["object_id"] == view["transfer"]["id"]]
    assert moves.count("done") == 1
    assert len(await house.deals(client)) == 1
