"""Clients looked up for many requests at once, on a real database."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from gateway.people.lookup import Lookup
from tests.integration.gateway.conftest import Api


class Counted:
    """A pool that counts how often a connection is taken; and fails while it is told to."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self.taken = 0
        self.fails = False

    def acquire(self) -> object:
        """A connection of the real pool."""
        if self.fails:
            raise ConnectionRefusedError
        self.taken += 1
        return self._pool.acquire()


async def test_those_who_ask_at_once_share_a_query(api: Api) -> None:
    """A hundred requests in one turn of the loop cost one query, and each hears of its own."""
    first, second = await api.new_client("c-1"), await api.new_client("c-2")
    pool = Counted(api.pool)
    lookup = Lookup(pool)

    ids = [str(each["id"]) for each in (first, second)] * 50
    found = await asyncio.gather(*[lookup.find(id) for id in ids])

    assert [client.id for client in found if client] == ids
    assert pool.taken == 1


async def test_a_row_is_read_again_for_whoever_asks_later(api: Api) -> None:
    """Nothing is kept: a client that moved is seen as moved by the next request."""
    view = await api.new_client()
    lookup = Lookup(api.pool)
    before = await lookup.find(str(view["id"]))
    await api.walk(view, "registered")

    after = await lookup.find(str(view["id"]))

    assert before is not None
    assert after is not None
    assert (before.version, after.version) == (1, 2)
    assert after.state == "registered"


async def test_an_unknown_client_is_none_beside_a_known_one(api: Api) -> None:
    """An id without a client is nobody, whatever its neighbours in the query are."""
    view = await api.new_client()
    lookup = Lookup(api.pool)

    nobody, known = await asyncio.gather(lookup.find("CL" + "0" * 18), lookup.find(str(view["id"])))

    assert nobody is None
    assert known is not None


async def test_a_failed_query_is_told_to_all_and_the_next_is_asked_again(api: Api) -> None:
    """A database that is away fails those who asked then, and nobody later."""
    view = await api.new_client()
    pool = Counted(api.pool)
    lookup = Lookup(pool)
    pool.fails = True

    failed = await asyncio.gather(
        *[lookup.find(str(view["id"])) for _ in range(3)], return_exceptions=True
    )
    pool.fails = False

    assert [type(each) for each in failed] == [ConnectionRefusedError] * 3
    assert await lookup.find(str(view["id"])) is not None


async def test_a_caller_who_goes_away_takes_nobody_along(api: Api) -> None:
    """A cancelled request leaves the shared query to the others."""
    view = await api.new_client()
    lookup = Lookup(api.pool)
    gone, stays = (asyncio.create_task(lookup.find(str(view["id"]))) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()

    assert await stays is not None
    with pytest.raises(asyncio.CancelledError):
        await gone
