"""An API at work: the real application, lane, onboarding and approvals, and keys to call it with.

It knows how the parts are put together. It refuses to fake the database and Redis; the deposit's
flow is a fake, because it has tests of its own.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import aiohttp
import asyncpg
import msgspec
import pytest_asyncio
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from config.load import read_folder
from config.rulebook import (
    ApprovalPolicy,
    Brand,
    Entity,
    Plan,
    PlanRate,
    Role,
    Rulebook,
    SymbolGroup,
)
from config.settings import Control, RulebookPlace, Secret, Settings
from gateway import controlling
from gateway.cli import DEMO_FOLDER
from gateway.control import audit, keys
from gateway.control import rulebook as rulebooks
from gateway.control.idempotency import Answer, Idem, claimed
from gateway.control.permissions import CATALOGUE
from gateway.control.personal import Vault
from gateway.control.refusals import Refusal
from gateway.control.rules import Rules, settled
from gateway.flows.effects import DryRun
from gateway.flows.live import Live, LiveLimits
from gateway.flows.outbox import Emitter
from gateway.flows.partnering import Partnering
from gateway.flows.views import Amount, NewAccount, NewDeposit, RouteView
from gateway.flows.waking import Channel
from gateway.flows.webhooks_out import Subscriptions
from gateway.http.app import ROUTES, build
from gateway.http.limits import Limiter, Limits
from gateway.http.openapi import document
from gateway.http.parts import Parts, Readiness
from gateway.metrics import GatewayMetrics
from gateway.opening import Clocks
from gateway.people.visits import Visits
from ledger.ids import Ids
from ledger.journal import Numbers
from ledger.lane import Lane, LaneLimits
from ledger.units import Unit
from tests.integration.gateway.lived import lived, opened
from tests.support.rulebooks import written
from tests.support.servers import Cluster, Database, fresh_database

PEPPER = b"pepper of the tests"
# No ping and no look for want of word within a test's time: only what moves is told.
STREAMS = LiveLimits(poll_s=0.1, ping_s=1e6, write_s=0.5)
DESCRIBED = msgspec.json.decode(document(ROUTES, "0"))

# The sample broker's own roles, beside those that tests make for themselves: `as.compliance`.
SAMPLE_ROLES = tuple(
    msgspec.structs.replace(role, id=f"as.{role.id}") for role in read_folder(DEMO_FOLDER)[0].roles
)

_BOOK = Rulebook(
    hash="",
    entities=(
        Entity(id="fx-eu", name="FX EU", jurisdiction="CY", book=1, currency="EUR"),
        Entity(id="fx-int", name="FX INT", jurisdiction="SC", book=2, currency="USD"),
    ),
    brands=(
        Brand(id="northgate", entity="fx-eu", name="Northgate"),
        Brand(id="southbank", entity="fx-int", name="Southbank"),
        Brand(id="eastwind", entity="fx-int", name="Eastwind"),
    ),
    roles=(
        Role(id="everything", scopes=tuple(CATALOGUE)),
        Role(id="nothing", scopes=()),
        Role(
            id="engineer",
            scopes=(
                "break-glass:request",
                "break-glass:approve",
                "approvals:decide",
                "items:resolve",
            ),
        ),
        *SAMPLE_ROLES,
        Role(id="reader", scopes=("clients:read",)),
        Role(
            id="sales",
            scopes=(
                "clients:read",
                "attribution:request",
                "attribution:read",
                "approvals:read",
                "approvals:decide",
                "approvals:withdraw",
            ),
        ),
        Role(id="clerk", scopes=("approvals:decide", "approvals:read", "delegations:give")),
        Role(id="auditor", scopes=("audit:export", "approvals:decide")),
        Role(id="svc.portal", scopes=()),
        Role(id="masked", scopes=("clients:masked",)),
        Role(id="area", scopes=("audit:area", "clients:read", "approvals:read")),
        Role(id="looker", scopes=("partners:read", "partners:write")),
        Role(id="compliance", scopes=tuple(CATALOGUE)),
        Role(id="operations", scopes=tuple(set(CATALOGUE) - {"lifecycle:approve"})),
    ),
    symbol_groups=(SymbolGroup(id="fx-majors", symbols=("EURUSD", "GBPUSD")),),
    plans=tuple(
        Plan(id=id, currency=unit, rates=(PlanRate(group="fx-majors", per_lot=rate),))
        for id, unit, rate in (
            ("eu-partner", "EUR", "5"),
            ("eu-master", "EUR", "8"),
            ("int-partner", "USD", "5"),
        )
    ),
    approvals=(ApprovalPolicy(kind="client.move", needed=1, expiry_s=3600),),
)
BOOK = written(_BOOK)


class FakeDeposits:
    """A deposit's flow that answers at once and stores nothing but the key."""

    def __init__(self, lane: Lane) -> None:
        self.started: list[NewDeposit] = []
        self._lane = lane

    async def start(self, command: audit.Command, order: NewDeposit, idem: Idem) -> Answer:
        """Accept everything positive."""
        self.started.append(order)
        body = msgspec.json.encode({"id": "PY" + "0" * 18, "amount": order.amount})
        answer = Answer(202, body, "/v1/payments/PY" + "0" * 18, 1)
        await self._lane.submit(
            Unit((claimed(idem, "PY", answer.location, command.at, command.at, answer),))
        )
        return answer

    async def notice(self, psp: str, headers: Mapping[str, str], raw: bytes) -> str:
        """Refuse all that is not signed."""
        if "signature" not in headers:
            raise Refusal("webhook-forged", "the signature does not match")
        return "applied"

    async def explain(self, command: audit.Command, order: NewDeposit) -> RouteView:
        """An empty route."""
        return RouteView(rulebook="", rule="", refused="none", candidates=(), left_out=())


