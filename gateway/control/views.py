"""Approvals, delegations and items on the wire.

Knows their JSON. Refuses to show a question as open when its time has passed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.control.approvals import Approval
from gateway.control.delegations import Delegation
from gateway.control.items import Item

Reason = Annotated[str, Meta(min_length=1, max_length=500)]
GivenReason = Annotated[str, Meta(max_length=500)]  # none is refused as `reason-missing`

Moment = Annotated[datetime, Meta(tz=True)]
KindName = Annotated[str, Meta(pattern=r"^(\*|[a-z][a-z_-]*\.[a-z][a-z_-]*)$", max_length=64)]
EntityName = Annotated[str, Meta(pattern=r"^(\*|[a-z][a-z0-9-]{0,31})$", max_length=32)]


class Decide(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A checker's decision."""

    decision: Literal["approve", "refuse"]
    reason: GivenReason = ""


class Withdraw(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A maker takes their own question back."""

    reason: GivenReason = ""


class ApprovalView(msgspec.Struct, frozen=True, kw_only=True):
    """A question to other people, as callers see it.

    needed       how many different people must agree; `votes` are those who did
    authorities  by whose right each vote was given: the voter's own, or who lent it
    permission   what each of them must hold
    policy       the rulebook (its hash) that was in force when it was asked; `level` says whether
                 it spoke of the brand, the entity or everybody, or not at all
    about        whom else it concerns
    """

    id: str
    version: int
    kind: str
    subject: str
    entity: str
    state: str
    maker: str
    needed: int
    votes: tuple[str, ...]
    authorities: tuple[str, ...]
    permission: str
    policy: str
    level: str
    brand: str
    risk: str
    amount: str
    about: tuple[str, ...]
    payload: msgspec.Raw
    reason: str
    created: datetime
    expires: datetime
    decided: datetime | None


class ApprovalPage(msgspec.Struct, frozen=True):
    """Approvals newest first; `next` is the cursor of the following page, null on the last."""

    data: tuple[ApprovalView, ...]
    next: str | None


class ResolveItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Close an item and say why."""

    reason: Reason


class ItemView(msgspec.Struct, frozen=True, kw_only=True):
    """Something a person must look at."""

    id: str
    version: int
    kind: str
    owner_team: str
    subject: str
    entity: str
    reason: str
    state: str
    opened: datetime
    resolved: datetime | None
    resolved_by: str
    resolution: str


class ItemPage(msgspec.Struct, frozen=True):
    """Items newest first; `next` is the cursor of the following page, null on the last."""

    data: tuple[ItemView, ...]
    next: str | None


def approval_view(approval: Approval, now: datetime) -> ApprovalView:
    """Show an approval as it stands at `now`."""
    return ApprovalView(
        id=approval.id,
        version=approval.version,
        kind=approval.kind,
        subject=approval.subject,
        entity=approval.entity,
        state=approval.state_at(now),
        maker=approval.maker,
        needed=approval.needed,
        votes=approval.votes,
        authorities=approval.authorities,
        permission=approval.permission,
        policy=approval.policy,
        level=approval.level,
        brand=approval.brand,
        risk=approval.risk,
        amount=approval.amount,
        about=approval.about,
        payload=approval.payload,
        reason=approval.reason,
        created=approval.created,
        expires=approval.expires,
        decided=approval.decided,
    )


def item_view(item: Item) -> ItemView:
    """Show an item."""
    return ItemView(
        id=item.id,
        version=item.version,
        kind=item.kind,
        owner_team=item.owner_team,
        subject=item.subject,
        entity=item.entity,
        reason=item.reason,
        state=item.state,
        opened=item.opened,
        resolved=item.resolved,
        resolved_by=item.resolved_by,
        resolution=item.resolution,
    )


class NewDelegation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A wish to lend one's own right to decide. `since` absent is now; `*` is no limit."""

    delegate: Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9._@-]{0,63}$", max_length=64)]
    until: Moment
    since: Moment | None = None
    kinds: Annotated[tuple[KindName, ...], Meta(min_length=1, max_length=20)] = ("*",)
    entities: Annotated[tuple[EntityName, ...], Meta(min_length=1, max_length=50)] = ("*",)
    reason: GivenReason = ""


class EndDelegation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Take a lent right back before its time."""

    reason: GivenReason = ""


class DelegationView(msgspec.Struct, frozen=True, kw_only=True):
    """A lent right. `state` is `waiting`, `in force`, `over` or `ended`."""

    id: str
    version: int
    giver: str
    delegate: str
    kinds: tuple[str, ...]
    entities: tuple[str, ...]
    state: str
    since: datetime
    until: datetime
    reason: str
    created: datetime
    ended: datetime | None
    ended_by: str


class DelegationPage(msgspec.Struct, frozen=True):
    """Delegations newest first; `next` is the cursor of the following page, null on the last."""

    data: tuple[DelegationView, ...]
    next: str | None


def delegation_view(delegation: Delegation, now: datetime) -> DelegationView:
    """Show a delegation as it stands at `now`."""
    return DelegationView(
        id=delegation.id,
        version=delegation.version,
        giver=delegation.giver,
        delegate=delegation.delegate,
        kinds=delegation.kinds,
        entities=delegation.entities,
        state=delegation.state_at(now),
        since=delegation.since,
        until=delegation.until,
        reason=delegation.reason,
        created=delegation.created,
        ended=delegation.ended,
        ended_by=delegation.ended_by,
    )
