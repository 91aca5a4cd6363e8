"""Every number the gateway reports, as one object that is handed in.

Knows names, labels and buckets; `docs/metrics.md` lists each family and a test compares. Refuses to
compute outcomes: a deposit is counted by whoever has its committed event row in hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Final, Protocol

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from bridge import rows as platform_rows
from bridge.session import SessionState
from ledger.deals import Landed
from ledger.rebates.reads import Behind
from ledger.rebates.writer import Committed
from ledger.units import Change, Done, Left, Unit
from router import rows as payment_rows

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_REQUEST_S: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15)
_PEER_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)
_BATCH_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2)
_BATCH_UNITS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500)
_TOLD_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)
_FOLLOWED_S: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
_LAG_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 1)

Metric = Counter | Gauge | Histogram
_KINDS: Final = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}


class Family(msgspec.Struct, frozen=True):
    """A family as it is described: a counter's samples bear `_total` behind the name."""

    name: str
    kind: str
    labels: tuple[str, ...]


_SLICES: Final = ("entity", "brand", "jurisdiction")


class GatewayMetrics:
    """Counters, gauges and histograms of one process.

    Label values come from tables of ours (routes, providers, servers, kinds), never from a request.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._http(registry)
        self._books(registry)
        self._peers(registry)
        self._deals(registry)
        self._rebates(registry)
        self._live(registry)
        self._jurisdictions: Mapping[str, str] = {}
        self._outcomes(registry)
        self._house(registry)

    def _http(self, registry: CollectorRegistry) -> None:
        self.http_requests = Counter(
            "brokerd_http_requests", "Requests answered, by route template and status.",
            ["method", "route", "status"], registry=registry,
        )  # fmt: skip
        self.http_seconds = Histogram(
            "brokerd_http_request_seconds", "From the request's head to its answer.",
            ["method", "route"], buckets=_REQUEST_S, registry=registry,
        )  # fmt: skip
        self.http_refusals = Counter(
            "brokerd_http_refusals", "Requests refused, by problem code.", ["code"],
            registry=registry,
        )  # fmt: skip
        self.limits_degraded = Gauge(
            "brokerd_limits_degraded", "1 while request limits are this replica's own.",
            registry=registry,
        )  # fmt: skip

    def _books(self, registry: CollectorRegistry) -> None:
        self.lane_batch_units = Histogram(
            "brokerd_lane_batch_units", "Units of work in one committed transaction.",
            buckets=_BATCH_UNITS, registry=registry,
        )  # fmt: skip
        self.lane_batch_seconds = Histogram(
            "brokerd_lane_batch_seconds", "From taking a batch to its commit.",
            buckets=_BATCH_S, registry=registry,
        )  # fmt: skip
        self.lane_left = Counter(
            "brokerd_lane_left", "Units left out of a batch with an answer of their own.",
            registry=registry,
        )  # fmt: skip
        self.lane_waiting = Gauge(
            "brokerd_lane_waiting", "Units that wait for the next batch.", registry=registry
        )

    def _peers(self, registry: CollectorRegistry) -> None:
        self.attempts = Counter(
            "brokerd_psp_attempts", "Attempts at a provider, by outcome of the call.",
            ["psp", "outcome"], registry=registry,
        )  # fmt: skip
        self.attempt_seconds = Histogram(
            "brokerd_psp_answer_seconds", "From a request sent to a provider to its answer.",
            ["psp"], buckets=_PEER_S, registry=registry,
        )  # fmt: skip
        self.psp_webhooks = Counter(
            "brokerd_psp_webhooks", "Webhooks received from providers, by verdict.",
            ["psp", "verdict"], registry=registry,
        )  # fmt: skip
        self.inquiries = Counter(
            "brokerd_psp_inquiries", "Questions to a provider about an attempt, by outcome.",
            ["psp", "outcome"], registry=registry,
        )  # fmt: skip
        self.platform_calls = Counter(
            "brokerd_platform_calls", "Calls to a trading server, by command and class of answer.",
            ["server", "command", "class"], registry=registry,
        )  # fmt: skip
        self.platform_seconds = Histogram(
            "brokerd_platform_call_seconds", "From a call to a trading server to its end.",
            ["server", "command"], buckets=_PEER_S, registry=registry,
        )  # fmt: skip
        self.sessions = Gauge(
            "brokerd_platform_session", "1 for the state a manager session is in, else 0.",
            ["server", "state"], registry=registry,
        )  # fmt: skip

    def _deals(self, registry: CollectorRegistry) -> None:
        self.feed_rows = Counter(
            "brokerd_feed_rows", "Rows that a platform's deal feed read, by what they were.",
            ["server", "what"], registry=registry,
        )  # fmt: skip
        self.feed_failures = Counter(
            "brokerd_feed_failures", "Looks of a deal feed that failed, by reason.",
            ["server", "reason"], registry=registry,
        )  # fmt: skip
        self.feed_lag = Gauge(
            "brokerd_feed_lag_seconds", "How far behind now a platform's deals are landed.",
            ["server"], registry=registry,
        )  # fmt: skip
        self.deals_landed = Counter(
            "brokerd_deals_landed", "Looks at deals by what a committed landing made of them.",
            ["server", "outcome"], registry=registry,
        )  # fmt: skip
        self.deals_waiting = Gauge(
            "brokerd_deals_waiting", "Deals that wait beside the books, by reason.",
            ["server", "reason"], registry=registry,
        )  # fmt: skip

    def _rebates(self, registry: CollectorRegistry) -> None:
        self.deals_accrued = Counter(
            "brokerd_deals_accrued", "Landed deals that a committed batch accrued.", ["book"],
            registry=registry,
        )  # fmt: skip
        self.rebate_lines = Counter(
            "brokerd_rebate_lines", "Rebate lines of committed batches, by reason.",
            ["book", "reason"], registry=registry,
        )  # fmt: skip
        self.accrual_seconds = Histogram(
            "brokerd_accrual_batch_seconds", "From reading a batch's deals to its commit.",
            ["book"], buckets=_BATCH_S, registry=registry,
        )  # fmt: skip
        self.accrual_waiting = Gauge(
            "brokerd_accrual_waiting_deals", "Landed deals that are not accrued yet.", ["book"],
            registry=registry,
        )  # fmt: skip
        self.accrual_lag = Gauge(
            "brokerd_accrual_lag_seconds", "How long ago the oldest of them was landed.", ["book"],
            registry=registry,
        )  # fmt: skip

    def _live(self, registry: CollectorRegistry) -> None:
        self.stream_readers = Gauge(
            "brokerd_stream_readers", "Readers of partners' streams.", registry=registry
        )
        self.stream_events = Counter(
            "brokerd_stream_events", "Events handed to readers of streams.", registry=registry
        )
        self.stream_seconds = Histogram(
            "brokerd_stream_seconds", "From a batch's commit to its event for all who read it.",
            buckets=_TOLD_S, registry=registry,
        )  # fmt: skip
        self.stream_dropped = Counter(
            "brokerd_stream_dropped", "Readers dropped because they did not read in time.",
            registry=registry,
        )  # fmt: skip

    def _outcomes(self, registry: CollectorRegistry) -> None:
        self.deposits = Counter(
            "brokerd_deposits", "Deposits by the state a committed event brought them to.",
            ["state", *_SLICES], registry=registry,
        )  # fmt: skip
        self.fallbacks = Counter(
            "brokerd_fallbacks", "Charges of a deposit at its second or a later provider.",
            ["psp"], registry=registry,
        )  # fmt: skip
        self.accounts = Counter(
            "brokerd_accounts", "Trading accounts by the state a committed event brought them to.",
            ["state", *_SLICES], registry=registry,
        )  # fmt: skip
        self.credits = Counter(
            "brokerd_platform_credits", "Balance operations by the state an event brought them to.",
            ["state"], registry=registry,
        )  # fmt: skip

    def _house(self, registry: CollectorRegistry) -> None:
        self.outbox_rows = Gauge(
            "brokerd_outbox_rows", "Rows of the outbox that have not ended well.",
            ["lane", "state"], registry=registry,
        )  # fmt: skip
        self.outbox_oldest = Gauge(
            "brokerd_outbox_oldest_seconds", "Age of the oldest row that waits.", ["lane"],
            registry=registry,
        )  # fmt: skip
        self.deliveries = Counter(
            "brokerd_webhook_deliveries", "Deliveries to subscribers, by result.", ["result"],
            registry=registry,
        )  # fmt: skip
        self.items_open = Gauge(
            "brokerd_items_open", "Items a person must look at.", ["kind", "team"],
            registry=registry,
        )  # fmt: skip
        self.break_glass_open = Gauge(
            "brokerd_break_glass_open", "Roles of emergencies that are in force.",
            registry=registry,
        )  # fmt: skip
        self.audit_records = Gauge(
            "brokerd_audit_sealed_records", "Records of the audit that are sealed.",
            registry=registry,
        )  # fmt: skip
        self.audit_lag = Gauge(
            "brokerd_audit_unsealed_seconds", "Age of the oldest record that is not sealed.",
            registry=registry,
        )  # fmt: skip
        self.audit_anchor_age = Gauge(
            "brokerd_audit_anchor_age_seconds", "Age of the newest anchor; 0 before the first.",
            registry=registry,
        )  # fmt: skip
        self.loop_lag = Histogram(
            "brokerd_event_loop_lag_seconds", "How much later than asked the event loop woke us.",
            buckets=_LAG_S, registry=registry,
        )  # fmt: skip
        self.degraded = Gauge(
            "brokerd_degraded", "1 while this part of the process is degraded.", ["part"],
            registry=registry,
        )  # fmt: skip
        self.info = Gauge(
            "brokerd_rulebook_info", "Always 1; the label is the rulebook decisions are made with.",
            ["hash"], registry=registry,
        )  # fmt: skip

        self.followed = Histogram(
            "brokerd_rulebook_followed_seconds",
            "How long after a rulebook came into force this process decided with it.",
            buckets=_FOLLOWED_S, registry=registry,
        )  # fmt: skip

    def families(self) -> list[Family]:
        """Every family, for the test that compares them with the documentation."""
        found = [value for value in vars(self).values() if isinstance(value, Metric)]
        return [Family(each._name, _KINDS[type(each)], each._labelnames) for each in found]  # noqa: SLF001 - the library has no public reader of a name

    def decides(self, rulebook: str, jurisdictions: Mapping[str, str]) -> None:
        """Decisions are made with this rulebook now; each entity has the jurisdiction it names."""
        self.info.clear()
        self.info.labels(rulebook).set(1)
        self._jurisdictions = jurisdictions

    def slices(self, tags: tuple[str, ...]) -> tuple[str, str, str]:
        """Entity, brand and jurisdiction of what was counted: every sum over them is the total."""
        entity, brand = tags or ("", "")
        return entity, brand, self._jurisdictions.get(entity, "")

    def committed(self, changes: Iterable[Change]) -> None:
        """Count what these committed rows say happened; nothing else counts an outcome."""
        for change in changes:
            count = _COUNTED.get(change.kind.name)
            if count is not None:
                count(self, change)

    # --- observers: each fits the protocol of the room that calls it ------------------------------

    def batch(self, units: int, left: int, seconds: float) -> None:
        """A lane's committed batch."""
        self.lane_batch_units.observe(units)
        self.lane_batch_seconds.observe(seconds)
        if left:
            self.lane_left.inc(left)

    def attempt_finished(self, psp: str, outcome: str, seconds: float) -> None:
        """A charge at a provider ended."""
        self.attempts.labels(psp, outcome).inc()
        self.attempt_seconds.labels(psp).observe(seconds)

    def inquiry_finished(self, psp: str, outcome: str) -> None:
        """A question about an attempt was answered."""
        self.inquiries.labels(psp, outcome).inc()

    def webhook_checked(self, psp: str, verdict: str) -> None:
        """A provider's webhook was judged."""
        self.psp_webhooks.labels(psp, verdict).inc()

    def called(self, server: str, command: str, result: str, seconds: float) -> None:
        """A call to a trading server ended."""
        self.platform_calls.labels(server, command, result).inc()
        self.platform_seconds.labels(server, command).observe(seconds)

    def session_moved(self, server: str, state: SessionState) -> None:
        """A manager session is in this state now."""
        for each in SessionState:
            self.sessions.labels(server, each.value).set(1 if each is state else 0)

    def looked(self, server: str, rows: int, repeats: int, deals: int, unfit: int) -> None:
        """A deal feed read a window and landed it."""
        for what, count in (("repeat", repeats), ("deal", deals), ("unfit", unfit)):
            self.feed_rows.labels(server, what).inc(count)

    def lagging(self, server: str, lag_s: float) -> None:
        """How far behind a deal feed is; `feeds` goes on counting while it stands still."""
        self.feed_lag.labels(server).set(lag_s)

    def feed_failed(self, server: str, reason: str) -> None:
        """A look of a deal feed failed."""
        self.feed_failures.labels(server, reason).inc()

    def feeds(self, lags: Iterable[tuple[str, float | None]]) -> None:
        """The lag of the feeds that are ours; of the others their owners know."""
        self.feed_lag.clear()
        for server, lag_s in lags:
            if lag_s is not None:
                self.feed_lag.labels(server).set(lag_s)

    def landed(self, server: str, done: Landed) -> None:
        """A landing is committed."""
        for outcome in ("new", "edited", "repeated", "parked"):
            self.deals_landed.labels(server, outcome).inc(getattr(done, outcome))

    def waiting(self, rows: Iterable[tuple[str, str, int]]) -> None:
        """What waits beside the books as counted: server, reason, deals."""
        self.deals_waiting.clear()
        for server, reason, count in rows:
            self.deals_waiting.labels(server, reason).set(count)

    def accrued(self, batch: Committed, seconds: float) -> None:
        """A batch of accrual is committed."""
        book = str(batch.book)
        self.deals_accrued.labels(book).inc(batch.deals)
        for reason, lines in batch.reasons.items():
            self.rebate_lines.labels(book, reason.lower()).inc(lines)
        self.accrual_seconds.labels(book).observe(seconds)

    def accruing(self, rows: Iterable[Behind]) -> None:
        """How far each book's accrual is behind what is landed."""
        for row in rows:
            self.accrual_waiting.labels(str(row.book)).set(row.deals)
            self.accrual_lag.labels(str(row.book)).set(row.seconds)

    def watched(self, readers: int) -> None:
        """So many read streams now."""
        self.stream_readers.set(readers)

    def told(self, readers: int, seconds: float | None) -> None:
        """An event went to so many; seconds since the commit that caused it, if one did."""
        self.stream_events.inc(readers)
        if seconds is not None:
            self.stream_seconds.observe(seconds)

    def reader_dropped(self) -> None:
        """A reader of a stream did not read in time."""
        self.stream_dropped.inc()

    def outbox(self, rows: Iterable[tuple[str, str, int, datetime]], now: datetime) -> None:
        """The outbox as counted: lane, state, rows, when the oldest was made."""
        self.outbox_rows.clear()
        self.outbox_oldest.clear()
        for lane, state, count, oldest in rows:
            self.outbox_rows.labels(lane, state).set(count)
            if state == "waiting":
                self.outbox_oldest.labels(lane).set((now - oldest).total_seconds())

    def sealed(
        self, records: int, oldest: datetime | None, anchored: datetime | None, now: datetime
    ) -> None:
        """How far the audit is sealed and anchored."""
        self.audit_records.set(records)
        self.audit_lag.set(_age(oldest, now))
        self.audit_anchor_age.set(_age(anchored, now))

    def items(self, rows: Iterable[tuple[str, str, int, datetime]]) -> None:
        """Open items as counted: kind, team, how many, when the oldest was opened."""
        self.items_open.clear()
        for kind, team, count, _ in rows:
            self.items_open.labels(kind, team).set(count)

    async def render(self) -> bytes:
        """The exposition text, made in a thread: with many series it takes longer than a slice."""
        return await asyncio.to_thread(generate_latest, self.registry)


