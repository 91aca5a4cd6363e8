"""What is true of a person beside what they do: whose account it is, whose client, whose partner.

Knows how such a word becomes an act that binds its person. Refuses to judge it, and to take it
back: who once had to do with an account does not decide on it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

import asyncpg
import msgspec

from gateway.control import acts, grants
from gateway.control.access import Caller
from gateway.control.acts import Deed
from gateway.control.approvals import need_reason
from gateway.control.audit import Command, audited
from gateway.control.idempotency import Answer, Idem
from gateway.control.refusals import Refusal, not_found
from gateway.control.views_grants import NewTie, TieView
from gateway.flows.approving import Lane, answered_claim, replayed
from gateway.people import clients, partners
from ledger.ids import Ids
from ledger.units import Done, Unit

CLIENT: Final = "CL"  # how ids of clients begin


class Tying:
    """Keeps ties of people."""

    def __init__(
        self, lane: Lane, pool: asyncpg.Pool, ids: Ids, now: Callable[[], datetime]
    ) -> None:
        self._lane = lane
        self._pool = pool
        self._ids = ids
        self._now = now

    async def tie(self, command: Command, person: str, order: NewTie, idem: Idem) -> Answer:
        """Keep a tie. 201 with it.

        Raises Refusal `reason-missing`, `not-found` for a person, a client or a partner who is not
        known to the caller, and `version-conflict`.
        """
        need_reason(command)
        said = TieView(
            tie=order.tie, subject=order.subject, said=command.at, said_by=command.caller.person
        )
        answer = Answer(201, msgspec.json.encode(said))
        for _ in range(acts.TRIES_MAX):
            async with self._pool.acquire() as conn:
                if (stored := await replayed(conn, idem, command.at)) is not None:
                    return stored
                if await grants.kind_known(conn, person) != "human":
                    raise not_found("person", person)
                if not await known(conn, command.caller, order.subject):
                    raise not_found("client or partner", order.subject)
                done = await acts.stated(conn, command, person, Deed(order.tie, order.subject))
            audit_id = self._ids.new("AU")
            left = await self._lane.submit(
                Unit(
                    (
                        answered_claim(idem, person, command, answer),
                        *done,
                        audited(command, "person.tie", person, audit_id, after=said),
                    )
                )
            )
            if isinstance(left, Done):
                return answer
        raise Refusal("version-conflict", "the person did something else meanwhile")


async def known(conn: asyncpg.Connection, caller: Caller, subject: str) -> bool:
    """Whether a client or a partner exists for the caller."""
    if subject.startswith(CLIENT):
        return await clients.find_within(conn, caller, subject) is not None
    return await partners.find(conn, caller, subject) is not None
