"""Clients: who they are to the books, and what their state lets them do.

Knows a client without a name: ids, entity, currency, risk, state. Refuses to know payments and
platforms; the flows ask it `may_deposit` and `may_open_account`.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.control.access import Caller, Tags
from gateway.control.audit import Command, Concerns
from gateway.control.refusals import Refusal
from gateway.people import queries as q
from gateway.people import states
from gateway.people.states import State
from ledger.units import Change, Kind, Step

if TYPE_CHECKING:
    import asyncpg

CLAIM: Final = Kind("gateway.client.create", Step.CLAIM, q.CLAIM_CLIENT, q.LOOK_CLIENT)
MOVE: Final = Kind("gateway.client.move", Step.MOVE, q.MOVE_CLIENT, q.LOCK_CLIENT)
EVENT: Final = Kind("gateway.client_event.insert", Step.INSERT, q.INSERT_CLIENT_EVENT)
STILL: Final = Kind("gateway.client.still", Step.CHECK, q.CLIENT_STILL)


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """A client as stored.

    caller, reference  the system that made the client known, and its own id there
    book               the number of the entity's set of accounts
    blocks             what a restriction forbids; empty in every other state
    came_from          the state a restriction interrupted
    contract, code     the partner's contract it came through and its code; "" for nobody's
    desk               of the entity that looks after it; "" for none
    """

    id: str
    version: int
    caller: str
    reference: str
    brand: str
    entity: str
    book: int
    country: str
    currency: str
    client_type: str
    risk_band: str
    state: State
    blocks: tuple[str, ...]
    came_from: str
    correlation: str
    created: datetime
    updated: datetime
    contract: str = ""
    code: str = ""
    desk: str = ""

    @property
    def tags(self) -> Tags:
        """What decides for whom it exists."""
        contracts = (self.contract,) if self.contract else ()
        return Tags(self.entity, self.brand, self.desk, contracts)


class Move(msgspec.Struct, frozen=True):
    """A wish to move a client; `blocks` only with `restricted`."""

    to: State
    blocks: tuple[str, ...] = ()


class ClientMoment(msgspec.Struct, frozen=True):
    """One event of a client's history."""

    version: int
    from_state: str
    to_state: str
    event: str
    cause: msgspec.Raw
    actor: str
    at: datetime


# --- what a state permits -----------------------------------------------------------------------


def may_deposit(client: Client) -> Refusal | None:
    """Why this client may not deposit now; None when they may. Code `client-state`."""
    if client.state in states.DEPOSIT:
        return None
    # A restriction blocks what it names; it grants nothing the client did not have before it.
    restricted = client.state is State.RESTRICTED and client.came_from in states.DEPOSIT
    if restricted and "deposit" not in client.blocks:
        return None
    return Refusal(
        "client-state", f"a client in state {client.state} may not deposit", {"state": client.state}
    )


def may_open_account(client: Client) -> Refusal | None:
    """Why no trading account may be asked for; None when it may. Code `client-state`."""
    if client.state in states.OPEN_ACCOUNT:
        return None
    said = f"a client in state {client.state} may not open an account"
    return Refusal("client-state", said, {"state": client.state})


def needs_checker(client: Client, move: Move) -> bool:
    """Whether a second person must agree; raises Refusal when the move is not in the table.

    Codes: `client-transition`, `blocks-missing`, `blocks-misplaced`.
    """
    needed = states.needs_checker(client.state, move.to, client.risk_band, client.came_from)
    if move.to is State.RESTRICTED and not move.blocks:
        raise Refusal("blocks-missing", "a restriction says what it blocks")
    if move.to is not State.RESTRICTED and move.blocks:
        raise Refusal("blocks-misplaced", "only a restriction has blocks")
    return needed


