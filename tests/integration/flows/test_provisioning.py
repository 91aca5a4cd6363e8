"""Trading accounts: asked for once, created once under a leased login, told as they end."""

from __future__ import annotations

import asyncio
import json
import time

import asyncpg
import pytest
import pytest_asyncio

from bridge.outcomes import NotSent, Outcome, Refused, Unknown
from gateway.control.idempotency import Answer, Idem
from gateway.control.refusals import Refusal
from gateway.flows.provisioning import STUCK_AFTER
from gateway.flows.views import NewAccount
from ledger.lane import LaneFailed
from ledger.units import Unit
from tests.integration.flows.conftest import OTHER_BOOK, House, Replica
from tests.integration.flows.platform import GROUP, Side, Wire, owning


@pytest_asyncio.fixture
async def side(house: House, one: Replica) -> Side:
    """The platform's owner at the first replica."""
    return Side(house, one, Wire())


async def request(side: Side, key: str = "", **changes: object) -> Answer:
    """Ask for a standard account in euro."""
    plain = {"client": side.house.client.id, "type": "standard", "currency": "EUR"}
    order = NewAccount(**{**plain, **changes})  # type: ignore[arg-type]
    key = key or f"key-{next(side.house.numbers)}"
    return await side.accounts.request(side.house.command(), order, Idem("crm", key, b"f" * 32))


async def account(house: House, account_id: str) -> asyncpg.Record:
    """The account's row."""
    return await house.pool.fetchrow("SELECT * FROM bridge.account WHERE id = $1", account_id)


def named(answer: Answer) -> str:
    """The id of the account an answer speaks of."""
    return str(json.loads(answer.body)["id"])


async def _is(house: House, account_id: str, state: str) -> bool:
    return bool((await account(house, account_id))["state"] == state)


async def told(house: House) -> list[str]:
    """What callers were told, in order."""
    rows = await house.rows("SELECT kind FROM gateway.outbox ORDER BY id")
    return [row["kind"] for row in rows]


async def test_an_account_is_asked_for_once_and_verified(house: House, side: Side) -> None:
    """202 and the same 202 for the same key; one account under a leased login, told when it is
    verified.
    """
    first = await request(side, "k1")
    again = await request(side, "k1")
    assert (first.status, again.body) == (202, first.body)
    async with owning(side):
        await house.until(lambda: _is(house, named(first), "verified"))
    row = await account(house, named(first))
    assert (row["login"], row["due_at"]) == (GROUP.login_from, None)
    assert side.wire.created == [GROUP.login_from]
    assert await told(house) == ["account.requested", "account.verified"]
    audited = "SELECT count(*) FROM gateway.audit WHERE command = 'account.request'"
    assert await house.value(audited) == 1


@pytest.mark.parametrize(
    "answer",
    [Unknown(reason="cut"), NotSent(reason="session"), Refused(code=8, text="busy",
     kind="transient")],
    ids=["unknown", "not sent", "busy"],
)  # fmt: skip
async def test_what_did_not_end_is_sent_again_under_the_same_login(
    house: House, side: Side, answer: Outcome
) -> None:
    """A creation may be repeated because its login was leased: it is the same one every time."""
    side.wire.creates.append(answer)
    made = named(await request(side))
    async with owning(side):
        await house.until(lambda: _is(house, made, "verified"))
    assert side.wire.created == [GROUP.login_from] * 2
    assert await house.value("SELECT count(*) FROM bridge.login_lease") == 1


@pytest.mark.parametrize(
    ("answer", "state", "item"),
    [
        (Refused(code=0, text="group", kind="verify"), "verify_failed", "account-verify-failed"),
        (Refused(code=3004, text="taken", kind="configuration"), "refused", "account-refused"),
    ],
    ids=["not as asked", "another's login"],
)  # fmt: skip
async def test_what_is_not_as_asked_is_told_and_for_a_person(
    house: House, side: Side, answer: Outcome, state: str, item: str
) -> None:
    """An account that differs from what was asked, or that is not ours, is never taken for ours."""
    side.wire.creates.append(answer)
    made = named(await request(side))
    async with owning(side):
        await house.until(lambda: _is(house, made, state))
        await asyncio.sleep(0.4)
    assert side.wire.created == [GROUP.login_from]
    assert await told(house) == ["account.requested", f"account.{state}"]
    assert await house.items() == [(item, made)]


