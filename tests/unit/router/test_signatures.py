"""Webhook signatures."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.psp.signatures import Forged, sign_timestamped, verify_signature

VECTORS = json.loads(Path("tests/golden/webhook_vectors.json").read_text())
AT = datetime.fromtimestamp(1_700_000_000, UTC)
TIMESTAMPED = "hmac-sha256-hex-timestamped"


def vector(psp: str, scheme: str) -> dict[str, str]:
    """A published vector."""
    return next(v for v in VECTORS if v["psp"] == psp and v["scheme"] == scheme)


def refused(scheme: str, header: str, raw: bytes, secret: bytes, now: datetime = AT) -> str:
    """The code with which a notice is refused."""
    with pytest.raises(Forged) as caught:
        verify_signature(scheme, header, raw, secret, now)
    return caught.value.code


def test_the_timestamped_scheme_accepts_the_published_vector() -> None:
    """`t=...,v1=...` over `t.body` as the official library of that provider accepts it."""
    known = vector("stripe", "v1")
    stamp, _, body = known["message"].partition(".")
    header = f"t={stamp},v1={known['signature']},v0=ignored"
    verify_signature(TIMESTAMPED, header, body.encode(), known["key"].encode(), AT)


def test_the_base64_scheme_with_a_hex_key_accepts_the_published_vector() -> None:
    """Base64 of HMAC-SHA256 under a key written in hex."""
    known = vector("adyen", "item")
    raw, key = known["message"].encode(), known["key_hex"].encode()
    verify_signature("hmac-sha256-base64-hexkey", known["signature"], raw, key, AT)


def test_the_hex_scheme_accepts_the_published_vector_in_upper_case() -> None:
    """Hex of HMAC-SHA256 is compared as bytes, whatever the case of its letters."""
    known = vector("skrill", "payout SIGN")
    raw, key = known["message"].encode(), known["key"].encode()
    verify_signature("hmac-sha256-hex", known["signature"], raw, key, AT)


def test_the_concatenated_scheme_accepts_the_published_vector() -> None:
    """SHA-384 over fields and secret: accepted, and known to be weak."""
    known = vector("praxis", "Gt-Authentication v1.1")
    fields = known["message"].removesuffix("MerchantSecretKey").encode()
    verify_signature(
        "sha384-hex-concatenated", known["signature"], fields, b"MerchantSecretKey", AT
    )


def test_the_plain_base64_scheme_is_hmac_over_the_raw_body() -> None:
    """Computed here with the standard library alone."""
    header = base64.b64encode(hmac.digest(b"key", b"body", hashlib.sha256)).decode()
    verify_signature("hmac-sha256-base64", header, b"body", b"key", AT)
    assert refused("hmac-sha256-base64", header, b"body ", b"key") == "signature-wrong"


@given(raw=st.binary(min_size=1, max_size=200), position=st.integers(0), bit=st.integers(0, 7))
def test_one_flipped_bit_is_refused(raw: bytes, position: int, bit: int) -> None:
    """Nothing of the body can change without the signature failing."""
    header = sign_timestamped(b"secret", raw, AT)
    forged = bytearray(raw)
    forged[position % len(raw)] ^= 1 << bit
    assert refused(TIMESTAMPED, header, bytes(forged), b"secret") == "signature-wrong"


@pytest.mark.parametrize(("age_s", "accepted"), [(0, True), (300, True), (-300, True),
                                                 (301, False), (-301, False)])  # fmt: skip
def test_a_notice_is_good_for_five_minutes_both_ways(age_s: int, accepted: bool) -> None:
    """An old notice is a replay and one from the future a lie; the edges are allowed."""
    header = sign_timestamped(b"secret", b"{}", AT)
    now = datetime.fromtimestamp(AT.timestamp() + age_s, UTC)
    if accepted:
        verify_signature(TIMESTAMPED, header, b"{}", b"secret", now)
    else:
        assert refused(TIMESTAMPED, header, b"{}", b"secret", now) == "timestamp-outside"


def test_the_timestamp_is_signed() -> None:
    """A replay cannot be made young by writing another time."""
    header = sign_timestamped(b"secret", b"{}", AT).replace("t=1700000000", "t=1700000100")
    assert refused(TIMESTAMPED, header, b"{}", b"secret") == "signature-wrong"


def test_any_of_several_signatures_may_match() -> None:
    """While a key is rotated the provider signs with both."""
    right = sign_timestamped(b"new", b"{}", AT)
    old = sign_timestamped(b"old", b"{}", AT).partition("v1=")[2]
    verify_signature(TIMESTAMPED, right.replace(",", f",v1={old},"), b"{}", b"new", AT)


@pytest.mark.parametrize(
    "header",
    ["", "v1=00", "t=1700000000", "t=1700000000,v1=xyz", "t=١٧٠,v1=00", "t=-1,v1=00",
     "t=1,t=1700000000,v1=00", "t=1700000000" + ",v1=00" * 9, "t=1700000000,v1=" + "0" * 2000],
)  # fmt: skip
def test_a_header_of_another_shape_is_refused(header: str) -> None:
    """Missing, malformed, ambiguous and endless headers end before any comparison succeeds."""
    assert refused(TIMESTAMPED, header, b"{}", b"secret").startswith("signature-")
