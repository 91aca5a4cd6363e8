"""Approvals: one person asks, others agree, and what was asked is applied once.

Knows makers, checkers, votes, expiry and withdrawal. Refuses to know what is being approved: the
flow that asked keeps the effect in the payload, and its applier applies it with the last vote.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from gateway.control import queries_approvals as q
from gateway.control.access import Tags
from gateway.control.audit import Command
from gateway.control.policies import Matter, Policy
from gateway.control.refusals import Refusal
from ledger.units import Change, Kind, Step

if TYPE_CHECKING:
    import asyncpg

ASK: Final = Kind("gateway.approval.ask", Step.CLAIM, q.CLAIM_APPROVAL, q.LOOK_APPROVAL)
MOVE: Final = Kind("gateway.approval.move", Step.MOVE, q.MOVE_APPROVAL, q.LOCK_APPROVAL)
IN_TIME: Final = Kind("gateway.approval.in_time", Step.CHECK, q.APPROVAL_IN_TIME)
EVENT: Final = Kind("gateway.approval_event.insert", Step.INSERT, q.INSERT_APPROVAL_EVENT)

MAKER_CHECKER, OWN_BY_DELEGATE = 1, 34  # numbers of `duties.CONFLICTS`

Decision = Literal["approve", "refuse"]
_LISTS: Final = ("votes", "authorities", "contracts", "about")


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """A question to other people.

    subject      the object the effect will change; with its tags, "" where it has none
    about        whom else it concerns: asking and deciding are acts on these too
    needed       how many different people must agree; `votes` are those who did
    authorities  by whose right each vote was given: the voter's own, or a giver's who lent it
    permission   what a checker must hold
    level        where the policy was written: `brand`, `entity`, `global`, `default`
    policy       the rulebook (its hash) whose policy set what is needed; a later one changes none
    payload      what will be applied; its shape belongs to the kind
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
    permission: str
    level: str
    authorities: tuple[str, ...] = ()
    brand: str = ""
    desk: str = ""
    contracts: tuple[str, ...] = ()
    about: tuple[str, ...] = ()
    risk: str = ""
    amount: str = ""

    @property
    def tags(self) -> Tags:
        """What decides for whom it exists."""
        return Tags(self.entity, self.brand, self.desk, self.contracts)

    def state_at(self, now: datetime) -> str:
        """The state as people should see it: an open question past its time has expired."""
        return "expired" if self.state == "open" and self.expires <= now else self.state


class Voter(msgspec.Struct, frozen=True):
    """Who decides, and by whose right.

    authority   the person whose right it is: the voter, or who lent it
    delegation  the id of the delegation by which it was lent; "" for one's own
    """

    person: str
    authority: str
    delegation: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """What one decision makes of an approval."""

    state: str
    votes: tuple[str, ...]
    authorities: tuple[str, ...] = ()

    @property
    def applies(self) -> bool:
        """Whether the effect happens with this very decision."""
        return self.state == "approved"


def asked(approval_id: str, command: Command, policy: Policy, matter: Matter) -> Approval:
    """The question a maker's command becomes. Raises Refusal `reason-missing`."""
    need_reason(command)
    caller = command.caller
    amount = matter.amount
    return Approval(
        id=approval_id,
        version=1,
        kind=matter.kind,
        subject=matter.subject,
        entity=matter.entity,
        brand=matter.brand,
        desk=matter.desk,
        contracts=matter.contracts,
        about=matter.about,
        risk=matter.risk,
        amount="" if amount is None else f"{amount.text} {amount.currency.code}",
        state="open",
        maker=caller.person,
        maker_role=caller.role,
        maker_owner=caller.owner,
        needed=policy.needed,
        permission=policy.permission,
        level=policy.level,
        votes=(),
        policy=policy.rulebook,
        payload=msgspec.Raw(msgspec.json.encode(matter.payload)),
        reason=command.reason,
        correlation=command.correlation,
        created=command.at,
        expires=command.at + timedelta(seconds=policy.expiry_s),
        decided=None,
    )


def need_reason(command: Command) -> None:
    """Raise Refusal `reason-missing` for a command that says no reason."""
    if not command.reason.strip():
        raise Refusal("reason-missing", "say why")


def decide(approval: Approval, voter: Voter | None, decision: Decision, now: datetime) -> Verdict:
    """What this person's decision makes of the question. Pure; raises Refusal.

    voter  None for a person who has no right to decide it, of their own or lent
    Codes in the order they are asked: `forbidden`, `duty-conflict`, `already-decided`,
    `approval-expired`, `already-voted`.
    """
    if voter is None:
        said = f"{approval.permission} is needed to decide {approval.kind}"
        raise Refusal("forbidden", said, {"scope": approval.permission})
    if approval.maker == voter.person:
        raise Refusal("duty-conflict", "whoever asked may not decide", {"conflict": MAKER_CHECKER})
    if approval.maker == voter.authority:
        said = "whoever asked may not lend the right to decide it"
        raise Refusal("duty-conflict", said, {"conflict": OWN_BY_DELEGATE})
    _require_open(approval, now)
    if {voter.person, voter.authority} & {*approval.votes, *approval.authorities}:
        raise Refusal("already-voted", "this person has agreed already, or their delegate has")
    if decision == "refuse":
        return Verdict("refused", approval.votes, approval.authorities)
    votes = (*approval.votes, voter.person)
    authorities = (*approval.authorities, voter.authority)
    return Verdict("approved" if len(votes) >= approval.needed else "open", votes, authorities)


