"""The rooms of the house's own people as HTML: approvals, items, the audit, the rulebook's history.

Knows how each row reads and which form stands beside it. Refuses to fetch anything and to decide
who may do what; every text that is not ours is escaped here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from config.difference import Difference
from gateway.control.items import TEAMS
from gateway.control.policies import KINDS
from gateway.control.views import ApprovalPage, ApprovalView, ItemPage, ItemView
from gateway.control.views_rulebook import DifferencesView, VersionPage, VersionView

APPROVAL_STATES: Final = ("open", "approved", "refused", "expired", "withdrawn", "")
ITEM_STATES: Final = ("open", "resolved", "")
_NOTHING: Final = '<p class="note">Nothing is here.</p>'


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A record of the audit as the API tells it."""

    no: int
    hash: str
    at: datetime
    actor: str
    role: str
    on_behalf_of: str
    command: str
    subject: str
    before: Any
    after: Any
    reason: str
    correlation: str
    key: str
    session: str
    grant: str
    approvals: tuple[str, ...]
    entity: str
    client: str


class Records(msgspec.Struct, frozen=True):
    """A page of them, and the cursor of the next."""

    data: tuple[Record, ...]
    next: int | None


# --- approvals ----------------------------------------------------------------------------------


def inbox(page: ApprovalPage, state: str, person: str, keys: Iterable[str]) -> str:
    """Questions with the forms that decide them; `keys` are new ones, one for each form."""
    form = _search("/desk/approvals", _choice("state", "State", APPROVAL_STATES, state))
    cards = [_question(each, person, key) for each, key in zip(page.data, keys, strict=False)]
    asked = {"state": state}
    more = _more("/desk/approvals", asked, page.next)
    return form + ("\n".join(cards) or _NOTHING) + more


def _question(each: ApprovalView, person: str, key: str) -> str:
    said = KINDS[each.kind].said if each.kind in KINDS else each.kind
    asks = f"{escape(each.maker)} asks to {escape(said)}"
    facts = {
        "State": f"{each.state}, {len(each.votes)} of {each.needed} agreed",
        "Subject": each.subject,
        "Concerns": ", ".join(each.about),
        "Entity": each.entity,
        "Reason": each.reason,
        "Agreed": ", ".join(each.votes),
        "Decided by the permission": each.permission,
    }
    times = f"<dt>Asked</dt><dd>{_time(each.created)}</dd>"
    times += f"<dt>Expires</dt><dd>{_time(each.expires)}</dd>"
    payload = _json(each.payload, f"Payload of {each.id}")
    decide = ""
    if each.state == "open" and each.maker != person:
        decide = _decision(each, key)
    return f"""\
<article class="card" id="{escape(each.id)}" aria-labelledby="t-{escape(each.id)}">
<h2 id="t-{escape(each.id)}">{asks}</h2>
<dl>{_facts(facts)}{times}</dl>
<details><summary>What will be applied</summary>{payload}</details>
{decide}</article>"""


def _decision(each: ApprovalView, key: str) -> str:
    name = escape(each.id)
    return f"""\
<form method="post" action="/desk/approvals/{name}" class="row">
<input type="hidden" name="key" value="{escape(key)}">
<div class="field"><label for="r-{name}">Reason</label>
<input id="r-{name}" name="reason" maxlength="500" required autocomplete="off"></div>
<button class="strong" name="decision" value="approve">Agree</button>
<button class="warn" name="decision" value="refuse">Refuse</button>
</form>
"""


# --- items --------------------------------------------------------------------------------------


def worklist(page: ItemPage, state: str, team: str, keys: Iterable[str]) -> str:
    """What people must look at, with the forms that close it."""
    fields = _choice("state", "State", ITEM_STATES, state)
    fields += _choice("team", "Team", (*TEAMS, ""), team)
    cards = [_item(each, key) for each, key in zip(page.data, keys, strict=False)]
    more = _more("/desk/items", {"state": state, "team": team}, page.next)
    return _search("/desk/items", fields) + ("\n".join(cards) or _NOTHING) + more


