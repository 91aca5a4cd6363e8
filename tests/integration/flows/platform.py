"""A platform at the wire's edge that says what it is told, and the owner's work on top of it.

It knows how the owner of a server is put together. It refuses to know the platform's protocol.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace

import msgspec

from bridge.credit import Ticket
from bridge.mapping import Mapping
from bridge.outcomes import Done, NotSent, Outcome, Unknown
from bridge.provision import Passwords
from bridge.session import SessionState
from bridge.states import Account, Operation
from config.rulebook import Group
from gateway.control.rules import Rules
from gateway.flows.crediting import Crediter, Limits
from gateway.flows.platform import Platform
from gateway.flows.provisioning import AccountMaker, Accounts
from gateway.owners import Ownership
from tests.integration.flows.conftest import BOOK, House, Replica, running

SERVER = "mt5-live"
SETTLE_S = 6.0
GROUP = Group(
    platform=SERVER, entity="fx-eu", account_type="standard", currency="EUR", group="real",
    leverage=30, leverage_max=30, login_from=500_001, login_to=500_002,
)  # fmt: skip
MAPPING = Mapping(BOOK.hash, {("fx-eu", "*", "standard", "EUR"): GROUP})

Applied = Outcome | Callable[[Operation], Awaitable[Outcome]]
Found = tuple[Ticket, ...] | Unknown


def ticket(number: int, amount: str = "100.00") -> Ticket:
    """A balance deal that carries our reference."""
    return Ticket(ticket=number, amount=Decimal(amount), at=datetime(2026, 3, 2, tzinfo=UTC))


class Wire:
    """Sessions, crediting and provisioning of one server, scripted; all goes well otherwise."""

    def __init__(self) -> None:
        self.server = SimpleNamespace(id=SERVER)
        self.live = True
        self.applies: deque[Applied] = deque()
        self.finds: deque[Found] = deque()
        self.creates: deque[Outcome] = deque()
        self.applied: list[str] = []
        self.found: list[str] = []
        self.created: list[int | None] = []
        self._tickets = iter(range(1, 1000))

    def status(self) -> SimpleNamespace:
        """As `Pool.status`."""
        return SimpleNamespace(state=SessionState.LIVE if self.live else SessionState.BACKING_OFF)

    async def run(self) -> None:
        """As `Pool.run`."""
        await asyncio.Event().wait()

    async def apply(self, operation: Operation, may_send: Callable[[], bool]) -> Outcome:
        """As `Crediting.apply`."""
        if not may_send():
            return NotSent(reason="lease")
        self.applied.append(operation.id)
        said = self.applies.popleft() if self.applies else Done(ticket=next(self._tickets))
        return await said(operation) if callable(said) else said

    async def find(self, operation: Operation) -> Found:
        """As `Crediting.find`."""
        self.found.append(operation.id)
        return self.finds.popleft() if self.finds else ()

    async def create(
        self, account: Account, passwords: Passwords, may_send: Callable[[], bool]
    ) -> Outcome:
        """As `Provisioner.create`."""
        if not may_send():
            return NotSent(reason="lease")
        self.created.append(account.login)
        return self.creates.popleft() if self.creates else Done(login=account.login)


class Side:
    """One replica's side of the platform."""

    def __init__(self, house: House, replica: Replica, wire: Wire) -> None:
        self.house, self.replica, self.wire = house, replica, wire
        self.owns: Ownership = replica.ownership(f"platform:{SERVER}")
        clock = house.clock
        now = msgspec.structs.replace(replica.rules.now, mapping=MAPPING)
        self.rules = Rules(now)
        self.credits = Crediter(
            server=SERVER, replica=replica.name, crediting=wire, lane=replica.lane,
            ownership=self.owns, limits=Limits(10.0, SETTLE_S), ids=house.ids,
            emit=replica.emit, now=clock.now, boot_time=clock.boot_time,
            entity_of=lambda book: "fx-eu",
        )  # fmt: skip
        self.makes = AccountMaker(
            server=SERVER, replica=replica.name, provisioner=wire, pool=house.pool,
            lane=replica.lane, ownership=self.owns, rules=self.rules, lease_s=10.0, ids=house.ids,
            emit=replica.emit, passwords=lambda: Passwords("a", "b"), now=clock.now,
            boot_time=clock.boot_time,
        )  # fmt: skip
        self.platform = Platform(
            sessions=wire, accounts=self.makes, credits=self.credits, pool=replica.door,
            case=replica.deposits.case, now=clock.now,
        )  # fmt: skip
        self.accounts = Accounts(
            lane=replica.lane, pool=house.pool, rules=self.rules, ids=house.ids,
            emit=replica.emit, now=clock.now, wake=lambda server: self.platform.wake(),
        )  # fmt: skip

    async def run(self) -> None:
        """Own the server and work its rows."""
        await self.owns.run(self.platform.run)


@asynccontextmanager
async def owning(*sides: Side) -> AsyncIterator[None]:
    """Owners at work while the block lasts."""
    async with running(*[side.run for side in sides]):
        yield
