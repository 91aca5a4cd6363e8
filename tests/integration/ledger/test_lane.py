"""The lane on a real database: who is written, who is left out, and who races whom."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from ledger import queries as q
from ledger.journal import Book, Numbers, open_books, post
from ledger.lane import Lane, LaneClosed, LaneFailed, LaneFull, LaneLimits
from ledger.units import Change, Done, Kind, Left, Step, Unit, Why
from tests.integration.ledger.conftest import (
    NOTE,
    RULE,
    TAKE,
    THING,
    House,
    Link,
    answers,
    deposit,
    deposited,
    note,
    spend,
)


async def test_a_unit_stands_in_one_transaction(house: House) -> None:
    """Entry, postings, balances and companion rows of a unit bear one transaction's mark."""
    async with house.lane() as lane:
        done = await lane.submit(deposited("PY1"))
    assert isinstance(done, Done)
    marks = await house.reader.fetch(
        "SELECT xmin::text FROM ledger.entry UNION SELECT xmin::text FROM ledger.posting"
        " UNION SELECT xmin::text FROM ledger.balance UNION SELECT xmin::text FROM public.note"
    )
    assert len(marks) == 1
    assert await house.balance("client_wallet", "CL1") == 100
    assert await house.balance("psp_clearing", "acme") == 100
    assert await house.wrong() == []


async def test_a_repeated_key_says_that_it_exists(house: House) -> None:
    """The same entry again is left out with the id of the first; nothing of its unit happens."""
    async with house.lane() as lane:
        first = await lane.submit(deposited("PY1"))
        again = await lane.submit(Unit((note("other"),), (deposit("PY1"),)))
    assert isinstance(first, Done)
    assert again == Left(Why.EXISTS, "deposit", "PY1", {"entry": first.entries[0]})
    assert await house.count("public.note") == 1
    assert await house.balance("client_wallet", "CL1") == 100


async def test_a_key_with_other_content_differs(house: House) -> None:
    """One key with another amount is an error of the caller, told apart from a repetition."""
    async with house.lane() as lane:
        await lane.submit(deposited("PY1"))
        other = await lane.submit(Unit((), (deposit("PY1", minor=101),)))
    assert isinstance(other, Left)
    assert other.why is Why.DIFFERS
    assert await house.balance("client_wallet", "CL1") == 100
    assert await house.wrong() == []


async def test_one_key_handed_in_many_times_at_once_is_booked_once(house: House) -> None:
    """However often one key waits in the same moment, one unit is done and the rest exist."""
    async with house.lane() as lane:
        got = await answers([lane.submit(Unit((), (deposit("PY1"),))) for _ in range(20)])
    assert sum(isinstance(answer, Done) for answer in got) == 1
    assert sum(isinstance(answer, Left) and answer.why is Why.EXISTS for answer in got) == 19
    assert await house.balance("client_wallet", "CL1") == 100


async def test_neighbours_of_a_repeated_key_are_written(house: House) -> None:
    """A key that exists leaves out its own unit and no other of its batch."""
    async with house.lane() as lane:
        await lane.submit(deposited("PY1"))
        got = await answers([lane.submit(deposited(f"PY{n}", f"CL{n}")) for n in range(5)])
    assert [type(answer) for answer in got] == [Done, Left, Done, Done, Done]
    assert await house.wrong() == []


async def test_two_lanes_race_on_one_key(house: House) -> None:
    """Two replicas book the same keys at the same time: each key once, the other hears EXISTS."""
    async with house.lane() as one, house.lane() as two:
        got = await answers([
            lane.submit(Unit((note(f"{lane.name}-{n}"),), (deposit(f"PY{n}", f"CL{n % 7}"),)))
            for n in range(100) for lane in (one, two)
        ])  # fmt: skip
    for n in range(100):
        pair = got[2 * n : 2 * n + 2]
        assert sorted(type(answer).__name__ for answer in pair) == ["Done", "Left"], pair
    assert await house.count("public.note") == 100
    assert await house.balance("psp_clearing", "acme") == 10_000
    assert await house.wrong() == []


