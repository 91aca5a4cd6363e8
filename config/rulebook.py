"""The shape of the business rules: who the broker is, who it works with, what may go where.

Knows names, types and bounds of every value, and where it was written. Refuses to know what a value
means: the router, the bridge and the access control compile their own parts and find their own
mistakes (`gateway/control/rulebook.py` asks them all).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from config.findings import NOWHERE, Finding, Where

__all__ = [
    "ApprovalPolicy", "Brand", "Desk", "Document", "Entity", "Feed", "Finding", "Group", "Outbox",
    "Owner", "Plan", "PlanRate", "Platform", "Psp", "Role", "Routing", "Rule", "Rulebook",
    "SymbolGroup", "When", "Where",
]  # fmt: skip

Id = Annotated[
    str,
    Meta(
        pattern="^[a-z][a-z0-9-]{0,31}$",
        description="a short name of small letters, digits and hyphens, such as `fx-eu`",
    ),
]
Anyone = Annotated[
    str,
    Meta(pattern=r"^(\*|[a-z][a-z0-9-]{0,31})$", description="a short name, or `*` for any"),
]
RoleName = Annotated[
    str,
    Meta(pattern=r"^[a-z][a-z0-9.-]{0,31}$", description="a short name such as `svc.caller`"),
]
Country = Annotated[
    str, Meta(pattern="^[A-Z]{2}$", description="a country of ISO 3166, such as `DE`")
]
CountryOrAny = Annotated[
    str,
    Meta(pattern=r"^([A-Z]{2}|\*)$", description="a country of ISO 3166 such as `DE`, or `*`"),
]
TimeOfDay = Annotated[
    str, Meta(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$", description="a time such as `21:00`")
]
CurrencyCode = Annotated[
    str, Meta(pattern="^[A-Z]{3,5}$", description="a currency code such as `EUR`")
]
CurrencyOrAny = Annotated[
    str, Meta(pattern=r"^([A-Z]{3,5}|\*)$", description="a currency code such as `EUR`, or `*`")
]
Amount = Annotated[
    str,
    Meta(
        pattern=r"^(0|[1-9][0-9]{0,14})(\.[0-9]{1,8})?$",
        description='an amount as text, such as "12.50"',
    ),
]
AmountOrNone = Annotated[
    str,
    Meta(
        pattern=r"^((0|[1-9][0-9]{0,14})(\.[0-9]{1,8})?)?$",
        description='an amount as text, such as "12.50", or nothing',
    ),
]
Percent = Annotated[
    str,
    Meta(
        pattern=r"^(100(\.0{1,8})?|[1-9]?[0-9](\.[0-9]{1,8})?)$",
        description='a percentage as text from "0" to "100", such as "1.40"',
    ),
]
Code = Annotated[
    str,
    Meta(pattern="^([a-z][a-z0-9-]{0,47})?$", description="a code such as `high-risk-amount`"),
]
Scope = Annotated[
    str,
    Meta(
        pattern="^[a-z]+(-[a-z]+)*:[a-z]+(-[a-z]+)*$",
        description="a permission such as `deposits:write`",
    ),
]
ScopeOrNone = Annotated[
    str,
    Meta(
        pattern="^([a-z]+(-[a-z]+)*:[a-z]+(-[a-z]+)*)?$",
        description="a permission such as `lifecycle:approve`, or nothing",
    ),
]
CommandKind = Annotated[
    str,
    Meta(pattern=r"^[a-z][a-z_-]*\.[a-z][a-z_-]*$", description="a kind such as `client.move`"),
]
Symbol = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9#._+&!$-]{0,31}$",
        description="a symbol as the platform writes it, such as `EURUSD`",
    ),
]
PerLot = Annotated[
    str,
    Meta(
        pattern=r"^(0|[1-9][0-9]{0,5})(\.[0-9]{1,8})?$",
        description='an amount a lot as text, such as "5.25"',
    ),
]
Text = Annotated[str, Meta(min_length=1, max_length=128)]
Seconds = Annotated[float, Meta(gt=0, le=60 * 60 * 24 * 31)]
Login = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Leverage = Annotated[int, Meta(ge=1, le=5000)]

# Ages after sending at which an unknown payment is looked up, as the field does it: quickly at
# first, then hourly for a day, then daily for a week.
RESOLVER_STEPS_S: Final = (
    5.0, 15.0, 60.0, 300.0, 900.0,
    *(3600.0 * hour for hour in range(1, 25)),
    *(86400.0 * day for day in range(2, 8)),
)  # fmt: skip
# Pauses between deliveries of one webhook, as Standard Webhooks recommends.
OUTBOX_STEPS_S: Final = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)


# What somebody must answer for in each entity.
Process = Literal["sales", "kyc", "finance-approvals", "settlements", "exceptions"]


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every table of the rulebook."""


