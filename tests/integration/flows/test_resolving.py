"""The resolver: what a deposit waits for is looked at when it is due, by one, and never lost."""

from __future__ import annotations

import asyncio

from ledger.lane import LaneFailed
from ledger.units import Unit
from router.outcomes import Declined, NotFound, NotSent, Pending, Unknown
from tests.integration.flows.conftest import (
    BOOK,
    OTHER_BOOK,
    ROUTING,
    Held,
    House,
    Replica,
    notice,
    payment_of,
    running,
)

SOFT = Declined("iso:91", "technical", "try later", "p", cascade=True)
LEASE_S = ROUTING.lease_s + 1


async def lost(house: House, one: Replica) -> tuple[str, str]:
    """A deposit whose process died while the provider was asked: its payment and its reference."""
    held = Held()
    one.providers.will("charge", held)
    asking = asyncio.create_task(one.deposit())
    await held.asked.wait()
    asking.cancel()
    one.abandon()
    await asyncio.gather(asking, return_exceptions=True)
    payment = await house.value(
        "SELECT payment_id FROM router.attempt WHERE id = $1", held.reference
    )
    return payment, held.reference


async def attempt_state(house: House, reference: str) -> str:
    """The state of an attempt."""
    return str(await house.value("SELECT state FROM router.attempt WHERE id = $1", reference))


async def test_a_crash_in_sent_is_unknown_only_when_the_lease_is_over(
    house: House, one: Replica, two: Replica
) -> None:
    """While the lease runs nobody touches the attempt; then it is unknown, asked about by our own
    reference, and settled by what the provider says. It is never charged again.
    """
    payment, reference = await lost(house, one)
    async with running(two.resolver.run):
        await asyncio.sleep(0.6)  # two polls: nothing is due
        assert await attempt_state(house, reference) == "sent"
        assert two.providers.calls == []
        house.clock.ahead_s += LEASE_S
        await house.until(lambda: _attempt_is(house, reference, "unknown"))
        assert two.providers.calls == []
        house.clock.ahead_s += 15
        await house.until(lambda: _is(house, payment, "approved"))
    assert two.providers.calls == [("ask", reference)]
    assert await house.entries() == [(1, payment)]


async def test_two_resolvers_ask_once(house: House, one: Replica, two: Replica) -> None:
    """An attempt is asked about by one replica at a time: the other finds it held."""
    payment, reference = await lost(house, one)
    house.clock.ahead_s += LEASE_S
    held = Held()
    for replica in (one, two):
        replica.providers.will("ask", held)
    async with running(one.resolver.run, two.resolver.run):
        await house.until(lambda: _attempt_is(house, reference, "unknown"))
        house.clock.ahead_s += 15
        await held.asked.wait()
        await asyncio.sleep(0.6)  # both poll on
        assert len(one.providers.made("ask")) + len(two.providers.made("ask")) == 1
        held.released.set()
        await house.until(lambda: _is(house, payment, "approved"))


async def test_not_found_counts_twice_and_only_then_the_next_provider_is_charged(
    house: House, one: Replica, two: Replica
) -> None:
    """Unknown blocks everything until two lookups, apart and after the grace, find nothing."""
    payment, reference = await lost(house, one)
    two.providers.will("ask", NotFound(), NotFound())
    house.clock.ahead_s += LEASE_S
    async with running(two.resolver.run):
        await house.until(lambda: _attempt_is(house, reference, "unknown"))
        house.clock.ahead_s += 15
        await house.until(lambda: _asked(two, 1))
        await house.until(lambda: _free(house, reference))
        assert await attempt_state(house, reference) == "unknown"
        assert two.providers.made("charge") == []
        house.clock.ahead_s += ROUTING.not_found_gap_s + 1
        await house.until(lambda: _is(house, payment, "approved"))
    assert await attempt_state(house, reference) == "not_found"
    psps = await house.rows("SELECT psp, state FROM router.attempt ORDER BY no")
    assert [tuple(row) for row in psps] == [("acme", "not_found"), ("bolt", "approved")]
    assert len(two.providers.made("charge")) == 1


async def test_asking_that_ends_is_review_and_an_item_never_failure(
    house: House, one: Replica, two: Replica
) -> None:
    """When asking is over and nobody said anything, a person looks; a late word settles it."""
    payment, reference = await lost(house, one)
    two.providers.will("ask", *[Unknown("timeout")] * 9)
    async with running(two.resolver.run):
        for _ in range(len(ROUTING.resolver_steps_s) + 3):
            house.clock.ahead_s += 400
            await asyncio.sleep(0.6)
        await house.until(lambda: _is(house, payment, "review"))
        assert await house.items() == [("payment-review", payment)]
        await two.deposits.notice("acme", *notice(house.clock, "e1", reference))
        assert await house.state(payment) == "approved"
    assert two.providers.made("charge") == []


