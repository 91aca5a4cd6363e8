"""The stream bench: 2,000 readers of partners' streams, from the commit to the reader's socket.

Knows 200 partners of five levels whose deals are accrued by the pipeline of the daemon, one batch a
round, and told by the route and hub of the daemon. After each round the very bytes of its events
are written once more, to as many streams of the same application by nothing but aiohttp's own
`write`: the limit. The readers are another process. Refuses to use a socket, a key or a table that
the daemon does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Final, cast

import asyncpg
import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from gateway.control import access, audit, keys
from gateway.control.access import Caller
from gateway.flows import live_events
from gateway.flows.live import Live, LiveLimits
from gateway.flows.waking import Channel
from gateway.http.app import ROUTES
from gateway.http.auth import Keys
from gateway.http.limits import Limiter, Limits
from gateway.http.parts import Parts
from gateway.http.serving import Serving
from gateway.metrics import GatewayMetrics
from gateway.people.visits import Visits
from ledger.connections import connect_writer
from ledger.deals import LandedDeal
from ledger.facts import Deal
from ledger.ids import Ids
from ledger.journal import Book, Numbers, open_books
from ledger.rebates import inputs, reads
from ledger.rebates.inputs import Contract, Inputs
from ledger.rebates.pipeline import Pipeline
from ledger.rebates.writer import Committed
from loadtests.accrual import BEGIN, BOOK, FEED, LEVELS, plans
from loadtests.caller import quantile
from loadtests.figures import Figure
from loadtests.ground import Base, Ground
from loadtests.house import rulebook
from loadtests.readers import Arrivals, Order

PATH: Final = "/v1/partners/{id}/stream"
READERS: Final = 2_000
REST_S: Final = 0.4  # from a round to the next: all that is told has long come
WARM: Final = 5  # rounds that are not counted
TARGET: Final = 1.5
PEPPER: Final = b"pepper of the bench"
LIMIT_NAME: Final = "bare aiohttp, same bytes"


CONTRACTS: Final = 1  # of each partner; an event's id is the sum of versions and of contracts


class Round(msgspec.Struct, frozen=True):
    """When the batch was committed and the bare broadcast began; `id` is that of the events."""

    id: int
    committed: float
    broadcast: float


class Bare:
    """The limit: streams that are written to one after the other, and nothing else."""

    def __init__(self) -> None:
        self._open: dict[str, list[web.StreamResponse]] = defaultdict(list)
        self._never = asyncio.Event()

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """GET /bare/{id}."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"event: balances\nid: 0\ndata: {}\n\n")
        self._open[request.match_info["id"]].append(response)
        await self._never.wait()
        return response

    async def broadcast(self, texts: Mapping[str, bytes]) -> None:
        """Write to each stream what its partner is told."""
        for partner, text in texts.items():
            for response in self._open[partner]:
                await response.write(text)

    async def end(self, _: web.Application) -> None:
        """Let all streams end."""
        self._never.set()


def partners() -> dict[str, Contract]:
    """A tree of five levels, a contract a partner, by partner."""
    since = BEGIN - timedelta(days=90)
    ids = {
        (level, n): f"{level}{n:017}"
        for level, (count, _) in enumerate(LEVELS, 1)
        for n in range(count)
    }
    found = {}
    for (level, n), id in ids.items():
        above = ids.get((level + 1, n % LEVELS[level][0])) if level < len(LEVELS) else None
        parents = ((since, f"CT{above}"),) if above else ()
        found[f"PA{id}"] = Contract(f"CT{id}", "USD", parents, ((since, f"level-{level}"),))
    return found


