"""Process settings: how this one process runs, as opposed to what the business wants.

Knows every setting with its type, bounds and default, the file and the environment they come from.
Refuses to know business rules (`rulebook.py`), and to start anything with a setting it does not
know: a typo must not be a default.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path as FilePath
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from config.environment import overlay
from config.findings import Finding, Flaw, Path, Where, placed
from config.load import read_toml
from config.rulebook import Id, Rulebook
from config.secret import Address, Secret, read_address, read_secret
from config.shape import Hook, shape

__all__ = ["Address", "Secret", "Settings", "load_settings", "peers"]

Seconds = Annotated[float, Meta(gt=0, le=3600)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Url = Annotated[
    str, Meta(pattern=r"^https?://[^\s]+$", description="an address such as `https://host:443`")
]
Host = Annotated[str, Meta(min_length=1, max_length=255)]
Network = Annotated[
    str, Meta(pattern=r"^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$", description="a network: `10.0.0.0/8`")
]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z-]*$", max_length=64)]
Part = Literal["api", "sessions", "accrual"]

_NOTHING: Final = Address("")
_NO_SECRET: Final = Secret("")
_PERSONAL_KEY: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every section."""


class Http(Section, frozen=True, kw_only=True):
    """The API's listener and its limits."""

    host: Host = "127.0.0.1"
    port: Port = 8080  # 0: any free port
    body_bytes_max: Annotated[int, Meta(ge=1024, le=16 * 1024 * 1024)] = 64 * 1024
    answer_within_s: Annotated[float, Meta(gt=0, le=60)] = (
        15.0  # then 202: the walk goes on without the caller
    )
    keep_alive_s: Seconds = 75.0  # an idle connection is closed after it
    proxies: tuple[Network, ...] = ()  # who speaks for others: their word on who called is taken
    certificate_header: Name = ""  # where such a proxy names the holder of a certificate
    certificate: str = ""  # PEM files: with these TLS ends here
    certificate_key: str = ""
    client_ca: str = ""  # the authority of callers' certificates; without it none is asked for


class Database(Section, frozen=True, kw_only=True):
    """PostgreSQL. Without a `dsn` brokerd runs its own (`[embedded]`)."""

    dsn: Address = _NOTHING  # as the daemon's role
    owner_dsn: Address = _NOTHING  # as the owner of the schemas: for `brokerd migrate` alone
    pool_size: Annotated[int, Meta(ge=2, le=200)] = 16
    connect_timeout_s: Seconds = 10.0


class Redis(Section, frozen=True, kw_only=True):
    """Redis or Valkey. Without a `url` brokerd runs its own (`[embedded]`)."""

    url: Address = _NOTHING
    answer_timeout_s: Seconds = 0.25  # then it counts as lost, and its users do without


class Embedded(Section, frozen=True, kw_only=True):
    """The servers brokerd runs for itself where none are configured."""

    state_folder: Annotated[str, Meta(min_length=1)] = "state"  # relative to the working folder
    run_as: str = ""  # as root: the user to drop to; empty: an existing unprivileged one is chosen
    start_timeout_s: Seconds = 120.0  # recovery after a crash with much log takes long


class RulebookPlace(Section, frozen=True, kw_only=True):
    """Where the business rules are."""

    folder: Annotated[str, Meta(min_length=1)]


class PlatformServer(Section, frozen=True, kw_only=True):
    """How to reach one trading server of the rulebook."""

    url: Url
    manager_login: Annotated[int, Meta(ge=1)]
    password: Secret
    ca: str = ""  # a PEM file: only certificates it signed are trusted; empty: the system's
    dial_timeout_s: Seconds = 5.0
    call_timeout_s: Seconds = 15.0
    ping_s: Seconds = 20.0
    backoff_first_s: Seconds = 5.0  # before the first new dial; doubles up to the next, with jitter
    backoff_max_s: Seconds = 120.0


class PspServer(Section, frozen=True, kw_only=True):
    """How to reach one payment provider of the rulebook."""

    url: Url
    api_key: Secret
    webhook_secret: Secret
    connections_max: Annotated[int, Meta(ge=1, le=1000)] = 64


class Limits(Section, frozen=True, kw_only=True):
    """Requests of one caller."""

    requests_per_s: Annotated[float, Meta(gt=0, le=100_000)] = 200.0
    burst: Count = 400


