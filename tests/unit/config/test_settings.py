"""Process settings: typed, bounded, complete in their complaints, and silent about secrets."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from config.findings import Finding
from config.load import load, read_toml
from config.secret import Address, Secret, read_address, read_secret
from config.settings import Settings, load_settings, peers, spare

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "config" / "brokerd.example.toml"
SECRETS = {
    "BROKERD_PEPPER": "pepper",
    "BROKERD_ANCHOR_KEY": "-----BEGIN PRIVATE KEY-----",
    "BROKERD_PERSONAL_KEY": "0" * 64,
    "BROKERD_MT5_LIVE_PASSWORD": "word",
    "BROKERD_ACME_KEY": "key",
    "BROKERD_ACME_WEBHOOK_SECRET": "hook",
}
LEAST = {"BROKERD_RULEBOOK__FOLDER": "rules", "BROKERD_CONTROL__PEPPER": "env:P", "P": "pepper"}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Write a settings' file."""

    def write_file(text: str) -> Path:
        path = tmp_path / "brokerd.toml"
        path.write_text(text)
        return path

    return write_file


def right(path: Path | None, environ: dict[str, str]) -> Settings:
    """The settings, which have no mistake."""
    settings, findings = load_settings(path, environ)
    assert [finding.text for finding in findings] == []
    assert settings is not None
    return settings


def wrong(path: Path | None, environ: dict[str, str]) -> list[Finding]:
    """The findings of settings that are wrong."""
    settings, findings = load_settings(path, environ)
    assert settings is None
    return findings


def test_the_example_is_every_setting_with_its_default() -> None:
    """Who starts from the example changes nothing but what has no default."""
    settings = right(EXAMPLE, SECRETS)
    text, _ = read_toml(EXAMPLE)
    assert text is not None
    assert untold(settings, text.data) == []
    least = right(None, LEAST)
    for section in ("http", "database", "redis", "embedded", "lanes", "process", "log"):
        assert getattr(settings, section) == getattr(least, section)
    assert settings.control.limits == least.control.limits
    assert settings.control.key_cache_s == least.control.key_cache_s
    assert settings.control.anchor_s == least.control.anchor_s


@pytest.mark.parametrize(
    ("section", "code"),
    [
        ('anchor_key = "env:P"\nanchor_file = "a"', "wrong-value"),
        ('anchor_key = "env:K"', "missing-key"),
        ('personal_key = "env:P"', "wrong-value"),
    ],
)
def test_keys_of_the_audit_are_checked_before_they_are_needed(
    write: Callable[[str], Path], section: str, code: str
) -> None:
    """A key of another form, or anchors that would go nowhere, stop the start."""
    text = f'[rulebook]\nfolder = "r"\n[control]\npepper = "env:P"\n{section}\n'
    settings, findings = load_settings(
        write(text), {"P": "pepper", "K": "-----BEGIN PRIVATE KEY-----"}
    )

    assert settings is None
    assert [each.code for each in findings] == [code]


def untold(value: object, written: object) -> list[str]:
    """The keys of a Struct that a document does not write."""
    if isinstance(value, dict):
        return [key for name, item in value.items() for key in untold(item, written[name])]
    if not isinstance(value, msgspec.Struct):
        return []
    assert isinstance(written, dict)
    names = [field.name for field in msgspec.structs.fields(value)]
    missing = [
        name for name in names if name not in written and getattr(value, name) != {}
    ]  # sections by a name of the operator's own stand there as a comment
    return missing + [
        f"{name}.{key}"
        for name in names
        if name in written
        for key in untold(getattr(value, name), written[name])
    ]


def test_all_mistakes_are_told_at_once(write: Callable[[str], Path]) -> None:
    """File and environment together: unknown keys, types, bounds, secrets, missing keys."""
    path = write(
        '[http]\nport = 70000\nprot = 1\n[control]\npepper = "hunter2"\n[redis]\nurl = 3\n'
    )
    findings = wrong(path, {"BROKERD_LOG__LEVEL": "loud", "BROKERD_HTTP_PORT": "1"})
    assert [(Path(it.where.text).name, it.code, it.key) for it in findings] == [
        ("brokerd.toml", "missing-key", "rulebook"),
        ("brokerd.toml:2", "wrong-value", "http.port"),
        ("brokerd.toml:3", "unknown-key", "http.prot"),
        ("brokerd.toml:5", "wrong-value", "control.pepper"),
        ("brokerd.toml:7", "wrong-value", "redis.url"),
        ("environment BROKERD_HTTP_PORT", "unknown-key", "BROKERD_HTTP_PORT"),
        ("environment BROKERD_LOG__LEVEL", "wrong-value", "BROKERD_LOG__LEVEL"),
    ]
    assert "did you mean `BROKERD_HTTP__PORT`?" in findings[5].message
    assert all("hunter2" not in finding.text for finding in findings)


