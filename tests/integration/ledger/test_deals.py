"""Deals are landed once, numbered densely, with the cursor, by the newest owner alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from msgspec.structs import replace

from ledger import deals, queries_deals
from ledger.deals import Fenced, Landed
from ledger.facts import Deal
from ledger.verdicts import Parked, Reason, park, park_unread
from tests.integration.ledger.conftest import House
from tests.unit.ledger.values import NOON, balance_deal, deal

SERVER = "mt5-live"


class Feed:
    """One server's feed in the hands of one owner."""

    def __init__(self, house: House, conn: asyncpg.Connection, epoch: int) -> None:
        self.house, self.conn, self.epoch = house, conn, epoch
        self.no, self.cursor = 0, b""

    async def open(self) -> Feed:
        """Begin to land."""
        self.no, self.cursor = await deals.open_feed(self.conn, SERVER, self.epoch)
        return self

    async def land(
        self, *seen: Deal | tuple[int, Deal], parked: Sequence[Parked] = (),
        cursor: bytes | None = b"{}", fresh: bool = True,
    ) -> Landed:  # fmt: skip
        """Land deals, of book 1 where none is named."""
        looks = [look if isinstance(look, tuple) else (1, look) for look in seen]
        async with self.conn.transaction():
            return await deals.land(
                self.conn, self.no, self.epoch, looks, parked, cursor, fresh=fresh
            )

    async def rows(self, columns: str = "no, ticket, version") -> list[tuple[Any, ...]]:
        """What the table of deals holds."""
        sql = f"SELECT {columns} FROM ledger.deal ORDER BY book_id, no"
        return [tuple(row) for row in await self.house.reader.fetch(sql)]

    async def waiting(self) -> list[tuple[Any, ...]]:
        """What waits beside the books."""
        sql = "SELECT ticket, reason, subject FROM ledger.deal_parked WHERE landed IS NULL"
        return [tuple(row) for row in await self.house.reader.fetch(f"{sql} ORDER BY parked")]


@pytest_asyncio.fixture
async def feed(house: House) -> Feed:
    """The feed in the hands of the owner of epoch 1."""
    return await Feed(house, await house.connect(), 1).open()


async def test_a_landing_writes_deals_and_cursor(feed: Feed) -> None:
    """What the platform said stands as it was said, and the next owner goes on from the cursor."""
    assert feed.cursor == b"{}"
    seen = [deal(11, entry=0, position=5), deal(12, after_s=9, position=5), balance_deal(13)]

    done = await feed.land(*seen, cursor=b'{"reached": 7}')

    assert done == Landed(new=3, books=(1,))
    assert await feed.rows() == [(1, 11, 1), (2, 12, 1), (3, 13, 1)]
    found = await deals.after(feed.conn, 1, feed.no, 0, 10)
    closing = replace(seen[1], opened=NOON)
    assert [each.deal for each in found] == [seen[0], closing, seen[2]]
    assert await deals.feeds_of(feed.conn, 1) == [(feed.no, SERVER, 3)]
    again = await Feed(feed.house, feed.conn, 2).open()
    assert (again.no, again.cursor) == (feed.no, b'{"reached": 7}')
    assert await feed.house.wrong() == []


async def test_a_repeat_lands_nothing(feed: Feed) -> None:
    """The same look again, in the same landing or in a later one, changes no row."""
    assert (await feed.land(deal(1), deal(1), deal(2))).repeated == 1
    before = await feed.rows("*")
    assert await feed.land(deal(2), deal(1)) == Landed(repeated=2)
    assert await feed.rows("*") == before


async def test_an_edit_is_the_next_version(feed: Feed) -> None:
    """Both versions stand; a reader is told of the first, and of the one before."""
    await feed.land(deal(1, comment="a"), deal(2))
    done = await feed.land(deal(1, comment="b"), deal(1, comment="c"))
    assert (done.new, done.edited) == (0, 2)
    assert await feed.rows() == [(1, 1, 1), (2, 2, 1), (3, 1, 2), (4, 1, 3)]

    plain, _, second, third = await deals.after(feed.conn, 1, feed.no, 0, 10)

    assert (plain.first_no, plain.previous) == (1, None)
    assert (second.no, second.version, second.first_no) == (3, 2, 1)
    assert second.previous is not None
    assert second.previous.comment == "a"
    assert (third.no, third.version, third.first_no) == (4, 3, 1)
    assert third.previous is not None
    assert third.previous.comment == "b"
    assert await feed.house.wrong() == []


async def test_another_deal_under_the_same_ticket_is_set_aside(feed: Feed) -> None:
    """The books keep what they have, whichever book the other would be of."""
    await feed.land(deal(1))
    before = await feed.rows("*")
    done = await feed.land(deal(1, login=5002), (2, deal(1)))
    assert (done.new, done.edited, done.parked) == (0, 0, 2)
    assert done.causes == ((Reason.IDENTITY, "1"),)
    assert await feed.rows("*") == before
    assert await feed.waiting() == [(1, "identity-changed", "1")] * 2


