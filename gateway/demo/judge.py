"""The verdict on a demo: our books, the providers', the platform's, and what the caller was told.

Knows what must hold between them when all has come to rest: each charge is credited once or given
back, each platform credit has one deposit, nothing is unknown, everything was told. Refuses to
repair, and to trust any one book: it compares them.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg
import msgspec

from bridge import reads as accounts
from bridge.reads import Total
from bridge.states import Operation, OperationState
from gateway import verify
from gateway.demo.api import Api
from gateway.demo.caller import Ear
from gateway.demo.dealt import DealJudge, Deals, Dealt, Rebates, Stream
from gateway.demo.peers import Admin
from gateway.flows import queries as flow_queries
from ledger import money
from ledger.verify import Wrong
from router import reads as router
from router.reads import Surveyed

DRAIN_LIMIT_S: Final = 30.0
POLL_S: Final = 0.5
DEPOSITS_MIN: Final = 200
PAGE: Final = 200
UNBALANCED: Final = ("entry-unbalanced", "entry-without-postings", "posting-without-entry")
OFF_BALANCE: Final = ("balance-without-postings", "chain-broken", "account-off-chart")
_NAMES: Final = re.compile(r"\w+")
OPEN: Final = ("sent", "pending", "unknown")
NOBODY_TRADED: Final = Dealt(Deals(0, 0, 0), Rebates(0, {}), Stream(0, 0.0, 0.0, 0.0), 0, ())


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """All books, as they stand at one moment of rest.

    operations  our balance operations by id, for the deals of the platform
    events      what the caller can pull, in order; told  what it heard
    """

    attempts: Sequence[Surveyed]
    providers: Mapping[str, dict[str, Any]]
    platform: dict[str, Any]
    totals: Sequence[Total]
    operations: Mapping[str, Operation]
    outbox: Mapping[str, int]
    events: Sequence[dict[str, Any]] = ()
    told: frozenset[str] = frozenset()
    disordered: Sequence[str] = ()
    wrong: Sequence[Wrong] = ()
    dealt: Dealt | None = None


class Deposits(msgspec.Struct, frozen=True):
    """What was asked for in this run, and how it ended."""

    requested: int
    approved: int
    approved_after_fallback: int
    declined: int
    unknown_resolved: int


class Ledger(msgspec.Struct, frozen=True):
    """What `verify` found in the books."""

    unbalanced_entries: int
    balance_mismatches: int
    line_mismatches: int


class Platform(msgspec.Struct, frozen=True):
    """Trading accounts, and those whose balance is not what our books say."""

    accounts: int
    balance_mismatches: int


class Webhooks(msgspec.Struct, frozen=True):
    """What the caller heard, and what was given up."""

    delivered: int
    dead: int


class Summary(msgspec.Struct, frozen=True):
    """The figures of a run, and whether all is right."""

    ok: bool
    deposits: Deposits
    deals: Deals
    rebates: Rebates
    ledger: Ledger
    platform: Platform
    stream: Stream
    webhooks: Webhooks


class Judge:
    """Looks into every book.

    providers  their admins, by name
    deals      looks into the books of deals; None where nobody trades
    """

    def __init__(
        self,
        dsn: str,
        providers: Mapping[str, Admin],
        platform_admin: Admin,
        portal: Api,
        ear: Ear,
        deals: DealJudge | None = None,
    ) -> None:
        self._dsn = dsn
        self._providers = providers
        self._platform = platform_admin
        self._portal = portal
        self._ear = ear
        self._deals = deals
        self._pulled: list[dict[str, Any]] = []

    async def verdict(self, since: datetime) -> tuple[Summary, list[str]]:
        """Wait until all has come to rest, at most 30 s, and judge what was asked for since then.

        Returns the summary and, in words, everything that is wrong.
        """
        return judged(await self.found(), since)

    async def found(self, but: Collection[str] = ()) -> Found:
        """All books, once everything has come to rest or the time for that is over.

        but  ids that were left to a person on purpose, and are not waited for
        """
        conn = await asyncpg.connect(self._dsn)
        try:
            found = await self._at_rest(conn, but)
            events = await self._events()
            wrong = await verify.run(self._dsn)
            dealt = await self._deals.judged(conn, wrong) if self._deals else None
        finally:
            await conn.close()
        return msgspec.structs.replace(
            found, events=events, told=frozenset(self._ear.told), wrong=wrong, dealt=dealt,
            disordered=tuple(self._ear.disordered),
        )  # fmt: skip

    async def _at_rest(self, conn: asyncpg.Connection, but: Collection[str]) -> Found:
        """The books of the first moment at which nothing is open, or else the last ones read."""
        loop = asyncio.get_running_loop()
        until = loop.time() + DRAIN_LIMIT_S
        while True:
            found = await self._look(conn)
            rests = (
                not without(unfinished(found), but)
                and await self._all_told(but)
                and not (self._deals and await self._deals.unfinished(conn))
            )
            if rests or loop.time() > until:
                return found
            await asyncio.sleep(POLL_S)

    async def _all_told(self, but: Collection[str]) -> bool:
        told = self._ear.told.keys() | set(but)
        return all(event["id"] in told for event in await self._events())

    async def _look(self, conn: asyncpg.Connection) -> Found:
        books = {name: await admin.get("/books") for name, admin in self._providers.items()}
        deals = await self._platform.get("/books")
        operations = {}
        for deal in deals["deals"]:
            operation = await accounts.operation(conn, deal["comment"])
            if operation is not None:
                operations[operation.id] = operation
        depth: Counter[str] = Counter()
        for row in await conn.fetch(flow_queries.DEPTH):
            depth[row["state"]] += row["rows"]
        return Found(
            attempts=await router.survey(conn), providers=books, platform=deals,
            totals=await accounts.totals(conn), operations=operations, outbox=depth,
        )  # fmt: skip

    async def _events(self) -> list[dict[str, Any]]:
        """All events of the caller, pulled page by page."""
        while True:
            after = self._pulled[-1]["no"] if self._pulled else 0
            page = await self._portal.get(f"/v1/events?after={after}&limit={PAGE}")
            if not page["data"]:
                return self._pulled
            self._pulled += page["data"]


def without(lines: Sequence[str], names: Collection[str]) -> list[str]:
    """The lines that speak of none of these ids."""
    return [line for line in lines if not set(_NAMES.findall(line)) & set(names)]


def unfinished(found: Found) -> list[str]:
    """What has not come to its end yet."""
    left = [
        f"payment {it.payment_id} is {it.payment_state}, its attempt at {it.psp} {it.state}"
        for it in found.attempts
        if it.payment_state not in ("approved", "declined") or it.state in OPEN
    ]
    left += [f"account {it.login} has open operations" for it in found.totals if it.open]
    if found.outbox.get("waiting"):
        left.append(f"{found.outbox['waiting']} rows of the outbox wait")
    for name, books in found.providers.items():
        pending = [it["reference"] for it in books["charges"] if it["status"] == "pending"]
        left += [f"charge {reference} of {name} is pending" for reference in pending]
        if books["notices"]["due"]:
            left.append(f"{books['notices']['due']} notices of {name} are due")
    return left


def compared(found: Found) -> list[str]:
    """Everything that does not agree between the books, in words."""
    dead = found.outbox.get("dead", 0)
    return [
        *(f"{it.code} {it.subject}: {it.detail}" for it in found.wrong),
        *unfinished(found), *_charges(found), *_deals(found), *_platform_mismatches(found),
        *_told(found), *(found.dealt.wrong if found.dealt else ()),
        *([f"{dead} rows of the outbox are dead"] if dead else ()),
    ]  # fmt: skip


def judged(found: Found, since: datetime) -> tuple[Summary, list[str]]:
    """The summary of a run that began at `since`, and everything that is wrong, in words."""
    codes = Counter(wrong.code for wrong in found.wrong)
    asked = _asked(found.attempts, since)
    wrong = [*compared(found), *_too_few(asked)]
    dealt = found.dealt or NOBODY_TRADED
    summary = Summary(
        ok=not wrong,
        deposits=asked,
        deals=dealt.deals,
        rebates=dealt.rebates,
        ledger=Ledger(
            sum(codes[code] for code in UNBALANCED), sum(codes[code] for code in OFF_BALANCE),
            dealt.line_mismatches,
        ),
        platform=Platform(len(found.platform["accounts"]), len(_platform_mismatches(found))),
        stream=dealt.stream,
        webhooks=Webhooks(len(found.told), found.outbox.get("dead", 0)),
    )  # fmt: skip
    return summary, wrong


def _asked(attempts: Sequence[Surveyed], since: datetime) -> Deposits:
    mine = [it for it in attempts if it.created >= since]
    states = Counter({it.payment_id: it.payment_state for it in mine}.values())
    fallback = {
        it.payment_id
        for it in mine
        if it.payment_state == "approved" and it.state == "approved" and it.no > 1
    }
    return Deposits(
        requested=states.total(), approved=states["approved"], declined=states["declined"],
        approved_after_fallback=len(fallback), unknown_resolved=sum(it.resolved for it in mine),
    )  # fmt: skip


def _too_few(asked: Deposits) -> list[str]:
    """A run proves something only when enough happened in it."""
    wanted = (
        (asked.requested, DEPOSITS_MIN, "deposits"),
        (asked.approved_after_fallback, 1, "approvals after a fallback"),
        (asked.unknown_resolved, 1, "unknown outcomes that were resolved"),
    )
    return [f"{have} {what}, at least {least}" for have, least, what in wanted if have < least]


def _charges(found: Found) -> list[str]:
    """Each charge of a provider is one approved attempt of ours, and the other way round.

    `verify` has proved that of a payment's approved attempts one is its credit and each other one
    a surplus; the refund of that one must be in the provider's own book.
    """
    approved = {it.reference: it for it in found.attempts if it.state == "approved"}
    first: dict[str, str] = {}
    for it in approved.values():
        first.setdefault(it.payment_id, it.reference)
    wrong, seen = [], set()
    surplus = Counter(dict.fromkeys(first, -1))
    refunds: Counter[str] = Counter()
    for name, books in found.providers.items():
        refunded = Counter(it["charge_reference"] for it in books["refunds"])
        for charge in books["charges"]:
            if charge["status"] != "approved":
                continue
            mine = approved.get(charge["reference"])
            seen.add(charge["reference"])
            if mine is None or mine.psp != name or not _same_amount(charge, mine):
                wrong.append(f"charge {charge['reference']} of {name} is not credited as it is")
                continue
            surplus[mine.payment_id] += 1
            refunds[mine.payment_id] += refunded[charge["reference"]]
    wrong += [
        f"attempt {name} is approved, but no provider charged" for name in approved.keys() - seen
    ]
    wrong += [
        f"payment {payment}: {count} surplus charges, {refunds[payment]} refunds"
        for payment, count in surplus.items()
        if count != refunds[payment]
    ]
    return wrong


def _same_amount(charge: dict[str, Any], mine: Surveyed) -> bool:
    unit = money.currency(charge["currency"])
    return mine.currency == unit.code and money.parse(charge["amount"], unit).minor == mine.minor


def _deals(found: Found) -> list[str]:
    """Each deal of the platform is one done operation of one deposit."""
    wrong, seen = [], set()
    for deal in found.platform["deals"]:
        mine = found.operations.get(deal["comment"])
        right = (
            mine is not None and mine.id not in seen and mine.state is OperationState.DONE
            and mine.ticket == deal["ticket"] and mine.amount_minor == deal["minor"]
            and mine.login == deal["login"]
        )  # fmt: skip
        if not right:
            wrong.append(f"deal {deal['ticket']} ({deal['comment']}) is not one deposit of ours")
        seen.add(deal["comment"])
    return wrong


def _platform_mismatches(found: Found) -> list[str]:
    """Accounts where the balance operations there are not those that we made; trades are apart."""
    ours = {it.login: it.done_minor for it in found.totals}
    theirs = {it["login"]: it["transfers_minor"] for it in found.platform["accounts"]}
    return [
        f"account {login}: the platform says {theirs.get(login)}, we say {ours.get(login)}"
        for login in sorted(ours.keys() | theirs.keys())
        if ours.get(login, 0) != theirs.get(login, 0)
    ]


def _told(found: Found) -> list[str]:
    """Every event was heard, in the order of its object, and none has a number too many."""
    numbers = [event["no"] for event in found.events]
    unheard = [event["id"] for event in found.events if event["id"] not in found.told]
    wrong = [f"event {name} was never heard" for name in unheard]
    wrong += [f"event {name} came after a later one" for name in found.disordered]
    if numbers != list(range(1, len(numbers) + 1)):
        wrong.append("the numbers of the events are not dense")
    return wrong