class FakeAccounts:
    """An account's flow that refuses."""

    async def request(self, command: audit.Command, order: NewAccount, idem: Idem) -> Answer:
        """No group maps anything."""
        raise Refusal("group-unmapped", "no group is mapped")


@dataclass
class Clock:
    """Time that tests move. `skew_s` is added to the real clock, so ids stay in order."""

    skew_s: float = 0.0

    def now(self) -> datetime:
        """UTC."""
        return datetime.fromtimestamp(time.time() + self.skew_s, UTC)

    def monotonic(self) -> float:
        """Seconds."""
        return time.monotonic() + self.skew_s


def declared(method: str, path: str, status: int) -> None:
    """Whatever a test sends: the status must stand in the description of its route."""
    for route in ROUTES:
        template = re.sub(r"\{\w+\}", "[^/?]+", route.path) + r"(\?.*)?"
        if route.method == method and re.fullmatch(template, path):
            responses = DESCRIBED["paths"][route.path][method.lower()]["responses"]
            assert str(status) in responses, (method, route.path, status)


@dataclass
class Api:
    """The application with a client, and ways to make credentials and requests."""

    client: TestClient
    parts: Parts
    pool: asyncpg.Pool
    clock: Clock
    lane: Lane
    deposits: FakeDeposits
    maker: keys.KeyMaker
    owner: asyncpg.Connection
    tokens: dict[tuple[str, ...], str] = field(default_factory=dict)
    count: int = 0

    async def key(
        self,
        role: str = "everything",
        owner: str = "shop",
        person: str = "",
        entities: tuple[str, ...] = ("*",),
    ) -> str:
        """A token for this wish, made once."""
        wish = keys.NewKey(owner, role, entities, person)
        name = (role, owner, person, *entities)
        if name not in self.tokens:
            by = audit.Command(keys.operator("root"), "test", "test", self.clock.now())
            async with self.pool.acquire() as conn, conn.transaction():
                _, self.tokens[name] = await self.maker.add(conn, by, wish)
        return self.tokens[name]

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        key: str | None = "",
        headers: Mapping[str, str] | None = None,
    ) -> aiohttp.ClientResponse:
        """One request; `key` None sends no Idempotency-Key, "" a fresh one."""
        sent = {"Authorization": f"Bearer {token or await self.key()}", **(headers or {})}
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else msgspec.json.encode(body)
            sent.setdefault("Content-Type", "application/json")
        if key is not None and method != "GET":
            self.count += 1
            sent["Idempotency-Key"] = key or f"key-{self.count}"
        answer = await self.client.request(method, path, data=data, headers=sent)
        declared(method, path, answer.status)
        return answer

    async def new_client(self, reference: str = "c-1", **fields: object) -> dict[str, object]:
        """A client made known; returns its view."""
        body = {
            "reference": reference,
            "brand": "northgate",
            "country": "DE",
            "currency": "EUR",
            **fields,
        }
        answer = await self.call("POST", "/v1/clients", body)
        assert answer.status == 201, await answer.text()
        return dict(await answer.json())

    async def new_partner(self, reference: str = "p-1", **fields: object) -> dict[str, Any]:
        """A partner made known; returns its view."""
        answer = await self.call("POST", "/v1/partners", {"reference": reference, **fields})
        assert answer.status == 201, await answer.text()
        return dict(await answer.json())

    async def ask_contract(
        self, partner: Mapping[str, object], *, token: str | None = None, key: str = "",
        **fields: object,
    ) -> aiohttp.ClientResponse:  # fmt: skip
        """Ask for a contract with the brand of the EU."""
        body = {"brand": "northgate", "currency": "EUR", "plan": "eu-partner", **fields}
        path = f"/v1/partners/{partner['id']}/contracts"
        return await self.call("POST", path, body, token=token, key=key)

    async def new_contract(self, reference: str = "p-1", **fields: object) -> dict[str, Any]:
        """A contract of a new partner; returns the contract's view."""
        answer = await self.ask_contract(await self.new_partner(reference), **fields)
        assert answer.status == 201, await answer.text()
        return dict(await answer.json())

    async def move(
        self, client: Mapping[str, object], to: str, *, token: str | None = None, **fields: object
    ) -> aiohttp.ClientResponse:
        """Ask for a move at the version the view shows."""
        body = {"to": to, "expected_version": client["version"], "reason": "test", **fields}
        return await self.call("POST", f"/v1/clients/{client['id']}/moves", body, token=token)

    async def walk(self, client: Mapping[str, object], *states: str) -> dict[str, object]:
        """Move through states that need nobody else; returns the last view."""
        view = dict(client)
        for state in states:
            answer = await self.move(view, state)
            assert answer.status == 200, await answer.text()
            view = dict(await answer.json())
        return view

    async def rows(self, sql: str, *arguments: object) -> list[asyncpg.Record]:
        """What the tables hold."""
        return list(await self.pool.fetch(sql, *arguments))


