"""Break-glass: asked for by whoever needs it, granted by another person, over by itself.

Knows how an emergency becomes a question, a grant for minutes, and an item for its review. Refuses
to give what may not be in one hand: an emergency excepts nobody from duties.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import asyncpg
import msgspec

from config.log import event
from gateway.control import assigning, audit, glass, grants, items
from gateway.control.access import NONE, Caller, Held, Reach
from gateway.control.acts import Deed
from gateway.control.approvals import Approval, need_reason
from gateway.control.audit import Command, audited
from gateway.control.glass import BreakGlass
from gateway.control.grants import Grant
from gateway.control.idempotency import Answer, Idem
from gateway.control.policies import Matter
from gateway.control.refusals import Refusal
from gateway.control.rules import Rules
from gateway.flows.approving import Applier, InTransaction, replayed
from gateway.flows.asking import Asking, making
from gateway.flows.faults import away
from ledger.ids import Ids
from ledger.units import Change

log = logging.getLogger("gateway.glass")

KIND: Final = "break-glass.grant"
LOOK_S: Final = 5.0
AT_ONCE_MAX: Final = 100
_NOTHING: Final = Held("", "clock", NONE, Reach(entities=NONE))
CLOCK: Final = Caller(key_id="", person="clock", owner="clock", grants=(_NOTHING,))


class Wished(msgspec.Struct, frozen=True):
    """What a question about an emergency keeps until it is decided."""

    grant_id: str
    person: str
    role: str
    reach: Reach
    minutes: int


def _using(approval: Approval) -> Sequence[Deed]:
    """Whoever asks is taken to use what they get: they do not review it."""
    grant = approval.subject
    return [*making(approval), Deed("break-glass.use", grant, grant)]


class Glass:
    """Has the glass broken, and mended again. now: the wall clock, UTC."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        rules: Rules,
        asking: Asking,
        ids: Ids,
        now: Callable[[], datetime],
    ) -> None:
        self._pool = pool
        self._rules = rules
        self._asking = asking
        self._ids = ids
        self._now = now

    @property
    def appliers(self) -> dict[str, Applier]:
        """What this flow applies when a question of its kind is agreed to."""
        return {KIND: InTransaction(self.give)}

    async def ask(self, command: Command, order: BreakGlass, idem: Idem) -> Answer:
        """Ask for a role for oneself, for minutes. 202 with the approval.

        Raises Refusal `reason-missing`, `role-unknown`, `role-kind`, `entity-unknown`,
        `roles-conflict`, and those of `Asking.ask`.
        """
        need_reason(command)
        rules = self._rules.require()
        person = command.caller.person
        async with self._pool.acquire() as conn:
            if (answer := await replayed(conn, idem, command.at)) is not None:
                return answer
            held = await grants.of_person(conn, person)
        if order.role not in rules.access.roles:
            raise Refusal("role-unknown", f"the rulebook has no role {order.role!r}")
        if grants.kind_of(order.role) != "human":
            raise Refusal("role-kind", f"{order.role} is not for people")
        known = {entity.id for entity in rules.book.entities} | {"*"}
        if not order.reach.entities <= known:
            raise Refusal("entity-unknown", "no such entity is known to you")
        until = command.at + timedelta(minutes=order.minutes)
        roles = rules.access.roles
        if found := assigning.conflicts(roles, held, order.role, command.at, until):
            raise assigning.conflict_refusal(person, order.role, found)
        wished = Wished(self._ids.new("GR"), person, order.role, order.reach, order.minutes)
        matter = Matter(
            kind=KIND, subject=wished.grant_id, payload=wished,
            entity=assigning.only_entity(order.reach),
        )  # fmt: skip

        def also(approval: Approval) -> tuple[Change, ...]:
            after = {"approval": approval.id, "wished": wished}
            return (self._audited(command, KIND, wished.grant_id, after),)

        return await self._asking.ask(command, matter, idem, also, _using)

    async def give(self, conn: asyncpg.Connection, approval: Approval, command: Command) -> None:
        """The effect: a grant for minutes from now, and an item that asks for its review.

        Raises Refusal `role-unknown`, `roles-conflict` where something changed meanwhile.
        """
        rules = self._rules.require()
        wished = msgspec.json.decode(approval.payload, type=Wished)
        if wished.role not in rules.access.roles:
            raise Refusal("role-unknown", f"the rulebook has no role {wished.role!r}")
        since, until = command.at, command.at + timedelta(minutes=wished.minutes)
        await assigning.hold_person(conn, wished.person)
        held = await grants.of_person(conn, wished.person)
        if found := assigning.conflicts(rules.access.roles, held, wished.role, since, until):
            raise assigning.conflict_refusal(wished.person, wished.role, found)
        grant = Grant(
            id=wished.grant_id, person=wished.person, role=wished.role, reach=wished.reach,
            valid_from=since, valid_until=until, approval=approval.id, created=since,
            created_by=approval.maker,
        )  # fmt: skip
        item = self._ids.new("IT")
        asks = f"{wished.person} was {wished.role} until {until:%H:%M} UTC: {approval.reason}"
        after = {"person": wished.person, "role": wished.role, "until": until, "item": item}
        audit_id = self._ids.new("AU")
        changes = [
            grants.person_known(wished.person, "human", since, approval.maker),
            grants.given(grant),
            glass.given(
                grant.id, approval.id, wished.person, since, until, approval.reason, item
            ),
            items.item_opened(
                item, glass.REVIEW, glass.TEAM, grant.id, asks, since,
                correlation=approval.correlation,
            ),
            audited(command, KIND, grant.id, audit_id, after=after, approvals=[approval.id]),
        ]  # fmt: skip
        await audit.write(conn, changes)

    async def run(self) -> None:
        """End what is over, until cancelled; a grant past its time allows nothing anyway."""
        while True:
            try:
                await self.sweep()
            except Exception as error:
                if not away(error):
                    raise
                event(log, "glass.database_away", why=repr(error))
            await asyncio.sleep(LOOK_S)

    async def sweep(self) -> int:
        """Take back what is over, each once on whichever replica; returns how many."""
        now = self._now()
        async with self._pool.acquire() as conn, conn.transaction():
            ended = await glass.over(conn, now, AT_ONCE_MAX)
            for grant_id, person, approval in ended:
                command = Command(CLOCK, "its time passed", self._ids.new("CR"), now)
                row = audited(
                    command, "break-glass.end", grant_id, self._ids.new("AU"),
                    after={"person": person}, approvals=[approval],
                )  # fmt: skip
                await audit.write(conn, [row])
        return len(ended)

    def _audited(self, command: Command, name: str, subject: str, after: object) -> Change:
        return audited(command, name, subject, self._ids.new("AU"), after=after)
