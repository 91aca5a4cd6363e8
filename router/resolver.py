"""When an attempt whose outcome is open is asked about, and when asking has an end.

Knows the schedule of inquiries and the rule of "not found". Refuses to ask: it only says when. Its
end never means failure: an exhausted schedule is for a person (`review`).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from config.rulebook import Routing
from router.intents import Attempt
from router.states import AttemptState


def next_due(attempt: Attempt, policy: Routing, now: datetime) -> datetime | None:
    """When this attempt must be looked at next, never before `now`; None when asking is exhausted.

    A sent attempt is due when its lease ends. After that the policy's steps are ages since sending:
    the first inquiry at the first of them, each further one at the next age after the last news, so
    that a pause of ours skips steps and never bunches them. Right after a first "not found" that
    counts, the second is due as soon as it may count, even beyond the steps.
    """
    if attempt.lease_until is not None and attempt.lease_until > now:
        return attempt.lease_until  # somebody is charging or asking
    if attempt.state is AttemptState.SENT:
        return now
    if attempt.not_found_at is not None and attempt.not_found_at == attempt.updated:
        return max(now, attempt.not_found_at + timedelta(seconds=policy.not_found_gap_s))
    ages = [timedelta(seconds=age) for age in policy.resolver_steps_s]
    known = attempt.updated - attempt.sent_at if attempt.inquiries else timedelta(0)
    after = next((age for age in ages if age > known), None)
    return None if after is None else max(now, attempt.sent_at + after)


def not_found_counts(attempt: Attempt, policy: Routing, now: datetime) -> bool:
    """Whether "not found" says anything by now: a PSP may show a charge late."""
    return now >= attempt.sent_at + timedelta(seconds=policy.not_found_grace_s)


def may_call_not_found(attempt: Attempt, policy: Routing, now: datetime) -> bool:
    """Whether "not found" read now is the proof: the second that counts, far from the first."""
    return (
        attempt.state is AttemptState.UNKNOWN
        and attempt.not_found_at is not None
        and not_found_counts(attempt, policy, now)
        and now >= attempt.not_found_at + timedelta(seconds=policy.not_found_gap_s)
    )
