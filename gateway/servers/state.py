"""The state folder: where it is, what stands in it, and that one process at a time holds it.

It knows places, the lock and the generated passwords. It refuses to know what a server keeps in
its own folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from gateway.servers.privileges import (
    Account,
    ServersError,
    can_enter,
    passable_folder,
    private_folder,
)

SOCKET_FOLDER_BYTES_MAX: Final = 85
"""A socket's whole path holds 107 bytes; the longest name in the folder takes the rest."""

PASSWORD_BYTES: Final = 24

_PLAIN_PATH = re.compile(r"[A-Za-z0-9._/+@-]+")
"""What needs no quoting in an address, a list of folders or a configuration."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A state folder that is ours to use, and the user whose servers live in it."""

    folder: Path
    account: Account
    random_bytes: Callable[[int], bytes]
    notes: tuple[str, ...] = ()  # what people should be told at the start

    def server_folder(self, name: str) -> Path:
        """Return the folder of one server, 0700 and its user's own; made where it is missing."""
        return private_folder(self.folder / name, uid=self.account.uid, gid=self.account.gid)

    def our_folder(self, name: str) -> Path:
        """Return a folder that we alone can read, made where it is missing."""
        return private_folder(self.folder / name, uid=os.geteuid(), gid=os.getegid())


def open_state(
    wanted: Path, *, outside: Path, account: Account, random_bytes: Callable[[int], bytes]
) -> State:
    """Find or make the state folder.

    wanted   the configured folder; used unless the servers' user cannot reach it
    outside  where root keeps state instead, one folder per wanted path
    raises   ServersError where neither can be used
    """
    wanted = wanted.absolute()
    elsewhere = folder_of(wanted, outside=outside, account=account)
    if elsewhere == wanted:
        _make_state_folder(wanted, account)
        return State(folder=wanted, account=account, random_bytes=random_bytes, notes=_who(account))
    passable_folder(outside, account)
    _make_state_folder(elsewhere, account)
    (elsewhere / "origin").write_text(f"{wanted}\n")
    because = (
        "where an earlier start put it"
        if can_enter(wanted, account)
        else f"because user {account.name!r} cannot reach {wanted}"
    )
    note = f"the servers keep their data in {elsewhere}, {because}"
    notes = (*_who(account), note)
    return State(folder=elsewhere, account=account, random_bytes=random_bytes, notes=notes)


def folder_of(wanted: Path, *, outside: Path, account: Account) -> Path:
    """Return the state folder that `open_state` uses for `wanted`; nothing is made."""
    wanted = wanted.absolute()
    elsewhere = outside / hashlib.sha256(os.fsencode(wanted)).hexdigest()[:12]
    if not account.dropped or (can_enter(wanted, account) and not elsewhere.exists()):
        return wanted
    return elsewhere


def holder(folder: Path) -> int:
    """Return the pid of the process that holds a state folder now; 0 where none does."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # never used
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.pread(descriptor, 20, 0) or 0)
    finally:
        os.close(descriptor)
    return 0


def _who(account: Account) -> tuple[str, ...]:
    return (f"the servers run as user {account.name!r}, not as root",) if account.dropped else ()


def _make_state_folder(folder: Path, account: Account) -> None:
    """Make the folder, 0700; where another user runs the servers, its group may pass through.

    A folder that holds something already keeps its mode: all that we put into it is private.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
    except FileExistsError:
        status = folder.stat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise ServersError(
                f"{folder} is not a folder of user {os.geteuid()}: use the user it was made "
                "with, or set another embedded.state_folder"
            ) from None
        if not any(folder.iterdir()):
            _close_to_others(folder, account)
    except OSError as error:
        raise ServersError(f"the state folder {folder} cannot be made: {error}") from None
    else:
        _close_to_others(folder, account)
    if not can_enter(folder, account):
        raise ServersError(f"user {account.name!r} cannot reach the state folder {folder}")


def _close_to_others(folder: Path, account: Account) -> None:
    if account.dropped:
        os.chown(folder, os.geteuid(), account.gid)
    folder.chmod(0o710 if account.dropped else 0o700)


@contextmanager
def held(state: State) -> Iterator[None]:
    """Hold the state folder for this process.

    raises  ServersError naming the process that holds it
    """
    path = state.folder / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise ServersError(
                f"process {holder} already runs the servers in {state.folder}: stop it, or set "
                "another embedded.state_folder, or give both one database.dsn and redis.url"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def password(state: State, name: str, *, must_exist: bool = False) -> str:
    """Return the password kept under `name`, made by chance the first time.

    must_exist  the data it opens exists already: a new one would fit nothing
    """
    path = state.our_folder("secrets") / name
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        if must_exist:
            raise ServersError(
                f"{path} is missing, but the data it opens exists: restore it, or start afresh"
            ) from None
    value = state.random_bytes(PASSWORD_BYTES).hex()
    write_private(path, value.encode("ascii"), uid=os.geteuid(), gid=os.getegid())
    return value


def write_private(path: Path, content: bytes, *, uid: int, gid: int) -> None:
    """Write a file of mode 0600 that belongs to `uid`, whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        if uid != os.geteuid():
            os.fchown(descriptor, uid, gid)
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)


def socket_folder(state: State, name: str) -> tuple[Path, str]:
    """Return a private folder short enough for a socket, and a note where it is elsewhere."""
    usual = state.server_folder(name) / "run"
    uid, gid = state.account.uid, state.account.gid
    fits = len(os.fsencode(usual)) <= SOCKET_FOLDER_BYTES_MAX
    if fits and _PLAIN_PATH.fullmatch(str(usual)):
        return private_folder(usual, uid=uid, gid=gid), ""
    digest = hashlib.sha256(os.fsencode(state.folder)).hexdigest()[:12]
    short = _runtime_folder() / f"brokerd-{uid}-{digest}-{name}"
    note = f"{usual} is too long or odd a path for a socket: {name} listens in {short}"
    return private_folder(short, uid=uid, gid=gid), note


def _runtime_folder() -> Path:
    """Return where short-lived private folders go: the user's runtime folder, else temporary."""
    configured = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.geteuid() != 0 and configured and Path(configured).is_dir():
        return Path(configured)
    if os.geteuid() == 0 and os.access("/run", os.W_OK):
        return Path("/run")
    return Path(tempfile.gettempdir())


def remove_folder(folder: Path) -> None:
    """Remove a folder and all in it; one that is not there is fine."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
