"""Passwords: argon2id, in threads, a few at a time, and the same for a name nobody has.

It knows a hasher with small costs. It refuses to measure time.
"""

from __future__ import annotations

import asyncio
import os
import threading

import pytest
from argon2 import PasswordHasher

from gateway.control.passwords import LENGTH_MIN, Passwords
from gateway.control.refusals import Refusal

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
GOOD = "correct horse battery"


class Slow(PasswordHasher):
    """Says which threads it works in, and ends when it is let."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.go = threading.Event()
        self.working = 0
        self.most = 0
        self.threads: set[int] = set()
        self.compared: list[str | bytes] = []
        self._lock = threading.Lock()

    def verify(self, hash: str | bytes, password: str | bytes) -> bool:
        """Compare, once it may go on."""
        with self._lock:
            self.working += 1
            self.most = max(self.most, self.working)
            self.threads.add(threading.get_ident())
            self.compared.append(hash)
        self.go.wait(30)
        with self._lock:
            self.working -= 1
        return super().verify(hash, password)


async def test_a_password_is_kept_as_argon2id_and_recognised() -> None:
    """The stored text tells its costs and salt, never the password."""
    passwords = Passwords(os.urandom, QUICK)
    stored = await passwords.hash(GOOD)
    assert stored.startswith("$argon2id$v=19$m=8,t=1,p=1$")
    assert GOOD not in stored
    assert await passwords.hash(GOOD) != stored
    assert await passwords.matches(stored, GOOD)
    assert not await passwords.matches(stored, GOOD + "!")
    assert not await passwords.matches("$argon2id$nonsense", GOOD)


async def test_the_same_password_written_by_another_keyboard_is_the_same() -> None:
    """Composed and decomposed letters are one form."""
    passwords = Passwords(os.urandom, QUICK)
    stored = await passwords.hash("Stra\u00dfe im M\u00e4rz 26")
    assert await passwords.matches(stored, "Stra\u00dfe im Ma\u0308rz 26")


@pytest.mark.parametrize("password", ["", "x" * (LENGTH_MIN - 1), "x" * 257])
async def test_a_password_of_no_use_is_refused(password: str) -> None:
    """Too short, or so long that it is no password."""
    with pytest.raises(Refusal) as no:
        await Passwords(os.urandom, QUICK).hash(password)
    assert no.value.code == "password-weak"


async def test_a_name_without_a_password_is_compared_all_the_same() -> None:
    """Whoever has no password costs the same work and never matches."""
    slow = Slow()
    slow.go.set()
    passwords = Passwords(os.urandom, slow)
    assert not await passwords.matches(None, GOOD)
    assert not await passwords.matches(None, GOOD)
    assert len(slow.compared) == 2
    assert str(slow.compared[0]).startswith("$argon2id$")


async def test_few_are_computed_at_once_and_the_loop_goes_on() -> None:
    """Two at a time in threads of their own; the rest waits, and beyond a limit is sent away."""
    slow = Slow()
    passwords = Passwords(os.urandom, slow, at_once=2, waiting_max=5)
    stored = QUICK.hash(GOOD)
    asked = [asyncio.create_task(passwords.matches(stored, GOOD)) for _ in range(6)]
    async with asyncio.timeout(30):
        while slow.working < 2:
            await asyncio.sleep(0.01)
    with pytest.raises(Refusal) as no:
        await asked[5]
    assert no.value.code == "overloaded"
    slow.go.set()
    assert await asyncio.gather(*asked[:5]) == [True] * 5
    assert slow.most == 2
    assert threading.get_ident() not in slow.threads
