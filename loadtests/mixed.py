"""Everything at once: deposits and deals, each at a quarter of its own peak, and 500 readers.

One daemon as it is run. Its provider and its platform answer at once; its callers, its readers and
they are processes of their own. First both peaks are measured: deposits in a closed loop, and deals
that have piled up while the platform was closed. Then each is played alone at a quarter of its
peak, and both together, in turns. Knows what a figure alone is: the same load in the same minutes,
without the other. Refuses to probe the loop from inside: it reads the daemon's own histogram.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

import aiohttp
import asyncpg
import msgspec

from gateway.demo import partners
from gateway.demo.people import settle_in
from loadtests import deposit, house
from loadtests.caller import Order, Played, quantile
from loadtests.dealer import Dealer, Ready
from loadtests.figures import Figure
from loadtests.ground import Ground
from loadtests.load import between, part_of
from loadtests.readers import Arrivals
from loadtests.readers import Order as Reading
from loadtests.stream import PATH, reading

CLIENTS: Final = 64  # who deposit
CALLERS: Final = 200
PARTNERS: Final = 100
EACH: Final = 5  # readers of each partner's stream
TRADERS: Final = 400
AT_ONCE: Final = 24  # clients settled in beside each other
PART: Final = 0.25  # of its peak
LAG_MS: Final = 20.0
DEPOSIT_RATIO: Final = 3.0
LIMIT_S: Final = 60.0
POLL_S: Final = 0.02
SHUT_S: Final = 5.0  # while the platform is closed deals pile up
PILE_S: Final = 4.0  # they are made in so many seconds
LAG: Final = re.compile(r'^brokerd_event_loop_lag_seconds_bucket\{le="(.*)"\} (\S+)$', re.MULTILINE)
LANDED: Final = "SELECT coalesce(sum(landed), 0)::bigint FROM ledger.feed_book"
ACCRUED: Final = "SELECT coalesce(sum(reached), 0)::bigint FROM ledger.accrual_position"
# From the deal on the platform to the batch of its lines.
WAITED: Final = """
SELECT extract(epoch FROM b.at - d.at)::float8 * 1000
  FROM ledger.accrual_batch b
  JOIN ledger.deal d
    ON d.book_id = b.book_id AND d.feed = b.feed AND d.no BETWEEN b.first_deal AND b.last_deal
 WHERE b.at >= to_timestamp($1) AND d.at BETWEEN to_timestamp($1) AND to_timestamp($2)
