"""Words that do not stand in the product, each with what to write instead.

Knows words and where they are allowed. Refuses to know what the code around them means.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.tree import code, product, python, text, tree

# The composition roots: here real time, chance and the terminal are taken and handed on.
ROOTS = {
    "gateway/cli.py",
    "gateway/cli_duties.py",
    "gateway/cli_people.py",
    "gateway/daemon.py",
    "gateway/demo/__init__.py",
    "gateway/demo/scenarios.py",
}
# The supervisor hands its children an environment made from its own, and makes their passwords.
SUPERVISOR = re.compile(r"^gateway/servers/")
# A tool of its own process: it may read the clock and print.
SIMULATORS = re.compile(r"^(router|bridge)/sim/")

BANNED = {
    r"\bdatetime\.(utc)?now\(": "the clock that the constructor was given",
    r"\bdate\.today\(": "the clock that the constructor was given",
    r"\btime\.(time|time_ns)\(": "the clock that the constructor was given",
    r"\btime\.sleep\(": "await asyncio.sleep: the loop serves everyone",
    r"\brandom\.(random|randint|choice|choices|shuffle|uniform|randbytes)\(": (
        "the chance that the constructor was given"
    ),
    r"\buuid\.uuid\d\(": "ledger.ids.Ids",
    r"\bprint\(": "config.log.event",
}
# The door answers every request: a bug is a 500 there, with its trace in the log.
LAST_RESORTS = {
    "gateway/http/serving.py": "log.exception(",
    "gateway/people/lookup.py": "set_exception(error)",  # raised where it was asked for
}
SECRETS = r"\bsecrets\.(token_|choice|randbelow)"
ENVIRONMENT = r"\bos\.environ\b|\bos\.getenv\("
MONEY_ROOMS = ("ledger/", "router/")
FLOAT_ALLOWED = re.compile(r"^router/(sim/|score\.py)")
MONEY_NAMES = re.compile(r"(^|_)(amount|minor|balance|fee|price|cost)s?(_minor)?$")


def found(pattern: str, paths: Iterator[Path]) -> list[str]:
    """Places where running code matches, as file:line."""
    words = re.compile(pattern)
    return [
        f"{path}:{number}"
        for path in paths
        for number, line in enumerate(code(path), start=1)
        if words.search(line)
    ]


def rooms() -> Iterator[Path]:
    """The modules that get their world from a constructor."""
    return (
        path
        for path in product()
        if path.as_posix() not in ROOTS and not SIMULATORS.match(path.as_posix())
    )


@pytest.mark.parametrize("pattern", BANNED)
def test_time_chance_and_the_terminal_come_in_through_constructors(pattern: str) -> None:
    """Time, chance and the terminal are taken at the composition roots only."""
    places = found(pattern, rooms())
    assert not places, f"use {BANNED[pattern]} instead of {pattern} in {places}"


def test_the_environment_is_read_at_the_roots() -> None:
    """What the environment says reaches a room as a setting, never as a variable it looks up."""
    paths = (path for path in rooms() if not SUPERVISOR.match(path.as_posix()))
    places = found(ENVIRONMENT, paths)
    assert not places, f"make it a setting of config.settings instead of a variable: {places}"


def test_secrets_are_made_at_the_roots() -> None:
    """Random bytes for keys and tokens come in through a constructor."""
    paths = (path for path in rooms() if not SUPERVISOR.match(path.as_posix()))
    places = found(SECRETS, paths)
    assert not places, f"take random_bytes in the constructor instead of secrets: {places}"


def test_money_is_never_a_float() -> None:
    """In the rooms that hold money nothing is converted to a float."""
    paths = (
        path
        for path in product()
        if path.as_posix().startswith(MONEY_ROOMS) and not FLOAT_ALLOWED.match(path.as_posix())
    )
    places = found(r"\bfloat\(", paths)
    assert not places, f"use whole minor units or Decimal instead of float( in {places}"


def test_no_name_of_money_is_annotated_float() -> None:
    """A field or a parameter named after money is int, Decimal, str or Money."""
    places = [
        f"{path}:{node.lineno} {name}"
        for path in product()
        for node in ast.walk(tree(path))
        for name, annotation in annotated(node)
        if MONEY_NAMES.search(name) and "float" in ast.unparse(annotation).split(" | ")
    ]
    assert not places, f"money is whole minor units or Decimal, never float: {places}"


def annotated(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """The annotated names that a node introduces."""
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id, node.annotation
    if isinstance(node, ast.arg) and node.annotation is not None:
        yield node.arg, node.annotation


def test_nothing_swallows_a_bug() -> None:
    """A handler broad enough to catch a bug raises again: a bug stops the process."""
    places = [
        f"{path}:{node.lineno}"
        for path in product()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler)
        and broad(node)
        and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
        and not resort(path, node)
    ]
    assert not places, f"name the fault you expect, or raise again: {places}"


def resort(path: Path, handler: ast.ExceptHandler) -> bool:
    """Whether a broad handler is the one place allowed to answer for a bug, and does log it."""
    needed = LAST_RESORTS.get(path.as_posix())
    return needed is not None and needed in ast.unparse(handler)


def broad(handler: ast.ExceptHandler) -> bool:
    """Whether a handler catches everything, bugs included."""
    if handler.type is None:
        return True
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(ast.unparse(kind) in {"Exception", "BaseException"} for kind in caught)


def test_nothing_is_left_for_later() -> None:
    """A note to finish something stands in the tracker, never in the code."""
    later = re.compile(r"#.*\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
    places = [
        f"{path}:{number}"
        for path in python()
        for number, line in enumerate(text(path).splitlines(), start=1)
        if later.search(line)
    ]
    assert not places, f"finish it now or say in the documents what is not built: {places}"


def test_nothing_knows_that_it_is_tested() -> None:
    """The product behaves the same under test: simulators are servers, not branches."""
    places = found(r"\bif\s+(not\s+)?(self\.)?_?(is_)?test(ing|_mode)?\b|PYTEST_", iter(product()))
    assert not places, f"reach the simulator over its real wire instead: {places}"
