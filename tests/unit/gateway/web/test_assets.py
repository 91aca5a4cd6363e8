"""Files of the pages: what others made is as it was taken in, and each address is its content's."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

import pytest

from gateway.web import assets
from gateway.web.assets import ASSETS, BY_PATH, Altered, load


def test_an_address_changes_with_its_content() -> None:
    """A browser may keep a file for ever: its address is made of its hash."""
    for name, asset in ASSETS.items():
        assert hashlib.sha384(asset.body).hexdigest().startswith(asset.path.split("/")[2])
        assert asset.path.endswith(f"/{name}")
        assert BY_PATH[asset.path] is asset


def test_integrity_is_that_of_the_bytes() -> None:
    """The hash that pages name is computed from what is served."""
    for asset in ASSETS.values():
        digest = base64.b64encode(hashlib.sha384(asset.body).digest()).decode()
        assert asset.integrity == f"sha384-{digest}"


def test_a_file_of_others_that_was_altered_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever changes a vendored file must change its pinned hash, which a review sees."""
    pinned = dict(assets._FILES) | {"uplot.js": ("partner.js", assets._FILES["uplot.js"][1])}
    monkeypatch.setattr(assets, "_FILES", pinned)

    with pytest.raises(Altered):
        load()


def test_what_others_made_comes_with_its_licence() -> None:
    """Each vendored folder has the licence text beside its files."""
    static = resources.files("gateway.web").joinpath("static")
    vendored = {file.partition("/")[0] for file, pinned in assets._FILES.values() if pinned}
    for folder in vendored:
        assert "Permission is hereby granted" in static.joinpath(folder, "LICENSE").read_text()


def test_our_script_and_style_stay_small() -> None:
    """A page for phones: what we write ourselves is less than a picture."""
    ours = sum(len(ASSETS[name].body) for name in ("partner.js", "partner.css", "mark.svg"))
    assert ours < 40_000
