"""From the wallet to the platform: sent once, looked up when nobody knows, booked as it ended."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
import pytest_asyncio

from bridge import reads
from bridge.outcomes import Done, NotSent, Outcome, Refused, Unknown
from bridge.states import Operation
from ledger.lane import LaneFailed
from ledger.units import Unit
from tests.integration.flows.conftest import House, Replica, payment_of
from tests.integration.flows.platform import SETTLE_S, Side, Wire, owning, ticket

HOUR_S = 3600.0


@pytest_asyncio.fixture
async def side(house: House, one: Replica) -> Side:
    """The platform's owner at the first replica."""
    return Side(house, one, Wire())


async def deposited(house: House, one: Replica) -> tuple[str, str]:
    """A deposit for a trading account: its operation, and the account."""
    account = await house.account(one)
    payment = payment_of(await one.deposit(to=account.id))
    sql = "SELECT id FROM bridge.operation WHERE payment_id = $1"
    return str(await house.value(sql, payment)), account.id


async def operation(house: House, operation_id: str) -> asyncpg.Record:
    """The operation's row."""
    return await house.pool.fetchrow("SELECT * FROM bridge.operation WHERE id = $1", operation_id)


async def _is(house: House, operation_id: str, state: str) -> bool:
    return bool((await operation(house, operation_id))["state"] == state)


async def test_a_credit_is_sent_once_booked_and_told(
    house: House, one: Replica, side: Side
) -> None:
    """Done: the money is on the platform in the books, with its ticket, and the caller hears."""
    made, account = await deposited(house, one)
    async with owning(side):
        await house.until(lambda: _is(house, made, "done"))
    assert side.wire.applied == [made]
    assert await house.balance("on_platform", account) == 10_000
    assert await house.balance("in_transit", "mt5-live") == 0
    kinds = await house.rows("SELECT kind FROM gateway.outbox ORDER BY id")
    assert [row["kind"] for row in kinds] == ["payment.approved", "payment.credited"]
    assert await house.wrong() == []


async def test_it_is_stored_as_sent_before_its_first_byte(
    house: House, one: Replica, side: Side
) -> None:
    """While the platform is asked, the row says so under a lease, and is due when it ends."""
    made, _ = await deposited(house, one)
    seen = []

    async def look(sent: Operation) -> Outcome:
        seen.append(await operation(house, sent.id))
        return Done(ticket=7)

    side.wire.applies.append(look)
    async with owning(side):
        await house.until(lambda: _is(house, made, "done"))
    assert seen[0]["state"] == "sent"
    assert seen[0]["due_at"] == seen[0]["lease_until"]


async def test_a_refusal_brings_the_money_back_with_an_item(
    house: House, one: Replica, side: Side
) -> None:
    """The platform will not have it: back in the wallet, told, and a person hears."""
    made, _ = await deposited(house, one)
    side.wire.applies.append(Refused(code=10019, text="No money", kind="business"))
    async with owning(side):
        await house.until(lambda: _is(house, made, "refused"))
    assert await house.balance("client_wallet", house.client.id) == 10_000
    assert await house.balance("in_transit", "mt5-live") == 0
    assert await house.items() == [("credit-refused", made)]
    kinds = await house.rows("SELECT kind FROM gateway.outbox ORDER BY id")
    assert [row["kind"] for row in kinds] == ["payment.approved", "payment.credit_refused"]
    assert await house.wrong() == []


@pytest.mark.parametrize(
    "answer",
    [NotSent(reason="session"), Refused(code=8, text="busy", kind="transient"),
     Refused(code=8, text="no permission", kind="configuration")],
    ids=["not sent", "busy", "not permitted"],
)  # fmt: skip
async def test_what_did_not_happen_is_sent_again_after_a_pause(
    house: House, one: Replica, side: Side, answer: Outcome
) -> None:
    """Provably nothing happened: queued again, the money stays in transit, then it is done."""
    made, _ = await deposited(house, one)
    side.wire.applies.append(answer)
    async with owning(side):
        await house.until(lambda: _is(house, made, "done"))
    assert side.wire.applied == [made, made]
    assert side.wire.found == []


async def test_a_lost_answer_is_looked_up_and_never_repeated_blindly(
    house: House, one: Replica, side: Side
) -> None:
    """Unknown, and the deal is there: done with its ticket, sent once."""
    made, account = await deposited(house, one)
    side.wire.applies.append(Unknown(reason="cut"))
    side.wire.finds.append((ticket(42),))
    async with owning(side):
        await house.until(lambda: _is(house, made, "unknown"))
        house.clock.ahead_s += SETTLE_S
        await house.until(lambda: _is(house, made, "done"))
    assert side.wire.applied == [made]
    assert (await operation(house, made))["ticket"] == 42
    assert await house.balance("on_platform", account) == 10_000


