"""`brokerd demo`: a whole broker on this machine, against simulators that can misbehave.

Knows the order: start, settle people in, drive deposits, come to rest, judge, end. Refuses to know
how any of it is done. It is a composition root: time, chance and the environment are taken here.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Final

import aiohttp
import click
import msgspec
from rich.console import Console
from rich.live import Live

from config.rulebook import Rulebook
from gateway.control import rulebook as rulebooks
from gateway.demo import drive, people, screen
from gateway.demo.api import Unexpected
from gateway.demo.children import ChildFailed
from gateway.demo.drive import Traffic, Watched
from gateway.demo.judge import Judge, Summary
from gateway.demo.market import Market
from gateway.demo.peers import free_port
from gateway.demo.people import Known
from gateway.demo.world import PORTAL, Place, World, opened
from gateway.migrate import MigrationError
from gateway.opening import Clocks, real_clocks
from gateway.servers import ServersError
from ledger.ids import Ids

RULEBOOK: Final = Path(__file__).parents[2] / "config" / "demo"
PORT: Final = 8080
ENVIRONMENT: Final = "demo.env"
PER_S_MIN: Final = 20.0
PER_S_LIVE: Final = 4.0
DEPOSITS_WANTED: Final = 320  # well over what a run must show
DEALS_WANTED: Final = 23_000
REFRESH_S: Final = 0.5
SEED: Final = 11
WRONG_SHOWN: Final = 20


class Run(msgspec.Struct, frozen=True):
    """How the demo was asked for."""

    headless: bool
    seconds: float | None
    summary: Path | None
    fresh: bool
    traders: int


def main(
    *, headless: bool, seconds: float | None, summary: Path | None, fresh: bool, traders: int
) -> int:
    """Run the demo; the exit code: 0 when all is right, 1 when not or when it cannot start."""
    book = sample_rules()
    run = Run(headless, seconds, summary, fresh, traders)
    place = place_of("", port=free_port(0 if headless else PORT), fresh=fresh)
    if summary is not None:
        summary.unlink(missing_ok=True)  # an old one must not pass for this run's
    try:
        return asyncio.run(_demo(run, place, book))
    except (KeyboardInterrupt, asyncio.CancelledError):
        click.echo("\nstopped")
        return 1 if headless else 0  # without a verdict nothing was shown to be right
    except MigrationError as error:
        click.echo(f"the books are of another version; --fresh begins anew: {error}", err=True)
    except (ServersError, ChildFailed, Unexpected, aiohttp.ClientError, OSError) as error:
        click.echo(f"the demo cannot go on: {error}", err=True)
    return 1


def sample_rules() -> Rulebook:
    """The sample broker's rulebook."""
    book, findings = rulebooks.check(RULEBOOK)
    if book is None:
        raise click.ClickException(f"the sample rulebook is wrong: {findings[0].message}")
    return book


def place_of(name: str, *, port: int, fresh: bool) -> Place:
    """Where a sample broker of this name stands, as the environment says; "" is the demo's own."""
    state = Path(os.environ.get("BROKERD_EMBEDDED__STATE_FOLDER", "state")).absolute()
    return Place(
        folder=state / name, rulebook=RULEBOOK, environ=_inherited(os.environ), port=port,
        run_as=os.environ.get("BROKERD_EMBEDDED__RUN_AS") or None, fresh=fresh,
    )  # fmt: skip


def _inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of children: without settings that are meant for another daemon."""
    return {name: value for name, value in environ.items() if not name.startswith("BROKERD_")}


async def _demo(run: Run, place: Place, book: Rulebook) -> int:
    """Start everything, play, and end everything, also when a child ends by itself."""
    me = asyncio.current_task()
    assert me is not None, "asyncio.run made one"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    clocks = real_clocks()
    ids = Ids(lambda: time.time_ns() // 1_000_000, clocks.random_bytes)
    try:
        async with opened(place, book, clocks, ids, _say) as world, asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(world.crash())
            with _named(place.folder / ENVIRONMENT, world):
                code = await _play(run, world, book, clocks)
            watch.cancel()
            return code
    except ExceptionGroup as group:
        raise _first(group) from None


@contextmanager
def _named(path: Path, world: World) -> Iterator[None]:
    """While the block lasts a file for a shell's `.` names the address and the caller's key."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(screen.exports(world.url, world.tokens[PORTAL]))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _say(what: str) -> None:
    click.echo(f"starting {what} ...")


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """The reason to show: a child that ended, else the first of what went wrong at once."""
    ended = group.subgroup(ChildFailed)
    error: Exception = ended if ended is not None else group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


