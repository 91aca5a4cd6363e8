"""From the feed into the books: each deal booked once in its book, or waiting with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import asyncpg
import msgspec
import pytest
import pytest_asyncio
from msgspec.structs import replace

from bridge.mt5.deals import Unfit
from gateway.flows import landing
from gateway.flows.landing import Landings
from gateway.flows.platform import Platform
from gateway.owners import Ownership
from ledger.connections import connect_writer
from ledger.deals import Fenced, Landed
from ledger.facts import Deal
from ledger.verdicts import LOT
from tests.integration.flows.conftest import WAIT_S, House, Replica, running
from tests.integration.flows.platform import Wire
from tests.integration.ledger.conftest import Link
from tests.unit.ledger.values import balance_deal, deal

SERVER = "mt5-live"
SYMBOLS = frozenset({"EURUSD", "GBPUSD"})


def never(sql: str) -> str:
    """A connection that never breaks."""
    return ""


class Side:
    """One owner's landings on a server."""

    def __init__(self, house: House, replica: Replica, symbols: frozenset[str] = SYMBOLS) -> None:
        self.house = house
        self.owns: Ownership = replica.ownership(f"platform:{SERVER}")
        self.woken: list[tuple[int, ...]] = []
        self.done: list[Landed] = []
        self.breaks: Callable[[str], str] = never
        self.landings = Landings(
            server=SERVER, ownership=self.owns, connect=self.connect, symbols=lambda: symbols,
            ids=house.ids, now=house.clock.now, on_landed=self.woken.append, observer=self,
        )  # fmt: skip

    def landed(self, server: str, done: Landed) -> None:
        """As the observer's."""
        self.done.append(done)

    async def connect(self) -> Any:
        """A writer's connection that may be told to break."""
        conn = await connect_writer(self.house.database.daemon_dsn)
        self.house.database.opened.append(conn)
        return Link(conn, self._breaks)

    def _breaks(self, sql: str) -> str:
        return self.breaks(sql)

    async def own(self) -> None:
        """Take the server and begin, for as long as the test runs."""
        work: partial[Any] = partial(asyncio.Event().wait)
        await self.house.stack.enter_async_context(running(partial(self.owns.run, work)))
        async with asyncio.timeout(WAIT_S):
            await self.owns._held.wait()
        assert await self.landings.opened() in (b"{}", b'{"n": 1}')

    async def land(self, *seen: Deal, unfit: tuple[Unfit, ...] = ()) -> Landed:
        """As the feed calls it."""
        async with asyncio.timeout(WAIT_S):
            return await self.landings.land(seen, unfit, b'{"n": 1}')


@pytest_asyncio.fixture
async def side(house: House, one: Replica) -> AsyncIterator[Side]:
    """The owner's side."""
    made = Side(house, one)
    await made.own()
    yield made
    made.landings._hang_up()


async def rows(house: House) -> list[tuple[Any, ...]]:
    """The landed deals."""
    sql = "SELECT book_id, no, ticket, version FROM ledger.deal ORDER BY book_id, no"
    return [tuple(row) for row in await house.rows(sql)]


async def waiting(house: House) -> list[tuple[Any, ...]]:
    """What waits: ticket, reason, subject."""
    sql = "SELECT ticket, reason, subject FROM ledger.deal_parked WHERE landed IS NULL"
    return [tuple(row) for row in await house.rows(f"{sql} ORDER BY parked")]


async def items(house: House) -> list[tuple[str, str]]:
    """Items about deals: subject and state."""
    sql = "SELECT subject, state FROM gateway.item WHERE kind = 'deal-parked' ORDER BY id"
    return [tuple(row) for row in await house.rows(sql)]


async def mine(house: House, one: Replica, ticket: int = 1, **changes: Any) -> Deal:
    """A deal of today by a login that is known."""
    login = changes.pop("login", None) or (await house.account(one)).login
    at = house.clock.now().replace(microsecond=0)
    return deal(ticket, at=at, login=login, **changes)


async def account_with(house: House, one: Replica, login: int) -> None:
    """An account of the client with this login appears."""
    made = await house.account(one)
    owner = await house.database.connect(owner=True)
    await owner.execute("UPDATE bridge.account SET login = $2 WHERE id = $1", made.id, login)


