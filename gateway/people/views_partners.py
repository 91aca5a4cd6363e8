"""Partners and contracts on the wire: what a caller says of them and what it reads back.

Knows their JSON. Refuses to hold personal data: the caller's own reference stands for a partner.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.people.partners import Contract, Partner
from gateway.people.views import Code, CurrencyCode, Name, PlanId, Reference

ContractId = Annotated[str, Meta(pattern="^CT[0-9A-Z]{18}$", max_length=20)]


class NewPartner(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A partner to be made known; `reference` is the caller's own id, unique for the caller."""

    reference: Reference
    kind: Literal["ib", "master", "affiliate"] = "ib"


class NewContract(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A contract of a partner with a brand; the brand decides entity and books.

    plan    a plan of the rulebook, of the same currency
    parent  the contract above it, of the same books and currency; absent: nobody's
    code    what registrations will name; absent: made from the contract's id
    """

    brand: Name
    currency: CurrencyCode
    plan: PlanId
    parent: ContractId | None = None
    code: Code | None = None


class ContractView(msgspec.Struct, frozen=True, kw_only=True):
    """A contract as callers see it; `children` counts those directly below it."""

    id: str
    partner: str
    brand: str
    entity: str
    currency: str
    code: str
    parent: str | None
    plan: str
    children: int
    created: datetime


class PartnerView(msgspec.Struct, frozen=True, kw_only=True):
    """A partner with the contracts that lie within the caller's entities."""

    id: str
    version: int
    reference: str
    kind: str
    state: str
    contracts: tuple[ContractView, ...]
    created: datetime


class PartnerPage(msgspec.Struct, frozen=True):
    """Partners newest first; `next` is the cursor of the following page, null on the last."""

    data: tuple[PartnerView, ...]
    next: str | None


def contract_view(contract: Contract) -> ContractView:
    """Show a contract."""
    return ContractView(
        id=contract.id,
        partner=contract.partner_id,
        brand=contract.brand,
        entity=contract.entity,
        currency=contract.currency,
        code=contract.code,
        parent=contract.parent or None,
        plan=contract.plan,
        children=contract.children,
        created=contract.created,
    )


def partner_view(partner: Partner, contracts: Sequence[Contract] = ()) -> PartnerView:
    """Show a partner; who made it known stays inside."""
    return PartnerView(
        id=partner.id,
        version=partner.version,
        reference=partner.reference,
        kind=partner.kind,
        state=partner.state,
        contracts=tuple(map(contract_view, contracts)),
        created=partner.created,
    )
