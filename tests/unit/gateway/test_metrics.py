"""The gateway's numbers: each is documented, bounded, and observed through the rooms' protocols."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from bridge.feed import Observer as FeedObserver
from bridge.pool import Observer as PlatformObserver
from bridge.rows import EVENT_INSERT as PLATFORM_EVENT
from bridge.rows import account_moved, account_parked, account_requested
from bridge.session import SessionState
from bridge.states import Account, AccountState
from gateway.flows.landing import Observer as LandingObserver
from gateway.metrics import CountedLane, GatewayMetrics, watch_loop
from ledger.deals import Landed
from ledger.lane import Observer as LaneObserver
from ledger.units import Change, Done, Left, Unit, Why
from router.attempts import Observer as PaymentObserver
from router.rows import ATTEMPT_INSERT, EVENT_INSERT, payment_created, payment_moved
from router.states import PaymentState
from tests.unit.router.values import payment, route

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"
AT = datetime(2026, 1, 1, tzinfo=UTC)


def exposed(metrics: GatewayMetrics) -> dict[tuple[str, ...], float]:
    """Samples by name and label values, in the order of the labels' names."""
    text = asyncio.run(metrics.render()).decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_family_is_documented_and_nothing_else() -> None:
    """docs/metrics.md lists each family with its type and labels."""
    rows = re.findall(r"^\| `(brokerd_\w+)` \| (\w+) \| (.*?) \|", DOCS.read_text(), re.MULTILINE)
    documented = {
        (name, kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows
    }
    metrics = GatewayMetrics(CollectorRegistry())
    real = {
        (family.name + ("_total" if family.kind == "counter" else ""), family.kind, family.labels)
        for family in metrics.families()
    }

    assert documented == real


def test_the_rooms_observers_fit() -> None:
    """One object serves the lane, the router and the bridge."""
    metrics = GatewayMetrics(CollectorRegistry())
    lane: LaneObserver = metrics
    payments: PaymentObserver = metrics
    platform: PlatformObserver = metrics
    feed: FeedObserver = metrics
    landings: LandingObserver = metrics

    lane.batch(7, 2, 0.01)
    payments.attempt_finished("acme", "approved", 0.2)
    payments.inquiry_finished("acme", "unknown")
    payments.webhook_checked("acme", "forged")
    platform.called("mt5-live", "user_add", "ok", 0.1)
    platform.session_moved("mt5-live", SessionState.LIVE)
    feed.looked("mt5-live", 9, 5, 3, 1)
    feed.lagging("mt5-live", 2.5)
    feed.feed_failed("mt5-live", "timeout")
    landings.landed("mt5-live", Landed(new=3, parked=1))

    samples = exposed(metrics)
    assert samples["brokerd_feed_rows_total", "mt5-live", "repeat"] == 5
    assert samples["brokerd_feed_lag_seconds", "mt5-live"] == 2.5
    assert samples["brokerd_feed_failures_total", "timeout", "mt5-live"] == 1
    assert samples["brokerd_deals_landed_total", "new", "mt5-live"] == 3
    assert samples["brokerd_lane_left_total",] == 2
    assert samples["brokerd_psp_attempts_total", "approved", "acme"] == 1
    assert samples["brokerd_psp_webhooks_total", "acme", "forged"] == 1
    assert samples["brokerd_platform_calls_total", "ok", "user_add", "mt5-live"] == 1


def test_a_session_is_in_one_state() -> None:
    """Moving on sets the old state back to 0."""
    metrics = GatewayMetrics(CollectorRegistry())
    metrics.session_moved("mt5-live", SessionState.LIVE)
    metrics.session_moved("mt5-live", SessionState.BACKING_OFF)

    samples = exposed(metrics)
    states = {
        key[2]: value for key, value in samples.items() if key[0] == "brokerd_platform_session"
    }
    assert states == {"down": 0, "dialling": 0, "live": 0, "backing_off": 1}


def test_gauges_of_tables_forget_what_is_gone() -> None:
    """A lane or a kind without rows is not shown with its last figure."""
    metrics = GatewayMetrics(CollectorRegistry())
    metrics.outbox([("subscriber:a", "waiting", 3, AT)], AT + timedelta(seconds=9))
    metrics.items([("dead", "payments", 2, AT)])
    metrics.waiting([("mt5-live", "unknown-login", 4)])
    metrics.feeds([("mt5-live", 7.0)])
    first = exposed(metrics)
    metrics.outbox([], AT)
    metrics.items([])
    metrics.waiting([])
    metrics.feeds([("mt5-live", None)])
    second = exposed(metrics)

    assert first["brokerd_outbox_oldest_seconds", "subscriber:a"] == 9
    assert first["brokerd_items_open", "dead", "payments"] == 2
    assert first["brokerd_deals_waiting", "unknown-login", "mt5-live"] == 4
    assert first["brokerd_feed_lag_seconds", "mt5-live"] == 7
    assert not {"brokerd_deals_waiting", "brokerd_feed_lag_seconds"} & {key[0] for key in second}
    assert not [key for key in second if key[0] in {"brokerd_outbox_rows", "brokerd_items_open"}]


async def test_the_loops_lag_is_measured() -> None:
    """A watcher leaves one observation a turn until it is cancelled."""
    metrics = GatewayMetrics(CollectorRegistry())
    times = iter([0.0, 0.3, 1.0, 1.01])
    done = asyncio.Event()

    def monotonic() -> float:
        try:
            return next(times)
        except StopIteration:
            done.set()
            return 2.0

    async with asyncio.timeout(10):
        watching = asyncio.create_task(watch_loop(metrics, monotonic, every_s=0.001))
        await done.wait()
        watching.cancel()

    text = (await metrics.render()).decode()
    assert 'brokerd_event_loop_lag_seconds_bucket{le="0.25"} 1.0' in text


class OneLane:
    """A lane that answers when told."""

    def __init__(self) -> None:
        self.answers: list[asyncio.Future[Done | Left]] = []

    def submit(self, unit: Unit) -> asyncio.Future[Done | Left]:
        """Keep the answer open."""
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]