async def test_deals_are_booked_and_accrual_is_woken(
    house: House, one: Replica, side: Side
) -> None:
    """A trade and money without a trade are booked with the cursor; a repeat wakes nobody."""
    trade = await mine(house, one)
    money = replace(balance_deal(2), login=trade.login, at=trade.at)

    done = await side.land(trade, money)

    assert (done.new, done.parked) == (2, 0)
    assert await rows(house) == [(1, 1, 1, 1), (1, 2, 2, 1)]
    assert side.woken == [(1,)]
    assert await house.value("SELECT cursor::text FROM ledger.feed_cursor") == '{"n": 1}'
    assert (await side.land(trade, money)).repeated == 2
    assert side.woken == [(1,)]
    assert [each.new for each in side.done] == [2, 0]
    assert await items(house) == []
    assert await house.wrong() == []


async def test_each_login_lands_in_its_own_book(house: House, one: Replica, side: Side) -> None:
    """Two entities share a server: numbers are dense in each of their books."""
    ours, theirs = await mine(house, one, 1), await mine(house, one, 2)
    owner = await house.database.connect(owner=True)
    await owner.execute("UPDATE bridge.account SET book = 2 WHERE login = $1", theirs.login)
    await side.land(ours, theirs, replace(ours, ticket=3), replace(theirs, ticket=4))
    assert await rows(house) == [(1, 1, 1, 1), (1, 2, 3, 1), (2, 1, 2, 1), (2, 2, 4, 1)]
    assert side.woken == [(1, 2)]


async def test_an_unknown_login_waits_until_the_account_exists(
    house: House, one: Replica, side: Side
) -> None:
    """Its deals wait with one item, in the order they were seen; the account made, they are
    booked once and the item is closed.
    """
    first = deal(1, at=house.clock.now(), login=7001)
    edited = replace(first, comment="edited")
    assert (await side.land(first, replace(first, ticket=2))).parked == 2
    assert (await side.land(edited, first)).parked == 1
    assert await rows(house) == []
    assert await items(house) == [(f"{SERVER}:unknown-login:{first.login}", "open")]
    await side.landings.unpark()
    assert len(await waiting(house)) == 3

    await account_with(house, one, first.login)
    await side.landings.unpark()

    assert await rows(house) == [(1, 1, 1, 1), (1, 2, 2, 1), (1, 3, 1, 2)]
    assert await waiting(house) == []
    assert await items(house) == [(f"{SERVER}:unknown-login:{first.login}", "resolved")]
    assert side.woken == [(1,)]
    assert (await side.land(edited)).repeated == 1
    assert await house.value("SELECT cursor::text FROM ledger.feed_cursor") == '{"n": 1}'


async def test_an_unknown_symbol_waits_until_the_rulebook_has_it(
    house: House, one: Replica, two: Replica, side: Side
) -> None:
    """The next owner, whose rulebook names the symbol, books it by itself."""
    odd = await mine(house, one, symbol="XAUUSD")
    await side.land(odd)
    assert await waiting(house) == [(1, "unknown-symbol", "XAUUSD")]
    await side.landings.unpark()
    assert await rows(house) == []

    side.owns._connect = never_again  # the first owner is gone
    await house.pool.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'owner'"
    )
    later = Side(house, two, SYMBOLS | {"XAUUSD"})
    await later.own()
    async with running(later.landings.run):
        await house.until(lambda: rows(house))
        await house.until(lambda: _resolved(house))
    assert await rows(house) == [(1, 1, 1, 1)]
    assert await items(house) == [(f"{SERVER}:unknown-symbol:XAUUSD", "resolved")]


async def never_again() -> asyncpg.Connection:
    """A server that is gone."""
    raise ConnectionRefusedError


async def _resolved(house: House) -> bool:
    return all(state == "resolved" for _, state in await items(house))


async def test_a_login_found_of_a_symbol_unknown_waits_for_the_symbol(
    house: House, one: Replica, side: Side
) -> None:
    """One cause gone, another met: the row waits on, the first item closes, the second opens."""
    odd = deal(1, at=house.clock.now(), login=7001, symbol="XAUUSD")
    await side.land(odd)
    await account_with(house, one, odd.login)
    await side.landings.unpark()
    assert await waiting(house) == [(1, "unknown-symbol", "XAUUSD")]
    assert await items(house) == [
        (f"{SERVER}:unknown-login:{odd.login}", "resolved"),
        (f"{SERVER}:unknown-symbol:XAUUSD", "open"),
    ]


