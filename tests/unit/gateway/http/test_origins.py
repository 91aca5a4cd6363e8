"""Where a request came from: a proxy's word counts where the settings name it, and only there."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from gateway.http.cookies import surely_from_here
from gateway.http.origins import NAMES_MAX, Origins, networks

PROXIES = networks(("10.0.0.0/8", "fd00::1"))
HEADER = "X-Client-Certificate"


def came(remote: str, **headers: str) -> web.Request:
    """A request over a connection from this address."""
    transport = Mock()
    transport.get_extra_info = lambda name, default=None: (
        (remote, 4711) if name == "peername" else default
    )
    plain = {name.replace("_", "-"): value for name, value in headers.items()}
    return make_mocked_request("GET", "/", headers=plain, transport=transport)


@pytest.mark.parametrize(
    ("remote", "passed", "address"),
    [
        ("192.0.2.7", "", "192.0.2.7"),
        ("192.0.2.7", "198.51.100.1", "192.0.2.7"),
        ("10.1.1.1", "198.51.100.1", "198.51.100.1"),
        ("10.1.1.1", "203.0.113.9, 198.51.100.1", "198.51.100.1"),
        ("10.1.1.1", "198.51.100.1, 10.2.2.2", "198.51.100.1"),
        ("10.1.1.1", "", "10.1.1.1"),
        ("10.1.1.1", "nonsense", "10.1.1.1"),
        ("10.1.1.1", "nonsense, 10.2.2.2", "10.2.2.2"),
        ("fd00::1", "2001:db8::1", "2001:db8::1"),
    ],
)
def test_the_sender_is_the_last_whom_no_proxy_of_ours_speaks_for(
    remote: str, passed: str, address: str
) -> None:
    """What a caller writes into the header before our proxy adds to it counts for nothing."""
    headers = {"X_Forwarded_For": passed} if passed else {}
    assert Origins(PROXIES).address(came(remote, **headers)) == address


def test_a_certificates_names_come_from_a_proxy_of_ours_alone() -> None:
    """Only where a header is named, only from a named proxy, only names of known kinds."""
    said = "URI:spiffe://house/router, DNS:router.house,IP:10.0.0.1, nonsense"
    request = came("10.1.1.1", X_Client_Certificate=said)
    names = ("DNS:router.house", "URI:spiffe://house/router")
    assert Origins(PROXIES, HEADER).names(request) == names
    assert Origins(PROXIES).names(request) == ()
    assert Origins((), HEADER).names(request) == ()
    assert Origins(PROXIES, HEADER).names(came("192.0.2.7", X_Client_Certificate=said)) == ()
    many = ",".join(f"DNS:n{at}" for at in range(100))
    shown = Origins(PROXIES, HEADER).names(came("10.1.1.1", X_Client_Certificate=many))
    assert len(shown) == NAMES_MAX


@pytest.mark.parametrize(
    ("headers", "ours"),
    [
        ({"Sec_Fetch_Site": "same-origin"}, True),
        ({"Sec_Fetch_Site": "cross-site", "Origin": "https://house.example"}, False),
        ({"Origin": "https://house.example"}, True),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({}, False),
    ],
)
def test_what_changes_something_says_which_page_sent_it(
    headers: dict[str, str], ours: bool
) -> None:
    """A browser always says one of the two with a form; silence is refused."""
    assert surely_from_here(came("192.0.2.7", Host="house.example", **headers)) is ours
