"""The feed reads every deal of a platform once, whatever its answers and its faults do.

What happens where the platform's clock is moved is in `test_feed_switches.py`.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.faults import AnswerLost, Denied, Fault, NothingSent
from bridge.mt5 import http
from tests.unit.bridge.feeding import START, World, begun


async def test_a_deal_is_landed_once_however_often_windows_overlap() -> None:
    """Each look reads a little back; what it brings again is dropped here."""
    world = await begun()
    world.trade(7)
    await world.pass_time(30)
    assert world.tickets == [7]
    assert world.counted["repeats"] >= 5


async def test_the_first_look_of_all_begins_some_history_ago() -> None:
    """Without a cursor the feed starts where it was told to, and never reads before that."""
    world = World(history_s=3600, sweep_every_s=10.0, sweep_s=7200)
    world.trade(1, at=START - 3601)
    world.trade(2, at=START - 3599)
    await world.feed.open()
    await world.feed.look()
    await world.pass_time(1000, each=10)
    assert world.tickets == [2]


async def test_in_summer_the_first_look_begins_no_hour_earlier() -> None:
    """Windows allow for the other offset of the clock; what they bring too early is left out."""
    july = START + 180 * 86_400
    world = World(july, history_s=3600, sweep_every_s=10.0, sweep_s=7200)
    world.trade(1, at=july - 3600 - 1800)
    world.trade(2, at=july - 1800)
    await world.feed.open()
    await world.feed.look()
    await world.pass_time(1000, each=10)
    assert world.tickets == [2]


async def test_who_is_not_surely_the_owner_asks_nothing() -> None:
    """An owner that was stopped and wakes up does not ask a platform that another one follows."""
    world = await begun()
    world.trade(7)
    world.owned = False
    asked = len(world.asked)
    with pytest.raises(NothingSent, match="lease"):
        await world.pass_time(1)
    assert len(world.asked) == asked
    world.owned = True
    await world.pass_time(1)
    assert world.tickets == [7]


async def test_deals_come_in_the_order_of_the_servers_clock() -> None:
    """An answer may have any order; time and ticket give it one."""
    world = await begun()
    world.now += 9
    for ticket, ago in ((5, 1), (9, 3), (4, 3), (8, 7)):
        world.trade(ticket, at=world.now - ago)
    await world.feed.look()
    assert world.tickets == [8, 4, 9, 5]


async def test_a_deal_that_appears_in_a_second_already_read_is_found() -> None:
    """The overlap covers what shows up behind the cursor."""
    world = await begun()
    await world.pass_time(5)
    world.trade(3, at=world.now - 4)
    await world.pass_time(1)
    assert world.tickets == [3]


async def test_an_edited_deal_of_the_overlap_is_handed_on_again() -> None:
    """Only an exact repeat is dropped: what an edit means is decided where it is landed."""
    world = await begun()
    world.trade(3)
    await world.pass_time(2)
    world.rows[3]["Profit"] = "2.00"
    await world.pass_time(2)
    world.rows[3]["Profit"] = "1.00"  # and back again
    await world.pass_time(2)
    assert [deal.profit for deal in world.landed] == [100, 200, 100]


async def test_deals_of_a_server_whose_clock_is_ahead_are_not_cut_off() -> None:
    """A window ends beyond now, as the server's own clock shows it."""
    for error_s in (-400, -30, 30, 400):
        world = World()
        world.error_s = error_s
        await world.feed.open()
        await world.feed.look()
        for ticket in range(1, 20):
            world.trade(ticket)
            await world.pass_time(1)
        assert world.tickets == list(range(1, 20))


@pytest.mark.parametrize("restarted", [True, False])
async def test_after_an_outage_no_window_is_long_and_each_is_landed_before_the_next(
    *, restarted: bool
) -> None:
    """Memory is that of a window, whatever the outage; the place moves with each."""
    world = await begun(window_s=600, rows_max=100)
    calm = len(world.asked)
    for ticket in range(1, 2001):
        world.trade(ticket, at=START + ticket * 40)
    world.now += 86_400
    if restarted:
        await world.restart()
    world.stored.clear()
    await world.feed.look()
    assert world.tickets == list(range(1, 2001))
    assert max(until - since for _, since, until in world.asked[calm:-1]) <= 600
    assert max(world.answered) <= 110
    places = [cursor.next or 0 for cursor in world.stored]
    assert places == sorted(places)
    assert len(places) > 100


