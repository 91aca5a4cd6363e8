"""The commands on versions of the rulebook: what differs, what was, and how another is published.

Knows their options and what they print. Refuses to agree to anything: whoever sits at the machine
may draft and ask, and other people decide (`POST /v1/approvals/{id}/decide`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    import asyncpg

    from config.difference import Difference
    from config.settings import Settings
    from gateway.control.audit import Command
    from gateway.control.versions import Version
    from gateway.control.views_rulebook import VersionView
    from gateway.flows.effects import Effects
    from gateway.flows.publishing import Publishing
    from ledger.ids import Ids
    from ledger.units import Done, Left, Unit

_config = click.option(
    "--config",
    "config",
    envvar="BROKERD_CONFIG",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Settings' file; the environment wins over it (docs/settings.md).",
)
_reason = click.option("--reason", required=True, help="Why: people who agree read it.")
_at = click.option(
    "--effective-at", type=click.DateTime(["%Y-%m-%dT%H:%M:%SZ"]), default=None,
    help="UTC, such as 2026-01-31T22:00:00Z, never in the past; default: once others agreed.",
)  # fmt: skip
_folder = click.argument(
    "folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
SHOWN_MAX: Final = 80


@click.group()
def rulebook() -> None:
    """Versions of the rulebook: differences, history, publishing."""


@rulebook.command("diff")
@_folder
@click.option("--against", type=int, default=0, help="The number of an earlier one; default: now.")
@click.option("--effects", is_flag=True, help="Say too what would change, and for whom.")
@_config
def diff(folder: Path | None, against: int, config: Path | None, *, effects: bool) -> None:
    """What FOLDER (default: that of the settings) says differently from what is in force."""
    from gateway import cli

    settings = cli.settings_of(config)
    found, would = cli.run(_diff(settings, _of(settings, folder), against, effects=effects))
    for each in found:
        click.echo(_line(each))
    click.echo(f"{len(found)} differences")
    if would is not None:
        import msgspec

        click.echo(json.dumps(msgspec.to_builtins(would), indent=2, default=str))


@rulebook.command("publish")
@_folder
@_reason
@_at
@_config
def publish(
    folder: Path | None, reason: str, effective_at: datetime | None, config: Path | None
) -> None:
    """Draft FOLDER (default: that of the settings) as a version, and have other people asked.

    With any finding nobody is asked, and the status is 1.
    """
    from gateway import cli

    settings = cli.settings_of(config)
    _said(cli.run(_publish(settings, _of(settings, folder), 0, reason, effective_at)))


@rulebook.command("rollback")
@click.argument("number", type=click.IntRange(min=1))
@_reason
@_at
@_config
def rollback(
    number: int, reason: str, effective_at: datetime | None, config: Path | None
) -> None:  # fmt: skip
    """Draft the content that was NUMBER in force again (see history), and have others asked."""
    from gateway import cli

    _said(cli.run(_publish(cli.settings_of(config), None, number, reason, effective_at)))


@rulebook.command("history")
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True)
@_config
def history(limit: int, config: Path | None) -> None:
    """Show versions, newest first: who drafted what and why, who agreed, when it was in force."""
    from gateway import cli

    rows = cli.run(_history(cli.settings_of(config), limit))
    columns = ("id", "state", "number", "areas", "author", "reason", "since", "until", "hash")
    cli.print_table("versions of the rulebook", columns, [_row(each) for each in rows])


# --- the work -----------------------------------------------------------------------------------


def _of(settings: Settings, folder: Path | None) -> Path:
    return folder or Path(settings.rulebook.folder)


async def _diff(
    settings: Settings, folder: Path, against: int, *, effects: bool
) -> tuple[list[Difference], Effects | None]:
    from config.difference import differences
    from config.load import read_folder
    from gateway import cli
    from gateway.control import rulebook as rulebooks
    from gateway.control import versions
    from gateway.flows.effects import between

    book, findings = read_folder(folder)
    if book is None:
        cli.fail_with(findings)
    async with cli.connected(settings) as conn:
        found = await rulebooks.in_force(conn)
        hash = await versions.numbered(conn, against) if against else found.hash if found else ""
        before = await rulebooks.source(conn, hash) if hash else b"{}"
        would = await between(conn, before, book.source) if effects and hash else None
    return differences(before, book.source), would


async def _publish(
    settings: Settings, folder: Path | None, number: int, reason: str, at: datetime | None
) -> VersionView:
    import msgspec

    from gateway.control.views_rulebook import DraftRulebook, PublishRulebook, VersionView

    order = DraftRulebook(reason, _document(folder), number or None)
    async with _publishing(settings) as (publishing, command, ids):
        asks = command(reason)
        drafted = await publishing.draft(asks, order, _idem(ids))
        version = msgspec.json.decode(drafted.body, type=VersionView)
        if version.state != "checked":
            return version
        wanted = PublishRulebook(reason, at.replace(tzinfo=UTC) if at else None)
        asked = await publishing.publish(command(reason), version.id, wanted, _idem(ids))
        return msgspec.json.decode(asked.body, type=VersionView)


def _document(folder: Path | None) -> dict[str, Any] | None:
    """What a folder says; a mistake in it is told with file and line, and ends the command."""
    from gateway import cli
    from gateway.control.rulebook import check

    if folder is None:
        return None
    book, findings = check(folder)
    if book is None:
        cli.fail_with(findings)
    document: dict[str, Any] = json.loads(book.source)
    return document


def _idem(ids: Ids) -> Any:
    from gateway.control.idempotency import Idem

    return Idem("operator", ids.new("CR"), b"cli")


@asynccontextmanager
async def _publishing(settings: Settings) -> AsyncIterator[tuple[Publishing, Any, Ids]]:
    """The flow of versions for whoever sits at the machine."""
    import asyncpg

    from config.settings import peers
    from gateway import cli
    from gateway.control.audit import Command
    from gateway.control.keys import operator
    from gateway.control.rules import settled
    from gateway.flows.outbox import Emitter
    from gateway.flows.publishing import Publishing
    from gateway.opening import real_clocks

    ids, now = cli.new_ids(), real_clocks().now

    def command(reason: str) -> Command:
        return Command(operator(getuser()), reason, ids.new("CR"), now())

    async with cli.checked(settings) as dsn:
        pool = await asyncpg.create_pool(dsn, min_size=1, max_size=2)
        try:
            async with pool.acquire() as conn:
                rules = settled(await cli.rulebook_of(conn, settings))
            flow = Publishing(
                Alone(pool), pool, rules, ids, Emitter(now), now,
                lambda book: peers(settings, book), machine=True,
            )  # fmt: skip
            yield flow, command, ids
        finally:
            await pool.close()


class Alone:
    """A lane for one unit at a time, each in a transaction of its own."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def submit(self, unit: Unit) -> Done | Left:
        """Commit the unit, or leave it out and say why."""
        from gateway.flows.transacting import hold, store
        from ledger.units import Done

        assert not unit.entries, "nothing is booked from the command line"
        async with self._pool.acquire() as conn:
            transaction = conn.transaction()
            await transaction.start()
            left = await hold(conn, unit.changes) or await store(conn, unit.changes)
            if left is not None:
                await transaction.rollback()
                return left
            await transaction.commit()
        return Done((), None)