class House:
    """The stream's part of a daemon: its route, its hub and the accrual that it tells of."""

    def __init__(self, pool: asyncpg.Pool, live: Live, bare: Bare, url: str, token: str) -> None:
        self._pool = pool
        self._live = live
        self._bare = bare
        self.url = url
        self.token = token
        self.contracts = partners()
        self._deals = 0
        self._committed = 0.0

    def told(self, batch: Committed) -> None:
        """A batch is committed."""
        self._committed = time.perf_counter()
        self._live.told(batch)

    async def round(self, number: int, pipeline: Pipeline) -> Round:
        """One batch that moves every contract, then the same bytes by the bare way."""
        await pipeline.accrue(FEED, self._deal(datetime.now(UTC)))
        await pipeline.drain()
        await asyncio.sleep(REST_S)
        texts = await self._texts()
        began = time.perf_counter()
        await self._bare.broadcast(texts)
        await asyncio.sleep(REST_S)
        return Round(number + CONTRACTS, self._committed, began)

    def _deal(self, at: datetime) -> list[LandedDeal]:
        """A deal for each partner that clients came through; those above earn by it, too."""
        found = []
        for login in range(1, LEVELS[0][0] + 1):
            self._deals += 1
            deal = Deal(
                ticket=self._deals, phase=0, login=login, position=self._deals, action=1, entry=1,
                reason=0, symbol="EURUSD", volume=10**9, closed=10**9, price=Decimal("1.10000"),
                digits=2, profit=1234, commission=0, swap=0, fee=0, flags=0, comment="", at=at,
                server_ms=0,
            )  # fmt: skip
            found.append(LandedDeal(self._deals, 1, deal, self._deals))
        return found

    async def _texts(self) -> dict[str, bytes]:
        """What each partner was told in this round."""
        today = datetime.now(UTC).date()
        wanted = [(BOOK, each.id) for each in self.contracts.values()]
        async with self._pool.acquire() as conn:
            held = await reads.contract_balances(conn, wanted, today)
        return {
            partner: live_events.event(partner, today, [each]).text
            for partner, each in zip(self.contracts, held, strict=True)
        }


class KeysAlone:
    """The one way in of a bench: by a key."""

    def __init__(self, known: Keys) -> None:
        self._known = known

    async def caller(self, request: web.Request, *, reads: bool) -> Caller:
        """Who is calling."""
        return await self._known.caller(request.headers.get("Authorization"))


@contextlib.asynccontextmanager
async def house(base: Base, redis_url: str) -> AsyncIterator[House]:
    """Serve the streams on a free port, with the hub running."""
    async with contextlib.AsyncExitStack() as opened:
        pool = await opened.enter_async_context(asyncpg.create_pool(base.daemon_dsn, max_size=16))
        redis = Redis.from_url(redis_url, decode_responses=True)
        opened.push_async_callback(redis.aclose)
        now, metrics = partial(datetime.now, UTC), GatewayMetrics(CollectorRegistry())
        ids = Ids(lambda: time.time_ns() // 1_000_000, os.urandom)
        granted, _ = access.compile(rulebook())
        live = Live(pool, Channel(redis, "bench", 1.0), LiveLimits(), now, time.monotonic, metrics)
        parts = SimpleNamespace(
            pool=pool, entrance=KeysAlone(Keys(pool, lambda: granted, PEPPER, time.monotonic)),
            visits=Visits(pool, PEPPER, ids, os.urandom, now, time.monotonic),
            limiter=Limiter(redis, Limits(100_000, 100_000), time.monotonic), ids=ids, now=now,
            monotonic=time.monotonic, metrics=metrics, live=live,
        )  # fmt: skip
        [route] = [each for each in ROUTES if each.path == PATH]
        bare, application = Bare(), web.Application()
        application.router.add_get(PATH, Serving(route, cast("Parts", parts)).answer)
        application.router.add_get("/bare/{id}", bare.stream)
        application.on_shutdown.append(bare.end)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=5)
        await runner.setup()
        opened.push_async_callback(runner.cleanup)
        opened.callback(live.close)
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        host, port = runner.addresses[0][:2]
        running = asyncio.create_task(live.run())
        opened.callback(running.cancel)
        wish = keys.NewKey("bench", "svc.caller")
        command = audit.Command(keys.operator("bench"), "bench", "bench", now())
        async with pool.acquire() as conn, conn.transaction():
            maker = keys.KeyMaker(granted, ids, os.urandom, PEPPER)
            _, token = await maker.add(conn, command, wish)
        yield House(pool, live, bare, f"http://{host}:{port}", token)


