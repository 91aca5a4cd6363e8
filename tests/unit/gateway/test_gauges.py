"""The gauges that are read from tables when a scraper asks.

It knows a daemon's house by the few parts that they need. It refuses to start one.
"""

from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from gateway.daemon import House
from gateway.metrics import GatewayMetrics


class Away:
    """A pool whose database cannot be reached, or that has a bug."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def acquire(self) -> "Away":
        """As asyncpg's."""
        return self

    async def __aenter__(self) -> None:
        raise self._error

    async def __aexit__(self, *_: object) -> None:
        """Nothing was taken."""


def house(error: Exception) -> SimpleNamespace:
    """The parts of a house whose database fails with this error."""
    return SimpleNamespace(
        metrics=GatewayMetrics(CollectorRegistry()),
        lane=SimpleNamespace(waiting=7),
        feeds={},
        life=SimpleNamespace(troubles=lambda: {"database": "away", "redis": ""}),
        pool=Away(error),
    )


async def test_metrics_are_read_while_the_database_is_away() -> None:
    """What a process says of itself is needed most when its database is gone: it is still told."""
    away = house(ConnectionRefusedError("nobody listens"))
    await House._refresh_metrics(away)
    text = (await away.metrics.render()).decode()
    assert 'brokerd_degraded{part="database"} 1.0' in text
    assert 'brokerd_degraded{part="redis"} 0.0' in text
    assert "brokerd_lane_waiting 7.0" in text


async def test_a_bug_behind_a_gauge_is_not_swallowed() -> None:
    """Only the world's failures are waited out; a mistake of ours is seen."""
    with pytest.raises(KeyError):
        await House._refresh_metrics(house(KeyError("no such column")))
