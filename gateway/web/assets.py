"""Assets: the scripts, styles, pictures and templates that pages are made of, and their addresses.

Knows each file's bytes, its address and its integrity hash. Refuses to serve a file that is not in
its list: there is no way from an address to a folder.

An address holds the beginning of the file's hash, so a browser may keep it for ever and a new
release is a new address. Our own files are hashed as they are; those of others must have the hash
they had when they were taken in.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from string import Template
from typing import Final

import msgspec

PREFIX: Final = "/assets"
_MEDIA: Final = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}

# name -> the file, and the sha384 it was taken in with; "" for our own.
_FILES: Final[Mapping[str, tuple[str, str]]] = {
    "partner.js": ("partner.js", ""),
    "partner.css": ("partner.css", ""),
    "desk.css": ("desk.css", ""),
    "mark.svg": ("mark.svg", ""),
    "uplot.js": (
        "uplot-1.6.32/uPlot.iife.min.js",
        "Gx3t0zdBAuQOuvvmaLZj7HKEiSgWTAs+VdtNY7wt19QDPTDQjFIwAuXDj0zeN00c",
    ),
    "uplot.css": (
        "uplot-1.6.32/uPlot.min.css",
        "IfV0B7MIOYuO95kO9G5ySKPz/85zqFNOAs8iy4tkK5zd9izhJAB8b7lHrwYqqmYE",
    ),
}


class Altered(Exception):
    """A file of others is not the one that was taken in."""


class Asset(msgspec.Struct, frozen=True):
    """One file: what a page writes to have it, and what a browser then gets."""

    path: str
    integrity: str
    media: str
    body: bytes


def load() -> dict[str, Asset]:
    """Every asset by its name; raises Altered when a file of others was changed."""
    return {name: _asset(name, file, pinned) for name, (file, pinned) in _FILES.items()}


def template(name: str) -> Template:
    """A page with blanks."""
    folder = resources.files("gateway.web").joinpath("templates")
    return Template(folder.joinpath(name).read_text(encoding="utf-8"))


def _asset(name: str, file: str, pinned: str) -> Asset:
    body = resources.files("gateway.web").joinpath("static", *file.split("/")).read_bytes()
    digest = hashlib.sha384(body).digest()
    sha384 = base64.b64encode(digest).decode()
    if pinned and sha384 != pinned:
        raise Altered(f"{file} has sha384 {sha384}, not {pinned}")
    path = f"{PREFIX}/{digest.hex()[:16]}/{name}"
    return Asset(path, f"sha384-{sha384}", _MEDIA[name.rpartition(".")[2]], body)


ASSETS: Final = load()
BY_PATH: Final = {asset.path: asset for asset in ASSETS.values()}