def _age(at: datetime | None, now: datetime) -> float:
    return 0.0 if at is None else max(0.0, (now - at).total_seconds())


def _payment_event(metrics: GatewayMetrics, change: Change) -> None:
    """A router event: (object, version, from, to, ...); attempts have counters of their own."""
    row = change.row
    if str(row[0]).startswith("PY"):
        metrics.deposits.labels(str(row[3]), *metrics.slices(change.tags)).inc()


def _charge_sent(metrics: GatewayMetrics, change: Change) -> None:
    """An attempt's row: (reference, payment, number, version, provider, ...)."""
    row = change.row
    if row[2] != 1:
        metrics.fallbacks.labels(str(row[4])).inc()


def _platform_event(metrics: GatewayMetrics, change: Change) -> None:
    """A bridge event: (object, from, to, ...)."""
    row = change.row
    if str(row[0]).startswith("AC"):
        metrics.accounts.labels(str(row[2]), *metrics.slices(change.tags)).inc()
    else:
        metrics.credits.labels(str(row[2])).inc()


_COUNTED: Final[Mapping[str, Callable[[GatewayMetrics, Change], None]]] = {
    payment_rows.EVENT_INSERT.name: _payment_event,
    payment_rows.ATTEMPT_INSERT.name: _charge_sent,
    platform_rows.EVENT_INSERT.name: _platform_event,
}