async def test_calm_looks_say_nothing_of_how_much_an_outage_left() -> None:
    """A day of quiet looks, then a busy hour unseen: the first window after it is a short one."""
    world = await begun(rows_max=100)
    await world.pass_time(1000, each=10)
    for ticket in range(1, 3601):
        world.trade(ticket, at=world.now + ticket)
    world.now += 3600
    await world.feed.look()
    assert world.tickets == list(range(1, 3601))
    assert max(world.answered) <= 200


async def test_where_deals_are_many_windows_become_short_and_grow_again() -> None:
    """A burst is read in small parts; a quiet night in large ones."""
    world = await begun(rows_max=100)
    for ticket in range(1, 3001):
        world.trade(ticket, at=START + 30_000 + ticket // 20)
    world.now += 60_000
    world.too_many = 1500
    await world.feed.look()
    assert world.tickets == list(range(1, 3001))
    spans = [until - since for _, since, until in world.asked]
    assert {4, 5} & set(spans)  # 20 deals a second, 100 wanted
    assert max(spans[-10:]) == max(spans) == 3600


@pytest.mark.parametrize("reason", ["too-large", "timeout"])
async def test_an_answer_that_is_too_much_is_asked_for_in_parts(reason: str) -> None:
    """The session gives up on it; the feed asks for half, and half of that, and skips nothing."""
    world = await begun()
    for ticket in range(1, 101):
        world.trade(ticket, at=START + 300 + ticket // 4)
    world.now += 600
    world.too_many = 8
    if reason == "timeout":
        world.faults = [AnswerLost("timeout")] * 3
    await world.feed.look()
    assert world.tickets == list(range(1, 101))
    assert world.counted[reason] > 0


async def test_a_second_that_is_too_much_is_never_skipped() -> None:
    """It is a fault that a person sees; the place stays before it until it can be read."""
    world = await begun()
    for ticket in range(1, 11):
        world.trade(ticket, at=START + 100)
    world.now += 200
    world.too_many = 5
    for _ in range(3):
        with pytest.raises(AnswerLost):
            await world.feed.look()
    assert not world.landed
    world.too_many = 10
    await world.feed.look()
    assert world.tickets == list(range(1, 11))


@pytest.mark.parametrize("fault", [NothingSent("session"), AnswerLost("connection"), Denied("no")])
async def test_a_fault_moves_no_place(fault: Fault) -> None:
    """The look ends, and the next one begins where the last window was landed."""
    world = await begun()
    world.trade(1)
    world.now += 4000
    world.faults = [fault]
    with pytest.raises(Fault):
        await world.feed.look()
    await world.feed.look()
    assert world.tickets == [1]


async def test_a_refusal_of_the_platform_is_a_fault_too() -> None:
    """Too frequent requests are no empty answer."""
    world = await begun()

    async def refused(request: http.Request, _: object = None) -> http.Answer:
        return http.read_rows(b'{"retcode":"12 Too frequent requests"}')

    world.call = refused  # type: ignore[method-assign]
    with pytest.raises(AnswerLost, match="12 Too frequent"):
        await world.feed.look()


async def test_what_was_not_landed_is_not_remembered() -> None:
    """A landing that failed is done again with the same deals."""
    world = await begun()
    world.trade(1)
    land, world.feed._land = world.feed._land, failing
    with pytest.raises(OSError, match="gone"):
        await world.pass_time(1)
    world.feed._land = land
    await world.pass_time(1)
    assert world.tickets == [1]


async def failing(*_: object) -> None:
    """A ledger that is away."""
    raise OSError("gone")


async def test_a_row_that_is_no_deal_is_handed_on_beside_the_deals() -> None:
    """Neighbours of an unfit row are landed; the row itself is handed on once."""
    world = await begun()
    world.trade(1)
    world.trade(2, Profit="0.001")
    world.trade(3)
    await world.pass_time(5)
    assert world.tickets == [1, 3]
    assert [each.ticket for each in world.unfit] == [2]
    world.trade(2, at=world.now - 5)
    await world.pass_time(1)
    assert world.tickets == [1, 3, 2]


async def test_each_mask_is_asked_and_a_deal_under_two_comes_once() -> None:
    """Masks may overlap."""
    world = await begun(masks=(r"real\EU\*", r"real\*,!real\test*"))
    world.trade(1)
    await world.pass_time(1)
    assert world.tickets == [1]
    assert {mask for mask, _, _ in world.asked} == set(world.terms.masks)


async def test_a_back_dated_deal_is_found_by_the_sweep() -> None:
    """What was entered minutes behind the cursor is read when recent deals are looked at again."""
    world = await begun(sweep_every_s=60.0, sweep_s=600)
    await world.pass_time(700, each=10)
    world.trade(5, at=world.now - 500)
    await world.pass_time(400, each=10)
    assert world.tickets == [5]
    assert not world.feed.status().sweeping


async def test_a_deal_back_dated_before_an_outage_is_found_after_it() -> None:
    """However long nobody looked, a sweep reaches as far back as it would have then."""
    world = await begun(sweep_every_s=60.0, sweep_s=100)
    await world.pass_time(120, each=10)
    world.trade(5, at=world.now - 80)
    world.now += 5_000
    await world.restart()
    await world.pass_time(300, each=10)
    assert world.tickets == [5]


async def test_an_old_edit_is_found_by_the_deep_sweep() -> None:
    """Days later, window by window between ordinary looks."""
    world = await begun(deep_every_s=3600.0, deep_s=86_400, remembered_max=0)
    world.trade(5)
    await world.pass_time(50_000, each=50)
    world.rows[5]["Commission"] = "-3.00"
    before = len(world.landed)
    await world.pass_time(7200, each=10)
    assert world.landed[before].commission == -300


async def test_a_sweep_is_done_in_steps_between_looks() -> None:
    """However far back it goes, the newest deals do not wait for it."""
    world = await begun(deep_every_s=1000.0, deep_s=50_000, window_s=60)
    await world.pass_time(900, each=10)
    world.now += 50_000
    await world.feed.look()
    world.asked.clear()
    for ticket in range(1, 11):
        world.trade(ticket)
        await world.pass_time(1)
        assert world.tickets[-1] == ticket
    assert world.feed.status().sweeping
    assert all(until - since <= 60 + 60 + 12 for _, since, until in world.asked)


async def test_a_quiet_hour_makes_no_sweep_over_a_busy_one_ask_for_too_much() -> None:
    """Looks that find nothing grow; the sweep between them goes by what it finds itself."""
    world = await begun(sweep_every_s=300.0, sweep_s=250, overlap_s=3)
    world.too_many = 400
    for ticket in range(1, 4001):
        world.trade(ticket)
        if ticket % 100 == 0:  # 20 a second for 200 seconds
            await world.pass_time(5, each=5)
    late = world.trade(9999, at=START + 100)
    await world.pass_time(200, each=5)
    assert late in world.tickets


async def test_the_memory_of_repeats_is_bounded() -> None:
    """What it forgot is handed on again: more work for the ledger, never a loss."""
    world = await begun(remembered_max=10)
    for ticket in range(1, 51):
        world.trade(ticket)
    await world.pass_time(1)
    assert len(world.feed._seen._digests) == len(world.feed._seen._newest) == 10
    await world.pass_time(1)
    assert set(world.tickets) == set(range(1, 51))


async def test_an_edit_that_is_taken_back_is_handed_on() -> None:
    """A row that was landed before its ticket's last one is no repeat of it."""
    world = await begun()
    world.trade(5)
    await world.pass_time(1)
    for commission in ("-3.00", "0.00", "-3.00"):
        world.rows[5]["Commission"] = commission
        await world.pass_time(1)
    assert [deal.commission for deal in world.landed[-3:]] == [-300, 0, -300]


async def test_a_restart_goes_on_from_what_is_stored() -> None:
    """Deals made while nobody looked are read by the next owner, others are not read anew."""
    world = await begun()
    await world.pass_time(100)
    world.trade(1, at=START + 10)  # behind any overlap: only a sweep would find it
    world.now += 500
    world.trade(2)
    await world.restart()
    await world.feed.look()
    assert world.tickets == [2]


async def test_in_calm_the_place_is_stored_now_and_then() -> None:
    """Not with every look, but so often that a restart has little to read."""
    world = await begun()
    world.stored.clear()
    await world.pass_time(100)
    assert 5 <= len(world.stored) <= 10


async def test_without_a_session_there_is_no_offset_to_believe() -> None:
    """A session that is down has measured nothing: no window is asked for by a false clock."""
    world = await begun()
    world.live, world.measured = False, 0
    with pytest.raises(NothingSent):
        await world.feed.look()
    world.live, world.measured = True, 7200
    world.trade(1)
    await world.pass_time(1)
    assert world.tickets == [1]
    assert world.stored[-1].offset == 7200


async def test_the_status_says_how_far_behind_it_is() -> None:
    """The lag counts from the last second that was read, and goes on while nothing is."""
    world = World()
    assert world.feed.status().lag_s is None
    await world.feed.open()
    await world.feed.look()
    world.now += 90
    status = world.feed.status()
    assert status.lag_s == 90
    assert status.reached == datetime.fromtimestamp(START, UTC)


async def test_faults_are_waited_out_and_shown() -> None:
    """The feed runs on after any fault of the platform; only a landing's failure ends it."""
    world = World(poll_s=0.001, retry_max_s=0.002)
    world.faults = [AnswerLost("connection"), Denied("denied")]
    world.trade(1)
    running = asyncio.create_task(world.feed.run())
    async with asyncio.timeout(10):
        while not world.landed:
            await asyncio.sleep(0.001)
    assert (world.counted["connection"], world.counted["denied"]) == (1, 1)
    world.feed._land = failing
    world.trade(2)
    async with asyncio.timeout(10):
        with pytest.raises(OSError, match="gone"):
            await running


@given(data=st.data())
async def test_no_order_of_faults_restarts_and_late_deals_loses_one(data: st.DataObject) -> None:
    """Once all is calm every deal was landed, and each recent one with its last content."""
    world = await begun(sweep_every_s=30.0, sweep_s=120, rows_max=100, history_s=3600)
    for ticket in range(1, data.draw(st.integers(1, 25)) + 1):
        world.trade(ticket, at=world.now - data.draw(st.integers(0, 60)))
        match data.draw(st.sampled_from(["calm", "fault", "restart", "edit", "away"])):
            case "fault":
                world.faults = [AnswerLost("connection")] * data.draw(st.integers(1, 3))
            case "restart":
                await world.restart()
            case "edit":
                edited = data.draw(st.integers(1, ticket))
                world.rows[edited]["Profit"] = f"{ticket}.00"
            case "away":
                world.now += data.draw(st.integers(1, 600))
        world.now += data.draw(st.integers(0, 20))
        try:
            await world.feed.look()
        except Fault:
            continue
    last = world.now
    world.faults.clear()
    await world.pass_time(300, each=5)
    newest = {deal.ticket: deal.profit for deal in world.landed}
    assert newest.keys() == world.rows.keys()
    recent = {ticket: row for ticket, row in world.rows.items() if _recent(row, last)}
    assert {ticket: newest.get(ticket) for ticket in recent} == {
        ticket: int(row["Profit"].replace(".", "")) for ticket, row in recent.items()
    }


def _recent(row: dict[str, str], last: int) -> bool:
    """Whether a sweep after `last` still reaches back to a deal that was edited."""
    return int(row["Time"]) - 7200 > last - 60