def _item(each: ItemView, key: str) -> str:
    name = escape(each.id)
    facts = {
        "Subject": each.subject,
        "Team": each.owner_team,
        "Entity": each.entity,
        "Closed by": each.resolved_by,
        "Because": each.resolution,
    }
    form = ""
    if each.state == "open":
        form = f"""\
<form method="post" action="/desk/items/{name}" class="row">
<input type="hidden" name="key" value="{escape(key)}">
<div class="field"><label for="r-{name}">What was done about it</label>
<input id="r-{name}" name="reason" maxlength="500" required autocomplete="off"></div>
<button>Close</button>
</form>
"""
    return f"""\
<article class="card" id="{name}" aria-labelledby="t-{name}">
<h2 id="t-{name}">{escape(each.kind)}</h2>
<p>{escape(each.reason)}</p>
<dl>{_facts(facts)}<dt>Opened</dt><dd>{_time(each.opened)}</dd></dl>
{form}</article>"""


# --- audit --------------------------------------------------------------------------------------


def audit_search(
    asked: Mapping[str, str], data: Sequence[Record] | None, following: int | None
) -> str:
    """The form, and the records once somebody said why they look."""
    wide = (
        ("purpose", "Purpose: why you look; it is on record", True),
        ("person", "Who acted", False),
        ("subject", "Object", False),
        ("client", "Client", False),
        ("command", "Command", False),
    )
    fields = "".join(_field(name, label, asked, needed=needed) for name, label, needed in wide)
    fields += _field("since", "From, UTC", asked, kind="datetime-local")
    fields += _field("until", "Before, UTC", asked, kind="datetime-local")
    form = _search("/desk/audit", fields)
    if data is None:
        return form
    if not data:
        return form + _NOTHING
    rows = "\n".join(map(_record, data))
    heads = ("No.", "When, UTC", "Who", "Command", "Object", "Reason", "More")
    more = _more("/desk/audit", asked, None if following is None else str(following))
    return form + _table("Records", heads, rows) + more


def _record(each: Record) -> str:
    who = escape(each.actor) + (f" ({escape(each.role)})" if each.role else "")
    if each.on_behalf_of:
        who += f" for {escape(each.on_behalf_of)}"
    said = {
        "before": each.before, "after": each.after, "approvals": each.approvals,
        "session": each.session, "key": each.key, "grant": each.grant, "client": each.client,
        "entity": each.entity, "correlation": each.correlation, "hash": each.hash,
    }  # fmt: skip
    shown = msgspec.Raw(msgspec.json.encode({name: it for name, it in said.items() if it}))
    label = f"Record {each.no}"
    return f"""\
<tr><td>{each.no}</td><td>{_time(each.at)}</td><td>{who}</td><td>{escape(each.command)}</td>\
<td>{escape(each.subject)}</td><td>{escape(each.reason)}</td>\
<td><details><summary>All<span class="hidden"> of {label}</span></summary>{_json(shown, label)}\
</details></td></tr>"""


# --- the rulebook -------------------------------------------------------------------------------


def history(page: VersionPage) -> str:
    """Versions of the rulebook, each leading to what it changes."""
    if not page.data:
        return _NOTHING
    rows = "\n".join(map(_version_row, page.data))
    heads = ("Version", "State", "Number", "Changes", "By", "Reason", "Drafted", "In force from")
    return _table("Versions of the rulebook", heads, rows) + _more("/desk/rulebook", {}, page.next)


def _version_row(each: VersionView) -> str:
    name = escape(each.id)
    number = "\u2013" if each.number is None else str(each.number)
    since = each.since or each.effective_at
    return f"""\
<tr><td><a href="/desk/rulebook/{name}">{name}</a></td><td>{escape(each.state)}</td>\
<td>{number}</td><td>{escape(", ".join(each.areas))}</td><td>{escape(each.author)}</td>\
<td>{escape(each.reason)}</td><td>{_time(each.created)}</td>\
<td>{_time(since) if since else chr(0x2013)}</td></tr>"""


