"""One server as our child process: started, watched, restarted, ended.

It knows processes, signals and patience. It refuses to know which server it keeps, and to signal
a process that is not the same program, of the same user, working in the same folder.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from gateway.servers.privileges import Account, ServersError, identity

log = logging.getLogger(__name__)

POLL_S: Final = 0.05
WATCH_S: Final = 0.25
READY_POLL_S: Final = 0.05
CANCEL_AGAIN_S: Final = 1.0
RESTART_DELAY_MIN_S: Final = 0.2
RESTART_DELAY_MAX_S: Final = 10.0
STEADY_S: Final = 30.0
"""A server that lived this long starts again without a growing delay."""
LAST_WORDS_BYTES: Final = 2000


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """How one server is started and ended."""

    name: str  # for people: "postgres", "redis"
    argv: tuple[str, ...]
    folder: Path  # its working folder, which tells its processes from all others
    log_file: Path  # where what it says on its standard output goes; replaced at each start
    account: Account
    endings: tuple[tuple[signal.Signals, float], ...]  # signal, seconds to wait after it
    stale: tuple[Path, ...] = ()  # files in which a dead server's pid may name another process
    stdin: bytes = b""  # a configuration with secrets goes here, never into argv
    leader: Callable[[Path], int | None]  # reads the pid that the server itself wrote down


class Supervisor:
    """Keeps one program running from `start` to `stop`."""

    def __init__(
        self,
        program: Program,
        *,
        ready: Callable[[], Awaitable[bool]],
        start_timeout_s: float,
    ) -> None:
        """Take the program and the question `ready`, which answers whether it serves yet."""
        self._program = program
        self._ready = ready
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: asyncio.Task[None] | None = None
        self.serving = False  # it answered since its present life began

    @property
    def pid(self) -> int:
        """Return the pid of the server as it runs now, or 0 between two lives."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else 0

    async def start(self) -> None:
        """End what an earlier life left, start the server and wait until it serves.

        raises  ServersError when it ends or does not serve within the start time-out
        """
        await self._launch()
        self._watch = asyncio.create_task(self._keep(), name=f"keep-{self._program.name}")
        self._watch.add_done_callback(self._report_bug)

    async def stop(self) -> None:
        """End the server and its processes, gently first; return when all are gone."""
        if self._watch is not None:
            watch, self._watch = self._watch, None
            while not watch.done():  # a client library may swallow a cancellation
                watch.cancel()
                await asyncio.wait((watch,), timeout=CANCEL_AGAIN_S)
            await self._end()
            if not watch.cancelled() and (bug := watch.exception()) is not None:
                raise bug
        await self._end()

    def _report_bug(self, watch: asyncio.Task[None]) -> None:
        """Say at once that nobody watches the server any more; `stop` raises the reason."""
        if not watch.cancelled() and (bug := watch.exception()) is not None:
            log.critical(
                "server.unwatched", exc_info=bug, extra={"facts": {"server": self._program.name}}
            )

    async def _keep(self) -> None:
        """Start the server again whenever it ends, with a growing delay while it keeps failing."""
        loop, delay_s, born = asyncio.get_running_loop(), RESTART_DELAY_MIN_S, 0.0
        while True:
            while self.pid:
                await asyncio.sleep(WATCH_S)
            delay_s = RESTART_DELAY_MIN_S if loop.time() - born > STEADY_S else delay_s * 2
            delay_s = min(delay_s, RESTART_DELAY_MAX_S)
            log.warning(
                "server.ended",
                extra={"facts": {"server": self._program.name, "restart_in_s": delay_s}},
            )
            await asyncio.sleep(delay_s)
            try:
                await self._launch()
            except (ServersError, OSError) as error:
                log.error(  # noqa: TRY400 - an expected fault: the reason is enough
                    "server.restart_failed",
                    extra={"facts": {"server": self._program.name, "reason": str(error)}},
                )
            else:
                log.warning(
                    "server.restarted",
                    extra={"facts": {"server": self._program.name, "pid": self.pid}},
                )
            born = loop.time()

    async def _launch(self) -> None:
        await end_processes(self._program)
        for path in self._program.stale:
            path.unlink(missing_ok=True)
        self.serving = False
        try:
            await self._spawn()
            await self._wait_ready()
        except BaseException:
            await self._end()
            raise
        self.serving = True

    async def _spawn(self) -> None:
        """Start the process; being cancelled meanwhile does not lose sight of it."""
        spawning = asyncio.ensure_future(asyncio.to_thread(spawn, self._program))
        try:
            self._process = await asyncio.shield(spawning)
        except asyncio.CancelledError:
            self._process = await spawning
            raise

    async def _wait_ready(self) -> None:
        try:
            async with asyncio.timeout(self._start_timeout_s):
                while self.pid:
                    if await self._ready():
                        return
                    await asyncio.sleep(READY_POLL_S)
        except TimeoutError:
            raise ServersError(
                f"{self._program.name} did not serve within {self._start_timeout_s:g} s: "
                f"{last_words(self._program.log_file)}"
            ) from None
        raise ServersError(
            f"{self._program.name} ended while starting: {last_words(self._program.log_file)}"
        )

    async def _end(self) -> None:
        process = self._process
        await end_processes(self._program)
        if process is not None:
            await asyncio.to_thread(process.wait)
            self._process = None
        self.serving = False


