"""What versions of the rulebook look like from outside, and what people say about them.

Knows names and types of fields. Refuses to know where they are kept.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from config.difference import Difference
from gateway.control.versions import Found, Version

Reason = Annotated[str, Meta(min_length=1, max_length=500)]


class DraftRulebook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new version: a whole rulebook as JSON, or the number of an earlier one to bring back."""

    reason: Reason
    document: dict[str, Any] | None = None
    restores: Annotated[int, Meta(ge=1, le=2**53)] | None = None


class PublishRulebook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Have others asked. `effective_at` is never in the past; without it, once they agreed."""

    reason: Reason
    effective_at: Annotated[datetime, Meta(tz=True)] | None = None


class WithdrawRulebook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Take a version back."""

    reason: Reason


class VersionView(msgspec.Struct, frozen=True):
    """A version of the rulebook.

    areas      what it changes; for each of them other people are asked
    approvals  the questions that were agreed to
    restart    processes take it up only when they start (`brokerd serve --adopt`)
    """

    id: str
    state: str
    hash: str
    base: str
    areas: tuple[str, ...]
    agreed: tuple[str, ...]
    approvals: tuple[str, ...]
    restart: bool
    findings: tuple[Found, ...]
    effective_at: datetime | None
    number: int | None
    restores: int | None
    author: str
    reason: str
    created: datetime
    asked: datetime | None
    since: datetime | None
    until: datetime | None
    version: int


class VersionPage(msgspec.Struct, frozen=True):
    """Versions, newest first."""

    data: tuple[VersionView, ...]
    next: str | None


class DifferencesView(msgspec.Struct, frozen=True):
    """What a version changes in the content it was drafted on, or in another one."""

    before: str
    after: str
    data: tuple[Difference, ...]


class RulebookView(msgspec.Struct, frozen=True):
    """The rulebook in force."""

    hash: str
    number: int
    since: datetime
    document: dict[str, Any]
    version: VersionView | None = None


def version_view(version: Version) -> VersionView:
    """The version as it is told."""
    kept = {name: getattr(version, name) for name in VersionView.__struct_fields__}
    return VersionView(**kept | {"state": version.state.value})
