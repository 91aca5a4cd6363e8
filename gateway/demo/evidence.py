"""What a scenario leaves behind: each step with what was asked, what came, and whether it is right.

Knows how steps become files that somebody reads later without us. Refuses to judge: whoever plays a
step says what should have come.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

SUMMARY: Final = "summary.json"


class Step(msgspec.Struct, frozen=True):
    """One step of a scenario.

    name   of the step, and of the file that holds `found` in whole
    says   what it shows, in a sentence
    wanted what had to come; `found` is what came
    """

    name: str
    says: str
    at: datetime
    wanted: Any
    found: Any
    ok: bool
    file: str = ""


class Evidence:
    """The folder of a scenario's evidence.

    now  the clock, UTC
    """

    def __init__(self, folder: Path, scenario: str, now: Callable[[], datetime]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._scenario = scenario
        self._now = now
        self._began = now()
        self.steps: list[Step] = []

    @property
    def ok(self) -> bool:
        """Whether there are steps, and each came out as it had to."""
        return bool(self.steps) and all(step.ok for step in self.steps)

    def step(self, name: str, says: str, *, wanted: Any, found: Any, whole: Any = None) -> bool:
        """Add a step; `whole` is kept in a file of its own. Returns whether it is right."""
        file = ""
        if whole is not None:
            file = f"{len(self.steps) + 1:02}-{name}.json"
            self._write(file, whole)
        ok = bool(wanted == found)
        self.steps.append(Step(name, says, self._now(), wanted, found, ok, file))
        return ok

    def close(self) -> None:
        """Write the summary."""
        summary = {
            "scenario": self._scenario, "ok": self.ok, "began": self._began, "ended": self._now(),
            "steps": self.steps,
        }  # fmt: skip
        self._write(SUMMARY, summary)

    def _write(self, file: str, value: Any) -> None:
        encoded = msgspec.json.format(msgspec.json.encode(value))
        (self.folder / file).write_bytes(encoded + b"\n")
