"""The stories of the brief as commands: each is played to its end and leaves its evidence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.servers import open_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

LIMIT_S = 200


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the servers' user can reach."""
    made = open_folder()
    yield made
    shutil.rmtree(made)


def played(number: int, folder: Path) -> tuple[int, dict[str, Any]]:
    """The exit code of a story, and its summary by the names of the steps."""
    evidence = folder / "evidence"
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "scenario", str(number), "--evidence", str(evidence)],
        env=os.environ | {"BROKERD_EMBEDDED__STATE_FOLDER": str(folder / "state")},
        timeout=LIMIT_S, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert (evidence / "summary.json").exists(), done.stderr
    summary = msgspec.json.decode((evidence / "summary.json").read_bytes())
    return done.returncode, {step["name"]: step for step in summary["steps"]}


def test_an_auditors_day_leaves_its_evidence(folder: Path) -> None:
    """Who did what is found, taken home and checked there; one byte is missed; nothing changes."""
    status, steps = played(7, folder)

    assert [name for name, step in steps.items() if not step["ok"]] == []
    assert status == 0
    assert list(steps) == [
        "maker-as-checker", "a-users-day", "a-clients-life", "an-auditor-changes-nothing",
        "records-are-facts", "reading-is-on-record", "export", "offline-check", "one-byte",
    ]  # fmt: skip
    evidence = folder / "evidence"
    for step in steps.values():
        if step["file"]:
            assert msgspec.json.decode((evidence / step["file"]).read_bytes())
    life = msgspec.json.decode((evidence / steps["a-clients-life"]["file"]).read_bytes())
    assert [each["no"] for each in life] == sorted((each["no"] for each in life), reverse=True)
    assert "record" in steps["one-byte"]["says"]
