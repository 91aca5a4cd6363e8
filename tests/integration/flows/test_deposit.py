"""A deposit's journey on real rows: taken once, answered once, settled by whoever hears first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway.control.refusals import Refusal
from ledger.lane import LaneFull
from router.intents import Attempt
from router.outcomes import Approved, Declined, Outcome, Pending
from tests.integration.flows.conftest import (
    BOOK,
    OTHER_BOOK,
    WAIT_S,
    Held,
    House,
    Replica,
    approved,
    notice,
    payment_of,
    running,
)

SOFT = Declined("iso:91", "technical", "try later", "p", cascade=True)
HARD = Declined("iso:43", "fraud", "stolen", "p")


async def test_an_approved_deposit_is_answered_with_its_end_and_booked_once(
    house: House, one: Replica
) -> None:
    """201 with the end; one entry, one event for the caller, one audit row, books that prove."""
    answer = await one.deposit()
    payment = payment_of(answer)
    assert answer.status == 201
    assert await house.entries() == [(1, payment)]
    assert await house.balance("client_wallet", house.client.id) == 10_000
    told = await house.rows("SELECT lane, kind, aggregate FROM gateway.outbox")
    assert [tuple(row) for row in told] == [("subscriber:crm", "payment.approved", payment)]
    audited = await house.rows("SELECT command, subject FROM gateway.audit WHERE actor = 'crm'")
    assert ("deposit.start", payment) in [tuple(row) for row in audited]
    assert await house.wrong() == []


async def test_a_charge_is_stored_as_sent_before_its_first_byte(house: House, one: Replica) -> None:
    """While the provider is being asked, the attempt's row is there, sent, and due to be looked at
    should nobody ever hear of it again.
    """
    held = Held()
    one.providers.will("charge", held)
    asking = asyncio.create_task(one.deposit())
    await held.asked.wait()
    row = await house.pool.fetchrow(
        "SELECT a.state, a.lease_until, p.due_at FROM router.attempt a "
        "JOIN router.payment p ON p.id = a.payment_id WHERE a.id = $1", held.reference,
    )  # fmt: skip
    assert row["state"] == "sent"
    assert row["due_at"] == row["lease_until"]
    held.released.set()
    assert (await asking).status == 201


async def test_a_key_is_one_request_and_one_answer(
    house: House, one: Replica, two: Replica
) -> None:
    """The same request again is answered byte for byte, at any replica, without a second charge;
    another body under the key is refused.
    """
    first = await one.deposit("k1")
    again = await two.deposit("k1")
    assert (again.status, again.body, again.location) == (first.status, first.body, first.location)
    assert two.providers.calls == []
    with pytest.raises(Refusal) as other:
        await one.deposit("k1", instrument="tok_2")
    assert other.value.code == "idempotency-key-reused"
    assert len(await house.entries()) == 1


async def test_a_key_replays_when_its_request_would_be_refused_by_now(
    house: House, one: Replica
) -> None:
    """What was answered stays answered, although the client may not deposit any more."""
    first = await one.deposit("k1")
    owner = await house.database.connect(owner=True)
    await owner.execute("UPDATE gateway.client SET state = 'approved', version = version + 1")
    assert (await one.deposit("k1")).body == first.body
    with pytest.raises(Refusal) as refused:
        await one.deposit("k2")
    assert refused.value.code == "client-state"


async def test_a_second_request_while_the_first_is_answered_is_told_so(
    house: House, one: Replica, two: Replica
) -> None:
    """409 with the payment's location while the first request still works, its answer after."""
    held = Held()
    one.providers.will("charge", held)
    asking = asyncio.create_task(one.deposit("k1"))
    await held.asked.wait()
    with pytest.raises(Refusal) as busy:
        await two.deposit("k1")
    held.released.set()
    first = await asking
    assert busy.value.code == "idempotency-in-flight"
    assert busy.value.facts["location"] == first.location
    assert (await two.deposit("k1")).body == first.body


async def test_a_slow_walk_is_answered_202_for_ever_and_goes_on(house: House, one: Replica) -> None:
    """A request waits only so long: 202, the same 202 when it is repeated, and the deposit ends."""
    one.deposits._within_s = 0.05
    held = Held()
    one.providers.will("charge", held)
    first = await one.deposit("k1")
    assert first.status == 202
    held.released.set()
    payment = payment_of(first)
    await house.until(lambda: _is(house, payment, "approved"))
    again = await one.deposit("k1")
    assert (again.status, again.body) == (202, first.body)
    assert await house.entries() == [(1, payment)]