async def test_what_is_booked_waits_no_more(feed: Feed) -> None:
    """The platform's newest look is the deal in the books again: its cause is gone."""
    await feed.land(deal(1))
    await feed.land(deal(1, login=5002), parked=[park_unread(2, "no price", "{}")])
    assert len(await feed.waiting()) == 2
    done = await feed.land(deal(1), deal(2))
    assert set(done.freed) == {(Reason.IDENTITY, "1"), (Reason.ABSURD, "2")}
    assert await feed.waiting() == []


async def test_set_aside_twice_waits_once(feed: Feed) -> None:
    """One row for each content; only the first time counts; a second content waits beside it."""
    first, edited = deal(1, login=9), deal(1, login=9, comment="edited")
    aside = [park(first, Reason.LOGIN, "who?")]
    assert (await feed.land(parked=aside)).parked == 1
    assert await feed.land(parked=aside) == Landed()
    assert (await feed.land(parked=[park(edited, Reason.LOGIN, "who?")])).parked == 1
    assert await feed.waiting() == [(1, "unknown-login", "9")] * 2


async def test_what_waited_is_booked_in_the_order_it_was_seen(feed: Feed) -> None:
    """Each content becomes its version; the cause is gone with the last of them."""
    looks = [deal(1), deal(1, comment="b"), deal(2)]
    await feed.land(parked=[park(look, Reason.LOGIN, "who?") for look in looks])
    assert await deals.waiting_subjects(feed.conn, feed.no, Reason.LOGIN, "", 10) == ["5001"]

    found = await deals.waiting(feed.conn, feed.no, Reason.LOGIN, ["5001"], 2)
    done = await feed.land(*found, cursor=None, fresh=False)
    assert (done.new, done.edited, done.freed) == (1, 1, ())
    found = await deals.waiting(feed.conn, feed.no, Reason.LOGIN, ["5001"], 2)
    done = await feed.land(*found, cursor=None, fresh=False)
    assert done.freed == ((Reason.LOGIN, "5001"),)
    assert await feed.rows("no, ticket, version, comment") == [
        (1, 1, 1, ""), (2, 1, 2, "b"), (3, 2, 1, "")
    ]  # fmt: skip


async def test_what_waits_for_another_reason_now_says_so(feed: Feed) -> None:
    """Its login became known and its symbol is not: the row moves to the new cause."""
    await feed.land(parked=[park(deal(1), Reason.LOGIN, "who?")])
    done = await feed.land(parked=[park(deal(1), Reason.SYMBOL, "what?")])
    assert done.causes == ((Reason.SYMBOL, "EURUSD"),)
    assert await feed.waiting() == [(1, "unknown-symbol", "EURUSD")]


async def test_subjects_that_wait_are_read_in_pages(feed: Feed) -> None:
    """Each once however many rows wait for it, behind the last of the page before."""
    looks = [deal(t, login=5000 + t % 3) for t in range(1, 10)]
    await feed.land(parked=[park(look, Reason.LOGIN, "who?") for look in looks])
    pages = [
        await deals.waiting_subjects(feed.conn, feed.no, Reason.LOGIN, after, 2)
        for after in ("", "5001", "5002")
    ]
    assert pages == [["5000", "5001"], ["5002"], []]
    assert await deals.count_waiting(feed.conn) == [(SERVER, "unknown-login", 9)]


async def test_numbers_are_dense_in_each_book(feed: Feed) -> None:
    """Two books of one server count for themselves, landing after landing, edits and repeats too;
    a landing that is rolled back leaves no gap.
    """
    tickets = itertools.count(1)
    for many in (3, 0, 4):
        await feed.land(*[(1 + n % 2, deal(next(tickets))) for n in range(many)], deal(1))
    undone = feed.conn.transaction()
    await undone.start()
    await deals.land(feed.conn, feed.no, 1, [(1, deal(99)), (2, deal(98))])
    await undone.rollback()
    await feed.land(deal(50), (2, deal(51)))
    assert [no for no, _, _ in await feed.rows()] == [1, 2, 3, 4, 5, 1, 2, 3, 4]
    assert await deals.feeds_of(feed.conn, 2) == [(feed.no, SERVER, 4)]
    assert await feed.house.wrong() == []


async def test_a_page_of_deals_begins_behind_a_number(feed: Feed) -> None:
    """In order, as many as asked for; an edit's first version may be on an earlier page."""
    await feed.land(*[deal(n) for n in range(1, 6)])
    await feed.land(deal(2, profit=1))
    page = await deals.after(feed.conn, 1, feed.no, 3, 2)
    assert [each.no for each in page] == [4, 5]
    (edit,) = await deals.after(feed.conn, 1, feed.no, 5, 2)
    assert (edit.no, edit.first_no) == (6, 2)


async def test_an_older_owner_writes_nothing(feed: Feed) -> None:
    """As soon as a newer one has begun the older can neither land nor begin again."""
    newer = await Feed(feed.house, await feed.house.connect(), 2).open()
    with pytest.raises(Fenced):
        await feed.land(deal(1), cursor=b'{"reached": 1}')
    with pytest.raises(Fenced):
        await feed.open()
    assert await feed.rows() == []
    assert (await newer.land(deal(1))).new == 1


