"""What an operator may be asked to look at is written where an operator looks.

Knows the codes by the modules that use them. Refuses to know what they mean: the document says.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.house.tree import product, text, tree

DOCUMENT = Path("docs/operations.md")
KIND = re.compile(r"[a-z]+(-[a-z]+)+")


def calls(path: Path, *names: str) -> Iterator[ast.Call]:
    """The calls in a module of functions or methods with one of these names."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in names:
                yield node


def words(nodes: list[ast.expr]) -> Iterator[str]:
    """The texts among arguments that could be a kind or a code."""
    for node in nodes:
        value = node.value if isinstance(node, ast.Constant) else None
        if isinstance(value, str) and KIND.fullmatch(value):
            yield value


def undocumented(kinds: set[str]) -> list[str]:
    """Those that stand in no table of the operators' document."""
    document = text(DOCUMENT)
    return sorted(kind for kind in kinds if f"`{kind}`" not in document)


def test_every_kind_of_item_is_documented() -> None:
    """Whatever may be opened for a person to look at says there what to do about it."""
    kinds = {
        kind
        for path in product()
        if path.parts[:2] == ("gateway", "flows")
        for call in calls(path, "item_opened", "_item")
        for kind in words(call.args)
    }
    assert len(kinds) > 10, "the calls that open items are found by their names"
    assert not undocumented(kinds), f"say in {DOCUMENT} what to do: {undocumented(kinds)}"


def test_every_finding_of_verify_is_documented() -> None:
    """Each code that `brokerd verify` can print says there what it means."""
    modules = [Path("ledger/verify.py"), Path("gateway/verify.py"), Path("gateway/defences.py")]
    codes = {
        code
        for path in modules
        for call in calls(path, "Wrong", "_rows")
        for code in words(call.args[:1])
    }
    for path in modules:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Dict):
                codes |= set(words([key for key in node.keys if key is not None]))
    assert len(codes) > 20, "the codes are found by how they are made"
    assert not undocumented(codes), f"say in {DOCUMENT} what it means: {undocumented(codes)}"


def test_every_alert_and_degraded_part_is_documented() -> None:
    """Each alert, and each part that `/readyz` may name, says there what to do."""
    alerts = set(re.findall(r"- alert: (\w+)", text(Path("deploy/prometheus/alerts.yml"))))
    parts = {
        argument.value
        for call in calls(Path("gateway/daemon.py"), "watch")
        for argument in call.args[:1]
        if isinstance(argument, ast.Constant)
    }
    assert alerts
    assert parts
    assert not undocumented(alerts | parts), f"say in {DOCUMENT}: {undocumented(alerts | parts)}"
