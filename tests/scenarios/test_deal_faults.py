"""Stories of deals whose daemon dies, stops, or loses servers and platform at any step: each deal
pays once, what is told stands in the books, and the whole agrees with a plain computation.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from random import Random
from typing import Final
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
import pytest_asyncio
from msgspec.structs import replace

from gateway.servers import Servers
from ledger.facts import Deal
from tests.support.earning import CLIENTS, Earning, working
from tests.support.house import QUICK, Addresses, open_house, until
from tests.support.market import Market, open_market
from tests.support.pair import (
    AWAKE_S,
    GOODBYE_BYTES,
    PLATFORM,
    TAKEN_OVER_WITHIN_S,
    Pair,
    open_pair,
    within,
)
from tests.support.proxy import Fault, Kind, Proxy, TcpUpstream, UnixUpstream
from tests.support.servers import Cluster, Database, fresh_database, kill, open_folder
from tests.unit.ledger.values import deal

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

SOCKET: Final = ".s.PGSQL.5432"
BURST: Final = 60
ROWS_MAX: Final = 500  # a look aims at so many deals
WINDOW_ROWS: Final = 2 * ROWS_MAX  # and may get twice as many where they are denser than before
RULES: Final = QUICK | {
    "broker.toml": {**QUICK["broker.toml"], "history_s": f"14400\nrows_max = {ROWS_MAX}"}
}
WAITING: Final = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
BATCHES: Final = "SELECT book_id, batch, epoch FROM ledger.accrual_batch ORDER BY book_id, batch"
FEED_EPOCH: Final = "SELECT epoch FROM ledger.feed_cursor"
BOOKS: Final = ("book:1", "book:2")
"""What a daemon owns beside the platform."""


class Ground:
    """A market whose daemon reaches PostgreSQL and the platform through wires that can be cut."""

    def __init__(self, market: Market, postgres: Proxy, way: Proxy) -> None:
        self.market = market
        self.house = market.house
        self.postgres = postgres
        self.way = way
        self.seeds = count(100)

    async def burst(self, deals: int = BURST) -> None:
        """Some deals at once."""
        await self.market.deals(10_000, deals, seed=next(self.seeds))
        await self.market.dealt()

    @asynccontextmanager
    async def held(self, *locks: str) -> AsyncIterator[asyncpg.Connection]:
        """While the block lasts nobody gets past these tables."""
        async with self.house.database(owner=True) as conn, conn.transaction():
            for lock in locks:
                await conn.execute(f"LOCK TABLE ledger.{lock} MODE")
            yield conn

    async def waits(self, writers: int = 1) -> None:
        """Wait until so many writers stand before what is held."""

        async def there() -> bool:
            async with self.house.database(owner=True) as conn:
                return bool(await conn.fetchval(WAITING) >= writers)

        await until(there, "a writer that waits")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground(
    migrated_cluster: Cluster, redis_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Ground]:
    """A market on wires; at the end of its stories every book agrees."""
    async with AsyncExitStack() as opened:
        database = await opened.enter_async_context(fresh_database(migrated_cluster))
        folder = open_folder()
        opened.callback(shutil.rmtree, folder)
        real = Path(parse_qs(urlsplit(database.daemon_dsn).query)["host"][0])
        postgres = Proxy(UnixUpstream(real / SOCKET), listen_on=folder / SOCKET)
        await opened.enter_async_context(postgres)
        dsn = database.daemon_dsn.replace(str(real), str(folder))
        addresses = Addresses(dsn, database.owner_dsn, redis_server)
        home = tmp_path_factory.mktemp("house")
        house = await opened.enter_async_context(open_house(addresses, home, RULES))
        host, _, port = house.platform.peer.url.removeprefix("https://").partition(":")
        way = await opened.enter_async_context(Proxy(TcpUpstream(host, int(port))))
        await house.daemon.stop()
        address = f"https://{way.host}:{way.port}"
        house.daemon = await house.another_daemon("on-a-wire", address, port=house.daemon.wish.port)
        market = await opened.enter_async_context(open_market(house))
        yield Ground(market, postgres, way)
        await market.agrees(our_times=True)
        assert await house.disagreements() == []


# --- killed at each step ------------------------------------------------------------------------

LANDING: Final = (
    "feed_cursor IN EXCLUSIVE",  # before its first statement
    "feed_book IN EXCLUSIVE",  # before numbers are taken
    "deal IN SHARE",  # before the deals are written
    "feed_cursor IN SHARE",  # before the cursor moves
)
ACCRUAL: Final = (
    "inputs IN EXCLUSIVE",  # the deals are landed, nothing else has happened
    "rebate_line IN SHARE",  # before the lines
    "balance IN EXCLUSIVE",  # before balances are locked
    "entry IN SHARE",  # before the entry
    "posting IN SHARE",  # before its postings
    "accrual_batch IN SHARE",  # before batch, sums, remainders and position
)


@pytest.mark.parametrize("step", LANDING)
async def test_killed_at_a_step_of_landing_deals_are_landed_again(
    ground: Ground, step: str
) -> None:
    """Killed anywhere in a landing nothing of it is in the books; the next life lands it once."""
    market = ground.market
    before = await market.counts()
    async with ground.held(step):
        await ground.burst()
        await ground.waits()
        await ground.house.daemon.kill()
    assert await market.counts() == before
    await ground.house.daemon.restart()
    await market.agrees()
    assert (await market.counts()).deals >= before.deals + BURST


@pytest.mark.parametrize("step", ACCRUAL)
async def test_killed_at_a_step_of_accrual_landed_deals_pay_once(ground: Ground, step: str) -> None:
    """Killed anywhere in a batch nothing of it is in the books; the next life accrues it once."""
    market = ground.market
    before = await market.counts()
    async with ground.held(step):
        await ground.burst()
        await ground.waits()
        await ground.house.daemon.kill()
    after = await market.counts()
    assert after.deals > before.deals
    assert replace(after, deals=before.deals) == before
    await ground.house.daemon.restart()
    await market.agrees()


# --- cut at each step ---------------------------------------------------------------------------

DEALS, LINES, COMMIT = b'COPY "ledger"."deal"', b'COPY "ledger"."rebate_line"', b"COMMIT"


@pytest.mark.parametrize("what", [DEALS, LINES], ids=["landing", "accrual"])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Kind.DROP_REQUEST, ()), (Kind.DROP_ANSWER, ()), (Kind.DROP_REQUEST, (COMMIT,)),
        (Kind.DROP_ANSWER, (COMMIT,)),
    ],
    ids=["before the rows", "amid the rows", "before the commit", "committed and never told"],
)  # fmt: skip
async def test_a_connection_that_breaks_at_a_step_repeats_nothing(
    ground: Ground, what: bytes, kind: Kind, words: tuple[bytes, ...]
) -> None:
    """Whether a transaction was committed is read, never guessed, also where no answer came."""
    ground.postgres.fault = Fault(kind=kind, words=(what, *words), times=1)
    before = ground.postgres.strikes
    await ground.burst()

    async def struck() -> bool:
        return ground.postgres.strikes > before

    await until(struck, "the connection to break")
    await ground.market.agrees()
    ground.postgres.heal()


# --- stopped ------------------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="module")
async def pair(ground: Ground) -> AsyncIterator[Pair]:
    """Two daemons of this story's own."""
    async with open_pair(ground.house) as opened:
        yield opened