async def test_a_range_without_logins_refuses_and_is_for_a_person(house: House, side: Side) -> None:
    """When every number is leased the request is refused before anything is sent."""
    made = [named(await request(side)) for _ in range(3)]
    async with owning(side):
        for each, state in zip(made, ("verified", "verified", "refused"), strict=True):
            await house.until(lambda each=each, state=state: _is(house, each, state))
    assert (await account(house, made[2]))["reason"] == "logins-exhausted"
    assert len(side.wire.created) == 2
    assert await house.items() == [("account-refused", made[2])]


async def test_a_crash_in_sent_is_repeated_when_the_lease_is_over(
    house: House, side: Side, two: Replica
) -> None:
    """The owner died while the platform was asked: the next one waits, then sends the same."""
    other = Side(house, two, Wire())
    made = named(await request(side))
    asked = asyncio.Event()

    async def hang(*_: object) -> Outcome:
        asked.set()
        await asyncio.Event().wait()
        return Unknown(reason="never")

    side.wire.create = hang  # type: ignore[method-assign]
    async with owning(side):
        await asked.wait()
    async with owning(other):
        await house.until(lambda: _owned(other))
        await asyncio.sleep(0.5)
        assert other.wire.created == []
        house.clock.ahead_s += 11
        await house.until(lambda: _is(house, made, "verified"))
    assert other.wire.created == [GROUP.login_from]


async def test_a_creation_that_never_ends_is_for_a_person_and_goes_on(
    house: House, side: Side
) -> None:
    """After many tries somebody hears of it; it is not given up, because it may exist."""
    side.wire.creates.extend([Unknown(reason="cut")] * STUCK_AFTER)
    side.owns._boot_time = side.makes._boot_time = time.monotonic  # only the wall clock jumps
    made = named(await request(side))
    async with owning(side):
        for tries in range(1, STUCK_AFTER + 1):
            await house.until(lambda tries=tries: _tried(side, tries))
            await house.until(lambda: _is(house, made, "unknown"))
            house.clock.ahead_s += 61
        await house.until(lambda: _is(house, made, "verified"))
    assert await house.items() == [("account-stuck", made)]


async def test_a_poison_account_is_parked_and_its_neighbours_go_on(
    house: House, one: Replica, side: Side
) -> None:
    """An account whose row cannot be moved is set aside with an item; the next one is created."""
    bad, good = [named(await request(side)) for _ in range(2)]

    def poisoned(unit: Unit) -> Exception | None:
        moves = [c.row for c in unit.changes if c.kind.name == "bridge.account.move"]
        sends = [row for row in moves if row[0] == bad and row[3] == "sent"]
        return LaneFailed("23514", "poison") if sends else None

    one.lane.fails = poisoned
    async with owning(side):
        await house.until(lambda: _is(house, good, "verified"))
        await house.until(lambda: _items(house))
    assert await house.items() == [("account-parked", bad)]
    assert (await account(house, bad))["due_at"] is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"client": "CL000000000000000009"}, "not-found"), ({"type": "raw"}, "no-group"),
        ({"currency": "USD"}, "no-group"), ({"leverage": 500}, "leverage-too-high"),
    ],
)  # fmt: skip
async def test_what_no_group_serves_is_refused_and_leaves_nothing(
    house: House, side: Side, changes: dict[str, object], code: str
) -> None:
    """A request that has no place is refused; no row and no key remains."""
    with pytest.raises(Refusal) as no:
        await request(side, "k1", **changes)
    assert no.value.code == code
    assert await house.value("SELECT count(*) FROM bridge.account") == 0
    assert await house.value("SELECT count(*) FROM gateway.idempotency") == 0


async def test_a_replica_left_behind_takes_no_account(house: House, side: Side) -> None:
    """Groups are rules: with another rulebook in force the request is refused."""
    await house.adopt(OTHER_BOOK)
    with pytest.raises(Refusal) as moved:
        await request(side)
    assert moved.value.code == "rulebook-moved"


async def _tried(side: Side, times: int) -> bool:
    return len(side.wire.created) >= times


async def _owned(side: Side) -> bool:
    return side.owns.held


async def _items(house: House) -> list[tuple[str, str]]:
    return await house.items()
