"""Changes of attribution on the wire: as staff ask and read them, and as partners see them.

Knows what is masked for partners: people, the other partner, the client's id but for its end, free
words, evidence. Refuses to hold personal data.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.people.attribution_changes import AttributionChange, Ground
from gateway.people.views import Code

Evidence = Annotated[str, Meta(pattern="^([A-Za-z0-9][A-Za-z0-9._:/-]{0,127})?$", max_length=128)]
Moment = Annotated[datetime, Meta(tz=True)]
SHOWN_OF_CLIENT = 4  # enough to tell one's clients apart, too little to name one


class NewAttribution(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A wish that a client comes through another contract.

    code       of a contract with the client's own brand; null: through nobody
    ground     why in one word, which both partners see; `reason` is for staff
    evidence   the id of what proves it, in the broker's own files
    effective  never in the past; absent: as soon as it is agreed to
    """

    code: Code | None
    evidence: Evidence = ""
    reason: Annotated[str, Meta(max_length=500)] = ""
    ground: Ground = "other"
    effective: Moment | None = None


class ContractShown(msgspec.Struct, frozen=True):
    """A contract by its id and its code."""

    contract: str
    code: str


class AttributionChangeView(msgspec.Struct, frozen=True, kw_only=True):
    """A change of attribution; `old` and `new` are null for nobody."""

    id: str
    client: str
    old: ContractShown | None
    new: ContractShown | None
    asked_by: str
    approved_by: tuple[str, ...]
    reason: str
    ground: str
    evidence: str
    effective: datetime
    approval: str
    at: datetime


class AttributionChangeList(msgspec.Struct, frozen=True):
    """A client's changes, newest first."""

    data: tuple[AttributionChangeView, ...]


class MaskedChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change as the partners see it whom it took a client from, or gave one to.

    client       the end of the client's id
    old, new     the code of one's own contract, `another partner`, or null for nobody
    asked_by     the role of whoever asked
    approved_by  how many others agreed
    reason       the ground in one word
    """

    id: str
    client: str
    old: str | None
    new: str | None
    asked_by: str
    approved_by: int
    reason: str
    effective: datetime
    at: datetime


class MaskedPage(msgspec.Struct, frozen=True):
    """Changes newest first; `next` is the cursor of the following page, null on the last."""

    data: tuple[MaskedChange, ...]
    next: str | None


def change_view(change: AttributionChange) -> AttributionChangeView:
    """Show a change to staff."""
    return AttributionChangeView(
        id=change.id,
        client=change.client_id,
        old=_shown(change.old_contract, change.old_code),
        new=_shown(change.new_contract, change.new_code),
        asked_by=change.asked_by,
        approved_by=change.approved_by,
        reason=change.reason,
        ground=change.ground,
        evidence=change.evidence,
        effective=change.effective,
        approval=change.approval,
        at=change.at,
    )


def masked_view(change: AttributionChange, own: Collection[str]) -> MaskedChange:
    """Show a change to a partner whose contracts are `own`."""
    return MaskedChange(
        id=change.id,
        client=f"…{change.client_id[-SHOWN_OF_CLIENT:]}",
        old=_masked(change.old_contract, change.old_code, own),
        new=_masked(change.new_contract, change.new_code, own),
        asked_by=change.asked_role,
        approved_by=len(change.approved_by),
        reason=change.ground,
        effective=change.effective,
        at=change.at,
    )


def _shown(contract: str, code: str) -> ContractShown | None:
    return ContractShown(contract, code) if contract else None


def _masked(contract: str, code: str, own: Collection[str]) -> str | None:
    if not contract:
        return None
    return code if contract in own else "another partner"