async def _play(run: Run, world: World, book: Rulebook, clocks: Clocks) -> int:
    """Settle people in, let them deposit and deal, and judge."""
    told = Watched()
    world.ear.on_event = told.told
    click.echo("creating clients and trading accounts ...")
    await world.platform.post("/faults", {"command": "user/add", "action": "drop_after"})
    clients = await people.settle_in(world.desk, people.sample())
    async with aiohttp.ClientSession() as http:
        market = Market(world, book, http, clocks, run.traders)
        since = clocks.now()
        if not run.headless:
            click.echo(screen.directions(world))
            await _live(run, world, told, clients, market)
            return await _judge(run, world, since)
        click.echo("creating partners and the clients they bring ...")
        await market.settle()
        since = clocks.now()
        async with market.watched():
            await _headless(run, world, told, clients, market)
            return await _judge(run, world, since, market)


def _chance() -> Random:
    return Random(SEED)  # noqa: S311 - it chooses deposits and keeps nothing secret


async def _headless(
    run: Run, world: World, told: Watched, clients: list[Known], market: Market
) -> None:
    """Deposits and deals for so long, on a platform that misbehaves."""
    assert run.seconds is not None, "the command line demands it"
    per_s = max(PER_S_MIN, DEPOSITS_WANTED / run.seconds)
    deals_per_s = DEALS_WANTED / run.seconds
    paces = f"{per_s:.0f} deposits and {deals_per_s:.0f} deals a second"
    click.echo(f"driving {paces} for {run.seconds:g} s ...")
    traffic = Traffic(world.desk.portal, clients, told, _chance(), per_s)
    async with _troubled(world), market.dealing(deals_per_s):
        await traffic.run_for(run.seconds)


async def _live(
    run: Run, world: World, told: Watched, clients: list[Known], market: Market
) -> None:
    """The table, until the time is over or somebody ends it; the market opens meanwhile."""
    traffic = Traffic(world.desk.portal, clients, told, _chance(), PER_S_LIVE)
    with Live(console=Console(), refresh_per_second=4) as live:
        async with _troubled(world), asyncio.TaskGroup() as tasks:
            beside = [
                tasks.create_task(_draw(live, world, told, market)),
                tasks.create_task(market.live()),
            ]
            await traffic.run_for(run.seconds or float("inf"))
            for task in beside:
                task.cancel()


@asynccontextmanager
async def _troubled(world: World) -> AsyncIterator[None]:
    """While the block lasts the platform misbehaves now and then."""
    trouble = asyncio.create_task(drive.trouble(world.platform))
    try:
        yield
    finally:
        trouble.cancel()
        await asyncio.gather(trouble, return_exceptions=True)
        await world.platform.delete("/faults")


async def _draw(live: Live, world: World, watched: Watched, market: Market) -> None:
    seen = screen.Seen()
    while True:
        with suppress(Unexpected, aiohttp.ClientError, TimeoutError):
            seen.sessions = (await world.auditor.get("/v1/sessions"))["data"]
            seen.deals = (await world.platform.get("/deals"))["made"]
            seen.liability = (await world.desk.portal.get("/v1/rebates/liability"))["data"]
        live.update(screen.drawn(world, watched, seen, market))
        await asyncio.sleep(REFRESH_S)


async def _judge(run: Run, world: World, since: datetime, market: Market | None = None) -> int:
    """Come to rest, compare all books, and say what was found."""
    click.echo("coming to rest ...")
    deals = market.judge() if market else None
    judge = Judge(world.dsn, world.providers, world.platform, world.desk.portal, world.ear, deals)
    verdict, wrong = await judge.verdict(since)
    _show(verdict, wrong)
    if run.summary is not None:
        run.summary.write_bytes(msgspec.json.format(msgspec.json.encode(verdict)) + b"\n")
    return 0 if verdict.ok else 1


def _plain(figure: object) -> str:
    if isinstance(figure, dict):
        return " and ".join(f"{amount} {code}" for code, amount in figure.items())
    return str(figure)


def _show(verdict: Summary, wrong: list[str]) -> None:
    for name in ("deposits", "deals", "rebates", "ledger", "platform", "stream", "webhooks"):
        figures = msgspec.structs.asdict(getattr(verdict, name))
        said = ", ".join(f"{_plain(it)} {what.replace('_', ' ')}" for what, it in figures.items())
        click.echo(f"{name + ':':<10} {said}")
    for each in wrong[:WRONG_SHOWN]:
        click.echo(f"wrong: {each}")
    if len(wrong) > WRONG_SHOWN:
        click.echo(f"and {len(wrong) - WRONG_SHOWN} more")
    click.echo("all books agree" if verdict.ok else "the books do not agree")
