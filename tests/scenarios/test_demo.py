"""The demo as a command: it ends with all that it started, goes on after a crash, and judges."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from gateway.audit_check import public_key, read_anchors
from gateway.demo.judge import Summary
from tests.support.servers import open_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

LIMIT_S = 120


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the servers' user can reach."""
    made = open_folder()
    yield made
    shutil.rmtree(made)


@asynccontextmanager
async def demo(folder: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command without a screen, its state in the folder; killed if the story fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.cli", "demo", "--headless", "--traders", "60",
        *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"BROKERD_EMBEDDED__STATE_FOLDER": str(folder / "state")},
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def says(process: asyncio.subprocess.Process, words: str) -> str:
    """Read what it prints up to a line with these words; all of it where it never says them."""
    assert process.stdout is not None
    said = ""
    async with asyncio.timeout(LIMIT_S):
        while words not in said:
            line = await process.stdout.readline()
            if not line:
                break
            said += line.decode()
    return said


def left(folder: Path) -> list[str]:
    """Processes that name the folder, or work in it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                words = (entry / "cmdline").read_bytes() + bytes((entry / "cwd").readlink())
            except OSError:  # it ended meanwhile
                continue
            found += [words.decode()] if str(folder).encode() in words else []
    return found


async def test_a_demo_that_lost_a_provider_ends_and_the_next_one_goes_on(folder: Path) -> None:
    """When a child dies all of it ends with 1; the next start works on and every book agrees."""
    summary = folder / "summary.json"
    state = folder / "state" / "demo"
    async with demo(folder, "--seconds", "60", "--summary", str(summary)) as first:
        assert "driving" in await says(first, "driving")
        os.kill(int((state / "bolt.pid").read_text()), signal.SIGKILL)
        assert "bolt ended with -9" in await says(first, "ended with")
        assert await first.wait() == 1
    assert (left(folder), list(state.glob("*.pid")), summary.exists()) == ([], [], False)
    async with demo(folder, "--seconds", "10", "--summary", str(summary)) as second:
        said = await says(second, "agree")
        assert await second.wait() == 0, said
    verdict = msgspec.json.decode(summary.read_bytes(), type=Summary)
    assert verdict.ok
    assert verdict.deposits.requested >= 200
    assert left(folder) == []
    key = public_key((state / "anchor-public.pem").read_text())
    anchors = list(read_anchors((state / "anchors.jsonl").read_text().splitlines(), key, []))
    assert anchors[-1].count > 100, "what people and systems did is sealed and anchored"
