"""The demo's traffic: a steady mix of deposits, and platforms and providers that misbehave.

Knows what clients of a broker ask for and how often. Refuses to know what becomes of it: answers
and webhooks tell, and the judge looks into the books.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import cycle
from random import Random
from typing import Any, Final

import aiohttp

from gateway.demo.api import Answer, Api
from gateway.demo.caller import Envelope
from gateway.demo.peers import Admin
from gateway.demo.people import Known

IN_FLIGHT_MAX: Final = 200
RECENT: Final = 14
FAULT_EVERY_S: Final = 4.0
AMOUNTS: Final = ("10.00", "25.50", "49.99", "100.00", "150.00", "250.00", "999.99", "2600.00")
LARGE: Final = ("7500.00", "120000.00")
METHODS: Final = ("card", "card", "card", "bank_transfer", "ewallet")
FAULTS: Final = (
    {"command": "trade/balance", "action": "drop_after"},
    {"command": "trade/balance", "action": "drop_before"},
    {"command": "trade/balance", "action": "delay_after", "seconds": 1.0},
    {"command": "trade/balance", "action": "retcode_before", "code": 12},
    {"command": "trade/balance", "action": "retcode_before", "code": 10006},
)


class Watched:
    """What the calling system knows of its deposits: from answers, and from what it is told."""

    def __init__(self) -> None:
        self.asked = 0
        self.statuses: Counter[int] = Counter()
        self.refused: Counter[str] = Counter()
        self.lost = 0
        self.payments: dict[str, dict[str, Any]] = {}
        self.recent: deque[str] = deque(maxlen=RECENT)

    def answered(self, answer: Answer) -> None:
        """An answer to a deposit."""
        self.statuses[answer.status] += 1
        if answer.status in (201, 202):
            self._seen(answer.body)
        else:
            self.refused[str((answer.body or {}).get("code", answer.status))] += 1

    def told(self, event: Envelope) -> None:
        """An event about anything; those about payments are remembered."""
        if event.type.startswith("payment."):
            self._seen(event.data)

    def _seen(self, view: dict[str, Any]) -> None:
        known = self.payments.get(view["id"])
        if known is None:
            self.recent.append(view["id"])
        if known is None or known["version"] <= view["version"]:
            self.payments[view["id"]] = view


class Traffic:
    """Asks for deposits at a steady pace.

    per_s  how many each second; those that are not answered yet are limited to IN_FLIGHT_MAX
    """

    def __init__(
        self, portal: Api, clients: Sequence[Known], watched: Watched, chance: Random, per_s: float
    ) -> None:
        self._portal = portal
        self._clients = clients
        self._watched = watched
        self._chance = chance
        self._per_s = per_s
        self._room = asyncio.Semaphore(IN_FLIGHT_MAX)

    async def run_for(self, seconds: float) -> None:
        """Ask for so long, then wait for the answers that are still due."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as tasks:
            for number, order in enumerate(self._orders()):
                due = began + number / self._per_s
                if max(due, loop.time()) >= began + seconds:
                    break
                await self._room.acquire()
                await asyncio.sleep(max(0.0, due - loop.time()))
                tasks.create_task(self._ask(order))

    def _orders(self) -> Iterator[dict[str, Any]]:
        for client in cycle(self._clients):
            yield self._order(client)

    def _order(self, client: Known) -> dict[str, Any]:
        """A deposit of this client: mostly ordinary, sometimes one that no provider takes."""
        chance = self._chance
        large = chance.random() < 0.04
        to = client.account if client.account and chance.random() < 0.6 else "wallet"
        return {
            "client": client.id,
            "amount": {
                "amount": chance.choice(LARGE if large else AMOUNTS),
                "currency": client.person.currency,
            },
            "method": chance.choice(METHODS),
            "to": to,
        }

    async def _ask(self, order: dict[str, Any]) -> None:
        self._watched.asked += 1
        try:
            self._watched.answered(await self._portal.send("POST", "/v1/deposits", order))
        except (aiohttp.ClientError, TimeoutError):
            self._watched.lost += 1  # a calling system would repeat it with the same key
        finally:
            self._room.release()


async def trouble(
    platform: Admin, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Let the platform misbehave now and then, until cancelled; providers have their profiles."""
    for fault in cycle(FAULTS):
        await sleep(FAULT_EVERY_S)
        await platform.post("/faults", fault)
