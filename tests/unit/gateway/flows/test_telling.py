"""How a calling system is told: the envelope and its signature; what a deposit answers."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import msgspec
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from gateway.control.refusals import Refusal
from gateway.flows.deposit import answer_of, made_at, read_amount
from gateway.flows.outbox import Row
from gateway.flows.webhooks_out import event_view, require_address, signature, signing_secret
from router.states import AttemptState, PaymentState
from tests.unit.gateway.flows import values as v
from tests.unit.router.values import attempt

AT = 1_772_000_000
ROW = Row(
    id=7, version=3, lane="subscriber:crm", no=5, kind="payment.approved", aggregate="PY1",
    body='{"id": "PY1"}', correlation="CR1", attempts=1, created=datetime(2026, 3, 2, tzinfo=UTC),
)  # fmt: skip


def test_a_delivery_is_signed_as_the_standard_says() -> None:
    """The reference implementation of Standard Webhooks accepts what we sign, and only that."""
    secret = signing_secret(b"key", "crm", 1)
    body = msgspec.json.encode(event_view(ROW))
    now = int(datetime.now(UTC).timestamp())
    headers = {
        "webhook-id": "ev_7", "webhook-timestamp": str(now),
        "webhook-signature": signature(secret, "ev_7", now, body),
    }  # fmt: skip
    hook = Webhook("whsec_" + base64.b64encode(secret).decode())
    assert hook.verify(body.decode(), headers)["data"] == {"id": "PY1"}
    with pytest.raises(WebhookVerificationError):
        hook.verify(body.decode().replace("PY1", "PY2"), headers)


def test_each_caller_and_each_naming_has_a_secret_of_its_own() -> None:
    """Secrets are derived: another caller, another version or another key gives another one."""
    made = {
        signing_secret(key, caller, version)
        for key in (b"a", b"b") for caller in ("crm", "shop") for version in (1, 2)
    }  # fmt: skip
    assert len(made) == 8


def test_an_event_is_the_same_bytes_however_often_it_is_sent() -> None:
    """A repeated delivery differs in nothing but its headers."""
    later = msgspec.structs.replace(ROW, version=9, attempts=4)
    assert msgspec.json.encode(event_view(ROW)) == msgspec.json.encode(event_view(later))


@pytest.mark.parametrize("url", ["", "https://crm.example/hooks", "http://127.0.0.1:8080/x?y=1"])
def test_an_address_may_be_named_or_left_out(url: str) -> None:
    """http and https addresses with a host; "" for a system that only pulls."""
    require_address(url)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/", "https:///path", "host", "http://[::1", "http://host:99999/",
        "http://host:0/", "http://ho st/", "http://host/\0", "http://host/\n",
        "http://" + "x" * 2000,
        "file:///etc/passwd",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_and_never_stored(url: str) -> None:
    """An address that could only fail later, in the outbox, is refused when it is named."""
    with pytest.raises(Refusal, match="webhook-url"):
        require_address(url)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (PaymentState.APPROVED, 201), (PaymentState.DECLINED, 201),
        (PaymentState.IN_PROGRESS, 202), (PaymentState.REVIEW, 202),
    ],
)  # fmt: skip
def test_only_an_end_is_answered_201(state: PaymentState, status: int) -> None:
    """201 is an end; a deposit that goes on, or that a person looks at, is answered 202."""
    answer = answer_of(v.case(state=state))
    assert answer.status == status
    assert answer.location == "/v1/payments/PY000000000000000001"
    assert msgspec.json.decode(answer.body)["state"] == state.value


def test_no_provider_may_speak_of_anothers_attempt() -> None:
    """A reference belongs to the provider it was made for, and to nobody else."""
    mine = (attempt(AttemptState.SENT), attempt(AttemptState.SENT, no=2))
    assert made_at("acme", mine[0].reference, mine)
    assert not made_at("bolt", mine[0].reference, mine)
    assert not made_at("acme", "AT000000000000000009", mine)


@pytest.mark.parametrize(
    ("text", "code", "refusal"),
    [
        ("0", "EUR", "amount-zero"), ("0.00", "EUR", "amount-zero"),
        ("1.001", "EUR", "amount-precision"), ("1.5", "JPY", "amount-precision"),
        ("1e3", "EUR", "amount-malformed"), ("-1", "EUR", "amount-malformed"),
        ("NaN", "EUR", "amount-malformed"), ("١", "EUR", "amount-malformed"),
        ("1", "XXX1", "currency-unknown"),
    ],
)  # fmt: skip
def test_an_absurd_amount_is_refused_by_its_code(text: str, code: str, refusal: str) -> None:
    """A deposit is more than nothing, in whole minor units of a currency we know."""
    with pytest.raises(Refusal) as said:
        read_amount(text, code)
    assert said.value.code == refusal
