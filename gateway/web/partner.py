"""The partner's page as HTML: figures by currency, the chart's place, the latest lines.

Knows how amounts, times and reasons read. Refuses to fetch anything, and to know who looks; every
text that is not ours is escaped here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from html import escape
from typing import Final

import msgspec

from gateway.web.assets import ASSETS, template
from ledger import money
from ledger.rebates.lines import LineKind, Reason
from ledger.rebates.reads import ContractBalances, Line

THIN: Final = "\u202f"  # a narrow space that does not break: groups of three digits in any language
MINUS: Final = "\u2212"
_LOT: Final = Decimal(10) ** 8
_KINDS: Final[Mapping[int, str]] = {
    LineKind.ORDINARY: "Rebate",
    LineKind.DIFFERENCE: "Changed deal",
    LineKind.ROUNDING: "Cents carried",
}
_REASONS: Final[Mapping[int, str]] = {
    Reason.CARRIED: "Below a cent, carried on",
    Reason.NO_RATE_RULE: "No rate for the symbol",
    Reason.NO_DIFFERENTIAL: "Nothing above the level below",
    Reason.NO_PLAN: "No plan in force",
    Reason.OPENING: "Opening deal",
    Reason.UNCHANGED: "Change without effect",
}


_PAGE: Final = template("partner.html")
_CLOSED: Final = template("plain.html")
_DOOR: Final = template("door.html")


class Figures(msgspec.Struct, frozen=True):
    """What stands in one currency over all contracts that are shown, in its minor units."""

    currency: str
    today: int
    accrued: int
    held: int
    payable: int


class Shown(msgspec.Struct, frozen=True):
    """All that one page says.

    day   the UTC day that `today` means
    now   when the numbers were read
    """

    partner: str
    codes: Sequence[str]
    day: date
    now: datetime
    figures: Sequence[Figures]
    lines: Sequence[Line]


def figures(currencies: Mapping[str, str], read: Iterable[ContractBalances]) -> list[Figures]:
    """Add the contracts up by currency; `currencies` names that of each contract shown."""
    sums = {code: [0, 0, 0, 0] for code in sorted(set(currencies.values()))}
    for each in read:
        total = sums[currencies[each.contract]]
        for place, minor in enumerate((each.today, each.accrued, each.held, each.payable)):
            total[place] += minor
    return [Figures(code, *total) for code, total in sums.items()]


def page(shown: Shown) -> str:
    """The whole page."""
    decimals = {each.currency: _exponent(each.currency) for each in shown.figures}
    return _PAGE.substitute(
        _assets(),
        partner=escape(shown.partner),
        codes=escape(", ".join(shown.codes) or shown.partner),
        day=shown.day.isoformat(),
        now=shown.now.isoformat(timespec="milliseconds"),
        clock=f"{shown.now:%H:%M:%S}",
        decimals=escape(msgspec.json.encode(decimals).decode()),
        cards="\n".join(map(_card, shown.figures)) or _nothing_yet(),
        rows=rows(shown.lines, shown.day),
        no_rows=" hidden" if shown.lines else "",
    )


def rows(lines: Iterable[Line], day: date) -> str:
    """The rows of the table of lines; `day` is the running one, whose date is left out."""
    return "\n".join(_row(each, day) for each in lines)


def closed(title: str, text: str) -> str:
    """A page for those to whom the partner's page does not open."""
    return _CLOSED.substitute(
        _assets(), kind="closed", title=escape(title), body=f"<p>{escape(text)}</p>"
    )


def door(partner: str, token: str) -> str:
    """A page with a button that uses a link."""
    return _DOOR.substitute(_assets(), partner=escape(partner), token=escape(token))


def amount(minor: int, exponent: int) -> str:
    """An amount for people: digits in groups of three, as the script writes it too."""
    whole, point, rest = money.text(abs(minor), exponent).partition(".")
    grouped = f"{int(whole):,}".replace(",", THIN)
    return f"{MINUS if minor < 0 else ''}{grouped}{point}{rest}"


def _exponent(currency: str) -> int:
    return money.currency(currency).exponent


def _assets() -> dict[str, str]:
    """What the templates write for an asset: its path, and its hash where a browser checks it."""
    places = {
        "mark": "mark.svg", "css": "partner.css", "js": "partner.js",
        "uplot": "uplot.js", "uplot_css": "uplot.css",
    }  # fmt: skip
    paths = {f"{place}_path": ASSETS[name].path for place, name in places.items()}
    return paths | {f"{place}_hash": ASSETS[name].integrity for place, name in places.items()}


def _data(minor: int, currency: str) -> str:
    """The amount as an element that holds its exact value for programs."""
    exponent = _exponent(currency)
    return f'<data value="{money.text(minor, exponent)}">{amount(minor, exponent)}</data>'


def _card(shown: Figures) -> str:
    code = escape(shown.currency)
    held = "" if shown.held else " hidden"
    return f"""\
<section class="card" data-currency="{code}" aria-labelledby="today-{code}">
  <div class="today">
    <h2 id="today-{code}">Today, <abbr>{code}</abbr></h2>
    <p class="sum" data-figure="today">{_data(shown.today, shown.currency)}</p>
  </div>
  <dl>
    <div><dt>Accrued</dt><dd data-figure="accrued">{_data(shown.accrued, shown.currency)}</dd></div>
    <div{held}><dt>Held</dt><dd data-figure="held">{_data(shown.held, shown.currency)}</dd></div>
    <div><dt>Payable</dt><dd data-figure="payable">{_data(shown.payable, shown.currency)}</dd></div>
  </dl>
  <figure>
    <div class="chart" role="img" aria-label="The running day in {code}"></div>
    <figcaption><output class="readout"></output></figcaption>
    <details class="hours"><summary>The day by the hour</summary><div class="table"></div></details>
  </figure>
</section>"""


def _nothing_yet() -> str:
    return '<p class="note">There is no contract yet, so nothing is earned.</p>'


def _row(line: Line, day: date) -> str:
    name = f"{line.book}-{line.no}"
    deal = line.deal
    ticket = str(deal.ticket) if deal else "\u2013"
    symbol = escape(deal.symbol) if deal else "\u2013"
    lots = _lots(deal.closed) if deal else "\u2013"
    return f"""\
<tr data-line="{name}" data-no="{line.no}" data-at="{line.at.isoformat()}">\
<td data-label="Booked">{_time(line.at, day)}</td>\
<td data-label="Deal">{ticket}</td><td data-label="Symbol">{symbol}</td>\
<td data-label="Lots" class="number">{lots}</td>\
<td data-label="Kind">{_kind(line)}</td>\
<td data-label="Amount" class="number">{_data(line.amount, line.currency)} {escape(line.currency)}\
</td><td class="ask"><button type="button" aria-expanded="false" \
aria-label="Why line {name} says this">Why?</button></td></tr>"""


def _kind(line: Line) -> str:
    if line.amount == 0 and line.reason in _REASONS:
        return _REASONS[line.reason]
    return _KINDS.get(line.kind, "Rebate")


def _time(at: datetime, day: date) -> str:
    said = f"{at:%H:%M:%S}" if at.date() == day else f"{at:%d %b, %H:%M}"
    return f'<time datetime="{at.isoformat(timespec="milliseconds")}">{said}</time>'


def _lots(volume: int) -> str:
    """Lots without trailing zeros, two decimals at least: traders think in hundredths."""
    whole, _, rest = f"{Decimal(volume) / _LOT:f}".partition(".")
    return f"{whole}.{rest.rstrip('0').ljust(2, '0')}"
