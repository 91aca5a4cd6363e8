"""The wheel that operators install.

Knows what must be inside it: every file of the five packages, and nothing of the tests. Refuses to
know what the files are for.
"""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.house.tree import PACKAGES, ROOT, files

BUILD_LIMIT_S = 100


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names inside a wheel built from a clean copy of the project."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for path in files():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, source / path)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(source)]
    subprocess.run(command, check=True, timeout=BUILD_LIMIT_S)
    (built,) = out.glob("brokerd-*.whl")
    with zipfile.ZipFile(built) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_file_of_the_packages(wheel: set[str]) -> None:
    """Migrations, the sample rulebook, connectors and pages travel with the code."""
    missing = {
        path.as_posix() for path in files() if path.parts[0] in PACKAGES and path.suffix != ".md"
    } - wheel
    assert not missing, f"name the kind of file in [tool.setuptools.package-data]: {missing}"


def test_the_wheel_holds_nothing_else(wheel: set[str]) -> None:
    """Tests, benchmarks and deployment files stay out of what operators install."""
    folders = {Path(name).parts[0] for name in wheel}
    assert {name for name in folders if not name.endswith(".dist-info")} == set(PACKAGES)


def test_the_wheel_offers_the_command_and_the_licence(wheel: set[str]) -> None:
    """Installing gives the `brokerd` command, and the licence is inside."""
    information = {name.partition("/")[2] for name in wheel if ".dist-info/" in name}
    assert {"entry_points.txt", "licenses/LICENSE"} <= information
