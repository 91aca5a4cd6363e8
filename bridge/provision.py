"""Trading accounts created once: under a login we leased, and read back before we believe it.

Knows that a repeated creation answers *exists*, and how to tell our own account from another's.
Refuses to choose group, login and time: the flow does, and may simply send again what is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from bridge.faults import AnswerLost, Fault, MaySend
from bridge.mt5 import http, retcodes
from bridge.mt5 import map as wire
from bridge.outcomes import Done, NotSent, Outcome, Refused, Unknown
from bridge.pool import Pool
from bridge.recorder import Recorder
from bridge.states import Account, AccountState

PASSWORD_KINDS: Final = (
    "abcdefghijkmnpqrstuvwxyz",
    "ABCDEFGHJKLMNPQRSTUVWXYZ",
    "23456789",
    "!#%+-=?@",
)
PASSWORD_CHARACTERS: Final = 14  # groups want eight or more, the platform takes sixteen at most


class Passwords(msgspec.Struct, frozen=True):
    """The two passwords a new account begins with; they never appear in text."""

    main: str
    investor: str

    def __repr__(self) -> str:
        return "Passwords(***)"


def new_passwords(random_bytes: Callable[[int], bytes]) -> Passwords:
    """Two passwords of all four kinds of characters, without letters that look alike."""
    return Passwords(_password(random_bytes), _password(random_bytes))


def _password(random_bytes: Callable[[int], bytes]) -> str:
    """Every kind in turn, so that each rule holds; bytes beyond an even spread are drawn again."""
    letters = []
    for position in range(PASSWORD_CHARACTERS):
        kind = PASSWORD_KINDS[position % len(PASSWORD_KINDS)]
        letters.append(_choice(kind, random_bytes))
    return "".join(letters)


def _choice(kind: str, random_bytes: Callable[[int], bytes]) -> str:
    limit = 256 - 256 % len(kind)
    while (byte := random_bytes(1)[0]) >= limit:
        pass
    return kind[byte % len(kind)]


def differences(account: Account, user: wire.User) -> tuple[str, ...]:
    """The fields in which the platform's record is not what was asked."""
    pairs = {
        "group": (account.platform_group, user.group),
        "leverage": (account.leverage, user.leverage),
        "rights": (account.rights, user.rights),
    }
    return tuple(
        f"{name} {there!r} instead of {wanted!r}"
        for name, (wanted, there) in pairs.items()
        if wanted != there
    )


def is_ours(account: Account, user: wire.User) -> bool:
    """Whether a record under our login is the account we meant: it carries our id."""
    return account.id in (user.id, user.comment)


def state_after(outcome: Outcome) -> AccountState:
    """Where an account that was *sent* stands after this outcome."""
    match outcome:
        case Done():
            return AccountState.VERIFIED
        case Unknown():
            return AccountState.UNKNOWN
        case NotSent() | Refused(kind="transient"):
            return AccountState.REQUESTED
        case Refused(kind="verify"):
            return AccountState.VERIFY_FAILED
        case _:
            return AccountState.REFUSED


class Provisioner:
    """Creates accounts on one server."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def create(self, account: Account, passwords: Passwords, may_send: MaySend) -> Outcome:
        """Create an account under its leased login and read it back; safe to repeat.

        Done carries the login and `created` or `found`. Refused(`verify`) means that it is there
        but not as asked, Refused(`configuration`, 3004) that the login belongs to somebody else.
        Unknown, also where only the reading back failed: send it again.
        """
        assert account.login is not None, account
        record = Recorder(self._pool)
        request = http.user_add(_user(account, account.login), passwords.main, passwords.investor)
        try:
            answer = await record.call(request, may_send)
        except Fault as no:
            return record.failed(no)
        if answer.ok:
            return await self._verify(account, "created", record)
        if answer.code in retcodes.EXISTS:
            return await self._verify(account, "found", record)
        return record.refused(answer)

    async def verify(self, account: Account) -> Outcome:
        """Read an account back without changing anything; Refused(13) where it is not there."""
        return await self._verify(account, "found", Recorder(self._pool))

    async def _verify(self, account: Account, how: str, record: Recorder) -> Outcome:
        """Whether the account under our login is ours and as asked."""
        assert account.login is not None, account
        try:
            user = await self._read_back(account.login, record)
        except Fault as no:
            return Unknown(reason=f"read back: {no.reason}", calls=record.calls)
        if user is None:
            if how == "created":
                return Unknown(reason="created, not found", calls=record.calls)
            return Refused(code=13, text="Not found", kind="data", calls=record.calls)
        if not is_ours(account, user):
            text = f"login {account.login} belongs to another account"
            return Refused(code=3004, text=text, kind="configuration", calls=record.calls)
        if wrong := differences(account, user):
            return Refused(code=0, text="; ".join(wrong), kind="verify", calls=record.calls)
        return Done(login=account.login, detail=how, calls=record.calls)

    async def _read_back(self, login: int, record: Recorder) -> wire.User | None:
        """The platform's record, None where it has none."""
        answer = await record.call(http.user_get(login))
        if answer.code == retcodes.NOT_FOUND:
            return None
        if not answer.ok:
            raise AnswerLost("retcode", f"{answer.code} {answer.text}")
        try:
            return wire.read_user(answer.answer)
        except wire.Unreadable as no:
            raise AnswerLost("unreadable", str(no)) from no


def _user(account: Account, login: int) -> wire.User:
    """The record we ask for: our client's id is its name, our account's id its mark."""
    return wire.User(
        login=login,
        group=account.platform_group,
        rights=account.rights,
        leverage=account.leverage,
        name=account.client_id,
        id=account.id,
        comment=account.id,
    )
