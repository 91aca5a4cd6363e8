"""The way of a role to a person: asked for by one, agreed to by another, given once, taken back.

Knows how an assignment becomes a question and its effect a grant. Refuses to give anything by
itself, to anybody their own role, and to judge what else the person does with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import asyncpg
import msgspec

from gateway.control import assigning, audit, grants
from gateway.control.access import Reach
from gateway.control.approvals import Approval, need_reason
from gateway.control.audit import Command, audited
from gateway.control.duties import Conflict
from gateway.control.grants import Grant
from gateway.control.idempotency import Answer, Idem
from gateway.control.policies import Matter
from gateway.control.refusals import Refusal, not_found
from gateway.control.rules import Compiled, Rules
from gateway.control.views_grants import NewGrant, grant_view
from gateway.flows.approving import Applier, InTransaction, Lane, answered_claim, replayed
from gateway.flows.asking import Asking
from ledger.ids import Ids
from ledger.units import Change, Done, Unit

GRANT: Final = "role.grant"
EXCEPTION: Final = "role.exception"


class Wished(msgspec.Struct, frozen=True):
    """What a question about a role keeps until it is decided.

    exceptions  the rows of duties whose roles are to be in one hand for a while
    """

    grant_id: str
    person: str
    role: str
    reach: Reach
    valid_from: datetime | None
    valid_until: datetime | None
    exceptions: tuple[int, ...] = ()


class Assigning:
    """Has roles given to people, and takes them back."""

    def __init__(
        self,
        lane: Lane,
        pool: asyncpg.Pool,
        rules: Rules,
        asking: Asking,
        ids: Ids,
        now: Callable[[], datetime],
    ) -> None:
        self._lane = lane
        self._pool = pool
        self._rules = rules
        self._asking = asking
        self._ids = ids
        self._now = now

    @property
    def appliers(self) -> dict[str, Applier]:
        """What this flow applies when a question of its kinds is agreed to."""
        return {GRANT: InTransaction(self.give), EXCEPTION: InTransaction(self.give)}

    async def ask(self, command: Command, order: NewGrant, idem: Idem) -> Answer:
        """Ask another person to give somebody a role. 202 with the approval.

        Raises Refusal `reason-missing`, `role-unknown`, `entity-unknown`, `role-kind`, `own-role`,
        `grant-time`, `roles-conflict`, `exception-time`, and those of `Asking.ask`.
        """
        need_reason(command)
        rules = self._rules.require()
        async with self._pool.acquire() as conn:
            if (answer := await replayed(conn, idem, command.at)) is not None:
                return answer
            kind = await grants.kind_known(conn, order.person)
            held = await grants.of_person(conn, order.person)
        try:
            _require_wish(rules, command, order, kind)
            found = _require_holdable(rules, held, command, order)
        except Refusal as no:
            tried = {"person": order.person, "role": order.role, "refused": no.code, **no.facts}
            row = self._audited(command, GRANT, order.person, tried)
            await self._lane.submit(Unit((row,)))
            raise
        return await self._asking.ask(command, *self._question(command, order, found, idem))

    def _question(
        self, command: Command, order: NewGrant, found: Sequence[Conflict], idem: Idem
    ) -> tuple[Matter, Idem, Callable[[Approval], Sequence[Change]]]:
        wished = Wished(
            self._ids.new("GR"), order.person, order.role, order.reach, order.valid_from,
            order.valid_until, tuple(it.number for it in found),
        )  # fmt: skip
        kind = EXCEPTION if found else GRANT
        matter = Matter(
            kind=kind, subject=wished.grant_id, about=(order.person,), payload=wished,
            entity=assigning.only_entity(order.reach),
        )  # fmt: skip

        def also(approval: Approval) -> tuple[Change, ...]:
            after = {"approval": approval.id, "wished": wished}
            return (self._audited(command, kind, wished.grant_id, after),)

        return matter, idem, also

    async def give(self, conn: asyncpg.Connection, approval: Approval, command: Command) -> None:
        """The effect of an agreed role: a grant, in the transaction of the last vote.

        Raises Refusal `own-role` for whoever would agree to their own, `roles-conflict` where the
        person was given another role meanwhile, `role-unknown`, `grant-time`.
        """
        rules = self._rules.require()
        wished = msgspec.json.decode(approval.payload, type=Wished)
        if wished.role not in rules.access.roles:
            raise _no_role(wished.role)
        if wished.person in {
            command.caller.person, command.on_behalf_of, *approval.votes, *approval.authorities,
        }:  # fmt: skip
            raise _own_role()
        await assigning.hold_person(conn, wished.person)
        since = max(wished.valid_from or command.at, command.at)
        if wished.valid_until is not None and wished.valid_until <= since:
            raise Refusal("grant-time", "its time is over before it began")
        held = await grants.of_person(conn, wished.person)
        roles, until = rules.access.roles, wished.valid_until
        found = assigning.conflicts(roles, held, wished.role, since, until)
        if more := [it for it in found if it.number not in wished.exceptions]:
            raise assigning.conflict_refusal(wished.person, wished.role, more)
        grant = Grant(
            id=wished.grant_id, person=wished.person, role=wished.role, reach=wished.reach,
            valid_from=since, valid_until=until, approval=approval.id, created=command.at,
            created_by=approval.maker,
        )  # fmt: skip
        await audit.write(conn, self._given(grant, wished, approval, command))

    def _given(
        self, grant: Grant, wished: Wished, approval: Approval, command: Command
    ) -> list[Change]:
        kind = grants.kind_of(grant.role)
        view = grant_view(grant, command.at)
        exceptions = [assigning.excepted(grant, it, approval.reason) for it in wished.exceptions]
        return [
            grants.person_known(grant.person, kind, command.at, approval.maker),
            grants.given(grant),
            *exceptions,
            audited(
                command, approval.kind, grant.id, self._ids.new("AU"), after=view,
                approvals=[approval.id],
            ),
        ]  # fmt: skip

    async def revoke(self, command: Command, grant_id: str, idem: Idem) -> Answer:
        """Take a role back; one person may, for it only takes rights away. 200 with the grant.

        It allows nothing any more within the few seconds that replicas remember callers. Raises
        Refusal `reason-missing`, `not-found`, `grant-over`, `version-conflict`.
        """
        need_reason(command)
        async with self._pool.acquire() as conn:
            if (answer := await replayed(conn, idem, command.at)) is not None:
                return answer
            grant = await grants.find(conn, grant_id)
        if grant is None or not assigning.within(grant.reach, command.caller):
            raise not_found("grant", grant_id)
        if grant.revoked is not None:
            raise Refusal("grant-over", f"it was taken back by {grant.revoked_by}")
        by, at = command.caller.person, command.at
        after = msgspec.structs.replace(grant, version=grant.version + 1, revoked=at, revoked_by=by)
        view = grant_view(after, at)
        answer = Answer(200, msgspec.json.encode(view))
        before = grant_view(grant, at)
        audit_id = self._ids.new("AU")
        unit = Unit(
            (
                answered_claim(idem, grant.id, command, answer),
                grants.taken(grant, by, at),
                audited(command, "role.revoke", grant.id, audit_id, before=before, after=view),
            )
        )
        if isinstance(await self._lane.submit(unit), Done):
            return answer
        async with self._pool.acquire() as conn:
            if (stored := await replayed(conn, idem, self._now())) is not None:
                return stored
        raise Refusal("version-conflict", "it changed while this command was under way")

    def _audited(self, command: Command, name: str, subject: str, after: object) -> Change:
        return audited(command, name, subject, self._ids.new("AU"), after=after)


def _require_wish(
    rules: Compiled, command: Command, order: NewGrant, kind: grants.PersonKind | None
) -> None:
    """Refuse a role, a place, a person or a time that cannot be meant."""
    if order.role not in rules.access.roles:
        raise _no_role(order.role)
    known = {entity.id for entity in rules.book.entities} | {"*"}
    if not order.reach.entities <= known or not assigning.within(order.reach, command.caller):
        raise Refusal("entity-unknown", "no such entity is known to you")
    if kind is not None and kind != grants.kind_of(order.role):
        raise Refusal("role-kind", f"{order.person} is a {kind}, {order.role} is not for those")
    if order.person in (command.caller.person, command.on_behalf_of):
        raise _own_role()
    begins = order.valid_from or command.at
    if begins < command.at or (order.valid_until is not None and order.valid_until <= begins):
        raise Refusal("grant-time", "a role begins now or later, and ends after that")


def _require_holdable(
    rules: Compiled, held: Sequence[Grant], command: Command, order: NewGrant
) -> tuple[Conflict, ...]:
    """The conflicts that an exception is asked for; refuses others."""
    begins = order.valid_from or command.at
    roles, until = rules.access.roles, order.valid_until
    found = assigning.conflicts(roles, held, order.role, begins, until)
    if found and not order.exception:
        raise assigning.conflict_refusal(order.person, order.role, found)
    if found and (until is None or until - begins > assigning.EXCEPTION_MAX):
        days = assigning.EXCEPTION_MAX.days
        raise Refusal("exception-time", f"an exception says when it ends, within {days} days")
    return found


def _no_role(role: str) -> Refusal:
    return Refusal("role-unknown", f"the rulebook has no role {role!r}")


def _own_role() -> Refusal:
    return Refusal("own-role", "nobody asks for a role of their own, nor agrees to one")
