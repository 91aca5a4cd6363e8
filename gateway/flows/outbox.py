"""The outbox: what a unit of work promised to tell or ask, done by the lane's owner afterwards.

Knows numbering, order within an aggregate, pauses between tries, and the four ends of a row: done,
refused, unknown, dead. Refuses to know how a lane is spoken to: handlers are given by prefix
(`subscriber:` in `webhooks_out.py`, `psp:` in `refunds.py`).

A row that makes its handler fail is tried as often as one that is not heard, and ends dead with an
item; a lane that hangs keeps its own share of what is in hand, never its neighbours'.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final, Protocol

import asyncpg
import msgspec

from config.log import event
from config.rulebook import Outbox as Policy
from gateway.control.items import item_opened
from gateway.flows import queries as q
from gateway.flows.faults import away
from gateway.owners import Ownership
from ledger.facts import Entry
from ledger.ids import Ids
from ledger.lane import LaneFailed
from ledger.units import Change, Done, Kind, Left, Step, Unit, Why

log = logging.getLogger("gateway.outbox")

EMIT: Final = Kind("gateway.outbox.insert", Step.INSERT, q.EMIT)
MOVE: Final = Kind("gateway.outbox.move", Step.MOVE, q.MOVE_OUTBOX, q.LOOK_OUTBOX)
NUMBER_MAX: Final = 2000
IN_FLIGHT_MAX: Final = 128
LANE_IN_FLIGHT_MAX: Final = 16  # of one lane, so that one that hangs holds up nobody else
DUE_MAX: Final = 1000
LOST_LEASE_S: Final = 60.0  # when a row that asks for money is looked at again if its try is lost
POLL_S: Final = 0.25
ROUND_S: Final = 0.02  # between two looks at the table: what is promised meanwhile shares the next


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
    attempts: int  # with the one under way, while it is being handled
    created: datetime


class Ended(msgspec.Struct, frozen=True):
    """The row is over: `done`, `refused` or `dead`, with what belongs to its end."""

    state: str
    error: str = ""
    changes: tuple[Change, ...] = ()
    entries: tuple[Entry, ...] = ()


class Again(msgspec.Struct, frozen=True):
    """Not yet: try later. After the policy's last try the row is over and becomes an item.

    unknown  it may have had its effect: its end is then `unknown`, not `dead`
    """

    error: str
    unknown: bool = False


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

    policy    how often and how long to try, as the rulebook in force says
    handlers  by the prefix of the lane, up to and with its colon
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        lane: Submit,
        ownership: Ownership,
        policy: Callable[[], Policy],
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
        self._working: dict[int, str] = {}  # rows in hand, and their lanes

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
                    self._working[row.id] = row.lane
                    tasks.create_task(self._work(row))
                if not rows:
                    await self._pause()
                await asyncio.sleep(ROUND_S)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(POLL_S):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _due(self) -> list[Row]:
        """Give numbers, then read what is due and not in hand; [] while the database is away."""
        busy = dict(self._working)  # as before the read: what ends meanwhile is read as waiting
        try:
            async with self._pool.acquire() as conn:
                async with conn.transaction():
                    still = self._ownership.still()
                    if not await conn.fetchval(still.kind.sql, [still.row[0]]):
                        return []
                    await conn.execute(q.NUMBER, NUMBER_MAX, self._now())
                if len(busy) >= IN_FLIGHT_MAX:
                    return []
                found = await conn.fetch(q.DUE, self._now(), LANE_IN_FLIGHT_MAX, DUE_MAX)
        except Exception as error:
            if not away(error):
                raise
            event(log, "outbox.database_away", why=repr(error))
            await asyncio.sleep(POLL_S)
            return []
        return with_room([Row(**row) for row in found], busy)

    async def _work(self, row: Row) -> None:
        try:
            begun = await self._begun(row)
            if begun is not None:
                await self._store(begun, await self._handled(begun))
        except Exception as error:
            if not away(error):
                raise
            event(log, "outbox.database_away", id=row.id, why=repr(error))  # the row still waits
            await asyncio.sleep(POLL_S)
        finally:
            self._working.pop(row.id, None)
            self._wake.set()

    async def _begun(self, row: Row) -> Row | None:
        """The row with this try counted; None when it is not ours any more.

        What asks for money is counted before its first byte leaves, so that a try whose end was
        never stored is known to have been made. A second telling harms nobody: it is counted after.
        """
        if row.lane.startswith("subscriber:"):
            return msgspec.structs.replace(row, attempts=row.attempts + 1)
        due = self._now() + timedelta(seconds=LOST_LEASE_S)
        move = (str(row.id), row.version, "waiting", row.attempts + 1, due, None, "being asked")
        left = await self._lane.submit(Unit((self._ownership.still(), Change(MOVE, move))))
        if isinstance(left, Left):
            event(log, "outbox.left", id=row.id, lane=row.lane, why=left.why.value)
            return None
        return msgspec.structs.replace(row, version=row.version + 1, attempts=row.attempts + 1)

    async def _handled(self, row: Row) -> Ended | Again:
        """The handler's word; a failure of its own is a try that did not go well."""
        try:
            return await self._handlers[row.lane.partition(":")[0] + ":"](row)
        except Exception as error:
            if away(error):
                raise
            facts = {"id": row.id, "lane": row.lane, "tries": row.attempts}
            log.exception("outbox.handler_failed", extra={"facts": facts})
            return Again(f"{type(error).__name__}: {error}"[:200])

    async def _store(self, row: Row, result: Ended | Again) -> None:
        """The end of a try, in one unit with what belongs to it."""
        try:
            left = await self._lane.submit(self._ending(row, result))
        except LaneFailed as error:  # what belongs to the end cannot be written: a person must look
            left = await self._lane.submit(self._ending(row, Ended("dead", str(error)[:200])))
        if isinstance(left, Left) and left.why in (Why.EXISTS, Why.DIFFERS, Why.FLOOR):
            why = f"the books will not take it: {left.kind} {left.key} {left.why.value}"
            left = await self._lane.submit(self._ending(row, Ended("dead", why)))
        if isinstance(left, Left):  # another owner has it, or a person moved it: it is theirs
            event(log, "outbox.left", id=row.id, lane=row.lane, why=left.why.value)

    def _ending(self, row: Row, result: Ended | Again) -> Unit:
        """The unit that ends a try: the row's move, and what its end brings with it."""
        now = self._now()
        state, due, ended = "waiting", now, None
        extra: tuple[Change, ...] = ()
        entries: tuple[Entry, ...] = ()
        if isinstance(result, Ended):
            state, extra, entries, ended = result.state, result.changes, result.entries, now
            if state in ("refused", "dead"):
                extra += (self._item(row, f"{state}: {result.error}"),)
        elif row.attempts >= self._policy().attempts_max:
            state, ended = "unknown" if result.unknown else "dead", now
            extra = (self._item(row, f"given up: {result.error}"),)
        else:
            steps = self._policy().steps_s
            due = now + timedelta(seconds=steps[min(row.attempts, len(steps)) - 1])
        error = result.error[:500].replace("\0", "")
        move = (str(row.id), row.version, state, row.attempts, due, ended, error)
        return Unit((self._ownership.still(), Change(MOVE, move), *extra), entries)

    def _item(self, row: Row, why: str) -> Change:
        team = "integrations" if row.lane.startswith("subscriber:") else "payments"
        said = f"{row.kind} of {row.aggregate} {why[:200]}".replace("\0", "")
        return item_opened(
            self._ids.new("IT"),
            "outbox-ended",
            team,
            f"{row.lane}/{row.no}",
            said,
            self._now(),
            correlation=row.correlation,
        )


def with_room(rows: Iterable[Row], busy: Mapping[int, str]) -> list[Row]:
    """The rows that may be taken up beside those in hand, each lane within its share."""
    shares = Counter(busy.values())
    taken: list[Row] = []
    for row in rows:
        if len(busy) + len(taken) >= IN_FLIGHT_MAX:
            break
        if row.id not in busy and shares[row.lane] < LANE_IN_FLIGHT_MAX:
            shares[row.lane] += 1
            taken.append(row)
    return taken


async def events_after(
    conn: asyncpg.Connection, subscriber: str, after: int, limit: int, state: str = ""
) -> list[asyncpg.Record]:
    """A subscriber's events by number; a number is never given twice and none is left out.

    state  only those whose delivery stands there (`waiting`, `done`, `dead`); "" for all
    """
    lane = f"subscriber:{subscriber}"
    return list(await conn.fetch(q.EVENTS_AFTER, lane, after, limit, state))
