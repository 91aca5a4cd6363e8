"""Login numbers leased before an account is created, so that a repeated creation names itself.

Knows that a number of a server goes to one account and an account gets one number, for ever.
Refuses to know the platform: whether a number is free there, only the platform's answer says.
"""

from __future__ import annotations

import asyncpg

from bridge import queries as q


class LoginsExhausted(Exception):
    """Every number of the range is leased: an operator must widen it."""


async def allocate_login(
    conn: asyncpg.Connection, server: str, range_from: int, range_to: int, account_id: str
) -> int:
    """Lease the next free number in [range_from, range_to]; the same account gets the same number.

    Runs in its own short transaction under the range's row lock. Raises LoginsExhausted.
    """
    async with conn.transaction():
        await conn.execute(q.OPEN_LOGIN_RANGE, server, range_from)
        following = await conn.fetchval(q.LOCK_LOGIN_RANGE, server, range_from)
        leased = await conn.fetchval(q.LEASED_LOGIN, account_id)
        if leased is not None:
            return int(leased)
        login = await _first_free(conn, server, range_from, following, range_to, account_id)
        await conn.execute(q.MOVE_LOGIN_RANGE, server, range_from, login + 1)
        return login


async def _first_free(
    conn: asyncpg.Connection,
    server: str,
    range_from: int,
    following: int,
    range_to: int,
    account_id: str,
) -> int:
    """Lease the first number that no overlapping range has taken."""
    for login in range(following, range_to + 1):
        if await conn.fetchval(q.LEASE_LOGIN, server, login, range_from, account_id) is not None:
            return login
    raise LoginsExhausted(f"{server}: no login is left in {range_from}-{range_to}")
