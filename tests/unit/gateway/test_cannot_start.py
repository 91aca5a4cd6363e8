"""A daemon that cannot start says why, with the place of each mistake, and ends with status 1."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from config.findings import Finding, Where
from config.secret import Secret
from config.settings import Control, RulebookPlace, Settings
from gateway import daemon
from gateway.control.rulebook import RulebookRefused

DEMO = Path(__file__).parents[3] / "config" / "demo"
FINDING = Finding(Where("plans.toml", 28), "plan-currency-changed", "was published in EUR")


def test_a_rulebook_that_cannot_follow_is_refused_with_its_places(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What only the database can see is told as what `brokerd check` sees: by file and line."""

    async def serve(*_: Any, **__: Any) -> None:
        raise RulebookRefused([FINDING])

    monkeypatch.setattr(daemon, "serve", serve)
    for name in ("set_up", "collect_seldom"):  # they are of the process, which is the tests'
        monkeypatch.setattr(daemon, name, lambda *_: None)
    with caplog.at_level(logging.ERROR):
        settings = Settings(
            rulebook=RulebookPlace(folder=str(DEMO)), control=Control(pepper=Secret("p"))
        )
        assert daemon.main(settings, adopt=True) == 1
    found = [record.facts for record in caplog.records if record.msg == "daemon.finding"]
    assert found == [{"place": "plans.toml:28", "code": FINDING.code, "why": FINDING.message}]
