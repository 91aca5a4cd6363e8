"""What a person sees of a running demo: one table that lives, and how to reach everything.

Knows how to draw. Refuses to count: what it shows was told to the calling system, or read from the
daemon's API.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.demo.drive import Watched
from gateway.demo.market import WATCHED, Market
from gateway.demo.world import ANALYST, AUDITOR, COMPLIANCE, PORTAL, World

COLUMNS: Final = ("payment", "amount", "method", "way", "state", "platform")
SHORTENED: Final = ("payment", "method")  # where the terminal is narrow
STYLES: Final = {
    "approved": "green", "declined": "red", "unknown": "yellow", "pending": "cyan",
    "in_progress": "cyan", "review": "magenta", "not_found": "yellow", "not_sent": "yellow",
    "done": "green", "refused": "red", "live": "green",
}  # fmt: skip


def directions(world: World) -> str:
    """How to reach the broker, for a second terminal."""
    lines = [
        *world.notes,
        "",
        "in a second terminal:",
        *(f"  {line}" for line in exports(world.url, world.tokens[PORTAL]).splitlines()),
        "",
        f"  key of {ANALYST} (KYC analyst): {world.tokens[ANALYST]}",
        f"  key of {COMPLIANCE} (compliance):  {world.tokens[COMPLIANCE]}",
        f"  key of {AUDITOR} (auditor):     {world.tokens[AUDITOR]}",
        f"  API description:  {world.url}/openapi.json    metrics: {world.url}/metrics",
        f"  prove the books:  brokerd verify --config {world.settings}",
        *(f"  provider {name}:  {admin.peer.admin}" for name, admin in world.providers.items()),
        f"  platform's admin: {world.platform.peer.admin}",
        "",
    ]
    return "\n".join(lines)


def exports(url: str, token: str) -> str:
    """What a shell must know to call the API; names with BROKERD_ are settings of the daemon."""
    return f"export URL={url}\nexport KEY={token}\n"


class Seen(msgspec.Struct):
    """What was last read besides deposits.

    sessions   the platform's, as the API tells them
    deals      what the platform has made, by kind
    liability  what partners are owed, by book and currency
    """

    sessions: list[dict[str, Any]] = []
    deals: dict[str, int] = {}
    liability: list[dict[str, Any]] = []


def drawn(world: World, watched: Watched, seen: Seen, market: Market) -> RenderableType:
    """The table as it is now."""
    return Group(_figures(world, watched, seen, market), _deposits(watched))


def _figures(world: World, watched: Watched, seen: Seen, market: Market) -> Table:
    payments = watched.payments.values()
    states = Counter(payment["state"] for payment in payments)
    fallbacks = sum(it["state"] == "approved" and len(it["attempts"]) > 1 for it in payments)
    table = Table.grid(padding=(0, 2))
    ear = world.ear
    table.add_row("deposits", f"{watched.asked} asked", *_counted(states))
    table.add_row("", f"{fallbacks} by fallback", f"{watched.refused.total()} refused at the door")
    table.add_row("webhooks", f"{len(ear.told)} heard", f"{ear.repeated} repeated")
    table.add_row("sessions", *(_session(each) for each in seen.sessions))
    for row in _rebates(seen, market):
        table.add_row(*row)
    return table


def _rebates(seen: Seen, market: Market) -> Iterator[list[str]]:
    """What traders did, and what partners earned by it."""
    if not market.traders:
        yield ["partners", f"{len(market.partners)} made known, their clients are on their way"]
        return
    made = sum(seen.deals.get(kind, 0) for kind in ("trades", "balance"))
    yield ["deals", f"{made} made", f"by {len(market.traders)} traders"]
    owed = [f"{it['accrued']} {it['currency']} in {it['entity']}" for it in seen.liability]
    yield ["rebates", *owed, f"{market.watching.updates} updates of {WATCHED} streams"]


def _counted(states: Counter[str]) -> list[Text]:
    return [
        Text(f"{count} {name}", style=STYLES.get(name, "")) for name, count in states.most_common()
    ]


def _session(status: dict[str, Any]) -> Text:
    text = f"{status['server']} {status['state']}"
    return Text(text, style=STYLES.get(status["state"], "yellow"))


def _deposits(watched: Watched) -> Table:
    table = Table(box=SIMPLE_HEAD, expand=True)
    for column in COLUMNS:
        table.add_column(column, no_wrap=column not in SHORTENED, overflow="ellipsis")
    for payment_id in reversed(watched.recent):
        table.add_row(*_row(watched.payments[payment_id]))
    return table


def _row(payment: dict[str, Any]) -> list[Text | str]:
    transfer = payment["transfer"]
    amount = payment["amount"]
    return [
        payment["id"], f"{amount['amount']:>9} {amount['currency']}", payment["method"],
        _way(payment), Text(payment["state"], style=STYLES.get(payment["state"], "")),
        transfer["state"] if transfer else "",
    ]  # fmt: skip


def _way(payment: dict[str, Any]) -> Text:
    """The providers tried, in order, each coloured by how it ended."""
    if not payment["attempts"]:
        return Text(payment["reason"], style="dim")
    way = Text()
    for number, attempt in enumerate(payment["attempts"]):
        way.append(" > " if number else "")
        way.append(attempt["psp"], style=STYLES.get(attempt["state"], ""))
    return way
