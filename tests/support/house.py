"""A whole broker for a test: real daemons as processes, simulated peers, a calling system.

It knows how to start them, make them misbehave, kill them and compare all books. It refuses to
know what a story is about, and to reach into a daemon: it is asked over its API, and judged by
its books.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import asyncpg
import msgspec

from config.rulebook import Rulebook
from gateway.control import rulebook as rulebooks
from gateway.control.keys import NewKey
from gateway.demo import daemons, people
from gateway.demo.api import Answer, Api
from gateway.demo.caller import Ear
from gateway.demo.children import Child
from gateway.demo.daemons import KeyRing, Wish
from gateway.demo.judge import Judge, compared, without
from gateway.demo.peers import (
    Admin,
    Peer,
    Secrets,
    authority,
    free_port,
    start_platform,
    start_provider,
)
from gateway.demo.people import Desk, Known, Person
from ledger.ids import Ids

T = TypeVar("T")

WAIT_S: Final = 30.0
POLL_S: Final = 0.05
ANSWER_WITHIN_S: Final = 3.0
DEMO: Final = Path(__file__).parents[2] / "config" / "demo"
PAYMENTS_OF_CLIENT: Final = "SELECT id FROM router.payment WHERE client_id = $1 ORDER BY id"
UNSENT: Final = "SELECT count(*) FROM gateway.outbox WHERE state = 'waiting'"
ATTEMPTS_OF_CLIENT: Final = """
SELECT a.id FROM router.attempt a JOIN router.payment p ON p.id = a.payment_id
 WHERE p.client_id = $1