async def test_an_answer_its_process_took_to_the_grave_is_rebuilt(
    house: House, one: Replica, two: Replica
) -> None:
    """A key whose process died is answered from the rows by whoever is asked next, once."""
    held = Held()
    one.providers.will("charge", held)
    asking = asyncio.create_task(one.deposit("k1"))
    await held.asked.wait()
    asking.cancel()
    one.abandon()
    house.clock.ahead_s += 60
    rebuilt = await two.deposit("k1")
    assert rebuilt.status == 202
    assert (await two.deposit("k1")).body == rebuilt.body
    assert two.providers.made("charge") == []


async def test_a_late_walker_settles_although_another_replica_answered_its_request(
    house: House, one: Replica, two: Replica
) -> None:
    """A process that was stopped for long finds its key answered: its outcome is booked all the
    same, and its caller hears what was said before.
    """
    held = Held()
    one.providers.will("charge", held)
    asking = asyncio.create_task(one.deposit("k1"))
    await held.asked.wait()
    house.clock.ahead_s += 60
    rebuilt = await two.deposit("k1")
    held.released.set()
    async with asyncio.timeout(WAIT_S):
        late = await asking
    assert (late.status, late.body) == (rebuilt.status, rebuilt.body)
    assert await house.state(payment_of(late)) == "approved"
    assert await house.entries() == [(1, payment_of(late))]


async def test_the_notice_that_overtakes_the_answer_settles_once(
    house: House, one: Replica
) -> None:
    """Notice and answer bring the same news: one entry, and the request hears the end."""
    held = Held()
    one.providers.will("charge", held)
    asking = asyncio.create_task(one.deposit())
    await held.asked.wait()
    assert (
        await one.deposits.notice("acme", *notice(house.clock, "e1", held.reference)) == "applied"
    )
    async with asyncio.timeout(WAIT_S / 2):
        answer = await asking
    held.released.set()
    await one.deposits.drain()
    assert answer.status == 201
    assert await house.entries() == [(1, payment_of(answer))]
    assert await house.value("SELECT count(*) FROM gateway.outbox") == 1


async def test_a_request_hears_what_another_replica_settled(
    house: House, one: Replica, two: Replica
) -> None:
    """The notice reached another replica: the one whose request waits does not wait in vain."""
    one.providers.will("charge", Pending("p"))
    asking = asyncio.create_task(one.deposit())
    reference = await house.until(
        lambda: house.value("SELECT id FROM router.attempt WHERE state = 'pending'")
    )
    await two.deposits.notice("acme", *notice(house.clock, "e1", reference))
    async with asyncio.timeout(WAIT_S / 2):
        answer = await asking
    assert answer.status == 201


async def test_walker_notice_and_resolver_at_once_settle_once(
    house: House, one: Replica, two: Replica
) -> None:
    """Three bring the same decline at once: one next charge, and one end."""
    held = Held(SOFT)
    one.providers.will("charge", held)
    asking = asyncio.create_task(one.deposit())
    await held.asked.wait()
    held.released.set()
    await asyncio.gather(
        two.deposits.settle(held.reference, SOFT, "test"),
        two.deposits.settle(held.reference, SOFT, "test"),
        one.deposits.settle(held.reference, SOFT, "test"),
        asking,
    )
    await asyncio.gather(one.deposits.drain(), two.deposits.drain())
    payment = payment_of(asking.result())
    await house.until(lambda: _is(house, payment, "approved"))
    assert len(one.providers.made("charge")) + len(two.providers.made("charge")) == 2
    assert await house.entries() == [(1, payment)]
    assert await house.value("SELECT count(*) FROM router.attempt") == 2


async def test_a_charge_whose_lease_is_half_gone_is_not_sent(house: House, one: Replica) -> None:
    """A walker that slept after its commit sends nothing; the walk goes on with the next."""
    slept = one.deposits._boot_time
    calls = iter([0.0])
    one.deposits._boot_time = lambda: next(calls, slept())
    answer = await one.deposit()
    states = await house.rows("SELECT psp, state, code FROM router.attempt ORDER BY no")
    assert [tuple(row) for row in states] == [
        ("acme", "not_sent", "lease"),
        ("bolt", "approved", ""),
    ]
    assert len(one.providers.made("charge")) == 1
    assert answer.status == 201


async def test_a_deposit_for_an_account_queues_its_transfer(house: House, one: Replica) -> None:
    """The money of a deposit that names an account is on its way in the unit that books it."""
    account = await house.account(one)
    answer = await one.deposit(to=account.id)
    operation = await house.pool.fetchrow("SELECT * FROM bridge.operation")
    assert operation["payment_id"] == payment_of(answer)
    assert await house.balance("client_wallet", house.client.id) == 0
    assert await house.balance("in_transit", "mt5-live") == 10_000
    assert one.woken == ["mt5-live"]
    assert await house.wrong() == []