class Entity(Part, frozen=True, kw_only=True):
    """A legal entity: it owns a book, and clients contract with it."""

    id: Id
    name: Text
    jurisdiction: Country
    book: Annotated[int, Meta(ge=1, le=32767)]  # leads every key of the ledger; never reused
    currency: CurrencyCode  # the entity reports in it
    # Where a settlement period ends, UTC: no batch of rebates has deals of both sides of it.
    settlement_cut_off: TimeOfDay = "00:00"


class Brand(Part, frozen=True, kw_only=True):
    """A name clients know, run by one entity."""

    id: Id
    entity: Id
    name: Text


class Desk(Part, frozen=True, kw_only=True):
    """Who looks after clients of an entity: the first desk that a client fits is theirs."""

    id: Id
    entity: Id
    brand: Anyone = "*"
    countries: Annotated[tuple[CountryOrAny, ...], Meta(min_length=1)] = ("*",)


class Owner(Part, frozen=True, kw_only=True):
    """The team that answers for a process in an entity."""

    process: Process
    entity: Anyone = "*"
    team: Id


class Feed(Part, frozen=True, kw_only=True):
    """How the deals of a trading server are read: how often, how far back, how much at once."""

    # Groups whose deals are read, one call each; a deal too many is parked and seen, one too few
    # is nobody's, so the default is all of them.
    masks: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=1024)], ...], Meta(min_length=1)
    ] = ("*",)
    poll_s: Seconds = 0.5  # pause between looks
    overlap_s: Annotated[int, Meta(ge=1, le=3600)] = 10  # each look begins so long before its end
    ahead_s: Annotated[int, Meta(ge=1, le=3600)] = 60  # and asks so far beyond the server's now
    window_s: Annotated[int, Meta(ge=1, le=86_400)] = 3600  # the most that one call asks for
    rows_max: Annotated[int, Meta(ge=100, le=100_000)] = 5000  # a call aims at fewer rows
    history_s: Annotated[int, Meta(ge=0, le=31_536_000)] = 86_400  # before the very first look
    sweep_every_s: Seconds = 120.0  # looks again at the last sweep_s: deals that came late
    sweep_s: Annotated[int, Meta(ge=1, le=86_400)] = 600
    deep_every_s: Seconds = 21_600.0  # and at the last deep_s: deals that people edited
    deep_s: Annotated[int, Meta(ge=1, le=7_776_000)] = 259_200
    daylight: Literal["eu", "us", "none"] = "eu"  # when the server's clock is put forward and back
    remembered_max: Annotated[int, Meta(ge=0, le=10_000_000)] = 250_000  # repeats known by heart
    retry_max_s: Seconds = 30.0  # the longest pause after a look that failed


class Platform(Part, frozen=True, kw_only=True):
    """A trading server. How to reach it is a process setting; how it behaves is a rule."""

    id: Id
    kind: Literal["mt5"]
    transport: Literal["https"]
    settle_time_s: Seconds = 60.0  # after an ambiguous answer, before its books may be believed
    sessions: Annotated[int, Meta(ge=1, le=16)] = 1
    entities: Annotated[tuple[Id, ...], Meta(min_length=1)]
    feed: Feed = Feed()


