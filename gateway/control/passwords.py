"""Passwords: argon2id, in a thread, a few at a time.

Knows how a password is hashed and compared, and how much of the machine that may take. Refuses to
know whose it is, and to keep one: it stands in memory for as long as one call lasts.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from gateway.control.refusals import Refusal

T = TypeVar("T")

LENGTH_MIN: Final = 12
LENGTH_MAX: Final = 256


class Passwords:
    """Hashes and compares.

    hasher       argon2id with its costs
    at_once      how many are computed together: each takes a core and the hasher's memory
    waiting_max  how many may wait for that; beyond it people are told to come back
    """

    def __init__(
        self,
        random_bytes: Callable[[int], bytes],
        hasher: PasswordHasher | None = None,
        at_once: int = 2,
        waiting_max: int = 32,
    ) -> None:
        self._random_bytes = random_bytes
        self._hasher = hasher or PasswordHasher()
        self._turns = asyncio.Semaphore(at_once)
        self._waiting_max = waiting_max
        self._waiting = 0
        self._nobodys = ""

    async def hash(self, password: str) -> str:
        """What is stored of a new password; raises Refusal `password-weak` when it is too short."""
        plain = _plain(password)
        if not LENGTH_MIN <= len(plain) <= LENGTH_MAX:
            said = f"a password has {LENGTH_MIN} to {LENGTH_MAX} characters"
            raise Refusal("password-weak", said)
        salt = self._random_bytes(self._hasher.salt_len)
        return await self._thread(lambda: self._hasher.hash(plain, salt=salt))

    async def matches(self, stored: str | None, password: str) -> bool:
        """Whether this is the password of which `stored` was kept.

        None is a person who has none: it takes as long as one who has, and never matches.
        """
        plain = _plain(password[: LENGTH_MAX + 1])
        if stored is None:
            await self._compare(await self._nobody(), plain)
            return False
        return await self._compare(stored, plain)

    async def _nobody(self) -> str:
        """The hash of a password that nobody knows, made when it is first needed."""
        if not self._nobodys:
            self._nobodys = await self.hash(self._random_bytes(32).hex())
        return self._nobodys

    async def _compare(self, stored: str, plain: str) -> bool:
        def compare() -> bool:
            try:
                return self._hasher.verify(stored, plain)
            except (VerificationError, InvalidHashError):
                return False

        return await self._thread(compare)

    async def _thread(self, work: Callable[[], T]) -> T:
        if self._waiting >= self._waiting_max:
            wait = {"retry_after_s": 1}
            raise Refusal("overloaded", "too many passwords are being looked at", wait)
        self._waiting += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(work)
        finally:
            self._waiting -= 1


def _plain(password: str) -> str:
    """One form for what keyboards write differently."""
    return unicodedata.normalize("NFKC", password)
