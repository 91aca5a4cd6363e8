"""A simulated platform on the loopback interface, and a session pool on it.

Knows how to start both with quick figures. Refuses to reach into the product: faults go through the
simulator's script, and what happened is read from its books.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import SystemRandom

import pytest

from bridge.pool import Pool
from bridge.session import Server, SessionState
from bridge.sim.books import Deal, Group, User
from bridge.sim.certificate import Certificate, make_certificate
from bridge.sim.faults import Action, Fault
from bridge.sim.mt5 import running
from bridge.sim.platform import Options, Platform
from bridge.states import Account, Operation
from config.secret import Secret

PASSWORD = "Password1"
MANAGER = 1007
EUR = Group(group=r"real\EU\standard-EUR", currency="EUR", login_from=100_001, login_to=100_100)
USD = Group(group=r"real\INT\raw-USD", currency="USD", login_from=200_001, login_to=200_003)
STARTED = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """One throw-away certificate for the session."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def now() -> datetime:
    """The clock of these tests."""
    return datetime.now(UTC)


class Counted:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        self.states: list[SessionState] = []

    def called(self, server: str, command: str, result: str, seconds: float) -> None:
        self.calls[command, result] += 1

    def session_moved(self, server: str, state: SessionState) -> None:
        self.states.append(state)


class Field:
    """One simulated platform and what is needed to reach it; it can be stopped and started."""

    def __init__(self, folder: Path, certificate: Certificate) -> None:
        self.folder = folder
        self.certificate = certificate
        (folder / "password").write_text(PASSWORD + "\n")
        self.idle_s = 180.0
        self.platform: Platform
        self.url = ""
        self.admin_url = ""
        self._port = 0
        self._stack = AsyncExitStack()
        self.observer = Counted()

    async def start(self, clock: Callable[[], datetime] = now) -> None:
        options = Options(
            listen=f"127.0.0.1:{self._port}",
            admin="127.0.0.1:0",
            state=self.folder / "journal",
            certificate=self.certificate.certificate,
            key=self.certificate.key,
            manager=MANAGER,
            password_file=self.folder / "password",
            idle_s=self.idle_s,
        )
        server = await self._stack.enter_async_context(running(options, clock))
        self.platform, self.url, self.admin_url = server.platform, server.url, server.admin_url
        self._port = int(self.url.rpartition(":")[2])
        for group in (EUR, USD):
            self.platform.books.record(group)

    async def stop(self) -> None:
        await self._stack.aclose()

    def script(self, command: str, action: Action, **more: float) -> None:
        self.platform.script.add(Fault(command=command, action=action, **more))

    @property
    def users(self) -> list[User]:
        return list(self.platform.books.users.values())

    @property
    def deals(self) -> list[Deal]:
        return [deal for deals in self.platform.books.deals.values() for deal in deals]

    def server(self, **changes: object) -> Server:
        figures: dict[str, object] = {
            "id": "mt5-live",
            "url": self.url,
            "login": MANAGER,
            "password": Secret(PASSWORD),
            "ca_file": str(self.certificate.authority),
            "settle_time_s": 1.0,
            "backoff_first_s": 0.02,
            "backoff_max_s": 0.1,
            "call_timeout_s": 5.0,
        }
        return Server(**(figures | changes))

    def new_pool(self, **changes: object) -> Pool:
        server = self.server(**changes)
        return Pool(server, now, time.monotonic, SystemRandom(), self.observer)


@asynccontextmanager
async def kept_alive(pool: Pool) -> AsyncIterator[Pool]:
    """Run a pool for the length of a block."""
    task = asyncio.create_task(pool.run())
    try:
        yield pool
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def eventually(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    """Wait until a condition holds; fails at the limit."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def field(tmp_path: Path, certificate: Certificate) -> AsyncIterator[Field]:
    """A platform of this test's own."""
    made = Field(tmp_path, certificate)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def pool(field: Field) -> AsyncIterator[Pool]:
    """A live session with it."""
    async with kept_alive(field.new_pool()) as pool:
        await eventually(lambda: pool.status().state is SessionState.LIVE)
        yield pool


_numbers = iter(range(1, 10_000))


@pytest.fixture
def account() -> Account:
    """An account that is wanted under a leased login."""
    return new_account(100_001)


def new_account(login: int) -> Account:
    """An account of the euro group; every call makes another."""
    return Account(
        id=f"AC{next(_numbers):018d}",
        client_id="CL000000000000000001",
        book=1,
        server="mt5-live",
        entity="fx-eu",
        brand="northgate",
        account_type="standard",
        currency="EUR",
        platform_group=EUR.group,
        leverage=30,
        rights=355,
        login=login,
        correlation="CR000000000000000001",
        created=STARTED,
        updated=STARTED,
    )


def new_operation(login: int, minor: int = 10_000) -> Operation:
    """A balance operation as it looks once *sent* is committed; every call makes another."""
    return Operation(
        id=f"BO{next(_numbers):018d}",
        account_id="AC000000000000000001",
        server="mt5-live",
        login=login,
        book=1,
        amount_minor=minor,
        currency="EUR",
        payment_id=f"PY{next(_numbers):018d}",
        sent_at=now(),
        correlation="CR000000000000000001",
        created=now(),
        updated=now(),
    )


@pytest.fixture
def opened(field: Field) -> int:
    """The login of an account that is on the platform already."""
    field.platform.books.record(
        User(
            login=100_050,
            group=EUR.group,
            rights=355,
            leverage=30,
            name="somebody",
            id="",
            comment="",
            registration=0,
        )
    )
    return 100_050
