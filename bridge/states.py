"""Accounts and balance operations as values, with the table of moves of each.

Knows which state may follow which, and what that move is called. Refuses to know why: outcomes are
judged in `provision.py` and `credit.py`, rows are written by `rows.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec


class AccountState(StrEnum):
    """Where a trading account stands between our wish and the platform."""

    REQUESTED = "requested"  # wanted; nothing has left us
    SENT = "sent"  # a creation may be on its way
    VERIFIED = "verified"  # on the platform, and read back as asked
    VERIFY_FAILED = "verify_failed"  # on the platform, but not as asked: a person must look
    REFUSED = "refused"  # the platform will not have it
    UNKNOWN = "unknown"  # sent, and the answer does not say


class OperationState(StrEnum):
    """Where a balance operation stands between the books and the platform."""

    QUEUED = "queued"  # wanted; nothing has left us, or what left us is proved absent
    SENT = "sent"  # may be on its way
    DONE = "done"  # a deal of the platform carries our reference
    REFUSED = "refused"  # the platform will not do it
    UNKNOWN = "unknown"  # sent, and the answer does not say: look it up, do not repeat


class IllegalMove(AssertionError):
    """A state was asked to move where its table has no way: a bug of the caller."""


ACCOUNT_MOVES: Final[Mapping[tuple[AccountState, AccountState], str]] = {
    (AccountState.REQUESTED, AccountState.SENT): "sent",
    (
        AccountState.REQUESTED,
        AccountState.REFUSED,
    ): "not_placed",  # no group, no login left: never sent
    (
        AccountState.SENT,
        AccountState.REQUESTED,
    ): "not_sent",  # provably nothing left us, or the server was too busy
    (AccountState.SENT, AccountState.VERIFIED): "verified",
    (AccountState.SENT, AccountState.VERIFY_FAILED): "differed",
    (AccountState.SENT, AccountState.REFUSED): "refused",
    (AccountState.SENT, AccountState.UNKNOWN): "lost",
    (
        AccountState.UNKNOWN,
        AccountState.SENT,
    ): "repeated",  # the login is leased: a repeat answers `exists`
    (AccountState.UNKNOWN, AccountState.VERIFIED): "found",
    (AccountState.UNKNOWN, AccountState.VERIFY_FAILED): "found_different",
    (AccountState.VERIFY_FAILED, AccountState.VERIFIED): "mended",
}

OPERATION_MOVES: Final[Mapping[tuple[OperationState, OperationState], str]] = {
    (OperationState.QUEUED, OperationState.SENT): "sent",
    (
        OperationState.QUEUED,
        OperationState.REFUSED,
    ): "given_up",  # attempts are used up before it could be sent
    (OperationState.SENT, OperationState.QUEUED): "not_sent",
    (OperationState.SENT, OperationState.DONE): "done",
    (OperationState.SENT, OperationState.REFUSED): "refused",
    (OperationState.SENT, OperationState.UNKNOWN): "lost",
    (
        OperationState.UNKNOWN,
        OperationState.UNKNOWN,
    ): "looked_up",  # the lookup counts, the answer did not come
    (OperationState.UNKNOWN, OperationState.DONE): "found",
    (
        OperationState.UNKNOWN,
        OperationState.QUEUED,
    ): "absent",  # settled, looked up twice, nothing there: it may be repeated
}


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A trading account of ours: what was asked of the platform and how far it came.

    login       the platform's number, leased before the first sending; None until then
    attempts    how often a creation was sent
    due_at      when somebody must look at it again; None when nobody must
    reason      a stable code of why it is refused, unknown or different; "" otherwise
    """

    id: str
    version: int = 1
    client_id: str
    book: int
    server: str
    entity: str
    brand: str
    account_type: str
    currency: str
    platform_group: str
    leverage: int
    rights: int
    login: int | None = None
    state: AccountState = AccountState.REQUESTED
    attempts: int = 0
    reason: str = ""
    due_at: datetime | None = None
    lease_owner: str = ""
    lease_until: datetime | None = None
    caller: str = ""
    correlation: str
    created: datetime
    updated: datetime


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """A balance operation of ours; its id is the reference the platform's deal will carry.

    amount_minor  signed: positive puts money on the account
    lookups       lookups that found nothing since the answer was lost
    sent_at       when it was last sent
    unknown_at    when its outcome became unknown; the settle time runs from here
    """

    id: str
    version: int = 1
    account_id: str
    server: str
    login: int
    book: int
    amount_minor: int
    currency: str
    state: OperationState = OperationState.QUEUED
    payment_id: str = ""
    ticket: int | None = None
    attempts: int = 0
    lookups: int = 0
    reason: str = ""
    sent_at: datetime | None = None
    unknown_at: datetime | None = None
    due_at: datetime | None = None
    lease_owner: str = ""
    lease_until: datetime | None = None
    correlation: str
    created: datetime
    updated: datetime

    @property
    def reference(self) -> str:
        """What the platform's comment says: our id, twenty ASCII characters."""
        return self.id


def account_event(before: AccountState, after: AccountState) -> str:
    """The name of this move; raises IllegalMove."""
    if (before, after) not in ACCOUNT_MOVES:
        raise IllegalMove(f"account: {before} -> {after}")
    return ACCOUNT_MOVES[before, after]


def operation_event(before: OperationState, after: OperationState) -> str:
    """The name of this move; raises IllegalMove."""
    if (before, after) not in OPERATION_MOVES:
        raise IllegalMove(f"operation: {before} -> {after}")
    return OPERATION_MOVES[before, after]