def version(each: VersionView, changes: DifferencesView, effects: Any) -> str:
    """One version: its story, what it says differently, what that changes and for whom."""
    facts = {
        "State": each.state,
        "Number": "" if each.number is None else str(each.number),
        "Brings back": "" if each.restores is None else f"number {each.restores}",
        "Drafted by": each.author,
        "Reason": each.reason,
        "Changes": ", ".join(each.areas),
        "Agreed": ", ".join(each.agreed),
        "Content": each.hash,
    }
    times = f"<dt>Drafted</dt><dd>{_time(each.created)}</dd>"
    for label, at in (("In force from", each.since or each.effective_at), ("Until", each.until)):
        times += f"<dt>{label}</dt><dd>{_time(at)}</dd>" if at else ""
    found = "".join(
        f"<li>{escape(it.place)} {escape(it.code)}: {escape(it.message)}</li>"
        for it in each.findings
    )
    findings = f'<section class="card"><h2>Findings</h2><ul>{found}</ul></section>' if found else ""
    lines = "\n".join(map(_difference, changes.data)) or "nothing"
    shown = msgspec.Raw(msgspec.json.encode(effects))
    return f"""\
<section class="card" aria-label="Version"><dl>{_facts(facts)}{times}</dl></section>
{findings}
<h2>What it says differently</h2>
<pre tabindex="0" aria-label="Differences">{lines}</pre>
<h2>What that changes, and for whom</h2>
{_json(shown, "Effects")}
<p><a class="button" href="/desk/rulebook">All versions</a></p>"""


def _difference(each: Difference) -> str:
    place = " ".join(it for it in (each.part, each.item, each.key) if it)
    lines = [f"@ {escape(place)}"]
    if each.before is not None:
        lines.append(f'<span class="cut">\u2212 {_value(each.before)}</span>')
    if each.after is not None:
        lines.append(f'<span class="add">+ {_value(each.after)}</span>')
    return "\n".join(lines)


# --- what they share ----------------------------------------------------------------------------


def _value(value: object) -> str:
    return escape(msgspec.json.encode(value).decode())


def _json(raw: msgspec.Raw, label: str) -> str:
    text = msgspec.json.format(bytes(raw), indent=2).decode()
    return f'<pre tabindex="0" role="group" aria-label="{escape(label)}">{escape(text)}</pre>'


def _facts(facts: Mapping[str, str]) -> str:
    """What is known, as terms and values; what is empty is left out."""
    return "".join(
        f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts.items() if value
    )


def _time(at: datetime) -> str:
    return f'<time datetime="{at.isoformat(timespec="seconds")}">{at:%Y-%m-%d %H:%M:%S}</time>'


def _search(action: str, fields: str) -> str:
    return (
        f'<form method="get" action="{action}" role="search" class="row">{fields}'
        "<button>Show</button></form>\n"
    )


def _choice(name: str, label: str, values: Sequence[str], chosen: str) -> str:
    options = "".join(
        f'<option value="{it}"{" selected" if it == chosen else ""}>{it or "all"}</option>'
        for it in values
    )
    return (
        f'<div class="field"><label for="f-{name}">{label}</label>'
        f'<select id="f-{name}" name="{name}">{options}</select></div>'
    )


def _field(
    name: str, label: str, asked: Mapping[str, str], *, kind: str = "text", needed: bool = False
) -> str:
    value = escape(asked.get(name, ""))
    must = " required" if needed else ""
    return (
        f'<div class="field"><label for="f-{name}">{label}</label><input id="f-{name}" '
        f'name="{name}" type="{kind}" value="{value}" autocomplete="off"{must}></div>'
    )


def _table(label: str, heads: Sequence[str], rows: str) -> str:
    cells = "".join(f'<th scope="col">{it}</th>' for it in heads)
    return f"""\
<div class="wide" tabindex="0" role="region" aria-label="{label}"><table>
<thead><tr>{cells}</tr></thead>
<tbody>
{rows}
</tbody></table></div>
"""


def _more(path: str, asked: Mapping[str, str], following: str | None) -> str:
    if following is None:
        return ""
    query = urlencode({name: it for name, it in asked.items() if it} | {"after": following})
    return f'<p><a class="button" href="{path}?{escape(query)}">Older</a></p>'