async def test_an_owner_that_wakes_up_writes_no_deal_and_no_line(
    ground: Ground, pair: Pair
) -> None:
    """Stopped amid a landing and a batch, followed by the other, it books nothing when it wakes."""
    market, house = ground.market, ground.house
    owner = await pair.owner()
    other = pair.other(owner)
    holder, before = await pair.held()
    async with market.dealing(300, seed=next(ground.seeds)):
        async with ground.held("rebate_line IN SHARE") as conn:
            await ground.waits()
            await conn.execute("LOCK TABLE ledger.deal IN SHARE MODE")
            await ground.waits(2)
            pair.daemons[owner].send(signal.SIGSTOP)
        house.daemon = pair.daemons[other]

        async def taken() -> bool:
            now = [await pair.held(name) for name in (PLATFORM, *BOOKS)]
            return all(by != holder for by, _ in now)

        await within(TAKEN_OVER_WITHIN_S, taken)
        assert await pair.epoch() > before
        epochs = {name: await pair.held(name) for name in (PLATFORM, *BOOKS)}
        some = await market.counts()

        async def goes_on() -> bool:
            return (await market.counts()).lines > some.lines

        await until(goes_on, "lines by the new owner")
        sent = pair.ways[owner].request_bytes
        pair.daemons[owner].send(signal.SIGCONT)
        await asyncio.sleep(AWAKE_S)
    await market.agrees()
    assert {name: await pair.held(name) for name in (PLATFORM, *BOOKS)} == epochs
    assert pair.ways[owner].request_bytes - sent <= GOODBYE_BYTES
    async with house.database() as conn:
        batches = [tuple(row) for row in await conn.fetch(BATCHES)]
        assert await conn.fetchval(FEED_EPOCH) == epochs[PLATFORM][1]
    for book, name in enumerate(BOOKS, start=1):
        mine = [epoch for of, _, epoch in batches if of == book]
        assert mine == sorted(mine)  # no batch of the old owner after one of the new
        assert mine[-1] == epochs[name][1]


