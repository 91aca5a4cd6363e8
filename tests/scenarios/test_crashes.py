"""Stories of a daemon killed at each step of a deposit: nothing is lost, nothing happens twice.

Each step is hit for sure: something outside the daemon holds it there (a row lock, a provider or a
platform that does not answer) until it is dead. Its next life resumes from rows alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from gateway.demo.api import Answer
from gateway.demo.people import Known
from tests.support.house import House, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

IN_FORCE = "SELECT hash FROM gateway.rulebook_in_force FOR UPDATE"
WAITING = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


class Asked:
    """A deposit somebody asks for and may never hear of; the key stays the same."""

    def __init__(self, house: House, client: Known, **wish: str) -> None:
        self.house = house
        self.client = client
        self.wish = wish
        self.key = house.ids.new("CR")
        self._request = asyncio.create_task(self.again())

    async def again(self) -> Answer:
        """Ask for it, for the first time or again."""
        return await self.house.pays(self.client, key=self.key, **self.wish)

    async def unheard(self) -> None:
        """The request ended without an answer: its daemon is dead."""
        with pytest.raises((aiohttp.ClientError, TimeoutError)):
            await self._request


@asynccontextmanager
async def held_commits(house: House) -> AsyncIterator[None]:
    """While the block lasts no unit of work is committed."""
    async with house.database(owner=True) as conn, conn.transaction():
        await conn.execute(IN_FORCE)
        yield


async def a_unit_waits(house: House) -> None:
    """Wait until a unit of work stands before the row that is held."""

    async def waits() -> bool:
        async with house.database(owner=True) as conn:
            return bool(await conn.fetchval(WAITING))

    await until(waits, "a unit that waits for its commit")


async def next_life(house: House) -> None:
    """Kill the daemon and start it again."""
    await house.daemon.kill()
    await house.daemon.restart()


async def settled(asked: Asked, transfer: str = "") -> dict[str, Any]:
    """Repeat the request: it is answered, or 409 says where; then wait for its payment's end."""
    answer = await asked.again()
    assert answer.status in (201, 202, 409), answer
    payment_id = answer.location.rpartition("/")[2]
    return await asked.house.becomes(payment_id, transfer=transfer)


async def test_killed_before_the_first_commit_nothing_has_happened(house: House) -> None:
    """Killed before its payment was stored, the request leaves no trace; a repetition pays once."""
    client = await house.client()
    async with held_commits(house):
        asked = Asked(house, client)
        await a_unit_waits(house)
        await house.daemon.kill()
        await asked.unheard()
    await house.daemon.restart()
    assert await house.payments(client) == []
    await settled(asked)
    assert len(await house.payments(client)) == len(await house.charges(client)) == 1
    assert await house.wallet(client) == "100.00"


async def test_killed_with_a_charge_that_never_took_place_another_is_asked(house: House) -> None:
    """Killed after *sent* was stored and before the charge took place: proved absent, then on."""
    client = await house.client()
    await house.will("acme", charges=False, answer="hang")
    asked = Asked(house, client)
    await until(lambda: house.payments(client), "the stored payment")
    await next_life(house)
    await asked.unheard()
    view = await settled(asked)
    assert [attempt["state"] for attempt in view["attempts"]] == ["not_found", "approved"]
    assert len(await house.payments(client)) == len(await house.charges(client)) == 1
    assert await house.wallet(client) == "100.00"


async def test_killed_after_the_charge_and_before_its_answer_it_is_found(house: House) -> None:
    """Killed while the provider had charged and not answered: found by our reference."""
    client = await house.client()
    before = await house.charge_count("acme")
    await house.will("acme", answer="hang", notices="none")
    asked = Asked(house, client)
    await house.charge_appears("acme", before)
    await next_life(house)
    await asked.unheard()
    view = await settled(asked)
    assert [attempt["psp"] for attempt in view["attempts"]] == ["acme"]
    assert [charge["requests"] for charge in await house.charges(client)] == [1]
    assert await house.wallet(client) == "100.00"
    answer = await until(lambda: answered(asked), "the answer of the first request")
    assert (await asked.again()).raw == answer.raw


