"""Looking into the audit: by person, object, client and period, within the reader's grants.

Knows which records a grant reaches: by entity and brand, and for the reader of an area by what they
may read otherwise. Refuses to show a record before it is sealed, and any at all before the looking
itself is on record.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.control import audit
from gateway.control import queries_audit as q
from gateway.control.access import EVERYWHERE, Caller, Held
from gateway.control.audit import Command, Concerns
from gateway.control.exporting import Asked
from ledger.ids import Ids

if TYPE_CHECKING:
    import asyncpg

READ: Final = "audit:read"
AREA: Final = "audit:area"

# The area of whoever may not read the whole audit: acts on what they may read, by the first word of
# the command. What stands in no area is for the whole audit's readers.
AREAS: Final[Mapping[str, frozenset[str]]] = {
    "client": frozenset({"clients:read"}),
    "attribution": frozenset({"attribution:read"}),
    "approval": frozenset({"approvals:read"}),
    "delegation": frozenset({"approvals:read"}),
    "item": frozenset({"items:read"}),
    "account": frozenset({"accounts:read"}),
    "deposit": frozenset({"deposits:read", "payments:read"}),
    "partner": frozenset({"partners:read"}),
    "contract": frozenset({"partners:read"}),
}


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One sealed record.

    no            its number in the chain; `hash` seals it and all before it
    before, after JSON values; personal fields are ciphertext
    approvals     the questions by which it was allowed
    """

    no: int
    hash: str
    id: str
    at: datetime
    actor: str
    role: str
    on_behalf_of: str
    command: str
    subject: str
    before: msgspec.Raw | None
    after: msgspec.Raw | None
    reason: str
    correlation: str
    key: str
    session: str
    grant: str
    approvals: tuple[str, ...]
    entity: str
    brand: str
    client: str
    contract: str


async def read(
    conn: asyncpg.Connection, command: Command, ids: Ids, asked: Asked, name: str, below: int,
    limit: int,
) -> list[AuditRecord]:  # fmt: skip
    """Sealed records, newest first, numbered below `below`; the looking is committed first.

    name  of the command, or "" for any
    Raises Refusal `reason-missing`.
    """
    said = asked.said() | {"command": name, "below": below or None}
    row = audit.audited(
        command, "audit.read", "audit", ids.new("AU"), after=said,
        concerns=Concerns(client=asked.client),
    )  # fmt: skip
    async with conn.transaction():
        await audit.write(conn, [row])
    columns = _reach(command.caller)
    found = await conn.fetch(q.SEARCH, *asked.arguments, name, below, *columns, limit)
    return [_record(row) for row in found]


def _reach(caller: Caller) -> tuple[list[str], list[str], list[str]]:
    """Entities, brands and words of commands, one row a grant, as the statement takes them.

    A record bears no desk and no tree of contracts: who is limited to those reads none.
    """
    held = [
        grant for grant in caller.grants
        if EVERYWHERE in grant.reach.desks and EVERYWHERE in grant.reach.partners
    ]  # fmt: skip
    return (
        [",".join(sorted(grant.reach.entities)) for grant in held],
        [",".join(sorted(grant.reach.brands)) for grant in held],
        [_words(grant) for grant in held],
    )


def _words(grant: Held) -> str:
    if READ in grant.scopes:
        return EVERYWHERE
    if AREA not in grant.scopes:
        return ""
    return ",".join(word for word, any_of in AREAS.items() if any_of & grant.scopes)


def _record(row: asyncpg.Record) -> AuditRecord:
    return AuditRecord(
        no=row["no"], hash=row["hash"].hex(), id=row["id"], at=row["at"], actor=row["actor"],
        role=row["role"], on_behalf_of=row["on_behalf_of"], command=row["command"],
        subject=row["subject"], before=_raw(row["before"]), after=_raw(row["after"]),
        reason=row["reason"], correlation=row["correlation"], key=row["key_id"],
        session=row["session"], grant=row["grant_id"], approvals=tuple(row["approvals"]),
        entity=row["entity"], brand=row["brand"], client=row["client"], contract=row["contract"],
    )  # fmt: skip


def _raw(text: str | None) -> msgspec.Raw | None:
    return None if text is None else msgspec.Raw(text.encode())
