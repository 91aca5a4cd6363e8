"""An identity provider over a real socket: what of it is believed, and how often it is asked.

It knows tokens that do not hold, each in one way. It refuses to know people and sessions.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from joserfc.jwk import ECKey

from gateway.control.issuers import AGAIN_S, ANSWER_BYTES_MAX, KEPT_S, SILENT_S, Provider
from gateway.control.oidc import Issuer, Question, Questions
from gateway.control.refusals import Refusal
from tests.support.issuer import CLIENT, SECRET, IdentityProvider, identity_provider

BACK = "http://127.0.0.1/sign-in/corp/callback"


@dataclass
class House:
    """Our side of the flow, with clocks that a test moves."""

    peer: IdentityProvider
    http: aiohttp.ClientSession
    provider: Provider
    questions: Questions
    skew: list[float] = field(default_factory=lambda: [0.0])

    def later(self, seconds: float) -> None:
        """Time goes on, here and there."""
        self.skew[0] += seconds
        self.peer.skew_s += seconds

    async def code(self, question: Question) -> str:
        """What a browser brings back."""
        answer = await self.http.get(await self.provider.address(question), allow_redirects=False)
        assert answer.status == 302, await answer.text()
        back = answer.headers["Location"]
        assert back.startswith(BACK)
        said = parse_qs(urlsplit(back).query)
        assert said["state"] == [question.state]
        return said["code"][0]

    async def signed_in(self) -> str:
        """Once through the flow."""
        question, _ = self.questions.new("corp")
        return await self.provider.subject(await self.code(question), question)


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    """A provider, and us as its client."""
    skew = [0.0]
    async with identity_provider() as peer, aiohttp.ClientSession() as http:
        issuer = Issuer(
            id="corp", url=peer.url, client_id=CLIENT, client_secret=SECRET, redirect_url=BACK
        )

        def now() -> datetime:
            return datetime.fromtimestamp(time.time() + skew[0], UTC)

        provider = Provider(issuer, http, now, lambda: time.monotonic() + skew[0])
        questions = Questions(b"pepper", os.urandom, now)
        yield House(peer, http, provider, questions, skew)


async def refused(work: Any) -> str:
    """The code of the refusal."""
    with pytest.raises(Refusal) as no:
        await work
    return no.value.code


async def test_a_provider_says_who_came(house: House) -> None:
    """Code, PKCE, nonce and signature hold: the subject is believed."""
    assert await house.signed_in() == "00u-ann"
    question, _ = house.questions.new("corp")
    asked = parse_qs(urlsplit(await house.provider.address(question)).query)
    assert asked["nonce"] == [question.nonce]
    assert asked["code_challenge_method"] == ["S256"]
    assert question.verifier not in str(asked)


async def test_another_claim_may_name_the_subject(house: House) -> None:
    """A house whose provider has better names than `sub` says which claim it is."""
    issuer = msgspec.structs.replace(house.provider.issuer, subject_claim="oid")
    house.provider.issuer = issuer
    house.peer.claims = {"oid": "7f3a"}
    assert await house.signed_in() == "7f3a"
    house.peer.claims = {}
    assert await refused(house.signed_in()) == "sign-in-failed"


NOW = int(time.time())
WRONG: dict[str, dict[str, object]] = {
    "of another issuer": {"iss": "https://other.example"},
    "without an issuer": {"iss": None},
    "for another client": {"aud": "another"},
    "for nobody": {"aud": None},
    "for us and another, made for the other": {"aud": [CLIENT, "another"], "azp": "another"},
    "for us and another, made for nobody": {"aud": [CLIENT, "another"]},
    "made for another": {"azp": "another"},
    "expired": {"exp": NOW - 3600, "iat": NOW - 7200},
    "without an end": {"exp": None},
    "of the future": {"iat": NOW + 3600},
    "of no time": {"iat": None},
    "not yet valid": {"nbf": NOW + 3600},
    "to another question": {"nonce": "0" * 64},
    "to no question": {"nonce": None},
    "without a subject": {"sub": None},
    "with an empty subject": {"sub": ""},
    "with a subject that is no text": {"sub": 7},
}  # fmt: skip


@pytest.mark.parametrize("claims", WRONG.values(), ids=WRONG)
async def test_a_token_that_says_the_wrong_thing_lets_nobody_in(
    house: House, claims: dict[str, object]
) -> None:
    """Every claim is looked at."""
    house.peer.claims = claims
    assert await refused(house.signed_in()) == "sign-in-failed"


def _encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(part)).decode().rstrip("=")


def _unsigned(peer: IdentityProvider, claims: dict[str, Any]) -> str:
    return f"{_encoded({'alg': 'none', 'kid': 'first'})}.{_encoded(claims)}."


def _by_shared_secret(peer: IdentityProvider, claims: dict[str, Any]) -> str:
    """Signed with the public key as if it were a secret: the old trick."""
    said = f"{_encoded({'alg': 'HS256', 'kid': 'first'})}.{_encoded(claims)}"
    digest = hmac.digest(peer.keys[0].as_pem(private=False), said.encode(), "sha256")
    return f"{said}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def _by_a_stranger(peer: IdentityProvider, claims: dict[str, Any]) -> str:
    return peer.sign(claims, ECKey.generate_key("P-256", {"kid": "first"}))


def _changed(peer: IdentityProvider, claims: dict[str, Any]) -> str:
    head, _, sign = peer.sign(claims).split(".")
    return f"{head}.{_encoded(claims | {'sub': '00u-boss'})}.{sign}"


@pytest.mark.parametrize(
    "forge",
    [_unsigned, _by_shared_secret, _by_a_stranger, _changed, lambda *_: "nonsense", lambda *_: ""],
)
async def test_a_token_that_is_not_signed_by_the_provider_lets_nobody_in(
    house: House, forge: Callable[[IdentityProvider, dict[str, Any]], str]
) -> None:
    """Unsigned, signed with something else, signed by somebody else, changed: none is believed."""
    house.peer.signed = lambda claims: forge(house.peer, claims)
    assert await refused(house.signed_in()) == "sign-in-failed"


async def test_a_code_is_of_no_use_to_whoever_steals_it(house: House) -> None:
    """The provider wants the verifier, which never left us."""
    mine, _ = house.questions.new("corp")
    theirs, _ = house.questions.new("corp")
    stolen = await house.code(mine)
    assert await refused(house.provider.subject(stolen, theirs)) == "sign-in-failed"


async def test_only_the_browser_that_asked_can_answer_and_in_time(house: House) -> None:
    """A cookie of another question, provider, house or time, or none at all, is refused."""
    question, cookie = house.questions.new("corp")
    other, others = house.questions.new("corp")
    assert house.questions.read("corp", cookie, question.state) == question
    forged = cookie[:-1] + ("0" if cookie[-1] != "0" else "1")
    tried = [
        ("corp", others, question.state), ("corp", cookie, other.state), ("corp", cookie, ""),
        ("else", cookie, question.state), ("corp", "", question.state),
        ("corp", forged, question.state),
    ]  # fmt: skip
    for issuer, shown, state in tried:
        with pytest.raises(Refusal) as no:
            house.questions.read(issuer, shown, state)
        assert no.value.code == "sign-in-failed"
    elsewhere = Questions(b"another house", os.urandom, lambda: datetime.now(UTC))
    with pytest.raises(Refusal):
        elsewhere.read("corp", cookie, question.state)
    house.later(600)
    with pytest.raises(Refusal):
        house.questions.read("corp", cookie, question.state)


async def test_keys_are_read_once_for_all_who_come(house: House) -> None:
    """Twenty people at once: one description, one list of keys; within an hour no more."""
    house.peer.hold = asyncio.Event()
    coming = [asyncio.create_task(house.signed_in()) for _ in range(20)]
    async with asyncio.timeout(30):
        while not house.peer.asked["description"]:
            await asyncio.sleep(0.01)
    house.peer.hold.set()
    assert await asyncio.gather(*coming) == ["00u-ann"] * 20
    house.later(KEPT_S / 2)
    await house.signed_in()
    assert (house.peer.asked["description"], house.peer.asked["keys"]) == (1, 1)
    house.later(KEPT_S / 2)
    await house.signed_in()
    assert house.peer.asked["keys"] == 2


async def test_a_new_key_of_the_provider_is_found_at_most_once_a_minute(house: House) -> None:
    """An unknown key has the keys read again; many of them do not have it asked often."""
    await house.signed_in()
    house.peer.new_key("second")
    assert await refused(house.signed_in()) == "sign-in-failed"  # its keys were read just now
    house.later(AGAIN_S)
    assert await house.signed_in() == "00u-ann"
    assert house.peer.asked["keys"] == 2
    house.peer.listed = house.peer.keys[:]
    house.peer.new_key("secret")
    for _ in range(5):
        assert await refused(house.signed_in()) == "sign-in-failed"
    assert house.peer.asked["keys"] == 2


async def test_a_provider_that_is_away_lets_nobody_in_and_is_let_be(house: House) -> None:
    """`issuer-away`, without asking it again in the same moment; it comes back by itself."""
    house.peer.away = 503
    question, _ = house.questions.new("corp")
    assert await refused(house.provider.address(question)) == "issuer-away"
    assert await refused(house.provider.address(question)) == "issuer-away"
    assert house.peer.asked["description"] == 1
    house.peer.away = 0
    house.later(SILENT_S)
    assert await house.signed_in() == "00u-ann"
    code = await house.code(question)
    house.peer.away = 503
    assert await refused(house.provider.subject(code, question)) == "issuer-away"


@pytest.mark.parametrize(
    "described",
    [
        {"issuer": "https://other.example"},
        {"token_endpoint": "http://far.example/token"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": 7},
        {"padding": "x" * ANSWER_BYTES_MAX},
    ],
)
async def test_a_description_that_cannot_be_right_is_not_used(
    house: House, described: dict[str, object]
) -> None:
    """Another issuer, addresses without TLS, the wrong shape, too long."""
    house.peer.described = described
    question, _ = house.questions.new("corp")
    assert await refused(house.provider.address(question)) == "issuer-away"


async def test_a_provider_with_another_secret_for_us_lets_nobody_in(house: House) -> None:
    """Our own secret is wrong: a refusal, and no word of it to the browser."""
    house.peer.secret = "changed there"
    assert await refused(house.signed_in()) == "sign-in-failed"
