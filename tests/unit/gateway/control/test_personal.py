"""The vault: fields open with their own key, in their own place, and nowhere else."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.control import queries_personal as q
from gateway.control.personal import Sealed, Vault
from gateway.control.refusals import Refusal

NOW = datetime(2026, 11, 22, tzinfo=UTC)
counted = itertools.count(1)


def chance(size: int) -> bytes:
    """Never the same twice."""
    return next(counted).to_bytes(size, "big")


class Keys:
    """The table of keys, in memory."""

    def __init__(self) -> None:
        self.wrapped: dict[str, bytes | None] = {}

    async def execute(self, sql: str, subject: str, wrapped: bytes, now: datetime) -> None:
        """Add a key where there is none."""
        assert sql == q.ADD_SUBJECT_KEY
        self.wrapped.setdefault(subject, wrapped)

    async def fetchval(self, sql: str, subject: str) -> bytes | None:
        """A wrapped key."""
        assert sql == q.SUBJECT_KEY
        return self.wrapped.get(subject)


@pytest.fixture
def keys() -> Any:
    """No key yet."""
    return Keys()


async def test_what_is_closed_opens_again(keys: Any) -> None:
    """Each time by other bytes, which say nothing of it."""
    vault = Vault("5a" * 32, chance)
    first = await vault.close(keys, "CL1", {"name": "Ann é"}, NOW)
    second = await vault.close(keys, "CL1", {"name": "Ann é"}, NOW)

    assert first != second
    assert "Ann" not in first["name"]
    assert await vault.open(keys, "CL1", first) == {"name": "Ann é"}
    assert await vault.open(keys, "CL1", second) == {"name": "Ann é"}


async def test_a_field_opens_in_its_own_place_alone(keys: Any) -> None:
    """Neither as another field, nor as another client's, nor with another key of ours, nor cut."""
    vault = Vault("5a" * 32, chance)
    closed = (await vault.close(keys, "CL1", {"name": "Ann"}, NOW))["name"]
    await vault.close(keys, "CL2", {}, NOW)

    for subject, fields, opens in (
        ("CL1", {"email": closed}, vault),
        ("CL2", {"name": closed}, vault),
        ("CL1", {"name": closed}, Vault("5b" * 32, chance)),
        ("CL1", {"name": closed[:-8] + "AAAAAAA="}, vault),
        ("CL1", {"name": "Ann"}, vault),
    ):
        with pytest.raises(Sealed):
            await opens.open(keys, subject, fields)


async def test_a_wrapped_key_is_of_no_other_subject(keys: Any) -> None:
    """Copied to another subject it opens nothing, and a destroyed one makes room for none."""
    vault = Vault("5a" * 32, chance)
    closed = await vault.close(keys, "CL1", {"name": "Ann"}, NOW)
    keys.wrapped["CL2"] = keys.wrapped["CL1"]
    with pytest.raises(Sealed):
        await vault.open(keys, "CL2", closed)

    keys.wrapped["CL1"] = None
    assert await vault.open(keys, "CL1", closed) is None
    with pytest.raises(Refusal) as refused:
        await vault.close(keys, "CL1", {"name": "Ann"}, NOW)
    assert refused.value.code == "erased"


async def test_without_a_key_of_ours_nothing_is_taken(keys: Any) -> None:
    """Plain text is never the fallback."""
    with pytest.raises(Refusal) as refused:
        await Vault("", chance).close(keys, "CL1", {"name": "Ann"}, NOW)
    assert refused.value.code == "personal-off"
