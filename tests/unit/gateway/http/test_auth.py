"""Keys are remembered for seconds, asked for once, and strangers cannot take the pool."""

from __future__ import annotations

import asyncio
import os
from typing import Self

import pytest

from gateway.control import keys
from gateway.control.access import Access, Tags
from gateway.control.refusals import Refusal
from gateway.http.auth import Keys

PEPPER = b"pepper"
KEY_ID = "KY" + "0" * 18
TOKEN = keys.new_token(KEY_ID, os.urandom)
ROLES = Access({"reader": frozenset({"clients:read"})})


class OneKeyPool:
    """A pool whose table holds one key, and that counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.at_once = 0
        self.at_once_max = 0
        self.row: dict[str, object] | None = {
            "id": KEY_ID, "owner": "shop", "person": "ann", "role": "reader",
            "grant_id": "GR" + "0" * 18, "entities": ["fx-eu"], "brands": ["*"],
            "jurisdictions": ["*"], "desks": ["*"], "partners": ["*"], "in_force": True,
            "digest": keys.digest(TOKEN.rpartition("_")[2], PEPPER),
        }  # fmt: skip

    def acquire(self) -> OneKeyPool:
        """Itself: one connection."""
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def fetchrow(self, sql: str, key_id: str) -> dict[str, object] | None:
        """The row of the one key."""
        self.asked += 1
        self.at_once += 1
        self.at_once_max = max(self.at_once, self.at_once_max)
        await asyncio.sleep(0)
        self.at_once -= 1
        return self.row if key_id == KEY_ID else None


class Clock:
    """Moves when told."""

    at = 100.0

    def __call__(self) -> float:
        return self.at


async def test_a_caller_is_what_the_key_and_its_role_say() -> None:
    """Owner, person, entities from the row; scopes from the role in force."""
    caller = await Keys(OneKeyPool(), lambda: ROLES, PEPPER, Clock()).caller(f"Bearer {TOKEN}")

    assert (caller.owner, caller.person) == ("shop", "ann")
    assert (caller.role, caller.grant_id) == ("reader", "GR" + "0" * 18)
    assert caller.may("clients:read")
    assert not caller.may("clients:write")
    assert caller.reaches(Tags("fx-eu"))
    assert not caller.reaches(Tags("fx-int"))


async def test_a_key_is_asked_for_once_and_again_after_its_time() -> None:
    """Many requests at once make one query; the memory lasts as long as it says."""
    pool, clock = OneKeyPool(), Clock()
    known = Keys(pool, lambda: ROLES, PEPPER, clock, ttl_s=3.0)

    await asyncio.gather(*[known.caller(f"Bearer {TOKEN}") for _ in range(50)])
    assert pool.asked == 1
    clock.at += 2.9
    await known.caller(f"Bearer {TOKEN}")
    assert pool.asked == 1
    clock.at += 0.2
    await known.caller(f"Bearer {TOKEN}")
    assert pool.asked == 2


async def test_an_unknown_key_is_remembered_too() -> None:
    """A stranger who repeats himself costs one query, not one a request."""
    pool = OneKeyPool()
    known = Keys(pool, lambda: ROLES, PEPPER, Clock())
    stranger = keys.new_token("KY" + "1" * 18, os.urandom)

    for _ in range(5):
        with pytest.raises(Refusal):
            await known.caller(f"Bearer {stranger}")

    assert pool.asked == 1


async def test_strangers_who_make_up_ids_wait_for_each_other() -> None:
    """At most `asks_max` connections are ever used to look keys up."""
    pool = OneKeyPool()
    known = Keys(pool, lambda: ROLES, PEPPER, Clock(), asks_max=3)
    made_up = [keys.new_token(f"KY{n:018d}", os.urandom) for n in range(1, 60)]

    answers = await asyncio.gather(
        *[known.caller(f"Bearer {token}") for token in made_up], return_exceptions=True
    )

    assert all(isinstance(answer, Refusal) for answer in answers)
    assert pool.at_once_max <= 3


async def test_the_memory_of_keys_is_bounded() -> None:
    """However many ids are made up, only so many are kept."""
    known = Keys(OneKeyPool(), lambda: ROLES, PEPPER, Clock(), size_max=10)
    for n in range(1, 40):
        with pytest.raises(Refusal):
            await known.caller(f"Bearer {keys.new_token(f'KY{n:018d}', os.urandom)}")

    assert len(known._memory._known) <= 10


async def test_a_key_that_is_not_in_force_is_a_stranger() -> None:
    """Whatever its secret: it or its grant was taken back, or the grant's time has passed."""
    pool = OneKeyPool()
    assert pool.row is not None
    pool.row["in_force"] = False

    with pytest.raises(Refusal) as no:
        await Keys(pool, lambda: ROLES, PEPPER, Clock()).caller(f"Bearer {TOKEN}")
    assert no.value.code == "unauthenticated"
