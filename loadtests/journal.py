"""The journal bench: acknowledged units a second by the lane, by row locks, and bare commits.

Knows the work of one deposit's unit: a key with its content hash, a floor, an entry of two postings
and one companion row. Every caller waits for its own durable acknowledgement. Runs alternate, so
that a noisy minute strikes all of them; a figure is the median of its runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import date
from pathlib import Path
from statistics import median

import asyncpg
import msgspec

from ledger import entries
from ledger.chart import ENTRIES
from ledger.connections import connect_writer
from ledger.facts import AccountName, Entry
from ledger.ids import Ids
from ledger.journal import Account, Book, Numbers, content, open_books
from ledger.lane import Lane
from ledger.units import Change, Done, Kind, Step, Unit
from ledger.verify import verify
from loadtests.figures import Figure
from loadtests.ground import Base, Ground

ACCOUNTS = 2_000
CALLERS = (1, 16, 200)
ROW_LOCK_CONNECTIONS = 16
DAY = date(2026, 1, 1)
BODY = "x" * 60  # about what an outbox or audit row holds besides its id
COMPANION = Kind(
    "bench.companion.insert", Step.INSERT,
    "INSERT INTO public.companion SELECT * FROM unnest($1::text[], $2::text[])",
)  # fmt: skip
TARGETS = {"random": ("journal", 2.0), "hot": ("journal.200.hot", 6.0)}
LIMIT_NAME = f"row-lock function, {ROW_LOCK_CONNECTIONS} connections"

IDS = Ids(lambda: time.time_ns() // 1_000_000, os.urandom)
Work = Callable[[], Awaitable[object]]


class Run(msgspec.Struct, frozen=True):
    """One run: units a second and the callers' waits in milliseconds, sorted."""

    per_s: float
    waits_ms: tuple[float, ...]


class Place:
    """The accounts of one database and how a unit picks two of them.

    random  a clearing account and a wallet out of many; hot: every unit moves one clearing account
    """

    def __init__(self) -> None:
        self.clearing = [AccountName("psp_clearing", f"psp{n}", "EUR") for n in range(ACCOUNTS)]
        self.wallets = [entries.wallet(f"CL{n:018d}", "EUR") for n in range(ACCOUNTS)]
        self.numbers: dict[AccountName, Account] = {}

    def entry(self, spread: str) -> Entry:
        """A deposit's entry under a fresh key."""
        key = IDS.new("PY")
        source = self.clearing[0] if spread == "hot" else random.choice(self.clearing)
        wallet = random.choice(self.wallets)
        return entries.move("deposit", 1, key, key, DAY, source, wallet, 100)

    async def open(self, conn: asyncpg.Connection) -> None:
        """Open every account beforehand: opening is not what is measured."""
        numbers = Numbers()
        for clearing, wallet in zip(self.clearing, self.wallets, strict=True):
            key = clearing.owner
            entry = entries.move("deposit", 1, key, key, DAY, clearing, wallet, 1)
            for account, _ in (await numbers.draft(conn, [entry]))[0].sides:
                self.numbers[wallet if account.floor == 0 else clearing] = account