class Submits(Protocol):
    """The lane, as this module sees it."""

    def submit(self, unit: Unit) -> asyncio.Future[Done | Left]:
        """Hand a unit in."""
        ...


class CountedLane:
    """The lane with its outcomes counted: each unit once, after its commit, never before."""

    def __init__(self, lane: Submits, metrics: GatewayMetrics) -> None:
        self._lane = lane
        self._metrics = metrics

    def submit(self, unit: Unit) -> asyncio.Future[Done | Left]:
        """As the lane's own; a caller that goes away takes neither the unit nor its count back."""
        answer = self._lane.submit(unit)
        answer.add_done_callback(partial(self._count, unit))
        return asyncio.shield(answer)

    def _count(self, unit: Unit, answer: asyncio.Future[Done | Left]) -> None:
        if answer.cancelled() or answer.exception() is not None:
            return
        if isinstance(answer.result(), Done):
            self._metrics.committed(unit.changes)


async def watch_loop(
    metrics: GatewayMetrics, monotonic: Callable[[], float], every_s: float = 0.025
) -> None:
    """Measure for ever how much later than asked the event loop comes back."""
    while True:
        asked = monotonic()
        await asyncio.sleep(every_s)
        metrics.loop_lag.observe(max(0.0, monotonic() - asked - every_s))