# --- any order ----------------------------------------------------------------------------------

DEALT: Final = 240
LINE_NETS: Final = """
SELECT d.ticket, a.owner, r.component, r.kind, sum(r.amount)
  FROM ledger.rebate_line r
  JOIN ledger.account a ON (a.book_id, a.id) = (r.book_id, r.account_id)
  JOIN ledger.deal d ON (d.book_id, d.feed, d.no) = (r.book_id, r.feed, r.concerned_no)
 GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
"""
ROUNDED: Final = """
SELECT a.owner, r.component, sum(r.amount)
  FROM ledger.rebate_line r JOIN ledger.account a ON (a.book_id, a.id) = (r.book_id, r.account_id)
 WHERE r.concerned_no = 0 GROUP BY 1, 2 HAVING sum(r.amount) <> 0 ORDER BY 1, 2
"""


def a_day_of_deals() -> list[Deal]:
    """Deals of one day that leave much to be rounded."""
    chance = Random(5)
    lots = (10**6, 3 * 10**6, 12_345_678, 10**8)
    return [
        deal(
            number, login=chance.choice(tuple(CLIENTS)), after_s=number,
            symbol=chance.choice(("EURUSD", "XAUUSD")), closed=chance.choice(lots),
        )
        for number in range(1, DEALT + 1)
    ]  # fmt: skip


async def test_any_order_of_arrival_inside_a_day_nets_the_same(migrated_cluster: Cluster) -> None:
    """However deals of a day arrive and are cut into landings, each pays each contract alike."""
    nets = []
    for seed in range(4):
        chance = Random(seed)
        arriving = a_day_of_deals()
        if seed:
            chance.shuffle(arriving)
        async with fresh_database(migrated_cluster) as database:
            nets.append(await netted(database, arriving, chance))
    assert len(nets[0][0]) > DEALT
    assert nets[1:] == nets[:1] * 3


async def netted(
    database: Database, arriving: list[Deal], chance: Random
) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    """Land the deals in parts while they are accrued; what each pays whom, and the rounding."""
    async with asyncpg.create_pool(database.daemon_dsn, min_size=1, max_size=6) as pool:
        earning = await Earning(database, pool).open()
        earning.deals_max = 32
        async with working(earning.owned()):
            while arriving:
                size = chance.randint(1, 60)
                part, arriving = arriving[:size], arriving[size:]
                await earning.land(*part)
            await earning.until_caught_up()
        return await earning.rows(LINE_NETS), await earning.rows(ROUNDED)


