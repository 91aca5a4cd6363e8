"""Clients on the wire: what a caller says of a client and what it reads back.

Knows the JSON of clients. Refuses to hold personal data: the caller's own reference stands for it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.people.clients import Client, ClientMoment
from gateway.people.states import Block, RiskBand, State

Reference = Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", max_length=64)]
Name = Annotated[str, Meta(pattern="^[a-z][a-z0-9-]{0,31}$", max_length=32)]
Country = Annotated[str, Meta(pattern="^[A-Z]{2}$", max_length=2)]
CurrencyCode = Annotated[str, Meta(pattern="^[A-Z]{3,5}$", max_length=5)]
Reason = Annotated[str, Meta(min_length=1, max_length=500)]


Code = Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9_-]{2,31}$", max_length=32)]
Label = Annotated[str, Meta(pattern="^[A-Za-z0-9._-]{1,64}$", max_length=64)]
# An address without a query: what stands behind a question mark may name a person.
Landing = Annotated[str, Meta(pattern="^[A-Za-z0-9/._~:-]{1,200}$", max_length=200)]
PlanId = Annotated[str, Meta(pattern="^[a-z][a-z0-9-]{0,31}$", max_length=32)]


class CameThrough(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What registration knew of how the client came. Kept as given; no personal data.

    code     the code of a partner's contract with the client's brand
    landing  the page the client landed on, without its query
    """

    code: Code
    channel: Label | None = None
    campaign: Label | None = None
    landing: Landing | None = None


class NewClient(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A client to be made known.

    reference  the caller's own id of the client; unique for the caller, and not personal data
    brand      decides the legal entity, and with it the books

    attribution  through whom the client came; absent: through nobody. It is never changed later
    """

    reference: Reference
    brand: Name
    country: Country
    currency: CurrencyCode
    client_type: Literal["individual", "corporate"] = "individual"
    risk_band: RiskBand = "medium"
    attribution: CameThrough | None = None


class MoveClient(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A wish to move a client to another state.

    expected_version  the version the caller has seen; another one is a conflict
    blocks            what a restriction forbids; required with `restricted`, else absent
    """

    to: State
    expected_version: Annotated[int, Meta(ge=1)]
    reason: Reason
    blocks: Annotated[tuple[Block, ...], Meta(max_length=4)] = ()


class AttributionView(msgspec.Struct, frozen=True):
    """Through which contract, by which code, a client came."""

    contract: str
    code: str


class ClientView(msgspec.Struct, frozen=True, kw_only=True):
    """A client as callers see it.

    masked  whether the caller sees no more than who it must be: the reference is cut to its end,
            risk and type are blank
    """

    id: str
    version: int
    reference: str
    brand: str
    entity: str
    country: str
    currency: str
    client_type: str
    risk_band: str
    state: State
    blocks: tuple[str, ...]
    attribution: AttributionView | None
    created: datetime
    updated: datetime
    masked: bool = False


class ClientPage(msgspec.Struct, frozen=True):
    """Clients newest first; `next` is the cursor of the following page, null on the last."""

    data: tuple[ClientView, ...]
    next: str | None


class HistoryView(msgspec.Struct, frozen=True):
    """The events of one client, oldest first."""

    data: tuple[ClientMoment, ...]


def mask(text: str) -> str:
    """What is shown of a text that is masked: its end, if there is enough before it."""
    return f"***{text[-2:]}" if len(text) > 6 else "***"


def client_view(client: Client, *, masked: bool = False) -> ClientView:
    """Show a client; who made it known stays inside."""
    return ClientView(
        id=client.id,
        version=client.version,
        reference=mask(client.reference) if masked else client.reference,
        brand=client.brand,
        entity=client.entity,
        country=client.country,
        currency=client.currency,
        client_type="" if masked else client.client_type,
        risk_band="" if masked else client.risk_band,
        state=client.state,
        blocks=client.blocks,
        attribution=AttributionView(client.contract, client.code) if client.contract else None,
        created=client.created,
        updated=client.updated,
        masked=masked,
    )
