"""Notices of PSPs: verified on their raw bytes, then read; each is applied once.

Knows what makes a notice authentic and what it says. Refuses to store or apply it: the entry is a
value, and the unit of work that applies a notice also claims its key. What fails the check leaves
no trace but a counter.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from router.outcomes import Outcome, Unknown
from router.psp.connector import Connector, Unreadable
from router.psp.signatures import Forged, verify_signature


class Notice(msgspec.Struct, frozen=True):
    """What a PSP told us: about which of our references, and the outcome.

    event_id  the PSP's own id of this notice; its repetitions bear the same
    at        when the PSP says it happened
    """

    event_id: str
    reference: str
    outcome: Outcome
    at: datetime


class InboxEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A notice as it is kept: `applied`, or `parked` while nobody knows its reference."""

    key: str
    version: int = 1
    psp: str
    event_id: str
    reference: str
    payment_id: str
    state: str
    reason: str
    raw: bytes
    received: datetime
    applied_at: datetime | None


def verify(
    connector: Connector, headers: Mapping[str, str], raw: bytes, secret: bytes, now: datetime
) -> Notice:
    """Check the signature over the raw bytes, then read them.

    headers  by any case
    Raises Forged (401, nothing may be stored), or Unreadable for an authentic notice that this
    connector cannot read (422: the PSP changed something, a person must look).
    """
    scheme = connector.webhook
    lowered = {name.lower(): value for name, value in headers.items()}
    verify_signature(scheme.signature, lowered.get(scheme.header, ""), raw, secret, now)
    return read_notice(connector, raw)


def read_notice(connector: Connector, raw: bytes) -> Notice:
    """Read the bytes of a notice that was verified before (a parked one). Raises Unreadable."""
    event_id, reference, outcome, at = connector.read_webhook(raw)
    if not connector.webhook.strong:
        outcome = Unknown("needs_inquiry")  # its signature may not move money: ask
    return Notice(event_id, reference, outcome, at)


def entry(psp: str, notice: Notice, raw: bytes, payment_id: str, now: datetime) -> InboxEntry:
    """The notice as a row: applied to `payment_id`, or parked when that is ""."""
    known = bool(payment_id)
    return InboxEntry(
        key=f"{psp}:{notice.event_id}", psp=psp, event_id=notice.event_id,
        reference=notice.reference, payment_id=payment_id,
        state="applied" if known else "parked", reason="" if known else "unknown-reference",
        raw=raw, received=now, applied_at=now if known else None,
    )  # fmt: skip


__all__ = ["Forged", "InboxEntry", "Notice", "Unreadable", "entry", "read_notice", "verify"]
