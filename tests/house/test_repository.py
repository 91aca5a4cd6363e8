"""The repository as a stranger finds it: folders, documents, the lock file, the commands.

Knows names and addresses that may or may not stand in a tracked file. Refuses to run the commands.
"""

import re
from pathlib import Path

import pytest

from tests.house.tree import ROOT, files, text

FOLDERS = {
    ".ci": "what a change must pass",
    "gateway": "doors and flows",
    "router": "payments",
    "bridge": "trading platforms",
    "ledger": "the books",
    "config": "settings and rulebook",
    "deploy": "how it is installed and watched",
    "docs": "for operators and callers",
    "loadtests": "benchmarks",
    "tests": "the proof",
}
TOP_FILES = {
    ".gitignore", ".dockerignore", ".pre-commit-config.yaml", "ARCHITECTURE.md", "CHANGELOG.md",
    "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "pyproject.toml", "requirements.lock",
}  # fmt: skip
TARGETS = ("demo", "test", "check", "bench", "bench-full", "load", "soak", "help")
MACHINE_PATH = re.compile(r"(?:^|[^\w.-])/(?:ro[o]t|hom[e]|wor[k]|far[m]|User[s])/")
REGISTRY = re.compile(
    r"pypi[.]org|pythonhosted[.]org|npmjs[.](?:org|com)|crates[.]io|proxy[.]golang[.]org"
    r"|repo1?[.]maven|deb[.]debian[.]org|archive[.]ubuntu[.]com"
)
STATUS = re.compile(r"^Status: (proposed|accepted|superseded by \d{4})$", re.MULTILINE)
BYTES_MAX = 400_000


def test_every_top_level_name_is_known() -> None:
    """A new top-level folder or file is a decision: it is added here with its purpose."""
    folders = {path.parts[0] for path in files() if len(path.parts) > 1}
    single = {path.name for path in files() if len(path.parts) == 1}
    assert folders <= FOLDERS.keys(), f"unknown folders {folders - FOLDERS.keys()}"
    assert single <= TOP_FILES, f"unknown files {single - TOP_FILES}"


def test_no_file_names_a_machine_or_a_registry() -> None:
    """A tracked file works on any machine: no home folders, no addresses of package registries."""
    places = [
        f"{path}:{number}: {match.group(0)}"
        for path in files()
        for number, line in enumerate(text(path).splitlines(), start=1)
        if (match := MACHINE_PATH.search(line) or REGISTRY.search(line))
    ]
    assert not places, f"say it relative to the checkout, or leave the host to its client: {places}"


def test_no_file_is_large() -> None:
    """The repository holds sources; a file this large is data or a build product."""
    large = [str(path) for path in files() if (ROOT / path).stat().st_size > BYTES_MAX]
    assert not large, f"over {BYTES_MAX} bytes: {large}"


def test_the_lock_file_names_versions_and_hashes_and_no_addresses() -> None:
    """Every locked package has one version and at least one hash; no line has an address."""
    lock = text(Path("requirements.lock"))
    packages = re.split(r"\n(?=[a-zA-Z0-9])", lock.strip())
    assert len(packages) > 20
    assert not re.search(r"https?://|--index-url|--find-links|git\+", lock)
    unpinned = [
        package.splitlines()[0]
        for package in packages
        if not re.match(r"[\w.-]+==\S+", package) or "--hash=sha256:" not in package
    ]
    assert not unpinned, f"lock again with make lock: {unpinned}"


def test_there_is_one_lock_file() -> None:
    """requirements.lock is the only lock file; others name hosts."""
    others = [
        str(path) for path in files() if path.name in {"uv.lock", "pylock.toml", "Pipfile.lock"}
    ]
    assert not others, f"remove {others}; make lock writes requirements.lock"


@pytest.mark.parametrize("target", TARGETS)
def test_make_help_lists_every_command(target: str) -> None:
    """Each command of the README is a target with a line for make help."""
    assert re.search(rf"^{target}:.*## \S", text(Path("Makefile")), re.MULTILINE), target


def test_ci_calls_the_same_targets_as_a_developer() -> None:
    """.ci/run holds nothing but make targets: what CI runs, anyone can run."""
    script = text(Path(".ci/run"))
    lines = [line for line in script.splitlines() if line and not line.startswith("#")]
    assert lines[0] == "set -euo pipefail"
    assert all(line.startswith(("set ", "cd ", "make ")) for line in lines), lines


def test_documents_lead_somewhere() -> None:
    """Every relative link of a document leads to a file that exists."""
    dead = [
        f"{path}: {link}"
        for path in files()
        if path.suffix == ".md"
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text(path))
        if "://" not in link and not (ROOT / path.parent / link).exists()
    ]
    assert not dead, f"mend or remove the links: {dead}"


def test_the_architecture_names_files_that_exist() -> None:
    """Each path in ARCHITECTURE.md that names a Python file or a folder is there."""
    named = re.findall(r"`([\w./-]+(?:\.py|\.sql|\.toml|/))`", text(Path("ARCHITECTURE.md")))
    missing = [name for name in named if not (ROOT / name).exists()]
    assert named
    assert not missing, f"revise ARCHITECTURE.md with the code it names: {missing}"


def test_decisions_have_one_form() -> None:
    """Decision records are numbered without gaps and have the four parts of the template."""
    records = [
        path for path in files() if path.parts[:2] == ("docs", "adr") and path.name[0] == "0"
    ]
    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1))
    for path in records:
        headings = re.findall(r"^## (.+)$", text(path), re.MULTILINE)
        assert headings[:3] == ["Context", "Decision", "Consequences"], path
        assert STATUS.search(text(path)), path


def test_the_changelog_is_for_operators() -> None:
    """CHANGELOG.md keeps an Unreleased section on top and the usual parts below it."""
    changelog = text(Path("CHANGELOG.md"))
    parts = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert re.search(r"^## \[Unreleased\]", changelog, re.MULTILINE)
    assert set(re.findall(r"^### (.+)$", changelog, re.MULTILINE)) <= parts
