"""A client's wish to pay, the payment it becomes and the attempts made for it: frozen values.

Knows their fields and units. Refuses to know how they are decided, stored or sent.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from ledger.money import Money
from router.states import AttemptState, PaymentState


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """What routing may look at. Codes are upper case (ISO 3166, ISO 4217); ids are the rulebook's.

    minor       minor units of `currency`, > 0
    instrument  the caller's opaque token for the means of payment, "" when it has none
    """

    payment_id: str
    client_id: str
    entity: str
    brand: str
    country: str
    currency: str
    minor: int
    method: str
    risk_band: str
    instrument: str = ""


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """A deposit's payment as it is stored.

    account_id  the trading account it is meant for, "" for the wallet
    due_at      when the resolver must look at it next; None when nothing is awaited
    reason      why it is in its state (a stable code), "" while it needs none
    """

    id: str
    version: int
    state: PaymentState
    book: int
    client_id: str
    entity: str
    brand: str
    country: str
    method: str
    risk_band: str
    instrument: str
    amount: Money
    account_id: str
    caller: str
    correlation: str
    rulebook: str
    created: datetime
    due_at: datetime | None
    reason: str = ""

    @property
    def intent(self) -> Intent:
        """What was routed."""
        return Intent(
            payment_id=self.id, client_id=self.client_id, entity=self.entity, brand=self.brand,
            country=self.country, currency=self.amount.currency.code, minor=self.amount.minor,
            method=self.method, risk_band=self.risk_band, instrument=self.instrument,
        )  # fmt: skip


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One charge at one PSP, under our own `reference` (`AT...`), unique for ever.

    no            1, 2, ... within the payment
    lease_*       who may talk to the PSP about it now, and until when; "" and None for nobody
    cascade       a decline after which another PSP may be tried without asking the client
    inquiries     how often the PSP was asked about it since it was sent
    not_found_at  when the first "not found" that counts was read
    updated       when this row moved last
    """

    payment_id: str
    no: int
    psp: str
    reference: str
    state: AttemptState
    version: int
    sent_at: datetime
    updated: datetime
    lease_owner: str = ""
    lease_until: datetime | None = None
    psp_reference: str = ""
    code: str = ""
    category: str = ""
    cascade: bool = False
    message: str = ""
    inquiries: int = 0
    not_found_at: datetime | None = None
