"""The verdict on deals and rebates: the platform's book, ours, and what partners were shown.

Knows what must hold when all has come to rest: each deal of the platform is booked or parked, and
booked as it was edited last; each contract has earned what a second computation says, and each
stream ended at that number. Refuses to repair, and to trust any one book.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import asyncpg
import msgspec

from gateway.demo.partners import Contracted
from gateway.demo.peers import Admin
from gateway.demo.rebates import Expected
from gateway.demo.watch import Watching, quantile
from ledger import money, survey
from ledger.survey import DealCount, Earned, Version
from ledger.verify import Wrong

PAGE: Final = 20_000
SAME: Final = ("profit_minor", "commission_minor", "storage_minor", "fee_minor", "flags", "comment")
"""What an edit changes of a deal, in the platform's words and the order of `Version`."""
DEALS_MIN: Final = 20_000
UPDATES_MIN: Final = 100
OFF_LINES: Final = (
    "lines-off-postings", "line-altered", "deal-altered", "batch-altered", "batch-numbers",
    "batch-time", "contract-day-off", "contract-batch-off", "remainder-off", "entry-without-batch",
    "stream-off-books",
)  # fmt: skip


class Deals(msgspec.Struct, frozen=True):
    """Deals of the platform by ticket, and what became of them."""

    generated: int
    booked: int
    parked: int


class Rebates(msgspec.Struct, frozen=True):
    """Lines of partners, and what they earned in each currency."""

    lines: int
    by_currency: Mapping[str, str]


class Stream(msgspec.Struct, frozen=True):
    """What partners were shown: how many updates, and how old it was at worst but for 1 %.

    p99_ms       from the commit of a batch to its update
    deal_p99_ms  from the moment of a deal on the platform to the first update that counts it, and
    deal_p50_ms  the same of one in two: where the platform hangs or cuts us off, deals wait there.
                 Deals that were booked after their own time are left out
    """

    updates: int
    p99_ms: float
    deal_p50_ms: float
    deal_p99_ms: float


class Dealt(msgspec.Struct, frozen=True):
    """The part of a summary that is about deals; `wrong` says in words what does not agree."""

    deals: Deals
    rebates: Rebates
    stream: Stream
    line_mismatches: int
    wrong: tuple[str, ...]