def _lanes(database: Database) -> tuple[Lane, Lane]:
    """The lane of most units, and the one of commands that move a book's inputs."""
    connect = partial(asyncpg.connect, database.daemon_dsn)
    one = LaneLimits(batch_max=1)
    return (
        Lane("tests", connect, Numbers(), time.monotonic),
        Lane("tests:commands", connect, Numbers(), time.monotonic, one),
    )


async def _in_force(pool: asyncpg.Pool, ids: Ids, clock: Clock, book: Rulebook) -> Rules:
    """Bring the rulebook into force, with its plans; returns what is decided with."""
    async with pool.acquire() as conn:
        start = audit.Command(keys.operator("root"), "start", "test", clock.now())
        await rulebooks.agree(conn, book, start, ids, adopt=False)
    return settled(book)


def _hub(
    pool: asyncpg.Pool, redis: Redis, limits: LiveLimits, clock: Clock, metrics: GatewayMetrics
) -> Live:
    """The hub of streams; a test that follows one runs it."""
    channel = Channel(redis, "tests", limits.poll_s)
    return Live(pool, channel, limits, clock.now, clock.monotonic, metrics)


def _asked_and_decided(deciding: controlling.Deciding) -> dict[str, Any]:
    """The rooms of approvals that handlers call, by the names that the parts have for them."""
    names = Parts.__dataclass_fields__.keys() & set(deciding.__struct_fields__)
    return {name: getattr(deciding, name) for name in names}


