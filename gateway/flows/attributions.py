"""Whose clients the logins of a server are, and through which contracts they came.

Knows that a login is an account's, an account a client's, and a client somebody's. Refuses to
remember: whoever asks does, until the inputs move.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import asyncpg

from bridge import reads
from gateway.people import attribution
from gateway.people.partners import LATEST, read_contracts
from ledger.rebates.evidence import Sources
from ledger.rebates.inputs import Dated


async def of_logins(
    conn: asyncpg.Connection, server: str, logins: Sequence[int], inputs_max: int = LATEST
) -> Mapping[int, Dated]:
    """Contracts by login, dated; nothing dated for a client who came by themselves.

    A login that no account of ours has is left out: a deal of it is never landed.
    inputs_max  leaves out what a later version of the book's inputs added
    """
    found = await reads.holders(conn, server, logins)
    holders = {login: holder.client_id for login, holder in found.items()}
    clients = await attribution.of_clients(conn, sorted(set(holders.values())), inputs_max)
    return {login: clients.get(client, ()) for login, client in holders.items()}


SOURCES = Sources(read_contracts, of_logins)
