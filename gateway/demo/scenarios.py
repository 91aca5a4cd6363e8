"""`brokerd scenario N`: a story of the brief, played on a whole broker, with its evidence kept.

Knows which stories there are, and how one is begun and ended. Refuses to know what happens in them.
It is a composition root: time, chance and the environment are taken here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import aiohttp
import click
import msgspec

from config.rulebook import Rulebook
from gateway.demo import auditors_day, place_of, sample_rules
from gateway.demo.api import Unexpected
from gateway.demo.children import ChildFailed
from gateway.demo.evidence import Evidence
from gateway.demo.peers import free_port
from gateway.demo.world import Place, World, opened
from gateway.opening import real_clocks
from gateway.servers import ServersError
from ledger.ids import Ids


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
    book = sample_rules()
    place = place_of(f"scenario-{number}", port=free_port(), fresh=True)
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
