"""The pages of the house's own people: the door, the frame around every room, the way home.

Knows how they read, and which rooms a person may enter. Refuses to fetch anything, and to decide
who is let in; every text that is not ours is escaped here and in the rooms' own modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from gateway.control.access import Caller
from gateway.web.assets import ASSETS, template

# address, name, and the permissions of which one opens it
ROOMS: Final[tuple[tuple[str, str, tuple[str, ...]], ...]] = (
    ("/desk/approvals", "Approvals", ("approvals:read",)),
    ("/desk/items", "Items", ("items:read",)),
    ("/desk/audit", "Audit", ("audit:read", "audit:area")),
    ("/desk/rulebook", "Rulebook", ("rulebook:read",)),
)
# What people come for: the same room, with what is still to be done.
_WORK: Final = {"/desk/approvals": "?state=open", "/desk/items": "?state=open"}


_DOOR: Final = template("sign_in.html")
_FRAME: Final = template("desk.html")
_PLAIN: Final = template("plain.html")
_FORM: Final = """\
<form method="post" action="/sign-in">
<div class="field"><label for="person">Name</label>
<input id="person" name="person" autocomplete="username" autocapitalize="none" spellcheck="false" \
maxlength="64" required></div>
<div class="field"><label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" \
maxlength="256" required></div>
<div class="field"><label for="code">Code that your device shows now</label>
<input id="code" name="code" inputmode="numeric" autocomplete="one-time-code" \
pattern="[0-9 ]{6,7}" maxlength="7" required></div>
<button class="strong">Sign in</button>
</form>"""


def door(providers: Sequence[tuple[str, str]], *, passwords: bool, said: str) -> str:
    """The page that asks who comes; `said` is what went wrong before."""
    links = [
        f'<a class="button" href="/sign-in/{escape(id)}">Sign in with {escape(host)}</a>'
        for id, host in providers
    ]
    either = ['<p class="or">or</p>'] if links and passwords else []
    return _DOOR.substitute(
        _assets(),
        said=f'<p class="said" role="alert">{escape(said)}</p>' if said else "",
        providers="\n".join([*links, *either]),
        form=_FORM if passwords else "",
    )


def frame(caller: Caller, title: str, body: str, *, here: str = "") -> str:
    """A page of a room: its links, who looks, and its body, which is markup already."""
    rooms = [("/desk", "Desk"), *((to, name) for to, name, opens in ROOMS if _open(caller, opens))]
    links = "\n".join(_link(to, name, here) for to, name in rooms)
    return _FRAME.substitute(
        _assets(), title=escape(title), links=links, person=escape(caller.person), body=body
    )


def _link(to: str, name: str, here: str) -> str:
    mark = ' aria-current="page"' if to == here else ""
    return f'    <li><a href="{to}{_WORK.get(to, "")}"{mark}>{name}</a></li>'


def home(caller: Caller) -> str:
    """Who is signed in, and as what."""
    rows = "\n".join(
        f"<tr><td>{escape(held.role)}</td><td>{_set(held.reach.entities)}</td>"
        f"<td>{_set(held.reach.brands)}</td></tr>"
        for held in caller.grants
    )
    if not rows:
        return frame(
            caller, "Desk", '<p class="note">You hold no role at present.</p>', here="/desk"
        )
    body = f"""\
<div class="wide" tabindex="0" role="region" aria-label="Your roles"><table>
<thead><tr><th scope="col">Role</th><th scope="col">Entities</th><th scope="col">Brands</th></tr>\
</thead>
<tbody>
{rows}
</tbody></table></div>"""
    return frame(caller, "Desk", body, here="/desk")


def refused(title: str, said: str) -> str:
    """A page for what was refused, with the way back."""
    body = f'<p class="said" role="alert">{escape(said)}</p>'
    back = '<p><a class="button" href="/desk">To the desk</a></p>'
    return _PLAIN.substitute(_assets(), kind="door", title=escape(title), body=f"{body}{back}")


def _open(caller: Caller, opens: tuple[str, ...]) -> bool:
    return any(caller.may(permission) for permission in opens)


def _set(names: frozenset[str]) -> str:
    return "all" if "*" in names else escape(", ".join(sorted(names))) or "none"


def _assets() -> dict[str, str]:
    """What the templates write for an asset: its path, and its hash."""
    return {
        "mark_path": ASSETS["mark.svg"].path,
        "css_path": ASSETS["desk.css"].path,
        "css_hash": ASSETS["desk.css"].integrity,
    }
