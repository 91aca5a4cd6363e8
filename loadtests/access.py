"""What a decision costs that asks for scope and duties, beside a whole deposit.

One decision is: narrow a caller of several grants to a permission, see whether the subject lies
within reach, and judge against the 34 conflicts what was read of a subject with 10,000 recorded
acts. `access` is its processor time beside that of a deposit request of the real daemon, measured
in the same run; `access.read` is the round trip before it, which only a decisive act of a person
makes: a deposit asks for scope alone (`access.scope`).
"""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Final

import asyncpg
import msgspec

from gateway.control import acts
from gateway.control.access import Caller, Held, Reach, Tags
from gateway.control.acts import Deed
from gateway.control.audit import Command
from gateway.control.duties import ACTIONS, BONDS, Act
from loadtests import deposit
from loadtests.figures import Figure
from loadtests.ground import Base, Ground

HISTORY: Final = 10_000
OWN: Final = 2_000  # of the history, acts of the very person who decides
TARGET: Final = 0.02
CALLERS: Final = 200
ROUNDS: Final = 5
DEPOSIT: Final = "a deposit's processor time"
SUBJECT: Final = "CL00000000000000000001"
NOW: Final = datetime(2026, 11, 22, 12, tzinfo=UTC)
DEED: Final = Deed("withdrawal.approve", SUBJECT, "AP1")
FILL: Final = """
INSERT INTO gateway.act (person, place, no, action, subject, case_id, at, actor, role, grant_id,
                         approval, correlation)
SELECT u.person, $1, row_number() OVER (PARTITION BY u.person), u.action, $1, '', u.at, u.person,
       'r', '', '', 'c'
FROM unnest($2::text[], $3::text[], $4::timestamptz[]) AS u(person, action, at)
"""


class Cost(msgspec.Struct, frozen=True):
    """Microseconds: of a decision, of reading for it, and of that in the database."""

    decision: float
    reading: float
    database: float


async def measure(ground: Ground, *, full: bool) -> list[Figure]:
    """The decision, its parts, and the deposit it is set beside."""
    wanted = 20_000 if full else 4_000
    async with ground.base() as base:
        cost = await _decisions(base, wanted)
    scope = _scope_us(wanted * 10)
    deposit_us = await deposit_cost_us(ground, full=full)
    return [
        Figure("access", cost.decision, "us a decision", deposit_us, DEPOSIT, TARGET, most=True),
        Figure("access.scope", scope, "us a request", deposit_us, DEPOSIT),
        Figure("access.read", cost.reading, "us a decision", deposit_us, DEPOSIT),
        Figure("access.read.database", cost.database, "us a decision"),
    ]


def _caller() -> Caller:
    """Somebody with several grants, the one that counts last."""
    grants = tuple(
        Held(f"GR{n}", f"role{n}", frozenset({f"a{n}:read", f"b{n}:read"}), Reach())
        for n in range(3)
    )
    entities = Reach(entities=frozenset({"fx-eu", "fx-int"}))
    last = Held("GR9", "finance", frozenset({"withdrawals:approve", "clients:read"}), entities)
    return Caller(key_id="KY1", person="ann", owner="ann", grants=(*grants, last))


TAGS: Final = Tags("fx-eu", "northgate")


def _allowed(caller: Caller) -> Caller:
    narrowed = caller.narrowed("withdrawals:approve")
    assert narrowed.reaches(TAGS)
    return narrowed


def _scope_us(wanted: int) -> float:
    """Microseconds of asking for the scope and the reach."""
    caller = _caller()
    before = time.process_time()
    for _ in range(wanted):
        _allowed(caller)
    return (time.process_time() - before) / wanted * 1e6


def _history() -> list[Act]:
    """Acts on one subject: most by others, and none that stands in the decision's way."""
    chance = random.Random(HISTORY)
    harmless = sorted(ACTIONS.keys() - BONDS[DEED.action].subject.keys() - {DEED.action})
    people = [*["ann"] * OWN, *(f"person{n % 40}" for n in range(HISTORY - OWN))]
    return [
        Act(who, chance.choice(harmless if who == "ann" else sorted(ACTIONS)), SUBJECT, "",
            NOW - timedelta(minutes=chance.randrange(120_000)))
        for who in people
    ]  # fmt: skip


async def _decisions(base: Base, wanted: int) -> Cost:
    """Read and decide, again and again, on one connection."""
    owner = await asyncpg.connect(base.owner_dsn)
    conn = await asyncpg.connect(base.daemon_dsn)
    try:
        acts_done = _history()
        columns = [list(column) for column in zip(*map(_row, acts_done), strict=True)]
        await owner.execute(FILL, SUBJECT, *columns)
        await owner.execute("ANALYZE gateway.act")
        costs = [await _round(conn, wanted // ROUNDS) for _ in range(ROUNDS + 1)]
        parts = zip(*map(msgspec.structs.astuple, costs[1:]), strict=True)  # the first warms up
        return Cost(*(median(part) for part in parts))
    finally:
        await conn.close()
        await owner.close()


def _row(act: Act) -> tuple[str, str, datetime]:
    return act.person, act.action, act.at


async def _round(conn: asyncpg.Connection, each: int) -> Cost:
    """Processor time of so many readings, then of so many decisions on what was read."""
    caller, backend = _caller(), conn.get_server_pid()
    command = Command(caller, "why", "CR1", NOW)
    heads = await acts.read(conn, command, DEED)
    started, behind = time.process_time(), deposit.cpu_s(backend)
    for _ in range(each):
        heads = await acts.read(conn, command, DEED)
    middle, ahead = time.process_time(), deposit.cpu_s(backend)
    for _ in range(each):
        allowed = Command(_allowed(caller), "why", "CR1", NOW)
        assert acts.decided(allowed, heads, DEED, approval="AP1")
    ended = time.process_time()
    took = (ended - middle, middle - started, ahead - behind)
    return Cost(*(seconds / each * 1e6 for seconds in took))


async def deposit_cost_us(ground: Ground, *, full: bool) -> float:
    """Microseconds of processor time of the daemon for one deposit, as its own bench has it."""
    size = deposit.FULL if full else deposit.QUICK
    async with deposit.sides(ground, size) as (ours, floor):
        played = await deposit.rounds(ours, floor, CALLERS, 3)
    return played.median("cpu_s")[0] * 1000  # seconds per 1,000 are milliseconds each
