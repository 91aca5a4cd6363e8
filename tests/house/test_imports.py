"""Importing is free: no module of the product does anything before it is asked to.

Knows what happens while every module is imported. Refuses to know what the modules are for; the
order of imports between rooms is checked by import-linter's contracts in pyproject.toml.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.house.tree import ROOT, functions, product, tree

# Runs in a process of its own. Only events raised while code of the product is being executed
# count: a library that probes for IPv6 when it is imported is not ours to forbid.
WATCH = """
import importlib, json, sys

root, names, seen = sys.argv[1], json.loads(sys.argv[2]), []
asked = {"socket.bind", "socket.connect", "os.mkdir", "os.remove", "os.rename", "os.chmod",
         "os.fork", "subprocess.Popen", "sqlite3.connect"}

def ours():
    frame = sys._getframe(2)
    while frame is not None and "importlib" in frame.f_code.co_filename:
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename.startswith(root) and (
        "/.venv/" not in frame.f_code.co_filename)

def watch(event, args):
    wrote = event == "open" and isinstance(args[1], str) and set("wax+") & set(args[1])
    if (wrote or event in asked or event.startswith("socket.__new__")) and ours():
        seen.append(f"{importing}: {event} {args[:1]}")

sys.addaudithook(watch)
for importing in names:
    importlib.import_module(importing)
print(json.dumps(seen))
"""


def modules() -> list[str]:
    """The dotted names of the product's modules, entry scripts (__main__) apart."""
    return [
        ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        for path in product()
        if path.name != "__main__.py"
    ]


def test_importing_every_module_opens_nothing() -> None:
    """Importing the product opens no socket, starts no process and makes no file."""
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", WATCH, str(ROOT), json.dumps(modules())],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [], "move it into a function that somebody calls"


def test_only_the_command_line_starts_a_simulator_and_only_when_asked() -> None:
    """A simulator is imported inside a function of gateway/cli.py, nowhere else and never early."""
    for path in product():
        early = [name for name in imported(tree(path).body) if simulator(name)]
        if path.parts[1] != "sim":
            assert not early, f"{path} imports {early} at the top: the daemon must not carry it"


def imported(body: list[ast.stmt]) -> Iterator[str]:
    """The names that a module imports when it is imported itself."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def simulator(name: str) -> bool:
    """Whether a dotted name leads into a simulator."""
    return name.startswith(("router.sim", "bridge.sim"))


def test_no_module_keeps_state_for_everyone() -> None:
    """Nothing is passed through a global: what a function needs, it is handed."""
    places = [
        f"{path}:{node.lineno}"
        for path in product()
        for function in functions(path)
        for node in ast.walk(function)
        if isinstance(node, ast.Global)
    ]
    assert not places, f"make it an argument of a constructor: {places}"


def test_every_module_is_used() -> None:
    """A module that no other module imports is dead: it is wired in, or removed."""
    used = {name for path in product() for name in named_modules(path)}
    dead = [
        name for name in modules() if "." in name and name not in used and name != "gateway.cli"
    ]
    assert not dead, f"wire it in or remove it: {dead}"


def named_modules(path: Path) -> Iterator[str]:
    """The modules that a module names, at its top or inside a function, and their packages."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in imported([node]):
                parts = name.split(".")
                yield from (".".join(parts[:count]) for count in range(2, len(parts) + 1))
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value  # the command line names modules that it imports when asked


def test_every_package_carries_its_types() -> None:
    """Each of the five packages has py.typed, so that the types reach those who import it."""
    for package in ("gateway", "router", "bridge", "ledger", "config"):
        assert Path(ROOT, package, "py.typed").exists(), package