class Control(Section, frozen=True, kw_only=True):
    """Credentials and request limits."""

    pepper: Secret  # keys the digests of API keys: without it no stored digest can be tried
    key_cache_s: Annotated[float, Meta(gt=0, le=60)] = (
        3.0  # a revoked key may work this much longer
    )
    limits: Limits = Limits()
    anchor_key: Secret = _NO_SECRET  # signs the audit's anchors: an Ed25519 private key, PEM
    anchor_file: str = ""  # where anchors are kept: a disk of its own, or one that only grows
    anchor_url: Address = _NOTHING  # where each anchor is posted to as well
    anchor_s: Annotated[float, Meta(gt=0, le=3600)] = 60.0  # what a truncation may take unnoticed
    personal_key: Secret = _NO_SECRET  # wraps the keys of people's data; 64 hexadecimal digits


class IssuerPlace(Section, frozen=True, kw_only=True):
    """One identity provider (OpenID Connect) that people sign in with."""

    url: Url  # as it names itself in its tokens
    client_id: Annotated[str, Meta(min_length=1, max_length=255)]
    client_secret: Secret = _NO_SECRET
    redirect_url: Url  # where it sends browsers back: our address and `/sign-in/<id>/callback`
    subject_claim: Annotated[str, Meta(min_length=1, max_length=64)] = "sub"


class SignIn(Section, frozen=True, kw_only=True):
    """How people of the house sign in, and for how long."""

    passwords: bool = True  # false: by identity providers alone
    session_s: Annotated[float, Meta(ge=60, le=86_400)] = 43_200.0  # a session ends after it
    idle_s: Annotated[float, Meta(ge=10, le=86_400)] = 1800.0  # and after so long without use
    tries_per_minute: Annotated[float, Meta(gt=0, le=600)] = 2.0  # of one name
    tries_burst: Annotated[int, Meta(ge=1, le=1000)] = 5
    address_tries_per_minute: Annotated[float, Meta(gt=0, le=6000)] = 20.0  # from one address
    address_tries_burst: Annotated[int, Meta(ge=1, le=10_000)] = 40
    issuers: dict[Id, IssuerPlace] = {}


class Lanes(Section, frozen=True, kw_only=True):
    """The writer of the books."""

    batch_max: Annotated[int, Meta(ge=1, le=5000)] = 500  # units in one transaction
    waiting_max: Count = 20_000  # units waiting; beyond it callers are told to come back
    transaction_limit_s: Annotated[float, Meta(gt=0, le=2)] = (
        2.0  # reads as of a time close after it
    )


class Accrual(Section, frozen=True, kw_only=True):
    """What partners earn by landed deals."""

    poll_s: Seconds = 0.5  # looks for deals landed elsewhere; those landed here wake at once


class Live(Section, frozen=True, kw_only=True):
    """Streams of partners' balances."""

    subscribers_max: Count = 5_000  # streams of this process; beyond it callers come back later
    owner_max: Count = 4_000  # of one calling system: the rest is for others
    visitor_max: Count = 20  # of one partner who visits, in all their windows
    per_s: Annotated[float, Meta(gt=0, le=100)] = 4.0  # events of one partner
    poll_s: Annotated[float, Meta(gt=0, le=60)] = 1.0  # reads of the ledger while Redis is lost
    ping_s: Annotated[float, Meta(gt=0, le=300)] = 15.0  # a silent stream says that it lives
    write_s: Annotated[float, Meta(gt=0, le=300)] = 10.0  # unread for longer: the reader is dropped


class Process(Section, frozen=True, kw_only=True):
    """What this process does, and how it ends."""

    roles: Annotated[tuple[Part, ...], Meta(min_length=1)] = ("api", "sessions", "accrual")
    drain_s: Seconds = 20.0  # from the request to stop until what is still open is left to rows