async def test_a_walk_that_stopped_between_two_attempts_is_taken_up(
    house: House, one: Replica, two: Replica
) -> None:
    """The next charge was committed as sent, but its process died before the first byte: it is
    resolved like any other, and the walk goes on.
    """
    held = Held()
    one.providers.will("charge", SOFT, held)
    asking = asyncio.create_task(one.deposit())
    await held.asked.wait()
    asking.cancel()
    one.abandon()
    two.providers.will("ask", NotFound(), NotFound())
    payment = await house.value("SELECT id FROM router.payment")
    async with running(two.resolver.run):
        for _ in range(4):
            house.clock.ahead_s += 30
            await asyncio.sleep(0.6)
        await house.until(lambda: _is(house, payment, "declined"))
    row = await house.pool.fetchrow("SELECT reason FROM router.payment")
    assert row["reason"] == "not_found"  # both of the route were tried
    assert two.providers.made("charge") == []


async def test_a_parked_notice_is_applied_when_its_attempt_is_known(
    house: House, one: Replica, two: Replica
) -> None:
    """What came before its attempt is kept and applied, once, by whichever replica looks."""
    one.deposits._within_s = 0.05
    one.providers.will("charge", Pending("p"))
    payment = payment_of(await one.deposit())
    reference = one.providers.made("charge")[0]
    await _park(house, one, "e1", reference)
    async with running(one.resolver.run, two.resolver.run):
        await house.until(lambda: _is(house, payment, "approved"))
        await asyncio.sleep(0.6)  # whoever came second goes on
    inbox = await house.pool.fetchrow("SELECT state, payment_id FROM router.inbox")
    assert tuple(inbox) == ("applied", payment)
    assert await house.entries() == [(1, payment)]


async def test_a_parked_notice_of_another_provider_is_set_aside(house: House, one: Replica) -> None:
    """It can never be applied: it is not looked at for ever, and a person hears of it."""
    one.deposits._within_s = 0.05
    one.providers.will("charge", Pending("p"))
    payment = payment_of(await one.deposit())
    await _park(house, one, "e1", one.providers.made("charge")[0], psp="bolt")
    async with running(one.resolver.run):
        await house.until(lambda: _items(house))
    assert await house.items() == [("notice-set-aside", "bolt:e1")]
    assert await house.value("SELECT reason FROM router.inbox") == "set-aside"
    assert await house.state(payment) == "in_progress"


async def test_a_notice_nobody_can_read_any_more_is_set_aside_and_its_neighbours_go_on(
    house: House, one: Replica
) -> None:
    """A parked notice that fails again and again is set aside with its reason; the next one is
    applied meanwhile.
    """
    one.deposits._within_s = 0.05
    one.providers.will("charge", Pending("p"), Pending("p"))
    payments = [payment_of(await one.deposit()) for _ in range(2)]
    broken, good = one.providers.made("charge")
    await _park(house, one, "e1", broken, raw=b"{")
    await _park(house, one, "e2", good)
    async with running(one.resolver.run):
        await house.until(lambda: _is(house, payments[1], "approved"))
        await house.until(lambda: _items(house))
    assert await house.items() == [("notice-set-aside", "acme:e1")]
    assert await house.state(payments[0]) == "in_progress"


async def test_a_poison_payment_is_parked_and_its_neighbours_go_on(
    house: House, one: Replica, two: Replica
) -> None:
    """A payment whose handling fails in a way of its own stops neither process nor neighbours: it
    is due no more after some tries, with an item, and a late notice still settles it.
    """
    bad, reference = await lost(house, one)
    good, _ = await lost(house, one)

    def poisoned(unit: Unit) -> Exception | None:
        moves = [change.row for change in unit.changes if change.kind.name == "router.attempt.move"]
        return LaneFailed("23514", "poison") if [r for r in moves if r[0] == reference] else None

    two.lane.fails = poisoned
    house.clock.ahead_s += LEASE_S
    async with running(two.resolver.run):
        await house.until(lambda: _items(house))
        house.clock.ahead_s += 15
        await house.until(lambda: _is(house, good, "approved"))
    assert await house.items() == [("payment-parked", bad)]
    assert await house.value("SELECT due_at FROM router.payment WHERE id = $1", bad) is None
    two.lane.fails = lambda unit: None
    await two.deposits.notice("acme", *notice(house.clock, "e1", reference))
    assert await house.state(bad) == "approved"