def moved(client: Client, move: Move, at: datetime) -> Client:
    """The client after the move: the next version, with the origin kept while restricted."""
    came_from = client.state.value if move.to is State.RESTRICTED else ""
    return msgspec.structs.replace(
        client,
        version=client.version + 1,
        state=move.to,
        blocks=tuple(sorted(set(move.blocks))),
        came_from=came_from,
        updated=at,
    )


def concerning(client: Client) -> Concerns:
    """What an act on this client, or on anything of theirs, is about."""
    return Concerns(client.entity, client.brand, client.id, client.contract)


# --- changes ------------------------------------------------------------------------------------


def client_created(client: Client, command: Command) -> tuple[Change, ...]:
    """Insert a new client; the claim is lost when the caller's reference is taken."""
    row = (
        f"{client.caller}:{client.reference}", client.id, client.caller, client.reference,
        client.brand, client.entity, client.book, client.country, client.currency,
        client.client_type, client.risk_band, client.state.value, client.correlation,
        client.created, client.desk,
    )  # fmt: skip
    return Change(CLAIM, row), _event(client, "", "created", command)


def client_moved(
    client: Client, after: Client, command: Command, *, approval: str = ""
) -> tuple[Change, ...]:
    """Move the client from the version that was read; `approval` is what allowed a starred move."""
    row = (
        client.id, client.version, after.state.value, ",".join(after.blocks), after.came_from,
        after.updated,
    )  # fmt: skip
    return Change(MOVE, row), _event(after, client.state.value, "moved", command, approval)


def still(client: Client) -> Change:
    """Hold the client at the version a unit decided with; a concurrent move leaves the unit out."""
    return Change(STILL, (f"{client.id}@{client.version}",))


def _event(after: Client, before: str, event: str, command: Command, approval: str = "") -> Change:
    cause = {
        "command_correlation": command.correlation,
        "reason": command.reason,
        "approval": approval,
        "blocks": after.blocks,
    }
    row = (
        after.id, after.version, before, after.state.value, event,
        msgspec.json.encode(cause).decode(), command.caller.person, command.at,
    )  # fmt: skip
    return Change(EVENT, row)


# --- reads --------------------------------------------------------------------------------------


async def find(conn: asyncpg.Connection, id: str) -> Client | None:
    """The client of this id, whoever asks."""
    row = await conn.fetchrow(q.SELECT_CLIENT, id)
    return None if row is None else _client(dict(row))


async def find_within(conn: asyncpg.Connection, caller: Caller, id: str) -> Client | None:
    """The client of this id, if it exists for the caller."""
    row = await conn.fetchrow(q.CLIENT_WITHIN, id, caller.filter)
    return None if row is None else _client(dict(row))


async def find_all(conn: asyncpg.Connection, ids: list[str]) -> dict[str, Client]:
    """The clients of these ids by their id; an id without a client is left out."""
    return {row["id"]: _client(dict(row)) for row in await conn.fetch(q.SELECT_THESE, ids)}


async def page(
    conn: asyncpg.Connection, caller: Caller, *, state: str, reference: str, after: str, limit: int
) -> list[Client]:
    """Clients newest first, below the cursor; `reference` is looked up among the caller's own."""
    rows = await conn.fetch(
        q.SELECT_CLIENTS, after, caller.filter, state, caller.owner, reference, limit
    )
    return [_client(dict(row)) for row in rows]


async def history(conn: asyncpg.Connection, id: str, limit: int) -> list[ClientMoment]:
    """A client's events, oldest first; folding them gives the state."""
    rows = await conn.fetch(q.SELECT_CLIENT_EVENTS, id, limit)
    return [
        ClientMoment(
            row["version"], row["from_state"], row["to_state"], row["event"],
            msgspec.Raw(row["cause"].encode()), row["actor"], row["at"],
        )
        for row in rows
    ]  # fmt: skip


def _client(row: dict[str, object]) -> Client:
    blocks = row["blocks"]
    assert isinstance(blocks, list)
    return Client(**(row | {"state": State(str(row["state"])), "blocks": tuple(blocks)}))  # type: ignore[arg-type]