async def test_two_lanes_race_on_one_row_version(house: House) -> None:
    """Of two moves from one version one is done; the other is stale and nothing of it happens."""
    await house.reader.execute(
        "INSERT INTO public.thing SELECT 'T' || n FROM generate_series(0, 49) n"
    )
    async with house.lane() as one, house.lane() as two:
        got = await answers([
            lane.submit(Unit(
                (Change(THING, (f"T{n}", 1, lane.name)), note(f"{lane.name}-{n}")),
                (deposit(f"{lane.name}-{n}"),),
            ))
            for n in range(50) for lane in (one, two)
        ])  # fmt: skip
    assert sum(isinstance(answer, Done) for answer in got) == 50
    stale = [answer for answer in got if isinstance(answer, Left)]
    assert {answer.why for answer in stale} == {Why.STALE}
    assert stale[0].found == {"version": 2}
    assert await house.reader.fetchval("SELECT max(version) FROM public.thing") == 2
    assert await house.balance("client_wallet", "CL1") == 5_000
    assert await house.wrong() == []


async def test_lanes_and_posting_transactions_share_one_hot_account(house: House) -> None:
    """Lanes and transactions of their own meet on one account; nothing is lost, all get through."""
    numbers = Numbers()

    async def by_hand(n: int) -> None:
        conn = await house.connect()
        for i in range(10):
            async with conn.transaction():
                await post(conn, numbers, [deposit(f"hand-{n}-{i}")])

    async with house.lane() as one, house.lane() as two:
        waiting = [
            lane.submit(deposited(f"{lane.name}-{n}")) for n in range(100) for lane in (one, two)
        ]
        got = await answers([*waiting, *[by_hand(n) for n in range(4)]])
    assert not [answer for answer in got if isinstance(answer, BaseException | Left)]
    assert await house.balance("client_wallet", "CL1") == 24_000
    assert await house.wrong() == []


async def test_a_floor_is_never_broken_by_concurrent_spenders(house: House) -> None:
    """Fifty spenders over two lanes and by hand take no more than the wallet holds."""
    numbers = Numbers()
    async with house.lane() as lane:
        await lane.submit(deposited("PY1", minor=1_000))

    async def by_hand(n: int) -> bool:
        conn = await house.connect()
        async with conn.transaction():
            return not isinstance(await post(conn, numbers, [spend(f"hand-{n}")]), Left)

    async with house.lane() as one, house.lane() as two:
        lanes = [
            lane.submit(Unit((), (spend(f"{lane.name}-{n}"),)))
            for n in range(20)
            for lane in (one, two)
        ]
        got = await answers([*lanes, *[by_hand(n) for n in range(10)]])
    assert not [answer for answer in got if isinstance(answer, BaseException)]
    spent = sum(answer is True or isinstance(answer, Done) for answer in got)
    refused = [answer for answer in got if isinstance(answer, Left)]
    assert spent == 10
    assert all(answer.why is Why.FLOOR for answer in refused)
    assert await house.balance("client_wallet", "CL1") == 0
    assert await house.wrong() == []


async def test_what_a_unit_brings_may_be_spent_by_the_next_of_its_batch(house: House) -> None:
    """Units of a batch follow one another: money that came first is there, what left is gone."""
    async with house.lane() as lane:
        got = await answers([
            lane.submit(Unit((), (entry,)))
            for entry in (deposit("PY1"), spend("BO1"), spend("BO2"), deposit("PY2"), spend("BO3"))
        ])  # fmt: skip
    assert [type(answer) for answer in got] == [Done, Done, Left, Done, Done]


async def test_a_unit_of_two_entries_is_all_or_none(house: House) -> None:
    """A later entry that breaks a floor takes the earlier one of its unit along."""
    async with house.lane() as lane:
        got = await lane.submit(Unit((note("n"),), (deposit("PY1"), spend("BO1", minor=101))))
    assert isinstance(got, Left)
    assert await house.count("ledger.entry") == 0
    assert await house.count("public.note") == 0


async def test_a_stale_move_leaves_out_only_itself(house: House) -> None:
    """A row that moved since it was read leaves out its own unit; its neighbours are written."""
    await house.reader.execute("INSERT INTO public.thing VALUES ('A', 4), ('B', 1)")
    async with house.lane() as lane:
        got = await answers([
            lane.submit(Unit((Change(THING, (id, 1, "moved")),), (deposit(f"PY{id}"),)))
            for id in ("A", "B", "C")
        ])  # fmt: skip
    assert got[0] == Left(Why.STALE, "room.thing.move", "A", {"version": 4})
    assert isinstance(got[1], Done)
    assert got[2] == Left(Why.STALE, "room.thing.move", "C", {"version": None})
    assert await house.balance("client_wallet", "CL1") == 100


