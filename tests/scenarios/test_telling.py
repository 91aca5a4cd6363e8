"""Stories of what a calling system is told: signed, in order, again, and never lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import pytest_asyncio
import standardwebhooks
from aiohttp import web

from tests.support.house import House, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


STEPS_OF_A_CLIENT = 7


class Listener:
    """An address that answers as it is told and keeps what it was sent."""

    def __init__(self) -> None:
        self.status = 204
        self.sent: list[tuple[dict[str, str], bytes]] = []
        self.url = ""

    @property
    def events(self) -> list[dict[str, Any]]:
        """What was sent, decoded."""
        return [msgspec.json.decode(raw) for _, raw in self.sent]

    async def take(self, request: web.Request) -> web.Response:
        """One delivery."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.sent.append((headers, await request.read()))
        return web.Response(status=self.status)


@asynccontextmanager
async def listening() -> AsyncIterator[Listener]:
    """A listener on a port of its own."""
    listener = Listener()
    app = web.Application()
    app.router.add_post("/", listener.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    listener.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    try:
        yield listener
    finally:
        await runner.cleanup()


@pytest_asyncio.fixture(loop_scope="module")
async def listener(house: House) -> AsyncIterator[Listener]:
    """The portal's address is this listener for one story, then the caller's ear again."""
    async with listening() as one, house.ear_away():
        await house.hears_at(one.url)
        yield one


async def heard(listener: Listener, payment_id: str, count: int = 1) -> list[dict[str, Any]]:
    """Wait until the listener was sent so many events about the payment; returns them."""

    async def there() -> list[dict[str, Any]] | None:
        mine = [event for event in listener.events if event["data"]["id"] == payment_id]
        return mine if len(mine) >= count else None

    return await until(there, f"{count} events of {payment_id}")


async def test_what_is_told_is_signed_as_the_standard_asks(
    house: House, listener: Listener
) -> None:
    """A delivery verifies with the public library and the secret that was handed out."""
    answer = await house.pays(await house.client())
    await heard(listener, answer.body["id"])
    webhook = standardwebhooks.Webhook(house.ear.secret)
    for headers, raw in listener.sent:
        assert webhook.verify(raw.decode(), headers) == msgspec.json.decode(raw)


async def test_the_push_says_what_the_pull_says(house: House, listener: Listener) -> None:
    """An event is the same whether it is pushed or pulled."""
    answer = await house.pays(await house.client())
    pushed = (await heard(listener, answer.body["id"]))[0]
    pulled = [event for event in await house.events() if event["id"] == pushed["id"]]
    assert pulled == [pushed]
    assert pushed["type"] == "payment.approved"


async def test_numbers_are_dense_whoever_reads_them(house: House) -> None:
    """The numbers of a subscriber's events begin at one and leave none out."""
    await house.pays(await house.client())
    events = await house.events()
    assert [event["no"] for event in events] == list(range(1, len(events) + 1))
    assert await house.events(after=len(events) - 2) == events[-2:]


async def test_events_of_one_payment_come_in_order_although_one_fails(
    house: House, listener: Listener
) -> None:
    """A later event of an object waits for an earlier one that was not heard yet."""
    client = await house.client(account="standard")
    await heard(listener, client.account)
    listener.status = 500
    answer = await house.pays(client, to="account")
    await house.becomes(answer.body["id"], transfer="done")
    first = (await heard(listener, answer.body["id"], 2))[:2]
    listener.status = 204
    told = await heard(listener, answer.body["id"], 4)
    types = [event["type"] for event in told]
    assert [event["type"] for event in first] == ["payment.approved"] * 2
    assert types == ["payment.approved"] * (len(types) - 1) + ["payment.credited"]


async def test_what_is_never_heard_is_dead_and_can_be_sent_again(
    house: House, listener: Listener
) -> None:
    """After its tries an event is dead with an item; asked for again, it is delivered."""
    client = await house.client()
    await heard(listener, client.id, STEPS_OF_A_CLIENT)
    listener.status = 503
    answer = await house.pays(client)
    event = (await heard(listener, answer.body["id"]))[0]
    subject = f"subscriber:portal/{event['no']}"
    await until(lambda: house.items(subject), "the item of the dead event")
    dead = await house.portal.get("/v1/events?delivery=dead")
    assert event["no"] in [each["no"] for each in dead["data"]]
    listener.status = 204
    tries = len(listener.sent)
    again = await house.portal.send("POST", f"/v1/events/{event['no']}/resend")
    assert again.status == 202

    async def delivered() -> bool:
        return len(listener.sent) > tries

    await until(delivered, "the delivery that was asked for")
    assert listener.events[-1] == event


async def test_nobody_reads_the_events_of_another(house: House) -> None:
    """Each caller has numbers and events of its own."""
    await house.pays(await house.client())
    page = await house.caller("narrow").get("/v1/events?after=0")
    assert page["data"] == []
    answer = await house.caller("narrow").send("POST", "/v1/events/1/resend")
    assert answer.status == 404
