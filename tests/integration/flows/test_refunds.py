"""Second charges: given back once, asked about before anything is sent again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.flows.refunds import Refunds
from router.attempts import refund_reference
from router.intents import Attempt
from router.outcomes import Declined, Mismatch, NotFound, Unknown
from tests.integration.flows.conftest import (
    Held,
    House,
    Replica,
    approved,
    notice,
    payment_of,
    running,
)
from tests.unit.router.values import attempt

SOFT = Declined("iso:91", "technical", "try later", "p", cascade=True)


async def charged_twice(house: House, one: Replica) -> tuple[str, str]:
    """A deposit that bolt took after acme had declined it, and acme charged all the same: the
    payment and the reference of the surplus charge.
    """
    one.providers.will("charge", SOFT)
    payment = payment_of(await one.deposit())
    surplus = one.providers.made("charge")[0]
    said = [notice(house.clock, f"e{n}", surplus) for n in range(3)]
    await asyncio.gather(*[one.deposits.notice("acme", *each) for each in said])
    return payment, surplus


@asynccontextmanager
async def refunding(house: House, replica: Replica) -> AsyncIterator[None]:
    """The replica's outbox at work, with the providers' lanes."""
    owns = replica.ownership("outbox")
    refunds = Refunds(house.pool, replica.providers, owns, house.clock.now)
    told = {"psp:": refunds.handle}
    outbox = replica.outbox(owns, told)
    async with running(lambda: owns.run(outbox.run)):
        yield


async def row_of(house: House) -> tuple[str, int]:
    """The refund's row: state and tries."""
    row = await house.pool.fetchrow(
        "SELECT state, attempts FROM gateway.outbox WHERE lane = 'psp:acme'"
    )
    return row["state"], row["attempts"]


async def _ends(house: House, state: str) -> bool:
    return (await row_of(house))[0] == state


async def test_a_second_charge_is_given_back_once(house: House, one: Replica, two: Replica) -> None:
    """However often it is told: one credit, one surplus entry, one refund, nothing left over."""
    payment, surplus = await charged_twice(house, one)
    async with refunding(house, one), refunding(house, two):
        await house.until(lambda: _ends(house, "done"))
    refund = refund_reference(_named(surplus))
    assert await house.entries() == [(1, payment), (2, surplus), (3, refund)]
    assert await house.balance("client_wallet", house.client.id) == 10_000
    assert await house.balance("suspense", "acme") == 0
    assert one.providers.made("refund") + two.providers.made("refund") == [surplus]
    assert ("second-charge", surplus) in await house.items()
    assert await house.wrong() == []


async def test_a_refund_without_an_answer_is_asked_about_before_it_is_sent_again(
    house: House, one: Replica
) -> None:
    """Unknown: the provider is asked, and says that it was done; nothing is sent a second time."""
    _, surplus = await charged_twice(house, one)
    one.providers.will("refund", Unknown("timeout"))
    one.providers.will("ask_refund", Unknown("timeout"), approved(_named(surplus)))
    async with refunding(house, one):
        await house.until(lambda: _ends(house, "done"))
    assert one.providers.made("refund") == [surplus]
    assert one.providers.made("ask_refund") == [surplus, surplus]


async def test_a_refund_that_is_proved_absent_is_sent_again(house: House, one: Replica) -> None:
    """The provider knows no such refund: it is sent again, under the same reference."""
    _, surplus = await charged_twice(house, one)
    one.providers.will("refund", Unknown("timeout"))
    one.providers.will("ask_refund", NotFound())
    async with refunding(house, one):
        await house.until(lambda: _ends(house, "done"))
    assert one.providers.made("refund") == [surplus, surplus]


async def test_a_process_that_died_while_refunding_is_known_to_have_asked(
    house: House, one: Replica, two: Replica
) -> None:
    """The try is counted before its first byte leaves: the next owner asks before it sends."""
    _, surplus = await charged_twice(house, one)
    held = Held()
    one.providers.will("refund", held)
    async with refunding(house, one):
        await held.asked.wait()
        assert await row_of(house) == ("waiting", 1)
    two.providers.will("ask_refund", approved(_named(surplus)))
    house.clock.ahead_s += 100
    async with refunding(house, two):
        await house.until(lambda: _ends(house, "done"))
    assert two.providers.calls == [("ask_refund", surplus)]


async def test_a_refused_refund_is_for_a_person(house: House, one: Replica) -> None:
    """A provider that will not give it back: refused, an item, and the money stays in suspense."""
    _, surplus = await charged_twice(house, one)
    one.providers.will("refund", Declined("simpay:not_refundable", "configuration", "no", ""))
    async with refunding(house, one):
        await house.until(lambda: _ends(house, "refused"))
    assert await house.balance("suspense", "acme") == 10_000
    assert [kind for kind, _ in await house.items()] == ["second-charge", "outbox-ended"]
    assert one.providers.made("refund") == [surplus]


async def test_a_refund_nobody_can_say_anything_of_ends_unknown(house: House, one: Replica) -> None:
    """After the last try it may still have happened: the row says so, and a person hears."""
    await charged_twice(house, one)
    one.providers.will("refund", Unknown("timeout"))
    one.providers.will("ask_refund", *[Unknown("timeout")] * 5)
    async with refunding(house, one):
        await house.until(lambda: _ends(house, "unknown"))
    assert len(one.providers.made("refund")) == 1
    assert ("outbox-ended", "psp:acme/1") in await house.items()


@pytest.mark.parametrize("asked", [False, True])
async def test_another_amount_given_back_is_not_booked(
    house: House, one: Replica, asked: bool
) -> None:
    """A refund of another amount than was surplus is never booked as if it were right."""
    _, surplus = await charged_twice(house, one)
    if asked:
        one.providers.will("refund", Unknown("timeout"))
        one.providers.will("ask_refund", approved(_named(surplus), 9_000))
    else:
        one.providers.will("refund", Mismatch("p", 9_000, "EUR"))
    async with refunding(house, one):
        await house.until(lambda: _ends(house, "dead"))
    assert await house.balance("suspense", "acme") == 10_000
    assert ("outbox-ended", "psp:acme/1") in await house.items()


def _named(reference: str) -> Attempt:
    return attempt(reference=reference)
