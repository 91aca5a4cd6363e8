"""The commands that make people of the house known, and certificates of services.

Knows their options and what they print. Refuses to do any work itself: `control/staff.py` and
`control/certificates.py` do; later roles are asked for and agreed to through the API.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from config.settings import Settings
    from gateway.control.audit import Command
    from gateway.control.staff import Staff
    from ledger.ids import Ids

_config = click.option(
    "--config",
    "config",
    envvar="BROKERD_CONFIG",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Settings' file; the environment wins over it (docs/settings.md).",
)
_reason = click.option("--reason", default="", help="Why, for the audit.")


@click.group()
def people() -> None:
    """Make people of the house known, and set how they sign in."""


@people.command("add")
@click.argument("person")
@click.option("--role", required=True, help="A role of the rulebook in force.")
@click.option("--entity", "entities", multiple=True, help="An entity within reach; default: all.")
@_reason
@_config
def add(person: str, role: str, entities: Sequence[str], reason: str, config: Path | None) -> None:
    """Give PERSON a role at the machine: the first people, who then give others theirs."""
    from gateway import cli

    grant = cli.run(_add(cli.settings_of(config), person, role, tuple(entities) or ("*",), reason))
    click.echo(f"{person} holds {role}: grant {grant}")


@people.command("password")
@click.argument("person")
@_reason
@_config
def password(person: str, reason: str, config: Path | None) -> None:
    """Set PERSON's password, asked for at a terminal, else the first line of the input."""
    from gateway import cli

    settings = cli.settings_of(config)
    if sys.stdin.isatty():
        said = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        said = sys.stdin.readline().rstrip("\r\n")
    cli.run(_set_password(settings, person, said, reason))
    click.echo(f"{person} has another password, and is signed out everywhere")


@people.command("totp")
@click.argument("person")
@_reason
@_config
def totp(person: str, reason: str, config: Path | None) -> None:
    """Give PERSON a new device: prints the address that it reads, once."""
    from gateway import cli

    address = cli.run(_set_device(cli.settings_of(config), person, reason))
    click.echo(f"{person} has another device, and is signed out everywhere", err=True)
    click.echo(address)


@people.command("identity")
@click.argument("person")
@click.option("--issuer", required=True, help="The identity provider's name in the settings.")
@click.option("--subject", required=True, help="What it calls the person.")
@click.option("--remove", is_flag=True, help="Let that subject in no more.")
@_reason
@_config
def identity(
    person: str, issuer: str, subject: str, reason: str, config: Path | None, *, remove: bool
) -> None:
    """Say that PERSON is whom an identity provider calls by SUBJECT."""
    from gateway import cli

    settings = cli.settings_of(config)
    cli.run(_set_identity(settings, person, issuer, subject, reason, remove=remove))
    click.echo(f"{issuer} {subject} is {'nobody' if remove else person}")


@people.command("list")
@_config
def list_people(config: Path | None) -> None:
    """Show who can sign in, and how."""
    from gateway import cli

    rows = cli.run(_list(cli.settings_of(config)))
    cli.print_table("people", ("person", "password", "device", "identities"), rows)


@click.command("certificate")
@click.argument("owner")
@click.option("--name", required=True, help="What it says of its holder: URI:..., DNS:....")
@click.option("--role", required=True, help="A role of the rulebook in force.")
@click.option("--person", default="", help="Who answers for it; several of one are one.")
@click.option("--entity", "entities", multiple=True, help="An entity within reach; default: all.")
@_reason
@_config
def certificate(
    owner: str, name: str, role: str, person: str, entities: Sequence[str], reason: str,
    config: Path | None,
) -> None:  # fmt: skip
    """Let certificates of this name call as OWNER, without a key."""
    from gateway import cli
    from gateway.control.keys import NewKey

    wish = NewKey(owner, role, tuple(entities) or ("*",), person)
    id = cli.run(_add_certificate(cli.settings_of(config), wish, name, reason))
    click.echo(f"certificate {id} of {owner}, role {role}: {name}")


