"""Live balances: one hub a replica reads what moved and hands it to everyone who watches.

Knows who watches which contracts, how often they may be told, and when a day ends. Refuses to add
anything up: every number is read from the ledger after its commit, so nothing is ever shown that is
rolled back, and a word that was lost costs time and never a number.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Protocol

import asyncpg
import msgspec

from config.log import event as say
from gateway.control.refusals import Refusal
from gateway.flows import live_events
from gateway.flows import queries_live as q
from gateway.flows.faults import away
from gateway.flows.live_events import Event
from gateway.flows.waking import Channel, Moved
from ledger.rebates import reads
from ledger.rebates.reads import ContractBalances

log = logging.getLogger("gateway.live")

READ_S: Final = 5.0
READ_MAX: Final = 2_000  # contracts in one statement
SLICE: Final = 256  # readers told before the loop serves others: some 3 ms
UNWATCHED_MAX: Final = 200_000  # contracts that are known not to be watched
STRANGE_MAX: Final = 10_000
DAY_TURNS_S: Final = 60  # clocks of replicas differ by less

Contract = tuple[int, str]
Contracts = tuple[tuple[int, str, str], ...]  # book, id, currency


class Committed(Protocol):
    """A batch whose lines are booked: which contracts they moved, and when."""

    @property
    def book(self) -> int:
        """The book."""
        ...

    @property
    def contracts(self) -> tuple[str, ...]:
        """The contracts that have new lines."""
        ...

    @property
    def at(self) -> datetime:
        """When it was booked."""
        ...


class Reader(Protocol):
    """Somebody who watches. Nothing here may wait: one slow reader holds up nobody else."""

    @property
    def owner(self) -> str:
        """Whose credential it is: a calling system's, or a partner's who visits."""
        ...

    @property
    def places(self) -> int:
        """How many streams its owner may have here."""
        ...

    @property
    def gone(self) -> bool:
        """Whether nobody reads any more."""
        ...

    def take(self, event: Event) -> None:
        """The newest state; what was not sent yet is forgotten."""
        ...

    def unchanged(self) -> None:
        """What the reader had before is how it is now."""
        ...

    def look_again(self) -> None:
        """There may be another contract within reach."""
        ...

    def end(self, retry_ms: int) -> None:
        """Come back later, elsewhere."""
        ...


class Observer(Protocol):
    """What is counted."""

    def watched(self, readers: int) -> None:
        """So many watch now."""
        ...

    def told(self, readers: int, seconds: float | None) -> None:
        """An event went to so many; seconds since its commit where a commit caused it."""
        ...


class LiveLimits(msgspec.Struct, frozen=True):
    """The figures of the hub and of each stream.

    owner_max     streams of one calling system: the rest is for others
    visitor_max   streams of one partner who visits, in all their windows
    per_s         events a second of one partner
    poll_s        how often the ledger is read while no word comes from other replicas
    ping_s        a stream says at least that it lives; so often the ledger is read anyway, too,
                  because a word may be lost
    write_s       how long what was sent may stand unread before the reader is dropped
    socket_bytes  what the system buffers for one reader: beyond it we notice that nobody reads
    """

    subscribers_max: int = 5_000
    owner_max: int = 4_000
    visitor_max: int = 20
    per_s: float = 4.0
    poll_s: float = 1.0
    ping_s: float = 15.0
    write_s: float = 10.0
    socket_bytes: int = 16_384


class _Watch:
    """The contracts of one partner that some readers see."""

    __slots__ = ("contracts", "day", "due", "held", "new", "partner", "readers", "since")

    def __init__(self, partner: str, contracts: Contracts) -> None:
        self.partner = partner
        self.contracts = contracts
        self.readers: dict[Reader, None] = {}
        self.new: dict[Reader, int | None] = {}  # not told anything yet; the id they came with
        self.due = 0.0  # not before: so many a second
        self.since: datetime | None = None  # the oldest commit that was not told
        self.held: tuple[ContractBalances, ...] = ()  # what was told last, of which day
        self.day: date | None = None


class Live:
    """The hub."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        channel: Channel,
        limits: LiveLimits,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        observer: Observer,
    ) -> None:
        self._pool = pool
        self._channel = channel
        self.limits = limits
        self._now = now
        self._monotonic = monotonic
        self._observer = observer
        self._watches: dict[tuple[str, Contracts], _Watch] = {}
        self._watching: dict[str, dict[_Watch, None]] = {}  # by contract
        self._moved: dict[_Watch, None] = {}  # to be read
        self._strange: set[str] = set()  # contracts that moved and that nobody watches
        self._unwatched: set[str] = set()  # those of which that is known
        self._stirred = asyncio.Event()
        self._readers = 0
        self._owned: Counter[str] = Counter()  # readers by owner
        self._day = self._today()
        self._looked = self._read_all = monotonic()
        self._trouble = ""
        self._closing = False

    # --- readers --------------------------------------------------------------------------------

    def watch(
        self, partner: str, contracts: Contracts, reader: Reader, last: int | None = None
    ) -> None:
        """Tell `reader` how these contracts stand, now and whenever they move, until it leaves.

        last  the id of the event the reader had last, where it had one
        Raises Refusal `overloaded` when too many watch, `limit-exceeded` when its owner has too
        many.
        """
        if self._closing or self._readers >= self.limits.subscribers_max:
            raise Refusal("overloaded", "too many streams are open", {"retry_after_s": 5})
        if self._owned[reader.owner] >= reader.places:
            said = f"you have {reader.places} streams open"
            raise Refusal("limit-exceeded", said, {"retry_after_s": 5})
        watch = self._watches.get((partner, contracts))
        if watch is None:
            watch = self._watches[partner, contracts] = _Watch(partner, contracts)
            for _, contract, _ in contracts:
                self._watching.setdefault(contract, {})[watch] = None
        watch.readers[reader] = None
        watch.new[reader] = last
        self._count(reader, 1)
        self._stir([watch])

    def leave(self, partner: str, contracts: Contracts, reader: Reader) -> None:
        """Whatever happens, `reader` is not told of it."""
        watch = self._watches.get((partner, contracts))
        if watch is None or reader not in watch.readers:
            return
        del watch.readers[reader]
        watch.new.pop(reader, None)
        self._count(reader, -1)
        if not watch.readers:
            self._forget(watch)

    def _forget(self, watch: _Watch) -> None:
        del self._watches[watch.partner, watch.contracts]
        self._moved.pop(watch, None)
        for _, contract, _ in watch.contracts:
            watching = self._watching[contract]
            del watching[watch]
            if not watching:
                del self._watching[contract]

    def close(self) -> None:
        """Send all readers away; they come back at different moments."""
        self._closing = True
        readers = [each for watch in self._watches.values() for each in watch.readers]
        for number, reader in enumerate(readers):
            reader.end(500 + 100 * (number % 40))

    def trouble(self) -> str:
        """What is wrong: numbers come later than they should, never wrong."""
        if self._trouble:
            return self._trouble
        return "" if self._channel.heard else "no word from other replicas: reads the ledger"

    def _count(self, reader: Reader, change: int) -> None:
        self._readers += change
        self._owned[reader.owner] += change
        if not self._owned[reader.owner]:
            del self._owned[reader.owner]
        self._observer.watched(self._readers)

    # --- what moved -----------------------------------------------------------------------------

    def told(self, committed: Committed) -> None:
        """A batch was committed here: read its contracts, and have the other replicas read them."""
        moved = Moved(committed.book, committed.contracts, committed.at)
        self._channel.tell(moved)
        self.hear(moved)

    def hear(self, moved: Moved) -> None:
        """Contracts moved: whoever watches them will be told."""
        if not self._watches:
            return
        for contract in moved.contracts:
            watches = self._watching.get(contract)
            if watches is not None:
                self._stir(watches, moved.at)
            elif contract not in self._unwatched and len(self._strange) < STRANGE_MAX:
                self._strange.add(contract)
                self._stirred.set()

    def _stir(self, watches: Iterable[_Watch], at: datetime | None = None) -> None:
        for watch in watches:
            self._moved[watch] = None
            if watch.since is None:
                watch.since = at
        self._stirred.set()

    def _all(self) -> None:
        self._read_all = self._monotonic()
        self._stir(self._watches.values())

    # --- the loop -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._channel.run(self.hear, self._all), name="waking")
            tasks.create_task(self._serve(), name="live")

    async def _serve(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._wait_s()):
                    await self._stirred.wait()
            except TimeoutError:
                pass  # nothing moved; a clock did
            self._stirred.clear()
            self._look_round()
            try:
                await self._turn()
            except Exception as error:
                if not away(error):
                    raise
                self._troubled(repr(error))
                await asyncio.sleep(self.limits.poll_s)

    def _wait_s(self) -> float:
        """Until the next watch that moved may be told, and no longer than a poll."""
        now = self._monotonic()
        dues = [0.0 if watch.new else watch.due - now for watch in self._moved]
        return max(0.0, min([self.limits.poll_s, *dues]))

    def _look_round(self) -> None:
        """Each poll: let go who is gone, and have all read after midnight or for want of word."""
        now = self._monotonic()
        if now - self._looked < self.limits.poll_s:
            return
        self._looked = now
        for watch in self._watches.values():
            for reader in watch.readers:
                if reader.gone:
                    reader.end(0)
        today = self._today()
        patience = self.limits.ping_s if self._channel.heard else self.limits.poll_s
        if today != self._day or now - self._read_all >= patience:
            self._day = today
            self._all()

    async def _turn(self) -> None:
        """Read what moved and may be told now, and tell it."""
        if self._strange:
            await self._look_up()
        now = self._monotonic()
        due = [watch for watch in self._moved if watch.new or watch.due <= now]
        for watch in due:
            del self._moved[watch]  # what moves from here on is read again
        try:
            for some in _portions(due):
                await self._tell(some)
        except BaseException:
            self._stir(watch for watch in due if watch.readers)
            raise
        if due:
            self._troubled("")

    async def _look_up(self) -> None:
        """Whose are contracts that nobody watches? A partner who is watched may have a new one."""
        strange, self._strange = self._strange, set()
        try:
            async with asyncio.timeout(READ_S), self._pool.acquire() as conn:
                rows = await conn.fetch(q.PARTNERS_OF_CONTRACTS, list(strange))
        except BaseException:
            self._strange |= strange
            raise
        if len(self._unwatched) + len(strange) > UNWATCHED_MAX:
            self._unwatched.clear()
        self._unwatched |= strange
        partners = {row["partner_id"] for row in rows}
        for watch in self._watches.values():
            if watch.partner in partners:
                for reader in watch.readers:
                    reader.look_again()

    # --- reading and telling --------------------------------------------------------------------

    async def _tell(self, watches: Sequence[_Watch]) -> None:
        """Read their contracts in one statement, then tell each of their readers."""
        today = self._today()
        held, quiet = await self._read(watches, today)
        done = 0
        for watch in watches:
            stands = tuple(
                [_in_currency(held[book, id], unit) for book, id, unit in watch.contracts]
            )
            since = watch.since
            event, readers = self._decide(watch, stands, today, quiet=watch in quiet)
            for reader in readers:
                assert event is not None
                reader.take(event)
                done += 1
                if done % SLICE == 0:
                    await asyncio.sleep(0)
            if readers:
                self._observer.told(len(readers), self._waited(since, watch.since))
            elif (done := done + 1) % SLICE == 0:
                await asyncio.sleep(0)

    async def _read(
        self, watches: Sequence[_Watch], today: date
    ) -> tuple[Mapping[Contract, ContractBalances], frozenset[_Watch]]:
        """How the contracts stand; and which watches stand as anyone knows who knows their id."""
        wanted = _contracts(watches)
        back = [watch for watch in watches if any(id is not None for id in watch.new.values())]
        async with asyncio.timeout(READ_S), self._pool.acquire() as conn:
            held = dict(
                zip(wanted, await reads.contract_balances(conn, wanted, today), strict=True)
            )
            if not back:
                return held, frozenset()
            silent = await reads.moved_silently(conn, _contracts(back))
        return held, frozenset(
            watch for watch in back
            if silent.isdisjoint(_contracts([watch]))
            and _of_this_day([held[each] for each in _contracts([watch])], today)
        )  # fmt: skip

    def _decide(
        self, watch: _Watch, stands: tuple[ContractBalances, ...], today: date, *, quiet: bool
    ) -> tuple[Event | None, list[Reader]]:
        """The event of a watch and who is told it: whoever is new, and all when it moved."""
        moved = (stands, today) != (watch.held, watch.day)
        if not moved and not watch.new:
            watch.since = None
            return None, []
        event = live_events.event(watch.partner, today, stands)
        new, watch.new = watch.new, {}
        readers = []
        for reader, last in new.items():
            if quiet and last == event.id:
                reader.unchanged()
            else:
                readers.append(reader)
        now = self._monotonic()
        if moved and watch.due > now:
            self._stir([watch])  # the others were told a moment ago: their turn comes
            return event, readers
        watch.since = None
        if moved:
            readers += [each for each in watch.readers if each not in new]
            watch.held, watch.day, watch.due = stands, today, now + 1 / self.limits.per_s
        return event, readers

    def _today(self) -> date:
        return self._now().astimezone(UTC).date()

    def _waited(self, since: datetime | None, still: datetime | None) -> float | None:
        """Seconds since the commit that was told, if one was; `still` is one that waits on."""
        if since is None or still is not None:
            return None
        return max(0.0, (self._now() - since).total_seconds())

    def _troubled(self, why: str) -> None:
        if why and not self._trouble:
            say(log, "live.database_away", logging.WARNING, why=why)
        self._trouble = why


def _in_currency(held: ContractBalances, unit: str) -> ContractBalances:
    """A contract that never had an account has a currency all the same."""
    return held if held.currency else msgspec.structs.replace(held, currency=unit)


def _contracts(watches: Iterable[_Watch]) -> list[Contract]:
    """Their contracts, each once."""
    return list(dict.fromkeys((book, id) for watch in watches for book, id, _ in watch.contracts))


def _portions(watches: Sequence[_Watch]) -> Iterator[list[_Watch]]:
    """Watches whose contracts fit one statement; nearly always all of them."""
    portion: list[_Watch] = []
    size = 0
    for watch in watches:
        if portion and size + len(watch.contracts) > READ_MAX:
            yield portion
            portion, size = [], 0
        portion.append(watch)
        size += len(watch.contracts)
    if portion:
        yield portion


def _of_this_day(held: Sequence[ContractBalances], today: date) -> bool:
    """Whether `today` was this day's when they moved last: they moved after midnight, or never."""
    at = live_events.newest(held)
    turned = datetime.combine(today, time(), UTC) + timedelta(seconds=DAY_TURNS_S)
    return at is None or at >= turned
