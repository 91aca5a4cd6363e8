"""A calling system at constant throughput, as locust plays it.

Each user asks for one deposit a second, whatever the answers take, so a slow daemon meets as many
requests as a quick one. `make load` runs it headless; by hand:
`LOAD_TOKEN=... LOAD_CLIENTS=CL...,CL... locust -f loadtests/locustfile.py --host http://...`.
It knows the deposit and its read. It refuses to know how the daemon was started.
"""

from __future__ import annotations

import itertools
import os
import uuid
from typing import Final

from locust import FastHttpUser, constant_throughput, task

PER_USER_S: Final = 1.0
AMOUNTS: Final = ("10.00", "20.00", "49.99", "100.00", "250.00", "999.99")
READ_EVERY: Final = 10  # a deposit of so many is read back

TOKEN: Final = os.environ.get("LOAD_TOKEN", "")
CLIENTS: Final = itertools.cycle(os.environ.get("LOAD_CLIENTS", "").split(","))
NUMBERS: Final = itertools.count(1)


class CallingSystem(FastHttpUser):
    """One thread of work of the calling system."""

    wait_time = constant_throughput(PER_USER_S)
    network_timeout = 30.0
    connection_timeout = 5.0

    @task
    def deposit(self) -> None:
        """Ask for a deposit to the client's wallet; now and then read it back."""
        number = next(NUMBERS)
        order = {
            "client": next(CLIENTS),
            "amount": {"amount": AMOUNTS[number % len(AMOUNTS)], "currency": "USD"},
            "method": "card",
        }
        headers = {"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": str(uuid.uuid4())}
        with self.client.post(
            "/v1/deposits", json=order, headers=headers, catch_response=True
        ) as answer:
            if answer.status_code not in (201, 202):
                answer.failure(f"{answer.status_code}: {answer.text[:200]}")
                return
            where = answer.headers["Location"]
        if number % READ_EVERY == 0:
            self.client.get(where, headers=headers, name="/v1/payments/{id}")
