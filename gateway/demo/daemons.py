"""The daemon as a child process: its settings' file, its start, its keys.

Knows what the settings of a broker on simulators say. Refuses to share memory with the daemon: it
is started by its command line, and asked over its API.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import aiohttp
import asyncpg
import msgspec

from config.rulebook import Rulebook
from gateway.control import access
from gateway.control.audit import Command
from gateway.control.keys import KeyMaker, NewKey, operator
from gateway.control.sealing import Signer, new_key
from gateway.demo.children import START_LIMIT_S, Child, ChildFailed
from gateway.demo.peers import MANAGER, Peer, Secrets
from ledger.ids import Ids

POLL_S: Final = 0.1
ANCHORS: Final = "anchors.jsonl"
ANCHOR_PUBLIC: Final = "anchor-public.pem"
ANCHOR_S: Final = 5.0


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a daemon on simulators is started with; addresses with passwords come as secrets.

    name       of its settings' file, log and pid file
    folder     where these files stand
    rulebook   the folder of its rulebook
    platforms  the address of each; psps likewise
    authority  the certificate that the platform's is signed with
    """

    name: str
    folder: Path
    rulebook: Path
    port: int
    platforms: Mapping[str, str]
    psps: Mapping[str, str]
    authority: Path
    requests_per_s: int = 1000
    answer_within_s: float = 15.0
    call_timeout_s: float = 3.0  # of the platform
    backoff_first_s: float = 0.5
    backoff_max_s: float = 5.0


def platform_urls(book: Rulebook, peer: Peer) -> Mapping[str, str]:
    """Every platform of the rulebook, at the one simulator."""
    return {each.id: peer.url for each in book.platforms}


def write_settings(wish: Wish, secrets: Secrets) -> Path:
    """The settings' file, without a secret in it: each is named by its file."""
    lines = [
        _section("rulebook", folder=str(wish.rulebook)),
        _section(
            "database", dsn=_file(secrets, "daemon-dsn"), owner_dsn=_file(secrets, "owner-dsn")
        ),
        _section("redis", url=_file(secrets, "redis-url")),
        _section("http", port=wish.port, answer_within_s=wish.answer_within_s),
        _section("control", pepper=_file(secrets, "pepper"), **_audit(wish, secrets)),
        _section("control.limits", requests_per_s=wish.requests_per_s, burst=wish.requests_per_s),
        _section("process", drain_s=5),
        _section("log", form="json"),
    ]
    lines += [_platform(name, url, wish, secrets) for name, url in wish.platforms.items()]
    lines += [_provider(name, url, secrets) for name, url in wish.psps.items()]
    path = wish.folder / f"{wish.name}.toml"
    path.write_text("\n".join(lines))
    return path


def _audit(wish: Wish, secrets: Secrets) -> dict[str, str | float]:
    """Where anchors of the audit go, and the keys it needs; made once."""
    if not secrets.read("anchor-key"):
        secrets.write("anchor-key", new_key())
    (wish.folder / ANCHOR_PUBLIC).write_text(Signer(secrets.read("anchor-key")).public())
    return {
        "anchor_key": _file(secrets, "anchor-key"), "anchor_file": str(wish.folder / ANCHORS),
        "anchor_s": ANCHOR_S, "personal_key": _file(secrets, "personal-key", 32),
    }  # fmt: skip


def _platform(name: str, url: str, wish: Wish, secrets: Secrets) -> str:
    return _section(
        f"platforms.{name}", url=url, manager_login=MANAGER, ca=str(wish.authority),
        password=_file(secrets, "mt5-manager"), call_timeout_s=wish.call_timeout_s,
        dial_timeout_s=wish.call_timeout_s, backoff_first_s=wish.backoff_first_s,
        backoff_max_s=wish.backoff_max_s,
    )  # fmt: skip


def _provider(name: str, url: str, secrets: Secrets) -> str:
    return _section(
        f"psps.{name}", url=url, api_key=_file(secrets, f"{name}-key"),
        webhook_secret=_file(secrets, f"{name}-webhook"),
    )  # fmt: skip


def _file(secrets: Secrets, name: str, size: int = 24) -> str:
    return f"file:{secrets.path(name, size)}"


def _section(name: str, **values: str | float) -> str:
    """One section of TOML; JSON writes text and numbers as TOML reads them."""
    written = [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in values.items()]
    return "\n".join([f"[{name}]", *written, ""])


async def start_daemon(wish: Wish, settings: Path, environ: Mapping[str, str]) -> Child:
    """Start `brokerd serve` and wait until it takes work. Raises ChildFailed."""
    arguments = ["serve", "--adopt", "--config", str(settings)]
    child = await Child.start(wish.name, arguments, wish.folder, environ)
    try:
        async with aiohttp.ClientSession() as http:
            await _ready(child, http, f"http://127.0.0.1:{wish.port}/readyz")
    except BaseException:
        await child.stop()
        raise
    return child


async def _ready(child: Child, http: aiohttp.ClientSession, url: str) -> None:
    for _ in range(int(START_LIMIT_S / POLL_S)):
        if not child.alive:
            raise ChildFailed(f"{child.name} ended while starting: {child.last_words()}")
        try:
            async with http.get(url, timeout=aiohttp.ClientTimeout(total=2)) as answer:
                if answer.status == 200:
                    return
        except (aiohttp.ClientError, TimeoutError):
            pass  # it does not listen yet
        await asyncio.sleep(POLL_S)
    raise ChildFailed(f"{child.name} is not ready: {child.last_words()}")


class KeyRing:
    """API keys of people and systems, made once and kept as secrets."""

    def __init__(
        self, book: Rulebook, secrets: Secrets, ids: Ids, now: Callable[[], datetime],
        random_bytes: Callable[[int], bytes],
    ) -> None:  # fmt: skip
        roles, _ = access.compile(book)
        pepper = secrets.path("pepper").read_text().encode()
        self._maker = KeyMaker(roles, ids, random_bytes, pepper)
        self._secrets = secrets
        self._ids = ids
        self._now = now

    async def key(self, conn: asyncpg.Connection, wish: NewKey) -> str:
        """The key of an owner: the one that was made before, or a new one."""
        name = _key_name(wish.owner)
        if kept := self._secrets.read(name):
            return kept
        maker = operator("demo")
        command = Command(maker, "a sample broker", self._ids.new("CR"), self._now())
        async with conn.transaction():
            _, token = await self._maker.add(conn, command, wish)
        self._secrets.write(name, token)
        return token


def kept_key(folder: Path, owner: str) -> str:
    """The key of an owner that secrets in this folder hold; "" when there is none."""
    path = folder / _key_name(owner)
    return path.read_text() if path.exists() else ""


def _key_name(owner: str) -> str:
    return f"key-{owner}"
