"""Codes: six digits that a person's device shows for thirty seconds (TOTP, RFC 6238).

Knows which step a code belongs to, and how a device's secret is kept and shown. Refuses to know
whose it is; that a step is used once is the table's business (`staff.py`).

The secret is kept as ciphertext under a key made of the process secret, bound to the person: the
table alone makes no codes, and one person's row is of no use as another's.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable
from datetime import datetime
from typing import Final
from urllib.parse import quote

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.twofactor.hotp import HOTP

STEP_S: Final = 30
DIGITS: Final = 6
AROUND: Final = 1  # steps before and after: a device's clock may be that much off
SECRET_BYTES: Final = 20  # RFC 4226 asks for the length of SHA-1's own
_NONCE_BYTES: Final = 12


def step_of(now: datetime) -> int:
    """The number of the thirty seconds that a moment lies in."""
    return int(now.timestamp()) // STEP_S


def code_at(secret: bytes, step: int) -> str:
    """The code that a device shows in this step."""
    return HOTP(secret, DIGITS, SHA1()).generate(step).decode()  # noqa: S303 what devices speak


def matched(secret: bytes, code: str, now: datetime, used: int) -> int | None:
    """The step the code belongs to, later than every one that was used; None when there is none."""
    if len(code) != DIGITS or not (code.isascii() and code.isdigit()):
        return None
    middle, found = step_of(now), None
    for step in range(middle - AROUND, middle + AROUND + 1):
        if hmac.compare_digest(code_at(secret, step), code) and step > used:
            found = step
    return found


def address(person: str, secret: bytes, house: str = "brokerd") -> str:
    """The address a device reads to begin (`otpauth://`); whoever has it makes the codes."""
    shown = base64.b32encode(secret).decode().rstrip("=")
    return f"otpauth://totp/{quote(house)}:{quote(person)}?secret={shown}&issuer={quote(house)}"


class Safe:
    """Secrets of devices, as they stand in the table."""

    def __init__(self, pepper: bytes, random_bytes: Callable[[int], bytes]) -> None:
        derived = HKDF(SHA256(), 32, salt=None, info=b"brokerd codes of people")
        self._cipher = AESGCM(derived.derive(pepper))
        self._random_bytes = random_bytes

    def new(self) -> bytes:
        """A secret for a device."""
        return self._random_bytes(SECRET_BYTES)

    def closed(self, person: str, secret: bytes) -> bytes:
        """The secret as it is stored."""
        nonce = self._random_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, person.encode())

    def opened(self, person: str, stored: bytes) -> bytes | None:
        """The secret again; None when it is another person's, or the process secret has changed."""
        nonce, sealed = stored[:_NONCE_BYTES], stored[_NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, sealed, person.encode())
        except InvalidTag:
            return None
