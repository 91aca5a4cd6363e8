"""The accrual bench: from decoded deals to committed lines, beside a bare COPY of the same bytes.

Knows a broker of five levels, 200 partners and 10,000 logins whose deals are in memory: landing and
reading them are not in it. Each round accrues new deals through the pipeline that the daemon runs,
then copies what that wrote, its lines, entries, postings and batches byte for byte, into tables
with the same indexes and triggers, in the same batches, on one connection. Only the trigger that
proves postings is left out: it asks for balances, which no COPY moves. The pipeline has two
connections, as in the daemon: it books a batch while it copies the next; what it does with one is a
figure of its own, in another database. Refuses to bring what it copies into any
other order.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any, Final

import asyncpg
import msgspec

from ledger.connections import connect_writer
from ledger.deals import LandedDeal
from ledger.facts import Deal
from ledger.journal import Book, Numbers, open_books
from ledger.rebates import inputs
from ledger.rebates.accrual import DEALS_MAX, Engine, compute
from ledger.rebates.encode import NAMES, WIDTH
from ledger.rebates.inputs import Contract, Inputs
from ledger.rebates.pipeline import Pipeline
from ledger.rebates.plans import Plan
from ledger.rebates.rates import rate
from ledger.rebates.rounding import Remainders, period
from loadtests.figures import Figure
from loadtests.ground import Base, Ground

LEVELS: Final = ((88, "3"), (56, "5"), (32, "6.50"), (16, "8"), (8, "10"))  # partners, rate a lot
LOGINS: Final = 10_000
SYMBOLS: Final = {
    "EURUSD": 30, "XAUUSD": 20, "GBPUSD": 10, "USDJPY": 10, "US30": 6, "GER40": 5, "NAS100": 5,
    "BTCUSD": 4, "AUDUSD": 3, "USDCAD": 3, "EURJPY": 2, "GBPJPY": 2,
}  # fmt: skip
# Hundredths of a lot: most traders are small and like round numbers.
VOLUMES: Final = {1: 30, 2: 12, 3: 6, 5: 8, 10: 15, 20: 6, 25: 2, 30: 3, 50: 5, 100: 8, 200: 2}
ODD: Final = 0.10  # of volumes are none of these
OPENINGS: Final = 0.5  # of deals open a position and pay nothing
BOOK, FEED = 1, 1
BEGIN: Final = datetime(2026, 3, 2, tzinfo=UTC)
SIZES: Final = (1_000, 2_000, DEALS_MAX)  # deals in one batch
TARGET: Final = 0.6
COPIED: Final = """
CREATE SCHEMA IF NOT EXISTS copied;
CREATE TABLE copied.{table} (LIKE ledger.{table} INCLUDING ALL);
CREATE TRIGGER {table}_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON copied.{table}
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
GRANT USAGE ON SCHEMA copied TO brokerd_daemon;
GRANT ALL ON copied.{table} TO brokerd_daemon;
"""
LINES: Final = "rebate_line"
# What a batch writes besides its lines: $1 is the batch.
BESIDE: Final = {
    "entry": "SELECT e.* FROM ledger.entry e JOIN ledger.accrual_batch b"
             " ON b.book_id = e.book_id AND b.entry_id = e.id WHERE b.batch = $1",
    "posting": "SELECT p.* FROM ledger.posting p JOIN ledger.accrual_batch b"
               " ON b.book_id = p.book_id AND b.entry_id = p.entry_id WHERE b.batch = $1",
    "contract_batch": "SELECT * FROM ledger.contract_batch WHERE batch = $1",
    "remainder_step": "SELECT * FROM ledger.remainder_step WHERE batch = $1",
    "accrual_batch": "SELECT * FROM ledger.accrual_batch WHERE batch = $1",
}  # fmt: skip
BOOKS_AGREE: Final = """
SELECT (SELECT sum(amount) FROM ledger.rebate_line) = -(SELECT sum(b.posted)
  FROM ledger.account a JOIN ledger.balance b ON b.book_id = a.book_id AND b.account_id = a.id
 WHERE a.kind = 30)
   AND (SELECT count(*) FROM ledger.rebate_line) = (SELECT line FROM ledger.accrual_head)
   AND (SELECT reached FROM ledger.accrual_position) = $1
"""
TICKS: Final = os.sysconf("SC_CLK_TCK")


class Run(msgspec.Struct, frozen=True):
    """One round: seconds for the same rows by accrual and by COPY, and what accrual cost."""

    deals: int
    rows: int
    accrual_s: float
    copy_s: float
    compute_s: float
    python_cpu_s: float
    postgres_cpu_s: float


class Tap:
    """A connection that keeps what is copied through it."""

    def __init__(self, conn: asyncpg.Connection, streams: list[bytearray]) -> None:
        self._conn = conn
        self._streams = streams

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conn, name)

    async def copy_to_table(self, table: str, *, source: bytearray, **how: Any) -> None:
        """As asyncpg's."""
        self._streams.append(source)
        await self._conn.copy_to_table(table, source=source, **how)


