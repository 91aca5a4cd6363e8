"""Approvals: one person asks, others agree, and what was asked is applied once.

Knows makers, checkers, votes and expiry. Refuses to know what is being approved: the flow that
asked keeps the effect in the payload and applies it in the unit of the last vote.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from config.rulebook import ApprovalPolicy
from gateway.control import queries as q
from gateway.control.access import Caller
from gateway.control.audit import Command
from gateway.control.refusals import Refusal
from ledger.units import Change, Kind, Step

if TYPE_CHECKING:
    import asyncpg

ASK: Final = Kind("gateway.approval.ask", Step.CLAIM, q.CLAIM_APPROVAL, q.LOOK_APPROVAL)
MOVE: Final = Kind("gateway.approval.move", Step.MOVE, q.MOVE_APPROVAL, q.LOCK_APPROVAL)
EVENT: Final = Kind("gateway.approval_event.insert", Step.INSERT, q.INSERT_APPROVAL_EVENT)

Decision = Literal["approve", "refuse"]


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """A question to other people.

    subject  the object the effect will change
    needed   how many different people must agree; `votes` are those who did
    policy   the rulebook (its hash) whose policy set `needed` and `expires`
    payload  what will be applied; its shape belongs to the kind
    """

    id: str
    version: int
    kind: str
    subject: str
    entity: str
    state: str
    maker: str
    maker_role: str
    maker_owner: str
    needed: int
    votes: tuple[str, ...]
    policy: str
    payload: msgspec.Raw
    reason: str
    correlation: str
    created: datetime
    expires: datetime
    decided: datetime | None

    def state_at(self, now: datetime) -> str:
        """The state as people should see it: an open question past its time has expired."""
        return "expired" if self.state == "open" and self.expires <= now else self.state


class Verdict(msgspec.Struct, frozen=True):
    """What one decision makes of an approval."""

    state: str
    votes: tuple[str, ...]

    @property
    def applies(self) -> bool:
        """Whether the effect happens in this very unit."""
        return self.state == "approved"


def asked(
    approval_id: str,
    command: Command,
    policy: ApprovalPolicy,
    rulebook: str,
    *,
    subject: str,
    entity: str,
    payload: object,
    expires: datetime,
) -> Approval:
    """The question a maker's command becomes."""
    caller = command.caller
    return Approval(
        id=approval_id,
        version=1,
        kind=policy.kind,
        subject=subject,
        entity=entity,
        state="open",
        maker=caller.person,
        maker_role=caller.role,
        maker_owner=caller.owner,
        needed=policy.needed,
        votes=(),
        policy=rulebook,
        payload=msgspec.Raw(msgspec.json.encode(payload)),
        reason=command.reason,
        correlation=command.correlation,
        created=command.at,
        expires=expires,
        decided=None,
    )


def decide(approval: Approval, caller: Caller, decision: Decision, now: datetime) -> Verdict:
    """What this person's decision makes of the question. Pure; raises Refusal.

    Codes in the order they are asked: `forbidden`, `same-person`, `already-decided`,
    `approval-expired`, `already-voted`.
    """
    if approval.kind not in caller.approves:
        raise Refusal("forbidden", f"this role does not decide {approval.kind}")
    if caller.person == approval.maker:
        raise Refusal("same-person", "whoever asked may not decide")
    if approval.state != "open":
        raise Refusal("already-decided", f"it is {approval.state}", {"state": approval.state})
    if approval.expires <= now:
        raise Refusal("approval-expired", f"it expired at {approval.expires.isoformat()}")
    if caller.person in approval.votes:
        raise Refusal("already-voted", "this person has agreed already")
    if decision == "refuse":
        return Verdict("refused", approval.votes)
    votes = (*approval.votes, caller.person)
    return Verdict("approved" if len(votes) >= approval.needed else "open", votes)


# --- changes ------------------------------------------------------------------------------------


def approval_asked(approval: Approval) -> tuple[Change, ...]:
    """Store the question; the claim is lost while another of its kind and subject is open."""
    row = (
        f"{approval.kind}:{approval.subject}", approval.id, approval.kind, approval.subject,
        approval.entity, approval.maker, approval.maker_role, approval.maker_owner,
        approval.needed, approval.policy, bytes(approval.payload).decode(), approval.reason,
        approval.correlation, approval.created, approval.expires,
    )  # fmt: skip
    cause = {"reason": approval.reason}
    event = _event(approval.id, 1, "", "open", "asked", cause, approval.maker, approval.created)
    return Change(ASK, row), event


def approval_moved(
    approval: Approval, verdict: Verdict, command: Command, event: str
) -> tuple[Change, ...]:
    """Move the question by the version that was read; `event` is `agreed`, `refused`, `expired`."""
    decided = None if verdict.state == "open" else command.at
    row = (approval.id, approval.version, verdict.state, ",".join(verdict.votes), decided)
    cause = {"reason": command.reason, "correlation": command.correlation}
    person, version = command.caller.person, approval.version + 1
    return Change(MOVE, row), _event(
        approval.id, version, approval.state, verdict.state, event, cause, person, command.at
    )


def _event(
    object_id: str,
    version: int,
    before: str,
    after: str,
    event: str,
    cause: object,
    actor: str,
    at: datetime,
) -> Change:
    encoded = msgspec.json.encode(cause).decode()
    return Change(EVENT, (object_id, version, before, after, event, encoded, actor, at))


# --- reads --------------------------------------------------------------------------------------


async def find(conn: asyncpg.Connection, id: str) -> Approval | None:
    """The approval of this id."""
    row = await conn.fetchrow(q.SELECT_APPROVAL, id)
    return None if row is None else _approval(dict(row))


async def page(
    conn: asyncpg.Connection, *, entities: list[str] | None, state: str, after: str, limit: int
) -> list[Approval]:
    """Approvals newest first, below the cursor `after`; an empty `state` is all of them."""
    rows = await conn.fetch(q.SELECT_APPROVALS, after, entities, state, limit)
    return [_approval(dict(row)) for row in rows]


def _approval(row: dict[str, object]) -> Approval:
    payload = msgspec.Raw(str(row["payload"]).encode())
    votes = row["votes"]
    assert isinstance(votes, list)
    return Approval(**(row | {"payload": payload, "votes": tuple(votes)}))  # type: ignore[arg-type]