async def many(callers: int, total: int, work: Sequence[Work] | Work) -> Run:
    """`callers` at once, each waiting for one answer before it asks again; `total` in all."""
    waits: list[float] = []

    async def caller(one: Work) -> None:
        for _ in range(total // callers):
            began = time.perf_counter()
            await one()
            waits.append((time.perf_counter() - began) * 1000)

    works = [work] * callers if callable(work) else work
    began = time.perf_counter()
    await asyncio.gather(*[caller(one) for one in works])
    return Run(len(waits) / (time.perf_counter() - began), tuple(sorted(waits)))


class Contest:
    """One database with everything that is measured in it, connected and warm."""

    def __init__(
        self, owner: asyncpg.Connection, place: Place, lane: Lane,
        row_locks: Sequence[asyncpg.Connection],
    ) -> None:  # fmt: skip
        self._owner = owner
        self._place = place
        self._lane = lane
        self._row_locks = row_locks

    async def settle(self) -> None:
        """Let the server know how large its tables are, so that everyone's plans are made anew."""
        await self._owner.execute("ANALYZE")

    def by_lane(self, spread: str) -> Work:
        """One unit through the lane."""

        async def unit() -> None:
            entry = self._place.entry(spread)
            change = Change(COMPANION, (entry.key, BODY))
            answer = await self._lane.submit(Unit((change,), (entry,)))
            assert isinstance(answer, Done), answer

        return unit

    async def by_row_locks(self, spread: str) -> list[Work]:
        """The same by the SQL function, one transaction a call, on connections of its own."""
        return [await self._call(conn, spread) for conn in self._row_locks]

    async def _call(self, conn: asyncpg.Connection, spread: str) -> Work:
        book = await conn.prepare("SELECT public.book($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)")

        async def unit() -> None:
            entry = self._place.entry(spread)
            source, to = [self._place.numbers[p.account].id for p in entry.postings]
            answer = await book.fetchval(
                1, ENTRIES["deposit"], entry.key, content(entry), DAY, entry.ref, source, to,
                100, BODY,
            )  # fmt: skip
            assert answer == "done", answer

        return unit

    async def bare(self) -> list[Work]:
        """One row and one commit a call, nothing else: what the disk and the protocol allow."""
        statement = "INSERT INTO public.bare VALUES ($1, $2)"
        prepared = [await conn.prepare(statement) for conn in self._row_locks]
        return [lambda s=s: s.fetch(IDS.new("PY"), BODY) for s in prepared]  # type: ignore[misc]


@contextlib.asynccontextmanager
async def contest(base: Base) -> AsyncIterator[Contest]:
    """Set the lane, the function's connections and the accounts up, and end them."""
    async with contextlib.AsyncExitStack() as opened:
        owner = await asyncpg.connect(base.owner_dsn)
        opened.push_async_callback(owner.close)
        await owner.execute(Path(__file__).with_suffix(".sql").read_text())
        row_locks = []
        for _ in range(ROW_LOCK_CONNECTIONS):
            row_locks.append(await connect_writer(base.daemon_dsn))
            opened.push_async_callback(row_locks[-1].close)
        place = Place()
        await open_books(row_locks[0], [Book(1, "bench", "EUR")])
        await place.open(row_locks[0])
        lane = Lane("bench", lambda: connect_writer(base.daemon_dsn), Numbers(), time.monotonic)
        running = asyncio.create_task(lane.run())
        try:
            yield Contest(owner, place, lane, row_locks)
            assert await verify(owner) == []
        finally:
            lane.close()
            await running


async def measure(ground: Ground, *, full: bool) -> list[Figure]:
    """Run everything in turn, several rounds, and return the figures."""
    rounds, scale = (7, 4) if full else (5, 1)
    sizes = {1: 400 * scale, 16: 3_200 * scale, 200: 12_000 * scale}
    runs: dict[str, list[Run]] = {}
    async with ground.base() as base, contest(base) as ring:
        for number in range(-1, rounds):  # the first round warms caches and plans and is not kept
            for spread in TARGETS:
                for callers in CALLERS:
                    run = await many(callers, sizes[callers], ring.by_lane(spread))
                    keep(runs, number, f"{callers}.{spread}", run)
                work = await ring.by_row_locks(spread)
                run = await many(ROW_LOCK_CONNECTIONS, sizes[16], work)
                keep(runs, number, f"row-lock.{spread}", run)
            run = await many(ROW_LOCK_CONNECTIONS, sizes[16], await ring.bare())
            keep(runs, number, "bare", run)
            await ring.settle()
    return figures(runs)


def keep(runs: dict[str, list[Run]], number: int, name: str, run: Run) -> None:
    """Keep a run unless it belongs to the round that warms up."""
    if number >= 0:
        runs.setdefault(name, []).append(run)


def figures(runs: dict[str, list[Run]]) -> list[Figure]:
    """The figures of all runs: rates beside the row-lock function's, waits, and the limits."""
    found = []
    for spread, (targeted, target) in TARGETS.items():
        limit = rate(runs[f"row-lock.{spread}"])
        for callers in CALLERS:
            at_target = callers == CALLERS[-1]
            name = targeted if at_target else f"journal.{callers}.{spread}"
            run = runs[f"{callers}.{spread}"]
            found.append(Figure(
                name, rate(run), "units/s", limit, LIMIT_NAME, target if at_target else None
            ))  # fmt: skip
            suffixed = f"journal.{callers}.{spread}"
            found += [
                Figure(f"{suffixed}.p50", wait(run, 0.50), "ms"),
                Figure(f"{suffixed}.p99", wait(run, 0.99), "ms"),
            ]
        found.append(Figure(f"journal.row-lock.{spread}", limit, "units/s"))
        found.append(
            Figure(f"journal.row-lock.{spread}.p99", wait(runs[f"row-lock.{spread}"], 0.99), "ms")
        )
    found.append(Figure("journal.bare-commits", rate(runs["bare"]), "commits/s"))
    return found


def rate(runs: Sequence[Run]) -> float:
    """The median rate of the runs."""
    return median(run.per_s for run in runs)


def wait(runs: Sequence[Run], share: float) -> float:
    """The median over the runs of this quantile of the waits, in milliseconds."""
    return median(run.waits_ms[int(len(run.waits_ms) * share)] for run in runs)
