"""The report of duties: whether in a period, or on a subject, anybody did both of two things.

Knows how the recorded acts are searched again, from the table of conflicts alone and without trust
in what was judged when they were done. Refuses to repair, and to leave anybody out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.control import assigning, grants
from gateway.control import queries_duties as q
from gateway.control.access import NONE, Access
from gateway.control.assigning import Excepted
from gateway.control.duties import (
    ACTIONS,
    BONDS,
    CONFLICTS,
    SUBJECT_WINDOW,
    Act,
    Nature,
    held_together,
    judge,
)

if TYPE_CHECKING:
    import asyncpg


_INSTANT: Final = timedelta(microseconds=1)


class Period(msgspec.Struct, frozen=True):
    """What is looked at: acts from one time up to another, on one subject or, with "", on all."""

    since: datetime
    until: datetime
    subject: str = ""


class Violation(msgspec.Struct, frozen=True):
    """Two acts of one person that the table forbids together; the later one is in the period."""

    conflict: int
    earlier: Act
    later: Act


class Row(msgspec.Struct, frozen=True):
    """One conflict of acts: how many people stood at each end in the period, and at both."""

    number: int
    a: str
    b: str
    first: int
    second: int
    broken: int


class Holder(msgspec.Struct, frozen=True):
    """A person who holds roles of a conflict at this moment, excepted or not."""

    person: str
    roles: tuple[str, ...]
    conflict: int
    excepted: bool


class Report(msgspec.Struct, frozen=True):
    """What the report says; it is clean where nobody did both ends and nobody holds them unasked.

    acts, people, subjects  what was looked at
    exceptions              those that held at some time of the period
    """

    period: Period
    made: datetime
    acts: int
    people: int
    subjects: int
    rows: tuple[Row, ...]
    violations: tuple[Violation, ...]
    exceptions: tuple[Excepted, ...]
    holders: tuple[Holder, ...]

    @property
    def clean(self) -> bool:
        """Whether nobody touched both ends."""
        return not self.violations and all(holder.excepted for holder in self.holders)


async def report(conn: asyncpg.Connection, access: Access, period: Period, now: datetime) -> Report:
    """Search the period again, in one snapshot."""
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        asked = period.since, period.until, period.subject
        counts = await conn.fetchrow(q.COUNT_ACTS, *asked)
        ends = await conn.fetch(q.COUNT_ENDS, *asked)
        violations = await _violations(conn, period)
        exceptions = await assigning.exceptions(conn, period.since, period.until)
        holders = await _holders(conn, access, now)
    did: dict[str, set[str]] = {}
    for end in ends:
        did.setdefault(end["action"], set()).add(end["person"])
    return Report(
        period, now, counts["acts"], counts["people"], counts["subjects"],
        _rows(did, violations), violations, tuple(exceptions), holders,
    )  # fmt: skip


def _rows(did: dict[str, set[str]], violations: Sequence[Violation]) -> tuple[Row, ...]:
    def people(actions: frozenset[str]) -> int:
        return len(set[str]().union(*(did.get(action, ()) for action in actions)))

    broken = [each.conflict for each in violations]
    return tuple(
        Row(it.number, it.a, it.b, people(it.first), people(it.second), broken.count(it.number))
        for it in CONFLICTS.values()
    )


async def _violations(conn: asyncpg.Connection, period: Period) -> tuple[Violation, ...]:
    """Each pair once, though it meets at its subject and at its case."""
    names = sorted(ACTIONS)
    rows = await conn.fetch(
        q.SELECT_VIOLATIONS, period.since, period.until, period.subject, names,
        [",".join(BONDS[name].subject) for name in names],
        [",".join(BONDS[name].case) for name in names], SUBJECT_WINDOW,
        [name for name in names if ACTIONS[name].nature is Nature.STAND],
    )  # fmt: skip
    found: dict[Violation, None] = {}
    for row in rows:
        person = row["person"]
        later = Act(
            person, *(row[name] for name in ("action", "subject", "case_id", "at", "actor"))
        )
        earlier = Act(
            person, row["met"], row["met_subject"], row["met_case"], row["met_at"], row["met_actor"]
        )
        hit = judge([earlier], person, later.action, later.subject, later.case, later.at)
        assert hit is not None, "the statement and the table of conflicts say the same"
        found[Violation(hit.conflict.number, earlier, later)] = None
    return tuple(found)


async def _holders(conn: asyncpg.Connection, access: Access, now: datetime) -> tuple[Holder, ...]:
    """Who holds roles of a conflict now: a rulebook in force may have brought them together."""
    excepted = {
        (it.person, it.conflict) for it in await assigning.exceptions(conn, now, now + _INSTANT)
    }
    return tuple(
        Holder(person, roles, it.number, (person, it.number) in excepted)
        for person, roles in await grants.holders(conn)
        for it in held_together(NONE.union(*(access.roles.get(role, NONE) for role in roles)))
    )
