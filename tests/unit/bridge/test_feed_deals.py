"""Rows of the wire become deals of the books, or are unfit with a reason."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.mt5 import deals, http
from bridge.mt5 import map as wire
from bridge.mt5.deals import Unfit
from ledger.facts import DEAL, Deal

ROW = {
    "Deal": "1000003",
    "ExternalID": "",
    "Login": "100001",
    "Action": "1",
    "Entry": "1",
    "Reason": "3",
    "Digits": "5",
    "DigitsCurrency": "2",
    "Time": "1768478400",
    "TimeMsc": "1768478400123",
    "Symbol": "EURUSD",
    "Price": "1.08432",
    "Volume": "2500",
    "VolumeExt": "25000000",
    "Profit": "-12.34",
    "Storage": "-0.10",
    "Commission": "-0.75",
    "Fee": "0.05",
    "PositionID": "3000003",
    "Comment": "[sl 1.08432]",
    "VolumeClosed": "2500",
    "VolumeClosedExt": "25000000",
    "ModifyFlags": "0",
    "ApiData": [{"AppID": "1"}],
}
IN, OUT, INOUT, OUT_BY = "0", "1", "2", "3"


def utc_ms(server_ms: int) -> int:
    """The server of these tests is two hours ahead."""
    return server_ms - 7_200_000


def raw(without: tuple[str, ...] = (), **changes: Any) -> msgspec.Raw:
    """A row as it comes, with some fields changed or absent."""
    row = {name: value for name, value in (ROW | changes).items() if name not in without}
    return msgspec.Raw(msgspec.json.encode(row))


def fit(without: tuple[str, ...] = (), **changes: Any) -> Deal:
    """The deal that a row is."""
    read = deals.read(raw(without, **changes), utc_ms)
    assert isinstance(read, Deal), read
    return read


def unfit(without: tuple[str, ...] = (), **changes: Any) -> Unfit:
    """Why a row is none."""
    read = deals.read(raw(without, **changes), utc_ms)
    assert isinstance(read, Unfit), read
    return read


def test_a_deal_is_read_whole() -> None:
    """Every field lands in the books' own words, money in minor units, times in UTC."""
    assert fit() == Deal(
        ticket=1_000_003, phase=DEAL, login=100_001, position=3_000_003, action=1, entry=1,
        reason=3, symbol="EURUSD", volume=25_000_000, closed=25_000_000, price=Decimal("1.08432"),
        digits=2, profit=-1234, commission=-75, swap=-10, fee=5, flags=0, comment="[sl 1.08432]",
        at=datetime(2026, 1, 15, 10, 0, 0, 123_000, tzinfo=UTC), server_ms=1_768_478_400_123,
    )  # fmt: skip


def test_numbers_are_read_like_text() -> None:
    """A server that writes numbers where others write strings says the same."""
    numbers = {
        name: int(value)
        for name, value in ROW.items()
        if isinstance(value, str) and value.isdigit()
    }
    row = msgspec.json.encode(ROW | numbers).replace(b'"-12.34"', b"-12.34")
    assert b'"Profit":-12.34' in row
    assert deals.read(msgspec.Raw(row), utc_ms) == fit()


@pytest.mark.parametrize(
    ("volume", "volume_ext", "lots_e8"),
    [
        ("2500", "25000000", 25_000_000),
        ("2500", "0", 25_000_000),  # an older build: the fine scale is empty
        ("2500", "", 25_000_000),
        ("2500", "25009999", 25_009_999),  # the coarse scale cut off what it cannot say
        ("0", "1234", 1_234),
        ("0", "0", 0),
    ],
)
def test_the_finer_volume_counts_where_there_is_one(
    volume: str, volume_ext: str, lots_e8: int
) -> None:
    """VolumeExt counts 1e-8 lots, Volume 1e-4."""
    assert fit(Volume=volume, VolumeExt=volume_ext).volume == lots_e8


@pytest.mark.parametrize("volume_ext", ["25010000", "24990000", "2500", "250000000000"])
def test_volumes_that_contradict_each_other_are_unfit(volume_ext: str) -> None:
    """Nobody can say which of the two was traded, so nobody is paid by guess."""
    assert "contradict" in unfit(Volume="2500", VolumeExt=volume_ext).why


@pytest.mark.parametrize(
    ("entry", "closed"), [(IN, 0), (OUT, 25_000_000), (OUT_BY, 25_000_000), (INOUT, 5_000_000)]
)
def test_what_a_deal_closes_depends_on_its_entry(entry: str, closed: int) -> None:
    """Opening closes nothing, closing all of it, a reversal what the platform says."""
    assert fit(Entry=entry, VolumeClosed="500", VolumeClosedExt="5000000").closed == closed


def test_the_closed_volume_has_both_scales_too() -> None:
    """A reversal of an older build says its closed part in the coarse scale alone."""
    assert fit(("VolumeClosedExt",), Entry=INOUT, VolumeClosed="500").closed == 5_000_000
    assert "VolumeClosed" in unfit(("VolumeClosedExt", "VolumeClosed"), Entry=INOUT).why


