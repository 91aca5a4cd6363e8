"""The outbox: numbers without gaps, order per object, an end for every row, nobody held up."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.control.idempotency import Idem
from gateway.control.refusals import Refusal
from gateway.flows.outbox import LANE_IN_FLIGHT_MAX, Again, Ended, Outbox, Row, events_after
from gateway.flows.webhooks_out import SubscriptionOrder, Subscriptions
from gateway.owners import Ownership
from ledger.lane import LaneFailed
from ledger.units import Unit
from tests.integration.flows.conftest import House, Replica, running
from tests.integration.flows.test_owners import cut


class Ear:
    """A subscriber: hears, or does what it is told for an object."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, int]] = []
        self.tries: list[str] = []
        self.does: dict[str, Callable[[Row], Awaitable[Ended | Again]]] = {}

    async def __call__(self, row: Row) -> Ended | Again:
        self.tries.append(row.aggregate)
        does = self.does.get(row.aggregate)
        result = await does(row) if does else Ended("done")
        if isinstance(result, Ended) and result.state == "done":
            self.heard.append((row.lane, row.aggregate, row.no))
        return result

    def of(self, aggregate: str) -> list[int]:
        """The numbers of an object's events in the order they were heard."""
        return [no for _, about, no in self.heard if about == aggregate]


@asynccontextmanager
async def telling(replica: Replica, ear: Ear) -> AsyncIterator[Outbox]:
    """A replica's outbox at work."""
    owns = replica.ownership("outbox")
    outbox = replica.outbox(owns, {"subscriber:": ear, "psp:": ear})
    async with running(lambda: owns.run(outbox.run)):
        yield outbox


async def subscribe(house: House, replica: Replica, *callers: str) -> Subscriptions:
    """Name an address for each caller; returns the commands."""
    commands = Subscriptions(replica.lane, house.pool, house.ids, b"key", house.clock.now)
    for caller in callers:
        sql = "INSERT INTO gateway.subscriber (caller, webhook_url) VALUES ($1, 'https://x/')"
        await house.pool.execute(sql, caller)
    return commands


async def emit(replica: Replica, aggregate: str, caller: str = "crm", count: int = 1) -> None:
    """Events of one object, each in a unit of its own."""
    for n in range(count):
        change = replica.emit(caller, "test", aggregate, json.dumps({"n": n}).encode())
        await replica.lane.submit(Unit((change,)))


async def state_of(house: House, aggregate: str) -> str:
    """The state of an object's first row."""
    sql = "SELECT state FROM gateway.outbox WHERE aggregate = $1 ORDER BY id LIMIT 1"
    return str(await house.value(sql, aggregate))


async def test_numbers_are_dense_and_in_order_for_each_subscriber_across_owners(
    house: House, one: Replica, two: Replica
) -> None:
    """Writers on two replicas, an owner that is cut off in between: each subscriber's numbers have
    no gap, none is given twice, each object's events keep their order, and a reader who only asks
    for what comes after sees every one, in order.
    """
    await subscribe(house, one, "crm", "shop")
    ear, seen = Ear(), defaultdict(list)

    async def read() -> None:
        while True:
            for caller in ("crm", "shop"):
                async with house.pool.acquire() as conn:
                    after = seen[caller][-1] if seen[caller] else 0
                    rows = await events_after(conn, caller, after, 7)
                seen[caller] += [row["no"] for row in rows]
            await asyncio.sleep(0.01)

    async def write(replica: Replica, name: str) -> None:
        for caller in ("crm", "shop"):
            await emit(replica, f"{name}-{caller}", caller, 20)

    writers = [(one, "a"), (two, "b"), (one, "c"), (two, "d")]
    async with telling(one, ear), telling(two, ear), running(read):
        work = [asyncio.create_task(write(*writer)) for writer in writers]
        await asyncio.sleep(0.3)
        await cut(house)
        await asyncio.gather(*work)
        await house.until(lambda: _seen(seen, 80))
        await house.until(lambda: _none_waits(house))
    for caller in ("crm", "shop"):
        assert seen[caller] == list(range(1, 81))
    for _, name in writers:
        order = list(dict.fromkeys(ear.of(f"{name}-crm")))
        assert order == sorted(order)
        assert len(order) == 20


