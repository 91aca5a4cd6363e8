"""The supervisor with a real, simple process in place of a server."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.servers.privileges import ServersError, choose_account
from gateway.servers.supervisor import Program, Supervisor, processes_of
from tests.support.servers import open_folder

WAIT_S = 30.0


@pytest.fixture
def room() -> Iterator[Path]:
    """A folder that the program's user can reach, removed afterwards."""
    folder = open_folder()
    yield folder
    shutil.rmtree(folder)


def sleeper(room: Path, **changes: Any) -> Program:
    program = Program(
        name="sleeper",
        argv=(str(Path(shutil.which("sleep") or "/bin/sleep")), "600"),
        folder=room,
        log_file=room / "log",
        account=choose_account(None, euid=os.geteuid()),
        endings=((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)),
        leader=lambda _folder: None,
    )
    return msgspec.structs.replace(program, **changes)


async def at_once() -> bool:
    return True


async def never() -> bool:
    return False


async def wait_for_another(supervisor: Supervisor, before: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while supervisor.pid in {0, before}:
            await asyncio.sleep(0.01)


async def test_a_process_that_ends_is_started_again(room: Path) -> None:
    """What the supervisor keeps is the service, not the process."""
    supervisor = Supervisor(sleeper(room), ready=at_once, start_timeout_s=WAIT_S)
    await supervisor.start()
    for _ in range(2):
        before = supervisor.pid
        os.kill(before, signal.SIGKILL)
        await wait_for_another(supervisor, before)
    await supervisor.stop()
    assert supervisor.pid == 0
    assert processes_of(sleeper(room)) == []


async def test_one_that_never_serves_is_ended_and_named(room: Path) -> None:
    """A start has a limit, and a server that missed it does not go on unwatched."""
    supervisor = Supervisor(sleeper(room), ready=never, start_timeout_s=0.3)
    with pytest.raises(ServersError, match=r"sleeper did not serve within 0.3 s"):
        await supervisor.start()
    assert processes_of(sleeper(room)) == []


async def test_one_that_ends_while_starting_is_quoted(room: Path) -> None:
    """Its last words are the best explanation there is."""
    program = sleeper(room, argv=("/bin/ls", "/absent-folder"))
    supervisor = Supervisor(program, ready=never, start_timeout_s=WAIT_S)
    with pytest.raises(ServersError, match=r"ended while starting: .*absent-folder"):
        await supervisor.start()


async def test_one_that_ignores_the_gentle_signal_is_ended_by_force(room: Path) -> None:
    """The end is bounded, whatever the process does with SIGTERM."""
    deaf = sleeper(
        room,
        argv=("/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"),
        endings=((signal.SIGTERM, 0.3), (signal.SIGKILL, 10.0)),
    )
    supervisor = Supervisor(deaf, ready=at_once, start_timeout_s=WAIT_S)
    await supervisor.start()
    await supervisor.stop()
    assert processes_of(deaf) == []


async def test_a_swallowed_cancellation_does_not_hinder_the_end(room: Path) -> None:
    """A library may eat the cancellation of a restart; `stop` ends the server all the same."""
    asked = asyncio.Event()
    lives = 0

    async def deaf() -> bool:
        nonlocal lives
        lives += 1
        if lives > 1:
            asked.set()
            try:
                await asyncio.sleep(WAIT_S)
            except asyncio.CancelledError:
                return True
        return True

    supervisor = Supervisor(sleeper(room), ready=deaf, start_timeout_s=WAIT_S)
    await supervisor.start()
    os.kill(supervisor.pid, signal.SIGKILL)
    async with asyncio.timeout(WAIT_S):
        await asked.wait()
        await supervisor.stop()
    assert processes_of(sleeper(room)) == []


async def test_a_cancelled_start_leaves_nothing_running(room: Path) -> None:
    """Ctrl-C while a server is starting ends that server too."""
    supervisor = Supervisor(sleeper(room), ready=never, start_timeout_s=WAIT_S)
    starting = asyncio.create_task(supervisor.start())
    async with asyncio.timeout(WAIT_S):
        while not processes_of(sleeper(room)):
            await asyncio.sleep(0.01)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert processes_of(sleeper(room)) == []
