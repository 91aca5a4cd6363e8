"""Versions of the rulebook: drafted, checked, agreed to by others, in force at a time, superseded.

Knows the states of a version, how it takes effect exactly once, and what a process that starts
decides with. Refuses to know who may draft and agree: the flow that takes such commands asks.

A version is drafted on the content in force and takes effect only in its place: one that was
drafted on another is outdated, for nobody agreed to what it would undo.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from config.findings import Finding
from config.rulebook import Rulebook
from gateway.control import audit, items
from gateway.control import queries_rulebook as q
from gateway.control import rulebook as rulebooks
from gateway.control.audit import Command
from gateway.control.refusals import Refusal
from ledger.ids import Ids
from ledger.units import Change, Kind, Step

if TYPE_CHECKING:
    import asyncpg

CONTENT: Final = Kind("gateway.rulebook.insert", Step.INSERT, q.INSERT_CONTENT)
INSERT: Final = Kind("gateway.rulebook_version.insert", Step.INSERT, q.INSERT_VERSION)
MOVE: Final = Kind("gateway.rulebook_version.move", Step.MOVE, q.MOVE_VERSION, q.LOCK_VERSION)
EVENT: Final = Kind(
    "gateway.rulebook_version_event.insert", Step.INSERT, q.INSERT_VERSION_EVENT
)  # fmt: skip


class State(StrEnum):
    """Where a version stands."""

    DRAFT = "draft"  # with findings: it goes nowhere
    CHECKED = "checked"  # no room finds anything wrong
    ASKED = "asked"  # other people are asked
    APPROVED = "approved"  # they agreed; it waits for its time
    EFFECTIVE = "effective"
    SUPERSEDED = "superseded"
    WITHDRAWN = "withdrawn"
    OUTDATED = "outdated"  # another came into force than the one it was drafted on


class Found(msgspec.Struct, frozen=True):
    """One mistake in a version: where it was written, what it is."""

    code: str
    message: str
    place: str = ""


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version of the rulebook.

    hash, base    its content, and the content it was drafted on ("" for the first of a house)
    areas         what it changes; each is agreed to by people of its own
    agreed        the areas that were, by `approvals`
    restart       processes take it up only when they start: sessions of platforms change
    effective_at  never before it; None: as soon as it is agreed to
    number        its place among those that were ever in force; None while it was not
    restores      the number of the earlier one whose content it brings back
    """

    id: str
    version: int
    state: State
    hash: str
    base: str
    areas: tuple[str, ...]
    restart: bool
    author: str
    author_role: str
    reason: str
    correlation: str
    created: datetime
    findings: tuple[Found, ...] = ()
    agreed: tuple[str, ...] = ()
    approvals: tuple[str, ...] = ()
    effective_at: datetime | None = None
    number: int | None = None
    restores: int | None = None
    asked: datetime | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def open(self) -> bool:
        """Whether it may still come into force."""
        return self.state in (State.DRAFT, State.CHECKED, State.ASKED, State.APPROVED)


class NotAgreed(Exception):
    """The process was given rules that were never drafted here, and may not bring them itself."""

    def __init__(self, in_force: str, ours: str) -> None:
        super().__init__(
            f"the rulebook in force is {in_force}, this process was given {ours}, which nobody "
            "has agreed to: publish it first (`brokerd rulebook publish`)"
        )


def found(findings: Sequence[Finding]) -> tuple[Found, ...]:
    """Findings as a version keeps them."""
    return tuple(
        Found(each.code, each.message, each.where.text if each.where.file else each.key)
        for each in findings
    )


# --- changes ------------------------------------------------------------------------------------


def drafted(version: Version, source: bytes) -> tuple[Change, ...]:
    """Store a version and its content; one without findings is checked with it."""
    row = (
        version.id, version.version, version.state.value, version.hash, version.base,
        ",".join(version.areas), version.restart, msgspec.json.encode(version.findings).decode(),
        version.author, version.author_role, version.reason, version.restores,
        version.correlation, version.created,
    )  # fmt: skip
    content = (version.hash, source.decode(), version.author, version.created)
    cause = {"reason": version.reason, "findings": len(version.findings)}
    events = [("", State.DRAFT, "drafted")]
    if version.state is State.CHECKED:
        events.append((State.DRAFT, State.CHECKED, "checked"))
    told = [
        _event(version.id, version.version, before, after, name, cause, version.author,
               version.created)
        for before, after, name in events
    ]  # fmt: skip
    return Change(CONTENT, content), Change(INSERT, row), *told