@click.command("certificates")
@_config
def certificates(config: Path | None) -> None:
    """Show all names of certificates that may call, or might."""
    from gateway import cli

    columns = ("id", "owner", "person", "name", "role", "entities", "created", "revoked")
    found = cli.run(_list_certificates(cli.settings_of(config)))
    rows = [[cli.cell(row[name]) for name in columns] for row in found]
    cli.print_table("certificates", columns, rows)


# --- what they do -------------------------------------------------------------------------------


def _staff(settings: Settings, ids: Ids) -> Staff:
    import os

    from gateway.control.codes import Safe
    from gateway.control.passwords import Passwords
    from gateway.control.staff import Staff

    pepper = settings.control.pepper.reveal().encode()
    return Staff(Passwords(os.urandom), Safe(pepper, os.urandom), ids)


def _command(ids: Ids, reason: str) -> Command:
    from gateway.control.audit import Command
    from gateway.control.keys import operator

    return Command(operator(getuser()), reason, ids.new("CR"), datetime.now(UTC))


async def _add(
    settings: Settings, person: str, role: str, entities: tuple[str, ...], reason: str
) -> str:
    from gateway import cli
    from gateway.control import access, staff

    ids = cli.new_ids()
    async with cli.connected(settings) as conn, conn.transaction():
        roles, _ = access.compile(await cli.rulebook_of(conn, settings))
        reach = access.Reach(entities=frozenset(entities))
        return await staff.add(conn, _command(ids, reason), ids, roles, person, role, reach)


async def _set_password(settings: Settings, person: str, said: str, reason: str) -> None:
    from gateway import cli

    ids = cli.new_ids()
    async with cli.connected(settings) as conn:
        await _staff(settings, ids).password(conn, _command(ids, reason), person, said)


async def _set_device(settings: Settings, person: str, reason: str) -> str:
    from gateway import cli

    ids = cli.new_ids()
    async with cli.connected(settings) as conn:
        return await _staff(settings, ids).device(conn, _command(ids, reason), person)


async def _set_identity(
    settings: Settings, person: str, issuer: str, subject: str, reason: str, *, remove: bool
) -> None:
    from gateway import cli

    ids = cli.new_ids()
    if issuer not in settings.sign_in.issuers:
        raise click.UsageError(f"there is no [sign_in.issuers.{issuer}] in the settings")
    async with cli.connected(settings) as conn:
        made, command = _staff(settings, ids), _command(ids, reason)
        if remove:
            await made.forget_identity(conn, command, issuer, subject)
        else:
            await made.identity(conn, command, person, issuer, subject)


async def _list(settings: Settings) -> list[list[str]]:
    from gateway import cli
    from gateway.control import staff

    async with cli.connected(settings) as conn:
        found = await staff.proved(conn)
    return [[cli.cell(each.person), *_cells(each)] for each in found]


def _cells(each: Any) -> list[str]:
    from gateway import cli

    return [cli.cell(each.password), cli.cell(each.device), cli.cell(each.subjects)]


async def _add_certificate(settings: Settings, wish: Any, name: str, reason: str) -> str:
    from gateway import cli
    from gateway.control import access, certificates

    ids = cli.new_ids()
    async with cli.connected(settings) as conn, conn.transaction():
        roles, _ = access.compile(await cli.rulebook_of(conn, settings))
        return await certificates.add(conn, _command(ids, reason), ids, roles, wish, name)


async def revoke_certificate(settings: Settings, id: str, reason: str) -> str:
    """Take a name back; returns it."""
    from gateway import cli
    from gateway.control import certificates

    ids = cli.new_ids()
    async with cli.connected(settings) as conn, conn.transaction():
        return await certificates.revoke(conn, _command(ids, reason), ids, id)


async def _list_certificates(settings: Settings) -> list[Any]:
    from gateway import cli
    from gateway.control import certificates

    async with cli.connected(settings) as conn:
        return list(await certificates.listed(conn))