async def test_only_what_two_lookups_after_the_settle_time_do_not_find_is_repeated(
    house: House, one: Replica, side: Side
) -> None:
    """One early lookup counts for nothing; two late ones that find nothing allow a repeat."""
    made, _ = await deposited(house, one)
    side.wire.applies.append(Unknown(reason="cut"))
    async with owning(side):
        await house.until(lambda: _is(house, made, "unknown"))
        house.clock.ahead_s += SETTLE_S / 6
        await house.until(lambda: _found(side, 1))
        await asyncio.sleep(0.6)  # two passes: nothing is due
        assert side.wire.applied == [made]
        assert len(side.wire.found) == 1
        house.clock.ahead_s += SETTLE_S
        await house.until(lambda: _found(side, 2))
        assert side.wire.applied == [made]
        house.clock.ahead_s += SETTLE_S / 6
        await house.until(lambda: _is(house, made, "done"))
    assert len(side.wire.found) == 3
    assert side.wire.applied == [made, made]


async def test_a_second_deal_under_one_reference_is_for_a_person(
    house: House, one: Replica, side: Side
) -> None:
    """Two deals carry our reference: the first is booked, each other is an item to reverse."""
    made, account = await deposited(house, one)
    side.wire.applies.append(Unknown(reason="cut"))
    side.wire.finds.append((ticket(42), ticket(43)))
    async with owning(side):
        await house.until(lambda: _is(house, made, "unknown"))
        house.clock.ahead_s += SETTLE_S
        await house.until(lambda: _is(house, made, "done"))
    assert await house.items() == [("platform-duplicate", "43")]
    assert await house.balance("on_platform", account) == 10_000


async def test_a_deal_of_another_amount_is_for_a_person_and_books_nothing(
    house: House, one: Replica, side: Side
) -> None:
    """Our reference with another amount: nothing is guessed, the money stays in transit."""
    made, _ = await deposited(house, one)
    side.wire.applies.append(Unknown(reason="cut"))
    side.wire.finds.append((ticket(42, "99.00"),))
    async with owning(side):
        await house.until(lambda: _is(house, made, "unknown"))
        house.clock.ahead_s += SETTLE_S
        await house.until(lambda: _items(house))
    assert await house.items() == [("platform-altered", made)]
    assert (await operation(house, made))["due_at"] is None
    assert await house.balance("in_transit", "mt5-live") == 10_000


async def test_a_platform_that_says_nothing_for_too_long_is_an_item_and_asked_on(
    house: House, one: Replica, side: Side
) -> None:
    """Not to know is never to fail: a person hears after an hour, the asking goes on."""
    made, account = await deposited(house, one)
    side.wire.applies.append(Unknown(reason="cut"))
    side.wire.finds.extend([Unknown(reason="no session"), (ticket(42),)])
    async with owning(side):
        await house.until(lambda: _is(house, made, "unknown"))
        house.clock.ahead_s += HOUR_S + 1
        await house.until(lambda: _items(house))
        assert (await operation(house, made))["state"] == "unknown"
        house.clock.ahead_s += SETTLE_S
        await house.until(lambda: _is(house, made, "done"))
    assert await house.items() == [("credit-unknown", made)]
    assert await house.balance("on_platform", account) == 10_000


@pytest.mark.parametrize("live", [True, False], ids=["with a session", "without a session"])
async def test_what_could_not_be_sent_for_a_day_goes_back_to_the_wallet(
    house: House, one: Replica, side: Side, live: bool
) -> None:
    """After a day of nothing it is given up, also when there is no session at all."""
    made, _ = await deposited(house, one)
    side.wire.live = False
    async with owning(side):
        await asyncio.sleep(0.6)  # two passes: without a session nothing is sent
        assert side.wire.applied == []
        house.clock.ahead_s += 24 * HOUR_S + 1
        side.wire.live = live
        await house.until(lambda: _is(house, made, "refused"))
    assert side.wire.applied == []
    assert (await operation(house, made))["reason"] == "given_up"
    assert await house.balance("client_wallet", house.client.id) == 10_000
    assert await house.items() == [("credit-refused", made)]