def withdraw(approval: Approval, person: str, now: datetime) -> Verdict:
    """What it becomes when its maker withdraws it. Pure; raises Refusal.

    Codes: `not-maker`, `already-decided`, `approval-expired`.
    """
    if person != approval.maker:
        raise Refusal("not-maker", "only whoever asked may withdraw it")
    _require_open(approval, now)
    return Verdict("withdrawn", approval.votes, approval.authorities)


def _require_open(approval: Approval, now: datetime) -> None:
    if approval.state != "open":
        raise Refusal("already-decided", f"it is {approval.state}", {"state": approval.state})
    if approval.expires <= now:
        raise Refusal("approval-expired", f"it expired at {approval.expires.isoformat()}")


def after(approval: Approval, verdict: Verdict, at: datetime) -> Approval:
    """The question as it stands once it is moved."""
    return msgspec.structs.replace(
        approval, version=approval.version + 1, state=verdict.state, votes=verdict.votes,
        authorities=verdict.authorities, decided=None if verdict.state == "open" else at,
    )  # fmt: skip


# --- changes ------------------------------------------------------------------------------------


def approval_asked(approval: Approval) -> tuple[Change, ...]:
    """Store the question; the claim is lost while another of its kind and subject is open."""
    row = (
        f"{approval.kind}:{approval.subject}", approval.id, approval.kind, approval.subject,
        approval.entity, approval.brand, approval.desk, ",".join(approval.contracts),
        ",".join(approval.about), approval.risk, approval.amount, approval.maker,
        approval.maker_role, approval.maker_owner, approval.needed, approval.permission,
        approval.level, approval.policy,
        bytes(approval.payload).decode(), approval.reason, approval.correlation, approval.created,
        approval.expires,
    )  # fmt: skip
    cause = {"reason": approval.reason, "policy": approval.policy, "level": approval.level}
    event = _event(approval.id, 1, "", "open", "asked", cause, approval.maker, approval.created)
    return Change(ASK, row), event


def approval_moved(
    approval: Approval, verdict: Verdict, command: Command, event: str, voter: Voter | None = None
) -> tuple[Change, ...]:
    """Move the question by the version that was read.

    event  `agreed`, `refused`, `withdrawn`, `expired`
    voter  whose decision it is, where it is one
    """
    decided = None if verdict.state == "open" else command.at
    row = (
        approval.id, approval.version, verdict.state, ",".join(verdict.votes),
        ",".join(verdict.authorities), decided,
    )  # fmt: skip
    cause = {"reason": command.reason, "correlation": command.correlation}
    if voter is not None and voter.delegation:
        cause |= {"on_behalf_of": voter.authority, "delegation": voter.delegation}
    person, version = command.caller.person, approval.version + 1
    return Change(MOVE, row), _event(
        approval.id, version, approval.state, verdict.state, event, cause, person, command.at
    )


def in_time(approval: Approval) -> Change:
    """Leave the unit out once the question's time has passed by the server's clock."""
    return Change(IN_TIME, (approval.id,))


def _event(
    object_id: str,
    version: int,
    before: str,
    to: str,
    event: str,
    cause: object,
    actor: str,
    at: datetime,
) -> Change:
    encoded = msgspec.json.encode(cause).decode()
    return Change(EVENT, (object_id, version, before, to, event, encoded, actor, at))


# --- reads --------------------------------------------------------------------------------------


async def find(conn: asyncpg.Connection, id: str) -> Approval | None:
    """The approval of this id."""
    row = await conn.fetchrow(q.SELECT_APPROVAL, id)
    return None if row is None else _approval(dict(row))


async def page(
    conn: asyncpg.Connection, *, within: str | None, state: str, after: str, limit: int
) -> list[Approval]:
    """Approvals newest first, below the cursor `after`; an empty `state` is all of them."""
    rows = await conn.fetch(q.SELECT_APPROVALS, after, within, state, limit)
    return [_approval(dict(row)) for row in rows]


async def makers(conn: asyncpg.Connection, kinds: list[str]) -> list[str]:
    """Who asked questions of these kinds within ninety days, each once."""
    return [row["maker"] for row in await conn.fetch(q.SELECT_MAKERS, kinds)]


async def due(conn: asyncpg.Connection, now: datetime, limit: int) -> list[Approval]:
    """Open questions whose time has passed, the oldest first."""
    return [_approval(dict(row)) for row in await conn.fetch(q.SELECT_DUE, now, limit)]


def _approval(row: dict[str, object]) -> Approval:
    payload = msgspec.Raw(str(row["payload"]).encode())
    lists: dict[str, object] = {name: tuple(row[name]) for name in _LISTS}  # type: ignore[arg-type]
    return Approval(**(row | {"payload": payload} | lists))  # type: ignore[arg-type]
