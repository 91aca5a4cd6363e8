"""Values of the wire: strings or numbers in, strings out, nothing guessed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.mt5 import http, retcodes
from bridge.mt5 import map as wire

money = st.integers(-(10**15), 10**15)


@given(number=st.integers(-(2**63), 2**64 - 1), quoted=st.booleans())
def test_a_whole_number_survives_as_string_or_number(number: int, quoted: bool) -> None:
    """The reader takes logins, tickets and flags in either spelling."""
    body = msgspec.json.encode({"X": str(number) if quoted else number})
    assert wire.read_integer(msgspec.json.decode(body), "X") == number


@given(minor=money, digits=st.integers(0, 8))
def test_money_survives_the_wire(minor: int, digits: int) -> None:
    """What is written is read back to the same minor units, without a float on the way."""
    assert wire.read_minor({"X": wire.write_minor(minor, digits)}, "X", digits) == minor


@given(minor=money)
def test_money_sent_as_a_number_stays_exact(minor: int) -> None:
    """A server that writes money as a JSON number loses nothing at our end."""
    text = wire.write_minor(minor, 2)
    answer = http.read_answer(b'{"retcode":"0 Done","answer":{"X":%s}}' % text.encode())
    assert wire.read_minor(wire.mapping(answer.answer), "X", 2) == minor


@given(text=st.text(max_size=40))
def test_text_survives_the_query_and_the_log(text: str) -> None:
    """Any name reaches the server as it is, percent-encoded as UTF-8 with %20 for a space."""
    from urllib.parse import parse_qs, urlsplit

    request = http.group_get(text)
    assert " " not in request.target
    assert "+" not in request.target
    sent = parse_qs(urlsplit(request.target).query, keep_blank_values=True)["group"]
    assert sent == [text]


@pytest.mark.parametrize("value", [None, "", "x", "1.5", "１２", [], {}, True, "1e3"])
def test_what_is_no_whole_number_is_unreadable(value: object) -> None:
    """Nothing is guessed: a strange value makes the answer unreadable."""
    with pytest.raises(wire.Unreadable):
        wire.read_integer({"X": value}, "X")


@pytest.mark.parametrize("value", [None, "", "NaN", "1e30", "1.005", "--1", "1,00", "Infinity"])
def test_what_is_no_money_of_two_decimals_is_unreadable(value: object) -> None:
    """Money with an exponent, a comma or a third decimal is not rounded but refused."""
    with pytest.raises(wire.Unreadable):
        wire.read_minor({"X": value}, "X", 2)


@pytest.mark.parametrize("offset_h", [-5, 0, 2, 3, 5.75])
@given(
    seconds=st.integers(1_577_836_800, 2_051_222_400),
    error_s=st.integers(-400, 400),
)
def test_the_offset_is_found_through_delay_and_clock_error(
    offset_h: float, seconds: int, error_s: int
) -> None:
    """A zone is a whole number of quarters; less than half a quarter of error does not shift it."""
    moment = datetime.fromtimestamp(seconds, UTC)
    offset_s = int(offset_h * 3600)
    there = int(moment.timestamp()) + offset_s + error_s
    assert wire.measured_offset_s(there, moment) == offset_s
    assert wire.clock_error_s(there, moment) == error_s


def test_server_time_becomes_utc_and_back() -> None:
    """A moment of the server's wall clock is UTC plus the measured offset."""
    moment = datetime(2026, 7, 1, 9, 0, tzinfo=UTC)
    there = wire.to_server_time(moment, 10_800)
    assert wire.to_utc(there, 10_800) == moment
    assert there == int((moment + timedelta(hours=3)).timestamp())


def test_the_clock_is_the_first_number_of_its_answer() -> None:
    """time/server writes the number and the same as text."""
    assert wire.read_server_time({"Time": "1572518788 2019.10.31 10:46:28"}) == 1_572_518_788


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"{}", b'{"retcode":null}', b'{"retcode":"Done"}',
     b'{"retcode":""}', b'{"retcode":"-1 No"}', b"\xff\xfe", b'{"retcode":"9999999999 X"}'],
)  # fmt: skip
def test_a_broken_envelope_is_unreadable(body: bytes) -> None:
    """Half an answer is no answer."""
    with pytest.raises(wire.Unreadable):
        http.read_answer(body)


def test_an_envelope_is_code_text_and_payload() -> None:
    """The retcode is a number and words; what stands beside `answer` is kept."""
    answer = http.read_answer(b'{"retcode":"13 Not found","login":"7"}')
    assert (answer.code, answer.text, answer.answer, answer.ok) == (13, "Not found", None, False)
    assert answer.top["login"] == "7"


def test_a_write_is_a_post_and_a_read_a_get() -> None:
    """No HTTP client repeats a POST by itself, so everything that changes something is one."""
    assert http.trade_balance(1, "1.00", "BO").method == "POST"
    assert http.user_update(1, {"rights": 0}).method == "POST"
    assert http.user_get(1).method == "GET"


def test_a_balance_request_is_these_bytes() -> None:
    """Type 2, a plain decimal amount, and our reference as comment."""
    request = http.trade_balance(100_001, "-12.50", "BO012345678901234567")
    assert request.target == (
        "/api/trade/balance?login=100001&type=2&balance=-12.50&comment=BO012345678901234567"
    )


def test_passwords_stand_in_no_url_and_no_log() -> None:
    """The passwords of a creation are in the body alone."""
    user = wire.User(login=1, group="g", rights=1, leverage=1, name="n", id="i", comment="c")
    request = http.user_add(user, "Main-pass1", "Inve-pass1")
    assert "pass1" not in request.target
    assert "pass1" not in request.redacted
    assert msgspec.json.decode(request.content) == {
        "PassMain": "Main-pass1",
        "PassInvestor": "Inve-pass1",
    }


def test_the_fingerprint_tells_requests_apart() -> None:
    """Equal requests have equal fingerprints, another password has another."""
    user = wire.User(login=1, group="g", rights=1, leverage=1, name="n", id="i", comment="c")
    one, same = http.user_add(user, "A", "B"), http.user_add(user, "A", "B")
    assert one.fingerprint == same.fingerprint
    assert one.fingerprint != http.user_add(user, "A", "C").fingerprint


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (0, "ok"), (1, "ok"), (9, "ambiguous"), (10, "ambiguous"), (15, "ambiguous"),
        (16, "ambiguous"), (11, "transient"), (12, "transient"), (12003, "transient"),
        (12004, "transient"), (8, "configuration"), (3002, "configuration"),
        (3003, "configuration"), (3007, "configuration"), (1013, "configuration"),
        (12001, "configuration"), (2007, "configuration"), (3, "data"), (3004, "data"),
        (3006, "data"), (3008, "business"), (3009, "business"), (3010, "business"),
        (4005, "business"), (10019, "business"), (77777, "ambiguous"),
    ],
)  # fmt: skip
def test_each_code_has_the_class_that_says_who_acts(code: int, kind: str) -> None:
    """The classes are those of the operations manual; an unknown code is ambiguous, never done."""
    assert retcodes.class_of(code) == kind


def test_a_deal_is_read_with_its_exact_amount() -> None:
    """The amount of a balance deal is its Profit, whatever its number of decimals."""
    deal = {"Deal": "7", "Login": "1", "Action": "2", "Profit": "-0.10", "Comment": "", "Time": "5"}
    [read] = wire.read_deals([deal])
    assert (read.profit, read.ticket) == (Decimal("-0.10"), 7)
