"""Clients for many requests at once: those who ask while a query is under way share the next one.

Knows that a request needs its client's row as it stands after it asked. Refuses to keep a row: the
next request reads it again, and the unit of work checks that it has not moved.
"""

from __future__ import annotations

import asyncio

import asyncpg

from gateway.people import clients
from gateway.people.clients import Client

Asked = dict[str, list[asyncio.Future[Client | None]]]


class Lookup:
    """Reads clients by id, one query at a time."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._asked: Asked = {}
        self._reading: asyncio.Task[None] | None = None

    async def find(self, id: str) -> Client | None:
        """The client as its row stands at a moment after this call; None when there is none."""
        found: asyncio.Future[Client | None] = asyncio.get_running_loop().create_future()
        self._asked.setdefault(id, []).append(found)
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        return await found

    async def _read(self) -> None:
        """Ask for all who wait, until nobody does."""
        try:
            while self._asked:
                asked, self._asked = self._asked, {}
                await self._answer(asked)
        finally:
            self._reading = None

    async def _answer(self, asked: Asked) -> None:
        waiting = [(id, each) for id, futures in asked.items() for each in futures]
        try:
            async with self._pool.acquire() as conn:
                found = await clients.find_all(conn, list(asked))
        except Exception as error:  # noqa: BLE001 each who asked raises it
            for _, each in waiting:
                if not each.done():  # done: whoever asked has gone
                    each.set_exception(error)
            return
        for id, each in waiting:
            if not each.done():
                each.set_result(found.get(id))
