"""Lending the right to decide: a checker who is away names another person for a while.

Knows how a delegation becomes a unit with its audit row. Refuses to judge by whose right a question
is decided; `control/delegations.py` does, at that moment.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import asyncpg
import msgspec

from gateway.control import delegations, grants
from gateway.control.access import EVERYWHERE
from gateway.control.approvals import need_reason
from gateway.control.assigning import conflict_refusal
from gateway.control.audit import Command, audited
from gateway.control.delegations import Delegation
from gateway.control.idempotency import Answer, Idem
from gateway.control.policies import Policies
from gateway.control.refusals import Refusal, not_found
from gateway.control.rules import Rules
from gateway.control.views import NewDelegation, delegation_view
from gateway.flows.approving import Lane, answered_claim, replayed
from ledger.ids import Ids
from ledger.units import Change, Done, Unit


class Lending:
    """Gives delegations and ends them."""

    def __init__(
        self, lane: Lane, pool: asyncpg.Pool, rules: Rules, ids: Ids, now: Callable[[], datetime]
    ) -> None:
        self._lane = lane
        self._pool = pool
        self._rules = rules
        self._ids = ids
        self._now = now

    async def give(self, command: Command, order: NewDelegation, idem: Idem) -> Answer:
        """Lend one's own right. 201 with the delegation.

        Raises Refusal: those of `delegations.require_lendable`, `reason-missing`, `person-unknown`
        for a delegate who is no person known here, and `roles-conflict` for one who may not hold
        such a right beside their own.
        """
        need_reason(command)
        wanted = Delegation(
            id=self._ids.new("DG"), version=1, giver=command.caller.person,
            delegate=order.delegate, kinds=tuple(sorted(set(order.kinds))),
            entities=tuple(sorted(set(order.entities))), since=order.since or command.at,
            until=order.until, reason=command.reason, created=command.at,
        )  # fmt: skip
        async with self._pool.acquire() as conn:
            if (answer := await replayed(conn, idem, command.at)) is not None:
                return answer
            kind = await grants.kind_known(conn, order.delegate)
            rules = self._rules.require()
            own = await delegations.permissions_of(conn, rules.access, order.delegate)
        delegations.require_lendable(command.caller, rules.policies, wanted, command.at)
        if kind != "human":
            raise Refusal("person-unknown", f"nobody is known here as {order.delegate!r}")
        _require_holdable(rules.policies, wanted, own)
        view = delegation_view(wanted, command.at)
        answer = Answer(201, msgspec.json.encode(view), f"/v1/delegations/{wanted.id}")
        row = self._audited(command, "delegation.give", wanted, None, view)
        return await self._done(command, wanted, idem, answer, delegations.lent(wanted), row)

    async def end(self, command: Command, delegation_id: str, idem: Idem) -> Answer:
        """End a delegation before its time: its giver or its delegate may. 200 with how it stands.

        Raises Refusal `not-found`, `delegation-over`, `reason-missing`, `version-conflict`.
        """
        need_reason(command)
        person = command.caller.person
        async with self._pool.acquire() as conn:
            if (answer := await replayed(conn, idem, command.at)) is not None:
                return answer
            held = await delegations.find(conn, delegation_id)
        if held is None or person not in (held.giver, held.delegate):
            raise not_found("delegation", delegation_id)
        if (state := held.state_at(command.at)) in ("over", "ended"):
            raise Refusal("delegation-over", f"it is {state}", {"state": state})
        after = msgspec.structs.replace(
            held, version=held.version + 1, ended=command.at, ended_by=person
        )
        view = delegation_view(after, command.at)
        answer = Answer(200, msgspec.json.encode(view))
        before = delegation_view(held, command.at)
        row = self._audited(command, "delegation.end", held, before, view)
        change = delegations.ended(held, person, command.at)
        return await self._done(command, held, idem, answer, change, row)

    def _audited(
        self, command: Command, name: str, what: Delegation, before: object, after: object
    ) -> Change:
        return audited(command, name, what.id, self._ids.new("AU"), before=before, after=after)

    async def _done(
        self, command: Command, what: Delegation, idem: Idem, answer: Answer, *changes: Change
    ) -> Answer:
        unit = Unit((answered_claim(idem, what.id, command, answer), *changes))
        left = await self._lane.submit(unit)
        if isinstance(left, Done):
            return answer
        async with self._pool.acquire() as conn:
            if (stored := await replayed(conn, idem, self._now())) is not None:
                return stored
        raise Refusal("version-conflict", "it changed while this command was under way")


def _require_holdable(policies: Policies, wanted: Delegation, own: frozenset[str]) -> None:
    """A right to decide named kinds is lent as a role is given: not into one hand with another."""
    for kind in wanted.kinds:
        for permission in policies.permissions(kind) if kind != EVERYWHERE else ():
            if found := delegations.clashes(own, permission):
                raise conflict_refusal(wanted.delegate, f"the right to decide {kind}", found)