"""
STAFF: Final = (
    NewKey("portal", "svc.caller"),
    NewKey("olga", "kyc-analyst"),
    NewKey("carl", "compliance"),
    NewKey("otto", "auditor"),
    NewKey("reader", "sre"),
    NewKey("narrow", "svc.caller", ("fx-int",)),
)
Rules = Mapping[str, Mapping[str, str]]
QUICK: Final[Rules] = {
    "broker.toml": {"settle_time_s": "0.6", "poll_s": "0.1", "sweep_every_s": "2"},
    "payments.toml": {
        "answer_timeout_s": "1", "lease_s": "2", "not_found_grace_s": "1.5",
        "not_found_gap_s": "0.3", "resolver_steps_s": "[0.4, 0.8, 1.2, 2, 3, 4, 6, 8, 12, 20, 60]",
        "steps_s": "[0.2, 0.4, 0.8]", "attempts_max = 8": "attempts_max = 4",
    },
    "plans.toml": {
        '    { group = "indices", per_lot = "0.405"':
            '    { group = "indices", per_lot = "0.40" },',
    },
}  # fmt: skip
"""The sample rulebook's times, shortened: what is waited for. And the rate of a well known story:
a hundred deals of a hundredth of a lot at 0.40.
"""


class Addresses(msgspec.Struct, frozen=True):
    """The servers a house stands on."""

    daemon_dsn: str
    owner_dsn: str
    redis_url: str


class Daemon:
    """One daemon: its settings stay, its process may be killed and started again."""

    def __init__(
        self, wish: Wish, settings: Path, environ: Mapping[str, str], http: aiohttp.ClientSession
    ) -> None:
        self.wish = wish
        self.settings = settings
        self.url = f"http://127.0.0.1:{wish.port}"
        self._environ = environ
        self._http = http
        self._child: Child | None = None

    async def start(self) -> None:
        """Start it and wait until it takes work."""
        self._child = await daemons.start_daemon(self.wish, self.settings, self._environ)

    async def kill(self) -> None:
        """End it as a crash would: no handler of its own runs."""
        assert self._child is not None
        await self._child.kill()

    async def stop(self) -> int:
        """End it in order; returns its exit code."""
        if self._child is None:
            return 0
        child, self._child = self._child, None
        return await child.stop()

    async def restart(self) -> None:
        """Its next life."""
        await self.stop()
        await self.start()

    def send(self, number: signal.Signals) -> None:
        """Signal its process."""
        assert self._child is not None
        self._child.send(number)

    def log(self) -> str:
        """What it wrote so far, all lives together."""
        return (self.wish.folder / f"{self.wish.name}.log").read_text()


class House:
    """A broker at work. `portal`, `olga` and the others are callers with keys of their own."""

    def __init__(
        self,
        addresses: Addresses,
        folder: Path,
        http: aiohttp.ClientSession,
        opened: AsyncExitStack,
        rules: Rules,
        environ: Mapping[str, str],
        spare: Sequence[str] = (),
    ) -> None:
        self.addresses = addresses
        self.folder = folder
        self.http = http
        self.ids = Ids(lambda: time.time_ns() // 1_000_000, os.urandom)
        self.secrets = Secrets(folder / "secrets", os.urandom)
        self.rulebook = _quick_rulebook(folder / "rulebook", rules)
        self.book = _read(self.rulebook)
        self.spare = spare
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("BROKERD_")}
        self.environ = inherited | dict(environ)
        self.tokens: dict[str, str] = {}
        self.providers: dict[str, Admin] = {}
        self.ear = Ear(folder / "caller.journal", _now, lambda _: False)
        self.excused: set[str] = set()
        self._opened = opened
        self._numbers = count(1)

    # --- starting -------------------------------------------------------------------------------

    async def open(self) -> None:
        """Keys, peers, one daemon, and the caller's ear."""
        for name, secret in (
            ("daemon-dsn", self.addresses.daemon_dsn), ("owner-dsn", self.addresses.owner_dsn),
            ("redis-url", self.addresses.redis_url),
        ):  # fmt: skip
            self.secrets.write(name, secret)
        await self._make_keys()
        port = free_port()
        await self._start_peers(f"http://127.0.0.1:{port}")
        self.daemon = self.daemon_at("brokerd", port)
        await self._run(self.daemon)
        self.ear_address = await self._opened.enter_async_context(self.ear.listening())
        await self.hears_at(self.ear_address)

    async def _make_keys(self) -> None:
        ring = KeyRing(self.book, self.secrets, self.ids, _now, os.urandom)
        async with self.database() as conn:
            self.tokens = {wish.owner: await ring.key(conn, wish) for wish in STAFF}

    async def _start_peers(self, url: str) -> None:
        groups, names = self.book.groups, [*(psp.id for psp in self.book.psps), *self.spare]
        starting = [start_platform(self.folder, self.secrets, groups, self.environ)]
        starting += [
            start_provider(
                name, self.folder, self.secrets, self.environ,
                webhook_url=f"{url}/v1/psps/{name}/webhooks",
            )
            for name in names
        ]  # fmt: skip
        platform, *providers = await asyncio.gather(*starting)
        self._keep(platform)
        self.platform = Admin(self.http, platform)
        for name, peer in zip(names, providers, strict=True):
            self._keep(peer)
            self.providers[name] = Admin(self.http, peer)

    def _keep(self, peer: Peer) -> None:
        self._opened.push_async_callback(peer.child.stop)

    def daemon_at(self, name: str, port: int, platform: str = "") -> Daemon:
        """A daemon with settings of its own; `platform` is the address it knows the platform by."""
        wish = Wish(
            name=name, folder=self.folder, rulebook=self.rulebook, port=port,
            platforms={each.id: platform or self.platform.peer.url for each in self.book.platforms},
            psps={name: admin.peer.url for name, admin in self.providers.items()},
            authority=authority(self.folder), answer_within_s=ANSWER_WITHIN_S, call_timeout_s=1,
            backoff_first_s=0.1, backoff_max_s=0.3,
            requests_per_s=5000,
        )  # fmt: skip
        settings = daemons.write_settings(wish, self.secrets)
        return Daemon(wish, settings, self.environ, self.http)

    async def _run(self, daemon: Daemon) -> None:
        self._opened.push_async_callback(daemon.stop)
        await daemon.start()

    async def another_daemon(self, name: str, platform: str = "", *, port: int = 0) -> Daemon:
        """One more daemon on the same database."""
        daemon = self.daemon_at(name, port or free_port(), platform)
        await self._run(daemon)
        return daemon

    async def hears_at(self, address: str) -> None:
        """Name the caller's address."""
        named = await self.caller("portal").put("/v1/subscription", {"webhook_url": address})
        self.ear.secret = named["secret"]

    @asynccontextmanager
    async def ear_away(self) -> AsyncIterator[None]:
        """For a story that listens itself; what was told meanwhile counts as heard by the ear."""
        await until(self._all_sent, "what is on its way to be heard")
        before = {event["id"] for event in await self.events()}
        try:
            yield
        finally:
            await until(self._all_sent, "the deliveries to end")
            told = [event["id"] for event in await self.events() if event["id"] not in before]
            self.excused |= set(told)
            await self.hears_at(self.ear_address)

    async def _all_sent(self) -> bool:
        async with self.database() as conn:
            return not await conn.fetchval(UNSENT)

    # --- who calls ------------------------------------------------------------------------------

    def caller(self, owner: str, daemon: Daemon | None = None) -> Api:
        """A caller with the key of `owner`."""
        new_key: Callable[[], str] = lambda: self.ids.new("CR")  # noqa: E731
        return Api(self.http, (daemon or self.daemon).url, self.tokens.get(owner, owner), new_key)

    @property
    def portal(self) -> Api:
        """The system whose clients pay."""
        return self.caller("portal")

    @asynccontextmanager
    async def database(self, *, owner: bool = False) -> AsyncIterator[asyncpg.Connection]:
        """A connection as the daemon's role, or as the owner of the schemas."""
        conn = await asyncpg.connect(
            self.addresses.owner_dsn if owner else self.addresses.daemon_dsn
        )
        try:
            yield conn
        finally:
            await conn.close()

    # --- people and money -----------------------------------------------------------------------

    async def client(
        self, *, account: str = "", brand: str = "northgate", country: str = "DE",
        currency: str = "EUR", risk: str = "low", goes_to: str = "trading_enabled",
    ) -> Known:  # fmt: skip
        """A new client who may trade; with a verified account of the type where one is named."""
        person = Person(
            reference=f"story-{next(self._numbers):04}", brand=brand, country=country,
            currency=currency, risk=risk, account=account, goes_to=goes_to,
        )  # fmt: skip
        desk = Desk(self.portal, self.caller("olga"), self.caller("carl"))
        return (await people.settle_in(desk, [person]))[0]

    def order(
        self, client: Known, amount: str = "100.00", *, method: str = "card", to: str = "wallet"
    ) -> dict[str, Any]:
        """The body of a deposit; `to` the account of a client that has one, or `wallet`."""
        return {
            "client": client.id,
            "amount": {"amount": amount, "currency": client.person.currency},
            "method": method,
            "to": client.account if to == "account" else to,
        }

    async def pays(
        self, client: Known, amount: str = "100.00", *, method: str = "card", to: str = "wallet",
        key: str = "", daemon: Daemon | None = None,
    ) -> Answer:  # fmt: skip
        """Ask for a deposit, as the portal."""
        order = self.order(client, amount, method=method, to=to)
        return await self.caller("portal", daemon).send("POST", "/v1/deposits", order, key=key)

    async def payment(self, payment_id: str) -> dict[str, Any]:
        """The payment as it is told now."""
        view: dict[str, Any] = await self.portal.get(f"/v1/payments/{payment_id}")
        return view

    async def becomes(
        self, payment_id: str, state: str = "approved", *, transfer: str = ""
    ) -> dict[str, Any]:
        """Wait until the payment is in this state, and its transfer too where one is named."""

        async def there() -> dict[str, Any] | None:
            view = await self.payment(payment_id)
            moved = (view["transfer"] or {}).get("state", "")
            return view if view["state"] == state and (not transfer or moved == transfer) else None

        return await until(there, f"{payment_id} {state} {transfer}")

    async def wallet(self, client: Known) -> str:
        """What the client's wallet holds, in the client's currency."""
        view = await self.portal.get(f"/v1/clients/{client.id}/wallet")
        held: dict[str, str] = {line["currency"]: line["available"] for line in view["data"]}
        return held[client.person.currency]

    # --- peers ----------------------------------------------------------------------------------

    async def will(self, psp: str, **behaviour: object) -> None:
        """Tell a provider how to treat its next charge."""
        await self.providers[psp].post("/behaviour", behaviour)

    async def lose_provider(self, psp: str) -> None:
        """End a provider as a crash would; nobody listens at its address."""
        await self.providers[psp].peer.child.kill()

    async def regain_provider(self, psp: str) -> None:
        """Its next life, at the same address and with its books."""
        gone = self.providers[psp].peer
        peer = await start_provider(
            psp, self.folder, self.secrets, self.environ,
            webhook_url=f"{self.daemon.url}/v1/psps/{psp}/webhooks",
            listen=gone.url.removeprefix("http://"),
        )  # fmt: skip
        self._keep(peer)
        self.providers[psp] = Admin(self.http, peer)

    async def fault(self, command: str, action: str, **more: object) -> None:
        """Tell the platform how to misbehave at its next such command."""
        await self.platform.post("/faults", {"command": command, "action": action} | more)

    async def charges(self, client: Known) -> list[dict[str, Any]]:
        """Every approved charge of this client in the books of all providers, by reference."""
        async with self.database() as conn:
            rows = await conn.fetch(ATTEMPTS_OF_CLIENT, client.id)
        mine = {row["id"] for row in rows}
        found = []
        for name, admin in self.providers.items():
            charges = (await admin.get("/books"))["charges"]
            found += [it | {"psp": name} for it in charges if it["reference"] in mine]
        approved = [it for it in found if it["status"] == "approved"]
        return sorted(approved, key=lambda it: str(it["reference"]))

    async def payments(self, client: Known) -> list[str]:
        """The ids of all payments of a client, oldest first."""
        async with self.database() as conn:
            return [row["id"] for row in await conn.fetch(PAYMENTS_OF_CLIENT, client.id)]

    async def charge_appears(self, psp: str, before: int) -> dict[str, Any]:
        """Wait until the provider has more charges than before; returns the newest."""

        async def there() -> dict[str, Any] | None:
            charges = (await self.providers[psp].get("/books"))["charges"]
            return charges[-1] if len(charges) > before else None

        return await until(there, f"a charge of {psp}")

    async def charge_count(self, psp: str) -> int:
        """How many charges the provider has."""
        return len((await self.providers[psp].get("/books"))["charges"])

    async def deals(self, client: Known) -> list[dict[str, Any]]:
        """The deals on the client's trading account in the platform's books."""
        account = await self.portal.get(f"/v1/accounts/{client.account}")
        books = await self.platform.get("/books")
        return [deal for deal in books["deals"] if deal["login"] == account["login"]]

    # --- what was told and booked ---------------------------------------------------------------

    async def events(self, after: int = 0) -> list[dict[str, Any]]:
        """All events of the portal, pulled."""
        events: list[dict[str, Any]] = []
        while True:
            page = await self.portal.get(f"/v1/events?after={after}&limit=200")
            if not page["data"]:
                return events
            events += page["data"]
            after = page["next"]

    async def items(self, subject: str) -> list[str]:
        """The kinds of the open items about a subject."""
        page = await self.caller("otto").get("/v1/items?state=open&limit=200")
        return [item["kind"] for item in page["data"] if item["subject"] == subject]

    async def disagreements(self) -> list[str]:
        """Wait for rest, then compare all books; an empty list is the proof.

        What a story left to a person on purpose is named in `excused`, by ids.
        """
        judge = Judge(
            self.addresses.daemon_dsn, self.providers, self.platform, self.portal, self.ear
        )
        return without(compared(await judge.found(self.excused)), self.excused)


