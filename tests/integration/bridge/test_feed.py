"""The feed on a live session with the simulated platform: what is dealt there is what is landed.

Knows the platform by its admin port and the ledger by what is landed. Refuses to time anything:
it waits until the two agree, within a limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from bridge.faults import AnswerLost
from bridge.feed import Feed
from bridge.mt5 import http
from bridge.mt5.deals import Unfit
from bridge.pool import Pool
from bridge.session import SessionState
from bridge.sim.books import User
from config.rulebook import Feed as Terms
from ledger.facts import Deal
from tests.integration.bridge.conftest import EUR, USD, Field, eventually, kept_alive, now

QUICK = {
    "masks": (r"real\*",), "poll_s": 0.02, "overlap_s": 3, "history_s": 600, "retry_max_s": 0.1,
    "sweep_every_s": 0.5, "sweep_s": 300,
}  # fmt: skip


class Books:
    """What was landed: the newest of each ticket, and the cursor."""

    def __init__(self) -> None:
        self.newest: dict[int, Deal] = {}
        self.handed = 0
        self.unfit: list[Unfit] = []
        self.cursor = b""

    async def opened(self) -> bytes:
        return self.cursor

    async def land(self, deals: Sequence[Deal], unfit: Sequence[Unfit], cursor: bytes) -> None:
        self.handed += len(deals)
        self.newest |= {deal.ticket: deal for deal in deals}
        self.unfit += unfit
        self.cursor = cursor


class Floor:
    """The trading part of the platform's admin port."""

    def __init__(self, client: aiohttp.ClientSession) -> None:
        self._client = client

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        async with self._client.request(method, path, json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def one(self, **told: object) -> int:
        """One deal of a story; its ticket."""
        made = await self.ask("POST", "/deals/one", {"symbol": "EURUSD", "login": 100_001} | told)
        return int(made["ticket"])

    async def edit(self, ticket: int, **changed: object) -> None:
        await self.ask("POST", "/deals/edit", {"ticket": ticket} | changed)

    async def dealt(self, total: int, **terms: object) -> None:
        """Deal quickly until so many are made."""
        asked = {"seed": 7, "per_s": 5_000, "total": total} | terms
        state = await self.ask("POST", "/deals", asked)
        while state["running"]:
            await asyncio.sleep(0.02)
            state = await self.ask("GET", "/deals")

    async def deals(self) -> dict[int, dict[str, Any]]:
        """Every deal of the platform as it is now."""
        seen: dict[int, dict[str, Any]] = {}
        while page := (await self.ask("GET", f"/deals?after={max(seen, default=0)}"))["deals"]:
            seen |= {deal["ticket"]: deal for deal in page}
        return seen


@pytest.fixture
async def floor(field: Field) -> AsyncIterator[Floor]:
    """A platform with three accounts that can deal."""
    for login, group in ((100_001, EUR), (100_002, EUR), (200_001, USD)):
        field.platform.books.record(
            User(
                login=login, group=group.group, rights=355, leverage=30, name="n", id="",
                comment="", registration=0,
            )
        )  # fmt: skip
    async with aiohttp.ClientSession(field.admin_url) as client:
        yield Floor(client)


@asynccontextmanager
async def following(pool: Pool, books: Books, **terms: Any) -> AsyncIterator[Feed]:
    """A feed that runs for the length of a block; what ends it fails the test."""
    feed = Feed(
        sessions=pool, terms=Terms(**(QUICK | terms)), opened=books.opened, land=books.land, now=now
    )
    task = asyncio.create_task(feed.run())
    try:
        yield feed
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def agreed(floor: Floor, books: Books, within_s: float = 30.0) -> dict[int, dict[str, Any]]:
    """Wait until what was landed is what the platform shows, field by field."""
    there: dict[int, dict[str, Any]] = {}
    try:
        async with asyncio.timeout(within_s):
            while not there or _landed(books) != _shown(there):
                await asyncio.sleep(0.05)
                there = await floor.deals()
    except TimeoutError:
        assert _landed(books) == _shown(there)
    return there


def _landed(books: Books) -> dict[int, tuple[object, ...]]:
    return {
        deal.ticket: (
            deal.login, deal.symbol, deal.action, deal.entry, deal.volume, deal.closed,
            deal.profit, deal.commission, deal.swap, deal.fee, deal.comment, deal.server_ms,
            deal.at,
        )
        for deal in books.newest.values()
    }  # fmt: skip


def _shown(there: dict[int, dict[str, Any]]) -> dict[int, tuple[object, ...]]:
    return {
        ticket: (
            each["login"], each["symbol"], each["action"], each["entry"], each["volume_ext"],
            each["closed_ext"], each["profit_minor"], each["commission_minor"],
            each["storage_minor"], each["fee_minor"], each["comment"], each["time_msc"],
            datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=each["utc_ms"]),
        )
        for ticket, each in there.items()
    }  # fmt: skip


async def test_what_is_dealt_is_landed_with_edits_and_late_deals(floor: Floor, pool: Pool) -> None:
    """Every kind of deal arrives with the platform's own figures, whatever it went through."""
    books = Books()
    async with following(pool, books):
        await floor.dealt(3_000, edits=0.05, late=0.05, balances=0.02, reversals=0.02)
        there = await agreed(floor, books)
    assert len(there) >= 3_000
    assert {deal["entry"] for deal in there.values()} == {0, 1, 2, 3}
    assert any(deal["edits"] for deal in there.values())
    assert books.handed < 2 * len(there)
    assert not books.unfit