class Desk:
    """Traders who deal: a stream of landed deals that is the same in every bench."""

    def __init__(self) -> None:
        self._chance = random.Random(7)
        self._no = 0
        self._at = BEGIN

    def deals(self, count: int) -> list[LandedDeal]:
        """The next deals, one after the other of one day."""
        found = []
        for symbol in self._chance.choices(list(SYMBOLS), SYMBOLS.values(), k=count):
            self._no += 1
            self._at += timedelta(milliseconds=20)
            found.append(LandedDeal(self._no, 1, self._deal(symbol), self._no))
        return found

    def _deal(self, symbol: str) -> Deal:
        [volume] = self._chance.choices(list(VOLUMES), VOLUMES.values())
        if self._chance.random() < ODD:
            volume = self._chance.randint(1, 500)
        volume *= 10**6
        opening = self._chance.random() < OPENINGS
        return Deal(
            ticket=self._no, phase=0, login=self._chance.randint(1, LOGINS), position=self._no,
            action=self._no % 2, entry=int(not opening), reason=0, symbol=symbol, volume=volume,
            closed=0 if opening else volume, price=Decimal("1.10000"), digits=2, profit=1234,
            commission=0, swap=0, fee=0, flags=0, comment="", at=self._at, server_ms=0,
        )  # fmt: skip


def plans() -> list[Plan]:
    """One differential plan a level, its rate for every symbol."""
    return [
        Plan(f"level-{level}", "USD", "differential",
             (rate(per_lot, 2, group="all", symbols=tuple(SYMBOLS)),))
        for level, (_, per_lot) in enumerate(LEVELS, 1)
    ]  # fmt: skip


def contracts() -> list[Contract]:
    """A tree of five levels; each partner stands under one of the level above."""
    since = BEGIN - timedelta(days=90)
    found = []
    for level, (count, _) in enumerate(LEVELS, 1):
        above = LEVELS[level][0] if level < len(LEVELS) else 0
        for n in range(count):
            parents = ((since, f"L{level + 1}-{n % above}"),) if above else ()
            found.append(Contract(f"L{level}-{n}", "USD", parents, ((since, f"level-{level}"),)))
    return found


class Contest:
    """One database: the pipeline, and a connection that only copies."""

    def __init__(
        self, pipeline: Pipeline, streams: list[bytearray], bare: asyncpg.Connection, of: Inputs,
        pid: int,
    ) -> None:  # fmt: skip
        self._pipeline = pipeline
        self._streams = streams
        self._bare = bare
        self._inputs = of
        self._pid = pid
        self._booked = 0
        attributed = {n: ((BEGIN, f"L1-{n % LEVELS[0][0]}"),) for n in range(1, LOGINS + 1)}
        self._attributed = attributed
        pipeline.engine.learn(FEED, attributed)

    async def round(self, deals: Sequence[LandedDeal], size: int) -> Run:
        """Accrue in batches of `size` deals, then copy the same lines."""
        self._streams.clear()
        python, postgres = time.process_time(), server_cpu_s(self._pid)
        began = time.perf_counter()
        for start in range(0, len(deals), size):
            await self._pipeline.accrue(FEED, deals[start : start + size])
        await self._pipeline.drain()
        accrual_s = time.perf_counter() - began
        python, postgres = time.process_time() - python, server_cpu_s(self._pid) - postgres
        streams = list(self._streams)
        rows = sum(len(stream) for stream in streams) // WIDTH
        beside = [
            await self._written(self._booked + number) for number in range(1, len(streams) + 1)
        ]
        self._booked += len(streams)
        began = time.perf_counter()
        for stream, others in zip(streams, beside, strict=True):
            await self._bare.execute("BEGIN")
            await self._copy(LINES, stream, NAMES)
            for table, rows_of in others.items():
                await self._copy(table, rows_of)
            await self._bare.execute("COMMIT")
        copy_s = time.perf_counter() - began
        return Run(
            len(deals), rows, accrual_s, copy_s, self.compute(deals), python, postgres
        )  # fmt: skip

    async def _written(self, batch: int) -> dict[str, bytearray]:
        """What a batch wrote besides its lines, as COPY takes it."""
        written = {}
        for table, sql in BESIDE.items():
            held = io.BytesIO()
            await self._bare.copy_from_query(sql, batch, output=held, format="binary")
            written[table] = bytearray(held.getvalue())  # bytes would be a path
        return written

    async def _copy(
        self, table: str, source: bytearray, columns: Sequence[str] | None = None
    ) -> None:
        await self._bare.copy_to_table(
            table, schema_name="copied", columns=columns, source=source, format="binary"
        )

    def compute(self, deals: Sequence[LandedDeal]) -> float:
        """Seconds for the pure part alone, warm as it is in the daemon."""
        names = {id: n for n, id in enumerate(self._inputs.contracts, 1)}
        engine, left = Engine(BOOK, self._inputs, names), Remainders()
        engine.learn(FEED, self._attributed)
        left.learn(period(BEGIN.date()), ())
        spent = 0.0
        for _ in range(2):
            began = time.perf_counter()
            for start in range(0, len(deals), DEALS_MAX):
                compute(engine, left, FEED, deals[start : start + DEALS_MAX])
            spent = time.perf_counter() - began
        return spent


