"""People's data at rest: ciphertext under a key of the subject, which is wrapped by one of ours.

Knows how fields are closed and opened, and that destroying a subject's key erases every copy of
what it closed, in the audit too, whose hashes are over ciphertext and hold on. Refuses to know what
the fields mean, and to keep a key in the database that could be used without ours.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.control import queries_personal as q
from gateway.control.refusals import Refusal

if TYPE_CHECKING:
    import asyncpg

NONCE: Final = 12
KEY: Final = 32
FORM: Final = "p1:"  # of a closed field; another form gets another prefix


class Sealed(Exception):
    """A stored ciphertext does not open with the key that should fit: it was changed, or moved."""


class Vault:
    """Closes and opens fields of subjects.

    key           64 hexadecimal digits that wrap every subject's key; "" keeps no personal data
    random_bytes  where keys and nonces come from
    """

    def __init__(self, key: str, random_bytes: Callable[[int], bytes]) -> None:
        self._ours = AESGCM(bytes.fromhex(key)) if key else None
        self._random_bytes = random_bytes

    async def close(
        self, conn: asyncpg.Connection, subject: str, fields: Mapping[str, str], now: datetime
    ) -> dict[str, str]:
        """The fields as they may be stored; the subject's key is made with its first field.

        Raises Refusal `personal-off` without a key of ours, `erased` for a destroyed one.
        """
        await conn.execute(q.ADD_SUBJECT_KEY, subject, self._wrapped(subject), now)
        key = await self._key(conn, subject)
        if key is None:
            raise Refusal("erased", f"the data of {subject} is erased, and none is taken again")
        return {name: self._closed(key, subject, name, text) for name, text in fields.items()}

    async def open(
        self, conn: asyncpg.Connection, subject: str, fields: Mapping[str, str]
    ) -> dict[str, str] | None:
        """The fields as they were given; None when the subject's key is destroyed.

        Raises Refusal `personal-off`, and Sealed for what was changed or belongs elsewhere.
        """
        key = await self._key(conn, subject)
        if key is None:
            return None
        return {name: _opened(key, subject, name, text) for name, text in fields.items()}

    async def _key(self, conn: asyncpg.Connection, subject: str) -> AESGCM | None:
        ours = self._require()
        wrapped = await conn.fetchval(q.SUBJECT_KEY, subject)
        if wrapped is None:
            return None
        return AESGCM(_decrypted(ours, wrapped, f"key\n{subject}"))

    def _wrapped(self, subject: str) -> bytes:
        new = self._random_bytes(KEY)
        return self._encrypted(self._require(), new, f"key\n{subject}")

    def _closed(self, key: AESGCM, subject: str, name: str, text: str) -> str:
        whole = self._encrypted(key, text.encode(), f"field\n{subject}\n{name}")
        return FORM + base64.b64encode(whole).decode()

    def _encrypted(self, key: AESGCM, plain: bytes, about: str) -> bytes:
        nonce = self._random_bytes(NONCE)
        return nonce + key.encrypt(nonce, plain, about.encode())

    def _require(self) -> AESGCM:
        if self._ours is None:
            raise Refusal("personal-off", "this house keeps no personal data: it has no key for it")
        return self._ours


async def destroy(conn: asyncpg.Connection, subject: str, now: datetime, by: str) -> bool:
    """Destroy a subject's key in the caller's transaction; False when there is none in use."""
    return await conn.fetchval(q.DESTROY_SUBJECT_KEY, subject, now, by) is not None


def _opened(key: AESGCM, subject: str, name: str, text: str) -> str:
    if not text.startswith(FORM):
        raise Sealed(f"{name} of {subject} has no form that is known")
    whole = base64.b64decode(text.removeprefix(FORM))
    return _decrypted(key, whole, f"field\n{subject}\n{name}").decode()


def _decrypted(key: AESGCM, whole: bytes, about: str) -> bytes:
    try:
        return key.decrypt(whole[:NONCE], whole[NONCE:], about.encode())
    except InvalidTag:
        raise Sealed(f"{about.splitlines()[1:]} does not open") from None
