"""Measure against the targets: `python -m loadtests.bench [NAMES] [--full]`.

Knows which benches there are and how their figures are shown and stored. Refuses to measure: each
bench is a module of its own with one `measure(ground, full=...)`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import uvloop
from rich.console import Console

from loadtests.figures import Figure, machine, show, store
from loadtests.ground import ground

# A bench bears the name of its targeted figure; its module has `async measure(ground, *, full)`.
BENCHES: Final = {
    "journal": "loadtests.journal",
    "deposit": "loadtests.deposit",
    "accrual": "loadtests.accrual",
    "stream": "loadtests.stream",
    "mixed": "loadtests.mixed",
    "audit": "loadtests.audit",
    "access": "loadtests.access",
}
WIDTH: Final = 170  # of the table where there is no terminal to ask
LATEST: Final = Path(__file__).parent / "results" / "latest.json"


async def run(names: Sequence[str], *, full: bool, console: Console) -> tuple[str, list[Figure]]:
    """Run the benches on servers of their own; returns the machine and the figures."""
    figures: list[Figure] = []
    async with ground() as stood:
        for name in names:
            with console.status(f"{name} ..."):
                figures += await importlib.import_module(BENCHES[name]).measure(stood, full=full)
        return machine(f"PostgreSQL {stood.version}"), figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; the exit code is 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}")
    parser.add_argument("--full", action="store_true", help="more and longer rounds")
    asked = parser.parse_args(arguments)
    names = asked.names or list(BENCHES)
    if unknown := [name for name in names if name not in BENCHES]:
        parser.error(f"no bench is called {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    on, figures = uvloop.run(run(names, full=asked.full, console=console))
    store(LATEST, on, figures)
    show(console, on, figures)
    return 0 if all(figure.reached is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