SETTINGS = Settings(
    rulebook=RulebookPlace(folder="."), control=Control(pepper=Secret(PEPPER.decode()))
)


@asynccontextmanager
async def serving(
    database: Database,
    pool: asyncpg.Pool,
    redis: Redis,
    limits: Limits | None = None,
    stream_limits: LiveLimits = STREAMS,
    settings: Settings = SETTINGS,
    book: Rulebook = BOOK,
) -> AsyncIterator[Api]:
    """Put the application together and serve it on a free loopback port."""
    clock = Clock()
    http = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
    clocks = Clocks(clock.now, clock.monotonic, clock.monotonic, os.urandom)
    ids = Ids(lambda: int((time.time() + clock.skew_s) * 1000), os.urandom)
    lane, command_lane = _lanes(database)
    rules = await _in_force(pool, ids, clock, book)
    emit = Emitter(clock.now)
    deciding = controlling.deciding(
        lane, pool, rules, ids, emit, clock.now, lambda _: (),
        Vault("5a" * 32, os.urandom),
    )  # fmt: skip
    deposits = FakeDeposits(lane)
    metrics = GatewayMetrics(CollectorRegistry())
    live = _hub(pool, redis, stream_limits, clock, metrics)

    async def refresh() -> None:
        """Nothing to ask."""

    parts = Parts(
        pool=pool, rules=rules, ids=ids, now=clock.now, monotonic=clock.monotonic,
        entrance=controlling.entrance(
            settings=settings, rules=rules, pool=pool, redis=redis, http=http, ids=ids,
            clocks=clocks,
        ),
        visits=Visits(pool, PEPPER, ids, os.urandom, clock.now, clock.monotonic),
        limiter=Limiter(redis, limits or Limits(10_000, 10_000), clock.monotonic),
        deposits=deposits, accounts=FakeAccounts(),
        partnering=Partnering(command_lane, pool, rules, ids, clock.now),
        effects=DryRun(pool),
        **_asked_and_decided(deciding),
        subscriptions=Subscriptions(lane, pool, ids, b"key", clock.now),
        live=live, sessions=lambda: (), readiness=lambda: Readiness("ready"),
        metrics=metrics, refresh_metrics=refresh, version="0",
    )  # fmt: skip
    writing = asyncio.gather(lane.run(), command_lane.run())
    try:
        async with TestClient(TestServer(build(parts))) as client:
            maker = keys.KeyMaker(rules.now.access, ids, os.urandom, PEPPER)
            owner = await database.connect(owner=True)
            yield Api(client, parts, pool, clock, lane, deposits, maker, owner)
    finally:
        await http.close()
        lane.close()
        command_lane.close()
        async with asyncio.timeout(10):
            await writing


def open_redis(url: str) -> Redis:
    """A client that gives up at once, as the daemon's does."""
    return Redis.from_url(
        url, socket_timeout=0.5, retry=Retry(NoBackoff(), 0), decode_responses=True
    )


@pytest_asyncio.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of an empty Redis."""
    client = open_redis(redis_url)
    try:
        yield client
    finally:
        await client.aclose()


@pytest_asyncio.fixture
async def api(database: Database, pool: asyncpg.Pool, redis: Redis) -> AsyncIterator[Api]:
    """The API with limits that no test reaches by accident."""
    async with serving(database, pool, redis) as serves:
        yield serves


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def built(migrated_cluster: Cluster) -> AsyncIterator[str]:
    """The name of a database in which a house has lived; copied by each test."""
    async with fresh_database(migrated_cluster) as database:
        async with opened(database) as house:
            await lived(house)
        yield database.name


@pytest_asyncio.fixture
async def owner(migrated_cluster: Cluster, built: str) -> AsyncIterator[asyncpg.Connection]:
    """The owner of a copy of that house."""
    async with fresh_database(migrated_cluster, template=built) as copy:
        yield await copy.connect(owner=True)


__all__ = ["Amount", "Api", "serving"]
