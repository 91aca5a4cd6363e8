"""The command line: every way a person starts, checks and operates brokerd.

Knows commands, their options and exit codes: 0 done, 1 refused or wrong, 2 not understood. Refuses
to do any work itself, and to import what the command at hand does not need, so that --help is
instant.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from getpass import getuser
from importlib import import_module
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from gateway.cli_duties import duties
from gateway.cli_people import certificate, certificates, people, revoke_certificate
from gateway.cli_rulebook import rulebook

if TYPE_CHECKING:
    import asyncpg

    from config.findings import Finding
    from config.rulebook import Rulebook
    from config.settings import Settings
    from gateway.control.audit import Command
    from gateway.control.keys import KeyMaker, NewKey
    from ledger.ids import Ids
    from ledger.verify import Wrong

T = TypeVar("T")

DEMO_FOLDER: Final = Path(__file__).parent.parent / "config" / "demo"

_config = click.option(
    "--config",
    "config",
    envvar="BROKERD_CONFIG",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Settings' file; the environment wins over it (docs/settings.md).",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def cli() -> None:
    """The operating core of a broker: payments, trading accounts and books that agree."""


def main() -> None:
    """Run the command line; the console script's entry."""
    cli(prog_name="brokerd")


@cli.command()
@_config
@click.option("--adopt", is_flag=True, help="Bring rules into force that wait for a start.")
def serve(config: Path | None, *, adopt: bool) -> None:
    """Run the daemon until SIGTERM or Ctrl-C."""
    settings = settings_of(config)
    from gateway.daemon import main as live

    sys.exit(live(settings, adopt=adopt))


@cli.command()
@click.option("--headless", is_flag=True, help="No live table; needs --seconds.")
@click.option("--seconds", type=click.FloatRange(min=1, max=86400), help="End after so long.")
@click.option(
    "--summary", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures there."
)
@click.option("--fresh", is_flag=True, help="Begin with empty books.")
@click.option(
    "--traders",
    type=click.IntRange(min=20),
    default=2000,
    show_default=True,
    help="How many clients partners bring.",
)
def demo(
    *, headless: bool, seconds: float | None, summary: Path | None, fresh: bool, traders: int
) -> None:
    """Run everything against simulators, with one live table."""
    if headless and seconds is None:
        raise click.UsageError("--headless needs --seconds")
    status = _entry("gateway.demo")(
        headless=headless, seconds=seconds, summary=summary, fresh=fresh, traders=traders
    )
    sys.exit(status)


@cli.command()
@click.argument("number", type=click.IntRange(min=1, max=7))
@click.option(
    "--evidence",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="The folder for what is left behind, as JSON.",
)
def scenario(number: int, evidence: Path) -> None:
    """Play a story on a whole sample broker and keep its evidence: 7, an auditor's day."""
    from gateway.demo.scenarios import STORIES, main

    if number not in STORIES:
        raise click.UsageError(f"there is no scenario {number} yet")
    sys.exit(main(number, evidence))


@cli.command()
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
@_config
def check(folder: Path | None, config: Path | None) -> None:
    """Say everything that is wrong with a rulebook.

    FOLDER is by default the one of the settings, without settings the sample broker. With --config
    the settings are checked as well, and that they reach whom the rulebook names.
    """
    from config.settings import load_settings, peers
    from gateway.control.rulebook import check as check_rulebook

    settings, findings = load_settings(config, os.environ) if config is not None else (None, [])
    if folder is None:
        folder = Path(settings.rulebook.folder) if settings is not None else DEMO_FOLDER
    book, wrong = check_rulebook(folder)
    findings += wrong
    if settings is not None and book is not None:
        findings += peers(settings, book)
    if findings or book is None:
        fail_with(findings)
    click.echo(f"{folder}: {_summary(book)}")


@cli.command()
@_config
def migrate(config: Path | None) -> None:
    """Bring the database to this version.

    Safe while replicas run, and where several do it at once.
    """
    settings = settings_of(config)
    applied = run(_migrate(settings))
    for label in applied:
        click.echo(f"applied {label}")
    click.echo(f"{len(applied)} migrations applied" if applied else "nothing to apply")