async def test_an_edit_and_a_back_dated_deal_are_found_by_the_sweep(
    floor: Floor, pool: Pool
) -> None:
    """What changes behind the cursor is read again, and only what changed is handed on."""
    books = Books()
    async with following(pool, books):
        first = await floor.one(lots="0.25", profit="10.00", entry=1)
        await eventually(lambda: first in books.newest)
        late = await floor.one(lots="1", late_s=120)
        await floor.edit(first, profit="12.00", commission="-3.00")
        await agreed(floor, books)
    assert (books.newest[first].profit, books.newest[first].flags) == (1200, 2)
    assert books.newest[late].volume == 100_000_000
    assert books.handed == 3


async def test_an_absurd_row_is_set_beside_its_neighbours(floor: Floor, pool: Pool) -> None:
    """Volumes that contradict each other make one row unfit, and no other."""
    books = Books()
    async with following(pool, books):
        odd = await floor.one(lots="1", raw={"Volume": "1"})
        sane = await floor.one(lots="1")
        await eventually(lambda: bool(books.unfit) and sane in books.newest)
    assert [(each.ticket, "contradict" in each.why) for each in books.unfit] == [(odd, True)]
    assert odd not in books.newest


async def test_nothing_is_lost_while_the_platform_misbehaves(
    field: Field, floor: Floor, pool: Pool
) -> None:
    """Dropped answers, refusals, ended sessions and cut connections cost time, never a deal."""
    books = Books()
    async with following(pool, books):
        for round_ in range(3):
            field.script("deal/get_batch", "drop_after", times=3)
            field.script("deal/get_batch", "retcode_before", code=12, times=2)
            field.script("deal/get_batch", "expire")
            dealing = asyncio.create_task(floor.dealt(300, seed=round_, edits=0.05))
            await eventually(lambda: bool(books.newest))
            field.platform.cut()
            await dealing
        await agreed(floor, books)


async def test_an_outage_is_caught_up_in_parts_that_the_session_can_hold(
    field: Field, floor: Floor
) -> None:
    """Answers beyond the session's limit are asked for in parts, and no dial counts as failed."""
    books = Books()
    async with kept_alive(field.new_pool(answer_bytes_max=700_000)) as pool:
        await eventually(lambda: pool.status().state is SessionState.LIVE)
        async with following(pool, books):
            await floor.dealt(1, logins=[100_001])
            await agreed(floor, books)
        dials = field.observer.states.count(SessionState.DIALLING)
        await floor.dealt(2_000, per_s=300, edits=0, late=0)
        failed = pool.status().retries  # a call given up with its feed takes its session along
        async with following(pool, books, sweep_every_s=1000.0, overlap_s=10) as feed:
            await agreed(floor, books)
            await eventually(lambda: not feed.status().last_error)
            assert pool.status().retries <= failed
    assert field.observer.states.count(SessionState.DIALLING) > dials + 1
    assert field.platform.received["deal/get_batch"] > 5


async def test_an_answer_that_is_too_large_is_not_asked_for_again(
    field: Field, floor: Floor
) -> None:
    """A read is repeated after a lost answer, but this one would be as large once more."""
    await floor.dealt(100)
    async with kept_alive(field.new_pool(answer_bytes_max=20_000)) as pool:
        with pytest.raises(AnswerLost, match="too-large"):
            await pool.call(http.deal_batch("*", 0, 2**33))
        assert field.platform.received["deal/get_batch"] == 1
        await eventually(lambda: pool.status().state is SessionState.LIVE)
        assert pool.status().retries == 0


async def test_the_next_owner_goes_on_where_the_last_one_stood(floor: Floor, pool: Pool) -> None:
    """Deals made while nobody read are read, and what the cursor covers is not landed again."""
    books = Books()
    await floor.dealt(200, edits=0, late=0)
    async with following(pool, books):
        await agreed(floor, books)
    await floor.dealt(200, seed=8, edits=0, late=0)
    async with following(pool, books) as feed:
        there = await agreed(floor, books)
        await eventually(lambda: (feed.status().lag_s or 9) < 5)
    assert len(there) >= 400


@pytest.mark.parametrize("offset_s", [3600, 10_800])
async def test_the_clock_may_be_moved_while_deals_are_made(
    field: Field, floor: Floor, offset_s: int
) -> None:
    """An hour that comes twice, or not at all, hides no deal and moves none."""
    books = Books()
    await floor.ask("POST", "/clock", {"offset_s": 7200})
    async with kept_alive(field.new_pool(ping_s=0.2)) as pool:
        await eventually(lambda: pool.status().state is SessionState.LIVE)
        async with following(pool, books, daylight="none"):
            await floor.dealt(300, late=0, edits=0.02)
            await agreed(floor, books)
            await floor.ask("POST", "/clock", {"offset_s": offset_s})
            await floor.dealt(300, seed=8, late=0, edits=0.02)
            await eventually(lambda: pool.status().offset_s == offset_s)
            await agreed(floor, books)
            await floor.dealt(300, seed=9, late=0)
            await agreed(floor, books)