async def test_a_full_lane_stops_no_service(house: House, one: Replica, two: Replica) -> None:
    """The resolver whose units find the lane full looks again later; nothing is parked for it."""
    payment, _ = await lost(house, one)
    two.lane.full = 12  # more often than a poison row may fail
    house.clock.ahead_s += LEASE_S
    async with running(two.resolver.run):
        await house.until(lambda: _says_zero(two))
        house.clock.ahead_s += 15
        await house.until(lambda: _is(house, payment, "approved"))
    assert await house.items() == []


async def test_a_database_that_is_away_is_waited_for(
    house: House, one: Replica, two: Replica
) -> None:
    """The resolver neither ends nor spins while the database is away, says so, and goes on."""
    payment, _ = await lost(house, one)
    house.clock.ahead_s += LEASE_S
    two.door.shut = True
    async with running(two.resolver.run):
        await house.until(lambda: _refused(two, 3))
        assert "away" in two.resolver.trouble()
        assert two.door.refused < 20
        two.door.shut = False
        await house.until(lambda: _due_later(house, payment))
        assert two.resolver.trouble() == ""
        house.clock.ahead_s += 15
        await house.until(lambda: _is(house, payment, "approved"))


async def test_a_replica_left_behind_asks_about_nothing(
    house: House, one: Replica, two: Replica
) -> None:
    """With another rulebook in force the resolver leaves due payments to those who have it."""
    payment, reference = await lost(house, one)
    await house.adopt(OTHER_BOOK)
    house.clock.ahead_s += LEASE_S
    follower = two.follower(cannot="a provider is not reached")
    await follower.look()
    async with running(two.resolver.run), running(follower.run):
        await asyncio.sleep(0.8)
        assert await attempt_state(house, reference) == "sent"
        assert two.providers.calls == []
        await house.adopt(BOOK)
        await house.until(lambda: _attempt_is(house, reference, "unknown"))
        house.clock.ahead_s += 15
        await house.until(lambda: _is(house, payment, "approved"))


async def test_an_inquiry_that_was_never_sent_says_nothing(
    house: House, one: Replica, two: Replica
) -> None:
    """A question that did not leave is no answer: the attempt stays unknown and is asked again."""
    payment, reference = await lost(house, one)
    two.providers.will("ask", NotSent("connect"))
    house.clock.ahead_s += LEASE_S
    async with running(two.resolver.run):
        await house.until(lambda: _attempt_is(house, reference, "unknown"))
        house.clock.ahead_s += 15
        await house.until(lambda: _asked(two, 1))
        await house.until(lambda: _free(house, reference))
        assert await attempt_state(house, reference) == "unknown"
        house.clock.ahead_s += 60
        await house.until(lambda: _is(house, payment, "approved"))


async def _park(
    house: House, one: Replica, event_id: str, reference: str, *, psp: str = "acme",
    raw: bytes = b"",
) -> None:  # fmt: skip
    """A notice that was verified before anybody knew its reference."""
    _, said = notice(house.clock, event_id, reference)
    await house.pool.execute(
        "INSERT INTO router.inbox (key, version, psp, event_id, reference, payment_id, state, "
        "reason, raw, received) VALUES ($1, 1, $2, $3, $4, '', 'parked', 'unknown-reference', $5, "
        "now())", f"{psp}:{event_id}", psp, event_id, reference, raw or said,
    )  # fmt: skip


async def _is(house: House, payment: str, state: str) -> bool:
    return await house.state(payment) == state


async def _attempt_is(house: House, reference: str, state: str) -> bool:
    return await attempt_state(house, reference) == state


async def _free(house: House, reference: str) -> bool:
    sql = "SELECT lease_until IS NULL AND inquiries > 0 FROM router.attempt WHERE id = $1"
    return bool(await house.value(sql, reference))


async def _due_later(house: House, payment: str) -> bool:
    due = await house.value("SELECT due_at FROM router.payment WHERE id = $1", payment)
    return due is not None and due > house.clock.now()


async def _items(house: House) -> list[tuple[str, str]]:
    return await house.items()


async def _asked(replica: Replica, times: int) -> bool:
    return len(replica.providers.made("ask")) >= times


async def _refused(replica: Replica, times: int) -> bool:
    return replica.door.refused >= times


async def _says_zero(replica: Replica) -> bool:
    return replica.lane.full == 0