async def test_a_late_success_is_credited_once(house: House, one: Replica) -> None:
    """A provider that declined and charged after all: the wallet is credited, a person hears."""
    one.providers.will("charge", HARD)
    answer = await one.deposit()
    payment = payment_of(answer)
    assert await house.state(payment) == "declined"
    reference = one.providers.made("charge")[0]
    for event_id in ("e1", "e2"):
        await one.deposits.notice("acme", *notice(house.clock, event_id, reference))
    assert await house.state(payment) == "approved"
    assert await house.entries() == [(1, payment)]
    assert await house.items() == [("late-success", payment)]


async def test_a_charge_of_another_amount_credits_nobody(house: House, one: Replica) -> None:
    """What was charged is not what was asked: a person looks, the wallet stays as it was, and the
    same news again opens nothing new.
    """
    one.providers.will("charge", approved_of(9_000))
    answer = await one.deposit()
    payment, reference = payment_of(answer), one.providers.made("charge")[0]
    assert answer.status == 202
    assert await house.state(payment) == "review"
    await one.deposits.settle(reference, approved_of(9_000), "again")
    assert await house.balance("client_wallet", house.client.id) == 0
    assert await house.items() == [("payment-review", payment)]
    assert await house.wrong() == []


def approved_of(minor: int) -> Approved:
    """An approval of another amount."""
    return Approved("p", minor, "EUR")


# --- notices ------------------------------------------------------------------------------------


async def test_a_forged_notice_leaves_nothing(house: House, one: Replica) -> None:
    """A notice that is not signed with the provider's secret is refused and not stored."""
    held = Held()
    one.providers.will("charge", held)
    asking = asyncio.create_task(one.deposit())
    await held.asked.wait()
    with pytest.raises(Refusal) as forged:
        await one.deposits.notice(
            "acme", *notice(house.clock, "e1", held.reference, secret=b"guessed")
        )
    assert forged.value.code == "webhook-forged"
    assert await house.value("SELECT count(*) FROM router.inbox") == 0
    assert await house.value("SELECT state FROM router.attempt") == "sent"
    held.released.set()
    await asking


async def test_a_notice_is_applied_once(house: House, one: Replica, two: Replica) -> None:
    """The same event again, at any replica, changes nothing and says that it was heard."""
    one.providers.will("charge", Pending("p"))
    one.deposits._within_s = 0.05
    payment = payment_of(await one.deposit())
    reference = one.providers.made("charge")[0]
    said = notice(house.clock, "e1", reference)
    heard = await asyncio.gather(
        one.deposits.notice("acme", *said), two.deposits.notice("acme", *said),
        one.deposits.notice("acme", *said),
    )  # fmt: skip
    assert sorted(heard) == ["applied", "repeated", "repeated"]
    assert await house.entries() == [(1, payment)]
    assert await house.value("SELECT count(*) FROM router.inbox") == 1


async def test_an_older_notice_takes_nothing_back(house: House, one: Replica) -> None:
    """Reordered notices: what is decided stays decided."""
    payment = payment_of(await one.deposit())
    reference = one.providers.made("charge")[0]
    for event_id, status in (("e2", "pending"), ("e3", "declined")):
        await one.deposits.notice("acme", *notice(house.clock, event_id, reference, status))
    assert await house.state(payment) == "approved"
    assert await house.entries() == [(1, payment)]


async def test_no_provider_settles_anothers_attempt(house: House, one: Replica) -> None:
    """A notice that bolt signs about a charge at acme is refused and not stored."""
    one.providers.will("charge", Pending("p"))
    one.deposits._within_s = 0.05
    payment = payment_of(await one.deposit())
    with pytest.raises(Refusal) as wrong:
        await one.deposits.notice(
            "bolt", *notice(house.clock, "e1", one.providers.made("charge")[0])
        )
    assert wrong.value.code == "webhook-unreadable"
    assert await house.state(payment) == "in_progress"
    assert await house.value("SELECT count(*) FROM router.inbox") == 0


async def test_a_notice_about_nothing_of_ours_is_kept_for_a_person(
    house: House, one: Replica
) -> None:
    """A signed notice about a reference nobody knows is parked with an item, once."""
    said = notice(house.clock, "e1", "AT000000000000000009")
    assert await one.deposits.notice("acme", *said) == "parked"
    assert await one.deposits.notice("acme", *said) == "repeated"
    assert await house.items() == [("notice-parked", "acme:e1")]


# --- when this replica may not decide -----------------------------------------------------------


