"""How much accrual takes at a time, by what became of the last batch."""

from __future__ import annotations

from gateway.flows.pace import DEALS_MIN, QUICK_S, Pace


def test_a_failure_halves_down_to_a_few() -> None:
    """What ended us may have been our own batch; a few deals are never too many."""
    pace = Pace(400)
    sizes = []
    for _ in range(5):
        pace.failed()
        sizes.append(pace.deals)
    assert sizes == [200, 100, DEALS_MIN, DEALS_MIN, DEALS_MIN]
    assert not pace.whole


def test_quick_batches_grow_up_to_the_whole() -> None:
    """Twice as many each time, and never more than is allowed."""
    pace = Pace(300)
    pace.failed()
    pace.failed()
    pace.committed(75, QUICK_S / 2)
    assert (pace.deals, pace.whole) == (150, False)
    pace.committed(150, QUICK_S / 2)
    pace.committed(300, QUICK_S / 2)
    assert (pace.deals, pace.whole) == (300, True)


def test_a_slow_or_small_batch_proves_nothing() -> None:
    """Twice of what took long might take too long, and a few are quick on any server."""
    pace = Pace(400)
    pace.failed()
    pace.committed(200, QUICK_S)
    pace.committed(90, QUICK_S / 2)
    assert pace.deals == 200


def test_a_bound_below_the_least_is_kept() -> None:
    """Whoever allows fewer deals than the least gets no more of them."""
    pace = Pace(10)
    pace.failed()
    assert (pace.deals, pace.whole) == (10, True)
