"""The simulated peers of a broker as child processes, and how their admins are talked to.

Knows which files a simulator is started with and the addresses of its admin. Refuses to import one:
they are reached over their wires like the real ones.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from config.rulebook import Group
from gateway.demo.children import Child

MANAGER: Final = 1000
PASSWORD_MIN: Final = 8


class Secrets:
    """Files of mode 0600, each holding one secret; made by chance the first time.

    random_bytes  where chance comes from
    """

    def __init__(self, folder: Path, random_bytes: Callable[[int], bytes]) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._random_bytes = random_bytes

    def path(self, name: str, size: int = 24) -> Path:
        """The file of a secret, made of so many bytes of chance when it is not there."""
        path = self._folder / name
        if not path.exists():
            self.write(name, self._random_bytes(size).hex())
        return path

    def write(self, name: str, text: str) -> Path:
        """Keep a secret that somebody else made."""
        path = self._folder / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        return path

    def read(self, name: str) -> str:
        """A secret that was kept; "" when there is none."""
        path = self._folder / name
        return path.read_text() if path.exists() else ""


class Peer(msgspec.Struct, frozen=True):
    """A simulator that runs: its process, the address of its wire, and that of its admin."""

    child: Child
    url: str
    admin: str
    state: Path


class Admin:
    """What may be asked of a simulator's admin."""

    def __init__(self, http: aiohttp.ClientSession, peer: Peer) -> None:
        self._http = http
        self.peer = peer

    async def get(self, path: str) -> Any:
        """Read something."""
        async with self._http.get(self.peer.admin + path) as answer:
            answer.raise_for_status()
            return msgspec.json.decode(await answer.read())

    async def post(self, path: str, body: object) -> Any:
        """Tell it something."""
        async with self._http.post(
            self.peer.admin + path, data=msgspec.json.encode(body)
        ) as answer:
            answer.raise_for_status()
            return msgspec.json.decode(await answer.read() or b"null")

    async def delete(self, path: str) -> None:
        """Let it forget something."""
        async with self._http.delete(self.peer.admin + path) as answer:
            answer.raise_for_status()


async def start_platform(
    folder: Path,
    secrets: Secrets,
    groups: Sequence[Group],
    environ: Mapping[str, str],
    listen: str = "127.0.0.1:0",
) -> Peer:
    """Start the simulated MT5 server with the groups of a rulebook. Raises ChildFailed."""
    name = "mt5"
    home = folder / name
    home.mkdir(parents=True, exist_ok=True)
    known = home / "groups.json"
    known.write_bytes(msgspec.json.encode([_group(each) for each in groups]))
    state = home / "journal"
    arguments = [
        "sim", "mt5", "--listen", listen, "--admin", "127.0.0.1:0", "--state", str(state),
        "--manager", str(MANAGER), "--password-file", str(secrets.path("mt5-manager")),
        "--groups", str(known), *_certificate(home),
    ]  # fmt: skip
    child = await Child.start(name, arguments, folder, environ)
    said = await _announced(child)
    return Peer(child, said["listening"], said["admin"], state)


def authority(folder: Path) -> Path:
    """The certificate that clients of the simulated platform believe."""
    return folder / "mt5" / "authority.pem"


def _certificate(home: Path) -> list[str]:
    """The certificate of an earlier life: a restarted platform is still the one that was known."""
    certificate, key = home / "server.pem", home / "server.key"
    if not (certificate.exists() and key.exists()):
        return []
    return ["--certificate", str(certificate), "--key", str(key)]


def _group(group: Group) -> dict[str, object]:
    return {
        "type": "group", "group": group.group, "currency": group.currency,
        "password_min": PASSWORD_MIN, "login_from": group.login_from, "login_to": group.login_to,
    }  # fmt: skip


async def start_provider(
    name: str,
    folder: Path,
    secrets: Secrets,
    environ: Mapping[str, str],
    *,
    webhook_url: str,
    profile: Path | None = None,
    seed: int = 0,
    listen: str = "127.0.0.1:0",
) -> Peer:
    """Start one simulated payment provider. Raises ChildFailed."""
    home = folder / name
    home.mkdir(parents=True, exist_ok=True)
    state = home / "journal"
    arguments = [
        "sim", "psp", "--name", name, "--listen", listen, "--state", str(state),
        "--key-file", str(secrets.path(f"{name}-key")), "--webhook-url", webhook_url,
        "--webhook-secret-file", str(secrets.path(f"{name}-webhook")), "--seed", str(seed),
        *(("--profile", str(profile)) if profile else ()),
    ]  # fmt: skip
    child = await Child.start(name, arguments, folder, environ)
    said = await _announced(child)
    return Peer(child, said["listening"], said["listening"] + "/admin", state)


async def _announced(child: Child) -> dict[str, Any]:
    """What it says once it listens; one that never does, or is not waited for, is ended."""
    try:
        return await child.announced()
    except BaseException:
        await child.stop()
        raise


def free_port(preferred: int = 0) -> int:
    """A port of the loopback interface that nobody listens on now: the preferred one if it is."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise OSError("no free port on the loopback interface")