def test_the_environment_wins_over_the_file(write: Callable[[str], Path]) -> None:
    """Each type is read from text: numbers, lists, names with hyphens, nested sections."""
    path = write(
        '[rulebook]\nfolder = "file"\n[control]\npepper = "env:P"\n[http]\nport = 1\n'
        '[platforms.mt5-live]\nurl = "https://old"\nmanager_login = 7\npassword = "env:P"\n'
    )
    settings = right(
        path,
        {
            "P": "pepper",
            "BROKERD_CONFIG": "anything",
            "BROKERD_HTTP__PORT": "2",
            "BROKERD_HTTP__ANSWER_WITHIN_S": "1.5",
            "BROKERD_PROCESS__ROLES": "api, sessions",
            "BROKERD_CONTROL__LIMITS__BURST": "9",
            "BROKERD_PLATFORMS__MT5_LIVE__URL": "https://new",
        },
    )
    assert (settings.http.port, settings.http.answer_within_s) == (2, 1.5)
    assert settings.process.roles == ("api", "sessions")
    assert settings.control.limits.burst == 9
    assert settings.platforms["mt5-live"].url == "https://new"
    assert settings.platforms["mt5-live"].manager_login == 7


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("BROKERD_HTTP__PROT", "1", "unknown key `prot`, did you mean `port`?"),
        ("BROKERD_HTTP", "1", "names a section"),
        ("BROKERD_HTTP__PORT", "many", "expected a whole number, found text"),
        ("BROKERD_HTTP__PORT", "", "expected a whole number"),
        ("BROKERD_HTTP__PORT__X", "1", "unknown key `x`"),
        ("BROKERD_PSPS__ACME", "1", "names a section"),
        ("BROKERD_NONSENSE", "1", "unknown key `nonsense`"),
    ],
)
def test_a_variable_that_sets_nothing_stops_the_start(variable: str, text: str, words: str) -> None:
    """A typo in the environment is a mistake like one in the file."""
    (finding,) = wrong(None, LEAST | {variable: text})
    assert words in finding.message
    assert finding.where.text == f"environment {variable}"


def test_a_variable_that_a_secret_names_is_no_setting() -> None:
    """`env:BROKERD_PEPPER` may bear the product's prefix."""
    names = {"BROKERD_CONTROL__PEPPER": "env:BROKERD_PEPPER", "BROKERD_PEPPER": "pepper"}
    assert right(None, LEAST | names).control.pepper == Secret("pepper")


def test_a_misshapen_section_is_told_not_overwritten(write: Callable[[str], Path]) -> None:
    """A variable below something that is no table leaves the mistake where it is."""
    path = write("http = 3\n")
    findings = wrong(path, LEAST | {"BROKERD_HTTP__PORT": "1"})
    assert [(it.code, it.key) for it in findings] == [("wrong-type", "http")]


def test_a_file_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    """An absent file is told with its name."""
    (finding,) = wrong(tmp_path / "absent.toml", LEAST)
    assert (finding.code, Path(finding.where.file).name) == ("unreadable", "absent.toml")


# --- secrets ------------------------------------------------------------------------------------