async def test_two_moves_of_one_row_never_share_a_batch(house: House) -> None:
    """Two units that saw the same version of a row: the first moves it, the second is stale."""
    await house.reader.execute("INSERT INTO public.thing VALUES ('A', 1)")
    rename = Kind("room.thing.rename", Step.MOVE, THING.sql, THING.look)
    async with house.lane() as lane:
        got = await answers([
            lane.submit(Unit((Change(kind, ("A", 1, kind.name)),))) for kind in (THING, rename)
        ])  # fmt: skip
    assert [type(answer) for answer in got] == [Done, Left]
    row = await house.reader.fetchrow("SELECT version, note FROM public.thing")
    assert tuple(row) == (2, "room.thing.move")


async def test_units_that_share_a_row_keep_their_order(house: House) -> None:
    """A unit put off because of a shared row is still written before those that came after it."""
    await house.reader.execute("INSERT INTO public.thing VALUES ('A', 1), ('B', 1)")
    moves = [(("A", 1),), (("A", 2), ("B", 1)), (("B", 2),), (("A", 3), ("B", 3))]
    async with house.lane() as lane:
        got = await answers([
            lane.submit(Unit(tuple(Change(THING, (id, seen, "m")) for id, seen in unit)))
            for unit in moves
        ])  # fmt: skip
    assert [type(answer) for answer in got] == [Done] * 4


async def test_a_taken_key_is_answered_with_what_holds_it(house: House) -> None:
    """A unit whose key another holds is left out and told the row; neighbours are written."""
    async with house.lane() as lane:
        await lane.submit(Unit((Change(TAKE, ("K1", "first")),)))
        got = await answers([
            lane.submit(Unit((Change(TAKE, (key, "second")), note(key)), (deposit(key),)))
            for key in ("K1", "K2")
        ])  # fmt: skip
    held = {"key": "K1", "subject": "first"}
    assert got[0] == Left(Why.CLAIMED, "room.taken.claim", "K1", held)
    assert isinstance(got[1], Done)
    assert await house.count("public.note") == 1


async def test_two_lanes_claim_the_same_keys(house: House) -> None:
    """Two replicas claim the same keys at once, in any order: each key has one holder."""
    async with house.lane() as one, house.lane() as two:
        got = await answers([
            lane.submit(Unit((Change(TAKE, (f"K{n}", lane.name)), note(f"{lane.name}-{n}"))))
            for lane, order in ((one, range(60)), (two, range(59, -1, -1))) for n in order
        ])  # fmt: skip
    assert sum(isinstance(answer, Done) for answer in got) == 60
    assert sum(isinstance(answer, Left) and answer.why is Why.CLAIMED for answer in got) == 60
    assert await house.count("public.note") == 60


async def test_a_check_that_does_not_hold_leaves_the_unit_out(house: House) -> None:
    """What a unit was decided with must still hold in its transaction."""
    await house.reader.execute("INSERT INTO public.rule VALUES ('now')")
    async with house.lane() as lane:
        got = await answers([
            lane.submit(Unit((Change(RULE, (hash,)), note(hash)), (deposit(hash),)))
            for hash in ("now", "before")
        ])  # fmt: skip
    assert [type(answer) for answer in got] == [Done, Left]
    assert got[1].why is Why.CHECK
    assert await house.count("public.note") == 1


@pytest.mark.parametrize(
    "poison",
    [
        pytest.param(Unit((note("p", "poison"),), (deposit("PYp"),)), id="constraint"),
        pytest.param(Unit((Change(NOTE, ("p", 5)),), (deposit("PYp"),)), id="wrong type"),
        pytest.param(Unit((note("p", "\ud800"),), (deposit("PYp"),)), id="lone surrogate"),
        pytest.param(Unit((note("p", "a\x00b"),), (deposit("PYp"),)), id="nul"),
        pytest.param(Unit((note("p"),), (deposit("PYp", minor=2**63),)), id="too large"),
        pytest.param(
            Unit((note("p"),), (deposit("PYp", minor=2**62), deposit("PYq", minor=2**62))),
            id="balance overflow",
        ),
    ],
)  # fmt: skip
async def test_a_poison_unit_fails_alone(house: House, poison: Unit) -> None:
    """What the database or the driver refuses fails with LaneFailed; its neighbours commit."""
    async with house.lane() as lane:
        units = [deposited(f"PY{n}", f"CL{n}") for n in range(12)]
        units.insert(5, poison)
        got = await answers([lane.submit(unit) for unit in units])
    assert isinstance(got.pop(5), LaneFailed)
    assert [type(answer) for answer in got] == [Done] * 12
    assert await house.count("public.note") == 12
    assert await house.wrong() == []


