"""Stories of a caller that repeats itself: one key is one deposit, answered the same for ever."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.house import House

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


async def test_a_repetition_is_answered_byte_for_byte_by_the_next_life_too(house: House) -> None:
    """The stored answer is given again, before and after a restart of the daemon."""
    client = await house.client()
    key = house.ids.new("CR")
    first = await house.pays(client, key=key)
    assert await house.pays(client, key=key) == first
    await house.daemon.restart()
    assert await house.pays(client, key=key) == first
    assert len(await house.charges(client)) == 1


async def test_a_key_is_not_used_for_another_deposit(house: House) -> None:
    """The same key with another body is refused, and nobody is charged for it."""
    client = await house.client()
    key = house.ids.new("CR")
    await house.pays(client, "10.00", key=key)
    answer = await house.pays(client, "20.00", key=key)
    assert (answer.status, answer.body["code"]) == (422, "idempotency-key-reused")
    assert len(await house.charges(client)) == 1


async def test_a_repetition_in_flight_is_told_where_to_look(house: House) -> None:
    """While the first request is being answered a repetition gets 409 with the payment's place."""
    client = await house.client()
    key = house.ids.new("CR")
    before = await house.charge_count("acme")
    await house.will("acme", answer_after_s=0.7, notices="none")
    first = asyncio.create_task(house.pays(client, key=key))
    await house.charge_appears("acme", before)
    second = await house.pays(client, key=key)
    answer = await first
    assert (second.status, second.body["code"]) == (409, "idempotency-in-flight")
    assert second.location == answer.location == f"/v1/payments/{answer.body['id']}"
    assert await house.pays(client, key=key) == answer
    assert len(await house.charges(client)) == 1


async def test_an_accepted_deposit_stays_accepted_to_whoever_repeats_it(house: House) -> None:
    """What was answered 202 is answered the same 202 after the deposit has ended."""
    client = await house.client()
    key = house.ids.new("CR")
    await house.will("coral", status="pending", becomes="approved", becomes_after_s=5)
    first = await house.pays(client, method="bank_transfer", key=key)
    assert first.status == 202
    await house.becomes(first.body["id"])
    assert await house.pays(client, method="bank_transfer", key=key) == first


async def test_many_repetitions_at_once_are_one_deposit(house: House) -> None:
    """Twenty requests with one key at one moment: one payment, one charge, no other answer."""
    client = await house.client()
    key = house.ids.new("CR")
    answers = await asyncio.gather(*(house.pays(client, key=key) for _ in range(20)))
    paid = {answer.raw for answer in answers if answer.status == 201}
    assert {answer.status for answer in answers} <= {201, 409}
    assert len(paid) == 1
    assert len(await house.payments(client)) == len(await house.charges(client)) == 1


async def test_a_key_belongs_to_its_caller(house: House) -> None:
    """Another system's key of the same text is another key."""
    client = await house.client(brand="southbank", country="MX", currency="USD")
    key = house.ids.new("CR")
    order = house.order(client)
    first = await house.portal.send("POST", "/v1/deposits", order, key=key)
    second = await house.caller("narrow").send("POST", "/v1/deposits", order, key=key)
    assert first.status == second.status == 201
    assert first.body["id"] != second.body["id"]
