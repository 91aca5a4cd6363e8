"""Replicas of the flows on one real database, each with its own lane; only the wire is scripted.

It knows how a house is put together, how providers and a platform are told what to say, and how
clock and database are moved. It asserts nothing of the product.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import asyncpg
import msgspec
import pytest_asyncio
from msgspec.structs import replace

from bridge.rows import account_requested
from bridge.states import Account, AccountState
from config.findings import NOWHERE, Finding
from config.rulebook import Outbox as OutboxPolicy
from config.rulebook import Routing
from config.secret import Secret
from gateway.control import keys
from gateway.control import rulebook as rulebooks
from gateway.control.audit import Command
from gateway.control.follower import Follower
from gateway.control.idempotency import Answer, Idem
from gateway.control.rules import settled
from gateway.flows.deposit import Deposits
from gateway.flows.outbox import Emitter, Handler, Outbox
from gateway.flows.resolving import Resolver
from gateway.flows.settlement import Composer
from gateway.flows.views import Amount, NewDeposit
from gateway.owners import Ownership
from gateway.people.clients import Client, client_created
from gateway.people.states import State
from ledger.connections import connect_writer
from ledger.ids import Ids
from ledger.journal import Book, Numbers, open_books
from ledger.lane import Lane, LaneFull
from ledger.reads import balances
from ledger.units import Done, Left, Unit
from ledger.verify import verify
from router import taxonomy
from router.attempts import Terminal, Unobserved
from router.health import Breakers
from router.intents import Attempt, Intent
from router.outcomes import Approved, NotFound, NotSent, Outcome
from router.psp.connector import load_connectors
from router.psp.signatures import sign_timestamped
from tests.support.rulebooks import written
from tests.support.servers import Database
from tests.unit.router.values import rulebook as sample_rulebook

WAIT_S = 20.0
SECRET = b"the secret of the notices"
CONNECTORS, _ = load_connectors(taxonomy.load())
ROUTING = Routing(
    answer_timeout_s=5, lease_s=20, resolver_steps_s=(30, 60, 120, 600), not_found_grace_s=10,
    not_found_gap_s=5, walk_limit_s=900, attempts_max=3,
)  # fmt: skip
POLICY = OutboxPolicy(steps_s=(0.01, 0.02), attempts_max=3, delivery_timeout_s=2)


BOOK = written(sample_rulebook(), routing=ROUTING)
OTHER_BOOK = written(BOOK, outbox=POLICY)

Said = Outcome | Callable[[Attempt], Awaitable[Outcome]]


class Clock:
    """Real time, pushed forward by tests."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now(self) -> datetime:
        """UTC."""
        return datetime.now(UTC) + timedelta(seconds=self.ahead_s)

    def boot_time(self) -> float:
        """Seconds."""
        return time.monotonic() + self.ahead_s


class Providers:
    """The wire to all providers: says what it is told to say, approves otherwise.

    Each entry of a script is an outcome, or a function of the attempt that returns one in its time.
    """

    def __init__(self) -> None:
        self.scripts: dict[str, deque[Said]] = defaultdict(deque)
        self.calls: list[tuple[str, str]] = []
        self.terminals = {
            psp: Terminal(psp, CONNECTORS["simpay"], "", Secret("k"), Secret(SECRET.decode()))
            for psp in ("acme", "bolt", "coral")
        }

    def will(self, call: str, *said: Said) -> None:
        """What the next calls of a kind are answered: `charge`, `ask`, `refund`, `ask_refund`."""
        self.scripts[call].extend(said)

    def made(self, call: str) -> list[str]:
        """The references a kind of call was made about, in order."""
        return [reference for kind, reference in self.calls if kind == call]

    def terminal(self, psp: str) -> Terminal | None:
        """As `Attempts.terminal`."""
        return self.terminals.get(psp)

    async def charge(
        self, attempt: Attempt, intent: Intent, may_send: Callable[[], bool]
    ) -> Outcome:
        """As `Attempts.charge`."""
        if not may_send():
            return NotSent("lease")
        return await self._said("charge", attempt, approved(attempt))

    async def ask(self, attempt: Attempt) -> Outcome:
        """As `Attempts.ask`."""
        return await self._said("ask", attempt, approved(attempt))

    async def refund(
        self, attempt: Attempt, minor: int, currency: str, may_send: Callable[[], bool]
    ) -> Outcome:
        """As `Attempts.refund`."""
        if not may_send():
            return NotSent("lease")
        return await self._said("refund", attempt, approved(attempt))

    async def ask_refund(self, attempt: Attempt) -> Outcome:
        """As `Attempts.ask_refund`."""
        return await self._said("ask_refund", attempt, NotFound())

    async def _said(self, call: str, attempt: Attempt, otherwise: Outcome) -> Outcome:
        self.calls.append((call, attempt.reference))
        said = self.scripts[call].popleft() if self.scripts[call] else otherwise
        return await said(attempt) if callable(said) else said


def approved(attempt: Attempt, minor: int = 10_000) -> Approved:
    """The charge of an attempt, taken."""
    return Approved(f"p-{attempt.reference}", minor, "EUR")