async def test_an_owner_that_slept_sends_nothing(house: House, one: Replica, side: Side) -> None:
    """The proof of ownership is too old when the first byte would leave: nothing is sent."""
    made, _ = await deposited(house, one)
    fresh, asked = side.owns.fresh, []

    def once() -> bool:
        asked.append(fresh())
        return len(asked) > 1 and fresh()

    side.owns.fresh = once  # type: ignore[method-assign]
    async with owning(side):
        await house.until(lambda: _is(house, made, "done"))
    assert side.wire.applied == [made]
    events = await house.rows(
        "SELECT event FROM bridge.event WHERE object_id = $1 ORDER BY id", made
    )
    assert [row["event"] for row in events] == ["queued", "sent", "not_sent", "sent", "done"]


async def test_an_owner_that_lost_its_lock_in_the_middle_of_a_call_books_nothing(
    house: House, one: Replica, two: Replica, side: Side
) -> None:
    """The old owner's answer is not written; the new one waits for the lease, looks the operation
    up, and books it once.
    """
    made, account = await deposited(house, one)
    asked, late = asyncio.Event(), asyncio.Event()

    async def slow(sent: Operation) -> Outcome:
        asked.set()
        await late.wait()
        return Done(ticket=42)

    side.wire.applies.append(slow)
    other = Side(house, two, Wire())
    other.wire.finds.append((ticket(42),))
    await _own_briefly(house, side)
    working = asyncio.create_task(_handle(house, side, made))
    await asked.wait()
    async with owning(other):
        await house.until(lambda: _owned(other))
        late.set()
        await working
        assert (await operation(house, made))["state"] == "sent"
        house.clock.ahead_s += 11
        await house.until(lambda: _is(house, made, "unknown"))
        house.clock.ahead_s += SETTLE_S
        await house.until(lambda: _is(house, made, "done"))
    assert other.wire.applied == []
    assert await house.balance("on_platform", account) == 10_000
    assert await house.wrong() == []


async def test_a_poison_operation_is_parked_and_its_neighbours_go_on(
    house: House, one: Replica, side: Side
) -> None:
    """An operation whose end cannot be written is set aside with an item; the next one is done."""
    bad, _ = await deposited(house, one)
    good, _ = await deposited(house, one)

    def poisoned(unit: Unit) -> Exception | None:
        ends = [c.row for c in unit.changes if c.kind.name == "bridge.operation.move"]
        of_bad = [row for row in ends if row[0] == bad and row[2] == "done"]
        return LaneFailed("23505", "poison") if of_bad else None

    one.lane.fails = poisoned
    side.wire.finds.extend([(ticket(900),)] * 20)
    async with owning(side):
        await house.until(lambda: _is(house, good, "done"))
        for _ in range(12):
            house.clock.ahead_s += 11
            await asyncio.sleep(0.3)
            if await house.items():
                break
        await house.until(lambda: _items(house))
    assert await house.items() == [("credit-parked", bad)]
    assert (await operation(house, bad))["due_at"] is None
    assert await house.balance("in_transit", "mt5-live") == 10_000


async def test_a_full_lane_and_a_database_away_stop_no_platform(
    house: House, one: Replica, side: Side
) -> None:
    """The owner goes on when the world is well again, and sends nothing twice."""
    made, _ = await deposited(house, one)
    one.door.shut = True
    one.lane.full = 3
    async with owning(side):
        await house.until(lambda: _refused(one))
        assert one.door.refused < 20
        one.door.shut = False
        await house.until(lambda: _is(house, made, "done"))
    assert side.wire.applied == [made]
    assert await house.items() == []


async def _own_briefly(house: House, side: Side) -> None:
    """Own the server and lose it, so that its epoch is a real one and the proof still young."""

    async def work() -> None:
        await asyncio.Event().wait()

    owning_it = asyncio.create_task(side.owns.run(work))
    await house.until(lambda: _owned(side))
    owning_it.cancel()
    await asyncio.gather(owning_it, return_exceptions=True)
    side.owns.fresh = lambda: True  # type: ignore[method-assign]


async def _handle(house: House, side: Side, made: str) -> None:
    async with house.pool.acquire() as conn:
        row = await reads.operation(conn, made)
    assert row is not None
    await side.credits.handle(row, await side.replica.deposits.case(row.payment_id))


async def _owned(side: Side) -> bool:
    return side.owns.held


async def _found(side: Side, times: int) -> bool:
    return len(side.wire.found) >= times


async def _items(house: House) -> list[tuple[str, str]]:
    return await house.items()


async def _refused(replica: Replica) -> bool:
    return replica.door.refused >= 2
