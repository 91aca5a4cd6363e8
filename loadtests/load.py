"""Play a calling system for a minute: `make load`, or `python -m loadtests.load`.

Starts everything (servers, the daemon, the simulated platform and providers), runs locust headless
at constant throughput, prints its figures beside the daemon's own histogram of the same minute, and
then has `brokerd verify` prove the books. It knows the two views and compares them; it refuses to
judge: there is no target.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import aiohttp
import msgspec
from rich.console import Console
from rich.table import Table

from gateway.demo.children import PROGRAM
from gateway.demo.peers import start_provider
from loadtests import house
from loadtests.ground import Ground, ground

CLIENTS: Final = 100
WIDTH: Final = 120  # of the table where there is no terminal to ask
PER_S: Final = 100  # well under what two cores carry, so that times are not queues
SECONDS: Final = 60
PARTS: Final = (0.5, 0.95, 0.99)
SAMPLE: Final = re.compile(r"^(brokerd_http_request_seconds_\w+)\{(.*)\} (\S+)$", re.MULTILINE)
LABEL: Final = re.compile(r'(\w+)="([^"]*)"')


class View(msgspec.Struct, frozen=True, kw_only=True):
    """One route as one side saw it; times in ms."""

    name: str
    requests: int
    failures: int
    times_ms: tuple[float, ...]


@asynccontextmanager
async def standing(on: Ground) -> AsyncIterator[house.House]:
    """The daemon with the simulated platform and one simulated provider for each of the rules'."""
    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(on.base())
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="brokerd-load-")))
        secrets = house.secrets_in(folder, base, on.redis_url)
        port = house.free_port()
        urls = {}
        for number, psp in enumerate(house.rulebook().psps):
            peer = await start_provider(
                psp.id, folder, secrets, os.environ, seed=number,
                webhook_url=f"http://127.0.0.1:{port}/v1/psps/{psp.id}/webhooks",
            )  # fmt: skip
            stack.push_async_callback(peer.child.stop)
            urls[psp.id] = peer.url
        yield await stack.enter_async_context(house.opened(folder, secrets, urls, port, CLIENTS))


async def locust(home: house.House, folder: Path, per_s: int, seconds: int) -> list[View]:
    """Locust's own figures of one run."""
    prefix = folder / "locust"
    environ = {"LOAD_TOKEN": home.token, "LOAD_CLIENTS": ",".join(home.clients)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("locustfile.py")),
        "--headless", "--host", home.url, "--users", str(per_s), "--spawn-rate", str(per_s),
        "--run-time", f"{seconds}s", "--only-summary", "--csv", str(prefix), "--reset-stats",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environ},
    )  # fmt: skip
    _, said = await process.communicate()
    if process.returncode not in (0, 1):  # 1: some requests failed, which its figures tell
        raise RuntimeError(f"locust ended with {process.returncode}: {said.decode()[-2000:]}")
    return _stats(Path(f"{prefix}_stats.csv"))


def _stats(path: Path) -> list[View]:
    """Locust's table of routes."""
    with path.open(newline="") as file:
        return [_seen(row) for row in csv.DictReader(file) if row["Name"] != "Aggregated"]


def _seen(row: Mapping[str, str]) -> View:
    """A line of locust's CSV; its columns of parts are named `50%`, `95%`, `99%`."""
    return View(
        name=f"{row['Type']} {row['Name']}", requests=int(row["Request Count"]),
        failures=int(row["Failure Count"]),
        times_ms=tuple(float(row[f"{part:.0%}"]) for part in PARTS),
    )  # fmt: skip


# --- the daemon's own histogram -----------------------------------------------------------------

Buckets = dict[str, dict[float, float]]  # by route: upper end in seconds -> how many up to it


async def histogram(url: str) -> Buckets:
    """The buckets of every route as the daemon counts them."""
    async with aiohttp.ClientSession() as http, http.get(f"{url}/metrics") as answer:
        answer.raise_for_status()
        return buckets(await answer.text())


def buckets(exposition: str) -> Buckets:
    """The cumulative buckets in an exposition's text."""
    found: Buckets = {}
    for name, labels, value in SAMPLE.findall(exposition):
        if name.endswith("_bucket"):
            told = dict(LABEL.findall(labels))
            route = f"{told['method']} {told['route']}"
            found.setdefault(route, {})[float(told["le"])] = float(value)
    return found


def between(before: Buckets, after: Buckets) -> Buckets:
    """What was counted between two looks."""
    return {
        route: {end: count - before.get(route, {}).get(end, 0.0) for end, count in ends.items()}
        for route, ends in after.items()
    }


def part_of(ends: Mapping[float, float], part: float) -> float:
    """The time in ms that `part` of the requests did not exceed, even within its bucket."""
    total, low, under = max(ends.values(), default=0.0), 0.0, 0.0
    for end in sorted(ends):
        count = ends[end]
        if total and count >= part * total:
            if end == float("inf") or count == under:
                return low * 1000
            return (low + (end - low) * (part * total - under) / (count - under)) * 1000
        low, under = end, count
    return low * 1000


def show(console: Console, seen: Sequence[View], counted: Buckets, seconds: int) -> None:
    """One table: what the caller saw, and beside it what the daemon counted."""
    title = f"{seconds} s; locust's figure / the daemon's own, times in ms"
    table = Table(title=title, min_width=100)
    for heading in ("route", "requests", "failed", "a second", "p50", "p95", "p99"):
        table.add_column(heading, justify="left" if heading == "route" else "right")
    for view in seen:
        ends = counted.get(view.name, {})
        ours = [part_of(ends, part) for part in PARTS]
        table.add_row(
            view.name, f"{view.requests:,} / {max(ends.values(), default=0):,.0f}",
            str(view.failures), f"{view.requests / seconds:,.0f}",
            *[f"{a:,.1f} / {b:,.1f}" for a, b in zip(view.times_ms, ours, strict=True)],
        )  # fmt: skip
    console.print(table)


async def verified(home: house.House) -> int:
    """`brokerd verify` on the same database: its exit code; it prints for itself."""
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, "verify", "--config", str(home.settings)
    )
    return await process.wait()


async def run(per_s: int, seconds: int) -> int:
    """One load test; the exit code says whether the books agree and every request was answered."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    with console.status("starting the house ...") as status:
        async with ground() as on, standing(on) as home:
            status.update(f"{per_s} deposits a second for {seconds} s ...")
            before = await histogram(home.url)
            with TemporaryDirectory(prefix="brokerd-load-") as folder:
                seen = await locust(home, Path(folder), per_s, seconds)
            after = await histogram(home.url)
            show(console, seen, between(before, after), seconds)
            wrong = await verified(home)
    return 1 if wrong or any(view.failures for view in seen) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the load test that the command line asks for."""
    parser = argparse.ArgumentParser(prog="make load", description=__doc__)
    parser.add_argument("--per-s", type=int, default=PER_S, help="deposits a second")
    parser.add_argument("--seconds", type=int, default=SECONDS)
    asked = parser.parse_args(arguments)
    return asyncio.run(run(asked.per_s, asked.seconds))


if __name__ == "__main__":
    sys.exit(main())
