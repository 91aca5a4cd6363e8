"""A whole broker on this machine: servers, simulated peers, the daemon, and keys to call it with.

Knows what must run before what, and ends all of it in the reverse order, whatever happened. Refuses
to know what the broker is used for.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import asyncpg
import msgspec

from config.rulebook import Rulebook
from gateway import migrate
from gateway.control.keys import NewKey, find_key, split_token
from gateway.demo import daemons
from gateway.demo.api import Api
from gateway.demo.caller import Ear
from gateway.demo.children import Child, end_leftovers
from gateway.demo.daemons import KeyRing, Wish
from gateway.demo.peers import Admin, Peer, Secrets, authority, start_platform, start_provider
from gateway.demo.people import Desk
from gateway.opening import Clocks
from gateway.servers import EmbeddedSettings, Servers, embedded
from ledger.ids import Ids

PORTAL, ANALYST, COMPLIANCE, AUDITOR = "portal", "olga", "carl", "otto"
STAFF: Final = (
    NewKey(PORTAL, "svc.caller"),
    NewKey(ANALYST, "kyc-analyst"),
    NewKey(COMPLIANCE, "compliance"),
    NewKey(AUDITOR, "auditor"),
)
SECRETS: Final = "secrets"
REQUESTS_PER_S: Final = 5000  # a whole broker is made known in a minute
PROFILES: Final = Path(__file__).parent / "profiles"
REFUSES_EVERY: Final = 40  # of the caller's own deliveries: it is away now and then
SEED: Final = 7


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a demo keeps what it keeps, and how it is started.

    folder   of the state; the embedded servers may have to keep theirs elsewhere
    environ  what children inherit
    """

    folder: Path
    rulebook: Path
    run_as: str | None
    environ: Mapping[str, str]
    port: int
    fresh: bool


