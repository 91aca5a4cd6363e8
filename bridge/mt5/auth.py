"""The challenge and response of an MT5 manager session, over raw bytes.

Knows the hash rules only: no socket, no clock, no source of chance. Refuses to keep the password:
callers hold it as a secret and hand it in.
"""

from __future__ import annotations

import hashlib
import hmac

RAND_BYTES = 16


def password_hash(password: str) -> bytes:
    """H = MD5(MD5(UTF-16LE(password)) + "WebAPI"): sixteen raw bytes, never their hex text."""
    inner = _md5(password.encode("utf-16-le"))
    return _md5(inner + b"WebAPI")


def challenge_answer(hashed: bytes, rand: bytes) -> bytes:
    """What proves the password for a challenge: MD5(H + rand), for either direction."""
    return _md5(hashed + rand)


def server_is_genuine(hashed: bytes, our_rand: bytes, their_answer: bytes) -> bool:
    """Whether the server knows the password too; otherwise somebody stands between us and it."""
    return hmac.compare_digest(challenge_answer(hashed, our_rand), their_answer)


def read_hex(text: str) -> bytes:
    """Sixteen bytes from their hex text, either case. Raises ValueError."""
    raw = bytes.fromhex(text)
    if len(raw) != RAND_BYTES:
        raise ValueError(f"{len(raw)} bytes where {RAND_BYTES} belong")
    return raw


def _md5(data: bytes) -> bytes:
    """MD5 because the protocol says so; the channel's secrecy comes from TLS."""
    return hashlib.md5(data, usedforsecurity=False).digest()
