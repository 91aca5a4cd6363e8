"""The rulebook as the whole house sees it: checked by every room, stored by its hash, one in force.

Knows which rooms compile a rulebook and which one is in force. Refuses to decide anything with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

import bridge.mapping
import ledger.rebates.plans
import router.rules
from config.findings import Finding
from config.load import from_source, read_folder
from config.references import references
from config.rulebook import Rulebook
from gateway.control import access, audit, ownership, policies
from gateway.control import queries_rulebook as q
from gateway.control.audit import Command
from gateway.control.duties import role_findings
from gateway.control.obstacles import plans_in_another_currency
from ledger import queries as ledger_queries
from ledger.ids import Ids
from ledger.money import UnknownCurrency, currency
from ledger.rebates import inputs
from ledger.units import Kind, Step
from router.psp.connector import load_connectors
from router.taxonomy import load as load_taxonomy

if TYPE_CHECKING:
    import asyncpg

# The unit decided with this rulebook (its hash is the value): is it still the one in force?
RULEBOOK: Final = Kind("gateway.rulebook.check", Step.CHECK, q.CHECK_IN_FORCE)


class InForce(msgspec.Struct, frozen=True):
    """The rulebook that decides now; `version` counts the rulebooks that ever did."""

    hash: str
    since: datetime
    version: int


class RulebookDiffers(Exception):
    """The process has another rulebook than the one in force, and was not told to adopt it."""

    def __init__(self, in_force: str, ours: str) -> None:
        super().__init__(
            f"the rulebook in force is {in_force}, this process was given {ours}: "
            "give it the same rules, or start it with --adopt to bring its own into force"
        )
        self.in_force = in_force
        self.ours = ours


class RulebookRefused(Exception):
    """It is right in itself and cannot follow on what was in force before: `findings` say why."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        super().__init__("the rulebook cannot come into force here")
        self.findings = tuple(findings)


class RulebookUnknown(LookupError):
    """No rulebook of this hash was ever in force here."""


# --- checking -----------------------------------------------------------------------------------


def check(folder: Path) -> tuple[Rulebook | None, list[Finding]]:
    """Read a rulebook and ask every room: with any finding there is no rulebook."""
    book, findings = read_folder(folder)
    if book is not None:
        findings = findings_of(book)
    return (None if findings else book), findings


def findings_of(book: Rulebook) -> list[Finding]:
    """What any room finds wrong with a rulebook."""
    return _each_once(
        references(book), _currencies(book), _connectors(book), role_findings(book),
        *_compiled(book),
    )  # fmt: skip


def _compiled(book: Rulebook) -> Iterator[list[Finding]]:
    rooms: tuple[Callable[[Rulebook], tuple[Any, list[Finding]]], ...] = (
        router.rules.compile,
        bridge.mapping.compile,
        access.compile,
        policies.compile,
        ownership.compile,
        ledger.rebates.plans.compile,
    )
    for compile_room in rooms:
        yield compile_room(book)[1]


def _currencies(book: Rulebook) -> list[Finding]:
    """Currencies in which somebody keeps money must be known with their decimals."""
    named = [
        *((f"entity[{n}].currency", it.currency) for n, it in enumerate(book.entities)),
        *((f"group[{n}].currency", it.currency) for n, it in enumerate(book.groups)),
    ]
    findings = []
    for path, code in named:
        try:
            currency(code)
        except UnknownCurrency as error:
            why = f"{path}: {error}"
            findings.append(Finding(book.place(path), "currency-unknown", why, path))
    return findings


def _connectors(book: Rulebook) -> list[Finding]:
    """Each PSP speaks by a connector that exists, and the connectors are right themselves."""
    connectors, findings = load_connectors(load_taxonomy())
    for number, psp in enumerate(book.psps):
        if psp.connector not in connectors:
            path = f"psp[{number}].connector"
            why = f"{path}: there is no connector `{psp.connector}`"
            findings.append(Finding(book.place(path), "connector-unknown", why, path))
    return findings


def _each_once(*lists: Iterable[Finding]) -> list[Finding]:
    """One mistake, one finding: of two rooms that name one key, the first has said it."""
    first: dict[object, Finding] = {}
    for finding in (finding for findings in lists for finding in findings):
        first.setdefault((finding.where, finding.key or finding.message), finding)
    return sorted(first.values(), key=lambda finding: finding.where)


# --- the one in force ---------------------------------------------------------------------------


async def in_force(conn: asyncpg.Connection) -> InForce | None:
    """The rulebook in force; None in a house that never had one."""
    row = await conn.fetchrow(q.SELECT_IN_FORCE)
    return None if row is None else InForce(row["hash"], row["since"], row["version"])


async def stored(conn: asyncpg.Connection, digest: str) -> Rulebook:
    """A rulebook that is or was in force, to explain a decision taken with it.

    Raises RulebookUnknown, and ValueError where this version of the program cannot read it.
    """
    return from_source(await source(conn, digest))


