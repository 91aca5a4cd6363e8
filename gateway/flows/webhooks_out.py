"""Telling calling systems: Standard Webhooks to the address they named, signed, in order.

Knows the envelope, the signature and which answers mean "heard". Refuses to know what an event
says, and when to try again (`outbox.py`). Source: the Standard Webhooks specification 1.0.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import msgspec

from gateway.control.audit import Command, audited
from gateway.control.idempotency import (
    Answer,
    Idem,
    Stored,
    claimed,
    find,
    replay_or_refuse,
    stored,
)
from gateway.control.refusals import Refusal, not_found
from gateway.flows import queries as q
from gateway.flows.outbox import MOVE, Again, Ended, Row, Submit
from ledger.ids import Ids
from ledger.units import Change, Kind, Left, Step, Unit, Why

SET = Kind("gateway.subscriber.set", Step.INSERT, q.SET_SUBSCRIBER)
URL_CHARACTERS_MAX = 2000
CLAIM_ANSWERED = timedelta(seconds=30)


class Subscription(msgspec.Struct, frozen=True):
    """Where a calling system is told, and the secret that signs what it is told."""

    webhook_url: str
    secret: str


class SubscriptionOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name the address of one's webhooks; "" to be told nothing and only pull."""

    webhook_url: str


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    """One event as it is pulled and as it is pushed."""

    no: int
    id: str
    type: str
    timestamp: datetime
    data: msgspec.Raw


def event_view(row: Row | asyncpg.Record) -> EventView:
    """The envelope of an outbox row; the same bytes however often it is sent."""
    held = dict(row) if not isinstance(row, Row) else msgspec.structs.asdict(row)
    return EventView(
        no=held["no"], id=f"ev_{held['id']}", type=held["kind"], timestamp=held["created"],
        data=msgspec.Raw(held["body"].encode()),
    )  # fmt: skip


def signing_secret(key: bytes, caller: str, version: int) -> bytes:
    """The secret of a caller's webhooks, derived so that none is stored; `version` rotates it."""
    return hmac.digest(key, f"webhook:{caller}:{version}".encode(), hashlib.sha256)


def signature(secret: bytes, event_id: str, timestamp: int, body: bytes) -> str:
    """`v1,<base64>` over `id.timestamp.body`."""
    signed = f"{event_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


class WebhooksOut:
    """The handler of `subscriber:` lanes.

    key        the process's own secret
    timeout_s  for one delivery, all of it, as the rulebook in force says
    delivered  told of each delivery, `(outcome)`, for metrics
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        http: aiohttp.ClientSession,
        key: bytes,
        timeout_s: Callable[[], float],
        now: Callable[[], datetime],
        delivered: Callable[[str], None],
    ) -> None:
        self._pool = pool
        self._http = http
        self._key = key
        self._timeout_s = timeout_s
        self._now = now
        self._delivered = delivered

    async def deliver(self, row: Row) -> Ended | Again:
        """One try. A subscriber without an address pulls: its row is done at once."""
        caller = row.lane.partition(":")[2]
        found = await self._pool.fetchrow(q.SUBSCRIBER, caller)
        if found is None or not found["webhook_url"]:
            return Ended("done", "pull only")
        secret = signing_secret(self._key, caller, found["version"])
        result = await self._post(found["webhook_url"], secret, event_view(row))
        self._delivered("delivered" if isinstance(result, Ended) else "failed")
        return result

    async def _post(self, url: str, secret: bytes, told: EventView) -> Ended | Again:
        body = msgspec.json.encode(told)
        at = int(self._now().timestamp())
        timeout = aiohttp.ClientTimeout(total=self._timeout_s())
        headers = {
            "content-type": "application/json",
            "webhook-id": told.id,
            "webhook-timestamp": str(at),
            "webhook-signature": signature(secret, told.id, at, body),
        }
        try:
            async with self._http.post(
                url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as answer:
                if answer.status // 100 == 2:
                    return Ended("done")
                return Again(f"answered {answer.status}")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return Again(f"{type(error).__name__}: {error}"[:200])


class Subscriptions:
    """Commands of calling systems about their own events."""

    def __init__(
        self,
        lane: Submit,
        pool: asyncpg.Pool,
        ids: Ids,
        key: bytes,
        now: Callable[[], datetime],
    ) -> None:
        self._lane = lane
        self._pool = pool
        self._ids = ids
        self._key = key
        self._now = now

    async def set(self, command: Command, order: SubscriptionOrder) -> Subscription:
        """Name one's address; returns the secret its webhooks are signed with from now on.

        Raises Refusal `webhook-url`. Naming an address again makes a new secret.
        """
        require_address(order.webhook_url)
        caller = command.caller.owner
        after = {"webhook_url": order.webhook_url}
        audit = audited(command, "subscriber.set", caller, self._ids.new("AU"), after=after)
        unit = Unit((Change(SET, (caller, order.webhook_url)), audit))
        left = await self._lane.submit(unit)
        assert not isinstance(left, Left), left
        found = await self._pool.fetchrow(q.SUBSCRIBER, caller)
        secret = signing_secret(self._key, caller, found["version"])
        return Subscription(order.webhook_url, "whsec_" + base64.b64encode(secret).decode())

    async def resend(self, command: Command, no: int, idem: Idem) -> Answer:
        """Have one's own event delivered again, whatever became of it. 202.

        Raises Refusal `not-found`, `event-waiting`.
        """
        lane = f"subscriber:{command.caller.owner}"
        async with self._pool.acquire() as conn:
            held = await find(conn, idem)
            row = await conn.fetchrow(q.EVENT, lane, no)
        if held is not None:
            return self._replayed(idem, held)
        if row is None:
            raise not_found("event", str(no))
        waiting = Refusal("event-waiting", f"event {no} is on its way already")
        if row["state"] == "waiting":
            raise waiting
        answer = Answer(202, msgspec.json.encode({"no": no, "state": "waiting"}))
        now = self._now()
        move = Change(MOVE, (str(row["id"]), row["version"], "waiting", 0, now, None, ""))
        claim = claimed(idem, str(no), "", now, now + CLAIM_ANSWERED, answer)
        audit = audited(command, "event.resend", f"{lane}/{no}", self._ids.new("AU"))
        left = await self._lane.submit(Unit((claim, move, audit)))
        if not isinstance(left, Left):
            return answer
        if left.why is Why.CLAIMED and left.found is not None:
            return self._replayed(idem, stored(left.found))
        raise waiting

    def _replayed(self, idem: Idem, held: Stored) -> Answer:
        said = replay_or_refuse(idem, held, self._now())
        assert isinstance(said, Answer), "the answer is stored with the claim"
        return said


def require_address(url: str) -> None:
    """Refuse with `webhook-url` what we could not post to; "" means that nobody is told."""
    if not url:
        return
    no = Refusal("webhook-url", "an address starts with https:// or http:// and names a host")
    if len(url) > URL_CHARACTERS_MAX or not url.isprintable() or " " in url:
        raise no
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # a bracket that is not closed, a port beyond 65535
        raise no from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise no
