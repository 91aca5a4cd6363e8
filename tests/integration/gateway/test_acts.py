"""Acts on a real database: numbered without a gap, judged before they are done, never slipped by.

Knows how to be several people with several credentials at once. Refuses to test the conflicts
themselves (`tests/unit/gateway/control/test_duties.py`).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import permutations

import asyncpg
import pytest
import pytest_asyncio

from gateway.control.access import Caller, Held, Reach
from gateway.control.acts import TRIES_MAX, Deed, acted, overtaken, write
from gateway.control.audit import Command, audited
from gateway.control.duties import ACTIONS, CONFLICTS, SUBJECT_WINDOW, Act, Nature, judge
from gateway.control.refusals import Refusal
from ledger.connections import connect_writer
from ledger.ids import Ids
from ledger.journal import Numbers
from ledger.lane import Lane
from ledger.units import Change, Done, Left, Unit
from tests.support.servers import Database

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SEED = 34
KYC, PAYOUT = Deed("kyc.approve", "CL1", "AP1"), Deed("withdrawal.approve", "CL1", "AP2")


def command(person: str, *, key: str = "KY1", at: datetime = NOW, behalf: str = "") -> Command:
    """What somebody asks for with one of their credentials."""
    held = (Held(f"GR-{key}", "finance", frozenset(), Reach()),)
    caller = Caller(key_id=key, person=person, owner=person, grants=held)
    return Command(caller, "because", "CR1", at, behalf)


class House:
    """Two replicas over one database."""

    def __init__(self, database: Database, pool: asyncpg.Pool, lanes: Sequence[Lane]) -> None:
        self.database = database
        self.pool = pool
        self.lanes = lanes
        chance = random.Random(SEED)
        self.ids = Ids(lambda: time.time_ns() // 1_000_000, chance.randbytes)

    async def judged(self, by: Command, *deeds: Deed, giver: str = "") -> tuple[Change, ...]:
        """The rows of what somebody is about to do."""
        async with self.pool.acquire() as conn:
            return await acted(conn, by, *deeds, giver=giver)

    async def do(self, by: Command, *deeds: Deed, giver: str = "", replica: int = 0) -> str:
        """Do it as a room does: judge, hand in, judge anew when overtaken; a refusal is audited."""
        for _ in range(TRIES_MAX):
            try:
                changes = await self.judged(by, *deeds, giver=giver)
            except Refusal as no:
                tried = {"refused": no.code, **no.facts}
                row = audited(by, "item.resolve", deeds[0].subject, self.ids.new("AU"), after=tried)
                assert isinstance(await self.lanes[replica].submit(Unit((row,))), Done)
                return no.code
            left = await self.lanes[replica].submit(Unit(changes))
            if isinstance(left, Done):
                return ""
            assert overtaken(left), left
        return "version-conflict"

    async def acts(self) -> list[Act]:
        """All that was recorded, in the order of time."""
        rows = await self.pool.fetch(
            "SELECT person, action, subject, case_id, at, actor FROM gateway.act "
            "WHERE place = subject ORDER BY at, person, no"
        )
        return [Act(*row) for row in rows]


@asynccontextmanager
async def running(database: Database, name: str) -> AsyncIterator[Lane]:
    """A replica's lane while the block lasts."""
    lane = Lane(name, lambda: connect_writer(database.daemon_dsn), Numbers(), time.monotonic)
    work = asyncio.create_task(lane.run())
    try:
        yield lane
    finally:
        lane.close()
        await work


@pytest_asyncio.fixture
async def house(database: Database, pool: asyncpg.Pool) -> AsyncIterator[House]:
    """Two replicas at work."""
    async with AsyncExitStack() as opened:
        lanes = [await opened.enter_async_context(running(database, name)) for name in "ab"]
        yield House(database, pool, lanes)


