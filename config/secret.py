"""Secrets: values that are used and never shown.

Knows the two ways a setting may name a secret, `env:NAME` and `file:PATH`. Refuses to print one,
to compare one in a way that tells how much of it was right, and to take one from a settings file.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

SHOWN: Final = "***"
_NAME: Final = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


class Secret:
    """Text that prints as `***`; `reveal` is the one way to it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself: hand it to a peer, never to a log."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __repr__(self) -> str:
        return SHOWN

    def __reduce__(self) -> str:
        raise TypeError("a secret is not written anywhere")


class Address(Secret):
    """The address of a server, which may carry a password: then it is named like any secret."""

    __slots__ = ()


def read_secret(text: str, environ: Mapping[str, str], folder: Path) -> Secret:
    """The secret that `env:NAME` or `file:PATH` names; a relative path starts at `folder`.

    Raises ValueError with the reason, which never holds the secret.
    """
    kind, _, name = text.partition(":")
    if kind == "env" and _NAME.match(name):
        return Secret(_from_environment(name, environ))
    if kind == "file" and name:
        return Secret(_from_file(folder / name))
    raise ValueError("a secret is named, not written: use `env:NAME` or `file:PATH`")


def read_address(text: str, environ: Mapping[str, str], folder: Path) -> Address:
    """An address as it stands, or the one that `env:NAME` or `file:PATH` names.

    Raises ValueError with the reason; an address with a password must be named.
    """
    if text.partition(":")[0] in ("env", "file"):
        return Address(read_secret(text, environ, folder).reveal())
    if _has_password(text):
        raise ValueError("an address with a password is a secret: use `env:NAME` or `file:PATH`")
    return Address(text)


def _has_password(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return True  # an address nobody can read might hold anything
    return parts.password is not None or "password=" in parts.query


def _from_environment(name: str, environ: Mapping[str, str]) -> str:
    if not environ.get(name):
        raise ValueError(f"the environment variable {name} is not set")
    return environ[name]


def _from_file(path: Path) -> str:
    try:
        text = path.read_text().rstrip("\r\n")
    except OSError as error:
        raise ValueError(f"the secret's file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"the secret's file {path} is not text") from None
    if not text:
        raise ValueError(f"the secret's file {path} is empty")
    return text
