"""Which waiting rows are taken up beside those in hand."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.flows.outbox import IN_FLIGHT_MAX, LANE_IN_FLIGHT_MAX, Row, with_room


def row(number: int, lane: str) -> Row:
    """A waiting row of a lane."""
    return Row(
        id=number, version=1, lane=lane, no=number, kind="k", aggregate=str(number), body="{}",
        correlation="", attempts=0, created=datetime(2026, 3, 2, tzinfo=UTC),
    )  # fmt: skip


def test_a_lane_that_hangs_keeps_to_its_share() -> None:
    """However many rows of one lane wait first, the rows of another are taken up beside them."""
    hanging = [row(n, "subscriber:slow") for n in range(100)]
    taken = with_room([*hanging, row(100, "subscriber:quick")], {})
    assert sum(each.lane == "subscriber:slow" for each in taken) == LANE_IN_FLIGHT_MAX
    assert taken[-1].lane == "subscriber:quick"


def test_what_is_in_hand_is_not_taken_twice_and_counts() -> None:
    """A row being handled is left alone, and uses its lane's share."""
    busy = dict.fromkeys(range(LANE_IN_FLIGHT_MAX - 1), "subscriber:slow")
    taken = with_room([row(n, "subscriber:slow") for n in range(30)], busy)
    assert [each.id for each in taken] == [LANE_IN_FLIGHT_MAX - 1]


def test_there_is_an_end_to_what_is_in_hand() -> None:
    """Beyond the limit nothing is taken up, whatever its lane."""
    rows = [row(n, f"subscriber:s{n}") for n in range(IN_FLIGHT_MAX * 2)]
    assert len(with_room(rows, {})) == IN_FLIGHT_MAX
    assert with_room(rows, {-n: "psp:acme" for n in range(1, IN_FLIGHT_MAX + 1)}) == []