class World(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that runs, and how to reach it."""

    url: str
    dsn: str
    tokens: Mapping[str, str]
    notes: tuple[str, ...]
    settings: Path
    desk: Desk
    auditor: Api
    ear: Ear
    platform: Admin
    providers: Mapping[str, Admin]
    children: Sequence[Child]

    async def crash(self) -> None:
        """Wait until any child ends by itself. Raises ChildFailed."""
        async with asyncio.TaskGroup() as tasks:
            for child in self.children:
                tasks.create_task(child.ended())


class _Builder:
    """Starts the parts of a world, each to be ended by the stack."""

    def __init__(
        self, place: Place, book: Rulebook, clocks: Clocks, ids: Ids, opened: AsyncExitStack
    ) -> None:
        self._place = place
        self._book = book
        self._clocks = clocks
        self._ids = ids
        self._opened = opened
        self.children: list[Child] = []

    async def servers(self) -> Servers:
        """PostgreSQL and Redis of our own, and the schema of this version."""
        wanted = EmbeddedSettings(
            state_folder=self._place.folder, run_as=self._place.run_as, fresh=self._place.fresh
        )
        servers = await self._opened.enter_async_context(embedded(wanted))
        assert servers.postgres is not None, "it was asked for"
        await migrate.migrate(servers.postgres.owner_dsn)
        return servers

    async def home(self, servers: Servers) -> tuple[Path, Secrets]:
        """The demo's own folder, without leftovers of an earlier life; its secrets."""
        folder = servers.state_folder / "demo"
        folder.mkdir(mode=0o700, exist_ok=True)
        await end_leftovers(folder)
        assert servers.postgres is not None, "it was asked for"
        if self._place.fresh or not await _belongs(folder, servers.postgres.daemon_dsn):
            shutil.rmtree(folder)
            folder.mkdir(mode=0o700)
        for log in folder.glob("*.log"):
            log.unlink()
        secrets = Secrets(folder / SECRETS, self._clocks.random_bytes)
        assert servers.redis is not None, "it was asked for"
        secrets.write("daemon-dsn", servers.postgres.daemon_dsn)
        secrets.write("owner-dsn", servers.postgres.owner_dsn)
        secrets.write("redis-url", servers.redis.url)
        return folder, secrets

    def kept(self, child: Child) -> Child:
        """A child that is ended with the world."""
        self.children.append(child)
        self._opened.push_async_callback(child.stop)
        return child

    async def peers(self, folder: Path, secrets: Secrets, url: str) -> tuple[Peer, dict[str, Peer]]:
        """The simulated platform and every provider of the rulebook."""
        environ = self._place.environ
        platform = await start_platform(folder, secrets, self._book.groups, environ)
        self.kept(platform.child)
        providers: dict[str, Peer] = {}
        for each in self._book.psps:
            profile = PROFILES / f"{each.id}.toml"
            providers[each.id] = await start_provider(
                each.id, folder, secrets, environ, seed=SEED,
                profile=profile if profile.exists() else None,
                webhook_url=f"{url}/v1/psps/{each.id}/webhooks",
            )  # fmt: skip
            self.kept(providers[each.id].child)
        return platform, providers

    async def daemon(
        self, folder: Path, secrets: Secrets, platform: Peer, providers: Mapping[str, Peer]
    ) -> Path:
        """The daemon, taking work; returns its settings' file."""
        wish = Wish(
            name="brokerd", folder=folder, rulebook=self._place.rulebook, port=self._place.port,
            platforms=daemons.platform_urls(self._book, platform), authority=authority(folder),
            psps={name: peer.url for name, peer in providers.items()},
            requests_per_s=REQUESTS_PER_S,
        )  # fmt: skip
        settings = daemons.write_settings(wish, secrets)
        self.kept(await daemons.start_daemon(wish, settings, self._place.environ))
        return settings

    async def tokens(self, dsn: str, secrets: Secrets) -> dict[str, str]:
        """A key for each of the staff."""
        ring = KeyRing(self._book, secrets, self._ids, self._clocks.now, self._clocks.random_bytes)
        conn = await asyncpg.connect(dsn)
        try:
            return {wish.owner: await ring.key(conn, wish) for wish in STAFF}
        finally:
            await conn.close()


async def _belongs(folder: Path, dsn: str) -> bool:
    """Whether what is kept in the folder is about this database.

    A start with `--fresh` that was interrupted has wiped the one and not the other: then the key
    that was kept is not known to the database.
    """
    parts = split_token(daemons.kept_key(folder / SECRETS, PORTAL))
    if parts is None:
        return True  # nothing was ever done with it
    conn = await asyncpg.connect(dsn)
    try:
        return await find_key(conn, parts[0]) is not None
    finally:
        await conn.close()


@asynccontextmanager
async def opened(
    place: Place, book: Rulebook, clocks: Clocks, ids: Ids, progress: Callable[[str], None]
) -> AsyncIterator[World]:
    """Start everything; it all ends with the block, the daemon before its peers and servers.

    progress  told what is being started
    Raises ServersError, MigrationError, ChildFailed.
    """
    async with AsyncExitStack() as stack:
        builder = _Builder(place, book, clocks, ids, stack)
        progress("PostgreSQL and Redis")
        servers = await builder.servers()
        assert servers.postgres is not None, "it was asked for"
        folder, secrets = await builder.home(servers)
        dsn = servers.postgres.daemon_dsn
        tokens = await builder.tokens(dsn, secrets)
        url = f"http://127.0.0.1:{place.port}"
        progress("a trading platform and the payment providers")
        platform, providers = await builder.peers(folder, secrets, url)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        ear = Ear(folder / "caller.journal", clocks.now, lambda no: no % REFUSES_EVERY == 0)
        address = await stack.enter_async_context(ear.listening())
        progress("the daemon")
        settings = await builder.daemon(folder, secrets, platform, providers)
        desk = Desk(
            *(
                Api(http, url, tokens[owner], lambda: ids.new("CR"))
                for owner in (PORTAL, ANALYST, COMPLIANCE)
            )
        )
        named = await desk.portal.put("/v1/subscription", {"webhook_url": address})
        ear.secret = named["secret"]
        yield World(
            url=url, dsn=dsn, tokens=tokens, notes=servers.notes, settings=settings, desk=desk,
            auditor=Api(http, url, tokens[AUDITOR], lambda: ids.new("CR")), ear=ear,
            platform=Admin(http, platform), children=tuple(builder.children),
            providers={name: Admin(http, peer) for name, peer in providers.items()},
        )  # fmt: skip
