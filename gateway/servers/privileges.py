"""Who runs the embedded servers, and which folders are that user's alone.

It knows users, modes and owners of folders. It refuses to know what is kept in them, and to give
anyone a permission on a folder that it did not make.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

UNPRIVILEGED: Final = ("postgres", "nobody")
"""Users that root drops to, in order: the first that exists.

`postgres` exists where a system PostgreSQL is installed and is made for exactly this work;
`nobody` exists everywhere, but other services of the machine may share it.
"""

PRIVATE: Final = 0o700
PASSABLE: Final = 0o711


class ServersError(Exception):
    """The embedded servers cannot run; the message says why and what to do."""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """The user who runs the servers."""

    name: str
    uid: int
    gid: int
    dropped: bool  # we are root, the servers are not


Lookup = Callable[[str], pwd.struct_passwd]


def choose_account(run_as: str | None, *, euid: int, lookup: Lookup = pwd.getpwnam) -> Account:
    """Return the user to run the servers as.

    run_as  the configured user; None picks ourselves, or as root the first of UNPRIVILEGED
    raises  ServersError for a user that does not exist, is root, or that we may not become
    """
    if euid != 0:
        return _ourselves(run_as, euid)
    names = UNPRIVILEGED if run_as is None else (run_as,)
    for name in names:
        try:
            entry = lookup(name)
        except KeyError:
            continue
        if entry.pw_uid == 0:
            raise ServersError(f"PostgreSQL refuses to run as {name!r}, which is root; set run_as")
        return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid, dropped=True)
    raise ServersError(f"no user named {' or '.join(names)} to run the servers as; set run_as")


def _ourselves(run_as: str | None, euid: int) -> Account:
    try:
        name = pwd.getpwuid(euid).pw_name
    except KeyError:  # a container may run us under a number without a name
        name = str(euid)
    if run_as not in (None, name):
        raise ServersError(f"only root can run the servers as {run_as!r}; we are {name!r}")
    return Account(name=name, uid=euid, gid=os.getegid(), dropped=False)


def identity(account: Account) -> dict[str, Any]:
    """Return the arguments that make subprocess.Popen run a child as `account`."""
    if not account.dropped:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def can_enter(folder: Path, account: Account) -> bool:
    """Say whether `account` may traverse `folder` and every folder above it.

    Judged by owner and mode; a folder that does not exist yet counts as its nearest parent.
    """
    path = folder.resolve()
    while not path.exists():
        path = path.parent
    return all(_may_traverse(parent.stat(), account) for parent in (path, *path.parents))


def _may_traverse(status: os.stat_result, account: Account) -> bool:
    if not stat.S_ISDIR(status.st_mode):
        return False
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def passable_folder(path: Path, account: Account) -> Path:
    """Make `path` a folder of ours that others may pass through, but not list; return it.

    raises  ServersError where others could write to it, or `account` cannot reach it
    """
    try:
        path.mkdir(mode=PASSABLE)
        path.chmod(PASSABLE)  # mkdir's mode is subject to the umask
    except FileExistsError:
        pass  # its mode is its owner's choice; it only has to do
    except OSError as error:
        raise ServersError(f"{path} cannot be made: {error}") from None
    status = path.stat()
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ServersError(f"{path} must belong to us and be writable by nobody else")
    if not can_enter(path, account):
        raise ServersError(f"user {account.name!r} cannot reach {path}")
    return path


def private_folder(path: Path, *, uid: int, gid: int) -> Path:
    """Make `path` a folder of mode 0700 that belongs to `uid`, and return it.

    A folder that exists is narrowed to 0700, and must already be a real folder of that user.
    """
    try:
        path.mkdir(mode=PRIVATE)
        made = True
    except FileExistsError:
        made = False
    # Through a descriptor: a folder that another user owns above us may be swapped for a link.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise ServersError(f"{path} is not a folder that we may use: {error}") from None
    try:
        _take(descriptor, path, uid=uid, gid=gid, made=made)
    finally:
        os.close(descriptor)
    return path


def _take(descriptor: int, path: Path, *, uid: int, gid: int, made: bool) -> None:
    owner = os.fstat(descriptor).st_uid
    if made and owner != uid:
        os.fchown(descriptor, uid, gid)
    elif owner != uid:
        raise ServersError(
            f"{path} belongs to user {owner}, not to {uid}: use the user it was made with, "
            "or another state folder"
        )
    os.fchmod(descriptor, PRIVATE)