async def test_without_symbols_in_the_rulebook_every_symbol_is_known(
    house: House, one: Replica
) -> None:
    """A rulebook without symbol groups parks nothing for its symbol."""
    side = Side(house, one, frozenset())
    await side.own()
    assert (await side.land(await mine(house, one, symbol="XAUUSD"))).new == 1


@pytest.mark.parametrize(
    "change",
    [{"volume": 10_001 * LOT}, {"symbol": ""}, {"at": timedelta(days=3)}, {"profit": 10**18},
     {"comment": "a\0b"}, {"ticket": 2**64}],
    ids=str,
)  # fmt: skip
async def test_absurd_values_never_reach_the_books(
    house: House, one: Replica, side: Side, change: dict[str, Any]
) -> None:
    """The deal waits with an item, its neighbours are booked; put right on the platform, its next
    look is booked and the item closed.
    """
    good = await mine(house, one, 1)
    if isinstance(step := change.get("at"), timedelta):
        change = {"at": good.at + step}
    odd = msgspec.structs.replace(good, **({"ticket": 2} | change))

    done = await side.land(odd, good)

    assert (done.new, done.parked) == (1, 1)
    assert await rows(house) == [(1, 1, 1, 1)]
    (found,) = await waiting(house)
    assert found[1:] == ("absurd-value", str(odd.ticket))
    assert await items(house) == [(f"{SERVER}:absurd-value:{odd.ticket}", "open")]
    if odd.ticket == 2:
        await side.land(replace(good, ticket=2))
        assert await waiting(house) == []
        assert await items(house) == [(f"{SERVER}:absurd-value:2", "resolved")]


async def test_a_row_that_cannot_be_read_waits_for_a_fit_look(
    house: House, one: Replica, side: Side
) -> None:
    """It is kept as it came, however often it comes, until the ticket can be read."""
    unfit = Unfit(ticket=5, why="Price is not a number", raw='{"Deal":"5","Price":"x')
    assert (await side.land(unfit=(unfit,))).parked == 1
    assert (await side.land(unfit=(unfit,))).parked == 0
    body = msgspec.json.decode(await house.value("SELECT body::text FROM ledger.deal_parked"))
    assert body == {"detail": unfit.why, "raw": unfit.raw}
    await side.land(await mine(house, one, 5))
    assert await waiting(house) == []
    assert await items(house) == [(f"{SERVER}:absurd-value:5", "resolved")]


async def test_a_changed_identity_is_for_a_person(house: House, one: Replica, side: Side) -> None:
    """The books keep the deal they have; the platform's own return to it closes the item."""
    booked = await mine(house, one)
    await side.land(booked)
    await side.land(replace(booked, volume=2 * LOT, closed=2 * LOT))
    assert await rows(house) == [(1, 1, 1, 1)]
    assert await waiting(house) == [(1, "identity-changed", "1")]
    assert await items(house) == [(f"{SERVER}:identity-changed:1", "open")]
    await side.land(booked)
    assert await items(house) == [(f"{SERVER}:identity-changed:1", "resolved")]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("statement", ["feed_cursor SET cursor", "feed_book", "bridge.account"])
async def test_a_connection_lost_in_the_middle_lands_all_of_it_once(
    house: House, one: Replica, side: Side, when: str, statement: str
) -> None:
    """Whatever was written is rolled back, and written again on the next connection."""
    seen = await mine(house, one)
    broken: list[str] = []

    def once(sql: str) -> str:
        if broken or statement not in sql:
            return ""
        broken.append(sql)
        return when

    side.breaks = once
    done = await side.land(seen, replace(seen, ticket=2))
    assert broken
    assert done.new == 2
    assert await rows(house) == [(1, 1, 1, 1), (1, 2, 2, 1)]
    assert await house.wrong() == []