def spawn(program: Program) -> subprocess.Popen[bytes]:
    """Start `program` in a session of its own, so that Ctrl-C at a terminal does not reach it."""
    with program.log_file.open("wb") as output:
        program.log_file.chmod(0o600)
        process = subprocess.Popen(
            program.argv,
            cwd=program.folder,
            env=clean_environment(os.environ),
            stdin=subprocess.PIPE if program.stdin else subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **identity(program.account),
        )
    if process.stdin is not None:
        try:
            process.stdin.write(program.stdin)
            process.stdin.close()
        except BrokenPipeError:
            pass  # it ended at once; the caller sees that and reads its last words
    return process


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a server needs of our environment; secrets and PG* variables stay with us."""
    kept = {name: environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in environ}
    return {"PATH": os.defpath, **kept, "LC_ALL": "C", "TZ": "UTC"}


def processes_of(program: Program) -> list[int]:
    """Return the pids of living processes of `program`: same user, program and working folder.

    A shell that stands in the folder is another program, a server of another user is not ours.
    """
    names = {Path(program.argv[0]).name, Path(program.argv[0]).resolve().name}
    folder = str(program.folder.resolve())
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _is_ours(entry, program.account.uid, names, folder)
    ]


def _is_ours(entry: Path, uid: int, names: set[str], folder: str) -> bool:
    try:
        if entry.stat().st_uid != uid:
            return False
        program = (entry / "exe").readlink().name.removesuffix(" (deleted)")
        where = str((entry / "cwd").readlink()).removesuffix(" (deleted)")
    except OSError:  # it ended meanwhile (a zombie has no exe), or is not ours to look at
        return False
    return program in names and where == folder


async def end_processes(program: Program) -> list[int]:
    """End every process of `program`, whoever started it; return the pids that were there.

    The leader is asked first and ends its own children; where none is left, each is told.
    raises  ServersError if something survives every signal
    """
    found = processes_of(program)
    for number, patience_s in program.endings:
        targets = processes_of(program)
        if not targets:
            return found
        leader = program.leader(program.folder)
        _send(number, [leader] if leader in targets else targets)
        if await _all_gone(program, patience_s):
            return found
    if rest := processes_of(program):
        raise ServersError(f"{program.name}: processes {rest} do not end")
    return found


def _send(number: signal.Signals, pids: Sequence[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
            os.kill(pid, signal.SIGCONT)  # a stopped process would never hear the first
        except ProcessLookupError:
            continue


async def _all_gone(program: Program, patience_s: float) -> bool:
    loop = asyncio.get_running_loop()
    limit = loop.time() + patience_s
    while loop.time() < limit:
        if not processes_of(program):
            return True
        await asyncio.sleep(POLL_S)
    return False


def last_words(log_file: Path) -> str:
    """Return the end of what a server said, for a message to people."""
    try:
        text = log_file.read_bytes()[-LAST_WORDS_BYTES:].decode("utf-8", "replace").strip()
    except OSError as error:
        return f"(its log cannot be read: {error})"
    return text or "(it said nothing)"