async def test_two_credentials_of_one_person_do_not_slip_by_each_other(house: House) -> None:
    """Both read a free history, whichever comes second is left out, and judged anew is refused."""
    one, two = command("ann", key="KY1"), command("ann", key="KY2")
    first, second = await house.judged(one, KYC), await house.judged(two, PAYOUT)
    answers: tuple[Done | Left, ...] = await asyncio.gather(
        house.lanes[0].submit(Unit(first)), house.lanes[1].submit(Unit(second))
    )
    assert sorted(type(it).__name__ for it in answers) == ["Done", "Left"]
    (left,) = (it for it in answers if isinstance(it, Left))
    assert overtaken(left)
    again = (one, KYC) if left is answers[0] else (two, PAYOUT)
    with pytest.raises(Refusal) as caught:
        await house.judged(*again)
    assert caught.value.code == "duty-conflict"
    assert caught.value.facts["conflict"] == 2
    assert len(await house.acts()) == 1


async def test_a_transaction_of_its_own_does_not_slip_by_either(house: House) -> None:
    """A command without the lane waits for the other writer of its person and is refused."""
    first = await house.judged(command("ann"), KYC)
    second = await house.judged(command("ann", key="KY2"), PAYOUT)
    async with house.pool.acquire() as one, house.pool.acquire() as two:
        async with one.transaction():
            await write(one, first)
            waiting = asyncio.create_task(_written(two, second))
            await _blocked(house)
        assert await waiting == "version-conflict"
    assert [act.action for act in await house.acts()] == [KYC.action]


async def _written(conn: asyncpg.Connection, changes: Sequence[Change]) -> str:
    try:
        async with conn.transaction():
            await write(conn, changes)
    except Refusal as no:
        return no.code
    return ""


async def _blocked(house: House) -> None:
    """Wait until somebody waits for another's transaction."""
    sql = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    async with asyncio.timeout(30):
        while not await house.pool.fetchval(sql):
            await asyncio.sleep(0.01)


async def test_what_a_service_or_a_delegate_does_counts_for_the_person(house: House) -> None:
    """On behalf of somebody, and by a right that somebody lent: their own acts from then on."""
    assert await house.do(command("svc", behalf="ann"), KYC) == ""
    assert await house.do(command("ann"), PAYOUT) == "duty-conflict"
    assert await house.do(command("bob"), PAYOUT, giver="ann") == "duty-conflict"
    asked = Deed("profile.request", "CL2", "AP3")
    assert await house.do(command("ann"), asked) == ""
    agreed = Deed("profile.approve", "CL2", "AP3")
    with pytest.raises(Refusal) as caught:
        await house.judged(command("bob"), agreed, giver="ann")
    assert caught.value.facts["conflict"] == 34
    assert await house.do(command("bob"), agreed, giver="cem") == ""
    assert await house.do(command("cem"), Deed("profile.request", "CL2", "AP3")) == "duty-conflict"
    done = [(act.person, act.action, act.actor) for act in await house.acts()]
    assert ("ann", "kyc.approve", "svc") in done
    assert ("svc", "kyc.approve", "svc") in done
    assert ("cem", "delegate.approve", "bob") in done


async def test_another_role_or_time_changes_nothing_before_the_window_is_over(house: House) -> None:
    """Whatever grant the person holds by then; ninety days later the subject is free."""
    assert await house.do(command("ann"), KYC) == ""
    late = command("ann", key="KY9", at=NOW + SUBJECT_WINDOW)
    assert await house.do(late, PAYOUT) == "duty-conflict"
    later = command("ann", at=NOW + SUBJECT_WINDOW + timedelta(seconds=1))
    assert await house.do(later, PAYOUT) == ""
    own = command("bob", at=NOW - 10 * SUBJECT_WINDOW)
    assert await house.do(own, Deed("account.own", "CL1")) == ""
    assert await house.do(command("bob"), PAYOUT) == "duty-conflict"


async def test_deeds_of_one_command_are_judged_against_each_other(house: House) -> None:
    """One command does not do at once what two may not."""
    assert await house.do(command("ann"), KYC, PAYOUT) == "duty-conflict"
    assert await house.do(command("ann"), KYC, Deed("kyc.approve", "CL2", "AP1")) == ""
    assert len(await house.acts()) == 2