async def source(conn: asyncpg.Connection, digest: str) -> bytes:
    """The canonical JSON of a stored rulebook. Raises RulebookUnknown."""
    found: bytes | None = await conn.fetchval(q.SELECT_SOURCE, digest)
    if found is None:
        raise RulebookUnknown(digest)
    return found


async def agree(
    conn: asyncpg.Connection, book: Rulebook, command: Command, ids: Ids, *, adopt: bool
) -> InForce:
    """Make sure at the start that this process decides with the rulebook in force.

    A house without one takes this one. `adopt` brings it into force in place of another, and its
    plans with it. Raises RulebookDiffers and RulebookRefused, with nothing changed.
    """
    async with conn.transaction():
        found = await locked(conn)
        if found is None:
            found = await _first(conn, book, command, ids, adopt=adopt)
        elif found.hash != book.hash:
            if not adopt:
                raise RulebookDiffers(found.hash, book.hash)
            found = await _replace(conn, found, book, command, ids)
        await _publish(conn, book)
        return found


async def adopt(conn: asyncpg.Connection, book: Rulebook, command: Command, ids: Ids) -> InForce:
    """Bring a rulebook into force, whichever was before it, and ask nobody: for who tries rules
    out. What people publish goes through `versions.py`.
    """
    return await agree(conn, book, command, ids, adopt=True)


async def bring(
    conn: asyncpg.Connection, found: InForce, book: Rulebook, command: Command, ids: Ids, *,
    version: str, approvals: Sequence[str],
) -> InForce:  # fmt: skip
    """Bring a rulebook into force in place of `found`, in the caller's transaction, which holds it
    locked.

    version, approvals  the ids of the version it is, and of what allowed it
    """
    now = await _replace(conn, found, book, command, ids, version, approvals)
    await _publish(conn, book)
    return now


async def locked(conn: asyncpg.Connection) -> InForce | None:
    """The rulebook in force, and no other until the caller's transaction ends."""
    assert conn.is_in_transaction()
    row = await conn.fetchrow(q.LOCK_IN_FORCE)
    return None if row is None else InForce(row["hash"], row["since"], row["version"])


async def _first(
    conn: asyncpg.Connection, book: Rulebook, command: Command, ids: Ids, *, adopt: bool
) -> InForce:
    await _store(conn, book, command)
    if await conn.fetchval(q.INSERT_IN_FORCE, book.hash, command.at) is None:
        # Another replica was quicker, and has committed: its rulebook is the one to agree with.
        return await agree(conn, book, command, ids, adopt=adopt)
    await _record(conn, InForce("", command.at, 0), book, command, ids)
    return InForce(book.hash, command.at, 1)


async def _replace(
    conn: asyncpg.Connection, found: InForce, book: Rulebook, command: Command, ids: Ids,
    version_id: str = "", approvals: Sequence[str] = (),
) -> InForce:  # fmt: skip
    await _store(conn, book, command)
    version = await conn.fetchval(q.MOVE_IN_FORCE, book.hash, command.at, found.version)
    assert version == found.version + 1, "the row is locked by this transaction"
    await _record(conn, found, book, command, ids, version_id, approvals)
    return InForce(book.hash, command.at, version)


async def _publish(conn: asyncpg.Connection, book: Rulebook) -> None:
    """Open its books, and bring its plans into force; what is in force already stays as it is."""
    plans, findings = ledger.rebates.plans.compile(book)
    assert not findings, "a rulebook with findings is never brought into force"
    entities = book.entities
    await conn.execute(
        ledger_queries.OPEN_BOOKS, [e.book for e in entities], [e.id for e in entities],
        [e.currency for e in entities],
    )  # fmt: skip
    try:
        await inputs.publish(conn, [entity.book for entity in book.entities], plans.values())
    except inputs.CurrencyChanged as error:
        raise RulebookRefused(plans_in_another_currency(book, error.was)) from None


async def _store(conn: asyncpg.Connection, book: Rulebook, command: Command) -> None:
    person = command.caller.person
    await conn.execute(q.INSERT_RULEBOOK, book.hash, book.source, person, command.at)


async def _record(
    conn: asyncpg.Connection, before: InForce, book: Rulebook, command: Command, ids: Ids,
    version_id: str = "", approvals: Sequence[str] = (),
) -> None:  # fmt: skip
    """The event and the audit row of a rulebook that comes into force."""
    version, person = before.version + 1, command.caller.person
    cause = {"reason": command.reason, "correlation": command.correlation}
    await conn.execute(
        q.INSERT_EVENT, version, before.hash, book.hash, "adopted",
        msgspec.json.encode(cause).decode(), person, command.at,
    )  # fmt: skip
    was = {"hash": before.hash} if before.hash else None
    row = audit.audited(
        command, "rulebook.adopt", book.hash, ids.new("AU"), before=was,
        after={"hash": book.hash, "number": version, "version": version_id}, approvals=approvals,
    )  # fmt: skip
    await audit.write(conn, [row])
