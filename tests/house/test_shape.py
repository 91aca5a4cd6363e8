"""The shape of modules, functions and tests.

Knows lengths and docstrings. The limits only ever go down; refuses to know why a function is long.
"""

import ast
import re
from pathlib import Path
from statistics import median

import pytest

from tests.house.tree import PACKAGES, files, functions, length, product, python, text, tree

FUNCTION_LINES_MAX = 60
FUNCTION_LINES_MEDIAN_MAX = 10
FILE_LINES_MAX = 600
REFUSES = re.compile(
    r"\b(refuses?|never|not|no|nothing|nobody|none|only|without|neither|nor|cannot|elsewhere)\b",
    re.IGNORECASE,
)


def test_each_module_says_what_it_knows_and_what_it_refuses_to_know() -> None:
    """Each module opens with a docstring of two sentences or more, one of them a refusal."""
    poor = [
        str(path)
        for path in product()
        if (doc := ast.get_docstring(tree(path)) or "").count(".") < 2 or not REFUSES.search(doc)
    ]
    assert not poor, (
        f"open with what the module knows and what it refuses to know, in two sentences: {poor}"
    )


def test_each_public_function_of_the_product_has_a_docstring() -> None:
    """A public function or class says what it means; nested helpers and tests speak by name."""
    silent = [
        f"{path}:{node.lineno} {node.name}"
        for path in product()
        for node in tree(path).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node) is None
    ]
    assert not silent, f"say the meaning, the units and the errors in a docstring: {silent}"


def test_functions_are_short() -> None:
    """No function is longer than the limit, its docstring apart."""
    long = [
        f"{path}:{node.lineno} {node.name} has {length(node)} lines"
        for path in python()
        for node in functions(path)
        if length(node) > FUNCTION_LINES_MAX
    ]
    assert not long, f"split by what each part decides; the limit is {FUNCTION_LINES_MAX}: {long}"


@pytest.mark.parametrize("package", PACKAGES)
def test_most_functions_are_very_short(package: str) -> None:
    """The median function of a package has at most ten lines."""
    lengths = [
        length(node) for path in product() if path.parts[0] == package for node in functions(path)
    ]
    middle = median(lengths or [0])
    assert middle <= FUNCTION_LINES_MEDIAN_MAX, f"{package}: the median function has {middle} lines"


def test_files_are_short() -> None:
    """No Python file is longer than the limit: a second noun has moved in."""
    long = [
        f"{path} has {count} lines"
        for path in python()
        if (count := len(text(path).splitlines())) > FILE_LINES_MAX
    ]
    assert not long, f"give the second noun its own file; the limit is {FILE_LINES_MAX}: {long}"


def test_each_test_states_its_rule() -> None:
    """Every test has a docstring: the rule it guards, in one sentence."""
    silent = [
        f"{path}:{node.lineno} {node.name}"
        for path in python()
        if path.parts[0] == "tests"
        for node in functions(path)
        if node.name.startswith("test_") and ast.get_docstring(node) is None
    ]
    assert not silent, f"state the rule that the test guards in its docstring: {silent}"


def test_no_test_asserts_on_elapsed_time() -> None:
    """A noisy machine breaks a timed assertion; waits are bounded by limits instead."""
    timed = re.compile(r"assert .*(elapsed|perf_counter|monotonic\(|time\.time\().*[<>]")
    places = [
        f"{path}:{number}"
        for path in python()
        if path.parts[0] == "tests" and path.parts[1] != "house"
        for number, line in enumerate(text(path).splitlines(), start=1)
        if timed.search(line)
    ]
    assert not places, f"wait for a condition with a limit, or move the clock by hand: {places}"


def test_tests_stand_in_their_rooms() -> None:
    """A test file stands in one of the known folders, and is named so that pytest finds it."""
    rooms = {"unit", "integration", "scenarios", "house", "soak"}
    strays = [
        str(path)
        for path in files()
        if path.parts[0] == "tests"
        and path.name.startswith("test_")
        and (path.parts[1] not in rooms or path.suffix != ".py")
    ]
    assert not strays, f"move it into tests/<{'|'.join(sorted(rooms))}>: {strays}"


def test_no_folder_is_a_junk_drawer() -> None:
    """There is no common, utils, helpers, misc or models: each thing has a noun."""
    drawers = {"common", "utils", "util", "helpers", "misc", "models", "shared"}
    found = [str(path) for path in product() if drawers & {Path(path).stem, *path.parts[:-1]}]
    assert not found, f"name the noun that the module is about: {found}"
