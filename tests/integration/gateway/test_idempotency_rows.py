"""Keys of commands as rows: kept for seven days, then deleted a few at a time."""

from __future__ import annotations

from datetime import timedelta

from gateway.control import idempotency
from gateway.control.idempotency import Answer, Idem, claimed, finished
from ledger.units import Done, Left, Unit, Why
from tests.integration.gateway.conftest import Api


async def test_a_key_is_kept_for_seven_days_and_then_free(api: Api) -> None:
    """Younger ones stay; older ones go, no more than asked for at once."""
    now = api.clock.now()
    for n, age in enumerate((0, 6, 8, 9, 10)):
        at = now - timedelta(days=age)
        unit = Unit((claimed(Idem("shop", f"k{n}", b"f"), "PY", "", at, at, Answer(200, b"")),))
        assert isinstance(await api.lane.submit(unit), Done)

    async with api.pool.acquire() as conn:
        assert await idempotency.purge(conn, now, rows_max=2) == 2
        assert await idempotency.purge(conn, now) == 1

    keys = {row["key"] for row in await api.rows("SELECT key FROM gateway.idempotency")}
    assert keys == {"shop:k0", "shop:k1"}


async def test_an_answer_is_stored_once_under_a_claimed_key(api: Api) -> None:
    """The claim comes first, the answer moves it by version; a second answer finds it moved."""
    now = api.clock.now()
    idem = Idem("shop", "k", b"f")
    claim = claimed(idem, "PY1", "/v1/payments/PY1", now, now + timedelta(seconds=20))
    assert isinstance(await api.lane.submit(Unit((claim,))), Done)

    async with api.pool.acquire() as conn:
        open_claim = await idempotency.find(conn, idem)
        assert open_claim is not None
        assert open_claim.answer is None
        first = finished(idem, Answer(201, b"a", "/v1/payments/PY1"))
        assert isinstance(await api.lane.submit(Unit((first,))), Done)
        second = await api.lane.submit(Unit((finished(idem, Answer(500, b"b")),)))
        held = await idempotency.find(conn, idem)

    assert isinstance(second, Left)
    assert second.why is Why.STALE
    assert held is not None
    assert held.answer == Answer(201, b"a", "/v1/payments/PY1")
