"""The MT5 Web API over HTTPS as values: requests to write, answers to read.

Knows paths, parameters and the envelope. Refuses to open a socket, to wait and to repeat: a request
only says whether repeating it could do harm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Final
from urllib.parse import quote

import msgspec

from bridge.mt5 import map as wire
from bridge.mt5 import retcodes

VERSION: Final = 3661  # of the Web API we speak; the server accepts 484 and newer
AGENT: Final = "brokerd"
PAGE_MAX: Final = 100

_DECODER: Final = msgspec.json.Decoder(float_hook=Decimal)  # money sent as a number stays exact
_RETCODE_DIGITS_MAX: Final = 6


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One call: what to send and whether it may change something there.

    command  the path without `/api/`, the name in logs and metrics
    secrets  parameters of the body that no log may show
    writes   it may change something: after an ambiguous end it is looked up, never replayed
    rows     it answers thousands of rows: each is left as it came, for whoever reads them in parts
    """

    command: str
    query: tuple[tuple[str, str], ...] = ()
    body: tuple[tuple[str, str], ...] = ()
    secrets: frozenset[str] = frozenset()
    writes: bool = False
    rows: bool = False

    @property
    def method(self) -> str:
        """POST for what changes something: no HTTP client repeats a POST by itself."""
        return "POST" if self.writes or self.body else "GET"

    @property
    def target(self) -> str:
        """Path and query; everything but unreserved characters is percent-encoded, as UTF-8."""
        pairs = "&".join(f"{name}={quote(value, safe='')}" for name, value in self.query)
        return f"/api/{self.command}" + (f"?{pairs}" if pairs else "")

    @property
    def content(self) -> bytes:
        """The JSON body, empty when there is none."""
        return msgspec.json.encode(dict(self.body)) if self.body else b""

    @property
    def redacted(self) -> str:
        """The parameters as JSON text, with each secret replaced."""
        shown = {name: "***" if name in self.secrets else value for name, value in self.body}
        return msgspec.json.encode(dict(self.query) | shown).decode()

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the whole request, secrets included: equal requests are recognised."""
        whole = msgspec.json.encode([self.command, dict(self.query), dict(self.body)])
        return hashlib.sha256(whole).hexdigest()


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A readable answer of the platform, good or bad.

    answer  the payload; None where the call has none, and where its rows were asked for
    top     the envelope with the few values that stand beside `answer`
    rows    the rows of a request that asked for them, unread
    """

    code: int
    text: str
    answer: object
    top: Mapping[str, object]
    rows: tuple[msgspec.Raw, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the platform says that the call succeeded."""
        return retcodes.class_of(self.code) == "ok"


class _Rows(msgspec.Struct, frozen=True):
    """An envelope around many rows."""

    retcode: str | int
    answer: tuple[msgspec.Raw, ...] | None = None


_ROWS: Final = msgspec.json.Decoder(_Rows)


def read_answer(body: bytes) -> Answer:
    """Read an envelope: `{"retcode": "0 Done", "answer": ...}`. Raises wire.Unreadable."""
    try:
        top = wire.mapping(_DECODER.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError) as no:
        raise wire.Unreadable(f"no JSON: {no}") from None
    code, text = _retcode(top)
    return Answer(code=code, text=text, answer=top.get("answer"), top=top)


def read_rows(body: bytes) -> Answer:
    """Read an envelope whose payload is an array, leaving its rows unread: a few milliseconds.

    Raises wire.Unreadable; a row may still be unreadable by itself.
    """
    try:
        top = _ROWS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as no:
        raise wire.Unreadable(f"no rows: {no}") from None
    code, text = _retcode({"retcode": top.retcode})
    return Answer(code=code, text=text, answer=None, top={}, rows=top.answer or ())


def _retcode(top: Mapping[str, object]) -> tuple[int, str]:
    """The code of an envelope and its words."""
    number, _, text = wire.read_text(top, "retcode").partition(" ")
    if not number.isascii() or not number.isdigit() or len(number) > _RETCODE_DIGITS_MAX:
        raise wire.Unreadable(f"no retcode in {number[:40]!r}")
    return int(number), text or retcodes.text_of(int(number))


def auth_start(login: int) -> Request:
    """First half of the challenge; the answer's `srv_rand` must be answered within 10 s."""
    query = _pairs(version=VERSION, agent=AGENT, login=login, type="manager")
    return Request(command="auth/start", query=query)


def auth_answer(srv_rand_answer: bytes, cli_rand: bytes) -> Request:
    """Second half: our proof, and our own challenge to the server."""
    query = _pairs(srv_rand_answer=srv_rand_answer.hex(), cli_rand=cli_rand.hex())
    return Request(command="auth/answer", query=query)


def test_access() -> Request:
    """The ping of a session."""
    return Request(command="test/access")


def quit_session() -> Request:
    """Ask the server to end the session."""
    return Request(command="quit")


def time_server() -> Request:
    """The server's wall clock."""
    return Request(command="time/server")


def group_get(group: str) -> Request:
    """One group's record."""
    return Request(command="group/get", query=_pairs(group=group))


def user_add(user: wire.User, password_main: str, password_investor: str) -> Request:
    """Create an account under a login of our choice; passwords travel in the body, not the URL."""
    query = _pairs(
        login=user.login,
        group=user.group,
        name=user.name,
        leverage=user.leverage,
        rights=user.rights,
        id=user.id,
        comment=user.comment,
    )
    body = (("PassMain", password_main), ("PassInvestor", password_investor))
    secrets = frozenset({"PassMain", "PassInvestor"})
    return Request(command="user/add", query=query, body=body, secrets=secrets, writes=True)


def user_get(login: int) -> Request:
    """One account's record."""
    return Request(command="user/get", query=_pairs(login=login))


def user_update(login: int, changes: Mapping[str, str | int]) -> Request:
    """Change fields of an account; the server leaves what it does not like as it was."""
    return Request(command="user/update", query=_pairs(login=login, **changes), writes=True)


def user_logins(mask: str) -> Request:
    """The logins of every group that a mask covers."""
    return Request(command="user/logins", query=_pairs(group=mask))


def account_get(login: int) -> Request:
    """One account's money."""
    return Request(command="user/account/get", query=_pairs(login=login))


def trade_balance(login: int, amount: str, comment: str) -> Request:
    """Put money on an account, or take it off; the comment is all that tells one from another."""
    assert len(comment) <= wire.COMMENT_CHARACTERS_MAX, (
        comment
    )  # a longer one is cut without a word
    query = _pairs(login=login, type=wire.BALANCE_TYPE, balance=amount, comment=comment)
    return Request(command="trade/balance", query=query, writes=True)


def deal_total(login: int, since: int, until: int) -> Request:
    """How many deals an account has in a window of server time, both ends included."""
    return Request(command="deal/get_total", query=_window(login, since, until))


def deal_page(login: int, since: int, until: int, offset: int) -> Request:
    """Up to PAGE_MAX deals of an account in a window of server time, from `offset` on."""
    query = _window(login, since, until) + _pairs(offset=offset, total=PAGE_MAX)
    return Request(command="deal/get_page", query=query)


def deal_batch(mask: str, since: int, until: int) -> Request:
    """All deals of every group that a mask covers, in a window of server time, unread."""
    query = (("group", mask), ("from", str(since)), ("to", str(until)))
    return Request(command="deal/get_batch", query=query, rows=True)


def _window(login: int, since: int, until: int) -> tuple[tuple[str, str], ...]:
    return (("login", str(login)), ("from", str(since)), ("to", str(until)))


def _pairs(**values: str | int) -> tuple[tuple[str, str], ...]:
    """Parameters in order, every scalar as text."""
    return tuple((name, str(value)) for name, value in values.items())