def moved(before: Version, after: Version, event: str, command: Command) -> tuple[Change, ...]:
    """Move a version by the row version that was read."""
    row = (
        before.id, before.version, after.state.value, ",".join(after.agreed),
        ",".join(after.approvals), after.effective_at, after.asked,
    )  # fmt: skip
    cause = {"reason": command.reason, "correlation": command.correlation}
    told = _event(
        before.id, before.version + 1, before.state, after.state, event, cause,
        command.caller.person, command.at,
    )  # fmt: skip
    return Change(MOVE, row), told


def _event(
    id: str, version: int, before: str, after: str, name: str, cause: object, actor: str,
    at: datetime,
) -> Change:  # fmt: skip
    said = msgspec.json.encode(cause).decode()
    return Change(EVENT, (id, version, str(before), str(after), name, said, actor, at))


# --- reads --------------------------------------------------------------------------------------


async def find(conn: asyncpg.Connection, id: str) -> Version | None:
    """The version of this id."""
    row = await conn.fetchrow(q.SELECT_VERSION, id)
    return None if row is None else _version(row)


async def effective(conn: asyncpg.Connection) -> Version | None:
    """The version in force; None in a house whose first rulebook is older than versions."""
    row = await conn.fetchrow(q.SELECT_EFFECTIVE)
    return None if row is None else _version(row)


async def page(
    conn: asyncpg.Connection, *, state: str, after: str, limit: int
) -> list[Version]:  # fmt: skip
    """Versions, newest first, below the cursor `after`; an empty `state` is all of them."""
    return [_version(row) for row in await conn.fetch(q.SELECT_VERSIONS, after, state, limit)]


async def events(conn: asyncpg.Connection, id: str) -> list[Mapping[str, object]]:
    """What happened to a version, in order."""
    return [
        dict(row) | {"cause": msgspec.json.decode(row["cause"])}
        for row in await conn.fetch(q.SELECT_VERSION_EVENTS, id)
    ]


async def numbered(conn: asyncpg.Connection, number: int) -> str:
    """The content that was the so-manieth in force. Raises Refusal `not-found`."""
    hash: str | None = await conn.fetchval(q.SELECT_NUMBERED, number)
    if hash is None:
        raise Refusal("not-found", f"no rulebook was ever number {number} in force")
    return hash


def _version(row: asyncpg.Record) -> Version:
    fields: dict[str, Any] = dict(row)
    for name in ("areas", "agreed", "approvals"):
        fields[name] = tuple(fields[name])
    fields["findings"] = msgspec.json.decode(row["findings"], type=tuple[Found, ...])
    return Version(**fields | {"state": State(row["state"])})


# --- taking effect ------------------------------------------------------------------------------


_MOVED: Final = "another rulebook came into force than the one it was drafted on: draft it again"


