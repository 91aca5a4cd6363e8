"""Changes for the lane: the router's values as rows of its own statements.

Knows which columns a value fills and that each change of state also writes an event. Refuses to
know transactions: the caller puts the changes in a unit of work, together with what they cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from ledger.units import Change, Kind, Step
from router import queries as q
from router.decide import Route
from router.intents import Attempt, Payment
from router.moves import Moved
from router.psp.inbox import InboxEntry

PAYMENT_INSERT: Final = Kind("router.payment.insert", Step.INSERT, q.PAYMENT_INSERT)
PAYMENT_MOVE: Final = Kind("router.payment.move", Step.MOVE, q.PAYMENT_MOVE, q.PAYMENT_LOOK)
ATTEMPT_INSERT: Final = Kind("router.attempt.insert", Step.INSERT, q.ATTEMPT_INSERT)
ATTEMPT_MOVE: Final = Kind("router.attempt.move", Step.MOVE, q.ATTEMPT_MOVE, q.ATTEMPT_LOOK)
DECISION_INSERT: Final = Kind("router.decision.insert", Step.INSERT, q.DECISION_INSERT)
EVENT_INSERT: Final = Kind("router.event.insert", Step.INSERT, q.EVENT_INSERT)
INBOX_CLAIM: Final = Kind("router.inbox.claim", Step.CLAIM, q.INBOX_CLAIM, q.INBOX_CLAIMED)
INBOX_MOVE: Final = Kind("router.inbox.move", Step.MOVE, q.INBOX_MOVE, q.INBOX_LOOK)

Changes = tuple[Change, ...]
Cause = Mapping[str, object]
NO_CAUSE: Final[Cause] = {}


def payment_created(p: Payment, route: Route, actor: str, cause: Cause = NO_CAUSE) -> Changes:
    """The payment's row and its first event, which names the rule that decided."""
    row = (
        p.id, p.version, p.state.value, p.book, p.client_id, p.entity, p.brand, p.country, p.method,
        p.risk_band, p.instrument, p.amount.minor, p.amount.currency.code, p.account_id, p.caller,
        p.correlation, p.rulebook, p.created, p.due_at, p.reason,
    )  # fmt: skip
    named = {"rule": route.rule, **cause}
    return (
        Change(PAYMENT_INSERT, row),
        _event(p.id, p.version, "", p.state.value, "created", named, actor, p.created, _tags(p)),
    )


def decision_stored(p: Payment, route: Route) -> Changes:
    """The trace of the decision, beside the payment it belongs to."""
    trace = msgspec.json.encode(route).decode()
    return (Change(DECISION_INSERT, (p.id, route.rulebook, trace)),)


def payment_moved(
    before: Payment, after: Payment, actor: str, at: datetime, cause: Cause = NO_CAUSE
) -> Changes:
    """The move from value to value, with an event when the state changed; () for no change."""
    if after is before:
        return ()
    row = (before.id, before.version, after.state.value, after.due_at, after.reason)
    move = Change(PAYMENT_MOVE, row)
    if after.state is before.state:
        return (move,)
    named = {"reason": after.reason, **cause} if after.reason else cause
    return (move, _state_event(before, after, after.state.value, named, actor, at))


def attempt_sent(a: Attempt, actor: str, cause: Cause = NO_CAUSE) -> Changes:
    """The attempt's row, to be committed before its first byte leaves."""
    row = (
        a.reference, a.payment_id, a.no, a.version, a.psp, a.state.value, a.lease_owner,
        a.lease_until, a.psp_reference, a.code, a.category, a.cascade, a.message, a.inquiries,
        a.not_found_at, a.sent_at, a.updated,
    )  # fmt: skip
    named = {"psp": a.psp, **cause}
    return (
        Change(ATTEMPT_INSERT, row),
        _event(a.reference, a.version, "", a.state.value, "sent", named, actor, a.sent_at),
    )


def attempt_moved(moved: Moved, actor: str, cause: Cause = NO_CAUSE) -> Changes:
    """What an outcome did to an attempt; () when it was absorbed."""
    if moved.absorbed:
        return ()
    move = _attempt_move(moved.before, moved.after)
    if not moved.changed:
        return (move,)
    named = {"code": moved.after.code, **cause} if moved.after.code else cause
    event = _state_event(
        moved.before, moved.after, moved.event.value, named, actor, moved.after.updated
    )
    return (move, event)


def attempt_leased(before: Attempt, after: Attempt) -> Changes:
    """Who may talk to the PSP about this attempt, by compare-and-set; the state stays."""
    return (_attempt_move(before, after),)


def _attempt_move(before: Attempt, a: Attempt) -> Change:
    row = (
        before.reference, before.version, a.state.value, a.lease_owner, a.lease_until,
        a.psp_reference, a.code, a.category, a.cascade, a.message, a.inquiries, a.not_found_at,
        a.updated,
    )  # fmt: skip
    return Change(ATTEMPT_MOVE, row)


def inbox_claimed(entry: InboxEntry) -> Changes:
    """The notice, once for ever: a second one with its key leaves the whole unit out."""
    row = (
        entry.key, entry.version, entry.psp, entry.event_id, entry.reference, entry.payment_id,
        entry.state, entry.reason, entry.raw, entry.received, entry.applied_at,
    )  # fmt: skip
    return (Change(INBOX_CLAIM, row),)


def inbox_applied(entry: InboxEntry, payment_id: str, at: datetime, reason: str = "") -> Changes:
    """A parked notice found its payment."""
    return (Change(INBOX_MOVE, (entry.key, entry.version, "applied", reason, payment_id, at)),)


def _state_event(
    before: Payment | Attempt, after: Payment | Attempt, event: str, cause: Cause, actor: str,
    at: datetime,
) -> Change:  # fmt: skip
    object_id = after.id if isinstance(after, Payment) else after.reference
    return _event(
        object_id, after.version, before.state.value, after.state.value, event, cause, actor, at,
        _tags(after),
    )  # fmt: skip


def _tags(it: Payment | Attempt) -> tuple[str, ...]:
    """By what a payment is counted: its entity and its brand."""
    return (it.entity, it.brand) if isinstance(it, Payment) else ()


def _event(
    object_id: str, version: int, old: str, new: str, event: str, cause: Cause, actor: str,
    at: datetime, tags: tuple[str, ...] = (),
) -> Change:  # fmt: skip
    encoded = msgspec.json.encode(cause).decode() if cause else "{}"
    return Change(EVENT_INSERT, (object_id, version, old, new, event, encoded, actor, at), tags)
