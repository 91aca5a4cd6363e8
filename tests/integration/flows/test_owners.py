"""Owners: of all replicas one works a name, and one that lost it writes and sends nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway.flows.outbox import Emitter
from gateway.owners import LIMIT_S, Ownership
from ledger.units import Change, Done, Left, Unit, Why
from tests.integration.flows.conftest import House, Replica, running


def kept(ownership: Ownership) -> Callable[[], Awaitable[None]]:
    """A service that owns the name and works until it is told to stop."""

    async def work() -> None:
        await asyncio.Event().wait()

    return lambda: ownership.run(work)


async def holds(ownership: Ownership) -> bool:
    """Whether it believes to own."""
    return ownership.held


async def cut(house: House) -> None:
    """End every owner's connection, as a server does with one that is silent for too long."""
    owner = await house.database.connect(owner=True)
    await owner.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'owner' AND datname = current_database() AND pid IN "
        "(SELECT pid FROM pg_locks WHERE locktype = 'advisory')"
    )


async def test_one_of_two_owns_and_the_other_takes_over(
    house: House, one: Replica, two: Replica
) -> None:
    """A name has one owner; when it is gone another takes it, with a higher epoch."""
    first, second = one.ownership("x"), two.ownership("x")
    async with running(kept(first)):
        await house.until(lambda: holds(first))
        async with running(kept(second)):
            await asyncio.sleep(0.6)  # it tries
            assert not second.held
            before = first.epoch
            await cut(house)
            await house.until(lambda: _either(first, second, before))
            assert not (first.held and second.held)


async def test_names_are_owned_apart(house: House, one: Replica, two: Replica) -> None:
    """Two names have two owners, wherever they are."""
    first, second = one.ownership("x"), two.ownership("y")
    async with running(kept(first), kept(second)):
        await house.until(lambda: holds(first))
        await house.until(lambda: holds(second))


async def test_an_owner_that_is_over_writes_nothing(
    house: House, one: Replica, two: Replica
) -> None:
    """A unit that says who owns is left out when somebody else does by now."""
    first, second = one.ownership("x"), two.ownership("x")
    async with running(kept(first)):
        await house.until(lambda: holds(first))
        old = first.still()
        assert isinstance(await one.lane.submit(Unit((old, _row(one)))), Done)
    async with running(kept(second)):
        await house.until(lambda: holds(second))
        left = await one.lane.submit(Unit((old, _row(one))))
    assert isinstance(left, Left)
    assert left.why is Why.CHECK
    assert await house.value("SELECT count(*) FROM gateway.outbox") == 1


async def test_a_stopped_owner_sends_nothing_when_it_wakes(house: House, one: Replica) -> None:
    """After a pause longer than half the limit the next byte does not leave, whatever the owner
    still believes: the proof is too old.
    """
    owns = one.ownership("x")
    async with running(kept(owns)):
        await house.until(lambda: holds(owns))
        assert owns.fresh()
        house.clock.ahead_s += LIMIT_S / 2
        assert owns.held
        assert not owns.fresh()


async def test_losing_the_lock_ends_the_work(house: House, one: Replica) -> None:
    """The work of an owner is cancelled when ownership cannot be proved, and begun again later."""
    begun, ended = [], []

    async def work() -> None:
        begun.append(owns.epoch)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(owns.held)

    owns = one.ownership("x")
    async with running(lambda: owns.run(work)):
        await house.until(lambda: holds(owns))
        await cut(house)
        await house.until(lambda: _as_many(begun, 2))
    assert ended[0] is False, "it is not believed to be owned while the work ends"
    assert begun[1] > begun[0]


async def test_a_bug_in_the_work_is_not_hidden(house: House, one: Replica) -> None:
    """Work that fails of itself gives the name up and fails the service."""

    async def work() -> None:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        await one.ownership("x").run(work)
    other = one.ownership("x")
    async with running(kept(other)):
        await house.until(lambda: holds(other))


async def test_an_owner_waits_for_a_database_that_is_away(house: House, one: Replica) -> None:
    """Taking a name is tried again and again, without a crash."""
    tries = []
    real = house.connect_owner

    async def connect() -> object:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionRefusedError("away")
        return await real()

    owns = Ownership("x", "one", connect, house.clock.boot_time)
    async with running(kept(owns)):
        await house.until(lambda: holds(owns))
    assert len(tries) == 3


def _row(replica: Replica) -> Change:
    return Emitter(replica.house.clock.now)("crm", "test", "A1", b"{}")


async def _either(first: Ownership, second: Ownership, before: int) -> bool:
    now = [each for each in (first, second) if each.held and each.epoch > before]
    return len(now) == 1


async def _as_many(said: list[int], count: int) -> bool:
    return len(said) >= count
