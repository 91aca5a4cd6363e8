"""Idempotency: one key of a caller stands for one request, and has one answer for seven days.

Knows how a key is claimed in the unit of its effect and what a second request with it may hear.
Refuses to know what the request asks for: it sees a fingerprint and a finished answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, cast

import msgspec

from gateway.control import queries as q
from gateway.control.refusals import Refusal
from ledger.units import Change, Kind, Step

if TYPE_CHECKING:
    import asyncpg

CLAIM: Final = Kind(
    "gateway.idempotency.claim", Step.CLAIM, q.CLAIM_IDEMPOTENCY, q.LOOK_IDEMPOTENCY
)
FINISH: Final = Kind(
    "gateway.idempotency.finish", Step.MOVE, q.FINISH_IDEMPOTENCY, q.LOCK_IDEMPOTENCY
)
KEPT: Final = timedelta(days=7)


class Answer(msgspec.Struct, frozen=True):
    """A finished HTTP answer, as it is sent and as it is repeated byte for byte."""

    status: int
    body: bytes
    location: str = ""
    retry_after_s: int = 0


class Idem(msgspec.Struct, frozen=True):
    """What a request says of its own identity. `fingerprint` covers method, path and raw body."""

    caller: str
    key: str
    fingerprint: bytes

    @property
    def claim_key(self) -> str:
        """The key as the table has it: unique over all callers, whose names hold no colon."""
        return f"{self.caller}:{self.key}"


class Stored(msgspec.Struct, frozen=True):
    """What the table holds for a taken key; `answer` is None while the first request works."""

    fingerprint: bytes
    subject: str
    version: int
    location: str
    answer: Answer | None
    answering_until: datetime


class Replay(msgspec.Struct, frozen=True):
    """The first request was answered: say the same again."""

    answer: Answer


class InFlight(msgspec.Struct, frozen=True):
    """The first request is still being answered; its object may be looked at meanwhile."""

    location: str


class OtherBody(msgspec.Struct, frozen=True):
    """The key was used for another request."""


class Abandoned(msgspec.Struct, frozen=True):
    """Whoever was answering is gone: the flow rebuilds the answer from the object and stores it."""

    subject: str
    version: int
    location: str


Verdict = Replay | InFlight | OtherBody | Abandoned


def claimed(
    idem: Idem,
    subject: str,
    location: str,
    at: datetime,
    answering_until: datetime,
    answer: Answer | None = None,
) -> Change:
    """Claim the key in the unit of the effect; with `answer` it is finished in the same breath."""
    status, body = (answer.status, answer.body) if answer else (None, None)
    row = (
        idem.claim_key, idem.fingerprint, subject, location, status, body, answering_until, at,
    )  # fmt: skip
    return Change(CLAIM, row)


def finished(idem: Idem, answer: Answer, version: int = 1) -> Change:
    """Store the answer of a key claimed earlier; `version` is the claim's, 1 unless rebuilt."""
    return Change(FINISH, (idem.claim_key, version, answer.status, answer.body, answer.location))


def stored(found: Mapping[str, object]) -> Stored:
    """Read what the lane found under a taken key."""
    status, body = cast("int | None", found["status"]), cast("bytes | None", found["body"])
    location = cast("str", found["location"])
    return Stored(
        fingerprint=cast("bytes", found["fingerprint"]),
        subject=cast("str", found["subject"]),
        version=cast("int", found["version"]),
        location=location,
        answer=None if status is None or body is None else Answer(status, body, location),
        answering_until=cast("datetime", found["answering_until"]),
    )


def decide(idem: Idem, held: Stored, now: datetime) -> Verdict:
    """What the second request with a key may hear. Pure; the order of the questions matters."""
    if held.fingerprint != idem.fingerprint:
        return OtherBody()
    if held.answer is not None:
        return Replay(held.answer)
    if now < held.answering_until:
        return InFlight(held.location)
    return Abandoned(held.subject, held.version, held.location)


def replay_or_refuse(idem: Idem, held: Stored, now: datetime) -> Answer | Abandoned:
    """The stored answer, or the abandoned claim to rebuild; for all else raises Refusal."""
    match decide(idem, held, now):
        case Replay(answer):
            return answer
        case InFlight(location):
            raise Refusal(
                "idempotency-in-flight",
                "the first request with this Idempotency-Key is still being answered",
                {"location": location},
            )
        case Abandoned() as gone:
            return gone
        case _:
            raise Refusal(
                "idempotency-key-reused", "this Idempotency-Key was used for another request"
            )


async def find(conn: asyncpg.Connection, idem: Idem) -> Stored | None:
    """What the table holds under this key; None while it is free."""
    row = await conn.fetchrow(q.LOOK_IDEMPOTENCY, [idem.claim_key])
    return None if row is None else stored(dict(row))


async def purge(conn: asyncpg.Connection, now: datetime, rows_max: int = 5000) -> int:
    """Delete up to `rows_max` keys older than seven days; returns how many."""
    status = await conn.execute(q.PURGE_IDEMPOTENCY, now - KEPT, rows_max)
    return int(status.rpartition(" ")[2])
