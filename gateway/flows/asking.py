"""Asking other people: how a maker's command becomes an open question, or finds one in its way.

Knows the policy that decides for a matter, one open question a subject, and the unit of a question.
Refuses to know what is asked: whoever asks hands in the matter, and what else goes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import asyncpg
import msgspec

from gateway.control import acts, approvals
from gateway.control.acts import Deed
from gateway.control.approvals import Approval, Verdict
from gateway.control.audit import Command, audited
from gateway.control.idempotency import Answer, Idem
from gateway.control.policies import KINDS, Matter
from gateway.control.refusals import Refusal
from gateway.control.rules import Rules
from gateway.control.views import approval_view
from gateway.flows.approving import Deeds, Emit, Lane, answered_claim, replayed
from ledger.ids import Ids
from ledger.units import Change, Done, Left, Unit, Why

TRIES_MAX: Final = 5  # rules move, a person does two things at once, an expired question makes way

With = Callable[[Approval], Sequence[Change]]


def making(approval: Approval) -> Sequence[Deed]:
    """What asking is: its kind's act on the subject, and on whom else it concerns."""
    action = KINDS[approval.kind].asks
    return [Deed(action, it, approval.id) for it in (approval.subject, *approval.about)]


class Asking:
    """Asks questions. One value serves every room that asks.

    rules  whose policies decide; a question refused because they moved is asked by the new ones
    """

    def __init__(
        self,
        lane: Lane,
        pool: asyncpg.Pool,
        rules: Rules,
        ids: Ids,
        emit: Emit,
        now: Callable[[], datetime],
    ) -> None:
        self._lane = lane
        self._pool = pool
        self._rules = rules
        self._ids = ids
        self._emit = emit
        self._now = now

    async def ask(
        self, command: Command, matter: Matter, idem: Idem, also: With, deeds: Deeds = making
    ) -> Answer:
        """Store the question and answer 202 with it and its Location.

        also   what goes with it in its unit: at least the audit row of the asking command, and a
               check that the subject is still what the maker saw
        deeds  what asking it is, in the words of duties
        Raises Refusal `reason-missing`, `approval-open`, `duty-conflict`, `rulebook-moved`,
        `version-conflict`.
        """
        for _ in range(TRIES_MAX):
            rules = self._rules.require()
            policy = rules.policies.of(matter)
            approval = approvals.asked(self._ids.new("AP"), command, policy, matter)
            done = await self._judged(command, approval, deeds(approval))
            answer, changes = self._question(approval, command, idem)
            left = await self._lane.submit(Unit((rules.check, *changes, *done, *also(approval))))
            if isinstance(left, Done):
                return answer
            if acts.overtaken(left) or await self._rules.again(left, rules):
                continue
            if left.why is not Why.CLAIMED or left.kind != approvals.ASK.name:
                return await self._other_answer(left, idem)
            await self._make_way(left, command)
        raise Refusal("conflict", "another question about this was asked meanwhile")

    async def _judged(
        self, command: Command, approval: Approval, deeds: Sequence[Deed]
    ) -> Sequence[Change]:
        """The acts that asking is; a person who may not ask is refused and the attempt audited.

        The command has the name of the kind.
        """
        try:
            async with self._pool.acquire() as conn:
                return await acts.acted(conn, command, *deeds, approval=approval.id)
        except Refusal as no:
            tried = {"refused": no.code, **no.facts}
            audit_id = self._ids.new("AU")
            row = audited(command, approval.kind, approval.subject, audit_id, after=tried)
            await self._lane.submit(Unit((row,)))
            raise

    def _question(
        self, approval: Approval, command: Command, idem: Idem
    ) -> tuple[Answer, tuple[Change, ...]]:
        body = msgspec.json.encode(approval_view(approval, command.at))
        answer = Answer(202, body, f"/v1/approvals/{approval.id}")
        return answer, (
            answered_claim(idem, approval.id, command, answer),
            *approvals.approval_asked(approval),
            self._emit(
                approval.maker_owner, "approval.asked", approval.id, body, command.correlation
            ),
        )

    async def _make_way(self, left: Left, command: Command) -> None:
        """Close the open question in our way when its time has passed, else refuse."""
        held_id = str((left.found or {}).get("id", ""))
        async with self._pool.acquire() as conn:
            held = await approvals.find(conn, held_id)
        if held is None or held.state != "open":
            return  # it was decided a moment ago: ask again
        if held.expires > command.at:
            said = "there is an open question about this already"
            raise Refusal("approval-open", said, {"approval": held.id})
        await self._lane.submit(expired(held, command, self._emit))

    async def _other_answer(self, left: Left, idem: Idem) -> Answer:
        async with self._pool.acquire() as conn:
            if (answer := await replayed(conn, idem, self._now())) is not None:
                return answer
        raise Refusal("version-conflict", "the object changed while this command was under way")


def expired(approval: Approval, command: Command, emit: Emit) -> Unit:
    """The end of a question whose time has passed; its maker's system is told.

    command  of whoever noticed
    """
    verdict = Verdict("expired", approval.votes, approval.authorities)
    told = approval_view(approvals.after(approval, verdict, command.at), command.at)
    return Unit(
        (
            *approvals.approval_moved(approval, verdict, command, "expired"),
            emit(
                approval.maker_owner, "approval.expired", approval.id, msgspec.json.encode(told),
                approval.correlation,
            ),
        )
    )  # fmt: skip