def event(object_id: str, state: str) -> Change:
    """A router event that brought this object to this state."""
    return Change(EVENT_INSERT, (object_id, 2, "in_progress", state, state, "{}", "x", AT))


async def test_outcomes_are_counted_from_committed_rows_only() -> None:
    """A unit in flight, left out or failed counts nothing; a committed one counts once."""
    metrics = GatewayMetrics(CollectorRegistry())
    inner = OneLane()
    lane = CountedLane(inner, metrics)
    unit = Unit((event("PY" + "0" * 18, "approved"), event("AT" + "0" * 18, "declined")))
    waiting = [lane.submit(unit) for _ in range(3)]
    waiting[2].cancel()  # the caller goes away; the unit stays in the lane

    def counted() -> float | None:
        whole = {"state": "approved", "entity": "", "brand": "", "jurisdiction": ""}
        return metrics.registry.get_sample_value("brokerd_deposits_total", whole)

    assert counted() is None
    inner.answers[0].set_result(Left(Why.STALE, "k", "k"))
    inner.answers[1].set_exception(RuntimeError("refused"))
    await asyncio.sleep(0)
    assert counted() is None
    inner.answers[2].set_result(Done((), None))
    await asyncio.sleep(0)
    assert counted() == 1
    assert isinstance(waiting[1].exception(), RuntimeError)


async def test_outcomes_are_counted_by_entity_brand_and_jurisdiction() -> None:
    """Of payments and of accounts; the sum over the slices is the total."""
    metrics = GatewayMetrics(CollectorRegistry())
    metrics.decides("h", {"fx-eu": "CY", "fx-int": "SC"})
    met = (
        ("fx-eu", "northgate"), ("fx-int", "southbank"), ("fx-int", "eastwind"),
        ("fx-eu", "northgate"),
    )  # fmt: skip
    paid = event("PY" + "0" * 18, "approved")
    row = ("AC" + "0" * 18, "sent", "verified", "verified", "{}", "x", AT)
    traded = Change(PLATFORM_EVENT, row)
    for tags in met:
        metrics.committed([msgspec.structs.replace(it, tags=tags) for it in (paid, traded)])

    for name, state in (("brokerd_deposits", "approved"), ("brokerd_accounts", "verified")):
        found = {
            tuple(sample.labels[key] for key in ("jurisdiction", "entity", "brand")): sample.value
            for family in metrics.registry.collect()
            if family.name == name
            for sample in family.samples
            if sample.name.endswith("_total") and sample.labels["state"] == state
        }
        assert found == {
            ("CY", "fx-eu", "northgate"): 2, ("SC", "fx-int", "southbank"): 1,
            ("SC", "fx-int", "eastwind"): 1,
        }  # fmt: skip


def test_rows_of_payments_and_accounts_say_whose_they_are() -> None:
    """Each event that is counted bears the entity and the brand of its object."""
    paid = payment()
    done = msgspec.structs.replace(paid, version=paid.version + 1, state=PaymentState.APPROVED)
    account = Account(
        id="AC" + "0" * 18, client_id="CL" + "0" * 18, book=1, server="mt5", entity="fx-eu",
        brand="northgate", account_type="raw", currency="EUR", platform_group="g", leverage=30,
        rights=355, due_at=AT, caller="crm", correlation="c", created=AT, updated=AT,
    )  # fmt: skip

    rows = (
        *payment_created(paid, route("acme"), "x"), *payment_moved(paid, done, "x", AT),
        *account_requested(account, "x"),
        *account_moved(account, AccountState.REFUSED, at=AT, actor="x"),
        *account_parked(account, "why", AT, "x"),
    )  # fmt: skip
    tags = [row.tags for row in rows if row.kind in (EVENT_INSERT, PLATFORM_EVENT)]

    assert tags == [(paid.entity, paid.brand)] * 2 + [("fx-eu", "northgate")] * 3


async def test_a_charge_at_a_second_provider_is_a_fallback() -> None:
    """The first charge of a deposit is none."""
    metrics = GatewayMetrics(CollectorRegistry())
    for number, psp in ((1, "acme"), (2, "bolt")):
        metrics.committed([Change(ATTEMPT_INSERT, ("AT", "PY", number, 1, psp))])

    assert metrics.registry.get_sample_value("brokerd_fallbacks_total", {"psp": "bolt"}) == 1
    assert metrics.registry.get_sample_value("brokerd_fallbacks_total", {"psp": "acme"}) is None