@cli.command()
@click.option("--quick", is_flag=True, help="Do not compute every rebate again.")
@_config
def verify(*, config: Path | None, quick: bool) -> None:
    """Prove that the books agree.

    Sums, balances, versions, holds, every rebate from its deal, consistency between the rooms,
    grants and triggers: every finding is printed, and the status is 1 if there is one.
    """
    settings = settings_of(config)
    wrong = run(_verify(settings, quick=quick))
    if not wrong:
        click.echo("the books agree")
        return
    print_table(
        f"{len(wrong)} findings",
        ("code", "subject", "detail"),
        [(it.code, it.subject, it.detail) for it in wrong],
    )
    sys.exit(1)


# --- keys ---------------------------------------------------------------------------------------


@cli.group()
def keys() -> None:
    """Give out and take back API credentials."""


@keys.command("add")
@click.argument("owner")
@click.option("--role", required=True, help="A role of the rulebook in force.")
@click.option("--person", default="", help="Who answers for it; several keys of one are one.")
@click.option("--entity", "entities", multiple=True, help="An entity within reach; default: all.")
@click.option("--reason", default="", help="Why, for the audit.")
@_config
def add_key(
    owner: str, role: str, person: str, entities: Sequence[str], reason: str, config: Path | None
) -> None:
    """Give OWNER, a system or a person, a key. It is shown once and kept nowhere."""
    from gateway.control.keys import NewKey

    wish = NewKey(owner, role, tuple(entities) or ("*",), person)
    key_id, token = run(_add_key(settings_of(config), wish, reason))
    click.echo(f"key {key_id} of {owner}, role {role}", err=True)
    click.echo(token)


@keys.command("list")
@_config
def list_keys(config: Path | None) -> None:
    """Show all keys, without their secrets."""
    rows = run(_list_keys(settings_of(config)))
    columns = ("id", "owner", "person", "role", "entities", "created", "revoked")
    print_table("keys", columns, [[cell(row[name]) for name in columns] for row in rows])


keys.add_command(certificate)
keys.add_command(certificates)
cli.add_command(people)
cli.add_command(duties)
cli.add_command(rulebook)


@keys.command("revoke")
@click.argument("key_id")
@click.option("--reason", default="", help="Why, for the audit.")
@_config
def revoke_key(key_id: str, reason: str, config: Path | None) -> None:
    """Take a key, or a certificate's name, back; it stops working within a few seconds."""
    if key_id.startswith("CE"):
        name = run(revoke_certificate(settings_of(config), key_id, reason))
        click.echo(f"certificate {key_id} of {name} is revoked")
        return
    owner = run(_revoke_key(settings_of(config), key_id, reason))
    click.echo(f"key {key_id} of {owner} is revoked")


# --- the audit ----------------------------------------------------------------------------------


@cli.group()
def audit() -> None:
    """Export the audit with its proof, and check an export."""


_file: Final[Any] = click.Path(dir_okay=False, path_type=Path)
_moment: Final = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])


@audit.command("export")
@click.option("--out", type=_file, required=True, help="The file to write.")
@click.option("--reason", required=True, help="Why; the export is a record of the audit itself.")
@click.option("--from", "since", type=_moment, help="Acts from then on, UTC.")
@click.option("--to", "until", type=_moment, help="Acts before then, UTC.")
@click.option("--person", default="", help="Whose acts.")
@click.option("--subject", default="", help="Acts on this object: its id.")
@click.option("--client", default="", help="Acts that concern this client, whatever their object.")
@_config
def export_audit(*, out: Path, reason: str, config: Path | None, **asked: Any) -> None:
    """Write sealed records to a file that can be checked without us; by default all."""
    shown = run(_export_audit(settings_of(config), out, reason, asked))
    click.echo(f"{out}: {shown} records")


@audit.command("verify")
@click.argument("export", type=_file)
@click.option("--anchors", type=_file, required=True, help="The file of control.anchor_file.")
@click.option("--public-key", type=_file, required=True, help="Of the key anchors are signed with.")
def verify_audit(export: Path, anchors: Path, public_key: Path) -> None:
    """Check an export by itself: no database is asked. Names the first bad record, status 1."""
    from gateway.audit_check import main as check_export

    sys.exit(
        check_export([str(export), "--anchors", str(anchors), "--public-key", str(public_key)])
    )