def test_a_balance_deal_closes_nothing() -> None:
    """Money without a trade has its amount in profit, and no volume."""
    deal = fit(
        Action="2", Entry=IN, Symbol="", Volume="0", VolumeExt="0", Price="0", PositionID="0",
        Profit="100.00",
    )  # fmt: skip
    assert (deal.action, deal.profit, deal.volume, deal.closed) == (2, 10_000, 0, 0)


def test_a_trade_that_neither_opens_nor_closes_is_unfit() -> None:
    """An entry that we do not know is not taken for one that pays nothing."""
    assert "Entry" in unfit(Entry="255").why


@given(minor=st.integers(-(10**15), 10**15), digits=st.integers(0, 8))
def test_money_arrives_to_the_minor_unit(minor: int, digits: int) -> None:
    """Whatever the decimals of the account's currency."""
    text = wire.write_minor(minor, digits)
    zero = wire.write_minor(0, digits)
    deal = fit(
        DigitsCurrency=str(digits), Profit=text, Storage=zero, Commission=zero, Fee=zero + "0"
        if digits else zero,
    )  # fmt: skip
    assert deal.profit == minor


@pytest.mark.parametrize("field", ["Profit", "Commission", "Storage", "Fee"])
@pytest.mark.parametrize("text", ["0.005", "1e2", "", "NaN", "1,00", "--1", "9" * 18])
def test_money_that_is_no_whole_number_of_minor_units_is_unfit(field: str, text: str) -> None:
    """It is neither rounded nor guessed."""
    assert field in unfit(**{field: text}).why


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("Deal", "18446744073709551615"),
        ("Login", "-1"),
        ("Action", "70000"),
        ("ModifyFlags", "4294967296"),
        ("VolumeExt", "9223372036854775808"),
        ("TimeMsc", "99999999999999"),
        ("DigitsCurrency", "9"),
        ("Price", "x"),
        ("Symbol", "EUR\0USD"),
    ],
)
def test_what_the_books_cannot_hold_is_unfit(field: str, text: str) -> None:
    """No value reaches a statement that would fail on it and take its neighbours along."""
    assert field.removesuffix("Ext") in unfit(**{field: text}).why


@pytest.mark.parametrize("field", ["Deal", "Login", "Action", "Symbol", "Profit", "PositionID"])
def test_a_row_without_a_field_is_unfit_and_keeps_its_text(field: str) -> None:
    """A person sees what came; the ticket is named where there is one."""
    read = unfit((field,))
    assert field in read.why
    assert read.ticket == (0 if field == "Deal" else 1_000_003)
    assert '"Price":"1.08432"' in read.raw


@pytest.mark.parametrize("field", ["Profit", "Login", "Comment"])
@pytest.mark.parametrize("value", [None, True, [], {}])
def test_a_field_that_is_no_scalar_is_unfit(field: str, value: object) -> None:
    """Nothing is made of what is no number and no text."""
    assert field in unfit(**{field: value}).why


@pytest.mark.parametrize("body", [b"7", b"null", b'{"Deal":"5"', b'{"Deal":"5","Login":"\xff"}'])
def test_what_is_no_object_at_all_is_unfit(body: bytes) -> None:
    """Its text is kept without what a database would refuse."""
    read = deals.read(msgspec.Raw(body), utc_ms)
    assert isinstance(read, Unfit)
    read.raw.encode()
    assert "\0" not in read.raw


def test_older_builds_have_fewer_fields() -> None:
    """Without milliseconds, fee, fine volumes and flags a deal is still a deal."""
    older = fit(("TimeMsc", "Fee", "VolumeExt", "VolumeClosed", "VolumeClosedExt", "ModifyFlags"))
    assert (older.server_ms, older.fee, older.volume) == (1_768_478_400_000, 0, 25_000_000)
    assert fit(("ModifyFlags",), ModificationFlags="2").flags == 2


def test_a_comment_that_no_table_can_hold_is_kept_without_the_nul() -> None:
    """A comment is for people: one character less is no reason to stop a rebate."""
    assert fit(Comment="a\0b").comment == "ab"


def test_rows_are_left_unread_by_the_envelope() -> None:
    """A long answer is split, not read: a row that is odd does no harm to the others."""
    body = b'{"retcode":"0 Done","answer":[%b,7,{"Deal":8}]}' % bytes(raw())
    answer = http.read_rows(body)
    assert answer.ok
    assert [deals.ticket_of(row) for row in answer.rows] == [1_000_003, 0, 8]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"answer":[]}', b'{"retcode":"0 Done","answer":{}}', b"\xff"]
)
def test_an_envelope_without_rows_is_unreadable(body: bytes) -> None:
    """Half an answer is no answer, and no empty one either."""
    with pytest.raises(wire.Unreadable):
        http.read_rows(body)


def test_an_answer_may_have_no_rows() -> None:
    """No deals and a refusal have none."""
    assert http.read_rows(b'{"retcode":"0 Done","answer":[]}').rows == ()
    assert http.read_rows(b'{"retcode":"12 Too frequent requests"}').code == 12