async def answered(asked: Asked) -> Answer | None:
    """The stored answer, once the life that owed it is known to be gone."""
    answer = await asked.again()
    return answer if answer.status in (201, 202) else None


async def test_killed_between_the_answer_and_its_commit_it_is_credited_once(house: House) -> None:
    """Killed with the provider's answer in hand and not stored: asked again, credited once."""
    client = await house.client()
    before = await house.charge_count("acme")
    await house.will("acme", answer_after_s=0.5, notices="none")
    asked = Asked(house, client)
    await house.charge_appears("acme", before)
    async with held_commits(house):
        await a_unit_waits(house)
        await house.daemon.kill()
        await asked.unheard()
    await house.daemon.restart()
    await settled(asked)
    assert [charge["requests"] for charge in await house.charges(client)] == [1]
    assert await house.wallet(client) == "100.00"


async def test_killed_after_the_credit_and_before_the_platform_it_goes_on(house: House) -> None:
    """Killed with the money in the wallet's books and on its way: the platform gets it once."""
    client = await house.client(account="standard")
    await house.fault("trade/balance", "hang_before")
    asked = Asked(house, client, to="account")
    answer = await asked._request
    assert answer.body["state"] == "approved"

    async def on_its_way() -> bool:
        view = await house.payment(answer.body["id"])
        return bool(view["transfer"]["state"] == "sent")

    await until(on_its_way, "the transfer to be sent")
    await next_life(house)
    await house.becomes(answer.body["id"], transfer="done")
    assert len(await house.deals(client)) == 1
    assert (await asked.again()).raw == answer.raw


async def test_killed_after_the_platforms_effect_it_is_found_there(house: House) -> None:
    """Killed when the platform had booked and not answered: found by our reference, not resent."""
    client = await house.client(account="standard")
    await house.fault("trade/balance", "hang_after")
    asked = Asked(house, client, to="account")
    answer = await asked._request
    await until(lambda: house.deals(client), "the deal")
    await next_life(house)
    await house.becomes(answer.body["id"], transfer="done")
    assert len(await house.deals(client)) == 1


async def test_killed_between_the_platforms_answer_and_its_commit_it_is_found(
    house: House,
) -> None:
    """Killed with the platform's answer in hand and not stored: looked up, never sent again."""
    client = await house.client(account="standard")
    await house.fault("trade/balance", "delay_after", seconds=0.5)
    asked = Asked(house, client, to="account")
    answer = await asked._request
    await until(lambda: house.deals(client), "the deal")
    async with house.database(owner=True) as conn, conn.transaction():
        await conn.execute("LOCK TABLE bridge.operation IN EXCLUSIVE MODE")
        await a_unit_waits(house)
        await house.daemon.kill()
    await house.daemon.restart()
    await house.becomes(answer.body["id"], transfer="done")
    assert len(await house.deals(client)) == 1


async def test_killed_while_an_account_is_made_there_is_one_account(house: House) -> None:
    """Killed when the platform had made the account and not answered: verified, not made twice."""
    client = await house.client()
    await house.fault("user/add", "hang_after")
    order = {"client": client.id, "type": "standard", "currency": "EUR"}
    account = await house.portal.post("/v1/accounts", order)

    async def made() -> list[Any]:
        books = await house.platform.get("/books")
        return [
            user for user in books["accounts"] if account["id"] in (user["id"], user["comment"])
        ]

    await until(made, "the account on the platform")
    await next_life(house)

    async def verified() -> bool:
        view = await house.portal.get(f"/v1/accounts/{account['id']}")
        return bool(view["state"] == "verified")

    await until(verified, "the account to be verified")
    assert len(await made()) == 1


async def test_killed_under_load_every_deposit_ends_once(house: House) -> None:
    """Killed again and again while many deposits are under way: each ends, each once."""
    clients = [await house.client(account="standard") for _ in range(4)]
    asked: list[Asked] = []
    for _ in range(3):
        asked += [Asked(house, client, to="account") for client in clients * 5]
        await asyncio.sleep(0.15)
        await next_life(house)
        await asyncio.gather(*(each._request for each in asked), return_exceptions=True)
    for each in asked:
        await settled(each, transfer="done")
    for client in clients:
        assert len(await house.deals(client)) == 15
        assert len(await house.charges(client)) == 15
