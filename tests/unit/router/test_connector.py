"""The connector engine and the connector of the simulated provider."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from router import taxonomy
from router.outcomes import (
    Approved,
    Declined,
    NotFound,
    NotSent,
    Outcome,
    Pending,
    Unknown,
)
from router.psp.connector import (
    Connector,
    HttpAnswer,
    HttpRequest,
    Unreadable,
    compile_connector,
    load_connectors,
)
from router.psp.inbox import Forged, entry, read_notice, verify
from router.psp.signatures import sign_timestamped
from tests.unit.router.values import NOW, REFERENCE, intent

CONNECTORS, FINDINGS = load_connectors(taxonomy.load())
SIMPAY = CONNECTORS["simpay"]
SOURCE = Path("router/psp/connectors/simpay.toml").read_text()
CHARGE = {
    "id": "acme_1", "reference": REFERENCE, "status": "approved", "amount": "100.00",
    "currency": "EUR", "created": 1,
}  # fmt: skip


def answer(status: int, body: object) -> HttpAnswer:
    """An answer with this document, or with these bytes."""
    return HttpAnswer(status, body if isinstance(body, bytes) else json.dumps(body).encode())


def charge(status: int = 200, /, **changes: object) -> Outcome:
    """What an answer to a charge means."""
    return SIMPAY.read_charge(answer(status, CHARGE | changes), REFERENCE)


def declined(**codes: str) -> Outcome:
    """What a decline with these codes means."""
    return charge(status="declined", decline=codes)


def test_the_connectors_of_the_package_have_no_findings() -> None:
    """Every provider's file compiles."""
    assert FINDINGS == []
    assert "simpay" in CONNECTORS


def test_the_charge_request_is_golden() -> None:
    """Method, target, headers and body of a charge, byte for byte."""
    assert SIMPAY.charge(intent(instrument="tok_1"), REFERENCE, "key") == HttpRequest(
        "POST",
        "/v1/charges",
        {
            "Authorization": "Bearer key",
            "Idempotency-Key": REFERENCE,
            "Content-Type": "application/json",
        },
        b'{"reference":"AT000000000000000001","amount":"100.00","currency":"EUR","method":"card",'
        b'"country":"DE","customer":"CL000000000000000001","instrument":"tok_1"}',
    )


def test_the_amount_is_written_in_the_decimals_of_its_currency() -> None:
    """A currency without decimals has none on the wire."""
    body = json.loads(SIMPAY.charge(intent(currency="JPY", minor=500), REFERENCE, "k").body)
    assert (body["amount"], body["currency"]) == ("500", "JPY")


def test_the_inquiry_asks_by_our_own_reference() -> None:
    """The provider's id may be missing after a lost answer; ours never is."""
    request = SIMPAY.inquiry(REFERENCE, "", "key")
    assert (request.method, request.target) == ("GET", f"/v1/charges?reference={REFERENCE}")
    assert (request.body, request.headers) == (b"", {"Authorization": "Bearer key"})


def test_the_refund_request_is_golden() -> None:
    """A refund bears its own reference as idempotency key and names the charge by ours."""
    request = SIMPAY.refund(REFERENCE, "acme_1", "RF000000000000000001", 550, "EUR", "key")
    assert request.headers["Idempotency-Key"] == "RF000000000000000001"
    assert json.loads(request.body) == {
        "reference": "RF000000000000000001", "charge_reference": REFERENCE, "amount": "5.50",
        "currency": "EUR",
    }  # fmt: skip


def test_values_cannot_break_out_of_the_query() -> None:
    """What stands in a target is escaped."""
    target = SIMPAY.inquiry("A&reference=B#/?", "", "key").target
    assert target == "/v1/charges?reference=A%26reference%3DB%23%2F%3F"


def test_an_approval_is_read_as_the_provider_says_it() -> None:
    """Amount and currency come from the answer, not from what we asked."""
    assert charge(201) == Approved("acme_1", 10_000, "EUR")
    assert charge(amount="99.99", currency="USD") == Approved("acme_1", 9_999, "USD")


def test_pending_is_neither_yes_nor_no() -> None:
    """A provider that has not decided is pending, with its id."""
    assert charge(status="pending") == Pending("acme_1")