async def _history(settings: Settings, limit: int) -> Sequence[Version]:
    from gateway import cli
    from gateway.control import versions

    async with cli.connected(settings) as conn:
        return await versions.page(conn, state="", after="", limit=limit)


# --- what people see ----------------------------------------------------------------------------


def _said(version: VersionView) -> None:
    """What became of a version; with findings the status is 1."""
    for each in version.findings:
        click.echo(f"{click.style(each.code, fg='red')}: {each.message}", err=True)
    click.echo(f"version {version.id} is {version.state}: {', '.join(version.areas)}")
    if version.findings:
        sys.exit(1)
    when = version.effective_at.isoformat() if version.effective_at else "once others agreed"
    click.echo(f"in force {when}; who may agree finds the questions at GET /v1/approvals")
    if version.restart:
        click.echo("processes take it up when they start: `brokerd serve --adopt`")


def _line(each: Difference) -> str:
    name = ".".join(part for part in (each.part, each.item, each.key) if part)
    return f"{name}: {_short(each.before)} -> {_short(each.after)}"


def _short(value: object) -> str:
    text = "-" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + "..."


def _row(each: Version) -> list[str]:
    times = [it.isoformat(timespec="seconds") if it else "" for it in (each.since, each.until)]
    return [
        each.id, each.state.value, str(each.number or ""), ", ".join(each.areas), each.author,
        each.reason, *times, each.hash[:12],
    ]  # fmt: skip