async def test_a_commit_whose_answer_was_lost_lands_nothing_twice(
    house: House, one: Replica, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection ends after COMMIT was done: the same again are repeats."""
    seen, lost = await mine(house, one), []
    plainly = Landings._write

    async def cut(self: Landings, conn: Any, batch: landing.Batch) -> Landed:
        done = await plainly(self, conn, batch)
        if not lost:
            lost.append(done)
            conn.terminate()
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle")
        return done

    monkeypatch.setattr(Landings, "_write", cut)
    done = await side.land(seen)
    assert (lost[0].new, done.new, done.repeated) == (1, 0, 1)
    assert await rows(house) == [(1, 1, 1, 1)]


async def test_an_owner_that_was_overtaken_writes_nothing(
    house: House, one: Replica, two: Replica, side: Side
) -> None:
    """Another took over while it stood still: its landing is refused, cursor and deals stay."""
    seen = await mine(house, one)
    other = Side(house, two)
    side.owns.fresh = lambda: True  # type: ignore[method-assign]  # it has not noticed yet
    await house.pool.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'owner'"
    )
    side.owns._connect = never_again
    await other.own()
    with pytest.raises(Fenced):
        await side.land(seen)
    assert await rows(house) == []
    assert (await other.land(seen)).new == 1


async def test_an_owner_that_was_overtaken_gives_the_server_up(house: House, one: Replica) -> None:
    """Its other work of the server ends with its landings."""
    ended = []

    async def follow() -> None:
        raise Fenced(SERVER)

    async def other() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    wire: Any = Wire()
    owner = Platform(
        sessions=wire, accounts=wire, credits=wire, pool=house.pool, case=one.deposits.case,
        now=house.clock.now, also={"feed": follow, "other": other},
    )  # fmt: skip
    async with asyncio.timeout(WAIT_S):
        await owner.run()
    assert ended == [True]


async def test_an_owner_that_cannot_prove_it_waits(house: House, one: Replica, side: Side) -> None:
    """While the proof of ownership is old nothing is written; proved again, it goes on."""
    seen, asked = await mine(house, one), []
    plainly = side.owns.fresh

    def late() -> bool:
        asked.append(len(asked))
        return len(asked) > 3 and plainly()

    side.owns.fresh = late  # type: ignore[method-assign]
    assert (await side.land(seen)).new == 1
    assert len(asked) >= 4


async def test_what_the_database_refuses_is_found_and_set_aside(
    house: House, one: Replica, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value nobody thought of stops neither its neighbours nor the feed."""
    monkeypatch.setattr(landing, "absurd", lambda deal, now: "")
    good = await mine(house, one)
    poison = [{"comment": "a\0b"}, {"volume": -1, "closed": -1}, {"profit": 2**63}]
    seen = [replace(good, ticket=n) for n in range(1, 8)]
    for number, change in zip((1, 3, 6), poison, strict=True):
        seen[number] = replace(seen[number], **change)

    done = await side.land(*seen)

    assert (done.new, done.parked) == (4, 3)
    assert [ticket for _, _, ticket, _ in await rows(house)] == [1, 3, 5, 6]
    assert {reason for _, reason, _ in await waiting(house)} == {"absurd-value"}
    assert await house.value("SELECT cursor::text FROM ledger.feed_cursor") == '{"n": 1}'
    assert await house.wrong() == []


async def test_a_large_look_is_landed_in_parts_and_the_cursor_moves_last(
    house: House, one: Replica, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the parts the cursor is where it was, so all of it is looked at again."""
    monkeypatch.setattr(landing, "DEALS_MAX", 3)
    seen = [await mine(house, one)]
    seen += [replace(seen[0], ticket=n) for n in range(2, 9)]
    looks = 0

    def dies(sql: str) -> str:
        nonlocal looks
        looks += "FOR UPDATE" in sql and "feed_cursor" in sql
        if looks > 2:
            raise KeyboardInterrupt
        return ""

    side.breaks = dies
    with pytest.raises(KeyboardInterrupt):
        await side.land(*seen)
    assert len(await rows(house)) == 6
    assert await house.value("SELECT cursor::text FROM ledger.feed_cursor") == "{}"
    side.breaks = never
    done = await side.land(*seen)
    assert (done.new, done.repeated) == (2, 6)


SLOW_TABLE = """
CREATE FUNCTION public.crawl() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM added) > 4 THEN PERFORM pg_sleep(5); END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER crawl AFTER INSERT ON ledger.deal REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION public.crawl()
"""


async def test_a_landing_that_takes_too_long_is_tried_in_halves(
    house: House, one: Replica, side: Side
) -> None:
    """The server ends what is too long, and its connection with it; less at once goes through."""
    login = (await house.account(one)).login
    owner = await house.database.connect(owner=True)
    await owner.execute(SLOW_TABLE)
    seen = [await mine(house, one, ticket, login=login) for ticket in range(1, 9)]

    done = await side.land(*seen)

    assert (done.new, len(side.done)) == (8, 2)
    assert [ticket for _, _, ticket, _ in await rows(house)] == list(range(1, 9))


async def test_a_landing_that_never_answers_is_tried_in_halves(
    house: House, one: Replica, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver gives a statement up without a word of the server: that is too long as well."""
    monkeypatch.setattr(landing, "LIMIT_S", 0.05)
    login = (await house.account(one)).login
    seen = [await mine(house, one, ticket, login=login) for ticket in range(1, 5)]
    plainly, tried = Landings._write, []

    async def hangs(self: Landings, conn: Any, batch: landing.Batch) -> Landed:
        tried.append(len(batch.deals))
        if len(batch.deals) > 2:
            await asyncio.sleep(0.1)
            raise TimeoutError
        return await plainly(self, conn, batch)

    monkeypatch.setattr(Landings, "_write", hangs)
    assert (await side.land(*seen)).new == 4
    assert tried == [4, 2, 2]


async def test_a_deal_of_the_future_waits_until_it_is_now(
    house: House, one: Replica, side: Side
) -> None:
    """What pays at its time is not known before; two of different minutes are one thing to see."""
    now = await mine(house, one, 1)
    soon = replace(now, ticket=2, at=now.at + timedelta(hours=1))
    later = replace(now, ticket=3, at=now.at + timedelta(hours=3))

    assert (await side.land(now, soon, later)).parked == 2
    assert {reason for _, reason, _ in await waiting(house)} == {"ahead-of-time"}
    assert await items(house) == [(f"{SERVER}:ahead-of-time", "open")]
    await side.landings.unpark()
    assert await rows(house) == [(1, 1, 1, 1)]

    house.clock.ahead_s += 3600
    await side.landings.unpark()
    assert await rows(house) == [(1, 1, 1, 1), (1, 2, 2, 1)]
    assert await items(house) == [(f"{SERVER}:ahead-of-time", "open")]

    house.clock.ahead_s += 7200
    await side.landings.unpark()
    assert await waiting(house) == []
    assert await items(house) == [(f"{SERVER}:ahead-of-time", "resolved")]
    booked = "SELECT at FROM ledger.deal WHERE ticket = 3"
    assert await house.value(booked) == later.at


async def test_a_deal_of_the_future_that_is_put_right_is_booked_at_its_next_look(
    house: House, one: Replica, side: Side
) -> None:
    """The offset was measured wrong: read anew it is a deal of now, and nothing waits any more."""
    now = await mine(house, one)
    await side.land(replace(now, at=now.at + timedelta(hours=1)))
    assert (await side.land(now)).new == 1
    assert await waiting(house) == []
    assert await items(house) == [(f"{SERVER}:ahead-of-time", "resolved")]
    assert await house.value("SELECT at FROM ledger.deal") == now.at


async def test_many_unknown_logins_are_one_thing_to_look_at(
    house: House, one: Replica, side: Side
) -> None:
    """A few have an item each; a mask that is too wide has one, open while any of them waits."""
    some = [deal(n, at=house.clock.now(), login=7000 + n) for n in range(1, 31)]
    await side.land(*some[:2])
    await side.land(*some[2:])
    together = f"{SERVER}:unknown-login"
    each = [f"{together}:7001", f"{together}:7002"]
    assert sorted(await items(house)) == sorted((subject, "open") for subject in (*each, together))

    for gone in some[:29]:
        await account_with(house, one, gone.login)
    await side.landings.unpark()
    wanted = [*((it, "resolved") for it in each), (together, "open")]
    assert sorted(await items(house)) == sorted(wanted)

    await account_with(house, one, some[29].login)
    await side.landings.unpark()
    assert await waiting(house) == []
    assert {state for _, state in await items(house)} == {"resolved"}


async def test_a_landing_that_is_told_to_end_ends_though_its_connection_is_gone(
    house: House, one: Replica, side: Side
) -> None:
    """What ends beside it may close the connection under it: the landing is over all the same."""
    login = (await house.account(one)).login
    owner = await house.database.connect(owner=True)
    async with owner.transaction():
        await owner.execute("LOCK TABLE ledger.deal IN SHARE MODE")
        landing_now = asyncio.create_task(
            side.landings.land([await mine(house, one, login=login)], (), b"{}")
        )
        while not await house.value("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.01)
        side.owns._held.clear()  # the ownership is given up
        landing_now.cancel()
        side.landings._hang_up()
        done, _ = await asyncio.wait({landing_now}, timeout=WAIT_S)
    assert done
    assert landing_now.cancelled()
