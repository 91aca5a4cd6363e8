"""Processes that somebody starts and must end again: simulators and the daemon itself.

Knows how to start one, hear its first words, and end it by its pid, also one that an earlier life
left behind. Refuses to know what they do, and to signal a process that is not the one it started.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

START_LIMIT_S: Final = 60.0
END_LIMIT_S: Final = 30.0
KILL_LIMIT_S: Final = 10.0
LAST_WORDS_BYTES: Final = 2000
PROGRAM: Final = (sys.executable, "-m", "gateway.cli")


class ChildFailed(Exception):
    """A child ended by itself, or never came up; the message holds its last words."""


class Child:
    """One process of ours.

    name    for people, and of its log and pid files
    folder  where these files stand
    """

    def __init__(self, name: str, folder: Path, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.process = process
        self.log = folder / f"{name}.log"
        self._pid_file = folder / f"{name}.pid"

    @classmethod
    async def start(
        cls,
        name: str,
        arguments: Sequence[str],
        folder: Path,
        environ: Mapping[str, str],
    ) -> Child:
        """Start `brokerd ARGUMENTS`, in a session of its own so that Ctrl-C does not reach it."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *PROGRAM,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=dict(environ),
                start_new_session=True,
            )
        child = cls(name, folder, process)
        child._pid_file.write_text(f"{process.pid}\n")
        return child

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.returncode is None

    async def announced(self) -> dict[str, Any]:
        """The JSON line a simulator prints once it listens. Raises ChildFailed."""
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(START_LIMIT_S):
                line = await self.process.stdout.readline()
        except TimeoutError:
            raise ChildFailed(f"{self.name} did not start: {self.last_words()}") from None
        if not line:
            await self.process.wait()
            raise ChildFailed(f"{self.name} ended while starting: {self.last_words()}")
        said: dict[str, Any] = msgspec.json.decode(line)
        return said

    async def ended(self) -> None:
        """Wait until it ends, which it should not do by itself, and raise ChildFailed."""
        code = await self.process.wait()
        raise ChildFailed(f"{self.name} ended with {code}: {self.last_words()}")

    def send(self, number: signal.Signals) -> None:
        """Signal it; one that is gone already hears nothing."""
        if self.alive:
            os.kill(self.process.pid, number)

    async def kill(self) -> None:
        """End it as a crash would."""
        self.send(signal.SIGKILL)
        async with asyncio.timeout(KILL_LIMIT_S):
            await self.process.wait()

    async def stop(self) -> int:
        """End it in order, or after its time by force; returns its exit code."""
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)  # a stopped process would never hear the first
        try:
            async with asyncio.timeout(END_LIMIT_S):
                await self._drained()
        except TimeoutError:
            await self.kill()
        self._pid_file.unlink(missing_ok=True)
        assert self.process.returncode is not None
        return self.process.returncode

    async def _drained(self) -> None:
        assert self.process.stdout is not None
        await self.process.stdout.read()
        await self.process.wait()

    def last_words(self) -> str:
        """The end of its log, for a message to people."""
        text = self.log.read_bytes()[-LAST_WORDS_BYTES:].decode("utf-8", "replace").strip()
        return text or "(it said nothing)"


async def end_leftovers(folder: Path) -> list[int]:
    """End what an earlier life left running here; returns the pids. Raises ChildFailed.

    A process is ours when its pid file says so and its command line names this program and folder.
    """
    ended = []
    for path in sorted(folder.glob("*.pid")):
        pid = int(path.read_text().strip() or 0)
        if pid and _is_ours(pid, folder):
            os.kill(pid, signal.SIGKILL)
            await _gone(pid, folder)
            ended.append(pid)
        path.unlink()
    return ended


def _is_ours(pid: int, folder: Path) -> bool:
    """Whether the process with this number works for this folder."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return False
    return "gateway.cli" in words and any(word.startswith(str(folder)) for word in words)


async def _gone(pid: int, folder: Path) -> None:
    try:
        async with asyncio.timeout(KILL_LIMIT_S):
            while _is_ours(pid, folder):
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise ChildFailed(f"process {pid} does not end") from None