class Group(Part, frozen=True, kw_only=True):
    """Where an account of an entity, brand, type and currency is created, and with which terms."""

    platform: Id
    entity: Id
    brand: Anyone = "*"
    account_type: Id
    currency: CurrencyCode
    group: Annotated[str, Meta(min_length=1, max_length=63)]  # the platform's own name
    leverage: Leverage  # 100 means 1:100
    leverage_max: Leverage
    rights: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 355  # platform bits of an active account
    login_from: Login
    login_to: Login


class Psp(Part, frozen=True, kw_only=True):
    """A payment provider: what it takes, from where, how much, and what it costs us."""

    id: Id
    connector: Id
    entities: Annotated[tuple[Id, ...], Meta(min_length=1)]
    methods: Annotated[
        tuple[Annotated[str, Meta(pattern="^[a-z][a-z_]*$")], ...], Meta(min_length=1)
    ]
    currencies: Annotated[tuple[CurrencyCode, ...], Meta(min_length=1)]
    countries: Annotated[tuple[CountryOrAny, ...], Meta(min_length=1)]
    countries_blocked: tuple[Country, ...] = ()
    amount_min: Amount  # per deposit, in major units of the deposit's own currency; inclusive
    amount_max: Amount
    cost_fixed: Amount  # per charge, major units of the deposit's own currency
    cost_percent: Percent


class When(Part, frozen=True, kw_only=True):
    """What a routing rule asks of a deposit. An empty list asks nothing."""

    country: tuple[Country, ...] = ()
    entity: tuple[Id, ...] = ()
    currency: tuple[CurrencyCode, ...] = ()
    method: tuple[Annotated[str, Meta(pattern="^[a-z][a-z_]*$")], ...] = ()
    risk: tuple[Annotated[str, Meta(pattern="^[a-z][a-z_]*$")], ...] = ()
    amount_from: AmountOrNone = ""  # inclusive, major units of the deposit's currency
    amount_to: AmountOrNone = ""  # exclusive, so that bands that touch leave no gap and no overlap


class Rule(Part, frozen=True, kw_only=True):
    """One routing rule; the first that matches decides. It names PSPs in order, or refuses."""

    id: Id
    when: When = When()
    route: tuple[Id, ...] = ()
    refuse: Code = ""


class Role(Part, frozen=True, kw_only=True):
    """What somebody of this role may do."""

    id: RoleName
    scopes: tuple[Scope, ...]


class Routing(Part, frozen=True, kw_only=True):
    """How long an attempt may take, and how an unknown one is resolved."""

    answer_timeout_s: Seconds = 20.0
    lease_s: Seconds = 60.0
    resolver_steps_s: tuple[Seconds, ...] = RESOLVER_STEPS_S  # ages after sending, increasing
    not_found_grace_s: Seconds = 600.0  # before it, "not found" at the PSP means nothing
    not_found_gap_s: Seconds = 60.0  # between the two lookups that must both find nothing
    walk_limit_s: Seconds = 900.0  # after it no further PSP is tried: the client has gone
    attempts_max: Annotated[int, Meta(ge=1, le=10)] = 4


class Outbox(Part, frozen=True, kw_only=True):
    """How often and how long we try to tell a subscriber."""

    steps_s: Annotated[tuple[Seconds, ...], Meta(min_length=1)] = OUTBOX_STEPS_S
    attempts_max: Annotated[int, Meta(ge=1, le=100)] = 10
    delivery_timeout_s: Seconds = 15.0


class ApprovalPolicy(Part, frozen=True, kw_only=True):
    """How many other people must agree to one kind of request, who, and for how long it waits.

    For a matter the closest policies count: its brand's, else its entity's, else everybody's; of
    several the strictest that fits decides.
    """

    kind: CommandKind
    entity: Anyone = "*"
    brand: Anyone = "*"
    risk: Anyone = "*"  # a risk band, where the kind has one
    amount_from: AmountOrNone = ""  # inclusive, major units of the matter's own currency
    currency: CurrencyOrAny = "*"
    needed: Annotated[int, Meta(ge=1, le=5)] = 1
    permission: ScopeOrNone = ""  # what each of them must hold; the kind's own where it is empty
    expiry_s: Seconds = 60.0 * 60 * 24 * 3