async def test_a_statement_that_moves_too_few_rows_is_refused(house: House) -> None:
    """A MOVE whose statement passes over a locked row is a bug: nothing of its unit is written."""
    await house.reader.execute("INSERT INTO public.thing VALUES ('A', 1)")
    shy = Kind("room.thing.shy", Step.MOVE, THING.sql + " AND note = 'absent'", THING.look)
    async with house.lane() as lane:
        got = await answers([lane.submit(Unit((Change(shy, ("A", 1, "x")),), (deposit("PY1"),)))])
    assert isinstance(got[0], LaneFailed)
    assert await house.count("ledger.entry") == 0


async def test_a_key_that_its_look_cannot_find_is_not_retried_for_ever(
    house: House,
) -> None:
    """A claim refused for another reason than its key ends as a failure of that unit alone."""
    blind = Kind("room.taken.blind", Step.CLAIM, TAKE.sql, TAKE.look + " AND subject = 'absent'")
    async with house.lane() as lane:
        await lane.submit(Unit((Change(TAKE, ("K1", "first")),)))
        got = await answers([
            lane.submit(Unit((Change(blind, ("K1", "again")),))), lane.submit(deposited("PY1")),
        ])  # fmt: skip
    assert isinstance(got[0], LaneFailed)
    assert isinstance(got[1], Done)


async def test_a_unit_that_contradicts_itself_is_refused_at_once(house: House) -> None:
    """A unit that moves one row twice, or bears one key twice, never reaches the database."""
    async with house.lane() as lane:
        with pytest.raises(ValueError, match="one row twice"):
            lane.submit(Unit((Change(THING, ("A", 1, "x")), Change(THING, ("A", 2, "y")))))
        with pytest.raises(ValueError, match="one key twice"):
            lane.submit(Unit((), (deposit("PY1"), deposit("PY1", minor=5))))


async def test_a_caller_that_goes_away_does_not_take_its_unit_back(house: House) -> None:
    """Cancelling the wait changes nothing: the unit is written."""
    async with house.lane() as lane:
        waiting = asyncio.ensure_future(lane.submit(deposited("PY1")))
        waiting.cancel()
        assert isinstance(await lane.submit(deposited("PY2")), Done)
    assert await house.count("ledger.entry") == 2


async def test_a_full_or_closed_lane_takes_nothing(house: House) -> None:
    """The queue has a limit, and a lane that is ending takes nothing more but writes what waits."""
    async with house.lane(limits=LaneLimits(queue_max=3)) as lane:
        waiting = [lane.submit(deposited(f"PY{n}")) for n in range(3)]
        with pytest.raises(LaneFull):
            lane.submit(deposited("PY9"))
        lane.close()
        with pytest.raises(LaneClosed):
            lane.submit(deposited("PY8"))
        assert [type(answer) for answer in await answers(waiting)] == [Done] * 3
    assert await house.count("ledger.entry") == 3
    assert await house.count("ledger.lane") == 0


async def test_a_batch_is_bounded(house: House) -> None:
    """No transaction holds more units than the limit, and the observer hears of each."""
    heard: list[tuple[int, int]] = []

    class Ear:
        def batch(self, units: int, left: int, seconds: float) -> None:
            heard.append((units, left))

    lane = Lane("bounded", house.connect, Numbers(), asyncio.get_running_loop().time,
                LaneLimits(batch_max=4), Ear())  # fmt: skip
    waiting = [lane.submit(deposited(f"PY{n}")) for n in range(10)]
    running = asyncio.create_task(lane.run())
    await answers(waiting)
    lane.close()
    await asyncio.wait_for(running, 10)
    assert heard == [(4, 0), (4, 0), (2, 0)]


