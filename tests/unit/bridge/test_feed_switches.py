"""The feed where the clock is put forward or back: an hour is skipped, or comes twice."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bridge.faults import AnswerLost
from bridge.mt5 import http
from tests.unit.bridge.feeding import World, begun

SPRING = int(datetime(2026, 3, 29, 1, 0, tzinfo=UTC).timestamp())
AUTUMN = int(datetime(2026, 10, 25, 1, 0, tzinfo=UTC).timestamp())


async def across(switch: int, noticed: int) -> tuple[World, dict[int, int]]:
    """Two hours before a switch to two hours after it, a deal and a look each ten seconds.

    noticed  seconds that the session takes to measure the new offset
    """
    world = await begun(switch - 7200)
    made: dict[int, int] = {}
    while world.now < switch + 7200:
        made[world.trade(len(made) + 1)] = world.now
        world.now += 10
        world.measured = world.offset(world.now - noticed)
        await world.feed.look()
    return world, made


@pytest.mark.parametrize("switch", [SPRING, AUTUMN])
@pytest.mark.parametrize("noticed", [0, 40])
async def test_every_deal_around_a_switch_is_read_and_stands_at_its_time(
    switch: int, noticed: int
) -> None:
    """An hour that is skipped or shown twice hides no deal, moves none and delays none."""
    world, made = await across(switch, noticed)
    assert sorted(world.tickets) == sorted(set(world.tickets)) == list(made)
    assert {deal.ticket: int(deal.at.timestamp()) for deal in world.landed} == made


@pytest.mark.parametrize("switch", [SPRING, AUTUMN])
async def test_deals_of_the_last_second_before_a_switch_are_not_lost(switch: int) -> None:
    """They were made after the last look that knew the old offset."""
    world = await begun(switch - 15)
    world.trade(1, at=switch - 1)
    world.trade(2, at=switch)
    world.now = switch + 3
    world.measured = world.offset(world.now)
    await world.feed.look()
    assert sorted(world.tickets) == [1, 2]
    assert {deal.ticket: int(deal.at.timestamp()) for deal in world.landed} == {
        1: switch - 1, 2: switch,
    }  # fmt: skip


@pytest.mark.parametrize("switch", [SPRING, AUTUMN])
@pytest.mark.parametrize("ends_after", [60, 1800, 20_000])
async def test_an_outage_over_a_switch_loses_nothing(switch: int, ends_after: int) -> None:
    """The walk covers both offsets; outside the repeated hour each deal has its own time."""
    world = await begun(switch - 20_000)
    made = {}
    for number, at in enumerate(range(switch - 19_000, switch + ends_after, 50), start=1):
        made[world.trade(number, at=at)] = at
    world.now = switch + ends_after
    world.measured = world.offset(world.now)
    await world.restart()
    await world.feed.look()
    assert sorted(world.tickets) == list(made)
    sure = {ticket: at for ticket, at in made.items() if not -3600 <= at - AUTUMN < 3600}
    landed = {deal.ticket: int(deal.at.timestamp()) for deal in world.landed}
    assert {ticket: landed[ticket] for ticket in sure} == sure


async def test_a_walk_over_a_switch_that_is_broken_off_is_taken_up() -> None:
    """It goes on where it ended, however often, and then reads what was made meanwhile."""
    world = await begun(AUTUMN - 4000)
    for number, at in enumerate(range(AUTUMN - 3900, AUTUMN + 1000, 10), start=1):
        world.trade(number, at=at)
    world.now = AUTUMN + 1000
    world.measured = world.offset(world.now)
    ask, calls = world.call, 0

    async def broken(request: http.Request, _: object = None) -> http.Answer:
        nonlocal calls
        calls += 1
        if calls % 4 == 0:
            raise AnswerLost("connection")
        return await ask(request)

    world.call = broken  # type: ignore[method-assign]
    for ticket in range(10_001, 10_300):
        world.now += 3
        world.trade(ticket)
        await world.restart()
        try:
            await world.feed.look()
        except AnswerLost:
            continue
        break
    else:
        pytest.fail("the walk never came to its end")
    assert len(world.stored) > 50
    world.call = ask  # type: ignore[method-assign]
    await world.feed.look()
    assert set(world.tickets) == set(world.rows)
    assert world.stored[-1].offset == 7200
