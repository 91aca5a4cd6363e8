"""Connections that write to the books: the limits every writer bears.

Knows the settings that end a stopped or slow writer and keep its plans from going stale. Refuses to
know who connects, when to dial again and what is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import asyncpg

from ledger import queries as q

TRANSACTION_S: Final = 2.0  # what closes the horizon of reads as of a time
DIAL_S: Final = 5.0
COMMAND_S: Final = 10.0  # a server silent for longer than it may work is gone
TRANSACTION_TIMEOUT_SINCE: Final = 17
STATEMENTS_KEPT: Final = 256


def writer_settings(transaction_s: float = TRANSACTION_S) -> Mapping[str, str]:
    """What every server understands when a connection opens; seconds become milliseconds.

    Locks are taken first and what they guard is read under them, which is what *read committed*
    does. Half the limit may be spent waiting for one lock. Writers look rows up by key, always: a
    plan that was made while a table was nearly empty must not stay a scan when it has grown, so
    scans and hash joins are never chosen. Their forbidding price would call the just-in-time
    compiler, which is off therefore.
    """
    limit = f"{transaction_s * 1000:.0f}"
    return {
        "application_name": "brokerd writer",
        "idle_in_transaction_session_timeout": limit,
        "statement_timeout": limit,
        "default_transaction_isolation": "read committed",
        "lock_timeout": f"{transaction_s * 500:.0f}",
        "enable_seqscan": "off",
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
        "plan_cache_mode": "force_generic_plan",
        "jit": "off",
    }


async def connect_writer(
    dsn: str, *, transaction_s: float = TRANSACTION_S, command_s: float = COMMAND_S
) -> asyncpg.Connection:
    """Open a connection whose transactions end within `transaction_s` seconds.

    A server of version 17 or newer ends the whole transaction; an older one ends each statement and
    each pause, and the lane looks at the clock before COMMIT. Raises OSError, TimeoutError or
    asyncpg.PostgresError when the server cannot be reached.
    """
    conn = await asyncpg.connect(
        dsn,
        timeout=DIAL_S,
        command_timeout=command_s,
        statement_cache_size=STATEMENTS_KEPT,
        max_cached_statement_lifetime=0,
        server_settings=dict(writer_settings(transaction_s)),
    )
    try:
        if conn.get_server_version().major >= TRANSACTION_TIMEOUT_SINCE:
            await conn.execute(q.LIMIT_TRANSACTION, f"{transaction_s * 1000:.0f}")
    except BaseException:  # nobody will ever hold it: not even a cancelled dial leaves one open
        conn.terminate()
        raise
    return conn