# --- away for two hours -------------------------------------------------------------------------

HOURS: Final = timedelta(hours=2)
STEPS: Final = 40
DEALS_A_STEP: Final = 300
REACHED_BACK_S: Final = 10  # more than a look reaches back behind the last one


async def test_two_hours_without_the_platform_are_caught_up_a_window_at_a_time(
    ground: Ground,
) -> None:
    """Thousands of deals of two hours are asked for piece by piece: no answer of the platform ever
    holds more than a window's worth of them. And no screen ever goes back.

    The platform's clock stays two hours ahead: this is the last story on this ground.
    """
    market, house = ground.market, ground.house
    async with market.watched() as screen:
        await ground.burst()
        await market.agrees()
        ground.way.fault = Fault(kind=Kind.REFUSE)
        ground.way.cut_all()
        began = datetime.now(UTC)
        for step in range(1, STEPS + 1):
            now = began + HOURS * step / STEPS
            await house.platform.post("/clock", {"now": now.isoformat()})
            wish = {"seed": next(ground.seeds), "late": 1.0}
            await market.deals(10_000, DEALS_A_STEP, **wish)
            await market.dealt()
        unknown = await market.counts()
        ground.way.heal()
        earned = await market.agrees(our_times=True)
        assert await market.astray(screen) == []
    assert earned
    assert (await market.counts()).deals >= unknown.deals + STEPS * DEALS_A_STEP
    place = began.timestamp() + (await house.platform.get("/clock"))["offset_s"] - REACHED_BACK_S
    windows = (await house.platform.get("/books"))["windows"]
    held = [rows for since, _, rows in windows if since >= place]
    assert sum(held) >= STEPS * DEALS_A_STEP
    assert max(held) <= WINDOW_ROWS
    shown = {it.contract for it in screen.shown if it.version}
    assert shown == {each.contract for each in market.partners}


# --- anything killed at any time ----------------------------------------------------------------

RUN: Final = 50_000
PER_S: Final = 3_000
KILLS: Final = ("daemon", "daemon", "daemon", "postgres", "redis")
PAUSE_MAX_S: Final = 5.0
Kill = Callable[[str], object]


@asynccontextmanager
async def open_ground(durable: Servers, folder: Path) -> AsyncIterator[Market]:
    """A market on servers that may be killed."""
    assert durable.postgres is not None
    assert durable.redis is not None
    addresses = Addresses(
        durable.postgres.daemon_dsn, durable.postgres.owner_dsn, durable.redis.url
    )
    async with open_house(addresses, folder) as house, open_market(house) as market:
        yield market


async def battered(market: Market, durable: Servers, chance: Random) -> dict[str, int]:
    """Many deals, and all that can be killed killed at moments of chance; what was earned.

    Every partner watches: whatever a stream said stood in the books, and its last word stands.
    """
    async with market.watched() as screen:
        await market.deals(PER_S, RUN)
        victims = list(KILLS)
        chance.shuffle(victims)
        for victim in victims:
            await asyncio.sleep(chance.random() * PAUSE_MAX_S)
            if victim == "daemon":
                await market.house.daemon.kill()
                await market.house.daemon.restart()
            else:
                await kill(durable, victim)
        await market.dealt()
        earned = await market.agrees()
        await market.ends(screen)
    assert await market.astray(screen) == []
    assert {it.contract for it in screen.shown} == {each.contract for each in market.partners}
    assert await market.made() >= RUN
    return earned


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", [1, 2])
async def test_kills_at_random_moments_of_many_deals_pay_each_once(
    durable: Servers, tmp_path: Path, seed: int
) -> None:
    """Daemon, PostgreSQL and Redis killed amid 50,000 deals: nets as plainly computed."""
    async with open_ground(durable, tmp_path) as market:
        await battered(market, durable, Random(seed))
        assert await market.house.disagreements() == []
