"""The files of the repository and the parsed form of its Python.

Knows which files are the project's (git's view: tracked, or new and not ignored) and how to read
them once. Refuses to judge them: that is what the tests beside it are for.
"""

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("gateway", "router", "bridge", "ledger", "config")
GENERATED = re.compile(r"(state|build|dist|__pycache__|.*\.egg-info)$")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def files() -> tuple[Path, ...]:
    """Every file of the project, relative to its root."""
    try:
        names = [Path(name) for name in listed_by_git()]
    except (OSError, subprocess.CalledProcessError):
        names = [path.relative_to(ROOT) for path in walk(ROOT)]
    return tuple(name for name in sorted(set(names)) if (ROOT / name).is_file())


def listed_by_git() -> list[str]:
    """What git tracks, and what is new and not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return [name for name in listed.split("\0") if name]


def walk(folder: Path) -> Iterator[Path]:
    """The same without git: every file but those of tools, environments and earlier runs."""
    for path in folder.iterdir():
        hidden = path.name.startswith(".") and path.name != ".ci"
        if path.is_dir() and not hidden and not GENERATED.match(path.name):
            yield from walk(path)
        elif path.is_file() and not path.name.endswith(".pyc"):
            yield path


@cache
def text(path: Path) -> str:
    """The text of one file; bytes that are not UTF-8 are replaced, never fatal."""
    return (ROOT / path).read_text(encoding="utf-8", errors="replace")


@cache
def tree(path: Path) -> ast.Module:
    """The parsed module."""
    return ast.parse(text(path), filename=str(path))


@cache
def product() -> tuple[Path, ...]:
    """Every Python file that is installed: the five packages."""
    return tuple(path for path in files() if path.suffix == ".py" and path.parts[0] in PACKAGES)


@cache
def python() -> tuple[Path, ...]:
    """Every Python file of the project, tests and benchmarks included."""
    return tuple(path for path in files() if path.suffix == ".py")


@cache
def code(path: Path) -> tuple[str, ...]:
    """The lines of a module with comments and strings taken out: what runs, not what is said."""
    lines = text(path).splitlines()
    kept = [""] * (len(lines) + 1)
    for token in tokenize.generate_tokens(io.StringIO(text(path)).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            continue
        row, column = token.start
        if token.string.strip() and token.start[0] == token.end[0]:
            kept[row - 1] = kept[row - 1].ljust(column) + token.string
    return tuple(kept)


def functions(path: Path) -> Iterator[Function]:
    """Every function and method of a module, nested ones included."""
    return (node for node in ast.walk(tree(path)) if isinstance(node, Function))


@cache
def docstring_nodes(path: Path) -> set[int]:
    """The ids of the string nodes that are docstrings or bare strings: prose, never data."""
    return {
        id(node.value)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def length(node: Function) -> int:
    """Lines of a function without its decorators and its docstring."""
    assert node.end_lineno is not None
    lines = node.end_lineno - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node, clean=False) is not None and first.end_lineno is not None:
        lines -= first.end_lineno - first.lineno + 1
    return lines