class Log(Section, frozen=True, kw_only=True):
    """Log lines, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    form: Literal["auto", "json", "human"] = "auto"  # auto: for people at a terminal, else JSON


class Settings(Section, frozen=True, kw_only=True):
    """All of them."""

    rulebook: RulebookPlace
    control: Control
    sign_in: SignIn = SignIn()
    http: Http = Http()
    database: Database = Database()
    redis: Redis = Redis()
    embedded: Embedded = Embedded()
    platforms: dict[Id, PlatformServer] = {}
    psps: dict[Id, PspServer] = {}
    lanes: Lanes = Lanes()
    accrual: Accrual = Accrual()
    live: Live = Live()
    process: Process = Process()
    log: Log = Log()


def load_settings(
    path: FilePath | None, environ: Mapping[str, str]
) -> tuple[Settings | None, list[Finding]]:
    """Read the settings' file (none: defaults) and the environment over it.

    With any finding there are no settings; each finding names file and line, or the variable.
    """
    document: dict[str, Any] = {}
    where: dict[Path, Where] = {}
    if path is not None:
        text, findings = read_toml(path)
        if text is None:
            return None, findings
        document = text.data
        where = {key: Where(text.file, line) for key, line in text.lines.items()}
    findings = overlay(document, where, environ, Settings)
    folder = path.parent if path is not None else FilePath()
    settings, flaws = shape(document, Settings, _reader(environ, folder))
    if settings is not None:
        flaws += _control_flaws(settings.control)
        flaws += _http_flaws(settings.http)
    findings += placed(flaws, where, Where(str(path) if path is not None else "settings"))
    if findings:
        return None, sorted(findings, key=lambda finding: finding.where)
    return settings, []


def _http_flaws(http: Http) -> Iterator[Flaw]:
    """Networks that are none, files that are not there, a certificate without its key."""
    for proxy in http.proxies:
        try:
            ip_network(proxy)
        except ValueError as error:
            yield Flaw(("http", "proxies"), "wrong-value", str(error))
    for name in ("certificate", "certificate_key", "client_ca"):
        path = getattr(http, name)
        if path and not FilePath(path).is_file():
            yield Flaw(("http", name), "wrong-value", f"there is no file {path}")
    if http.certificate and not http.certificate_key:
        yield Flaw(("http", "certificate_key"), "missing-key", "a certificate needs its key")


def _control_flaws(control: Control) -> Iterator[Flaw]:
    """What no single key of the section can say by its type."""
    key = control.anchor_key.reveal()
    if key and not key.startswith("-----BEGIN PRIVATE KEY-----"):
        yield Flaw(("control", "anchor_key"), "wrong-value", "expected a private key in PEM")
    if key and not control.anchor_file and not control.anchor_url:
        said = "anchors go nowhere: set `anchor_file`, `anchor_url` or both"
        yield Flaw(("control", "anchor_key"), "missing-key", said)
    personal = control.personal_key.reveal()
    if personal and _PERSONAL_KEY.fullmatch(personal) is None:
        yield Flaw(
            ("control", "personal_key"), "wrong-value", "expected 64 lower-case hexadecimal digits"
        )


def peers(settings: Settings, book: Rulebook) -> list[Finding]:
    """Servers the rulebook names and the settings do not reach."""
    return [
        *_unreached(
            "platforms", "platform", [it.id for it in book.platforms], settings.platforms, book
        ),
        *_unreached("psps", "psp", [it.id for it in book.psps], settings.psps, book),
    ]


def spare(settings: Settings, book: Rulebook) -> list[str]:
    """Sections that reach servers the rulebook does not name: it may name them later."""
    named = {it.id for it in book.platforms}, {it.id for it in book.psps}
    return [
        *(f"platforms.{name}" for name in settings.platforms if name not in named[0]),
        *(f"psps.{name}" for name in settings.psps if name not in named[1]),
    ]


def _unreached(
    section: str, part: str, named: Sequence[str], reached: Iterable[str], book: Rulebook
) -> Iterator[Finding]:
    for number, name in enumerate(named):
        if name not in reached:
            key = f"{section}.{name}"
            why = f"[{key}] is missing from the settings: it says how to reach `{name}`"
            yield Finding(book.place(f"{part}[{number}]"), "missing-section", why, key)


def _reader(environ: Mapping[str, str], folder: FilePath) -> Hook:
    """How the types that msgspec does not know are read."""

    def read(kind: type, value: object) -> Secret:
        if not isinstance(value, str):
            raise ValueError("expected text")  # noqa: TRY004 - msgspec reports ValueError alone
        reads = read_address if kind is Address else read_secret
        return reads(value, environ, folder)

    return read
