"""The decision on a question: vote, effect, event and audit in one unit, so it applies once.

Knows how a decision becomes a unit. Refuses to know what is decided: whoever asks such questions
gives an applier for their kind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

import asyncpg
import msgspec

from gateway.control import approvals, idempotency, items
from gateway.control.approvals import Approval, Verdict
from gateway.control.audit import Command, audited
from gateway.control.idempotency import Abandoned, Answer, Idem
from gateway.control.refusals import Refusal, not_found
from gateway.control.views import Decide, ResolveItem, approval_view, item_view
from ledger.ids import Ids
from ledger.units import Change, Done, Left, Unit, Why

ANSWERING: Final = timedelta(seconds=30)  # these commands finish their key in the claiming unit


class Lane(Protocol):
    """Where units of work are handed in."""

    def submit(self, unit: Unit) -> Awaitable[Done | Left]:
        """Commit the unit, or leave it out and say why."""


# subscriber, event type, object id, JSON, correlation
Emit = Callable[[str, str, str, bytes, str], Change]
Applier = Callable[[asyncpg.Connection, Approval, Command], Awaitable[Sequence[Change]]]


async def replayed(conn: asyncpg.Connection, idem: Idem, now: datetime) -> Answer | None:
    """The stored answer when this key was used before; None when it is free."""
    held = await idempotency.find(conn, idem)
    if held is None:
        return None
    answer = idempotency.replay_or_refuse(idem, held, now)
    assert not isinstance(answer, Abandoned), "these commands store their answer with the claim"
    return answer


def answered_claim(idem: Idem, subject: str, command: Command, answer: Answer) -> Change:
    """Claim the key together with its final answer: nobody ever sees such a key in flight."""
    until = command.at + ANSWERING
    return idempotency.claimed(idem, subject, answer.location, command.at, until, answer)


class Approving:
    """Decides questions and closes items: what people do by themselves."""

    def __init__(
        self,
        lane: Lane,
        pool: asyncpg.Pool,
        ids: Ids,
        emit: Emit,
        appliers: Mapping[str, Applier],
        now: Callable[[], datetime],
    ) -> None:
        self._lane = lane
        self._pool = pool
        self._ids = ids
        self._emit = emit
        self._appliers = appliers
        self._now = now

    async def decide(self, command: Command, approval_id: str, order: Decide, idem: Idem) -> Answer:
        """Count this person's decision; with the last needed vote the effect happens too.

        Raises Refusal: those of `approvals.decide`, `not-found`, `approval-stale`, and
        `version-conflict` when somebody else decided meanwhile.
        """
        async with self._pool.acquire() as conn:
            if (answer := await replayed(conn, idem, command.at)) is not None:
                return answer
            approval = await approvals.find(conn, approval_id)
            if approval is None or not command.caller.reaches(approval.entity):
                raise not_found("approval", approval_id)
            verdict = await self._verdict(command, approval, order)
            effect: Sequence[Change] = ()
            if verdict.applies:
                effect = await self._appliers[approval.kind](conn, approval, command)
        return await self._store(command, approval, verdict, order, effect, idem)

    async def resolve(
        self, command: Command, item_id: str, order: ResolveItem, idem: Idem
    ) -> Answer:
        """Close an item with a reason. Raises Refusal `not-found`, `already-resolved`."""
        async with self._pool.acquire() as conn:
            if (answer := await replayed(conn, idem, command.at)) is not None:
                return answer
            item = await items.find(conn, item_id)
        if item is None or not items.within(item, command.caller):
            raise not_found("item", item_id)
        if item.state != "open":
            raise Refusal("already-resolved", f"it was resolved by {item.resolved_by}")
        after = msgspec.structs.replace(
            item, version=item.version + 1, state="resolved", resolved=command.at,
            resolved_by=command.caller.person, resolution=order.reason,
        )  # fmt: skip
        answer = Answer(200, msgspec.json.encode(item_view(after)))
        unit = Unit(
            (
                answered_claim(idem, item.id, command, answer),
                *items.item_resolved(item, order.reason, command.caller.person, command.at),
                audited(
                    command, "item.resolve", item.id, self._ids.new("AU"), before=item_view(item)
                ),
            )
        )
        return await self._submit(unit, idem, command, answer)

    async def _verdict(self, command: Command, approval: Approval, order: Decide) -> Verdict:
        """The decision counted; a person who may not decide is refused and the attempt audited."""
        try:
            return approvals.decide(approval, command.caller, order.decision, command.at)
        except Refusal as no:
            tried = {"decision": order.decision, "refused": no.code}
            row = audited(command, "approval.decide", approval.id, self._ids.new("AU"), after=tried)
            await self._lane.submit(Unit((row,)))
            raise

    async def _store(
        self,
        command: Command,
        approval: Approval,
        verdict: Verdict,
        order: Decide,
        effect: Sequence[Change],
        idem: Idem,
    ) -> Answer:
        decided = None if verdict.state == "open" else command.at
        after = msgspec.structs.replace(
            approval, version=approval.version + 1, state=verdict.state, votes=verdict.votes,
            decided=decided,
        )  # fmt: skip
        body = msgspec.json.encode(approval_view(after, command.at))
        answer = Answer(200, body)
        event = "agreed" if order.decision == "approve" else "refused"
        trace = {"decision": order.decision, "state": verdict.state, "maker": approval.maker}
        unit = Unit(
            (
                answered_claim(idem, approval.id, command, answer),
                *approvals.approval_moved(approval, verdict, command, event),
                *effect,
                audited(command, "approval.decide", approval.id, self._ids.new("AU"), after=trace),
                self._emit(
                    approval.maker_owner,
                    "approval.decided",
                    approval.id,
                    body,
                    command.correlation,
                ),
            )
        )
        return await self._submit(unit, idem, command, answer)

    async def _submit(self, unit: Unit, idem: Idem, command: Command, answer: Answer) -> Answer:
        left = await self._lane.submit(unit)
        if isinstance(left, Done):
            return answer
        return await self.other_answer(left, idem, command)

    async def other_answer(self, left: Left, idem: Idem, command: Command) -> Answer:
        """What a unit that was left out means to its caller: a replay, or a Refusal."""
        async with self._pool.acquire() as conn:
            if (answer := await replayed(conn, idem, self._now())) is not None:
                return answer
        if left.why in (Why.STALE, Why.CHECK):
            raise Refusal("version-conflict", "it changed while this command was under way")
        raise Refusal("conflict", f"left out: {left.why.value} {left.kind}")