class Held:
    """An answer that waits until the test lets it go."""

    def __init__(self, outcome: Outcome | None = None) -> None:
        self._outcome = outcome
        self.asked = asyncio.Event()
        self.released = asyncio.Event()
        self.reference = ""

    async def __call__(self, attempt: Attempt) -> Outcome:
        """Wait, then say it."""
        self.reference = attempt.reference
        self.asked.set()
        await self.released.wait()
        return self._outcome or approved(attempt)


class Door:
    """A pool that can be shut, as a database that is away."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self.shut = False
        self.refused = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection, or what a server that is gone answers."""
        if self.shut:
            self.refused += 1
            raise ConnectionRefusedError("the database is away")
        async with self._pool.acquire() as conn:
            yield conn


class Slot:
    """A lane that can be told to be full, or to fail the units a test picks."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.full = 0
        self.fails: Callable[[Unit], Exception | None] = lambda unit: None

    async def submit(self, unit: Unit) -> Done | Left:
        """As `Lane.submit`."""
        if self.full > 0:
            self.full -= 1
            raise LaneFull("told to be full")
        if (error := self.fails(unit)) is not None:
            raise error
        return await self.lane.submit(unit)


async def _nothing_due(conn: Any) -> None:
    """No version waits for its time."""


class Replica:
    """One process's flows."""

    def __init__(self, house: House, name: str, lane: Lane, book: Any = BOOK) -> None:
        self.house, self.name = house, name
        self.door, self.lane = Door(house.pool), Slot(lane)
        clock, self.providers = house.clock, Providers()
        self.emit = Emitter(clock.now)
        self.composer = Composer(lambda: ROUTING, name, house.ids, self.emit, clock.now)
        self.woken: list[str] = []
        self.rules = settled(book)
        self.deposits = Deposits(
            lane=self.lane, pool=self.door, rules=self.rules,
            breakers=Breakers(self.providers.terminals, clock.boot_time), attempts=self.providers,
            composer=self.composer, outbox=None, ids=house.ids, boot_time=clock.boot_time,
            answer_within_s=WAIT_S, wake_transfers=self.woken.append, observer=Unobserved(),
        )  # fmt: skip
        self.resolver = Resolver(
            pool=self.door, lane=self.lane, deposits=self.deposits, attempts=self.providers,
            composer=self.composer, rules=self.rules,
        )  # fmt: skip

    async def deposit(self, key: str = "", **changes: Any) -> Answer:
        """A deposit of 100 euro by the house's client, under an Idempotency-Key."""
        plain = NewDeposit(client=self.house.client.id, amount=Amount("100.00", "EUR"),
                           method="card")  # fmt: skip
        order = replace(plain, **changes)
        key = key or f"key-{next(self.house.numbers)}"
        idem = Idem("crm", key, hashlib.sha256(msgspec.json.encode(order)).digest())
        return await self.deposits.start(self.house.command(), order, idem)

    def follower(self, cannot: str = "") -> Follower:
        """Who follows the rulebook here; `cannot` says why this process is not able to."""
        wrong = [Finding(NOWHERE, "missing-section", cannot)] if cannot else []
        return Follower(self.rules, self.door, _nothing_due, lambda _: wrong, lambda *_: None,
            self.house.clock.now,
        )  # fmt: skip

    def ownership(self, name: str) -> Ownership:
        """A name to own, on a connection of its own."""
        return Ownership(name, self.name, self.house.connect_owner, self.house.clock.boot_time)

    def outbox(
        self, ownership: Ownership, handlers: Mapping[str, Handler], policy: OutboxPolicy = POLICY
    ) -> Outbox:
        """The outbox of this replica."""
        house = self.house
        return Outbox(self.door, self.lane, ownership, lambda: policy, handlers, house.ids,
                      house.clock.now)  # fmt: skip

    def abandon(self) -> None:
        """The process dies: whatever it was doing is never finished."""
        for walk in list(self.deposits._walks):
            walk.cancel()