def server_cpu_s(backend: int) -> float:
    """CPU seconds of every process of the server that this backend belongs to."""
    postmaster = stat(backend)[1]
    pids = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):  # a process that ended meanwhile
            fields = stat(pid)
            total += fields[11] + fields[12] if fields[1] == postmaster else 0
    return total / TICKS


def stat(pid: int) -> list[int]:
    """What /proc says of a process from its state on: parent at 1, user and system time at 11."""
    told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(each) if each.lstrip("-").isdigit() else 0 for each in told]


@contextlib.asynccontextmanager
async def contest(
    base: Base, connections: int
) -> AsyncIterator[tuple[Contest, asyncpg.Connection]]:
    """Set the book up, publish its plans, and open both ways, ours with one connection or two."""
    async with contextlib.AsyncExitStack() as opened:

        async def dial(how: Callable[..., Any], dsn: str) -> asyncpg.Connection:
            conn = await how(dsn)
            opened.push_async_callback(conn.close)
            return conn

        owner = await dial(asyncpg.connect, base.owner_dsn)
        for table in (LINES, *BESIDE):
            await owner.execute(COPIED.format(table=table))
        writer, bare = [await dial(connect_writer, base.daemon_dsn) for _ in range(2)]
        second = await dial(connect_writer, base.daemon_dsn) if connections > 1 else None
        await open_books(writer, [Book(BOOK, "bench", "USD")])
        async with writer.transaction():
            await inputs.publish(writer, [BOOK], plans())
        versions = {
            id: tuple(msgspec.structs.replace(each, since=BEGIN) for each in found)
            for id, found in (await inputs.plan_versions(writer)).items()
        }
        of = Inputs(
            await inputs.version(writer, BOOK), {each.id: each for each in contracts()}, versions
        )
        streams: list[bytearray] = []
        pipeline = await Pipeline.open(
            Tap(writer, streams), Numbers(), BOOK, 1, of, time.monotonic, lambda batch: None,
            second=Tap(second, streams) if second else None,
        )  # fmt: skip
        pid = await writer.fetchval("SELECT pg_backend_pid()")
        yield Contest(pipeline, streams, bare, of, pid), owner


async def measure(ground: Ground, *, full: bool) -> list[Figure]:
    """Run the rounds and return the figures."""
    rounds, count = (9, 120_000) if full else (5, 60_000)
    runs: dict[int, list[Run]] = {size: [] for size in SIZES}
    alone: list[Run] = []
    async with contextlib.AsyncExitStack() as opened:
        rings = []
        for connections, sizes, kept in ((2, SIZES, runs), (1, (DEALS_MAX,), {DEALS_MAX: alone})):
            base = await opened.enter_async_context(ground.base())
            ring, owner = await opened.enter_async_context(contest(base, connections))
            rings.append((ring, owner, Desk(), sizes, kept))
        for number in range(-1, rounds):  # the first round warms caches and plans and is not kept
            for ring, owner, desk, sizes, kept in rings:
                for size in sizes:
                    run = await ring.round(desk.deals(count), size)
                    if number >= 0:
                        kept[size].append(run)
                await owner.execute("ANALYZE")
        for _, owner, _, sizes, _ in rings:
            assert await owner.fetchval(BOOKS_AGREE, (rounds + 1) * len(sizes) * count)
    return [*(figure for size in SIZES for figure in figures(size, runs[size])), one(alone)]


def one(runs: Sequence[Run]) -> Figure:
    """The same as the daemon's size, each side with one connection: for information."""
    return Figure(
        "accrual.one", median(run.rows / run.accrual_s for run in runs), "rows/s",
        median(run.rows / run.copy_s for run in runs), "COPY of the same rows",
    )  # fmt: skip


def figures(size: int, runs: Sequence[Run]) -> list[Figure]:
    """Rows a second beside the bare COPY's, and at the daemon's own size what a deal costs."""
    daemon = size == DEALS_MAX
    rows = Figure(
        "accrual" if daemon else f"accrual.{size}",
        median(run.rows / run.accrual_s for run in runs), "rows/s",
        median(run.rows / run.copy_s for run in runs), "COPY of the same rows",
        TARGET if daemon else None,
    )  # fmt: skip
    if not daemon:
        return [rows]
    cost = "CPU s / 100,000 deals"
    return [
        rows,
        Figure("accrual.deals", median(run.deals / run.accrual_s for run in runs), "deals/s"),
        Figure("accrual.compute", median(run.deals / run.compute_s for run in runs), "deals/s"),
        Figure("accrual.rows-a-deal", median(run.rows / run.deals for run in runs), "rows"),
        Figure("accrual.python", median(1e5 * run.python_cpu_s / run.deals for run in runs), cost),
        Figure(
            "accrual.postgres", median(1e5 * run.postgres_cpu_s / run.deals for run in runs), cost
        ),
    ]