def test_a_secret_is_read_from_the_environment_or_a_file(tmp_path: Path) -> None:
    """A file's last line end is no part of it; a relative path starts at the settings' folder."""
    (tmp_path / "word").write_text(" pass word \n")
    assert read_secret("env:IT", {"IT": "x"}, tmp_path).reveal() == "x"
    assert read_secret("file:word", {}, tmp_path).reveal() == " pass word "
    assert read_secret(f"file:{tmp_path}/word", {}, Path("elsewhere")).reveal() == " pass word "


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hunter2", "named, not written"),
        ("env:", "named, not written"),
        ("env:no name", "named, not written"),
        ("file:", "named, not written"),
        ("env:ABSENT", "ABSENT is not set"),
        ("env:EMPTY", "EMPTY is not set"),
        ("file:absent", "cannot be read"),
        ("file:empty", "is empty"),
        ("file:binary", "is not text"),
    ],
)
def test_a_secret_that_is_not_there_is_told(tmp_path: Path, text: str, words: str) -> None:
    """A literal, an unset variable and a missing or empty file are mistakes with their reason."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=words) as error:
        read_secret(text, {"EMPTY": ""}, tmp_path)
    assert "hunter2" not in str(error.value)


def test_a_secret_shows_itself_nowhere() -> None:
    """Text, repr, formatting, pickling: only `reveal` gives it out."""
    secret = Secret("hunter2")
    assert {str(secret), repr(secret), f"{secret}", f"{[secret]}"} == {"***", "[***]"}
    with pytest.raises(TypeError, match="not written anywhere"):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        msgspec.json.encode({"it": secret})
    settings = right(None, LEAST)
    assert "pepper=***" in repr(settings)


def test_secrets_are_equal_by_their_text() -> None:
    """Settings with equal secrets are equal; a secret equals nothing that is no secret."""
    assert Secret("a") == Secret("a")
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert not Secret("")


@pytest.mark.parametrize(
    "text",
    ["", "postgresql:///brokerd?host=/run/x", "redis://127.0.0.1:1/0", "postgresql://me@h/b"],
)
def test_an_address_without_a_password_may_be_written(text: str) -> None:
    """It is no secret."""
    assert read_address(text, {}, Path()).reveal() == text


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:hunter2@h/b",
        "redis://:hunter2@h:1",
        "postgresql:///b?password=hunter2",
        "http://[hunter2",
    ],
)
def test_an_address_with_a_password_must_be_named(text: str) -> None:
    """It is a secret, and is taken from the environment or a file."""
    with pytest.raises(ValueError, match="is a secret") as error:
        read_address(text, {}, Path())
    assert "hunter2" not in str(error.value)
    assert read_address("env:IT", {"IT": text}, Path()) == Address(text)


# --- peers --------------------------------------------------------------------------------------


def test_settings_reach_whom_the_rulebook_names() -> None:
    """A PSP without an address is a mistake; an address without a PSP waits for its rulebook."""
    book, _ = load(ROOT / "config" / "demo")
    assert book is not None
    settings = right(EXAMPLE, SECRETS)
    stranger = msgspec.structs.replace(
        settings, psps=settings.psps | {"moon": settings.psps["acme"]}
    )
    assert [(it.code, it.key) for it in peers(stranger, book)] == [
        ("missing-section", "psps.bolt"),
        ("missing-section", "psps.coral"),
        ("missing-section", "psps.delta"),
    ]
    assert spare(stranger, book) == ["psps.moon"]


def test_the_operators_document_gives_the_defaults_of_the_example() -> None:
    """docs/settings.md, the example and the code say the same number for each key."""
    document = (ROOT / "docs" / "settings.md").read_text()
    least = right(None, LEAST)
    sections = {name: getattr(least, name) for name in ("http", "database", "redis", "lanes")}
    sections |= {"control.limits": least.control.limits}
    for section, values in sections.items():
        for key, value in msgspec.structs.asdict(values).items():
            if isinstance(value, int | float):
                assert f"| `{section}.{key}` | {value:g} |" in document.replace(
                    "65536", f"{65536:g}"
                )


def test_the_listener_is_looked_at_before_it_listens(write: Callable[[str], Path]) -> None:
    """A network that is none, a file that is not there, a certificate without its key."""
    path = write(
        '[rulebook]\nfolder = "rules"\n[control]\npepper = "env:P"\n[http]\n'
        'proxies = ["10.0.0.1/8", "10.0.0.0/8"]\ncertificate = "/nowhere/cert.pem"\n'
    )
    said = [f"{it.code} {it.key}" for it in wrong(path, {"P": "pepper"})]
    assert sorted(said) == [
        "missing-key http.certificate_key", "wrong-value http.certificate",
        "wrong-value http.proxies",
    ]  # fmt: skip
