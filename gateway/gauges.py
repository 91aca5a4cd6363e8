"""Gauges of the shared tables: what is counted when somebody scrapes.

Knows which room counts what. Refuses to keep anything between two scrapes, and to know when there
is one.
"""

from __future__ import annotations

from datetime import datetime

import asyncpg

from gateway.control import glass, items, sealing
from gateway.flows import queries as flow_queries
from gateway.metrics import GatewayMetrics
from ledger import deals
from ledger.rebates import reads as rebate_reads


async def read(conn: asyncpg.Connection, metrics: GatewayMetrics, now: datetime) -> None:
    """Ask every table whose rows are shown as a number."""
    rows = await conn.fetch(flow_queries.DEPTH)
    metrics.outbox([tuple(row) for row in rows], now)
    metrics.items(await items.count_open(conn))
    metrics.waiting(await deals.count_waiting(conn))
    metrics.accruing(await rebate_reads.behind(conn))
    metrics.break_glass_open.set(await glass.count_open(conn))
    seal = await sealing.lag(conn)
    metrics.sealed(seal.records, seal.oldest, seal.anchored, now)
