"""What a server program says of itself."""

from __future__ import annotations

import pytest

from gateway.servers.binaries import read_version
from gateway.servers.privileges import ServersError


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("postgres (PostgreSQL) 18.6\n", "18.6"),
        ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", "15.18"),
        ("postgres (PostgreSQL) 19beta1\n", "19"),
        ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64\n", "7.0.15"),
        ("Valkey server v=8.1.8 sha=00000000:1 malloc=libc bits=64\n", "8.1.8"),
    ],
)
def test_the_version_is_read_from_what_each_server_prints(said: str, version: str) -> None:
    """Distributions add words of their own; the server's number is the one that counts."""
    assert read_version(said) == version


def test_an_answer_without_a_version_is_refused() -> None:
    """A program that says something else is not the server that was looked for."""
    with pytest.raises(ServersError, match="no version"):
        read_version("usage: postgres [options]")