"""


class Size(msgspec.Struct, frozen=True):
    """Rounds, seconds of one before and while it counts, deals that pile up, seconds of a peak."""

    rounds: int
    warm_s: float
    seconds: float
    pile: int
    peak_s: float


QUICK: Final = Size(rounds=3, warm_s=2.0, seconds=8.0, pile=24_000, peak_s=4.0)
FULL: Final = Size(rounds=5, warm_s=3.0, seconds=20.0, pile=60_000, peak_s=10.0)


class Peaks(msgspec.Struct, frozen=True):
    """What the daemon does in a second when it does nothing else."""

    deposits: float
    deals: float


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What one round showed, p99 in ms; nothing of what was not played.

    busy     processor seconds of the daemon's loop in a second
    starved  and seconds that it was ready to run while others had the processors
    """

    lag: float
    busy: float
    starved: float
    deposit: float | None = None
    deal: float | None = None
    stream: float | None = None


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon, whoever plays with it, and a connection that looks at the books."""

    order: Order
    reading: Reading
    dealer: Dealer
    logins: tuple[int, ...]
    pid: int
    owner: asyncpg.Connection
    size: Size


async def measure(ground: Ground, *, full: bool) -> list[Figure]:
    """Both peaks, then rounds of each alone and of both; the figures are medians of the rounds."""
    size = FULL if full else QUICK
    alone: list[Round] = []
    together: list[Round] = []
    async with scene(ground, size) as stage:
        peaks = Peaks(await _peak_of_deposits(stage), await _peak_of_deals(stage))
        for _ in range(size.rounds):
            alone.append(await _round(stage, peaks.deposits * PART, 0))
            alone.append(await _round(stage, 0, peaks.deals * PART))
            together.append(await _round(stage, peaks.deposits * PART, peaks.deals * PART))
    return figures(peaks, alone, together)


def figures(peaks: Peaks, alone: Sequence[Round], together: Sequence[Round]) -> list[Figure]:
    """The lag beside its limit, each p99 beside the same alone, and the loads that were played."""

    def typical(of: Sequence[Round], name: str) -> float:
        return median(at for each in of if (at := getattr(each, name)) is not None)

    def beside(name: str, target: float | None = None) -> Figure:
        ours, limit = typical(together, name), typical(alone, name)
        return Figure(f"mixed.{name}", ours, "ms p99", limit, "alone", target, most=True)

    lag, least = typical(together, "lag"), typical(alone, "lag")
    return [
        Figure("mixed", lag, "ms p99 loop lag", LAG_MS, "ms wanted", 1.0, most=True),
        Figure("mixed.lag", lag, "ms p99", least, "one alone"),
        beside("deposit", DEPOSIT_RATIO),
        beside("deal"),
        beside("stream"),
        Figure("mixed.busy", typical(together, "busy"), "s/s the loop ran"),
        Figure("mixed.starved", typical(together, "starved"), "s/s it waited for a processor"),
        Figure("mixed.deposits", peaks.deposits * PART, "requests/s", peaks.deposits, "peak"),
        Figure("mixed.deals", peaks.deals * PART, "deals/s", peaks.deals, "peak"),
    ]


# --- what is played -----------------------------------------------------------------------------


async def _peak_of_deposits(stage: Scene) -> float:
    """Deposits a second in a closed loop."""
    played = await _deposits(stage, 0.0, stage.size.peak_s)
    await deposit.drained(stage.owner)
    return played.per_s


async def _deposits(stage: Scene, per_s: float, seconds: float) -> Played:
    order = msgspec.structs.replace(
        stage.order, per_s=per_s, warm_s=stage.size.warm_s, seconds=seconds
    )
    played = await deposit.play(order)
    if set(played.statuses) != {"201"}:
        raise RuntimeError(f"not every deposit was answered 201: {played.statuses}")
    return played


async def _peak_of_deals(stage: Scene) -> float:
    """Deals a second from the platform's answers into partners' balances, with many waiting.

    From the first that is landed after the platform has opened again to the last one's lines.
    """
    wanted = await stage.owner.fetchval(LANDED) + stage.size.pile
    async with stage.dealer.shut():
        await asyncio.sleep(POLL_S * 10)  # what was under way is landed
        ready = await stage.dealer.deal(stage.logins, stage.size.pile, PILE_S)
        await asyncio.sleep(max(0.0, ready.end - time.time()) + SHUT_S - PILE_S)
    before = await stage.owner.fetchval(LANDED)
    async with asyncio.timeout(LIMIT_S):
        while (first := await stage.owner.fetchval(LANDED)) == before:
            await asyncio.sleep(POLL_S)
        began = time.perf_counter()
        await _accrued(stage, wanted)
    return (wanted - first) / (time.perf_counter() - began)


async def _accrued(stage: Scene, wanted: int) -> None:
    """Wait until so many deals are accrued."""
    async with asyncio.timeout(LIMIT_S):
        while (reached := await stage.owner.fetchval(ACCRUED)) < wanted:
            await asyncio.sleep(POLL_S)
    assert reached == wanted, (reached, wanted)


async def _round(stage: Scene, deposits_per_s: float, deals_per_s: float) -> Round:
    """Deposits, deals with their readers, or both."""
    size = stage.size
    async with AsyncExitStack() as stack:
        readers = None
        if deals_per_s:
            readers = await reading(stage.reading)
            stack.callback(_ended, readers)
            before = await stage.owner.fetchval(LANDED)
            deals = int(deals_per_s * (size.warm_s + size.seconds))
            ready = await stage.dealer.deal(stage.logins, deals, size.warm_s + size.seconds)
            await asyncio.sleep(max(0.0, ready.begin - time.time()))
        playing = asyncio.create_task(_play(stage, deposits_per_s))
        await asyncio.sleep(size.warm_s)
        lag, time_of = await _lag(stage.order.url), _turns(stage.pid)
        await asyncio.sleep(size.seconds)
        busy, starved = [
            (now - then) / size.seconds
            for then, now in zip(time_of, _turns(stage.pid), strict=True)
        ]
        lag = between({"": lag}, {"": await _lag(stage.order.url)})[""]
        played = await playing
        await deposit.drained(stage.owner)
        if readers is None:
            return Round(lag=part_of(lag, 0.99), busy=busy, starved=starved, deposit=played)
        await _accrued(stage, before + deals)
        said, _ = await readers.communicate(b"")
        ages = sorted(msgspec.json.decode(said, type=Arrivals).ages)
    counted = Ready(ready.begin + size.warm_s, ready.end)
    return Round(
        lag=part_of(lag, 0.99), busy=busy, starved=starved, deposit=played,
        deal=await _waited(stage, counted), stream=quantile(ages, 0.99) * 1000,
    )  # fmt: skip


async def _play(stage: Scene, per_s: float) -> float | None:
    """The p99 of deposits at this pace; None where there are none."""
    if not per_s:
        return None
    return (await _deposits(stage, per_s, stage.size.seconds)).p99_ms


async def _lag(url: str) -> dict[float, float]:
    """The daemon's histogram of its loop's lag: upper end in seconds -> how many up to it."""
    async with aiohttp.ClientSession() as http, http.get(f"{url}/metrics") as answer:
        answer.raise_for_status()
        return {float(end): float(count) for end, count in LAG.findall(await answer.text())}


def _turns(pid: int) -> tuple[float, float]:
    """Seconds that a process's main thread ran so far, and that it waited for a processor."""
    ran, waited, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(ran) / 1e9, int(waited) / 1e9


