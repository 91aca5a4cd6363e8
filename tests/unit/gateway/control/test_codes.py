"""Codes of devices: the vectors of the RFC, one use each, and secrets that are of no use elsewhere.

It knows RFC 6238. It refuses to know people.
"""

from __future__ import annotations

import base64
import os
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.control import codes

SECRET = b"12345678901234567890"
NOW = datetime(2026, 3, 2, 12, 0, 10, tzinfo=UTC)
STEP = codes.step_of(NOW)


@pytest.mark.parametrize(
    ("seconds", "code"),
    [(59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (20000000000, "353130")],
)
def test_a_device_shows_what_the_standard_says(seconds: int, code: str) -> None:
    """The test vectors of RFC 6238, appendix B, cut to six digits."""
    at = datetime.fromtimestamp(seconds, UTC)
    assert codes.code_at(SECRET, codes.step_of(at)) == code
    assert codes.matched(SECRET, code, at, 0) == codes.step_of(at)


@pytest.mark.parametrize(
    ("off", "holds"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)]
)
def test_a_device_may_be_one_step_off(off: int, holds: bool) -> None:
    """Half a minute early or late is let pass, more is not."""
    code = codes.code_at(SECRET, STEP + off)
    assert codes.matched(SECRET, code, NOW, 0) == (STEP + off if abs(off) < 2 else None)


def test_a_step_that_was_used_is_used_with_all_before_it() -> None:
    """A code is good once, and so is no older one."""
    code = codes.code_at(SECRET, STEP)
    assert codes.matched(SECRET, code, NOW, STEP - 1) == STEP
    assert codes.matched(SECRET, code, NOW, STEP) is None
    assert codes.matched(SECRET, codes.code_at(SECRET, STEP - 1), NOW, STEP) is None
    later = NOW + timedelta(seconds=codes.STEP_S)
    assert codes.matched(SECRET, codes.code_at(SECRET, STEP + 1), later, STEP) == STEP + 1


@pytest.mark.parametrize("code", ["", "28708", "2870821", "28708a", "２８７０８２", "-28708"])
def test_what_is_no_code_matches_nothing(code: str) -> None:
    """Six ASCII digits, nothing else."""
    assert codes.matched(SECRET, code, datetime.fromtimestamp(59, UTC), 0) is None


def test_a_device_reads_its_address() -> None:
    """The address names house and person and holds the secret in base32."""
    parts = urlsplit(codes.address("ann@eu", SECRET))
    said = parse_qs(parts.query)
    assert (parts.scheme, parts.netloc, parts.path) == ("otpauth", "totp", "/brokerd:ann%40eu")
    assert said["issuer"] == ["brokerd"]
    assert base64.b32decode(said["secret"][0]) == SECRET


def test_a_stored_secret_is_one_persons_under_one_process_secret() -> None:
    """Ciphertext: another person's name, another process secret or a changed byte opens nothing."""
    safe = codes.Safe(b"pepper", os.urandom)
    stored = safe.closed("ann", SECRET)
    assert SECRET not in stored
    assert safe.opened("ann", stored) == SECRET
    assert safe.opened("bob", stored) is None
    assert codes.Safe(b"other", os.urandom).opened("ann", stored) is None
    assert safe.opened("ann", stored[:-1] + bytes([stored[-1] ^ 1])) is None
    assert safe.closed("ann", SECRET) != stored, "one secret is never stored twice alike"
