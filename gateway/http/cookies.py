"""Cookies: how a browser is handed a secret, and how it is believed when it shows one.

Knows what a browser needs so that only our own pages send a cookie, and only over TLS. Refuses to
know whose it is: those who gave the secret out do.

Cookies are `SameSite=Lax`, not `Strict`: somebody who signs in elsewhere, or follows a link from
their mail, comes back from another site, and the browser would hold a strict one back. Whatever
changes something is a POST or the like, and with one from elsewhere a browser sends no such cookie;
where the browser says which page sent it, that is believed as well (`from_here`).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

_LOCAL: Final = ("localhost", "127.0.0.1", "[::1]")


class Cookie:
    """One cookie by its name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def read(self, request: web.Request) -> str:
        """The secret that this request shows; "" when it shows none."""
        return request.cookies.get(self._full(request), "")

    def hand(
        self, request: web.Request, response: web.Response, secret: str, lasts: timedelta
    ) -> None:
        """Give the secret to the browser; no script can read it."""
        response.set_cookie(
            self._full(request), secret, max_age=int(lasts.total_seconds()), path="/",
            httponly=True, secure=_secure(request), samesite="Lax",
        )  # fmt: skip

    def end(self, request: web.Request, response: web.Response) -> None:
        """Have the browser forget the secret."""
        self.hand(request, response, "", timedelta(0))

    def _full(self, request: web.Request) -> str:
        """With `__Host-` a browser takes it from this very host over TLS only, never a sibling."""
        return f"__Host-{self._name}" if _secure(request) else self._name


VISIT: Final = Cookie("brokerd_partner")  # a partner on their page
SESSION: Final = Cookie("brokerd_session")  # somebody of the house who signed in
QUESTION: Final = Cookie("brokerd_question")  # on the way to an identity provider and back


def from_here(request: web.Request) -> bool:
    """Whether a page of ours sent this, as far as the browser says."""
    return request.headers.get("Sec-Fetch-Site", "same-origin") in ("same-origin", "none")


def surely_from_here(request: web.Request) -> bool:
    """Whether the browser says that a page of ours sent this: silence is not enough."""
    if (site := request.headers.get("Sec-Fetch-Site")) is not None:
        return site == "same-origin"
    origin = request.headers.get("Origin", "")
    return bool(origin) and urlsplit(origin).netloc == request.host


def _secure(request: web.Request) -> bool:
    """Always, but for a browser on this machine that came without a proxy."""
    if request.secure or request.headers.get("X-Forwarded-Proto") == "https":
        return True
    host = request.host
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name not in _LOCAL