class DealJudge:
    """Looks into the platform's book of deals and into ours."""

    def __init__(
        self,
        platform: Admin,
        expected: Expected,
        partners: Sequence[Contracted],
        watching: Watching,
    ) -> None:
        self._platform = platform
        self._expected = expected
        self._partners = partners
        self._watching = watching
        self._deals: list[dict[str, Any]] = []
        self._read: dict[str, int] | None = None  # what had been made when these were read

    async def unfinished(self, conn: asyncpg.Connection) -> list[str]:
        """What has not come to rest yet."""
        made = await self._made()
        if wrong := _miscounted(_generated(made), await survey.count_deals(conn)):
            return wrong
        if made != self._read:
            self._deals, self._read = await self._deals_of_platform(), made
        return await unlike(conn, edited(self._deals))

    async def judged(self, conn: asyncpg.Connection, found: Collection[Wrong]) -> Dealt:
        """The figures, and what is wrong with them; `found` is what `verify` says."""
        made = _generated(await self._made())
        deals = await self._deals_of_platform()
        count = await survey.count_deals(conn)
        earned = await survey.earned(conn)
        self._expected.add(deals)
        ages = await self._ages(conn, deals)
        off_lines = [it for it in found if it.code in OFF_LINES]
        return Dealt(
            deals=Deals(made, count.booked, count.parked),
            rebates=Rebates(count.lines, _by_currency(earned)),
            stream=Stream(
                self._watching.updates, self._watching.p99_ms(), quantile(ages, 50),
                quantile(ages, 99),
            ),
            line_mismatches=len(off_lines),
            wrong=(
                *_miscounted(made, count), *await unlike(conn, deals), *self._misearned(earned),
                *self._misshown(earned), *_too_few(made, self._watching),
            ),
        )  # fmt: skip

    async def _made(self) -> dict[str, int]:
        """How many deals and edits of each kind there are on the platform."""
        made: dict[str, int] = (await self._platform.get("/deals"))["made"]
        return made

    async def _deals_of_platform(self) -> list[dict[str, Any]]:
        """Every deal of the platform as it stands now."""
        deals: list[dict[str, Any]] = []
        while True:
            after = deals[-1]["ticket"] if deals else 0
            page = await self._platform.get(f"/deals?after={after}&limit={PAGE}")
            if not page["deals"]:
                return deals
            deals += page["deals"]

    async def _ages(
        self, conn: asyncpg.Connection, deals: Sequence[Mapping[str, Any]]
    ) -> list[float]:
        """How old each deal was when it was first counted in what a partner saw, ms."""
        made = {deal["ticket"]: deal["utc_ms"] for deal in deals if not deal["late"]}
        watched = [it.contract for it in self._partners if it.partner in self._watching.latest]
        found = await survey.first_lines(conn, watched)
        seen = [(it.ticket, self._watching.seen_ms(it.contract, it.no)) for it in found]
        return [at - made[ticket] for ticket, at in seen if at is not None and ticket in made]

    def _misearned(self, earned: Sequence[Earned]) -> list[str]:
        """Contracts whose lines are not what the second computation says."""
        ours = {it.contract: it.minor for it in earned}
        plain = self._expected.minor()
        return [
            f"contract {name} earned {ours.get(name, 0)}, a plain computation says {wanted}"
            for name in sorted(ours.keys() | plain.keys())
            if ours.get(name, 0) != (wanted := plain.get(name, 0))
        ]

    def _misshown(self, earned: Sequence[Earned]) -> list[str]:
        """Partners whose stream did not end at what they have earned, be it nothing."""
        ours = {it.contract: it.minor for it in earned}
        wrong = []
        for each in self._partners:
            if each.partner not in self._watching.latest:
                continue
            body = self._watching.latest[each.partner] or {"contracts": ()}
            shown = {it["contract"]: it["accrued"] for it in body["contracts"]}
            unit = money.currency(each.planned.currency)
            right = money.text(ours.get(each.contract, 0), unit.exponent)
            if shown.get(each.contract) != right:
                wrong.append(f"{each.contract} was shown {shown.get(each.contract)}, not {right}")
        return wrong


def edited(deals: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that were changed after they had been made."""
    return [deal for deal in deals if deal["edits"]]


async def unlike(conn: asyncpg.Connection, deals: Sequence[dict[str, Any]]) -> list[str]:
    """Deals whose newest version in the books is not what the platform shows of them now.

    One that is not in the books at all is not meant: whoever counts deals finds it.
    """
    ours = await survey.newest_versions(conn, [deal["ticket"] for deal in deals])
    theirs = {deal["ticket"]: Version(deal["ticket"], *[deal[it] for it in SAME]) for deal in deals}
    return [
        f"deal {it.ticket} is booked as {it}, the platform shows {theirs[it.ticket]}"
        for it in ours
        if it != theirs[it.ticket]
    ]


def _generated(made: Mapping[str, int]) -> int:
    """Deals of all kinds; edits are none."""
    return made["trades"] + made["balance"] + made["transfers"]


def _miscounted(made: int, count: DealCount) -> list[str]:
    if count.booked + count.parked == made:
        return []
    return [f"of {made} deals {count.booked} are booked and {count.parked} parked"]


def _too_few(made: int, watching: Watching) -> list[str]:
    """A run proves something only when enough happened in it."""
    wanted = ((made, DEALS_MIN, "deals"), (watching.updates, UPDATES_MIN, "updates of streams"))
    return [f"{have} {what}, at least {least}" for have, least, what in wanted if have < least]


def _by_currency(earned: Sequence[Earned]) -> dict[str, str]:
    total: defaultdict[str, int] = defaultdict(int)
    for it in earned:
        total[it.currency] += it.minor
    return {
        code: money.text(minor, money.currency(code).exponent)
        for code, minor in sorted(total.items())
    }