class Enacting:
    """Brings versions into force whose time has come. Any process may do it; one does.

    by  whose command it is in the audit: nobody's but the product's, which keeps its word
    """

    def __init__(self, ids: Ids, by: Command) -> None:
        self._ids = ids
        self._by = by

    async def due(self, conn: asyncpg.Connection) -> None:
        """Bring each version into force that is due, one a transaction, in the order of time."""
        while await conn.fetchval(q.IS_DUE):
            async with conn.transaction():
                await rulebooks.locked(conn)
                row = await conn.fetchrow(q.LOCK_DUE)
                if row is not None:
                    await self.enact(conn, _version(row))

    async def enact(self, conn: asyncpg.Connection, version: Version) -> None:
        """Bring one into force, in the caller's transaction and under the lock of the one that is.

        One that was drafted on another content than that is outdated instead.
        """
        at = await conn.fetchval(q.DATABASE_NOW)
        before = await rulebooks.in_force(conn)
        assert before is not None, "a version is drafted on one in force"
        if version.base != before.hash:
            await self._outdate(conn, version, at, _MOVED)
            return
        book = await rulebooks.stored(conn, version.hash)
        command = msgspec.structs.replace(
            self._by, reason=version.reason, correlation=version.correlation, at=at,
            on_behalf_of=version.author,
        )  # fmt: skip
        try:
            async with conn.transaction():
                now = await rulebooks.bring(
                    conn, before, book, command, self._ids, version=version.id,
                    approvals=version.approvals,
                )  # fmt: skip
        except rulebooks.RulebookRefused as no:  # for what was in force before it was drafted
            why = "; ".join(each.message for each in no.findings)
            await self._outdate(conn, version, at, why)
            return
        await self._supersede(conn, at)
        await conn.execute(q.ENACT_VERSION, version.id, now.version, now.since)
        await self._tell(conn, version, State.EFFECTIVE, "enacted", at)
        for row in await conn.fetch(q.LOCK_OUTDATED, version.hash):
            await self._outdate(conn, _version(row), at, _MOVED)

    async def _supersede(self, conn: asyncpg.Connection, at: datetime) -> None:
        earlier = await effective(conn)
        if earlier is not None:
            await conn.execute(q.END_VERSION, earlier.id, State.SUPERSEDED.value, at)
            await self._tell(conn, earlier, State.SUPERSEDED, "superseded", at)

    async def _outdate(
        self, conn: asyncpg.Connection, version: Version, at: datetime, why: str
    ) -> None:
        await conn.execute(q.END_VERSION, version.id, State.OUTDATED.value, None)
        await self._tell(conn, version, State.OUTDATED, "outdated", at)
        item = items.item_opened(
            self._ids.new("IT"), "rulebook-outdated", "operations", version.id, why, at,
            correlation=version.correlation,
        )  # fmt: skip
        await audit.write(conn, [item])

    async def _tell(
        self, conn: asyncpg.Connection, version: Version, to: State, event: str, at: datetime
    ) -> None:
        told = _event(
            version.id, version.version + 1, version.state, to, event, {}, self._by.caller.person,
            at,
        )  # fmt: skip
        await audit.write(conn, [told])


async def start(
    conn: asyncpg.Connection, book: Rulebook, command: Command, ids: Ids, *, adopt: bool
) -> Rulebook:
    """What a process that was given `book` decides with from its start.

    A house without a rulebook takes it. Else it decides with the one in force, whenever its own was
    ever drafted here: a folder may be older or newer than what was agreed to. `adopt` brings a
    version into force that was agreed to and waits for processes to start with it. Raises
    NotAgreed for rules that nobody here ever saw.
    """
    async with conn.transaction():
        before = await rulebooks.locked(conn)
        if before is None:
            now = await rulebooks.agree(conn, book, command, ids, adopt=False)
            if await effective(conn) is None:  # else another replica was quicker
                await _first(conn, book, now, command, ids)
            return book
        if before.hash == book.hash:
            return book
        waiting = None
        if adopt:
            waiting = await conn.fetchrow(q.LOCK_WAITING, book.hash, before.hash)
        if waiting is not None:
            await Enacting(ids, command).enact(conn, _version(waiting))
            enacted = await rulebooks.in_force(conn)
            if enacted is not None and enacted.hash == book.hash:
                return book
        if not await conn.fetchval(q.CONTENT_KNOWN, book.hash):
            raise NotAgreed(before.hash, book.hash)
        return await rulebooks.stored(conn, before.hash)


async def _first(
    conn: asyncpg.Connection, book: Rulebook, now: rulebooks.InForce, command: Command, ids: Ids
) -> None:
    """The version of a house's first rulebook: it changes nothing, and nobody could agree."""
    version = Version(
        id=ids.new("RV"), version=1, state=State.CHECKED, hash=book.hash, base="", areas=(),
        restart=False, author=command.caller.person, author_role=command.caller.role,
        reason=command.reason, correlation=command.correlation, created=now.since,
    )  # fmt: skip
    await audit.write(conn, drafted(version, book.source))
    await conn.execute(q.ENACT_VERSION, version.id, now.version, now.since)
    told = _event(
        version.id, 2, version.state, State.EFFECTIVE, "enacted", {}, version.author, now.since
    )
    await audit.write(conn, [told])
