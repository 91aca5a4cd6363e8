"""Who runs the servers, and which folders that user reaches: decided from users, owners, modes."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.servers.privileges import (
    Account,
    ServersError,
    can_enter,
    choose_account,
    identity,
    private_folder,
)
from tests.support.servers import open_folder

STRANGER = Account(name="stranger", uid=54_321, gid=54_321, dropped=True)


def people(**uids: int) -> dict[str, pwd.struct_passwd]:
    return {
        name: pwd.struct_passwd((name, "x", uid, uid, "", "/", "/bin/sh"))
        for name, uid in uids.items()
    }


def test_root_drops_to_the_user_made_for_databases_first() -> None:
    """`postgres` is made for this work; `nobody` may be shared with other services."""
    lookup = people(postgres=101, nobody=65_534).__getitem__
    account = choose_account(None, euid=0, lookup=lookup)
    assert (account.name, account.uid, account.dropped) == ("postgres", 101, True)


def test_root_drops_to_nobody_where_that_is_all_there_is() -> None:
    """A slim machine has `nobody`: that is enough, no user is created."""
    account = choose_account(None, euid=0, lookup=people(nobody=65_534).__getitem__)
    assert account.name == "nobody"


def test_the_configured_user_wins_and_must_exist() -> None:
    """A wrong `run_as` is refused; it never falls back to another user."""
    lookup = people(postgres=101, nobody=65_534, brokerd=999).__getitem__
    assert choose_account("brokerd", euid=0, lookup=lookup).uid == 999
    with pytest.raises(ServersError, match="no user named brokred"):
        choose_account("brokred", euid=0, lookup=lookup)


def test_root_is_never_the_servers_user() -> None:
    """A user with uid 0 is root under any name, and PostgreSQL refuses to run as root."""
    with pytest.raises(ServersError, match="root"):
        choose_account("toor", euid=0, lookup=people(toor=0).__getitem__)


def test_an_ordinary_user_runs_the_servers_itself() -> None:
    """Without root nobody else can be chosen, and nothing is dropped."""
    entry = pwd.getpwnam("nobody")
    account = choose_account(None, euid=entry.pw_uid)
    assert (account.uid, account.dropped, identity(account)) == (entry.pw_uid, False, {})
    with pytest.raises(ServersError, match="only root"):
        choose_account("postgres", euid=entry.pw_uid)


def test_dropping_leaves_no_group_of_ours() -> None:
    """A child that keeps root's groups could still read what root's groups may read."""
    assert identity(STRANGER) == {"user": 54_321, "group": 54_321, "extra_groups": []}


@pytest.fixture
def room() -> Iterator[Path]:
    """A folder that everyone may pass through, unlike pytest's own."""
    folder = open_folder()
    yield folder
    shutil.rmtree(folder)


def test_every_parent_must_let_the_user_through(room: Path) -> None:
    """One closed folder above is enough to make everything under it unreachable."""
    inner = room / "parent" / "open"
    inner.mkdir(parents=True)
    inner.chmod(0o755)
    inner.parent.chmod(0o700)
    assert not can_enter(inner, STRANGER)
    inner.parent.chmod(0o711)
    assert can_enter(inner, STRANGER)


@pytest.mark.parametrize(
    ("mode", "owner", "group", "enters"),
    [
        (0o700, "mine", "other", True),
        (0o077, "mine", "mine", False),
        (0o710, "other", "mine", True),
        (0o701, "other", "mine", False),
        (0o701, "other", "other", True),
        (0o766, "other", "other", False),
    ],
)
def test_the_first_class_that_fits_decides(
    room: Path, mode: int, owner: str, group: str, *, enters: bool
) -> None:
    """As in the kernel: owner before group before others, and read is not passage."""
    account = Account(
        name="someone",
        uid=os.geteuid() if owner == "mine" else 54_321,
        gid=room.stat().st_gid if group == "mine" else 54_321,
        dropped=True,
    )
    folder = room / "folder"
    folder.mkdir()
    folder.chmod(mode)
    assert can_enter(folder, account) is enters
    folder.chmod(0o700)


def test_a_folder_yet_to_be_made_counts_as_its_parent(room: Path) -> None:
    """The question is asked before the state folder exists."""
    assert can_enter(room / "a" / "b", STRANGER)
    room.chmod(0o700)
    assert not can_enter(room / "a" / "b", STRANGER)


def test_a_private_folder_is_0700_whatever_the_umask(tmp_path: Path) -> None:
    """A loose umask opens nothing, and a folder that was open before is closed."""
    before = os.umask(0)
    try:
        made = private_folder(tmp_path / "made", uid=os.geteuid(), gid=os.getegid())
        (tmp_path / "loose").mkdir(mode=0o777)
        closed = private_folder(tmp_path / "loose", uid=os.geteuid(), gid=os.getegid())
    finally:
        os.umask(before)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_a_link_in_place_of_a_private_folder_is_refused(tmp_path: Path) -> None:
    """Following a link would give the target's folder to the servers' user."""
    (tmp_path / "target").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(ServersError, match="not a folder that we may use"):
        private_folder(tmp_path / "link", uid=os.geteuid(), gid=os.getegid())
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == 0o755


def test_a_private_folder_of_someone_else_is_refused(tmp_path: Path) -> None:
    """A folder that another user made may be read by that user for ever."""
    (tmp_path / "theirs").mkdir()
    with pytest.raises(ServersError, match="belongs to user"):
        private_folder(tmp_path / "theirs", uid=54_321, gid=54_321)
