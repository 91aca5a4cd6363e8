"""Figures of benchmarks: their values, their limits, their targets, and how they are shown.

Knows the form of the table and of `results/latest.json`. Refuses to know how anything is measured.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table


class Figure(msgspec.Struct, frozen=True):
    """One measured value.

    limit   a value measured in the same run that it is set beside; the ratio is value / limit
    target  the ratio that this figure should reach, None where it is shown for information
    most    whether the ratio may be at most the target: of waits less is better
    """

    name: str
    value: float
    unit: str
    limit: float | None = None
    limit_name: str = ""
    target: float | None = None
    most: bool = False

    @property
    def ratio(self) -> float | None:
        """How the value compares with its limit."""
        return None if self.limit is None else self.value / self.limit

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None or self.ratio is None:
            return None
        return self.ratio <= self.target if self.most else self.ratio >= self.target


def machine(postgres: str) -> str:
    """What the figures were measured on: they say nothing of another machine."""
    cores = len(os.sched_getaffinity(0))
    return f"{processor()}, {cores} cores, {platform.system()} {platform.release()}, {postgres}"


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def store(path: Path, on: str, figures: Sequence[Figure]) -> None:
    """Write the figures as JSON, the way that other tools read them."""
    rows = [
        {
            "name": f.name, "value": rounded(f.value), "unit": f.unit,
            "limit": rounded(f.limit), "limit_name": f.limit_name or None,
            "ratio": rounded(f.ratio), "target": f.target, "most": f.most,
        }
        for f in figures
    ]  # fmt: skip
    whole = msgspec.json.encode({"machine": on, "figures": rows})
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.format(whole, indent=2) + b"\n")


def rounded(value: float | None) -> float | None:
    """Four significant digits: more would claim a precision that a noisy machine does not have."""
    return None if value is None else float(f"{value:.4g}")


def show(console: Console, on: str, figures: Sequence[Figure]) -> None:
    """Print one table of all figures."""
    table = Table(title=on, title_style="dim")
    for heading in ("figure", "value", "unit", "limit", "ratio", "target", ""):
        table.add_column(
            heading, justify="right" if heading in {"value", "ratio"} else "left", no_wrap=True
        )
    for f in figures:
        verdict = {None: "", True: "[green]reached[/]", False: "[red]missed[/]"}[f.reached]
        limit = "" if f.limit is None else f"{amount(f.limit)} {f.limit_name}"
        ratio = "" if f.ratio is None else f"{f.ratio:.2f}"
        target = "" if f.target is None else f"{'<=' if f.most else '>='} {f.target:g}"
        table.add_row(f.name, amount(f.value), f.unit, limit, ratio, target, verdict)
    console.print(table)


def amount(value: float) -> str:
    """A value for people."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
