"""Webhook signatures: one table of schemes, each a pure check over the raw bytes of a notice.

Knows how each scheme composes what is signed and how its header is written. Refuses to parse the
body: what is not authentic is never read. Comparisons take constant time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

TOLERANCE_S: Final = 300
_HEADER_CHARACTERS_MAX: Final = 1024
_SIGNATURES_MAX: Final = 8  # a key rotation shows two; more is somebody playing


class Forged(Exception):
    """The notice is not proven to come from the PSP; `code` says what failed. Nothing is stored."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


Scheme = Callable[[str, bytes, bytes, datetime], None]  # header, raw, secret, now; raises Forged


def verify_signature(scheme: str, header: str, raw: bytes, secret: bytes, now: datetime) -> None:
    """Check `raw` against the value of the scheme's header; raises Forged.

    Codes: `signature-missing`, `signature-malformed`, `signature-wrong`, `timestamp-outside`.
    """
    if not header:
        raise Forged("signature-missing")
    if len(header) > _HEADER_CHARACTERS_MAX or not header.isascii():
        raise Forged("signature-malformed")
    SCHEMES[scheme](header, raw, secret, now)


def _timestamped_hex(header: str, raw: bytes, secret: bytes, now: datetime) -> None:
    """`t=<unix>,v1=<hex>[,v1=...]` over `t.body`; any v1 may match (key rotation).

    The timestamp is signed and must lie within TOLERANCE_S of now, in the past or in the future.
    """
    parts = [part.partition("=") for part in header.split(",")]
    times = [value for name, _, value in parts if name.strip() == "t"]
    given = [value.strip() for name, _, value in parts if name.strip() == "v1"]
    if len(times) != 1 or not given or len(given) > _SIGNATURES_MAX:
        raise Forged("signature-malformed")
    stamp = times[0].strip()
    if not stamp.isdigit() or len(stamp) > 12:  # digits for 30,000 years
        raise Forged("signature-malformed")
    wanted = hmac.digest(secret, stamp.encode() + b"." + raw, "sha256")
    _same([_unhex(value) for value in given], wanted)
    if abs(now.timestamp() - int(stamp)) > TOLERANCE_S:
        raise Forged("timestamp-outside")


def _raw_base64(header: str, raw: bytes, secret: bytes, now: datetime) -> None:
    """Base64 of HMAC-SHA256 over the raw body."""
    _same([_unbase64(header)], hmac.digest(secret, raw, "sha256"))


def _raw_base64_hex_key(header: str, raw: bytes, secret: bytes, now: datetime) -> None:
    """Base64 of HMAC-SHA256 over the raw body, with a key that is written in hex."""
    _same([_unbase64(header)], hmac.digest(_unhex(secret.decode("ascii")), raw, "sha256"))


def _raw_hex(header: str, raw: bytes, secret: bytes, now: datetime) -> None:
    """Hex of HMAC-SHA256 over the raw body, in either case."""
    _same([_unhex(header)], hmac.digest(secret, raw, "sha256"))


def _concatenated_sha384(header: str, raw: bytes, secret: bytes, now: datetime) -> None:
    """Hex of SHA-384 over the body followed by the secret: weak, its news need an inquiry."""
    _same([_unhex(header)], hashlib.sha384(raw + secret).digest())


SCHEMES: Final[dict[str, Scheme]] = {
    "hmac-sha256-hex-timestamped": _timestamped_hex,
    "hmac-sha256-base64": _raw_base64,
    "hmac-sha256-base64-hexkey": _raw_base64_hex_key,
    "hmac-sha256-hex": _raw_hex,
    "sha384-hex-concatenated": _concatenated_sha384,
}
# Schemes whose notices may move money without asking the PSP first.
STRONG: Final = frozenset(SCHEMES) - {"sha384-hex-concatenated"}


def sign_timestamped(secret: bytes, raw: bytes, at: datetime) -> str:
    """The header value of the timestamped scheme, as a PSP writes it."""
    stamp = str(int(at.timestamp()))
    digest = hmac.digest(secret, stamp.encode() + b"." + raw, "sha256")
    return f"t={stamp},v1={digest.hex()}"


def _same(given: Iterable[bytes], wanted: bytes) -> None:
    """One of `given` is `wanted`; every one is compared, and in constant time."""
    matches = [hmac.compare_digest(value, wanted) for value in given]
    if not any(matches):
        raise Forged("signature-wrong")


def _unhex(text: str) -> bytes:
    try:
        return binascii.unhexlify(text.strip())
    except ValueError:
        raise Forged("signature-malformed") from None


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except ValueError:
        raise Forged("signature-malformed") from None
