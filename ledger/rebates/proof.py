"""Every batch of accrual computed again from the deals that are stored, page after page.

Knows what a batch must say: the deals it read, the lines they come to, what they left over, and the
content that links it to the batch before it. Refuses to share anything with the engine, to hold one
view of the database for as long as it works (nothing it reads ever changes), and to repair.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from typing import Final

import asyncpg
import msgspec

from ledger import deals
from ledger import queries_rebate_verify as q
from ledger.deals import LandedDeal
from ledger.rebates import inputs as read_inputs
from ledger.rebates.alike import Alike
from ledger.rebates.days import settlement_day
from ledger.rebates.encode import Facts, deal_bytes, link
from ledger.rebates.evidence import Sources, known_inputs
from ledger.rebates.inputs import Dated
from ledger.rebates.lines import Component, LineKind, Reason
from ledger.rebates.plans import PlanVersion
from ledger.rebates.recompute import Due
from ledger.rebates.rounding import period, whole

BATCHES_MAX: Final = 200  # in one page, and
DEALS_MAX: Final = 4_000  # deals, but a batch at least
SLICE: Final = 25  # deals computed before the loop serves others
FOUND_MAX: Final = 1_000  # then it is enough: who altered more has altered everything
INPUTS_KEPT: Final = 4

Key = tuple[int, int, str, int]  # deal, deal concerned, contract, kind
NOBODY: Final = 0


class Altered(msgspec.Struct, frozen=True):
    """What is not as it is computed: a code, the line, deal or batch, and what was found."""

    code: str
    subject: str
    detail: str


class Row(msgspec.Struct, frozen=True):
    """A batch as it is stored."""

    book: int
    batch: int
    feed: int
    server: str
    first_deal: int
    last_deal: int
    first_line: int
    last_line: int
    day: date
    settles: date
    cut_off: time
    inputs: int
    epoch: int
    at: datetime
    deals: bytes
    lines: bytes
    content: bytes

    @property
    def name(self) -> str:
        """How findings name it."""
        return f"{self.book}/{self.batch}"


class Page(msgspec.Struct, frozen=True):
    """Batches that follow on each other, and the rows beside them, by batch."""

    batches: Sequence[Row]
    deals: Mapping[int, Sequence[LandedDeal]]
    clients: Mapping[int, Mapping[int, Dated]]
    lines: Mapping[int, Sequence[asyncpg.Record]]
    steps: Mapping[int, Sequence[asyncpg.Record]]


async def prove(conn: asyncpg.Connection, sources: Sources) -> list[Altered]:
    """All that is not as it is computed; none, and every line follows from its deal."""
    wrong: list[Altered] = []
    for book, last in await conn.fetch(q.BATCHED):
        wrong += await _Book(conn, sources, book, last).prove()
    return wrong


class _Book:
    """One book from its first batch on; what was left over is carried along."""

    def __init__(self, conn: asyncpg.Connection, sources: Sources, book: int, last: int) -> None:
        self._conn = conn
        self._sources = sources
        self._book = book
        self._last = last
        self._left: dict[tuple[date, str], int] = {}  # period, contract
        self._before: tuple[bytes, datetime | None] = (b"", None)
        self._known: dict[int, Alike] = {}

    async def prove(self) -> list[Altered]:
        """Its findings, not many more than FOUND_MAX."""
        wrong: list[Altered] = []
        reached = 0
        while reached < self._last and len(wrong) < FOUND_MAX:
            async with self._conn.transaction(readonly=True):
                await self._conn.execute(q.BY_KEYS)
                page = await self._page(reached)
                if not page.batches:
                    break
                await self._learn(page.batches)
            for row in page.batches:
                wrong += await self._batch(row, page)
            reached = page.batches[-1].batch
        return wrong

    # --- one batch ------------------------------------------------------------------------------

    async def _batch(self, row: Row, page: Page) -> list[Altered]:
        found, clients = page.deals.get(row.batch, ()), page.clients.get(row.batch, {})
        steps = page.steps.get(row.batch, ())
        wrong = [*self._linked(row, steps), *_read(row, found)]
        try:
            expected, left = await self._computed(row, found, clients)
        except (KeyError, ValueError) as error:
            return [*wrong, Altered("line-altered", row.name, f"cannot be computed: {error!r}")]
        for contract, (_, after) in left.items():
            self._left[period(row.settles), contract] = after
        return [
            *wrong, *_lines(row, page.lines.get(row.batch, ()), expected),
            *self._stepped(row, steps, left),
        ]  # fmt: skip

    async def _computed(
        self, row: Row, found: Sequence[LandedDeal], clients: Mapping[int, Dated]
    ) -> tuple[dict[Key, Due], dict[str, tuple[int, int]]]:
        """The lines of a batch, and what was left over of each contract before and after it."""
        alike = self._known[row.inputs]
        expected: dict[Key, Due] = {}
        sums: dict[str, int] = {}
        for number, landed in enumerate(found):
            if number % SLICE == 0:
                await asyncio.sleep(0)
            outcome = alike.outcome(landed, clients.get(landed.deal.login, ()))
            for each in outcome.lines:
                expected[landed.no, landed.first_no, each.contract, each.kind] = each
            for contract, exact in outcome.left:
                sums[contract] = sums.get(contract, 0) + exact
        left = {}
        for contract, exact in sums.items():
            before = self._left.get((period(row.settles), contract), 0)
            left[contract] = (before, before + exact)
            pays = whole(before + exact) - whole(before)
            if pays:
                line = Due(contract, LineKind.ROUNDING, 0, Reason.ROUNDING, 0, pays)
                expected[row.last_deal, NOBODY, contract, LineKind.ROUNDING] = line
        return expected, left

    def _linked(self, row: Row, steps: Sequence[asyncpg.Record]) -> Iterator[Altered]:
        """A batch is behind the one before it as that one is."""
        before, self._before = self._before, (row.content, row.at)
        left = {(step["account_id"], step["component"]): int(step["exact"]) for step in steps}
        facts = Facts(
            row.book, row.batch, row.feed, row.first_deal, row.last_deal, row.first_line,
            row.last_line, row.day, row.settles, row.cut_off, row.inputs, row.epoch, row.deals,
            row.lines, left,
        )  # fmt: skip
        if link(*before, facts) != row.content:
            detail = "it, what it left over or the time of the batch before it was changed"
            yield Altered("batch-altered", row.name, detail)

    def _stepped(
        self, row: Row, steps: Sequence[asyncpg.Record], left: Mapping[str, tuple[int, int]]
    ) -> Iterator[Altered]:
        """A batch says of each contract what its deals left over."""
        of = period(row.settles)
        said = {
            step["owner"]: int(step["exact"]) for step in steps
            if (step["component"], step["period"]) == (Component.PER_LOT, of)
        }  # fmt: skip
        stray = len(steps) - len(said)
        if stray:
            yield Altered("remainder-off", row.name, f"{stray} remainders of another period")
        for contract in sorted(said.keys() | left.keys()):
            computes = self._left.get((of, contract), 0)
            if said.get(contract, left.get(contract, (0, 0))[0]) != computes:
                detail = f"{contract}: says {said.get(contract)} is left over, computes {computes}"
                yield Altered("remainder-off", row.name, detail)
                self._left[of, contract] = said.get(contract, computes)  # once is enough

    # --- rows -----------------------------------------------------------------------------------

    async def _page(self, reached: int) -> Page:
        rows = await self._conn.fetch(q.BATCHES, self._book, reached, self._last, BATCHES_MAX)
        batches = _few([Row(*row.values()) for row in rows])
        if not batches:
            return Page((), {}, {}, {}, {})
        found: dict[int, Sequence[LandedDeal]] = {}
        lines: dict[int, list[asyncpg.Record]] = {}
        for run in _runs(batches):
            found |= await self._deals(run)
            for line in await self._conn.fetch(
                q.LINES_OF_DEALS, self._book, run[0].feed, run[0].first_deal, run[-1].last_deal
            ):
                lines.setdefault(line["batch"], []).append(line)
        steps: dict[int, list[asyncpg.Record]] = {}
        for step in await self._conn.fetch(
            q.STEPS, self._book, batches[0].batch, batches[-1].batch
        ):
            steps.setdefault(step["batch"], []).append(step)
        return Page(batches, found, await self._clients(batches, found), lines, steps)

    async def _deals(self, run: Sequence[Row]) -> dict[int, Sequence[LandedDeal]]:
        """The deals of batches that follow on each other in one feed."""
        first, count = run[0].first_deal, run[-1].last_deal - run[0].first_deal + 1
        try:
            found = await deals.after(self._conn, self._book, run[0].feed, first - 1, count)
        except KeyError:  # an edit whose earlier version is gone: `deal-versions` names it
            return {}
        by_no = {landed.no: landed for landed in found}
        return {
            row.batch: [by_no[no] for no in range(row.first_deal, row.last_deal + 1) if no in by_no]
            for row in run
        }

    async def _clients(
        self, batches: Sequence[Row], found: Mapping[int, Sequence[LandedDeal]]
    ) -> dict[int, Mapping[int, Dated]]:
        """Whose clients the logins of each batch are, as it could know."""
        logins: dict[tuple[str, int], set[int]] = {}
        for row in batches:
            mine = logins.setdefault((row.server, row.inputs), set())
            mine.update(landed.deal.login for landed in found.get(row.batch, ()))
        held = {
            (server, version): await self._sources.attributions(
                self._conn, server, sorted(mine), version
            )
            for (server, version), mine in logins.items()
        }
        return {row.batch: held[row.server, row.inputs] for row in batches}

    async def _learn(self, batches: Sequence[Row]) -> None:
        """Have the inputs of these batches in memory."""
        wanted = {row.inputs: row.at for row in reversed(batches)}  # the first batch of each
        if len(self._known.keys() | wanted) > INPUTS_KEPT:
            self._known = {v: known for v, known in self._known.items() if v in wanted}
        plans: Mapping[str, tuple[PlanVersion, ...]] | None = None
        for version, at in wanted.items():
            if version not in self._known:
                plans = plans or await read_inputs.plan_versions(self._conn)
                contracts = await self._sources.contracts(self._conn, self._book, version)
                self._known[version] = Alike(known_inputs(version, contracts, plans, at))


def _few(batches: Sequence[Row]) -> list[Row]:
    """The first of the batches, as many as have few enough deals together."""
    taken: list[Row] = []
    count = 0
    for row in batches:
        count += row.last_deal - row.first_deal + 1
        if taken and count > DEALS_MAX:
            break
        taken.append(row)
    return taken


def _runs(batches: Iterable[Row]) -> list[list[Row]]:
    """Batches whose deals follow on each other in their feed."""
    runs: list[list[Row]] = []
    of_feed: dict[int, list[Row]] = {}
    for row in batches:
        run = of_feed.get(row.feed)
        if run is None or run[-1].last_deal + 1 != row.first_deal:
            run = of_feed[row.feed] = []
            runs.append(run)
        run.append(row)
    return runs


def _read(row: Row, found: Sequence[LandedDeal]) -> Iterator[Altered]:
    """The deals are those that were read, of the batch's day and of its settlement day."""
    if hashlib.sha256(deal_bytes(found)).digest() != row.deals:
        detail = f"deals {row.feed}/{row.first_deal} to {row.last_deal} are not as they were read"
        yield Altered("deal-altered", row.name, detail)
    stray = [landed.no for landed in found if landed.deal.at.date() != row.day]
    if stray:
        yield Altered("batch-mixed", row.name, f"deals {stray[:5]} are not of {row.day}")
    late = [each.no for each in found if settlement_day(each.deal.at, row.cut_off) != row.settles]
    if late:
        detail = f"deals {late[:5]} are not settled on {row.settles}, cut off at {row.cut_off} UTC"
        yield Altered("batch-mixed", row.name, detail)


