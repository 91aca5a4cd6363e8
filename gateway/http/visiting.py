"""The cookie of a partner's visit: its name, how it is set and found.

Knows what a browser needs so that only our own pages send it, and only over TLS. Refuses to know
whose visit it is; `people/visits.py` does.

The cookie is `SameSite=Lax`, not `Strict`: a partner in a visit comes back from another site by a
link, and the browser would hold a strict one back. All that a visit can change is its own end, by a
POST, and with a POST from elsewhere a browser sends no such cookie; one that says where the form
stood is believed as well (`from_here`).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from aiohttp import web

_NAME: Final = "brokerd_partner"
_LOCAL: Final = ("localhost", "127.0.0.1", "[::1]")


def visiting(request: web.Request) -> str:
    """The secret of the visit that this request belongs to; "" when it bears none."""
    return request.cookies.get(_name(request), "")


def set_visit(request: web.Request, response: web.Response, secret: str, lasts: timedelta) -> None:
    """Hand the secret to the browser; no script can read it."""
    response.set_cookie(
        _name(request), secret, max_age=int(lasts.total_seconds()), path="/", httponly=True,
        secure=_secure(request), samesite="Lax",
    )  # fmt: skip


def end_visit(request: web.Request, response: web.Response) -> None:
    """Have the browser forget the secret."""
    set_visit(request, response, "", timedelta(0))


def from_here(request: web.Request) -> bool:
    """Whether a page of ours sent this, as far as the browser says."""
    return request.headers.get("Sec-Fetch-Site", "same-origin") in ("same-origin", "none")


def _name(request: web.Request) -> str:
    """With `__Host-` a browser takes it from this very host over TLS only, never from a sibling."""
    return f"__Host-{_NAME}" if _secure(request) else _NAME


def _secure(request: web.Request) -> bool:
    """Always, but for a browser on this machine that came without a proxy."""
    if request.secure or request.headers.get("X-Forwarded-Proto") == "https":
        return True
    host = request.host
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name not in _LOCAL
