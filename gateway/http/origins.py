"""Where a request came from: the address of whoever sent it, and the names their certificate bears.

Knows that a proxy speaks for others, and that only a proxy the settings name is believed. Refuses
to know what an address or a name is allowed.

Headers that say where a request came from can be written by anybody, so they count only on
connections from an address that the settings name. A proxy that hands certificates on must drop
such headers of its own callers.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from aiohttp import web

Network = IPv4Network | IPv6Network
NAMES_MAX: Final = 16
_KINDS: Final = ("URI", "DNS", "email")


class Origins:
    """Tells where requests came from.

    proxies             networks whose connections speak for others
    certificate_header  where such a proxy names the holder of the certificate it has checked
    """

    def __init__(self, proxies: Iterable[Network] = (), certificate_header: str = "") -> None:
        self._proxies = tuple(proxies)
        self._header = certificate_header

    def address(self, request: web.Request) -> str:
        """Who sent the request: the last address that no proxy of ours vouches for."""
        sender = request.remote or ""
        passed = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
        while self._is_proxy(sender) and passed:
            before = passed.pop().strip()
            if not _readable(before):
                break
            sender = before
        return sender

    def names(self, request: web.Request) -> tuple[str, ...]:
        """What the sender's certificate says of them: `URI:...`, `DNS:...`, `email:...`.

        From this very connection where TLS ends here; else from the header of a proxy.
        """
        if self._header and self._is_proxy(request.remote or ""):
            said = request.headers.get(self._header, "").split(",")
            return _named(name.strip() for name in said)
        held = request.get_extra_info("ssl_object")
        if not isinstance(held, ssl.SSLObject):
            return ()
        shown = (held.getpeercert() or {}).get("subjectAltName", ())
        return _named(f"{kind}:{name}" for kind, name in _pairs(shown))

    def _is_proxy(self, address: str) -> bool:
        if not self._proxies or not _readable(address):
            return False
        read = ip_address(address)
        return any(read in each for each in self._proxies)


def networks(said: Iterable[str]) -> tuple[Network, ...]:
    """Networks as the settings write them; raises ValueError for what is none."""
    return tuple(ip_network(each) for each in said)


def _pairs(shown: object) -> list[tuple[str, str]]:
    """Python's form of a certificate's other names."""
    pairs = shown if isinstance(shown, tuple) else ()
    return [(str(it[0]), str(it[1])) for it in pairs if isinstance(it, tuple) and len(it) == 2]


def _named(names: Iterable[str]) -> tuple[str, ...]:
    kept = [name for name in names if name.partition(":")[0] in _KINDS]
    return tuple(sorted(set(kept))[:NAMES_MAX])


def _readable(address: str) -> bool:
    try:
        ip_address(address)
    except ValueError:
        return False
    return True