class House:
    """One database with a client who may deposit, and replicas that serve it."""

    def __init__(self, database: Database, pool: asyncpg.Pool) -> None:
        self.database, self.pool = database, pool
        self.clock = Clock()
        self.numbers = itertools.count(1)
        self.ids = Ids(lambda: int(self.clock.now().timestamp() * 1000), os.urandom)
        self.client: Client = self._new_client()
        self.stack = AsyncExitStack()

    def command(self) -> Command:
        """A command of the calling system, now."""
        return Command(keys.operator("crm"), "test", self.ids.new("CR"), self.clock.now())

    def _new_client(self) -> Client:
        now = self.clock.now()
        return Client(
            id=self.ids.new("CL"), version=1, caller="crm", reference="c1", brand="northgate",
            entity="fx-eu", book=1, country="DE", currency="EUR", client_type="individual",
            risk_band="low", state=State.TRADING_ENABLED, blocks=(), came_from="",
            correlation="CR1", created=now, updated=now,
        )  # fmt: skip

    async def replica(self, name: str, book: Any = BOOK) -> Replica:
        """One more process on this database."""
        connect = partial(connect_writer, self.database.daemon_dsn)
        lane = Lane(f"{name}-{next(self.numbers)}", connect, Numbers(), time.monotonic)
        running = asyncio.create_task(lane.run())

        async def end() -> None:
            lane.close()
            async with asyncio.timeout(WAIT_S):
                await running

        self.stack.push_async_callback(end)
        made = Replica(self, name, lane, book)
        self.stack.callback(made.abandon)
        return made

    async def connect_owner(self) -> asyncpg.Connection:
        """A direct connection, as the daemon opens it for an ownership."""
        return await asyncpg.connect(
            self.database.daemon_dsn,
            timeout=5,
            server_settings={"application_name": "owner", "idle_session_timeout": "5s"},
        )

    async def open(self) -> None:
        """Open the book, bring the rulebook into force, make the client known."""
        async with self.pool.acquire() as conn:
            await open_books(conn, [Book(1, "fx-eu", "EUR")])
        await self.adopt(BOOK)

    async def adopt(self, book: Any) -> None:
        """Bring a rulebook into force."""
        async with self.pool.acquire() as conn:
            await rulebooks.adopt(conn, book, self.command(), self.ids)

    async def account(self, replica: Replica) -> Account:
        """A verified trading account of the client."""
        now = self.clock.now()
        account = Account(
            id=self.ids.new("AC"), client_id=self.client.id, book=1, server="mt5-live",
            entity="fx-eu", brand="northgate", account_type="standard", currency="EUR",
            platform_group="real", leverage=30, rights=355, login=100_000 + next(self.numbers),
            state=AccountState.VERIFIED, caller="crm", correlation="CR1", created=now, updated=now,
        )  # fmt: skip
        await replica.lane.submit(Unit(account_requested(account, "test")))
        return account

    async def rows(self, sql: str, *arguments: object) -> list[asyncpg.Record]:
        """What the tables hold."""
        return list(await self.pool.fetch(sql, *arguments))

    async def value(self, sql: str, *arguments: object) -> Any:
        """One value of the tables."""
        return await self.pool.fetchval(sql, *arguments)

    async def items(self) -> list[tuple[str, str]]:
        """Open items: kind and subject."""
        found = await self.rows("SELECT kind, subject FROM gateway.item ORDER BY id")
        return [(row["kind"], row["subject"]) for row in found]

    async def balance(self, kind: str, owner: str) -> int:
        """Minor units on an account of the books."""
        async with self.pool.acquire() as conn:
            return sum(b.minor for b in await balances(conn, [1], kind=kind, owner=owner))

    async def entries(self) -> list[tuple[str, str]]:
        """Everything booked: kind number and key, in order."""
        found = await self.rows("SELECT kind, key FROM ledger.entry ORDER BY id")
        return [(row["kind"], row["key"]) for row in found]

    async def wrong(self) -> list[Any]:
        """What `verify` finds in the books."""
        conn = await self.database.connect()
        return await verify(conn)

    async def until(self, condition: Callable[[], Awaitable[Any]]) -> Any:
        """The first true answer of a condition; fails at the limit."""
        async with asyncio.timeout(WAIT_S):
            while not (answer := await condition()):
                await asyncio.sleep(0.02)
            return answer

    async def state(self, payment_id: str) -> str:
        """The state of a payment."""
        return str(await self.value("SELECT state FROM router.payment WHERE id = $1", payment_id))


def payment_of(answer: Answer) -> str:
    """The id of the payment an answer speaks of."""
    return str(msgspec.json.decode(answer.body)["id"])


def notice(
    clock: Clock, event_id: str, reference: str, status: str = "approved", *,
    amount: str = "100.00", secret: bytes = SECRET,
) -> tuple[dict[str, str], bytes]:  # fmt: skip
    """A provider's signed notice: headers and raw bytes."""
    raw = msgspec.json.encode(
        {
            "id": event_id, "created": int(clock.now().timestamp()),
            "data": {
                "id": f"p-{reference}", "reference": reference, "status": status,
                "amount": amount, "currency": "EUR",
            },
        }
    )  # fmt: skip
    return {"Simpay-Signature": sign_timestamped(secret, raw, clock.now())}, raw


@asynccontextmanager
async def running(*services: Callable[[], Awaitable[None]]) -> AsyncIterator[list[Any]]:
    """Services at work while the block lasts; one that ends by itself fails the test."""
    tasks = [asyncio.ensure_future(service()) for service in services]
    try:
        yield tasks
        for task in tasks:
            if task.done():
                await task
                raise AssertionError("a service ended by itself")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest_asyncio.fixture
async def house(database: Database, pool: asyncpg.Pool) -> AsyncIterator[House]:
    """A house that is open, with its client."""
    made = House(database, pool)
    async with made.stack:
        await made.open()
        first = await made.replica("founder")
        await first.lane.submit(Unit(client_created(made.client, made.command())))
        yield made


@pytest_asyncio.fixture
async def one(house: House) -> Replica:
    """A replica."""
    return await house.replica("one")


@pytest_asyncio.fixture
async def two(house: House) -> Replica:
    """Another replica on the same database."""
    return await house.replica("two")