class SymbolGroup(Part, frozen=True, kw_only=True):
    """Symbols that plans may price together. What stands in no group is not traded here."""

    id: Id
    symbols: Annotated[tuple[Symbol, ...], Meta(min_length=1)]


class PlanRate(Part, frozen=True, kw_only=True):
    """What a closed lot of one symbol, or of each symbol of a group, is worth: name one of them."""

    symbol: Symbol = ""
    group: Annotated[str, Meta(pattern="^([a-z][a-z0-9-]{0,31})?$")] = ""
    per_lot: PerLot  # major units of the plan's currency


class Plan(Part, frozen=True, kw_only=True):
    """What a partner's contract earns by the deals of those it brought. The closer rate wins.

    mode  direct: the contract nearest the client earns its rate, nobody above it; differential:
          each level earns what its rate exceeds the highest rate below it
    """

    id: Id
    currency: CurrencyCode
    mode: Literal["direct", "differential"] = "differential"
    rates: Annotated[tuple[PlanRate, ...], Meta(min_length=1)]


class Document(Part, frozen=True, kw_only=True):
    """The rulebook as it is written: one table or list of tables for each part."""

    entity: Annotated[tuple[Entity, ...], Meta(min_length=1)]
    brand: tuple[Brand, ...] = ()
    desk: tuple[Desk, ...] = ()
    owner: tuple[Owner, ...] = ()
    platform: tuple[Platform, ...] = ()
    group: tuple[Group, ...] = ()
    psp: tuple[Psp, ...] = ()
    rule: tuple[Rule, ...] = ()
    role: tuple[Role, ...] = ()
    symbol_group: tuple[SymbolGroup, ...] = ()
    plan: tuple[Plan, ...] = ()
    routing: Routing = Routing()
    outbox: Outbox = Outbox()
    approval: tuple[ApprovalPolicy, ...] = ()


class Rulebook(msgspec.Struct, frozen=True, kw_only=True):
    """The rules in one value, with the hash that names them and the place of each value.

    hash    hex SHA-256 of `source`
    source  canonical JSON of what was written, defaults not filled in
    where   path such as `psp[2].cost_fixed` -> place; positions are those of the tuples here
    """

    hash: str
    entities: tuple[Entity, ...]
    brands: tuple[Brand, ...] = ()
    desks: tuple[Desk, ...] = ()
    owners: tuple[Owner, ...] = ()
    platforms: tuple[Platform, ...] = ()
    groups: tuple[Group, ...] = ()
    psps: tuple[Psp, ...] = ()
    rules: tuple[Rule, ...] = ()
    roles: tuple[Role, ...] = ()
    symbol_groups: tuple[SymbolGroup, ...] = ()
    plans: tuple[Plan, ...] = ()
    routing: Routing = Routing()
    outbox: Outbox = Outbox()
    approvals: tuple[ApprovalPolicy, ...] = ()
    source: bytes = b""
    where: Mapping[str, Where] = msgspec.field(default_factory=dict)

    @property
    def symbols(self) -> frozenset[str]:
        """Every symbol that is traded here: those of all symbol groups."""
        return frozenset(symbol for group in self.symbol_groups for symbol in group.symbols)

    def place(self, path: str) -> Where:
        """Where the value at `path` was written; where it is absent, where its table was."""
        while path:
            if (found := self.where.get(path)) is not None:
                return found
            path = _LAST_STEP.sub("", path)
        return NOWHERE


_LAST_STEP = re.compile(r"(\[\d+\]|(^|\.)[^.\[]*)$")


def from_document(
    document: Document, digest: str, source: bytes, where: Mapping[str, Where]
) -> Rulebook:
    """Name the parts of a document as the rooms read them."""
    return Rulebook(
        hash=digest,
        entities=document.entity,
        brands=document.brand,
        desks=document.desk,
        owners=document.owner,
        platforms=document.platform,
        groups=document.group,
        psps=document.psp,
        rules=document.rule,
        roles=document.role,
        symbol_groups=document.symbol_group,
        plans=document.plan,
        routing=document.routing,
        outbox=document.outbox,
        approvals=document.approval,
        source=source,
        where=where,
    )
