"""Processes of the demo: what is started is ended, and nothing else ever is."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from config.secret import Secret
from config.settings import load_settings
from gateway.demo.children import Child, ChildFailed, end_leftovers
from gateway.demo.daemons import Wish, write_settings
from gateway.demo.peers import Peer, Secrets, free_port, start_provider

ENVIRONMENT: Mapping[str, str] = dict(os.environ)


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    """Secrets that are all zeros."""
    return Secrets(tmp_path / "secrets", bytes)


async def provider(folder: Path, secrets: Secrets) -> Peer:
    """A provider that tells nobody anything."""
    return await start_provider("acme", folder, secrets, ENVIRONMENT, webhook_url="")


async def test_a_child_is_ended_by_stop(tmp_path: Path, secrets: Secrets) -> None:
    """A stopped simulator ends in order, and leaves no pid file behind."""
    peer = await provider(tmp_path, secrets)
    assert (tmp_path / "acme.pid").read_text() == f"{peer.child.process.pid}\n"
    assert await peer.child.stop() == 0
    assert not (tmp_path / "acme.pid").exists()


async def test_a_stopped_process_is_ended_too(tmp_path: Path, secrets: Secrets) -> None:
    """A process that was halted hears the end all the same."""
    peer = await provider(tmp_path, secrets)
    peer.child.send(signal.SIGSTOP)
    assert await peer.child.stop() == 0


async def test_a_child_that_ends_by_itself_is_reported(tmp_path: Path, secrets: Secrets) -> None:
    """Whoever watches a child hears that it ended, and how."""
    peer = await provider(tmp_path, secrets)
    os.kill(peer.child.process.pid, signal.SIGKILL)
    with pytest.raises(ChildFailed, match="acme ended with -9"):
        await peer.child.ended()
    await peer.child.stop()


async def test_a_child_that_cannot_start_says_why(tmp_path: Path) -> None:
    """A simulator with nonsense options ends at once; its last words are in the message."""
    child = await Child.start("acme", ["sim", "psp", "--nonsense"], tmp_path, ENVIRONMENT)
    with pytest.raises(ChildFailed, match="No such option"):
        await child.announced()
    await child.stop()


async def test_what_an_earlier_life_left_is_ended(tmp_path: Path, secrets: Secrets) -> None:
    """A simulator that survived its demo is found by its pid file and ended."""
    peer = await provider(tmp_path, secrets)
    assert await end_leftovers(tmp_path) == [peer.child.process.pid]
    assert await peer.child.process.wait() == -signal.SIGKILL
    assert await end_leftovers(tmp_path) == []


async def test_a_process_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    """A pid file whose number another program has by now ends nobody."""
    stranger = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=-1)
    (tmp_path / "acme.pid").write_text(f"{stranger.pid}\n")
    assert await end_leftovers(tmp_path) == []
    assert stranger.returncode is None
    await stranger.communicate(b"\n")


def test_secrets_are_for_their_owner_alone(tmp_path: Path, secrets: Secrets) -> None:
    """Each secret is a file of mode 0600 in a folder of mode 0700, and stays what it was."""
    path = secrets.path("pepper")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    secrets.write("pepper", "kept")
    assert secrets.path("pepper").read_text() == secrets.read("pepper") == "kept"
    assert secrets.read("nothing") == ""


def test_the_daemons_settings_hold_no_secret_and_are_right(
    tmp_path: Path, secrets: Secrets
) -> None:
    """The settings' file names every secret by its file, and the daemon understands it."""
    secrets.write("mt5-manager", "very secret")
    wish = Wish(
        name="brokerd", folder=tmp_path, rulebook=tmp_path, port=8080,
        platforms={"mt5-live": "https://127.0.0.1:1"}, psps={"acme": "http://127.0.0.1:2"},
        authority=tmp_path / "authority.pem", answer_within_s=2,
    )  # fmt: skip
    path = write_settings(wish, secrets)
    settings, findings = load_settings(path, {})
    assert (findings, "very secret" in path.read_text()) == ([], False)
    assert settings is not None
    assert settings.platforms["mt5-live"].password == Secret("very secret")
    assert settings.http.answer_within_s == 2


def test_a_taken_port_is_not_chosen() -> None:
    """The preferred port is taken when it is free, another one when it is not."""
    free = free_port()
    assert free_port(free) == free


async def test_a_port_somebody_listens_on_is_not_chosen() -> None:
    """Where somebody listens already another port is found."""
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with server:
        taken = server.sockets[0].getsockname()[1]
        assert free_port(taken) != taken
