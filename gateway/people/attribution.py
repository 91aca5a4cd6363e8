"""Attribution: whom a client came through, told once when the client is made known.

Knows that every client has an answer, which may be nobody, and what registration said. Refuses to
change it: no command does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.control.audit import Command
from gateway.people import queries_partners as q
from gateway.people.clients import Client
from gateway.people.partners import LATEST, dated
from ledger.rebates.inputs import Dated
from ledger.units import Change, Kind, Step

if TYPE_CHECKING:
    import asyncpg

INSERT: Final = Kind("gateway.attribution.insert", Step.INSERT, q.INSERT_ATTRIBUTION)


def attributed(client: Client, captured: object, command: Command) -> Change:
    """The row of a new client, in the client's own unit. It moves no inputs: no deal can be theirs.

    captured  what registration said, as given; None for a client who came by themselves
    """
    said = msgspec.json.encode({} if captured is None else captured).decode()
    row = (client.id, client.contract, client.book, said, 0, command.caller.person)
    return Change(INSERT, row)


async def of_clients(
    conn: asyncpg.Connection, client_ids: Sequence[str], inputs_max: int = LATEST
) -> Mapping[str, Dated]:
    """Whom these clients came through, dated: contract ids, "" for nobody.

    inputs_max  leaves out what a later version of the book's inputs added
    """
    rows = await conn.fetch(q.ATTRIBUTIONS, list(client_ids), inputs_max)
    return dated(rows, "client_id")


async def changed_since(conn: asyncpg.Connection, book: int, after: int) -> bool:
    """Whether a version of the book's inputs above `after` changed whom any client came through."""
    return bool(await conn.fetchval(q.ATTRIBUTIONS_CHANGED, book, after))