async def test_an_opening_of_an_earlier_landing_is_found(feed: Feed) -> None:
    """A closing deal carries the time at which its position was opened, whenever that landed."""
    await feed.land(deal(1, entry=0, position=77, after_s=-60))
    await feed.land(deal(2, position=77), deal(3, position=78))
    assert await feed.rows("ticket, opened") == [
        (1, None), (2, NOON - timedelta(seconds=60)), (3, None)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "types", "found_by"),
    [
        ("NEWEST", "smallint, bigint[], smallint[]", "ticket = u.ticket"),
        ("OPENINGS", "smallint, smallint[], bigint[], bigint[]", "login = u.login"),
        ("SETTLE", "smallint, bigint[], smallint[], bytea[], boolean", "ticket = u.ticket"),
        ("STILL_WAITING", "smallint, text[], text[]", "subject = u.subject"),
        ("EARLIER", "smallint, smallint, bigint[], smallint[], smallint[]", "ticket = u.ticket"),
    ],
)
async def test_a_plan_made_on_empty_tables_looks_each_key_up(
    house: House, name: str, types: str, found_by: str
) -> None:
    """A writer plans once, perhaps on its first day: its lookups must not become scans."""
    conn = await house.connect()
    await conn.execute(f"PREPARE lookup ({types}) AS {getattr(queries_deals, name)}")
    nothing = ", ".join(["NULL"] * (types.count(",") + 1))
    plan = [row[0] for row in await conn.fetch(f"EXPLAIN EXECUTE lookup ({nothing})")]
    assert any("Index Cond" in line and found_by in line for line in plan), "\n".join(plan)


@pytest.mark.parametrize(
    "statement",
    ["UPDATE ledger.deal SET profit = 0", "DELETE FROM ledger.deal", "TRUNCATE ledger.deal",
     "DELETE FROM ledger.deal_parked", "UPDATE ledger.deal_parked SET body = '{}'",
     "UPDATE ledger.feed_cursor SET server = 'x'"],
)  # fmt: skip
async def test_a_landed_deal_can_not_be_changed(feed: Feed, statement: str) -> None:
    """Not by the daemon's role, and a deal not even by the owner of the tables."""
    await feed.land(deal(1), parked=[park(deal(2), Reason.LOGIN, "who?")])
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await feed.conn.execute(statement)
    if "ledger.deal " in f"{statement} ":
        owner = await feed.house.database.connect(owner=True)
        with pytest.raises(asyncpg.PostgresError, match="only added to"):
            await owner.execute(statement)


async def test_verify_names_a_deal_that_is_missing_or_twice(feed: Feed) -> None:
    """What the owner of the tables did behind the trigger is found by numbers and versions."""
    await feed.land(deal(1), deal(2), (2, deal(3)))
    owner = await feed.house.database.connect(owner=True)
    await owner.execute("ALTER TABLE ledger.deal DISABLE TRIGGER ALL")
    await owner.execute("UPDATE ledger.deal SET version = 2 WHERE ticket = 1")
    await owner.execute("UPDATE ledger.deal SET ticket = 2 WHERE ticket = 3")
    await owner.execute("DELETE FROM ledger.deal WHERE ticket = 2 AND book_id = 1")
    await owner.execute("ALTER TABLE ledger.deal ENABLE TRIGGER ALL")
    found = {(wrong.code, wrong.subject) for wrong in await feed.house.wrong()}
    assert found == {("deal-numbers", f"1/{feed.no}"), ("deal-versions", f"{feed.no}/1/0")}


MANY, AT_ONCE = 20_000, 1_000


@pytest.mark.parametrize(
    ("sql", "arguments", "index"),
    [
        ("NEWEST", (1, [7], [0]), "deal_book_id_feed_ticket_phase_version_key"),
        ("EARLIER", (1, 1, [7], [0], [2]), "deal_book_id_feed_ticket_phase_version_key"),
        ("OPENINGS", (1, [1], [5001], [907]), "deal_opening"),
        ("AFTER", (1, 1, 7, 10), "deal_pkey"),
    ],
    ids=lambda it: it if isinstance(it, str) and it.isupper() else "",
)
async def test_deals_are_looked_up_by_key_before_the_server_has_counted_them(
    feed: Feed, sql: str, arguments: tuple[object, ...], index: str
) -> None:
    """Nobody has analysed the table: a walk through a whole book must not look as good as a key."""
    for first in range(1, MANY, AT_ONCE):  # a writer's transaction may not last
        await feed.land(*[deal(ticket) for ticket in range(first, first + AT_ONCE)])
    async with feed.conn.transaction():
        plan = await feed.conn.fetch(f"EXPLAIN {getattr(queries_deals, sql)}", *arguments)
    used = {word for row in plan for word in row[0].split() if word.startswith("deal_")}
    assert used == {index}
