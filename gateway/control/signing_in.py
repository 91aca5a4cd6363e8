"""Signing in: two ways to a session, by password and code, or by an identity provider.

Knows in which order a proof is judged, how often it may be tried, and that every "no" sounds the
same. Refuses to keep sessions (`sign_ins.py`) and proofs (`staff.py`), and to know what is let in.

Tries are counted by name and by address before anything is computed. A name that is tried too
often is closed for its owner too, for half a minute a try: that is the price of a stranger never
having more tries than that. Who signs in by a provider is not held up by it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from gateway.control import audit, codes, oidc, staff
from gateway.control.access import Caller
from gateway.control.audit import Command, audited
from gateway.control.codes import Safe
from gateway.control.issuers import Provider
from gateway.control.oidc import Questions
from gateway.control.passwords import Passwords
from gateway.control.refusals import Refusal, not_found
from gateway.control.sign_ins import SignIn, SignIns
from ledger.ids import Ids

if TYPE_CHECKING:
    import asyncpg

STRANGER: Final = Caller(key_id="", person="stranger", owner="stranger")
PERSON: Final = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}", re.ASCII)


class PasswordSignIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a person shows: name, password, and the code their device shows now."""

    person: Annotated[str, Meta(min_length=1, max_length=64)]
    password: Annotated[str, Meta(min_length=1, max_length=1024)]
    code: Annotated[str, Meta(min_length=6, max_length=6)]


# Spends one try of what is named; raises Refusal `limit-exceeded`.
Admit = Callable[[str], Awaitable[None]]


class Tries(msgspec.Struct, frozen=True):
    """How often signing in may be tried."""

    of_person: Admit
    of_address: Admit


class SigningIn:
    """Lets people in.

    passwords  False: this house signs in by identity providers alone
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        sign_ins: SignIns,
        passwords: Passwords | None,
        safe: Safe,
        providers: Mapping[str, Provider],
        questions: Questions,
        tries: Tries,
        ids: Ids,
        now: Callable[[], datetime],
    ) -> None:
        self._pool = pool
        self._sign_ins = sign_ins
        self._passwords = passwords
        self._safe = safe
        self._providers = providers
        self._questions = questions
        self._tries = tries
        self._ids = ids
        self._now = now

    @property
    def by_password(self) -> bool:
        """Whether a name and a password are taken here."""
        return self._passwords is not None

    @property
    def providers(self) -> list[tuple[str, str]]:
        """The identity providers: their names and where they are."""
        return [(name, each.issuer.host) for name, each in self._providers.items()]

    async def enter(
        self, order: PasswordSignIn, address: str, correlation: str
    ) -> tuple[SignIn, str]:
        """A session for whoever shows password and code; its secret is for one browser.

        Raises Refusal `sign-in-failed`, the same for every reason, `limit-exceeded`, `overloaded`.
        """
        if self._passwords is None:
            raise Refusal("sign-in-failed", "this house signs in by identity providers alone")
        await self._tries.of_address(address)
        person = order.person.strip().lower()
        if PERSON.fullmatch(person) is None:
            raise _wrong()
        await self._tries.of_person(person)
        async with self._pool.acquire() as conn:
            shown = await staff.proofs(conn, person)
        good = await self._passwords.matches(None if shown is None else shown.hash, order.password)
        step = None if shown is None else self._step(person, shown, order.code)
        if shown is None or not good or step is None or shown.device is None:
            if shown is not None:  # what strangers type is kept nowhere
                await self._refused(person, address, correlation)
            raise _wrong()
        async with self._pool.acquire() as conn, conn.transaction():
            if await staff.use(conn, person, shown, step):
                return await self._sign_ins.open(conn, person, "password", address, correlation)
        await self._refused(person, address, correlation)
        raise _wrong()

    def _step(self, person: str, shown: staff.Proofs, code: str) -> int | None:
        """The step of the code, if the person has a device that shows it."""
        secret = None if shown.device is None else self._safe.opened(person, shown.device)
        return None if secret is None else codes.matched(secret, code, self._now(), shown.used)

    async def ask(self, issuer: str, address: str) -> tuple[str, str]:
        """Where a browser goes to sign in, and the cookie it takes with it.

        Raises Refusal `not-found`, `issuer-away`, `limit-exceeded`.
        """
        provider = self._provider(issuer)
        await self._tries.of_address(address)
        question, cookie = self._questions.new(issuer)
        return await provider.address(question), cookie

    async def answered(
        self, issuer: str, cookie: str, answer: Mapping[str, str], address: str, correlation: str
    ) -> tuple[SignIn, str]:
        """A session for whoever brings a provider's answer back.

        answer  what the provider put into the address: `code` and `state`, or `error`
        Raises Refusal `not-found`, `sign-in-failed`, `issuer-away`, `limit-exceeded`.
        """
        provider = self._provider(issuer)
        await self._tries.of_address(address)
        question = self._questions.read(issuer, cookie, answer.get("state", ""))
        if (code := answer.get("code", "")) == "":
            raise oidc.failed("the identity provider let nobody in")
        subject = await provider.subject(code, question)
        async with self._pool.acquire() as conn, conn.transaction():
            person = await staff.whom(conn, issuer, subject)
            if person is not None:
                return await self._sign_ins.open(conn, person, "oidc", address, correlation)
        raise oidc.failed("the identity provider names somebody whom this house does not know")

    def _provider(self, issuer: str) -> Provider:
        provider = self._providers.get(issuer)
        if provider is None:
            raise not_found("identity provider", issuer)
        return provider

    async def _refused(self, person: str, address: str, correlation: str) -> None:
        """Write down that somebody came in a person's name and was not let in."""
        command = Command(STRANGER, "", correlation, self._now())
        row = audited(
            command, "sign-in.refuse", person, self._ids.new("AU"), after={"address": address}
        )
        async with self._pool.acquire() as conn, conn.transaction():
            await audit.write(conn, [row])


def _wrong() -> Refusal:
    return Refusal("sign-in-failed", "name, password or code is wrong")