@contextlib.asynccontextmanager
async def accruing(base: Base, stands: House) -> AsyncIterator[Pipeline]:
    """The book's pipeline, its plans published, with partners that can be asked for."""
    owner = await asyncpg.connect(base.owner_dsn)
    writer = await connect_writer(base.daemon_dsn)
    try:
        await owner.executemany(
            "INSERT INTO gateway.partner"
            " VALUES ($1, 1, $1, 'bench', $1, 'ib', 'active', '', now())",
            [(partner,) for partner in stands.contracts],
        )
        await owner.executemany(
            "INSERT INTO gateway.contract (id, key, partner_id, brand, entity, book, currency,"
            " code, inputs, correlation, created)"
            " VALUES ($1, $1, $2, 'bench', 'fx-int', $3, 'USD', $1, 0, '', now())",
            [(each.id, partner, BOOK) for partner, each in stands.contracts.items()],
        )
        await open_books(writer, [Book(BOOK, "bench", "USD")])
        async with writer.transaction():
            await inputs.publish(writer, [BOOK], plans())
        versions = {
            id: tuple(msgspec.structs.replace(each, since=BEGIN) for each in found)
            for id, found in (await inputs.plan_versions(writer)).items()
        }
        contracts = {each.id: each for each in stands.contracts.values()}
        of = Inputs(await inputs.version(writer, BOOK), contracts, versions)
        pipeline = await Pipeline.open(writer, Numbers(), BOOK, 1, of, time.monotonic, stands.told)
        nearest = list(contracts)[: LEVELS[0][0]]
        pipeline.engine.learn(FEED, {n: ((BEGIN, id),) for n, id in enumerate(nearest, 1)})
        yield pipeline
    finally:
        await writer.close()
        await owner.close()


async def measure(ground: Ground, *, full: bool) -> list[Figure]:
    """Open all streams, run the rounds, and return the figures."""
    rounds = 100 if full else 30
    async with (
        ground.base() as base,
        house(base, ground.redis_url) as stands,
        accruing(base, stands) as pipeline,
    ):
        process = await reading(_order(stands))
        played = [await stands.round(n, pipeline) for n in range(1, WARM + rounds + 1)]
        said, _ = await process.communicate(b"")  # its standard input ends
        arrivals = msgspec.json.decode(said, type=Arrivals)
    return figures(played[WARM:], arrivals)


def _order(stands: House) -> Order:
    """Every partner's stream, and the bare one beside it."""
    return Order(
        url=stands.url, token=stands.token, each=READERS // len(stands.contracts),
        paths={
            "live": tuple(PATH.format(id=partner) for partner in stands.contracts),
            "bare": tuple(f"/bare/{partner}" for partner in stands.contracts),
        },
    )  # fmt: skip


async def reading(order: Order) -> asyncio.subprocess.Process:
    """The readers, as a process of their own, when each of their streams is open."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadtests.readers", cwd=Path(__file__).parent.parent, limit=2**28,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(msgspec.json.encode(order) + b"\n")
    said = msgspec.json.decode(await process.stdout.readline())
    assert said == {"open": order.each * sum(map(len, order.paths.values()))}, said
    return process


def figures(rounds: Sequence[Round], arrivals: Arrivals) -> list[Figure]:
    """Waits from commit to reader beside those of the bare broadcast, medians over the rounds."""
    waits: dict[str, list[list[float]]] = {"live": [], "bare": []}
    for each in rounds:
        for name, began in (("live", each.committed), ("bare", each.broadcast)):
            came = arrivals.came[name].get(each.id, [])
            if len(came) != READERS:
                raise RuntimeError(f"round {each.id}: {len(came)} of {READERS} by {name}")
            if min(came) < began:
                raise RuntimeError(f"round {each.id}: an event by {name} came before its cause")
            waits[name].append(sorted((at - began) * 1000 for at in came))
    found = []
    for name, part in (("stream", 0.99), ("stream.p50", 0.50)):
        ours, bare = [median(quantile(of, part) for of in waits[way]) for way in ("live", "bare")]
        found.append(
            Figure(name, ours, "ms", bare, LIMIT_NAME, TARGET if part == 0.99 else None, most=True)
        )
    worst = [quantile(sorted(chain.from_iterable(waits[way])), 0.99) for way in ("live", "bare")]
    found.append(Figure("stream.p99-of-all-rounds", worst[0], "ms", worst[1], LIMIT_NAME))
    return found