async def _waited(stage: Scene, counted: Ready) -> float:
    """The p99 of these seconds' deals from the platform to their lines, ms."""
    rows = await stage.owner.fetch(WAITED, counted.begin, counted.end)
    return quantile(sorted(row[0] for row in rows), 0.99)


def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()


# --- who plays ----------------------------------------------------------------------------------


@asynccontextmanager
async def scene(ground: Ground, size: Size) -> AsyncIterator[Scene]:
    """The daemon between its peers, with partners, their traders and clients who deposit."""
    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(ground.base())
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="brokerd-bench-")))
        owner = await asyncpg.connect(base.owner_dsn)
        stack.push_async_callback(owner.close)
        provider = await stack.enter_async_context(house.script("peers", ["psp"]))
        book, dealer = house.rulebook(), Dealer()
        secrets = house.secrets_in(folder, base, ground.redis_url)
        home = await stack.enter_async_context(
            house.opened(
                folder, secrets, {psp.id: provider.url for psp in book.psps}, house.free_port(),
                CLIENTS, dealer.started,
            )
        )  # fmt: skip
        planned = partners.tree(book, Random(7), PARTNERS)
        known = await partners.contract_all(home.desk.portal, planned)
        people = partners.traders(planned, Random(7), TRADERS)
        traders = await settle_in(home.desk, people, AT_ONCE)
        await owner.execute("ANALYZE")
        yield Scene(
            order=Order(
                url=home.url, token=home.token, clients=home.clients, callers=CALLERS,
                warm_s=size.warm_s, seconds=size.seconds,
            ),
            reading=Reading(
                url=home.url, token=home.token, each=EACH,
                paths={"live": tuple(PATH.format(id=each.partner) for each in known)},
            ),
            dealer=dealer, logins=tuple(each.login for each in traders),
            pid=home.daemon.process.pid, owner=owner, size=size,
        )  # fmt: skip
