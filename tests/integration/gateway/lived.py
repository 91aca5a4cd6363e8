"""A house that has lived: the product's own flows on a real database, with scripted peers.

Knows how the flows are put together and one example of each end that money can come to. Asserts
nothing but that they came to it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import msgspec

from bridge import outcomes as platform
from bridge import reads as platform_reads
from bridge.provision import Passwords
from config.rulebook import Rulebook
from gateway import queries as gateway_queries
from gateway.control import rulebook as rulebooks
from gateway.control.audit import Command
from gateway.control.idempotency import Answer, Idem
from gateway.control.items import item_opened
from gateway.control.rules import settled
from gateway.control.views import Decide
from gateway.flows.approving import Approving
from gateway.flows.asking import Asking
from gateway.flows.crediting import Crediter, Limits
from gateway.flows.deposit import Deposits
from gateway.flows.onboarding import Onboarding
from gateway.flows.outbox import Again, Emitter, Ended, Outbox, Row
from gateway.flows.partnering import Partnering
from gateway.flows.provisioning import AccountMaker, Accounts
from gateway.flows.reattributing import Reattributing
from gateway.flows.refunds import Refunds
from gateway.flows.settlement import Composer
from gateway.flows.views import Amount, NewAccount, NewDeposit
from gateway.owners import OWNER
from gateway.people.states import State
from gateway.people.views import CameThrough, MoveClient, NewClient
from gateway.people.views_attribution import NewAttribution
from gateway.people.views_partners import NewContract, NewPartner
from ledger.connections import connect_writer
from ledger.ids import Ids
from ledger.journal import Book, Numbers, open_books
from ledger.lane import Lane
from ledger.units import Change, Unit
from router import outcomes
from router.health import Breakers
from router.intents import Attempt, Intent
from tests.support.callers import calling
from tests.support.servers import Database

DEMO = Path(__file__).parents[3] / "config" / "demo"
WAIT_S = 30.0
WALK = ("contacted", "registered", "kyc_pending", "kyc_under_review", "approved", "deposit_enabled")
Outcomes = dict[str, list[outcomes.Outcome]]


class Providers:
    """Providers that answer as told: `say` holds, by provider, what the next charges end in."""

    def __init__(self) -> None:
        self.say: Outcomes = {}

    def terminal(self, psp: str) -> None:
        """Nobody sends notices here."""

    async def charge(
        self, attempt: Attempt, intent: Intent, may_send: Callable[[], bool]
    ) -> outcomes.Outcome:
        """What was told, else an approval of what was asked."""
        said: outcomes.Outcome = outcomes.Approved(
            f"ch_{attempt.reference}", intent.minor, intent.currency
        )
        if self.say.get(attempt.psp):
            said = self.say[attempt.psp].pop(0)
        return outcomes.checked(said, intent.minor, intent.currency)

    async def ask_refund(self, attempt: Attempt) -> outcomes.Outcome:
        """No refund is known yet."""
        return outcomes.NotFound()

    async def refund(
        self, attempt: Attempt, minor: int, currency: str, may_send: Callable[[], bool]
    ) -> outcomes.Outcome:
        """Give back what was asked."""
        return outcomes.Approved(f"re_{attempt.reference}", minor, currency)


class Trading:
    """A trading platform that does as it is told."""

    def __init__(self) -> None:
        self.ticket = 100
        self.refuses = False

    async def create(self, account: object, passwords: Passwords, gate: object) -> platform.Outcome:
        """Created and read back."""
        return platform.Done(login=100_001, detail="created")

    async def apply(self, operation: object, gate: object) -> platform.Outcome:
        """Booked under a new ticket, or refused."""
        if self.refuses:
            return platform.Refused(code=4005, text="Money limit reached", kind="business")
        self.ticket += 1
        return platform.Done(ticket=self.ticket, detail="done")


class Owned:
    """An ownership that is never lost; its epoch is in the table like any other."""

    def __init__(self, name: str) -> None:
        self.name = name

    def fresh(self) -> bool:
        """It is."""
        return True

    def still(self) -> Change:
        """Checked in each commit."""
        return Change(OWNER, (f"{self.name}@1",))


def now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


@dataclass
class House:
    """The flows on one database."""

    book: Rulebook
    pool: asyncpg.Pool
    lane: Lane
    ids: Ids = field(default_factory=lambda: Ids(lambda: time.time_ns() // 1_000_000, os.urandom))
    providers: Providers = field(default_factory=Providers)
    trading: Trading = field(default_factory=Trading)
    keys: int = 0

    def __post_init__(self) -> None:
        """Put the flows together as the daemon does."""
        emit = Emitter(now)
        rules = settled(self.book)
        outbox_owner, server_owner = Owned("outbox"), Owned("platform:mt5-live")
        common = {"lane": self.lane, "ids": self.ids}
        asking = Asking(self.lane, self.pool, rules, self.ids, emit, now)
        self.clients = Onboarding(self.lane, self.pool, rules, asking, self.ids, emit, now)
        self.changes = Reattributing(self.lane, self.pool, asking, self.ids, emit, now)
        self.approving = Approving(
            self.lane, self.pool, rules, self.ids, emit, self.changes.appliers, now
        )
        self.partners = Partnering(self.lane, self.pool, rules, self.ids, now)
        self.accounts = Accounts(
            pool=self.pool, rules=rules, emit=emit, now=now,
            wake=lambda server: None, **common,
        )  # fmt: skip
        breakers = Breakers([psp.id for psp in self.book.psps], time.monotonic)
        self.deposits = Deposits(
            pool=self.pool, rules=rules, breakers=breakers,
            attempts=self.providers, outbox=None, boot_time=time.monotonic, answer_within_s=10.0,
            composer=Composer(lambda: self.book.routing, "tests", self.ids, emit, now),
            wake_transfers=lambda server: None, observer=None, **common,
        )  # fmt: skip
        platforms = {
            "server": "mt5-live", "replica": "tests", "ownership": server_owner, "emit": emit,
            "now": now, "boot_time": time.monotonic, **common,
        }  # fmt: skip
        self.maker = AccountMaker(
            provisioner=self.trading, pool=self.pool, rules=rules, lease_s=60.0,
            passwords=lambda: Passwords("a", "b"), **platforms,
        )  # fmt: skip
        self.crediter = Crediter(
            crediting=self.trading, limits=Limits(60.0, 60.0), entity_of=lambda book: "fx-eu",
            **platforms,
        )  # fmt: skip
        refunds = Refunds(self.pool, self.providers, outbox_owner, now)
        self.outbox = Outbox(
            self.pool, self.lane, outbox_owner, lambda: self.book.outbox,
            {"subscriber:": told, "psp:": refunds.handle}, self.ids, now,
        )  # fmt: skip

    def command(self) -> Command:
        """A command of one calling system."""
        caller = calling("ann", "crm")
        return Command(caller, "test", self.ids.new("CR"), now())

    def idem(self) -> Idem:
        """A key not used before."""
        self.keys += 1
        return Idem("crm", f"key-{self.keys}", b"f")

    async def contract(self, plan: str, code: str, parent: str | None = None) -> str:
        """A contract of a new partner; its id."""
        partner = NewPartner(reference=code)
        made = await self.partners.create(self.command(), partner, self.idem())
        order = NewContract(brand="northgate", currency="EUR", plan=plan, code=code, parent=parent)
        partner_id = msgspec.json.decode(made.body)["id"]
        made = await self.partners.contract(self.command(), partner_id, order, self.idem())
        contract_id: str = msgspec.json.decode(made.body)["id"]
        return contract_id

    async def client(self, *states: str, risk: str = "low", code: str = "") -> str:
        """A client moved through these states."""
        order = NewClient(
            reference=f"c-{self.keys}", brand="northgate", country="DE", currency="EUR",
            risk_band=risk, attribution=CameThrough(code=code) if code else None,
        )  # fmt: skip
        made = await self.clients.create(self.command(), order, self.idem())
        view = msgspec.json.decode(made.body)
        for state in states:
            move = MoveClient(to=State(state), expected_version=view["version"], reason="test")
            moved = await self.clients.move(self.command(), view["id"], move, self.idem())
            view = msgspec.json.decode(moved.body) | {"id": view["id"]}
        client_id: str = view["id"]
        return client_id

    async def reattribute(self, client_id: str, code: str) -> None:
        """Have the client come through another contract: ann asks, bob agrees."""
        order = NewAttribution(code=code, evidence="doc-1", reason="test")
        asked = await self.changes.ask(self.command(), client_id, order, self.idem())
        command = msgspec.structs.replace(self.command(), caller=calling("bob", "crm"))
        decision = Decide(decision="approve", reason="test")
        approval_id = msgspec.json.decode(asked.body)["id"]
        await self.approving.decide(command, approval_id, decision, self.idem())

    async def account(self, client_id: str) -> str:
        """A trading account of the client, made and read back."""
        order = NewAccount(client=client_id, type="standard", currency="EUR")
        asked = await self.accounts.request(self.command(), order, self.idem())
        account_id: str = msgspec.json.decode(asked.body)["id"]
        async with self.pool.acquire() as conn:
            account = await platform_reads.account(conn, account_id)
        assert account is not None
        await self.maker.handle(account)
        return account_id

    async def deposit(self, client_id: str, to: str = "wallet", *, state: str = "approved") -> str:
        """A deposit of 100 euro that must end in `state`; its payment's id."""
        order = NewDeposit(
            client=client_id, amount=Amount("100.00", "EUR"), method="card", to=to
        )  # fmt: skip
        answer: Answer = await self.deposits.start(self.command(), order, self.idem())
        view = msgspec.json.decode(answer.body)
        assert view["state"] == state, view
        payment_id: str = view["id"]
        return payment_id

    async def credit(self, payment_id: str) -> None:
        """Take the deposit on to its account."""
        case = await self.deposits.case(payment_id)
        assert case is not None
        assert case.operation is not None
        await self.crediter.handle(case.operation, case)

    async def tell(self) -> None:
        """Work the outbox until nothing waits."""
        working = asyncio.create_task(self.outbox.run())
        try:
            async with asyncio.timeout(WAIT_S):
                while await self.pool.fetchval(
                    "SELECT count(*) FROM gateway.outbox WHERE state = 'waiting'"
                ):
                    await asyncio.sleep(0.02)
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


