"""The channel between replicas ends when it is told to."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio import Redis

from gateway.flows.waking import Channel


class Deaf(Redis):
    """A client that keeps the first cancellation to itself, as `asyncio.wait_for` may do."""

    def __init__(self) -> None:
        self.sending = asyncio.Event()

    def pubsub(self, **_: Any) -> Any:
        return self

    async def subscribe(self, *_: Any, **__: Any) -> None:
        self.sending.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return  # it was sent at that very moment

    async def get_message(self, **_: Any) -> None:
        await asyncio.Event().wait()

    async def aclose(self, *_: Any) -> None:
        """It has nothing to close."""


async def test_a_cancellation_that_the_client_kept_to_itself_ends_the_channel() -> None:
    """Whoever waits for the channel to end does not wait for ever."""
    client = Deaf()
    channel = Channel(client, "RP1", poll_s=60.0)
    running = asyncio.create_task(channel.run(lambda _: None, lambda: None))
    await client.sending.wait()
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=10)
    assert done
    assert running.cancelled()