async def test_acts_are_facts(house: House) -> None:
    """Nobody changes or removes an act, not even the owner of the tables."""
    await house.do(command("ann"), KYC)
    owner = await house.database.connect(owner=True)
    for sql in (
        "UPDATE gateway.act SET person = 'bob'", "DELETE FROM gateway.act", "TRUNCATE gateway.act",
    ):  # fmt: skip
        with pytest.raises(asyncpg.RestrictViolationError):
            await owner.execute(sql)


# --- nobody ever holds a forbidden pair ---------------------------------------------------------

PEOPLE = ("ann", "bob", "cem")


def wish(chance: random.Random) -> tuple[Command, list[Deed], str]:
    """Anybody, with any credential, for anybody, by anybody's right, does anything."""
    person, key = chance.choice([*PEOPLE, "svc"]), f"KY{chance.randrange(3)}"
    behalf = chance.choice(["", "", chance.choice(PEOPLE)])
    giver = chance.choice(["", "", chance.choice(PEOPLE)])
    at = NOW + timedelta(days=chance.choice((0, 1, 30)))
    row = CONFLICTS[chance.choice([2, 3, 4, 11, 15, 16, 22, 23, 34])]
    actions = sorted(row.first | row.second)
    deeds = [
        Deed(chance.choice(actions), chance.choice(["CL1", "CL2"]), chance.choice(["", "AP1"]))
        for _ in range(chance.choice((1, 1, 2)))
    ]
    return command(person, key=key, at=at, behalf=behalf), deeds, giver


async def test_nobody_ever_holds_a_forbidden_pair(house: House) -> None:
    """Random people with several credentials act at once over two replicas, for and by each other:
    no recorded act forms a pair with another, and each refusal is in the audit.
    """
    chance = random.Random(SEED)
    wishes = [wish(chance) for _ in range(300)]
    said: list[str] = []
    for start in range(0, len(wishes), 10):  # ten at a time are under way
        said += await asyncio.gather(
            *(
                house.do(by, *deeds, giver=giver, replica=n % 2)
                for n, (by, deeds, giver) in enumerate(wishes[start : start + 10])
            )
        )
    acts = await house.acts()
    for one, other in permutations(acts, 2):
        if one.person == other.person:
            hit = judge([other], one.person, one.action, one.subject, one.case, one.at)
            stands = ACTIONS[other.action].nature is Nature.STAND and other.at > one.at
            assert hit is None or stands, (one, other)
    numbers = await house.pool.fetch(
        "SELECT count(*) AS acts, max(no) AS last FROM gateway.act GROUP BY person, place"
    )
    assert [row["acts"] for row in numbers] == [row["last"] for row in numbers]
    refused = await house.pool.fetchval(
        "SELECT count(*) FROM gateway.audit WHERE after ->> 'refused' = 'duty-conflict'"
    )
    assert refused == said.count("duty-conflict")
    assert min(said.count("duty-conflict"), said.count("")) > 50, "both kinds of answer are tried"


async def test_two_acts_of_one_case_meet_whatever_their_subjects(house: House) -> None:
    """A case is a place of its own: what is done to it under two subjects does not slip by."""
    one = await house.judged(command("ann"), Deed("withdrawal.approve", "CL1", "PY1"))
    two = await house.judged(command("ann"), Deed("recon.match", "acme", "PY1"))
    assert isinstance(await house.lanes[0].submit(Unit(one)), Done)
    left = await house.lanes[1].submit(Unit(two))
    assert isinstance(left, Left)
    assert overtaken(left)
    assert await house.do(command("ann"), Deed("recon.match", "acme", "PY1")) == "duty-conflict"
    assert await house.do(command("ann"), Deed("recon.match", "acme", "PY2")) == ""


async def test_one_person_works_on_many_subjects_at_once(house: House) -> None:
    """Acts on different subjects never meet: a checker with a full inbox is not told to repeat."""
    changes = [
        await house.judged(command("ann"), Deed("kyc.approve", f"CL{n}", f"AP{n}"))
        for n in range(20)
    ]
    answers = await asyncio.gather(*(house.lanes[0].submit(Unit(it)) for it in changes))
    assert all(isinstance(answer, Done) for answer in answers)
