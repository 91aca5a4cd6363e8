"""The command that reports whether anybody did both of two things that one person may not.

Knows its options and what it prints. Refuses to search by itself: `control/duty_report.py` does.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from config.settings import Settings
    from gateway.control.duty_report import Report

_config = click.option(
    "--config",
    "config",
    envvar="BROKERD_CONFIG",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Settings' file; the environment wins over it (docs/settings.md).",
)
_moment: Final = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])
DAYS: Final = 7


@click.group()
def duties() -> None:
    """Separation of duties."""


@duties.command("report")
@click.option("--subject", default="", help="Acts on this client, partner or person alone: its id.")
@click.option("--from", "since", type=_moment, help="Acts from then on, UTC; default: a week ago.")
@click.option("--to", "until", type=_moment, help="Acts before then, UTC; default: now.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@_config
def report_duties(
    *, subject: str, since: datetime | None, until: datetime | None, as_json: bool,
    config: Path | None,
) -> None:  # fmt: skip
    """Prove for a period or a subject that nobody touched both ends of a conflict.

    Every recorded act of the period is held against all earlier ones of its person again. Status 1
    where somebody did both, or holds roles of a conflict without an exception.
    """
    from gateway import cli

    made = cli.run(_report(cli.settings_of(config), subject, since, until))
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(made))
    else:
        show(made)
    sys.exit(0 if made.clean else 1)


async def _report(
    settings: Settings, subject: str, since: datetime | None, until: datetime | None
) -> Report:
    from gateway import cli
    from gateway.control import access
    from gateway.control.duty_report import Period, report

    now = datetime.now(UTC)
    ends = until.replace(tzinfo=UTC) if until else now
    begins = since.replace(tzinfo=UTC) if since else ends - timedelta(days=DAYS)
    async with cli.connected(settings) as conn:
        roles, _ = access.compile(await cli.rulebook_of(conn, settings))
        return await report(conn, roles, Period(begins, ends, subject), now)


def show(made: Report) -> None:
    """The report for people: what was looked at, each row, and what is not as it should be."""
    from gateway.cli import print_table

    period = made.period
    about = f" on {period.subject}" if period.subject else ""
    click.echo(
        f"{made.acts} acts of {made.people} people on {made.subjects} subjects{about}, "
        f"{_at(period.since)} to {_at(period.until)}"
    )
    rows = [tuple(map(str, (it.number, it.a, it.first, it.b, it.second, it.broken)))
            for it in made.rows if it.first or it.second]  # fmt: skip
    print_table("conflicts", ("row", "one end", "people", "other end", "people", "both"), rows)
    bad: list[tuple[str, ...]] = [
        (
            str(it.conflict), it.later.person, it.later.subject,
            f"{it.earlier.action} {_at(it.earlier.at)}", f"{it.later.action} {_at(it.later.at)}",
        )
        for it in made.violations
    ]  # fmt: skip
    if bad:
        print_table("broken", ("row", "person", "subject", "earlier", "later"), bad)
    excepted = [
        (str(it.conflict), it.person, f"{_at(it.since)} to {_at(it.until)}", it.approval, it.reason)
        for it in made.exceptions
    ]
    if excepted:
        print_table("exceptions", ("row", "person", "time", "approval", "reason"), excepted)
    holders = [
        (str(it.conflict), it.person, " ".join(it.roles), "yes" if it.excepted else "NO")
        for it in made.holders
    ]
    if holders:
        print_table("roles in one hand", ("row", "person", "roles", "excepted"), holders)
    click.echo("nobody touched both ends" if made.clean else "this is not as it must be")


def _at(moment: Any) -> str:
    return str(moment.isoformat(timespec="seconds"))
