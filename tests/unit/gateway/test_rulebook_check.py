"""A rulebook as every room sees it: all findings, each once, and no room that gives up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from config.rulebook import Rulebook
from gateway.control import rulebook
from gateway.control.rulebook import check
from tests.unit.config.test_references import MISTAKES, changed

DEMO = Path(__file__).parents[3] / "config" / "demo"


@pytest.fixture
def edited(tmp_path: Path) -> Callable[..., Path]:
    """A copy of the demo broker with one text replaced in one file."""

    def edit(file: str, before: str, after: str) -> Path:
        for source in DEMO.glob("*.toml"):
            (tmp_path / source.name).write_text(source.read_text())
        path = tmp_path / file
        assert before in path.read_text()
        path.write_text(path.read_text().replace(before, after, 1))
        return tmp_path

    return edit


@pytest.fixture(scope="module")
def book() -> Rulebook:
    """The demo broker, which every room likes."""
    found, findings = check(DEMO)
    assert [finding.text for finding in findings] == []
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("file", "before", "after", "code"),
    [
        ("payments.toml", '"simpay"', '"paywhat"', "connector-unknown"),
        (
            "rules.toml",
            'when.method = ["bank_transfer"]',
            'when.method = ["bank"]',
            "method-unknown",
        ),
        ("rules.toml", 'route = ["coral"]', 'route = ["acme"]', "rule-without-psp"),
        ("groups.toml", "leverage = 30 ", "rights = 354\nleverage = 30 ", "rights-disabled"),
        ("groups.toml", 'currency = "EUR"', 'currency = "XYZ"', "currency-unknown"),
        ("access.toml", '"clients:write"', '"clients:paint"', "scope-unknown"),
        ("plans.toml", 'currency = "EUR"', 'currency = "XYZ"', "currency-unknown"),
        (
            "plans.toml",
            '{ symbol = "BTCUSD",',
            '{ symbol = "BTCUSD", group = "crypto",',
            "rate-unclear",
        ),
        ("plans.toml", 'symbol = "BTCUSD"', 'symbol = "EURUSD"', "rate-ambiguous"),
    ],
)
def test_each_room_says_what_it_cannot_work_with(
    edited: Callable[..., Path], file: str, before: str, after: str, code: str
) -> None:
    """Routing, provisioning, access and plans find in their part what takes their knowledge."""
    found, findings = check(edited(file, before, after))
    assert found is None
    assert code in {finding.code for finding in findings}
    assert {Path(finding.where.file).name for finding in findings} == {file}
    assert all(finding.where.line for finding in findings)


def test_one_mistake_is_one_finding(edited: Callable[..., Path]) -> None:
    """What two rooms notice at one key is said once, by the first."""
    _, findings = check(edited("rules.toml", 'route = ["coral"]', 'route = ["coral", "moon"]'))
    assert [(it.code, it.key) for it in findings] == [("unknown-name", "rule[7].route[1]")]


@pytest.mark.parametrize(("code", "key", "part", "number", "values"), MISTAKES)
def test_no_room_gives_up_on_a_wrong_rulebook(
    book: Rulebook, code: str, key: str, part: str, number: int, values: dict[str, object]
) -> None:
    """A rulebook with broken references is still compiled by all, so that all findings are seen."""
    compiled = list(rulebook._compiled(changed(book, part, number, values)))
    assert len(compiled) == 6