async def test_events_of_one_object_wait_for_each_other_and_for_nobody_else(
    house: House, one: Replica
) -> None:
    """While an event is not heard, later ones of its object wait; other objects do not."""
    await subscribe(house, one, "crm")
    ear, deaf = Ear(), asyncio.Event()

    async def not_yet(row: Row) -> Ended | Again:
        return Ended("done") if deaf.is_set() else Again("503")

    ear.does["A"] = not_yet
    await emit(one, "A", count=2)
    await emit(one, "B", count=2)
    async with telling(one, ear):
        await house.until(lambda: _heard(ear, "B", 2))
        assert ear.of("A") == []
        deaf.set()
        await house.until(lambda: _heard(ear, "A", 2))
    assert ear.of("A") == sorted(ear.of("A"))


async def test_what_is_never_heard_is_dead_with_an_item_and_the_next_one_goes_on(
    house: House, one: Replica
) -> None:
    """After its last try an event is dead, a person hears of it, and its object's next is told."""
    await subscribe(house, one, "crm")
    ear = Ear()

    async def first_fails(row: Row) -> Ended | Again:
        return Again("500") if json.loads(row.body)["n"] == 0 else Ended("done")

    ear.does["A"] = first_fails
    await emit(one, "A", count=2)
    async with telling(one, ear):
        await house.until(lambda: _heard(ear, "A", 1))
    rows = await house.rows("SELECT state, attempts FROM gateway.outbox ORDER BY id")
    assert [tuple(row) for row in rows] == [("dead", 3), ("done", 1)]
    assert await house.items() == [("outbox-ended", "subscriber:crm/1")]


async def test_a_row_that_breaks_its_handler_is_parked_and_its_neighbours_go_on(
    house: House, one: Replica
) -> None:
    """A handler that fails of itself for one row stops neither the service nor the others."""
    await subscribe(house, one, "crm")
    ear = Ear()

    async def breaks(row: Row) -> Ended | Again:
        raise KeyError("poison \0")

    ear.does["A"] = breaks
    await emit(one, "A")
    await emit(one, "B")
    async with telling(one, ear):
        await house.until(lambda: _heard(ear, "B", 1))
        await house.until(lambda: _state(house, "A", "dead"))
        await emit(one, "C")
        await house.until(lambda: _heard(ear, "C", 1))
    assert ("outbox-ended", "subscriber:crm/1") in await house.items()


async def test_an_end_the_books_refuse_is_dead_with_an_item(house: House, one: Replica) -> None:
    """When what belongs to a row's end cannot be written, the row does not run for ever."""
    await subscribe(house, one, "crm")
    ear, refused = Ear(), []

    def refuse(unit: Unit) -> Exception | None:
        done = [c for c in unit.changes if c.kind.name == "gateway.outbox.move"]
        if done and done[0].row[2] == "done" and not refused:
            refused.append(1)
            return LaneFailed("23514", "poison")
        return None

    one.lane.fails = refuse
    await emit(one, "A")
    async with telling(one, ear):
        await house.until(lambda: _state(house, "A", "dead"))
    assert await house.items() == [("outbox-ended", "subscriber:crm/1")]


async def test_a_full_lane_and_a_database_away_are_waited_for(house: House, one: Replica) -> None:
    """The outbox goes on when the world is well again; an event may then be told twice."""
    await subscribe(house, one, "crm")
    ear = Ear()
    async with telling(one, ear):
        await emit(one, "A")
        await house.until(lambda: _heard(ear, "A", 1))
        one.lane.full = 0
        one.door.shut = True
        change = one.emit("crm", "test", "B", b"{}")
        await one.lane.submit(Unit((change,)))
        await house.until(lambda: _refused(one))
        one.lane.full = 2
        one.door.shut = False
        await house.until(lambda: _state(house, "B", "done"))
    assert await house.items() == []


