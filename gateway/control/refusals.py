"""Refusals: the expected answer "no", always with a stable code.

Knows the shape of a refusal. Refuses to know HTTP: which status and title a code has is one table
in `gateway/http/problems.py`, and a test checks that every code has its row there.
"""

from __future__ import annotations

from collections.abc import Mapping


class Refusal(Exception):
    """A command or a read is refused and nothing changed.

    code    stable, for programs: `client-state`
    detail  one sentence for people; never holds a secret
    facts   what the caller may need to act on it; becomes members of the problem
    """

    def __init__(self, code: str, detail: str, facts: Mapping[str, object] | None = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.facts: Mapping[str, object] = facts or {}


def not_found(noun: str, id: str) -> Refusal:
    """One answer for what does not exist and for what lies outside the caller's entities."""
    return Refusal("not-found", f"no {noun} {id[:40]!r} is known to you")
