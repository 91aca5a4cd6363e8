"""Landed deals are put together a slice at a time, however many are read."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec

from ledger import deals
from tests.unit.ledger.values import deal

SLICES = 4


class Rows:
    """A connection whose answer is there at once, so that only our own work takes the loop."""

    def __init__(self, count: int) -> None:
        self._rows = [(n, 1, *msgspec.structs.astuple(deal(n))) for n in range(1, count + 1)]

    async def fetch(self, *asked: object) -> list[tuple[Any, ...]]:
        """What a server would say."""
        assert asked
        return self._rows


async def test_others_are_served_between_slices() -> None:
    """Payments share the loop with what is read for accrual."""
    turns: list[int] = []

    async def others() -> None:
        while True:
            turns.append(len(turns))
            await asyncio.sleep(0)

    count = SLICES * deals.SLICE
    serving = asyncio.create_task(others())
    found = await deals.after(cast("Any", Rows(count)), 1, 1, 0, count)
    serving.cancel()

    assert [landed.no for landed in found] == list(range(1, count + 1))
    assert found[-1].deal == deal(count)
    assert len(turns) >= SLICES