async def told(row: Row) -> Ended | Again:
    """Whoever is told, hears."""
    return Ended("done")


@asynccontextmanager
async def opened(database: Database) -> AsyncIterator[House]:
    """The flows on this database, with the rulebook in force and the books open."""
    book, findings = rulebooks.check(DEMO)
    assert book is not None, findings
    async with asyncpg.create_pool(database.daemon_dsn, min_size=1, max_size=4) as pool:
        lane = Lane("tests", lambda: connect_writer(database.daemon_dsn), Numbers(), time.monotonic)
        house = House(book, pool, lane)
        async with pool.acquire() as conn:
            await rulebooks.agree(conn, book, house.command(), house.ids, adopt=False)
            await open_books(conn, [Book(e.book, e.id, e.currency) for e in book.entities])
            for name in ("outbox", "platform:mt5-live"):
                await conn.fetchval(gateway_queries.NEW_EPOCH, name, "tests")
        writing = asyncio.create_task(lane.run())
        try:
            yield house
        finally:
            lane.close()
            async with asyncio.timeout(WAIT_S):
                await writing


async def lived(house: House) -> None:
    """Something of everything: partners, approvals, accounts, every end of a deposit, an item."""
    upper = await house.contract("eu-master", "UPPER")
    await house.contract("eu-partner", "LOWER", upper)
    client_id = await house.client(*WALK, code="LOWER")
    account_id = await house.account(client_id)
    await house.client(*WALK[:5], risk="high")  # asks for a second person
    await house.reattribute(await house.client(), "LOWER")
    await house.deposit(client_id)
    hard = outcomes.Declined("simpay:stolen_card", "fraud", "no", "ch_1")
    house.providers.say = {"acme": [hard]}
    await house.deposit(client_id, state="declined")
    await house.credit(await house.deposit(client_id, account_id))
    house.trading.refuses = True
    await house.credit(await house.deposit(client_id, account_id))
    await house.deposit(client_id, account_id)  # still on its way to the platform
    soft = outcomes.Declined("simpay:processing_error", "technical", "no", "ch_2", cascade=True)
    house.providers.say = {"acme": [soft]}
    payment_id = await house.deposit(client_id)
    await _charged_after_all(house, payment_id)
    house.providers.say = {"acme": [outcomes.Approved("ch_3", 9_000, "EUR")]}
    await house.deposit(client_id, state="review")  # another amount than asked
    item = item_opened(house.ids.new("IT"), "test", "payments", "thing", "why", now())
    await house.lane.submit(Unit((item,)))
    await house.tell()


async def _charged_after_all(house: House, payment_id: str) -> None:
    """The provider that declined charged too: a surplus, which is given back."""
    case = await house.deposits.case(payment_id)
    assert case is not None
    first = case.attempts[0]
    late = outcomes.Approved("ch_2", case.payment.amount.minor, "EUR")
    assert await house.deposits.settle(first.reference, late, "late") is not None
