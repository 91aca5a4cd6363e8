"""What the API's handlers call, as one value that the composition root fills.

Knows the shapes of the flows it calls. Refuses to make any of them: no global, no default.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import asyncpg
import msgspec

from bridge.session import SessionStatus
from config.rulebook import Rulebook
from gateway.control.audit import Command
from gateway.control.glass import BreakGlass
from gateway.control.idempotency import Answer, Idem
from gateway.control.rules import Rules
from gateway.control.views import Decide, NewDelegation, ResolveItem
from gateway.control.views_grants import NewGrant, NewTie
from gateway.control.views_rulebook import DraftRulebook, PublishRulebook
from gateway.flows.effects import DryRun
from gateway.flows.live import Live
from gateway.flows.personal import Personal
from gateway.flows.views import NewAccount, NewDeposit, RouteView
from gateway.flows.webhooks_out import Subscription, SubscriptionOrder
from gateway.http.auth import Keys
from gateway.http.entrance import Entrance
from gateway.http.limits import Limiter
from gateway.metrics import GatewayMetrics
from gateway.people.views import MoveClient, NewClient
from gateway.people.views_attribution import NewAttribution
from gateway.people.views_partners import NewContract, NewPartner
from gateway.people.visits import Visits
from ledger.ids import Ids
from ledger.rebates.course import Courses


class Deposits(Protocol):
    """The deposit's flow."""

    async def start(self, command: Command, order: NewDeposit, idem: Idem) -> Answer:
        """Take a deposit: 201 with the final state, or 202 while the walk goes on."""
        ...

    async def notice(self, psp: str, headers: Mapping[str, str], raw: bytes) -> str:
        """A provider's webhook: `applied`, `repeated`, `parked`; raises Refusal when forged."""
        ...

    async def explain(self, command: Command, order: NewDeposit) -> RouteView:
        """The way a deposit would take, without paying."""
        ...


class Accounts(Protocol):
    """The flow of trading accounts."""

    async def request(self, command: Command, order: NewAccount, idem: Idem) -> Answer:
        """Ask for a trading account: 202, then a state that is pushed and can be polled."""
        ...


class Onboarding(Protocol):
    """The flow of clients."""

    async def create(self, command: Command, order: NewClient, idem: Idem) -> Answer:
        """Make a client known."""
        ...

    async def move(self, command: Command, client_id: str, order: MoveClient, idem: Idem) -> Answer:
        """Move a client, or ask another person."""
        ...


class Partnering(Protocol):
    """The flow of partners."""

    async def create(self, command: Command, order: NewPartner, idem: Idem) -> Answer:
        """Make a partner known."""
        ...

    async def contract(
        self, command: Command, partner_id: str, order: NewContract, idem: Idem
    ) -> Answer:
        """Give a partner a contract."""
        ...


class Approving(Protocol):
    """What people decide and close."""

    async def decide(self, command: Command, approval_id: str, order: Decide, idem: Idem) -> Answer:
        """Count a decision."""
        ...

    async def withdraw(self, command: Command, approval_id: str, idem: Idem) -> Answer:
        """Take one's own question back."""
        ...

    async def resolve(
        self, command: Command, item_id: str, order: ResolveItem, idem: Idem
    ) -> Answer:
        """Close an item."""
        ...


class Reattributing(Protocol):
    """Other partners for clients."""

    async def ask(
        self, command: Command, client_id: str, order: NewAttribution, idem: Idem
    ) -> Answer:
        """Ask another person that a client comes through another contract."""
        ...


class Assigning(Protocol):
    """Roles of people."""

    async def ask(self, command: Command, order: NewGrant, idem: Idem) -> Answer:
        """Ask another person to give somebody a role."""
        ...

    async def revoke(self, command: Command, grant_id: str, idem: Idem) -> Answer:
        """Take a role back."""
        ...


class Glass(Protocol):
    """Roles for minutes, in an emergency."""

    async def ask(self, command: Command, order: BreakGlass, idem: Idem) -> Answer:
        """Ask another person for one."""
        ...


class Tying(Protocol):
    """What is true of people beside what they do."""

    async def tie(self, command: Command, person: str, order: NewTie, idem: Idem) -> Answer:
        """Keep a tie."""
        ...


class Lending(Protocol):
    """Rights to decide, lent for a while."""

    async def give(self, command: Command, order: NewDelegation, idem: Idem) -> Answer:
        """Lend one's own right."""
        ...

    async def end(self, command: Command, delegation_id: str, idem: Idem) -> Answer:
        """Take it back before its time."""
        ...


class Publishing(Protocol):
    """Versions of the rulebook."""

    async def draft(self, command: Command, order: DraftRulebook, idem: Idem) -> Answer:
        """Store a new version."""
        ...

    async def publish(
        self, command: Command, version_id: str, order: PublishRulebook, idem: Idem
    ) -> Answer:
        """Ask other people to agree to a version."""
        ...

    async def withdraw(self, command: Command, version_id: str, idem: Idem) -> Answer:
        """Take a version back."""
        ...


class Subscriptions(Protocol):
    """What a calling system says about its own events."""

    async def set(self, command: Command, order: SubscriptionOrder) -> Subscription:
        """Name the address of one's webhooks."""
        ...

    async def resend(self, command: Command, no: int, idem: Idem) -> Answer:
        """Have an event delivered again."""
        ...


class Degraded(msgspec.Struct, frozen=True):
    """A part that does not work as it should, and why."""

    part: str
    reason: str


class Readiness(msgspec.Struct, frozen=True):
    """Whether this process takes work. `phase` is `starting`, `ready`, `degraded` or `draining`."""

    phase: str
    degraded: tuple[Degraded, ...] = ()

    @property
    def takes_work(self) -> bool:
        """Degraded still takes work: what it cannot do now waits in rows."""
        return self.phase in ("ready", "degraded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything the handlers touch."""

    pool: asyncpg.Pool
    entrance: Entrance
    visits: Visits
    limiter: Limiter
    rules: Rules
    ids: Ids
    now: Callable[[], datetime]  # UTC
    monotonic: Callable[[], float]  # seconds
    deposits: Deposits
    accounts: Accounts
    onboarding: Onboarding
    partnering: Partnering
    approving: Approving
    lending: Lending
    glass: Glass
    publishing: Publishing
    effects: DryRun
    assigning: Assigning
    tying: Tying
    reattributing: Reattributing
    personal: Personal
    subscriptions: Subscriptions
    live: Live
    sessions: Callable[[], Sequence[SessionStatus]]
    readiness: Callable[[], Readiness]
    metrics: GatewayMetrics
    refresh_metrics: Callable[[], Awaitable[None]]  # asks the tables for gauges before a scrape
    version: str
    body_bytes_max: int = 65_536
    courses: Courses = field(default_factory=Courses)

    @property
    def keys(self) -> Keys:
        """The keys of systems and people."""
        return self.entrance.keys

    @property
    def rulebook(self) -> Rulebook:
        """The rulebook in force."""
        return self.rules.now.book
