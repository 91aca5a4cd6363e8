"""A feed that cannot go on: it stands with an item, and payments of the same server go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import pytest

from bridge.feed import Feed
from gateway.flows import following
from gateway.flows.following import Following
from gateway.flows.platform import Platform
from ledger.deals import Fenced
from ledger.lane import LaneFull
from tests.integration.flows import platform as servers
from tests.integration.flows.conftest import WAIT_S, House, Replica, running
from tests.integration.flows.test_landing import Side, account_with, rows, waiting
from tests.unit.bridge.feeding import World
from tests.unit.ledger.values import deal

SERVER = "mt5-live"


class Script:
    """Work that fails as it is told, then lasts."""

    def __init__(self, *fails: Exception) -> None:
        self.fails = list(fails)
        self.lasting = asyncio.Event()

    async def run(self) -> None:
        """As `Feed.run`."""
        if self.fails:
            raise self.fails.pop(0)
        self.lasting.set()
        await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody waits long here."""
    monkeypatch.setattr(following, "AGAIN_S", 0.01)
    monkeypatch.setattr(following, "STOPPED_S", 0.1)
    return


def kept(
    house: House, one: Replica, work: Callable[[], Awaitable[None]], name: str = "feed",
    side: Side | None = None,
) -> Following:  # fmt: skip
    """The work, followed by the owner."""
    owns = side.owns if side is not None else one.ownership("platform:nobody")
    if side is None:
        owns._held.set()
    return Following(
        server=SERVER, name=name, work=work, ownership=owns, lane=one.lane, ids=house.ids,
        now=house.clock.now,
    )  # fmt: skip


async def stopped(house: House) -> list[tuple[str, str]]:
    """Items of what stands: subject and reason."""
    sql = "SELECT subject, reason FROM gateway.item WHERE kind = 'feed-stopped' ORDER BY id"
    return [tuple(row) for row in await house.rows(sql)]


def taken() -> asyncpg.UniqueViolationError:
    """A row that is there already, against all we know."""
    return asyncpg.UniqueViolationError("duplicate key")


async def test_a_failure_or_two_are_tried_again_without_a_word(house: House, one: Replica) -> None:
    """What passes by itself is nobody's work."""
    work = Script(taken(), KeyError("x"), taken(), taken())
    it = kept(house, one, work.run)
    async with running(it.run), asyncio.timeout(WAIT_S):
        await work.lasting.wait()
    assert await stopped(house) == []
    assert it.trouble() == ""


async def test_what_fails_again_and_again_is_said_and_tried_on(
    house: House, one: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One item, and trouble as long as it stands; it is tried all the same, and is well again."""
    # A captured log travels between the processes of a test run, which have no word for this text.
    monkeypatch.setattr(logging.getLogger("gateway.following"), "disabled", True)
    work = Script(*[ValueError("\ud800 a\0b")] * 8)
    it = kept(house, one, work.run)
    async with running(it.run):
        await house.until(lambda: stopped(house))
        assert it.trouble() == "ValueError: ? ab"
        await work.lasting.wait()

        async def well() -> bool:
            return not it.trouble()

        await house.until(well)
    assert await stopped(house) == [(f"{SERVER}:feed", "ValueError: ? ab")]


async def test_an_item_that_cannot_be_written_now_is_written_later(
    house: House, one: Replica
) -> None:
    """A lane that is full ends nothing either."""
    work = Script(*[taken()] * 50)
    one.lane.full = 3
    async with running(kept(house, one, work.run).run):
        await house.until(lambda: stopped(house))
    assert one.lane.full == 0


async def test_a_database_that_is_away_is_not_counted(house: House, one: Replica) -> None:
    """That it is gone is said elsewhere."""
    work = Script(*[ConnectionRefusedError(), LaneFull("full")] * 10)
    async with running(kept(house, one, work.run).run), asyncio.timeout(WAIT_S):
        await work.lasting.wait()
    assert await stopped(house) == []


async def test_a_newer_owner_ends_it(house: House, one: Replica) -> None:
    """To be overtaken is not a failure: whoever runs it gives the server up."""
    with pytest.raises(Fenced):
        await kept(house, one, Script(taken(), Fenced(SERVER)).run).run()


async def test_a_place_that_cannot_be_read_stops_the_feed_and_nothing_else(
    house: House, one: Replica
) -> None:
    """A newer release stored its cursor: the feed stands, the owner keeps the server and works its
    rows, and once the place is right the feed goes on from it.
    """
    deals = Side(house, one)
    await deals.own()
    owner = await house.database.connect(owner=True)
    await owner.execute("""UPDATE ledger.feed_cursor SET cursor = '{"next": "x"}'""")
    platform, wire = World(), servers.Wire()
    sessions: Any = platform
    feed = Feed(
        sessions=sessions, terms=platform.terms, opened=deals.landings.opened,
        land=deals.landings.land, now=house.clock.now,
    )  # fmt: skip
    it = kept(house, one, feed.run, side=deals)
    side = servers.Side(house, one, wire)
    work = Platform(
        sessions=wire, accounts=side.makes, credits=side.credits, pool=one.door,
        case=one.deposits.case, now=house.clock.now, also={"feed": it.run},
    )  # fmt: skip
    async with running(work.run):
        (found,) = await house.until(lambda: stopped(house))
        assert found[0] == f"{SERVER}:feed"
        assert "Expected `int | null`" in it.trouble()
        assert deals.owns.held

        await owner.execute("UPDATE ledger.feed_cursor SET cursor = '{}'")

        async def reads() -> bool:
            return not it.trouble()

        await house.until(reads)
    deals.landings._hang_up()


async def test_a_waiting_row_that_cannot_be_read_stops_only_what_waits(
    house: House, one: Replica
) -> None:
    """New deals are landed all the same; the row put right, what waits is tried again."""
    side = Side(house, one)
    await side.own()
    first = deal(1, at=house.clock.now(), login=7001)
    await side.land(first)
    owner = await house.database.connect(owner=True)
    (body,) = (await house.rows("SELECT body::text FROM ledger.deal_parked"))[0]
    await owner.execute("""UPDATE ledger.deal_parked SET body = '{"detail": 7}'""")
    await account_with(house, one, 7001)

    async with running(kept(house, one, side.landings.run, "parked", side).run):
        await house.until(lambda: stopped(house))
        assert (await side.land(deal(2, at=first.at, login=7001))).new == 1
        await owner.execute("UPDATE ledger.deal_parked SET body = $1::jsonb", body)
        await house.until(lambda: _two(house))
    assert await waiting(house) == []
    assert (await stopped(house))[0][0] == f"{SERVER}:parked"
    side.landings._hang_up()


async def _two(house: House) -> bool:
    return len(await rows(house)) == 2