async def test_a_batch_is_four_round_trips(house: House) -> None:
    """However many kinds and units share a batch, it is BEGIN, locks, writes and COMMIT; and plans
    are made anew when the tables have grown.
    """
    await house.reader.execute("INSERT INTO public.rule VALUES ('now')")
    await house.reader.execute("INSERT INTO public.thing SELECT 'T' || generate_series(0, 99)")
    heard: list[str] = []

    async def connect() -> Link:
        return Link(await house.connect(), lambda sql: str(heard.append(sql)))

    def rich(n: int) -> Unit:
        changes = (Change(RULE, ("now",)), Change(TAKE, (f"K{n}", "s")), note(f"N{n}"))
        return Unit((*changes, Change(THING, (f"T{n}", 1, "m"))), (deposit(f"PY{n}"),))

    async with house.lane(connect) as lane:
        await answers([lane.submit(rich(n)) for n in range(10)])
        heard.clear()
        await answers([lane.submit(rich(n)) for n in range(10, 100)])
    begin, locks, writes, commit, forgotten, *_ = heard
    assert (begin, commit, forgotten) == ("BEGIN", "COMMIT", q.FORGET_PLANS)
    assert "FOR UPDATE" in locks
    assert "INSERT INTO ledger.posting" in writes
    assert await house.count("public.note") == 100
    assert await house.wrong() == []


async def test_two_processes_open_one_account_once(house: House) -> None:
    """Many writers that meet a new account at once give it one number and one balance."""
    connections = [await house.connect() for _ in range(8)]
    batch = [deposit(f"PY{n}", f"CL{n}") for n in range(20)]
    drafts = await answers([
        Numbers().draft(conn, batch if n % 2 else batch[::-1])
        for n, conn in enumerate(connections)
    ])  # fmt: skip
    numbers = [{(d.entry.key, s[0].id) for d in each for s in d.sides} for each in drafts]
    assert all(each == numbers[0] for each in numbers)
    assert await house.count("ledger.account") == await house.count("ledger.balance") == 21
    assert await house.wrong() == []


async def test_an_account_opened_in_a_transaction_that_rolled_back_is_opened_again(
    house: House,
) -> None:
    """Numbers given inside a transaction are forgotten with it; the cache is never ahead."""
    numbers, conn = Numbers(), await house.connect()
    transaction = conn.transaction()
    await transaction.start()
    await post(conn, numbers, [deposit("PY1")])
    await transaction.rollback()
    async with house.lane(numbers=numbers) as lane:
        assert isinstance(await lane.submit(deposited("PY1")), Done)
    assert await house.wrong() == []


async def test_post_writes_in_the_callers_transaction(house: House) -> None:
    """post() rolls back with its caller; after a repetition or a floor the caller goes on."""
    numbers, conn = Numbers(), await house.connect()
    async with conn.transaction():
        ids, recorded = await post(conn, numbers, [deposit("PY1")])
        refused = await post(conn, numbers, [spend("BO1", minor=101)])
        assert isinstance(refused, Left)
        assert refused.why is Why.FLOOR
        await post(conn, numbers, [spend("BO2", minor=40)])
    async with conn.transaction():
        again = await post(conn, numbers, [deposit("PY1")])
    assert again == Left(Why.EXISTS, "deposit", "PY1", {"entry": ids[0]})
    assert await house.balance("client_wallet", "CL1") == 60
    assert recorded is not None
    assert await house.wrong() == []


async def test_a_writer_is_ended_when_it_sleeps_in_a_transaction(house: House) -> None:
    """Every writing connection bears the limits that end a stopped writer."""
    conn = await house.connect()
    assert await conn.fetchval("SHOW idle_in_transaction_session_timeout") == "2s"
    assert await conn.fetchval("SHOW statement_timeout") == "2s"
    if conn.get_server_version().major >= 17:
        assert await conn.fetchval("SHOW transaction_timeout") == "2s"


async def test_a_book_is_opened_once_for_one_entity(house: House) -> None:
    """Opening a book again changes nothing; opening it for another entity is refused."""
    await open_books(house.reader, [Book(1, "fx-eu", "EUR"), Book(2, "fx-int", "USD")])
    with pytest.raises(ValueError, match="cannot be opened"):
        await open_books(house.reader, [Book(2, "other", "USD")])
    assert await house.count("ledger.book") == 2


async def test_a_reader_cannot_be_a_writer_of_another_schema(house: House) -> None:
    """The daemon's role may not make tables in the schema of the books."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await house.reader.execute("CREATE TABLE ledger.mine (id int)")