@pytest.mark.parametrize(
    ("codes", "code", "category", "cascade"),
    [
        ({"code": "processing_error"}, "simpay:processing_error", "technical", True),
        ({"code": "do_not_honor"}, "simpay:do_not_honor", "soft_generic", False),
        ({"code": "stolen_card"}, "simpay:stolen_card", "fraud", False),
        ({"code": "do_not_honor", "issuer_code": "91"}, "iso:91", "issuer_later", True),
        (
            {"code": "processing_error", "issuer_code": "91", "network_advice_code": "03"},
            "mc_mac:03", "hard", False,
        ),
        ({"code": "never_seen"}, "simpay:never_seen", "unmapped", False),
        ({}, "none", "unmapped", False),
    ],
)  # fmt: skip
def test_a_decline_is_classified_by_its_most_trusted_code(
    codes: dict[str, str], code: str, category: str, cascade: bool
) -> None:
    """Advice before issuer before provider; unmapped stops the walk."""
    got = declined(**codes)
    assert isinstance(got, Declined)
    assert (got.code, got.category, got.cascade) == (code, category, cascade)


@pytest.mark.parametrize("codes", [{"code": "duplicate"}, {"issuer_code": "00"},
                                   {"issuer_code": "94"}])  # fmt: skip
def test_a_decline_that_contradicts_itself_is_unknown(codes: dict[str, str]) -> None:
    """ "Declined" because already charged, or with a code of success, must be asked about."""
    assert isinstance(declined(**codes), Unknown)


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (429, b"", NotSent("http_429")),
        (429, CHARGE, NotSent("http_429")),
        (500, CHARGE, Unknown("http_500")),
        (502, b"<html>", Unknown("http_502")),
        (503, {"error": {}}, Unknown("http_503")),
        (599, b"", Unknown("http_599")),
        (200, b"<html>it works</html>", Unknown("unreadable")),
        (200, b'{"id": "', Unknown("unreadable")),
        (200, b"[]", Unknown("unreadable")),
        (200, b"\xff\xfe", Unknown("unreadable")),
        (200, {}, Unknown("unreadable")),
        (200, CHARGE | {"status": "exploded"}, Unknown("unreadable")),
        (200, CHARGE | {"status": 7}, Unknown("unreadable")),
        (200, CHARGE | {"reference": "AT9"}, Unknown("reference_mismatch")),
        (200, CHARGE | {"amount": 100.0}, Unknown("amount_unreadable")),
        (200, CHARGE | {"amount": "1e2"}, Unknown("amount_unreadable")),
        (200, CHARGE | {"currency": "XXZ"}, Unknown("amount_unreadable")),
        (200, {k: v for k, v in CHARGE.items() if k != "amount"}, Unknown("amount_unreadable")),
        (302, b"", Unknown("http_302")),
        (408, b"", Unknown("http_408")),
        (409, b"", Unknown("http_409")),
        (418, b"", Unknown("http_418")),
        (400, b"", Declined("transport:http_400", "config", "", "", cascade=True)),
        (401, b"", Declined("transport:http_401", "config", "", "", cascade=True)),
        (404, b"", Unknown("http_404")),  # the address or the charge: a doubt
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_a_charge_answer_means(status: int, body: object, outcome: Outcome) -> None:
    """Only a clear answer is believed; whatever leaves a doubt is unknown."""
    assert SIMPAY.read_charge(answer(status, body), REFERENCE) == outcome


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, CHARGE, Approved("acme_1", 10_000, "EUR")),
        (404, {"error": {"code": "not_found"}}, NotFound()),
        (404, {"error": {"code": "no_such_route"}}, Unknown("http_404")),
        (404, b"not here", Unknown("http_404")),
        (200, {"error": {"code": "not_found"}}, Unknown("unreadable")),
        (401, CHARGE, Unknown("http_401")),
        (429, CHARGE, Unknown("http_429")),
        (500, CHARGE, Unknown("http_500")),
        (200, {}, Unknown("unreadable")),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_an_inquiry_answer_means(status: int, body: object, outcome: Outcome) -> None:
    """Absence needs the provider's own word; an error of the question says nothing."""
    assert SIMPAY.read_inquiry(answer(status, body), REFERENCE) == outcome


# -- notices ---------------------------------------------------------------------------------------

NOTICE = {"id": "ev_1", "type": "charge.updated", "created": 1_772_000_000, "data": CHARGE}


def notice_bytes(**changes: object) -> bytes:
    """A notice of an approved charge."""
    return json.dumps(NOTICE | changes).encode()


