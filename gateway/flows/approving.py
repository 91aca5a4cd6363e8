"""The decision on a question: vote, effect, event and audit in one transaction, so it applies once.

Knows how a decision or a withdrawal becomes a unit, or the transaction of an effect that needs one.
Refuses to know what is decided: whoever asks such questions gives an applier for their kind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

import asyncpg
import msgspec

from gateway.control import acts, approvals, delegations, idempotency, items
from gateway.control.acts import Deed
from gateway.control.approvals import Approval, Decision, Verdict, Voter
from gateway.control.audit import Command, Concerns, audited
from gateway.control.glass import REVIEW
from gateway.control.idempotency import Abandoned, Answer, Idem
from gateway.control.items import Item
from gateway.control.policies import KINDS
from gateway.control.refusals import Refusal, not_found
from gateway.control.rulebook import RULEBOOK
from gateway.control.rules import Rules
from gateway.control.views import Decide, ResolveItem, approval_view, item_view
from gateway.flows.transacting import hold, store
from ledger.ids import Ids, is_id
from ledger.units import Change, Done, Left, Unit, Why

TRIES_MAX: Final = 6  # one more than people can be needed: each may decide just before us
ANSWERING: Final = timedelta(seconds=30)  # these commands finish their key in the claiming unit


class Lane(Protocol):
    """Where units of work are handed in."""

    def submit(self, unit: Unit) -> Awaitable[Done | Left]:
        """Commit the unit, or leave it out and say why."""


# subscriber, event type, object id, JSON, correlation
Emit = Callable[[str, str, str, bytes, str], Change]


Deeds = Callable[[Approval], Sequence[Deed]]


def agreeing(approval: Approval) -> Sequence[Deed]:
    """What deciding a question is: its kind's act on the subject, and on whom else it concerns."""
    action = KINDS[approval.kind].agrees
    return [Deed(action, it, approval.id) for it in (approval.subject, *approval.about)]


class InUnit(msgspec.Struct, frozen=True):
    """An effect that can be said beforehand: its changes ride in the unit of the last vote.

    changes  reads what it needs and says what changes; raises Refusal when it can no longer be
    deeds    what deciding it is, in the words of duties
    """

    changes: Callable[[asyncpg.Connection, Approval, Command], Awaitable[Sequence[Change]]]
    deeds: Deeds = agreeing


class InTransaction(msgspec.Struct, frozen=True):
    """An effect that reads and writes as it goes, in the transaction of the last vote.

    run  writes on this connection, after the question is locked; raises Refusal to undo it all. It
         calls no peer: what must be told outside is an outbox row
    deeds    what deciding it is, in the words of duties
    """

    run: Callable[[asyncpg.Connection, Approval, Command], Awaitable[None]]
    deeds: Deeds = agreeing


# What happens when a question is agreed to, by its kind. Exactly one applier a kind.
Applier = InUnit | InTransaction


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


class Decided(msgspec.Struct, frozen=True):
    """A decision that counts, before it is stored.

    command  of whoever decided, on behalf of whose right it was lent
    done     the acts that it is
    """

    approval: Approval
    voter: Voter
    verdict: Verdict
    decision: Decision
    command: Command
    done: tuple[Change, ...]

    @property
    def applies(self) -> bool:
        """Whether the effect happens with it."""
        return self.verdict.applies


def _closes(item: Item) -> Deed:
    """Closing an item is a decision on its subject; some are a review of what others did."""
    if item.kind == REVIEW:
        return Deed("break-glass.review", item.subject, item.subject)
    return Deed("item.resolve", item.subject, item.id)


def _again(left: Left) -> bool:
    """Whether a decision is to be counted anew: others decided, or this person did something."""
    return acts.overtaken(left) or (left.why is Why.STALE and left.kind == approvals.MOVE.name)


