"""The Idempotency-Key of a request, and the fingerprint of what it asks.

Knows headers and hashes. Refuses to remember anything: a key is claimed in the unit of its effect.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

from gateway.control.refusals import Refusal

HEADER: Final = "Idempotency-Key"
_KEY: Final = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)


def read_key(header: str | None) -> str:
    """The key a command bears; raises Refusal when it is missing or malformed."""
    if header is None:
        raise Refusal("idempotency-key-missing", "this command needs an Idempotency-Key")
    if _KEY.fullmatch(header) is None:
        raise Refusal(
            "idempotency-key-malformed", "an Idempotency-Key is 1 to 128 visible ASCII characters"
        )
    return header


def fingerprint(method: str, path: str, body: bytes) -> bytes:
    """SHA-256 over method, path and the raw body, each told from the next."""
    digest = sha256(f"{method} {path}\n".encode())
    digest.update(body)
    return digest.digest()