def _lines(
    row: Row, lines: Iterable[asyncpg.Record], expected: dict[Key, Due]
) -> Iterator[Altered]:
    """Each line that says something else, is missing or too many."""
    for line in lines:
        key = (line["deal_no"], line["concerned_no"], line["owner"], line["kind"])
        computes = expected.pop(key, None)
        said = _said(line)
        if said != computes:
            detail = f"says {words(said)}, computes {words(computes)}"
            yield Altered("line-altered", f"{row.book}-{line['no']}", detail)
    for (deal_no, _, _, _), computes in expected.items():
        detail = f"has no line, computes {words(computes)}"
        yield Altered("line-altered", f"{row.book} deal {deal_no}", detail)


def _said(line: asyncpg.Record) -> Due | None:
    """What a stored line says; None where it says nothing that a line can."""
    if line["component"] != Component.PER_LOT:
        return None
    try:
        kind, reason = LineKind(line["kind"]), Reason(line["reason"])
    except ValueError:
        return None
    return Due(line["owner"], kind, line["level"], reason, line["plan"], line["amount"])


def words(line: Due | None) -> str:
    """A line in a few words."""
    if line is None:
        return "no line"
    return f"{line.amount} ({line.reason.name.lower()}, level {line.level}, plan {line.plan})"
