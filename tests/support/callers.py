"""Callers for tests that go past HTTP. Knows what a caller is made of, and no credential."""

from __future__ import annotations

from gateway.control.access import ALL, Caller, Held, Reach
from gateway.control.permissions import CATALOGUE


def calling(
    person: str,
    owner: str = "",
    *,
    role: str = "system",
    scopes: frozenset[str] = frozenset(CATALOGUE),
    entities: frozenset[str] = ALL,
) -> Caller:
    """Somebody with one grant; without more words it allows everything everywhere."""
    held = Held("GR" + "0" * 18, role, scopes, Reach(entities=entities))
    return Caller(key_id="KY", person=person, owner=owner or person, grants=(held,))