class Approving:
    """Decides questions and closes items: what people do by themselves."""

    def __init__(
        self,
        lane: Lane,
        pool: asyncpg.Pool,
        rules: Rules,
        ids: Ids,
        emit: Emit,
        appliers: Mapping[str, Applier],
        now: Callable[[], datetime],
    ) -> None:
        self._lane = lane
        self._pool = pool
        self._rules = rules
        self._ids = ids
        self._emit = emit
        self._appliers = appliers
        self._now = now

    async def decide(self, command: Command, approval_id: str, order: Decide, idem: Idem) -> Answer:
        """Count this person's decision; with the last needed vote the effect happens too.

        Raises Refusal: those of `approvals.decide`, `reason-missing`, `not-found`, what the applier
        refuses, and `version-conflict` when others kept deciding meanwhile.
        """
        approvals.need_reason(command)
        for _ in range(TRIES_MAX):
            async with self._pool.acquire() as conn:
                if (answer := await replayed(conn, idem, command.at)) is not None:
                    return answer
                decided = await self._decided(conn, command, approval_id, order)
            answer, changes = self._unit(decided, idem)
            left = await self._settled(decided, changes)
            if isinstance(left, Done):
                return answer
            if not _again(left):
                return await self.other_answer(left, idem, command)
        raise Refusal("version-conflict", "others kept deciding while this command was under way")

    async def withdraw(self, command: Command, approval_id: str, idem: Idem) -> Answer:
        """Take one's own question back. Raises Refusal: those of `approvals.withdraw`, `not-found`,
        `reason-missing`, and `version-conflict` when it was decided meanwhile.
        """
        approvals.need_reason(command)
        async with self._pool.acquire() as conn:
            if (answer := await replayed(conn, idem, command.at)) is not None:
                return answer
            approval = await approvals.find(conn, approval_id)
        if approval is None or not command.caller.reaches(approval.tags):
            raise not_found("approval", approval_id)
        try:
            verdict = approvals.withdraw(approval, command.caller.person, command.at)
        except Refusal as no:
            await self._tried(command, "approval.withdraw", approval, {"refused": no.code})
            raise
        after = approvals.after(approval, verdict, command.at)
        answer = Answer(200, msgspec.json.encode(approval_view(after, command.at)))
        trace = {"state": verdict.state, "kind": approval.kind, "about": approval.subject}
        changes = (
            answered_claim(idem, approval.id, command, answer),
            *approvals.approval_moved(approval, verdict, command, "withdrawn"),
            self._audited(command, "approval.withdraw", approval, trace),
            self._told(approval, "approval.withdrawn", answer.body, command),
        )
        return await self._submit(Unit(changes), idem, command, answer)

    async def resolve(
        self, command: Command, item_id: str, order: ResolveItem, idem: Idem
    ) -> Answer:
        """Close an item with a reason. Raises Refusal `not-found`, `already-resolved`."""
        async with self._pool.acquire() as conn:
            if (answer := await replayed(conn, idem, command.at)) is not None:
                return answer
            item = await items.find(conn, command.caller, item_id)
        if item is None:
            raise not_found("item", item_id)
        if item.state != "open":
            raise Refusal("already-resolved", f"it was resolved by {item.resolved_by}")
        done = await self._closing(command, item)
        after = msgspec.structs.replace(
            item, version=item.version + 1, state="resolved", resolved=command.at,
            resolved_by=command.caller.person, resolution=order.reason,
        )  # fmt: skip
        answer = Answer(200, msgspec.json.encode(item_view(after)))
        unit = Unit(
            (
                answered_claim(idem, item.id, command, answer),
                *items.item_resolved(item, order.reason, command.caller.person, command.at),
                *done,
                audited(
                    command,
                    "item.resolve",
                    item.id,
                    self._ids.new("AU"),
                    before=item_view(item),
                    concerns=_concerning(item.entity, item.subject),
                ),
            )
        )
        return await self._submit(unit, idem, command, answer)

    async def _closing(self, command: Command, item: Item) -> Sequence[Change]:
        """Closing an item decides on its subject; a refusal is audited."""
        try:
            async with self._pool.acquire() as conn:
                return await acts.acted(conn, command, _closes(item))
        except Refusal as no:
            tried = {"refused": no.code, **no.facts}
            audit_id = self._ids.new("AU")
            about = _concerning(item.entity, item.subject)
            row = audited(command, "item.resolve", item.id, audit_id, after=tried, concerns=about)
            await self._lane.submit(Unit((row,)))
            raise

    async def _decided(
        self, conn: asyncpg.Connection, command: Command, approval_id: str, order: Decide
    ) -> Decided:
        """The decision counted; a person who may not decide is refused and the attempt audited."""
        approval = await approvals.find(conn, approval_id)
        if approval is None:
            raise not_found("approval", approval_id)
        access = self._rules.require().access
        voter = await delegations.voter(conn, access, command.caller, approval, command.at)
        if voter is None and not command.caller.reaches(approval.tags):
            raise not_found("approval", approval_id)
        deeds = self._appliers[approval.kind].deeds(approval)
        try:
            verdict = approvals.decide(approval, voter, order.decision, command.at)
            assert voter is not None, "decide refuses who has no right"
            giver = voter.authority if voter.delegation else ""
            done = await acts.acted(conn, command, *deeds, approval=approval.id, giver=giver)
        except Refusal as no:
            await self._refused(command, approval, order.decision, no)
            raise
        if giver:
            command = msgspec.structs.replace(command, on_behalf_of=giver)
        return Decided(approval, voter, verdict, order.decision, command, done)

    def _unit(self, decided: Decided, idem: Idem) -> tuple[Answer, tuple[Change, ...]]:
        """The answer and the unit of a decision, without its effect."""
        approval, verdict, command = decided.approval, decided.verdict, decided.command
        after = approvals.after(approval, verdict, command.at)
        answer = Answer(200, msgspec.json.encode(approval_view(after, command.at)))
        event = "agreed" if decided.decision == "approve" else "refused"
        trace = {
            "decision": decided.decision, "state": verdict.state, "kind": approval.kind,
            "about": approval.subject, "maker": approval.maker, "votes": verdict.votes,
        }  # fmt: skip
        return answer, (
            approvals.in_time(approval),
            *delegations.holds(decided.voter),
            answered_claim(idem, approval.id, command, answer),
            *approvals.approval_moved(approval, verdict, command, event, decided.voter),
            *decided.done,
            self._audited(command, "approval.decide", approval, trace),
            self._told(approval, "approval.decided", answer.body, command),
        )

    async def _settled(self, decided: Decided, changes: tuple[Change, ...]) -> Done | Left:
        """Store the decision, with its effect if it is the last; what that refuses is audited."""
        effect = self._appliers[decided.approval.kind]
        try:
            if decided.applies and isinstance(effect, InTransaction):
                return await self._alone(decided, effect, changes)
            if decided.applies and isinstance(effect, InUnit):
                async with self._pool.acquire() as conn:
                    done = await effect.changes(conn, decided.approval, decided.command)
                changes += tuple(done)
        except Refusal as no:
            await self._refused(decided.command, decided.approval, decided.decision, no)
            raise
        return await self._lane.submit(Unit(changes))

    async def _alone(
        self, decided: Decided, effect: InTransaction, changes: Sequence[Change]
    ) -> Done | Left:
        """The last vote and its effect in one transaction: all of it, or nothing."""
        async with self._pool.acquire() as conn:
            transaction = conn.transaction()
            await transaction.start()
            try:
                left = await hold(conn, changes)
                if left is None:
                    await effect.run(conn, decided.approval, decided.command)
                    left = await store(conn, changes)
            except BaseException:
                await transaction.rollback()
                raise
            if left is not None:
                await transaction.rollback()
                return left
            await transaction.commit()
            return Done((), None)

    async def _refused(
        self, command: Command, approval: Approval, decision: Decision, no: Refusal
    ) -> None:
        """Leave the trace of a decision that is refused, and of which conflict of duties."""
        facts = {"conflict": str(no.facts["conflict"])} if "conflict" in no.facts else {}
        tried = {"decision": decision, "refused": no.code, **facts}
        await self._tried(command, "approval.decide", approval, tried)

    async def _tried(
        self, command: Command, name: str, approval: Approval, tried: Mapping[str, str]
    ) -> None:
        """Leave the trace of an attempt that is refused."""
        await self._lane.submit(Unit((self._audited(command, name, approval, tried),)))

    def _audited(self, command: Command, name: str, approval: Approval, after: object) -> Change:
        return audited(
            command, name, approval.id, self._ids.new("AU"), after=after,
            concerns=_concerning(approval.entity, approval.subject), approvals=(approval.id,),
        )  # fmt: skip

    def _told(self, approval: Approval, kind: str, body: bytes, command: Command) -> Change:
        """The event for the system that asked."""
        return self._emit(approval.maker_owner, kind, approval.id, body, command.correlation)

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
        if left.kind == approvals.IN_TIME.name:
            raise Refusal("approval-expired", "its time passed while this command was under way")
        if left.kind == RULEBOOK.name:
            raise Refusal("rulebook-moved", "another rulebook came into force meanwhile")
        if left.kind == delegations.HOLDS.name:
            raise Refusal("forbidden", "the right was taken back while this was under way")
        if left.why in (Why.STALE, Why.CHECK):
            raise Refusal("version-conflict", "it changed while this command was under way")
        raise Refusal("conflict", f"left out: {left.why.value} {left.kind}")


def _concerning(entity: str, subject: str) -> Concerns:
    """What an act is about whose object is known by its entity and its subject's id alone."""
    return Concerns(entity, client=subject if is_id(subject, "CL") else "")
