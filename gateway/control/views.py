"""Approvals and items on the wire.

Knows their JSON. Refuses to show a question as open when its time has passed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.control.approvals import Approval
from gateway.control.items import Item

Reason = Annotated[str, Meta(min_length=1, max_length=500)]
GivenReason = Annotated[str, Meta(max_length=500)]  # none is refused as `reason-missing`


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
    policy       the rulebook (its hash) that was in force when it was asked; `level` says whether it
                 spoke of the brand, the entity or everybody, or not at all
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
