"""Break-glass: a role somebody was given in an emergency, for minutes.

Knows which grants are such, when each ends and which item asks for its review. Refuses to know how
one is asked for (`flows/glass.py`), and what the role may do: it is a grant like any other, and
every record of what was done by it names it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from gateway.control import queries_sign_in as q
from gateway.control.access import Reach
from gateway.control.views import GivenReason
from gateway.control.views_grants import ALL, RoleName, TagSet
from ledger.units import Change, Kind, Step

if TYPE_CHECKING:
    import asyncpg

GIVE: Final = Kind("gateway.break_glass.give", Step.INSERT, q.INSERT_BREAK_GLASS)
MINUTES_MAX: Final = 240
REVIEW: Final = "break-glass-review"  # the kind of the item that asks what was done
TEAM: Final = "compliance"


class BreakGlass(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A wish to be given a role in an emergency, for oneself; `*` is no limit."""

    role: RoleName
    minutes: Annotated[int, Meta(ge=1, le=MINUTES_MAX)]
    entities: TagSet = ALL
    reason: GivenReason = ""

    @property
    def reach(self) -> Reach:
        """The entities it is limited to."""
        return Reach(entities=frozenset(self.entities))


class Broken(msgspec.Struct, frozen=True, kw_only=True):
    """One use of break-glass. `ended` is when it was over, `item` asks for its review."""

    grant_id: str
    approval: str
    person: str
    role: str
    since: datetime
    until: datetime
    reason: str
    item: str
    ended: datetime | None
    ended_by: str


class BrokenPage(msgspec.Struct, frozen=True):
    """Uses newest first; `next` is the cursor of the following page, null on the last."""

    data: tuple[Broken, ...]
    next: str | None


def given(grant_id: str, approval: str, person: str, since: datetime, until: datetime,
          reason: str, item: str) -> Change:  # fmt: skip
    """Say that a grant is one of an emergency."""
    return Change(GIVE, (grant_id, approval, person, since, until, reason, item))


async def page(
    conn: asyncpg.Connection, *, entities: list[str] | None, after: str, limit: int
) -> list[Broken]:
    """Uses within these entities, newest first, below the cursor `after`."""
    rows = await conn.fetch(q.SELECT_BREAK_GLASS, after, entities, limit)
    return [Broken(**row) for row in rows]


async def over(conn: asyncpg.Connection, now: datetime, limit: int) -> list[tuple[str, str, str]]:
    """Mark uses whose time or grant is over, in the caller's transaction, each once.

    Returns grant, person and correlating approval of each. Their grants end with them.
    """
    rows = await conn.fetch(q.END_BREAK_GLASS, now, limit)
    return [(row["grant_id"], row["person"], row["approval"]) for row in rows]


async def count_open(conn: asyncpg.Connection) -> int:
    """How many are in force."""
    return int(await conn.fetchval(q.COUNT_BREAK_GLASS))