@audit.command("new-key")
@click.option(
    "--private", type=_file, required=True, help="For control.anchor_key; keep it secret."
)
@click.option("--public", type=_file, required=True, help="For whoever checks exports.")
def new_anchor_key(private: Path, public: Path) -> None:
    """Make the pair of keys that anchors are signed and checked with."""
    from gateway.exports import write_key

    try:
        write_key(private, public)
    except OSError as error:
        raise click.ClickException(str(error)) from None


# --- simulators ---------------------------------------------------------------------------------


@cli.group()
def sim() -> None:
    """Run a simulated peer that can misbehave."""


_passed_on: Final[dict[str, Any]] = {"ignore_unknown_options": True, "help_option_names": []}


@sim.command("mt5", context_settings=_passed_on)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def sim_mt5(arguments: Sequence[str]) -> None:
    """A trading server's Web API over TLS; --help lists its options."""
    from bridge.sim import mt5

    mt5.main(list(arguments))


@sim.command("psp")
@click.option("--name", required=True, help="The provider's name in the rulebook.")
@click.option("--listen", default="127.0.0.1:0", show_default=True, help="host:port")
@click.option("--state", type=click.Path(path_type=Path), required=True, help="Its journal.")
@click.option("--key-file", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--webhook-url", default="", help="Where its notices go.")
@click.option("--webhook-secret-file", type=click.Path(exists=True, path_type=Path))
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of its chance.")
@click.option("--profile", type=click.Path(exists=True, path_type=Path), help="Its behaviours.")
def sim_psp(
    name: str,
    listen: str,
    state: Path,
    key_file: Path,
    webhook_url: str,
    webhook_secret_file: Path | None,
    seed: int,
    profile: Path | None,
) -> None:
    """A payment provider; prints one JSON line once it listens."""
    from router.sim.psp import Options, serve

    host, port = _host_and_port(listen)
    options = Options(
        name=name,
        host=host,
        port=port,
        state=state,
        api_key=key_file.read_text().strip(),
        webhook_url=webhook_url,
        webhook_secret=webhook_secret_file.read_text().strip() if webhook_secret_file else "",
        seed=seed,
        profile=profile,
    )
    serve(options, _announce)


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise click.BadParameter(f"expected host:port, got {text!r}", param_hint="--listen")
    return host, int(port)


def _announce(address: str) -> None:
    """Tell whoever started us where we listen, as the trading server does."""
    import json

    click.echo(json.dumps({"listening": address, "pid": os.getpid()}))
    sys.stdout.flush()


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(f"brokerd {version_of('brokerd')}")


# --- what the commands share --------------------------------------------------------------------


def _entry(module: str) -> Any:
    """The `main` of a module that takes long to import."""
    return import_module(module).main


def settings_of(config: Path | None) -> Settings:
    """The settings, with logging set up by them; with any mistake prints all and ends."""
    from config.log import set_up
    from config.settings import load_settings

    settings, findings = load_settings(config, os.environ)
    if settings is None:
        fail_with(findings)
    set_up(settings.log.level, settings.log.form)
    return settings


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run one command's work; what can be expected to fail is told in one line, with status 1."""
    import asyncpg

    from gateway.control.refusals import Refusal
    from gateway.migrate import MigrationError
    from gateway.servers import ServersError

    try:
        return asyncio.run(work)
    except Refusal as refusal:
        raise click.ClickException(f"{refusal.code}: {refusal.detail}") from None
    except (MigrationError, ServersError, asyncpg.PostgresError, OSError) as error:
        raise click.ClickException(str(error) or type(error).__name__) from None


async def _migrate(settings: Settings) -> list[str]:
    from gateway.local import database
    from gateway.migrate import MigrationError, migrate

    async with database(settings) as reach:
        if not reach.owner_dsn:
            raise MigrationError("migrations need the owner: set database.owner_dsn")
        return await migrate(reach.owner_dsn)


async def _verify(settings: Settings, *, quick: bool) -> Sequence[Wrong]:
    from gateway.verify import run

    async with checked(settings) as dsn:
        return await run(dsn, quick=quick)


async def _add_key(settings: Settings, wish: NewKey, reason: str) -> tuple[str, str]:
    async with connected(settings) as conn, conn.transaction():
        maker, command = await _key_maker(conn, settings, reason)
        await maker.require_holdable(conn, command, wish)
        return await maker.add(conn, command, wish)


async def _list_keys(settings: Settings) -> list[Mapping[str, object]]:
    from gateway.control import keys as credentials

    async with connected(settings) as conn:
        return await credentials.list_keys(conn)


async def _revoke_key(settings: Settings, key_id: str, reason: str) -> str:
    async with connected(settings) as conn, conn.transaction():
        maker, command = await _key_maker(conn, settings, reason)
        return await maker.revoke(conn, command, key_id)


async def _export_audit(
    settings: Settings, out: Path, reason: str, asked: Mapping[str, Any]
) -> int:
    from gateway.control.audit import Command
    from gateway.control.exporting import Asked
    from gateway.control.keys import operator
    from gateway.exports import export

    ids = new_ids()
    command = Command(operator(getuser()), reason, ids.new("CR"), datetime.now(UTC))
    wanted: dict[str, Any] = {
        name: value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
        for name, value in asked.items()
    }
    async with connected(settings) as conn:
        return await export(conn, command, Asked(**wanted), out, ids)


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the daemon's role to a database whose schemas are of this version."""
    import asyncpg

    async with checked(settings) as dsn:
        conn = await asyncpg.connect(dsn, timeout=settings.database.connect_timeout_s)
        try:
            yield conn
        finally:
            await conn.close()


@asynccontextmanager
async def checked(settings: Settings) -> AsyncIterator[str]:
    """The address, as the daemon's role, of a database whose schemas are of this version."""
    import asyncpg

    from gateway.local import database
    from gateway.migrate import MigrationError
    from gateway.migrate import check as check_schema

    async with database(settings) as reach:
        timeout_s = settings.database.connect_timeout_s
        conn = await asyncpg.connect(reach.daemon_dsn, timeout=timeout_s)
        try:
            wrong = await check_schema(conn)
        finally:
            await conn.close()
        if wrong:
            raise MigrationError("; ".join(wrong) + ": run `brokerd migrate`")
        yield reach.daemon_dsn


async def _key_maker(
    conn: asyncpg.Connection, settings: Settings, reason: str
) -> tuple[KeyMaker, Command]:
    """Who gives out keys of the roles in force, and the command of whoever sits at the machine."""
    from gateway.control import access
    from gateway.control.audit import Command
    from gateway.control.keys import KeyMaker, operator

    now, ids = datetime.now(UTC), new_ids()
    roles, _ = access.compile(await rulebook_of(conn, settings))
    maker = KeyMaker(roles, ids, os.urandom, settings.control.pepper.reveal().encode())
    return maker, Command(operator(getuser()), reason, ids.new("CR"), now)


async def rulebook_of(conn: asyncpg.Connection, settings: Settings) -> Rulebook:
    """The rulebook in force; in a house that never had one, the one of the settings."""
    from gateway.control import rulebook

    found = await rulebook.in_force(conn)
    if found is not None:
        return await rulebook.stored(conn, found.hash)
    book, findings = rulebook.check(Path(settings.rulebook.folder))
    if book is None:
        fail_with(findings)
    return book


def new_ids() -> Ids:
    """Ids by this machine's clock."""
    from ledger.ids import Ids

    return Ids(lambda: time.time_ns() // 1_000_000, os.urandom)


# --- what people see ----------------------------------------------------------------------------


def fail_with(findings: Sequence[Finding]) -> NoReturn:
    """Print every finding and end with status 1."""
    for finding in findings:
        place = click.style(f"{finding.where.text}: ", fg="cyan") if finding.where.file else ""
        click.echo(f"{place}{click.style(finding.code, fg='red')}: {finding.message}", err=True)
    noun = "finding" if len(findings) == 1 else "findings"
    click.echo(f"{len(findings)} {noun}", err=True)
    sys.exit(1)


def _summary(book: Rulebook) -> str:
    """What a right rulebook holds, and the hash that names it."""
    parts = (
        (book.entities, "entities"), (book.brands, "brands"), (book.desks, "desks"),
        (book.platforms, "servers"),
        (book.groups, "groups"), (book.psps, "PSPs"), (book.rules, "rules"), (book.roles, "roles"),
    )  # fmt: skip
    counts = ", ".join(f"{len(items)} {name}" for items, name in parts)
    return f"no findings; {counts}; hash {book.hash}"


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table for people; where the output is no terminal, one line a row with tabs between."""
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def cell(value: object) -> str:
    """A value as a table shows it."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return "" if value is None else str(value)


if __name__ == "__main__":
    main()