async def test_a_replica_left_behind_takes_and_settles_nothing(
    house: House, one: Replica, two: Replica
) -> None:
    """When another rulebook comes into force, a deposit is refused, a notice is refused so that it
    comes again elsewhere, and the replica knows that it is behind.
    """
    one.providers.will("charge", Pending("p"))
    one.deposits._within_s = 0.05
    payment = payment_of(await one.deposit())
    await house.adopt(OTHER_BOOK)
    said = notice(house.clock, "e1", one.providers.made("charge")[0])
    for refused in (one.deposit(), one.deposits.notice("acme", *said)):
        with pytest.raises(Refusal) as moved:
            await refused
        assert moved.value.code == "rulebook-moved"
    assert one.rules.behind
    assert await house.state(payment) == "in_progress"
    assert await house.value("SELECT count(*) FROM router.inbox") == 0
    newer = await house.replica("newer", OTHER_BOOK)
    assert await newer.deposits.notice("acme", *said) == "applied"
    assert await house.state(payment) == "approved"


async def test_an_idle_replica_learns_that_it_is_behind_and_when_it_is_not(
    house: House, one: Replica
) -> None:
    """Nobody asks anything: its follower says that it cannot take up another rulebook, and that
    it decides again when its own is back.
    """
    async with running(one.follower(cannot="no such provider is reached").run):
        await house.adopt(OTHER_BOOK)
        await house.until(lambda: _says(lambda: one.rules.behind))
        assert "no such provider is reached" in one.rules.trouble
        with pytest.raises(Refusal, match="rulebook-moved"):
            await one.deposit()
        await house.adopt(BOOK)
        await house.until(lambda: _says(lambda: not one.rules.behind))
    assert (await one.deposit()).status == 201


async def test_a_deposit_decided_with_old_rules_is_decided_again(
    house: House, one: Replica
) -> None:
    """Another rulebook came into force and nobody here has looked yet: the unit is left out, the
    process follows at once and the same request is answered by the new rules.
    """
    one.follower()
    await house.adopt(OTHER_BOOK)
    answer = await one.deposit()
    assert answer.status == 201
    assert one.rules.now.hash == OTHER_BOOK.hash
    decided = "SELECT rulebook FROM router.decision WHERE payment_id = $1"
    assert await house.value(decided, payment_of(answer)) == OTHER_BOOK.hash


async def test_a_settlement_composed_with_old_rules_is_composed_again(
    house: House, one: Replica
) -> None:
    """A notice that comes while the rules move is applied, with the rules in force."""
    one.providers.will("charge", Pending("p"))
    one.deposits._within_s = 0.05
    payment = payment_of(await one.deposit())
    one.follower()
    await house.adopt(OTHER_BOOK)
    said = notice(house.clock, "e1", one.providers.made("charge")[0])
    assert await one.deposits.notice("acme", *said) == "applied"
    assert await house.state(payment) == "approved"
    assert one.rules.now.hash == OTHER_BOOK.hash


async def test_a_full_lane_takes_no_deposit_and_loses_none(house: House, one: Replica) -> None:
    """A lane that is full refuses a deposit whole; one whose outcome found it full is resolved
    from its rows.
    """
    one.lane.full = 1
    with pytest.raises(LaneFull):
        await one.deposit()
    assert await house.value("SELECT count(*) FROM router.payment") == 0

    async def filling(attempt: Attempt) -> Outcome:
        one.lane.full = 1
        return approved(attempt)

    one.providers.will("charge", filling)
    answer = await one.deposit("k1")
    payment = payment_of(answer)
    assert answer.status == 202
    assert await house.state(payment) == "in_progress"
    house.clock.ahead_s += 25
    async with running(one.resolver.run):
        await house.until(lambda: _attempt_is(house, "unknown"))
        house.clock.ahead_s += 25
        await house.until(lambda: _is(house, payment, "approved"))
    assert len(one.providers.made("charge")) == 1
    assert await house.entries() == [(1, payment)]


async def test_draining_waits_for_walks_and_those_they_start(house: House, one: Replica) -> None:
    """A drain ends when the last walk has ended, also one that began while it waited."""
    one.deposits._within_s = 0.05
    first, second = Held(SOFT), Held()
    one.providers.will("charge", first, second)
    payment = payment_of(await one.deposit())
    draining = asyncio.create_task(one.deposits.drain())
    first.released.set()
    await second.asked.wait()
    assert not draining.done()
    second.released.set()
    async with asyncio.timeout(WAIT_S):
        await draining
    assert await house.state(payment) == "approved"
    assert one.deposits.walks == 0


async def _is(house: House, payment: str, state: str) -> bool:
    return await house.state(payment) == state


async def _attempt_is(house: House, state: str) -> bool:
    return bool(await house.value("SELECT state FROM router.attempt") == state)


async def _says(condition: Callable[[], bool]) -> bool:
    return bool(condition())