@asynccontextmanager
async def open_house(
    addresses: Addresses,
    folder: Path,
    rules: Rules = QUICK,
    spare: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[House]:
    """A broker on these servers; everything it started ends with the block.

    rules    what its rulebook says otherwise than the sample: values by file and key
    spare    providers that its settings reach and its rulebook does not name
    environ  settings of its daemons beside those in their files
    """
    async with AsyncExitStack() as opened:
        http = await opened.enter_async_context(aiohttp.ClientSession())
        house = House(addresses, folder, http, opened, rules, environ or {}, spare)
        await house.open()
        yield house


async def until(there: Callable[[], Awaitable[T | None]], what: str) -> T:
    """Wait until `there` answers something; fails with `what` after WAIT_S."""
    return await until_within(WAIT_S, there, what)


async def until_within(limit_s: float, there: Callable[[], Awaitable[T | None]], what: str) -> T:
    """The same with a limit of its own."""
    loop = asyncio.get_running_loop()
    limit = loop.time() + limit_s
    while loop.time() < limit:
        found = await there()
        if found:
            return found
        await asyncio.sleep(POLL_S)
    raise AssertionError(f"waited in vain for {what}")


def _now() -> datetime:
    return datetime.now(UTC)


def _quick_rulebook(folder: Path, rules: Rules) -> Path:
    """A copy of the sample rulebook with its times shortened."""
    shutil.copytree(DEMO, folder)
    for name, values in rules.items():
        path = folder / name
        lines = [_quick(line, values) for line in path.read_text().splitlines()]
        path.write_text("\n".join(lines) + "\n")
    return folder


def _quick(line: str, values: Mapping[str, str]) -> str:
    key = line.partition(" = ")[0]
    for name, value in values.items():
        if " = " in name and line.startswith(name):
            return value
    return f"{key} = {values[key]}" if key in values and " = " in line else line


def _read(folder: Path) -> Rulebook:
    book, findings = rulebooks.check(folder)
    assert book is not None, findings
    return book
