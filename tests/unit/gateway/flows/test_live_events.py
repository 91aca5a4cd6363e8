"""The event of a partner's stream: its id, its numbers and its bytes."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import msgspec
import pytest

from gateway.flows import live_events
from ledger.rebates.reads import ContractBalances

DAY = date(2026, 1, 5)
AT = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)
HELD = ContractBalances(
    contract="CT1", book=1, currency="EUR", accrued=12040, held=-5, payable=0, today=1, lines=3,
    last_line=77, version=4, at=AT,
)  # fmt: skip


def data(text: bytes) -> dict[str, object]:
    """What the event says."""
    decoded: dict[str, object] = msgspec.json.decode(text.partition(b"data: ")[2])
    return decoded


@pytest.mark.parametrize(
    ("currency", "accrued"), [("EUR", "120.40"), ("JPY", "12040"), ("USDT", "0.012040")]
)
def test_amounts_have_the_decimals_of_their_currency(currency: str, accrued: str) -> None:
    """Minor units become text with exactly the currency's decimals."""
    held = msgspec.structs.replace(HELD, currency=currency)
    said = data(live_events.event("PA1", DAY, [held]).text)

    assert said["contracts"][0]["accrued"] == accrued  # type: ignore[index]


def test_the_id_counts_entries_and_contracts_and_the_time_is_the_newest() -> None:
    """Over all contracts; one that never had a batch is known by it, and has no time."""
    older = msgspec.structs.replace(HELD, contract="CT2", version=5, at=AT - timedelta(hours=1))
    never = msgspec.structs.replace(HELD, contract="CT3", version=0, at=None)
    event = live_events.event("PA1", DAY, [older, HELD, never])

    assert event.id == 9 + 3
    assert event.text.startswith(b"event: balances\nid: 12\ndata: {")
    assert data(event.text)["at"] == "2026-01-05T09:30:00Z"
    assert data(live_events.event("PA1", DAY, [never]).text)["at"] is None


def test_an_event_is_one_line_of_data_and_one_part_of_a_body() -> None:
    """Nothing in it ends the event early, and the part's length is the text's."""
    event = live_events.event("PA1", DAY, [HELD, HELD])
    size, _, rest = event.chunk.partition(b"\r\n")

    assert event.text.count(b"\n") == 4
    assert event.text.endswith(b"}\n\n")
    assert int(size, 16) == len(event.text)
    assert rest == event.text + b"\r\n"