def test_an_authentic_notice_tells_the_outcome_of_our_reference() -> None:
    """Event id, reference, outcome and time come from the signed bytes; headers in any case."""
    raw = notice_bytes()
    headers = {"SIMPAY-signature": sign_timestamped(b"secret", raw, NOW)}
    told = verify(SIMPAY, headers, raw, b"secret", NOW)
    assert (told.event_id, told.reference) == ("ev_1", REFERENCE)
    assert told.outcome == Approved("acme_1", 10_000, "EUR")
    assert int(told.at.timestamp()) == 1_772_000_000


def test_a_forged_notice_is_refused_before_it_is_read() -> None:
    """Bytes that are not even JSON are refused for their signature, not for their form."""
    headers = {"Simpay-Signature": sign_timestamped(b"other", b"]", NOW)}
    with pytest.raises(Forged):
        verify(SIMPAY, headers, b"]", b"secret", NOW)


@pytest.mark.parametrize(
    "raw",
    [b"]", notice_bytes(id=""), notice_bytes(created="now"), notice_bytes(data={}),
     notice_bytes(data=CHARGE | {"status": "exploded"}), notice_bytes(created=10**12)],
)  # fmt: skip
def test_an_authentic_notice_that_cannot_be_read_says_so(raw: bytes) -> None:
    """A connector that does not understand its provider is for a person, never a guess."""
    with pytest.raises(Unreadable):
        read_notice(SIMPAY, raw)


def test_a_notice_with_a_weak_signature_only_asks_for_an_inquiry() -> None:
    """A signature that may not move money lets us look, and never believe."""
    source = SOURCE.replace("hmac-sha256-hex-timestamped", "sha384-hex-concatenated")
    weak, findings = compile_connector("weak.toml", source, taxonomy.load())
    assert findings == []
    assert weak is not None
    assert read_notice(weak, notice_bytes()).outcome == Unknown("needs_inquiry")


def test_a_notice_of_an_unknown_reference_is_parked_with_its_bytes() -> None:
    """A notice that comes before we know its payment is kept as it came."""
    raw = notice_bytes()
    told = read_notice(SIMPAY, raw)
    parked = entry("acme", told, raw, "", NOW)
    assert (parked.key, parked.state, parked.raw, parked.applied_at) == (
        "acme:ev_1", "parked", raw, None,
    )  # fmt: skip
    assert entry("acme", told, raw, "PY1", NOW).state == "applied"


# -- compiling -------------------------------------------------------------------------------------


def compile_changed(old: str, new: str) -> tuple[Connector | None, list[Any]]:
    """The simulated provider's connector with one text replaced."""
    assert old in SOURCE
    return compile_connector("simpay.toml", SOURCE.replace(old, new, 1), taxonomy.load())


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('amount = "{amount}"', 'amount = "{amout}"', "name-unknown"),
        ('"hmac-sha256-hex-timestamped"', '"md5"', "scheme-unknown"),
        ('declined = ["declined"]', 'declined = ["approved"]', "status-twice"),
        ('query = { reference = "{reference}" }', 'query = { id = "1" }', "reference-missing"),
        ('method = "POST"', 'method = "PUT"', "connector-malformed"),
        ('id = "simpay"', 'id = "simpay"\nname = "x"', "connector-malformed"),
        ('id = "simpay"', 'id = = "simpay"', "connector-malformed"),
    ],
)
def test_a_faulty_connector_is_a_finding(old: str, new: str, code: str) -> None:
    """A connector that could not work is refused when it is compiled, and names its fault."""
    connector, findings = compile_changed(old, new)
    assert connector is None
    assert [finding.code for finding in findings] == [code]


def test_a_finding_names_the_line() -> None:
    """The line of the wrong text is found in the file."""
    _, findings = compile_changed('amount = "{amount}"', 'amount = "{amout}"')
    line = SOURCE.splitlines().index('amount = "{amount}"') + 1
    assert (findings[0].where.file, findings[0].where.line) == ("simpay.toml", line)


def test_amounts_may_be_minor_units() -> None:
    """A provider that counts cents is read as counting cents, and only whole ones."""
    minor, _ = compile_changed('amount_form = "decimal"', 'amount_form = "minor"')
    assert minor is not None
    read = {
        amount: minor.read_charge(answer(200, CHARGE | {"amount": amount}), REFERENCE)
        for amount in (10_000, True, 1.5)
    }
    assert read[10_000] == Approved("acme_1", 10_000, "EUR")
    assert read[True] == read[1.5] == Unknown("amount_unreadable")
