"""`brokerd scenario N`: a story of the brief, played on a whole broker, with its evidence kept.

Knows which stories there are, and how one is begun and ended. Refuses to know what happens in them.
It is a composition root: time, chance and the environment are taken here.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import aiohttp
import click
import msgspec

from config.rulebook import Rulebook
from gateway.control import rulebook as rulebooks
from gateway.demo import auditors_day
from gateway.demo.api import Unexpected
from gateway.demo.children import ChildFailed
from gateway.demo.evidence import Evidence
from gateway.demo.peers import free_port
from gateway.demo.world import Place, World, opened
from gateway.opening import real_clocks
from gateway.servers import ServersError
from ledger.ids import Ids

RULEBOOK: Final = Path(__file__).parents[2] / "config" / "demo"


class Story(msgspec.Struct, frozen=True):
    """A scenario: what it shows, and how it is played."""

    says: str
    play: Callable[[World, Evidence, Mapping[str, str]], Awaitable[None]]


STORIES: Final[Mapping[int, Story]] = {7: Story(auditors_day.SAYS, auditors_day.play)}


def main(number: int, folder: Path) -> int:
    """Play a story; the exit code: 0 when every step came out right, else 1.

    Its servers begin empty and keep their data apart from the demo's.
    """
    story = STORIES[number]
    book, findings = rulebooks.check(RULEBOOK)
    if book is None:
        raise click.ClickException(f"the sample rulebook is wrong: {findings[0].message}")
    state = Path(os.environ.get("BROKERD_EMBEDDED__STATE_FOLDER", "state")).absolute()
    environ = {name: it for name, it in os.environ.items() if not name.startswith("BROKERD_")}
    place = Place(
        folder=state / f"scenario-{number}", rulebook=RULEBOOK, environ=environ, fresh=True,
        run_as=os.environ.get("BROKERD_EMBEDDED__RUN_AS") or None, port=free_port(0),
    )  # fmt: skip
    try:
        return asyncio.run(_play(number, story, place, book, folder))
    except (ServersError, ChildFailed, Unexpected, aiohttp.ClientError, OSError) as error:
        click.echo(f"scenario {number} cannot go on: {error}", err=True)
    return 1


async def _play(number: int, story: Story, place: Place, book: Rulebook, folder: Path) -> int:
    clocks = real_clocks()
    ids = Ids(lambda: time.time_ns() // 1_000_000, clocks.random_bytes)
    evidence = Evidence(folder, f"{number}: {story.says}", clocks.now)
    try:
        async with opened(place, book, clocks, ids, _say) as world:
            await story.play(world, evidence, place.environ)
    finally:
        evidence.close()
    for step in evidence.steps:
        click.echo(f"{'ok   ' if step.ok else 'WRONG'} {step.name}: {step.says}")
    return 0 if evidence.ok else 1


def _say(what: str) -> None:
    click.echo(f"starting {what} ...")