async def test_a_subscriber_that_hangs_holds_up_nobody_else(house: House, one: Replica) -> None:
    """However many events of one subscriber hang, another's are told meanwhile."""
    await subscribe(house, one, "crm", "shop")
    ear = Ear()

    async def hangs(row: Row) -> Ended | Again:
        await asyncio.Event().wait()
        return Ended("done")

    for n in range(LANE_IN_FLIGHT_MAX * 3):
        ear.does[f"slow{n}"] = hangs
        await emit(one, f"slow{n}")
    await emit(one, "quick", "shop")
    async with telling(one, ear):
        await house.until(lambda: _heard(ear, "quick", 1))


async def test_a_dead_event_is_sent_again_when_its_subscriber_asks(
    house: House, one: Replica
) -> None:
    """A resent event is delivered again under the number it has; the same request replays, also
    while the event is on its way, and another one finds it waiting.
    """
    commands = await subscribe(house, one, "crm")
    ear = Ear()

    async def fails(row: Row) -> Ended | Again:
        return Again("500")

    ear.does["A"] = fails
    await emit(one, "A")
    async with telling(one, ear):
        await house.until(lambda: _state(house, "A", "dead"))
    idem = Idem("crm", "again", b"f" * 32)
    first = await commands.resend(house.command(), 1, idem)
    assert (first.status, json.loads(first.body)) == (202, {"no": 1, "state": "waiting"})
    assert await commands.resend(house.command(), 1, idem) == first
    with pytest.raises(Refusal) as waiting:
        await commands.resend(house.command(), 1, Idem("crm", "other", b"f" * 32))
    assert waiting.value.code == "event-waiting"
    ear.does.clear()
    async with telling(one, ear):
        await house.until(lambda: _heard(ear, "A", 1))
    assert ear.of("A") == [1]
    assert await commands.resend(house.command(), 1, idem) == first


async def test_one_cannot_resend_anothers_event(house: House, one: Replica) -> None:
    """An event of another subscriber is unknown, whatever its number."""
    commands = await subscribe(house, one, "shop")
    await emit(one, "A", "shop")
    async with telling(one, Ear()):
        await house.until(lambda: _state(house, "A", "done"))
    with pytest.raises(Refusal) as unknown:
        await commands.resend(house.command(), 1, Idem("crm", "k", b"f" * 32))
    assert unknown.value.code == "not-found"


async def test_naming_an_address_again_makes_a_new_secret(house: House, one: Replica) -> None:
    """A caller's secret is told once, is its own, and is replaced when the address is named."""
    commands = await subscribe(house, one)
    order = SubscriptionOrder("https://crm.example/hooks")
    first = await commands.set(house.command(), order)
    second = await commands.set(house.command(), order)
    assert first.secret.startswith("whsec_")
    assert first.secret != second.secret
    audited = await house.value("SELECT count(*) FROM gateway.audit WHERE command = $1",
                                "subscriber.set")  # fmt: skip
    assert audited == 2


async def test_an_old_owner_gives_no_numbers(house: House, one: Replica, two: Replica) -> None:
    """Who does not own the outbox any more numbers nothing, whatever it believes."""
    owns, other = one.ownership("outbox"), two.ownership("outbox")
    await _taken_and_dropped(house, owns)
    await _taken_and_dropped(house, other)
    await emit(one, "A")
    stale = one.outbox(owns, {})
    assert await stale._due() == []
    assert await house.value("SELECT no FROM gateway.outbox") is None


async def _taken_and_dropped(house: House, owns: Ownership) -> None:
    async def work() -> None:
        await asyncio.Event().wait()

    async with running(lambda: owns.run(work)):
        await house.until(lambda: _held(owns))


async def _held(owns: Ownership) -> bool:
    return owns.held


async def _heard(ear: Ear, aggregate: str, count: int) -> bool:
    return len(ear.of(aggregate)) >= count


async def _state(house: House, aggregate: str, state: str) -> bool:
    return await state_of(house, aggregate) == state


async def _seen(seen: dict[str, list[int]], count: int) -> bool:
    return all(len(seen[caller]) >= count for caller in ("crm", "shop"))


async def _none_waits(house: House) -> bool:
    return not await house.value("SELECT count(*) FROM gateway.outbox WHERE state = 'waiting'")


async def _refused(replica: Replica) -> bool:
    return replica.door.refused >= 2
