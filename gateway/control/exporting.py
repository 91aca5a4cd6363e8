"""Exports of the audit: what was asked for, with the proof that it is what was sealed.

Knows which stretches of the chain an export needs so that anchors vouch for both its ends, and that
what was not asked for leaves as a digest alone. Refuses to judge the chain: whoever reads the
export does (`gateway/audit_check.py`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any, Final

import asyncpg
import msgspec

from gateway.audit_check import FORMAT, ZERO, canonical, leaf_of, link
from gateway.control import queries_audit as q
from gateway.control.sealing import form, moment

PREFETCH: Final = 2_000


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What an export is asked for; everything, unless something is named.

    since, until  when the acts were asked for: from, and before
    """

    since: datetime | None = None
    until: datetime | None = None
    person: str = ""
    subject: str = ""
    client: str = ""

    @property
    def everything(self) -> bool:
        """Whether no record is left out."""
        return self == Asked()

    def said(self) -> dict[str, object]:
        """As the first line of an export and the audit of the export itself say it."""
        return {
            "from": moment(self.since) if self.since else None,
            "to": moment(self.until) if self.until else None,
            "person": self.person, "subject": self.subject, "client": self.client,
        }  # fmt: skip

    @property
    def arguments(self) -> tuple[object, ...]:
        """As the statements take them."""
        return self.since, self.until, self.person, self.subject, self.client


class Exporting:
    """One export, read in one snapshot: the lines of it, one after the other, in little memory."""

    def __init__(self, conn: asyncpg.Connection, asked: Asked, now: datetime) -> None:
        self._conn = conn
        self._asked = asked
        self._now = now
        self._at = 0  # the record that the chain was followed to
        self._hash = ZERO
        self.shown = 0

    async def lines(self) -> AsyncIterator[str]:
        """The lines, without their ends."""
        async with self._conn.transaction(isolation="repeatable_read", readonly=True):
            anchor = await self._conn.fetchrow(q.ANCHOR_BEFORE, self._asked.until)
            until = anchor["at"] if anchor is not None else self._asked.until or self._now
            asked = {"format": FORMAT, "exported": moment(self._now), "until": moment(until)}
            yield canonical({"audit": asked | self._asked.said()})
            for low, high in await self._stretches():
                if low != self._at or low == 0:
                    yield await self._go_on(low)
                async for line in self._stretch(high):
                    yield line
            if anchor is not None and anchor["count"] > self._at:
                yield await self._go_on(anchor["count"])
            yield canonical({"end": {"count": self._at, "head": self._hash.hex()}})

    async def _stretches(self) -> list[tuple[int, int]]:
        """From where to where records are read, each place but the last end an anchor."""
        last = await self._conn.fetchval(q.HEAD_OF_CHAIN) or 0
        if self._asked.everything:
            return [(0, last)]
        rows = await self._conn.fetch(q.STRETCHES, *self._asked.arguments)
        return [(row["low"], row["high"] if row["high"] is not None else last) for row in rows]

    async def _go_on(self, after: int) -> str:
        head = await self._conn.fetchval(q.ANCHOR_AT, after) if after else ZERO
        self._at, self._hash = after, head
        return canonical({"after": after, "head": head.hex()})

    async def _stretch(self, high: int) -> AsyncIterator[str]:
        rows = self._conn.cursor(
            q.SEALED, *self._asked.arguments, self._at, high, prefetch=PREFETCH
        )
        async for row in rows:
            self._at, self._hash = row["no"], row["hash"]
            self.shown += bool(row["asked"] and row["id"])
            yield sealed_line(row)


def sealed_line(row: Mapping[str, Any]) -> str:
    """The line of a sealed record: itself, its leaf if nobody asked for it, or that it is gone."""
    said: dict[str, object] = {"hash": row["hash"].hex(), "no": row["no"]}
    if row["id"] is None:
        return canonical(said | {"gone": True})
    if row["asked"]:
        return canonical(said | {"record": form(row)})
    return canonical(said | {"leaf": leaf_of(canonical(form(row))).hex()})


async def first_bad(conn: asyncpg.Connection) -> tuple[int, str] | None:
    """Follow the whole chain in the caller's snapshot; the first record that is not as sealed.

    Returns its number and what is wrong, None when all hold.
    """
    last, nothing = ZERO, Asked().arguments
    wanted = 1
    async for row in conn.cursor(q.SEALED, *nothing, 0, 2**62, prefetch=PREFETCH):
        if row["no"] != wanted:
            return wanted, f"it is missing; record {row['no']} stands in its place"
        if row["id"] is None:
            return wanted, "it was sealed and is gone"
        last = link(last, wanted, leaf_of(canonical(form(row))))
        if last != row["hash"]:
            return wanted, f"the record {row['id']} is not what was sealed"
        wanted += 1
    return None
