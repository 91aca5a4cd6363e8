"""Facts for other rooms, and money of a wallet set aside."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from ledger import changes, entries
from ledger.facts import ClientApproved, DepositSettled
from ledger.money import Money
from ledger.units import Done, Left, Unit, Why
from tests.integration.ledger.conftest import DAY, EUR, House, deposited, spend

READERS = {"DepositSettled": ("engine", "reports"), "ClientApproved": ("engine",)}
SETTLED = DepositSettled(1, "PY1", "CL1", "acme", "EUR", 100)


async def told(house: House, count: int) -> None:
    """Store facts through the lane."""
    async with house.lane() as lane:
        for n in range(count):
            unit = Unit((changes.fact(SETTLED, f"PY{n}", READERS),))
            assert isinstance(await lane.submit(unit), Done)


async def test_each_reader_gets_its_own_work(house: House) -> None:
    """A fact makes one work row for each of its readers, and none for who is not named."""
    async with house.lane() as lane:
        await lane.submit(Unit((
            changes.fact(SETTLED, "PY1", READERS),
            changes.fact(ClientApproved("CL1", "fx-eu"), "CL1", READERS),
        )))  # fmt: skip
    async with house.reader.transaction():
        reports = await changes.claim_facts(house.reader, "reports", 10)
        engine = await changes.claim_facts(house.reader, "engine", 10)
        assert await changes.claim_facts(house.reader, "nobody", 10) == []
    assert [row["subject"] for row in reports] == ["PY1"]
    assert [row["kind"] for row in engine] == ["DepositSettled", "ClientApproved"]


async def test_a_fact_nobody_reads_is_still_kept(house: House) -> None:
    """A fact without readers is a row of the books and no work."""
    async with house.lane() as lane:
        await lane.submit(Unit((changes.fact(SETTLED, "PY1"),)))
    assert await house.count("ledger.fact") == 1
    assert await house.count("ledger.fact_work") == 0


async def test_a_fact_is_claimed_once(house: House) -> None:
    """Readers of one name that claim at once share the facts; none is given twice."""
    await told(house, 20)

    async def claim() -> list[int]:
        conn = await house.connect()
        async with conn.transaction():
            taken = [row["id"] for row in await changes.claim_facts(conn, "engine", 7)]
            await asyncio.sleep(0.05)
            return taken

    taken = [id for each in await asyncio.gather(*[claim() for _ in range(4)]) for id in each]
    assert len(taken) == len(set(taken)) == 20


async def test_a_claim_that_is_rolled_back_comes_again(house: House) -> None:
    """The effect of a fact stands in the transaction of its claim: rolled back, both are gone."""
    await told(house, 3)
    with pytest.raises(RuntimeError):
        await fail_after_claiming(house.reader)
    async with house.reader.transaction():
        assert len(await changes.claim_facts(house.reader, "engine", 10)) == 3
    async with house.reader.transaction():
        assert await changes.claim_facts(house.reader, "engine", 10) == []


async def fail_after_claiming(conn: asyncpg.Connection) -> None:
    """A reader whose effect fails."""
    async with conn.transaction():
        assert len(await changes.claim_facts(conn, "engine", 10)) == 3
        raise RuntimeError("the effect failed")


def held(hold_id: str, minor: int, now: object) -> Unit:
    """A hold of the client's money."""
    entry = entries.hold("hold", 1, hold_id, "CL1", Money(minor, EUR), DAY)
    return Unit((changes.hold_placed(hold_id, 1, "CL1", "EUR", minor, now),), (entry,))  # type: ignore[arg-type]


def released(hold_id: str, minor: int, version: int = 1) -> Unit:
    """The end of a hold."""
    entry = entries.hold("hold_release", 1, hold_id, "CL1", Money(minor, EUR), DAY)
    return Unit((changes.hold_ended(hold_id, version, "released"),), (entry,))


async def test_held_money_cannot_be_spent(house: House) -> None:
    """What is set aside leaves the wallet: until its release it is not spent or held again."""
    now = await house.reader.fetchval("SELECT now()")
    async with house.lane() as lane:
        await lane.submit(deposited("PY1"))
        assert isinstance(await lane.submit(held("HD1", 70, now)), Done)
        refused = [
            await lane.submit(Unit((), (spend("BO1", minor=31),))),
            await lane.submit(held("HD2", 31, now)),
        ]
        assert {left.why for left in refused if isinstance(left, Left)} == {Why.FLOOR}
        assert await house.wrong() == []
        assert isinstance(await lane.submit(released("HD1", 70)), Done)
        assert isinstance(await lane.submit(Unit((), (spend("BO1"),))), Done)
    assert await house.wrong() == []


async def test_a_hold_ends_once(house: House) -> None:
    """Of two that end one hold the second finds it moved; the money is released once."""
    now = await house.reader.fetchval("SELECT now()")
    async with house.lane() as one, house.lane() as two:
        await one.submit(deposited("PY1"))
        await one.submit(held("HD1", 70, now))
        got = await asyncio.gather(*[lane.submit(released("HD1", 70)) for lane in (one, two)])
    assert sorted(type(answer).__name__ for answer in got) == ["Done", "Left"]
    assert await house.balance("client_wallet", "CL1") == 100
    assert await house.wrong() == []


async def test_a_hold_that_disagrees_with_the_books_is_named(house: House) -> None:
    """An open hold without its money, or money without its hold, is found by verify."""
    now = await house.reader.fetchval("SELECT now()")
    async with house.lane() as lane:
        await lane.submit(deposited("PY1"))
        await lane.submit(held("HD1", 70, now))
        await lane.submit(Unit((changes.hold_ended("HD1", 1, "released"),)))
    assert [wrong.code for wrong in await house.wrong()] == ["hold-off-books"]
