"""Deliveries over a real socket: signed, told once when heard, and what counts as heard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from standardwebhooks import Webhook

from gateway.flows.outbox import Outbox
from gateway.flows.webhooks_out import SubscriptionOrder, Subscriptions, WebhooksOut
from tests.integration.flows.conftest import House, Replica, payment_of, running

KEY = b"the process's own key"


class Caller:
    """A calling system that takes webhooks; it answers what it is told, 204 otherwise."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.got: list[tuple[dict[str, str], str]] = []
        self.url = ""
        self.elsewhere = 0

    async def take(self, request: web.Request) -> web.Response:
        """One delivery."""
        self.got.append((dict(request.headers), await request.text()))
        status = self.answers.pop(0) if self.answers else 204
        if status == 0:
            await asyncio.sleep(3600)
        headers = {"Location": self.url + "/elsewhere"} if status == 302 else {}
        return web.Response(status=status, headers=headers)

    async def other(self, request: web.Request) -> web.Response:
        """Where nobody may be sent."""
        self.elsewhere += 1
        return web.Response(status=200)


@asynccontextmanager
async def listening() -> AsyncIterator[Caller]:
    """A caller on a free loopback port."""
    caller = Caller()
    app = web.Application()
    app.add_routes([web.post("/hooks", caller.take), web.route("*", "/elsewhere", caller.other)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        caller.url = "http://{}:{}".format(*runner.addresses[0])
        yield caller
    finally:
        await runner.cleanup()


@asynccontextmanager
async def telling(
    house: House, replica: Replica, results: list[str], timeout_s: float = 5.0
) -> AsyncIterator[Outbox]:
    """The replica's outbox with its real webhooks."""
    async with aiohttp.ClientSession() as http:
        hooks = WebhooksOut(
            house.pool, http, KEY, lambda: timeout_s, house.clock.now, results.append
        )
        owns = replica.ownership("outbox")
        outbox = replica.outbox(owns, {"subscriber:": hooks.deliver})
        async with running(lambda: owns.run(outbox.run)):
            yield outbox


async def subscribed(house: House, replica: Replica, url: str) -> str:
    """Name the address; the secret."""
    commands = Subscriptions(replica.lane, house.pool, house.ids, KEY, house.clock.now)
    named = await commands.set(house.command(), SubscriptionOrder(url))
    return named.secret


async def _ended(house: House, state: str) -> bool:
    return bool(await house.value("SELECT state FROM gateway.outbox") == state)


async def test_a_deposit_is_told_once_signed_and_as_it_is_pulled(
    house: House, one: Replica
) -> None:
    """The caller verifies with the secret it was given; what is heard is not told again."""
    results: list[str] = []
    async with listening() as caller:
        secret = await subscribed(house, one, caller.url + "/hooks")
        payment = payment_of(await one.deposit())
        async with telling(house, one, results):
            await house.until(lambda: _ended(house, "done"))
    ((headers, body),) = caller.got
    told = Webhook(secret).verify(body, headers)
    assert (told["type"], told["data"]["id"], told["no"]) == ("payment.approved", payment, 1)
    assert results == ["delivered"]


@pytest.mark.parametrize("answer", [500, 404, 302, 0], ids=["500", "404", "moved", "silent"])
async def test_only_an_answer_of_200_to_299_is_heard(
    house: House, one: Replica, answer: int
) -> None:
    """Anything else is tried again, with the same id and body; nobody is followed elsewhere."""
    results: list[str] = []
    async with listening() as caller:
        caller.answers = [answer]
        await subscribed(house, one, caller.url + "/hooks")
        await one.deposit()
        async with telling(house, one, results, timeout_s=0.5):
            await house.until(lambda: _ended(house, "done"))
    first, second = caller.got
    assert (first[0]["webhook-id"], first[1]) == (second[0]["webhook-id"], second[1])
    assert caller.elsewhere == 0
    assert results == ["failed", "delivered"]


async def test_nobody_at_the_address_is_dead_after_the_last_try(house: House, one: Replica) -> None:
    """An address where nobody listens ends in the dead list with an item, not in a crash."""
    async with listening() as caller:
        url = caller.url + "/hooks"
    await subscribed(house, one, url)
    await one.deposit()
    async with telling(house, one, []):
        await house.until(lambda: _ended(house, "dead"))
    assert await house.items() == [("outbox-ended", "subscriber:crm/1")]


async def test_who_named_no_address_pulls(house: House, one: Replica) -> None:
    """Without an address an event has its number at once and is over."""
    await one.deposit()
    async with telling(house, one, []):
        await house.until(lambda: _ended(house, "done"))
    row = await house.pool.fetchrow("SELECT no, attempts, last_error FROM gateway.outbox")
    assert (row["no"], row["last_error"]) == (1, "pull only")
