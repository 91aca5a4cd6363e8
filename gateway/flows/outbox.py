"""The outbox: what a unit of work promised to tell or ask, done by the lane's owner afterwards.

Knows numbering, order within an aggregate, pauses between tries, and the four ends of a row: done,
refused, unknown, dead. Refuses to know how a lane is spoken to: handlers are given by prefix
(`subscriber:` in `webhooks_out.py`, `psp:` in `refunds.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Final, Protocol

import asyncpg
import msgspec

from config.log import event
from config.rulebook import Outbox as Policy
from gateway.control.items import item_opened
from gateway.flows import queries as q
from gateway.owners import Ownership
from ledger.facts import Entry
from ledger.ids import Ids
from ledger.units import Change, Done, Kind, Left, Step, Unit

log = logging.getLogger("gateway.outbox")

EMIT: Final = Kind("gateway.outbox.insert", Step.INSERT, q.EMIT)
MOVE: Final = Kind("gateway.outbox.move", Step.MOVE, q.MOVE_OUTBOX, q.LOOK_OUTBOX)
NUMBER_MAX: Final = 2000
IN_FLIGHT_MAX: Final = 32
POLL_S: Final = 0.25


class Submit(Protocol):
    """The lane, as flows see it."""

    def submit(self, unit: Unit) -> Awaitable[Done | Left]:
        """Commit the unit, or leave it out and say why."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A waiting row. `body` is JSON text; `no` its number among all of its lane."""

    id: int
    version: int
    lane: str
    no: int
    kind: str
    aggregate: str
    body: str
    correlation: str
    attempts: int
    created: datetime


class Ended(msgspec.Struct, frozen=True):
    """The row is over: `done`, `refused` or `dead`, with what belongs to its end."""

    state: str
    error: str = ""
    changes: tuple[Change, ...] = ()
    entries: tuple[Entry, ...] = ()


class Again(msgspec.Struct, frozen=True):
    """Not yet: try later. After the policy's last try the row is dead and becomes an item."""

    error: str


Handler = Callable[[Row], Awaitable[Ended | Again]]


class Emitter:
    """Makes outbox rows for units of work. now: the wall clock, UTC."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now

    def __call__(
        self, subscriber: str, kind: str, aggregate: str, body: bytes, correlation: str = ""
    ) -> Change:
        """Tell a calling system of a change; `body` is the JSON of the object as it is now."""
        return self.ask(f"subscriber:{subscriber}", kind, aggregate, body, correlation)

    def ask(self, lane: str, kind: str, aggregate: str, body: bytes, correlation: str) -> Change:
        """A row of any lane."""
        row = (lane, kind, aggregate, body.decode(), correlation, self._now())
        return Change(EMIT, row)


class Outbox:
    """Works all lanes of the outbox while we own them.

    handlers  by the prefix of the lane, up to and with its colon
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        lane: Submit,
        ownership: Ownership,
        policy: Policy,
        handlers: Mapping[str, Handler],
        ids: Ids,
        now: Callable[[], datetime],
    ) -> None:
        self._pool = pool
        self._lane = lane
        self._ownership = ownership
        self._policy = policy
        self._handlers = handlers
        self._ids = ids
        self._now = now
        self._wake = asyncio.Event()
        self._working: set[int] = set()

    def wake(self) -> None:
        """Something was committed here that may be told now."""
        self._wake.set()

    async def run(self) -> None:
        """Number and work rows until cancelled; several at once, one for each aggregate."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                rows = await self._due()
                for row in rows:
                    self._working.add(row.id)
                    tasks.create_task(self._work(row))
                if not rows:
                    await self._pause()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(POLL_S):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _due(self) -> list[Row]:
        """Give numbers, then read what is due and not in hand; [] while the database is away."""
        busy = set(self._working)  # as before the read: what ends meanwhile is read as waiting
        room = IN_FLIGHT_MAX - len(busy)
        try:
            async with self._pool.acquire() as conn:
                async with conn.transaction():
                    still = self._ownership.still()
                    if not await conn.fetchval(still.kind.sql, [still.row[0]]):
                        return []
                    await conn.execute(q.NUMBER, NUMBER_MAX)
                found = await conn.fetch(q.DUE, self._now(), IN_FLIGHT_MAX) if room > 0 else []
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            event(log, "outbox.database_away", why=repr(error))
            await asyncio.sleep(POLL_S)
            return []
        return [Row(**row) for row in found if row["id"] not in busy][:room]

    async def _work(self, row: Row) -> None:
        try:
            result = await self._handlers[row.lane.partition(":")[0] + ":"](row)
            await self._store(row, result)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            event(log, "outbox.database_away", id=row.id, why=repr(error))  # the row still waits
        finally:
            self._working.discard(row.id)
            self._wake.set()

    async def _store(self, row: Row, result: Ended | Again) -> None:
        """The end of a try, in one unit with what belongs to it."""
        now, tries = self._now(), row.attempts + 1
        state, due, ended = "waiting", now, None
        extra: tuple[Change, ...] = ()
        entries: tuple[Entry, ...] = ()
        if isinstance(result, Ended):
            state, extra, entries, ended = result.state, result.changes, result.entries, now
            if state == "refused":
                extra += (self._item(row, f"refused: {result.error}"),)
        elif tries >= self._policy.attempts_max:
            state, ended = "dead", now
            extra = (self._item(row, f"given up: {result.error}"),)
        else:
            steps = self._policy.steps_s
            due = now + timedelta(seconds=steps[min(tries, len(steps)) - 1])
        move = (str(row.id), row.version, state, tries, due, ended, result.error[:500])
        unit = Unit((self._ownership.still(), Change(MOVE, move), *extra), entries)
        left = await self._lane.submit(unit)
        if isinstance(left, Left):  # another owner has it, or a person moved it: it is theirs
            event(log, "outbox.left", id=row.id, lane=row.lane, why=left.why.value)

    def _item(self, row: Row, why: str) -> Change:
        team = "integrations" if row.lane.startswith("subscriber:") else "payments"
        said = f"{row.kind} of {row.aggregate} {why[:200]}"
        return item_opened(
            self._ids.new("IT"),
            "outbox-ended",
            team,
            f"{row.lane}/{row.no}",
            said,
            self._now(),
            correlation=row.correlation,
        )


async def events_after(
    conn: asyncpg.Connection, subscriber: str, after: int, limit: int
) -> list[asyncpg.Record]:
    """A subscriber's events by number; a number is never given twice and none is left out."""
    return list(await conn.fetch(q.EVENTS_AFTER, f"subscriber:{subscriber}", after, limit))
