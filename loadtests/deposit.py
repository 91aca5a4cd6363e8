"""What a deposit costs: brokerd's whole path beside the least that any taker of deposits does.

Ours is `POST /v1/deposits` of the real daemon: credential, limit, idempotency key, client, route,
attempt stored as sent, an instantly answering provider, settlement, ledger entries, audit, events,
outbox. The caller pulls its events, so none is posted to it. The floor is the same decode, one call
to the same provider and two bare commits. Both run on one PostgreSQL with durability on, in turns,
under the same callers and with the same settings of the HTTP client and the database's pool;
medians are compared.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

import asyncpg
import msgspec

from loadtests import house
from loadtests.caller import Order, Played
from loadtests.figures import Figure
from loadtests.ground import Ground
from loadtests.peers import MAKE_FLOOR

CALLERS: Final = {200: "deposit", 16: "deposit.16"}  # as many as the journal's, and a quiet hour's
CLIENTS: Final = 64
TARGET: Final = 0.4
DRAIN_S: Final = 60.0
WAITING: Final = "SELECT count(*) FROM gateway.outbox WHERE state = 'waiting'"
TICKS: Final = os.sysconf("SC_CLK_TCK")
FLOOR: Final = "floor handler"


class Size(msgspec.Struct, frozen=True):
    """How long is measured: rounds of each, and seconds of a round before and while it counts."""

    rounds: Mapping[str, int]
    warm_s: float
    seconds: float


QUICK: Final = Size({"deposit": 7, "deposit.16": 3}, warm_s=1.0, seconds=4.0)
FULL: Final = Size({"deposit": 9, "deposit.16": 5}, warm_s=2.0, seconds=10.0)


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One round of one side. Processor seconds are per 1,000 requests."""

    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_s: float
    database_cpu_s: float


class Side(msgspec.Struct, frozen=True):
    """A taker of deposits: who is called, whose processor time counts, and what it still owes."""

    order: Order
    pid: int
    postmaster: int
    drained: Callable[[], Awaitable[None]]


class Deposits(msgspec.Struct, frozen=True):
    """All rounds of both sides, in the order they ran."""

    ours: tuple[Round, ...]
    floor: tuple[Round, ...]

    def median(self, name: str) -> tuple[float, float]:
        """The median of a column: ours and the floor's."""
        ours = median(getattr(each, name) for each in self.ours)
        return ours, median(getattr(each, name) for each in self.floor)


async def measure(ground: Ground, *, full: bool) -> list[Figure]:
    """Run both sides in turns, at each number of callers; the figures are medians of the rounds."""
    size = FULL if full else QUICK
    told: list[Figure] = []
    async with sides(ground, size) as (ours, floor):
        for callers, name in CALLERS.items():
            told += figures(name, await rounds(ours, floor, callers, size.rounds[name]))
    return told


def figures(name: str, played: Deposits) -> list[Figure]:
    """Requests a second against the target; times and processor seconds beside the floor's."""
    columns = [
        ("", "per_s", "requests/s"),
        (".p50", "p50_ms", "ms"),
        (".p99", "p99_ms", "ms"),
        (".cpu", "cpu_s", "processor s per 1,000"),
        (".cpu.database", "database_cpu_s", "processor s per 1,000"),
    ]
    made = []
    for suffix, column, unit in columns:
        ours, floor = played.median(column)
        target = TARGET if name + suffix == "deposit" else None
        made.append(Figure(name + suffix, ours, unit, floor, FLOOR, target))
    return made


async def rounds(ours: Side, floor: Side, callers: int, wanted: int) -> Deposits:
    """Rounds of both sides in turns; each begins as often as the other."""
    both = [
        msgspec.structs.replace(side, order=msgspec.structs.replace(side.order, callers=callers))
        for side in (ours, floor)
    ]
    played: tuple[list[Round], list[Round]] = ([], [])
    for number in range(wanted):
        for which in (0, 1) if number % 2 else (1, 0):
            played[which].append(await _round(both[which]))
    return Deposits(tuple(played[0]), tuple(played[1]))


@asynccontextmanager
async def sides(ground: Ground, size: Size) -> AsyncIterator[tuple[Side, Side]]:
    """The daemon and the floor, each a process of its own, with one provider between them."""
    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(ground.base())
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="brokerd-bench-")))
        owner = await asyncpg.connect(base.owner_dsn)
        stack.push_async_callback(owner.close)
        await owner.execute(MAKE_FLOOR)
        provider = await stack.enter_async_context(house.script("peers", ["psp"]))
        environ = {"FLOOR_DSN": base.daemon_dsn, "FLOOR_PROVIDER": provider.url}
        floor = await stack.enter_async_context(house.script("peers", ["floor"], environ))
        psps = {psp.id: provider.url for psp in house.rulebook().psps}
        secrets = house.secrets_in(folder, base, ground.redis_url)
        home = await stack.enter_async_context(
            house.opened(folder, secrets, psps, house.free_port(), CLIENTS)
        )
        order = Order(
            url=home.url, token=home.token, clients=home.clients, callers=0,
            warm_s=size.warm_s, seconds=size.seconds,
        )  # fmt: skip
        postmaster = parent(owner.get_server_pid())

        yield (
            Side(order, home.daemon.process.pid, postmaster, partial(drained, owner)),
            Side(msgspec.structs.replace(order, url=floor.url), floor.pid, postmaster, _nothing),
        )


async def _nothing() -> None:
    """The floor owes nothing after its answers."""


async def drained(owner: asyncpg.Connection) -> None:
    """Wait until what the deposits promised to tell is told."""
    async with asyncio.timeout(DRAIN_S):
        while await owner.fetchval(WAITING):
            await asyncio.sleep(0.05)


async def _round(side: Side) -> Round:
    before, database = cpu_s(side.pid), family_cpu_s(side.postmaster)
    played = await play(side.order)
    await side.drained()
    if set(played.statuses) != {"201"}:
        raise RuntimeError(f"not every deposit was answered 201: {played.statuses}")
    thousands = played.all / 1000
    return Round(
        per_s=played.per_s, p50_ms=played.p50_ms, p99_ms=played.p99_ms,
        cpu_s=(cpu_s(side.pid) - before) / thousands,
        database_cpu_s=(family_cpu_s(side.postmaster) - database) / thousands,
    )  # fmt: skip


async def play(order: Order) -> Played:
    """The caller, as a process of its own: its work is not ours, nor this one's."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadtests.caller", cwd=Path(__file__).parent.parent,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await process.communicate(msgspec.json.encode(order))
    if process.returncode:
        raise RuntimeError(f"the caller ended with {process.returncode}")
    return msgspec.json.decode(said, type=Played)


# --- processor time -----------------------------------------------------------------------------


def cpu_s(pid: int) -> float:
    """Processor seconds of a process so far, all its threads."""
    return sum(_stat(pid)[11:13]) / TICKS


def family_cpu_s(pid: int) -> float:
    """Processor seconds of a server that forks: its own, its ended and its living children's."""
    total = sum(_stat(pid)[11:15])
    for each in Path("/proc").glob("[0-9]*"):
        try:
            fields = _stat(int(each.name))
        except OSError:
            continue  # it ended meanwhile; its parent has its time
        if fields[1] == pid:
            total += sum(fields[11:13])
    return total / TICKS


def parent(pid: int) -> int:
    """The process that started this one."""
    return _stat(pid)[1]


def _stat(pid: int) -> Sequence[int]:
    """The numbers of /proc/PID/stat behind the state; [1] is the parent, [11:15] are ticks."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [0, *map(int, words[1:])]
