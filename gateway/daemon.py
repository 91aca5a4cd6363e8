"""The composition root: the one place where objects meet.

Knows what is opened, in which order, and what is closed before what. Refuses to decide anything:
it calls constructors and waits.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from random import SystemRandom
from typing import Any, Final, TypeVar

import aiohttp
import asyncpg
import uvloop
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from bridge.credit import Crediting
from bridge.feed import Feed
from bridge.pool import Pool
from bridge.provision import Provisioner, new_passwords
from bridge.session import SessionStatus
from config.findings import Finding
from config.log import event, set_up
from config.rulebook import Entity, Rulebook
from config.rulebook import Feed as FeedTerms
from config.rulebook import Platform as PlatformRules
from config.settings import Settings, peers
from gateway import controlling, gauges, migrate
from gateway.control import idempotency, keys, versions
from gateway.control import rulebook as rulebooks
from gateway.control.audit import Command
from gateway.control.personal import Vault
from gateway.control.rules import Compiled, Rules, compiled
from gateway.flows.accruing import Accruing
from gateway.flows.attributions import of_logins
from gateway.flows.crediting import Crediter, Limits
from gateway.flows.deposit import Deposits
from gateway.flows.effects import DryRun
from gateway.flows.faults import away
from gateway.flows.following import followed
from gateway.flows.landing import Landings
from gateway.flows.live import Live, LiveLimits
from gateway.flows.outbox import Emitter, Outbox
from gateway.flows.partnering import Partnering
from gateway.flows.platform import Platform, session_trouble
from gateway.flows.provisioning import AccountMaker, Accounts
from gateway.flows.refunds import Refunds
from gateway.flows.resolving import Resolver
from gateway.flows.settlement import Composer
from gateway.flows.waking import Channel
from gateway.flows.webhooks_out import Subscriptions, WebhooksOut
from gateway.http import app
from gateway.http.limits import Limiter
from gateway.http.limits import Limits as RequestLimits
from gateway.http.parts import Parts
from gateway.lifecycle import Lifecycle, collect_seldom
from gateway.metrics import CountedLane, GatewayMetrics, watch_loop
from gateway.opening import (
    Addresses,
    Clocks,
    listening,
    open_pool,
    open_redis,
    open_servers,
    platform_server,
    real_clocks,
)
from gateway.owners import LIMIT_S, Ownership
from gateway.people.attribution import changed_since
from gateway.people.partners import contracts_since
from gateway.people.visits import Visits
from gateway.seal import Seal
from gateway.servers import ServersError
from ledger.connections import connect_writer
from ledger.ids import Ids
from ledger.journal import Numbers
from ledger.lane import Lane, LaneLimits
from router.attempts import Attempts, terminals
from router.health import Breakers
from router.psp.connector import load_connectors
from router.psp.transport import Transport, open_transport
from router.taxonomy import load as load_taxonomy

log = logging.getLogger("gateway.daemon")

T = TypeVar("T")
CANNOT_AGREE: Final = (versions.NotAgreed, rulebooks.RulebookDiffers)
GAUGES_READ_S: Final = 2.0  # a scraper waits no longer than a few seconds for the rest
PURGE_EVERY_S: Final = 600.0


class CannotStart(Exception):
    """The process refuses to start; the message says what to do. Findings name file and line."""

    def __init__(self, message: str, findings: tuple[Finding, ...] = ()) -> None:
        super().__init__(message)
        self.findings = findings


class Unreachable(Exception):
    """The database did not answer at the start; its own error is the cause."""


async def serve(
    settings: Settings,
    book: Rulebook,
    *,
    adopt: bool = False,
    fresh: bool = False,
    migrates: bool = False,
    announce: Callable[[str, Addresses], Awaitable[None]] | None = None,
    life: Lifecycle | None = None,
) -> None:
    """One life of the daemon, until a signal or `life.stop`.

    migrates  bring the schema up to date first (the demo does; a broker runs `brokerd migrate`)
    announce  told the address once requests are taken
    Raises CannotStart, RulebookDiffers, RulebookRefused, and whatever bug ends a service.
    """
    life = life or Lifecycle()
    with life.signals():
        async with open_servers(settings, fresh=fresh) as addresses:
            for note in addresses.notes:
                event(log, "servers.note", note=note)
            if migrates:
                await migrate.migrate(addresses.owner_dsn)
            async with open_house(settings, book, addresses, life, adopt=adopt) as house:
                await house.run(announce)


def main(settings: Settings, *, adopt: bool = False) -> int:
    """`brokerd serve`: the exit code of one life, 0 after an orderly end, 1 if it cannot start."""
    set_up(settings.log.level, settings.log.form)
    book, findings = rulebooks.check(Path(settings.rulebook.folder))
    if book is None:
        return _refuse("the rulebook cannot be used", findings)
    collect_seldom()
    try:
        uvloop.run(serve(settings, book, adopt=adopt))
    except (CannotStart, rulebooks.RulebookRefused) as error:
        return _refuse(str(error), error.findings)
    except (*CANNOT_AGREE, ServersError, migrate.MigrationError) as error:
        return _refuse(str(error), ())
    except Unreachable as error:
        return _refuse(f"the database cannot be used: {error.__cause__!r}", ())
    return 0


def _refuse(why: str, findings: Iterable[Finding]) -> int:
    event(log, "daemon.cannot_start", logging.ERROR, why=why)
    for each in findings:
        place = f"{each.where.file}:{each.where.line}"
        event(log, "daemon.finding", logging.ERROR, place=place, code=each.code, why=each.message)
    return 1


@asynccontextmanager
async def open_house(
    settings: Settings, book: Rulebook, addresses: Addresses, life: Lifecycle, *, adopt: bool
) -> AsyncIterator[House]:
    """Check schema and rulebook, open connections, and put the house together."""
    clocks = real_clocks()
    ids = Ids(lambda: time.time_ns() // 1_000_000, clocks.random_bytes)
    async with AsyncExitStack() as opened:
        try:
            pool = await opened.enter_async_context(open_pool(settings, addresses.dsn))
            book = await _agree(pool, book, ids, clocks, adopt=adopt)
        except (OSError, asyncpg.PostgresConnectionError, TimeoutError) as error:
            raise Unreachable from error
        if wrong := peers(settings, book):
            raise CannotStart("settings and rulebook do not fit", tuple(wrong))
        redis = await opened.enter_async_context(open_redis(settings, addresses.redis_url))
        connections = max([each.connections_max for each in settings.psps.values()], default=1)
        transport = await opened.enter_async_context(open_transport(connections_max=connections))
        jar = aiohttp.DummyCookieJar()
        told = await opened.enter_async_context(aiohttp.ClientSession(cookie_jar=jar))
        house = House(settings, book, addresses, life, clocks, ids, pool)
        house.assemble(redis, transport, told)
        yield house


async def _agree(
    pool: asyncpg.Pool, book: Rulebook, ids: Ids, clocks: Clocks, *, adopt: bool
) -> Rulebook:
    """Refuse a wrong schema, or rules nobody agreed to; returns those to decide with."""
    async with pool.acquire() as conn:
        if missing := await migrate.check(conn):
            raise CannotStart(f"run `brokerd migrate` first: {'; '.join(missing)}")
        why = "adopted at start" if adopt else "first start"
        command = Command(keys.operator("start"), why, ids.new("CR"), clocks.now())
        return await versions.start(conn, book, command, ids, adopt=adopt)


class House:
    """Everything put together: plain constructors first, then `run`."""

    def __init__(
        self,
        settings: Settings,
        book: Rulebook,
        addresses: Addresses,
        life: Lifecycle,
        clocks: Clocks,
        ids: Ids,
        pool: asyncpg.Pool,
    ) -> None:
        self.settings = settings
        self.book = book
        self.rules = Rules(_compiled(compiled(book)))
        self.life = life
        self.clocks = clocks
        self.ids = ids
        self.pool = pool
        self.replica = ids.new("RP")
        self.metrics = GatewayMetrics(CollectorRegistry())
        self._decides(self.rules.now)
        self._addresses = addresses
        self.emit = Emitter(clocks.now)
        self.platforms: dict[str, tuple[Ownership, Platform, Pool]] = {}
        self.feeds: dict[str, tuple[Ownership, Feed]] = {}
        self.books: dict[int, tuple[Ownership, Accruing]] = {}
        self._begin: Callable[[str, Coroutine[Any, Any, None]], None] | None = None  # at work
        limits = LaneLimits(
            batch_max=settings.lanes.batch_max,
            queue_max=settings.lanes.waiting_max,
            transaction_s=settings.lanes.transaction_limit_s,
        )
        connect = partial(connect_writer, addresses.dsn, transaction_s=limits.transaction_s)
        self.lane = Lane(self.replica, connect, Numbers(), clocks.monotonic, limits, self.metrics)
        self.counted = CountedLane(self.lane, self.metrics)
        # Commands that lock a book's inputs: each has a short transaction of its own.
        self.command_lane = Lane(
            f"{self.replica}:commands", connect, Numbers(), clocks.monotonic,
            LaneLimits(batch_max=1, queue_max=limits.queue_max, transaction_s=limits.transaction_s),
        )  # fmt: skip

    def owner(self, name: str) -> Ownership:
        """A name to own, on a direct connection that the server ends after silence."""
        return Ownership(name, self.replica, self._connect_owner, self.clocks.boot_time)

    async def _connect_owner(self) -> asyncpg.Connection:
        return await asyncpg.connect(
            self._addresses.dsn,
            timeout=LIMIT_S,
            command_timeout=LIMIT_S,
            server_settings={
                "application_name": "brokerd owner",
                "idle_session_timeout": f"{LIMIT_S:.0f}s",
                "idle_in_transaction_session_timeout": "2s",
            },
        )

    def assemble(self, redis: Redis, transport: Transport, told: aiohttp.ClientSession) -> None:
        """Build every room from its parts."""
        self.live = self._live(redis)
        self.composer = Composer(
            lambda: self.rules.now.book.routing, self.replica, self.ids, self.emit, self.clocks.now
        )
        self.attempts, breakers = self._attempts(transport)
        self.outbox_owner = self.owner("outbox")
        self.outbox = self._outbox(told)
        self.entrance = controlling.entrance(
            settings=self.settings, rules=self.rules, pool=self.pool, redis=redis, http=told,
            ids=self.ids, clocks=self.clocks,
        )  # fmt: skip
        self.deposits = Deposits(
            lane=self.counted, pool=self.pool, rules=self.rules, breakers=breakers,
            attempts=self.attempts, composer=self.composer, outbox=self.outbox, ids=self.ids,
            boot_time=self.clocks.boot_time,
            answer_within_s=self.settings.http.answer_within_s, wake_transfers=self._wake,
            observer=self.metrics,
        )  # fmt: skip
        self.life.watch("rulebook", lambda: self.rules.trouble)
        self.resolver = Resolver(
            pool=self.pool, lane=self.counted, deposits=self.deposits, attempts=self.attempts,
            composer=self.composer, rules=self.rules,
        )  # fmt: skip
        self.life.watch("database", self.resolver.trouble)
        for each in self.book.platforms:
            self._platform(each)
        for entity in self.book.entities:
            self._open_book(entity)
        self.follower = controlling.follower(
            settings=self.settings, rules=self.rules, pool=self.pool, ids=self.ids,
            now=self.clocks.now,
            attempts=self.attempts, connectors=self.connectors, open_book=self._open_book,
            swapped=self._decides,
        )  # fmt: skip
        self.seal = self._seal(told)
        commands = "api" in self.settings.process.roles
        self.app = app.build(self._parts(redis), commands=commands)

    def _live(self, redis: Redis) -> Live:
        """The hub of live balances; whoever commits a batch tells it."""
        wanted = self.settings.live
        limits = LiveLimits(
            subscribers_max=wanted.subscribers_max, owner_max=wanted.owner_max,
            visitor_max=wanted.visitor_max, per_s=wanted.per_s, poll_s=wanted.poll_s,
            ping_s=wanted.ping_s, write_s=wanted.write_s,
        )  # fmt: skip
        live = Live(
            self.pool, Channel(redis, self.replica, wanted.poll_s), limits, self.clocks.now,
            self.clocks.monotonic, self.metrics,
        )  # fmt: skip
        self.life.watch("live", live.trouble)
        return live

    def _attempts(self, transport: Transport) -> tuple[Attempts, Breakers]:
        self.connectors = _compiled(load_connectors(load_taxonomy()))
        made = _compiled(terminals(self.book, self.settings.psps, self.connectors))
        breakers = Breakers(made, self.clocks.monotonic)
        timeout_s = self.book.routing.answer_timeout_s
        attempts = Attempts(
            made, transport, breakers, timeout_s, self.clocks.monotonic, self.metrics
        )
        return attempts, breakers

    def _outbox(self, told: aiohttp.ClientSession) -> Outbox:
        now = self.clocks.now
        webhooks = WebhooksOut(
            self.pool, told, self._key(),
            lambda: self.rules.now.book.outbox.delivery_timeout_s, now,
            lambda result: self.metrics.deliveries.labels(result).inc(),
        )  # fmt: skip
        refunds = Refunds(self.pool, self.attempts, self.outbox_owner, now)
        handlers = {"subscriber:": webhooks.deliver, "psp:": refunds.handle}
        return Outbox(
            self.pool,
            self.counted,
            self.outbox_owner,
            lambda: self.rules.now.book.outbox,
            handlers,
            self.ids,
            now,
        )

    def _seal(self, told: aiohttp.ClientSession) -> Seal:
        """The seal of the audit; of all replicas one works it."""
        try:
            seal = Seal(
                self.settings.control, self.pool, self.owner("control"), told, self.clocks.now
            )
        except ValueError as error:
            raise CannotStart(f"control.anchor_key cannot be used: {error}") from None
        self.life.watch("audit", seal.trouble)
        return seal

    def _key(self) -> bytes:
        return self.settings.control.pepper.reveal().encode()

    def _platform(self, described: PlatformRules) -> None:
        name, settle_time_s = described.id, described.settle_time_s
        server = platform_server(name, self.settings.platforms[name], settle_time_s)
        owner = self.owner(f"platform:{name}")
        now, boot = self.clocks.now, self.clocks.boot_time
        sessions = Pool(server, now, self.clocks.monotonic, SystemRandom(), self.metrics)
        lease_s = 2 * (server.call_timeout_s + server.dial_timeout_s) + 1
        makes = AccountMaker(
            server=name, replica=self.replica, provisioner=Provisioner(sessions), pool=self.pool,
            lane=self.counted, ownership=owner, rules=self.rules, lease_s=2 * lease_s,
            ids=self.ids, emit=self.emit,
            passwords=partial(new_passwords, self.clocks.random_bytes), now=now, boot_time=boot,
        )  # fmt: skip
        credits = Crediter(
            server=name, replica=self.replica, crediting=Crediting(sessions), lane=self.counted,
            ownership=owner, limits=Limits(lease_s, settle_time_s), ids=self.ids, emit=self.emit,
            now=now, boot_time=boot,
            entity_of=lambda book: self.rules.now.owners.get(book, ""),
        )  # fmt: skip
        platform = Platform(
            sessions=sessions, accounts=makes, credits=credits, pool=self.pool,
            case=self.deposits.case, now=now, also=self._feed(owner, sessions, described.feed),
        )  # fmt: skip
        self.platforms[name] = (owner, platform, sessions)
        self.life.watch(f"platform:{name}", partial(session_trouble, owner, sessions))

    def _feed(
        self, owner: Ownership, sessions: Pool, terms: FeedTerms
    ) -> dict[str, Callable[[], Awaitable[None]]]:
        """The deals of a server on their way into the books, while we own it."""
        server = sessions.server.id
        landings = Landings(
            server=server, ownership=owner, symbols=lambda: self.rules.now.symbols, ids=self.ids,
            connect=partial(connect_writer, self._addresses.dsn), now=self.clocks.now,
            on_landed=self._landed, observer=self.metrics,
        )  # fmt: skip
        feed = Feed(
            sessions=sessions, terms=terms, opened=landings.opened, land=landings.land,
            now=self.clocks.now, observer=self.metrics, may_send=owner.fresh,
        )  # fmt: skip
        self.feeds[server] = (owner, feed)
        works = {"feed": feed.run, "parked": landings.run}
        return followed(
            works, server=server, ownership=owner, lane=self.counted, ids=self.ids,
            now=self.clocks.now, watch=self.life.watch,
        )  # fmt: skip

    def _decides(self, rules: Compiled, late_s: float | None = None) -> None:
        """Say by which rulebook this process decides from now on, and how late it took it up."""
        if late_s is not None:
            self.metrics.followed.observe(late_s)
        self.metrics.decides(rules.hash, rules.access.jurisdictions)

    def _open_book(self, entity: Entity) -> None:
        """What partners earn in a book, while we own it; at once where the house is at work."""
        if entity.book in self.books:
            return
        owner = self.owner(f"book:{entity.book}")
        accruing = Accruing(
            book=entity.book, entity=entity.id, ownership=owner,
            connect=partial(connect_writer, self._addresses.dsn), pool=self.pool,
            lane=self.counted, contracts=contracts_since, attributions=of_logins,
            reattributed=changed_since, tell=self.live.told, observer=self.metrics, ids=self.ids,
            now=self.clocks.now, monotonic=self.clocks.monotonic,
            cut_off=dt.time.fromisoformat(entity.settlement_cut_off),
            poll_s=self.settings.accrual.poll_s,
        )  # fmt: skip
        self.books[entity.book] = (owner, accruing)
        self.life.watch(f"accrual:{entity.book}", accruing.trouble)
        if self._begin is not None and "accrual" in self.settings.process.roles:
            self._begin(f"book:{entity.book}", owner.run(accruing.run))

    def _landed(self, books: tuple[int, ...]) -> None:
        """Deals of these books were committed: wake whoever accrues them here."""
        for book in books:
            if book in self.books:
                self.books[book][1].wake()

    def _wake(self, server: str) -> None:
        if server in self.platforms:
            self.platforms[server][1].wake()

    def _sessions(self) -> list[SessionStatus]:
        """Of the servers we own; the others' owners know theirs."""
        return [s.status() for owner, _, s in self.platforms.values() if owner.held]

    def _parts(self, redis: Redis) -> Parts:
        limits = self.settings.control.limits
        limiter = Limiter(
            redis, RequestLimits(limits.requests_per_s, limits.burst), self.clocks.monotonic
        )
        self.life.watch("redis", lambda: "lost" if limiter.degraded else "")
        self.visits = Visits(
            self.pool, self._key(), self.ids, self.clocks.random_bytes, self.clocks.now,
            self.clocks.monotonic,
        )  # fmt: skip
        self.deciding = controlling.deciding(
            self.counted, self.pool, self.rules, self.ids, self.emit, self.clocks.now,
            lambda book: peers(self.settings, book),
            Vault(self.settings.control.personal_key.reveal(), self.clocks.random_bytes),
        )  # fmt: skip
        return Parts(
            pool=self.pool,
            entrance=self.entrance, visits=self.visits, limiter=limiter, rules=self.rules,
            ids=self.ids, now=self.clocks.now, monotonic=self.clocks.monotonic,
            deposits=self.deposits,
            accounts=Accounts(
                lane=self.counted, pool=self.pool, rules=self.rules,
                ids=self.ids, emit=self.emit, now=self.clocks.now, wake=self._wake,
            ),
            onboarding=self.deciding.onboarding, approving=self.deciding.approving,
            lending=self.deciding.lending, publishing=self.deciding.publishing,
            effects=DryRun(self.pool), assigning=self.deciding.assigning,
            tying=self.deciding.tying, reattributing=self.deciding.reattributing,
            glass=self.deciding.glass, personal=self.deciding.personal,
            partnering=Partnering(
                CountedLane(self.command_lane, self.metrics), self.pool, self.rules,
                self.ids, self.clocks.now,
            ),
            subscriptions=Subscriptions(
                self.counted, self.pool, self.ids, self._key(), self.clocks.now
            ),
            live=self.live, sessions=self._sessions, readiness=self.life.readiness,
            metrics=self.metrics,
            refresh_metrics=self._refresh_metrics, version=version("brokerd"),
            body_bytes_max=self.settings.http.body_bytes_max,
        )  # fmt: skip

    async def _refresh_metrics(self) -> None:
        """Gauges that are read when somebody asks; those of tables stay while none can be read."""
        self.metrics.lane_waiting.set(self.lane.waiting)
        owned = [(name, feed) for name, (owner, feed) in self.feeds.items() if owner.held]
        self.metrics.feeds([(name, feed.status().lag_s) for name, feed in owned])
        for part, trouble in self.life.troubles().items():
            self.metrics.degraded.labels(part).set(1 if trouble else 0)
        try:
            async with asyncio.timeout(GAUGES_READ_S), self.pool.acquire() as conn:
                await gauges.read(conn, self.metrics, self.clocks.now())
        except Exception as error:
            if not away(error):
                raise
            event(log, "metrics.database_away", why=repr(error))

    async def run(
        self, announce: Callable[[str, Addresses], Awaitable[None]] | None = None
    ) -> None:
        """Serve until `life.stop`; then take nothing more, finish within the limit, and end.

        The services are ended in the reverse order of their start, the lane last: whatever they
        hand in while ending is still written.
        """
        lanes = [
            asyncio.create_task(each.run(), name=each.name)
            for each in (self.lane, self.command_lane)
        ]
        try:
            async with asyncio.TaskGroup() as tasks:
                services: list[asyncio.Task[None]] = []

                def begin(name: str, work: Coroutine[Any, Any, None]) -> None:
                    services.append(tasks.create_task(work, name=name))

                for name, work in self._services():
                    begin(name, work)
                self._begin = begin
                async with listening(self.app, self.settings) as address:
                    self.life.phase = "ready"
                    event(log, "daemon.ready", address=address, replica=self.replica)
                    if announce is not None:
                        await announce(address, self._addresses)
                    await _first_of(self.life.stop.wait(), *lanes)
                    self.life.phase = "draining"
                    event(log, "daemon.draining")
                await self._drained()
                self._begin = None
                for service in reversed(services):
                    service.cancel()
        finally:
            self.lane.close()
            self.command_lane.close()
            await asyncio.gather(*lanes)
            event(log, "daemon.gone")

    def _services(self) -> list[tuple[str, Coroutine[Any, Any, None]]]:
        parts = self.settings.process.roles
        services: list[tuple[str, Coroutine[Any, Any, None]]] = [
            ("loop", watch_loop(self.metrics, self.clocks.monotonic)),
            ("live", self.live.run()),
            ("rulebook", self.follower.run()),
        ]
        if "api" in parts:
            services.append(("resolver", self.resolver.run()))
            services.append(("outbox", self.outbox_owner.run(self.outbox.run)))
            services.append(("expiring", self.deciding.expiring.run()))
            services.append(("glass", self.deciding.glass.run()))
            services.append(("purge", self._purge()))
            services.append(("seal", self.seal.run()))
        if "sessions" in parts:
            for name, (owner, platform, _) in self.platforms.items():
                services.append((f"platform:{name}", owner.run(platform.run)))
        if "accrual" in parts:
            for number, (owner, accruing) in self.books.items():
                services.append((f"book:{number}", owner.run(accruing.run)))
        return services

    async def _purge(self) -> None:
        """Forget idempotency keys and visits that are over, a few at a time."""
        while True:
            try:
                async with self.pool.acquire() as conn:
                    gone = await idempotency.purge(conn, self.clocks.now())
                    gone += await self.visits.purge(conn)
                    gone += await self.entrance.sign_ins.purge(conn)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                event(log, "purge.database_away", why=repr(error))
                gone = 0
            await asyncio.sleep(PURGE_EVERY_S if gone == 0 else 1.0)

    async def _drained(self) -> None:
        """Let the walks under way end in time; what does not is resumed from its rows."""
        try:
            async with asyncio.timeout(self.settings.process.drain_s):
                await self.deposits.drain()
        except TimeoutError:
            event(log, "daemon.walks_left", walks=self.deposits.walks)


async def _first_of(stop: Awaitable[object], *lanes: asyncio.Task[None]) -> None:
    """Wait for the wish to stop; a lane that ends before it ends everything."""
    waiting = asyncio.ensure_future(stop)
    await asyncio.wait({waiting, *lanes}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


def _compiled(made: tuple[T, list[Finding]]) -> T:
    compiled, findings = made
    if findings:
        raise CannotStart("the rulebook cannot be used: see `brokerd check`", tuple(findings))
    return compiled
