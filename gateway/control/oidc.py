"""OpenID Connect: what is asked of an identity provider, and what of its answer is believed.

Knows the code flow with PKCE, and every check of an ID token. Refuses to open a connection
(`issuers.py` does), and to know people: a provider says a subject, a table says who that is.

The question is not stored: a browser carries it in a cookie, signed, for ten minutes. State, nonce
and verifier are made of its secret and ours, so only the browser that asked can bring the answer,
and a code stolen on its way is of no use.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b, sha256
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from gateway.control.refusals import Refusal

Key = RSAKey | ECKey | OKPKey

QUESTION_LASTS: Final = timedelta(minutes=10)
LEEWAY_S: Final = 60  # clocks differ
# What a public key can prove. Nothing else is believed: no `none`, and no shared secret.
ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519",
    "EdDSA",
)  # fmt: skip
_KINDS: Final[Mapping[str, type[Key]]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
_COOKIE: Final = re.compile(
    r"([a-z0-9-]{1,40})\.([0-9a-f]{1,12})\.([0-9a-f]{64})\.([0-9a-f]{64})", re.ASCII
)


class Issuer(msgspec.Struct, frozen=True, kw_only=True):
    """An identity provider as the settings name it."""

    id: str
    url: str
    client_id: str
    client_secret: str = ""
    subject_claim: str = "sub"
    redirect_url: str

    @property
    def host(self) -> str:
        """Where it is, for people."""
        return self.url.split("//", 1)[1].split("/", 1)[0]


class Described(msgspec.Struct, frozen=True):
    """What a provider says of itself (`/.well-known/openid-configuration`)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str


class Question(msgspec.Struct, frozen=True):
    """One journey of a browser to a provider and back."""

    issuer: str
    state: str
    nonce: str
    verifier: str


class Questions:
    """Makes questions and recognises them in the cookie that comes back."""

    def __init__(
        self, pepper: bytes, random_bytes: Callable[[int], bytes], now: Callable[[], datetime]
    ) -> None:
        self._pepper = pepper
        self._random_bytes = random_bytes
        self._now = now

    def new(self, issuer: str) -> tuple[Question, str]:
        """A new question, and the cookie that its browser carries."""
        until = int((self._now() + QUESTION_LASTS).timestamp())
        secret = self._random_bytes(32).hex()
        said = f"{issuer}.{until:x}.{secret}"
        return self._question(issuer, secret), f"{said}.{self._made('mark', said)}"

    def read(self, issuer: str, cookie: str, state: str) -> Question:
        """The question a browser brings back with its state.

        Raises Refusal `sign-in-failed` for one of another browser, provider or time.
        """
        match = _COOKIE.fullmatch(cookie)
        if match is None or match[1] != issuer:
            raise failed("the browser does not know this question")
        said = cookie.rpartition(".")[0]
        if not hmac.compare_digest(self._made("mark", said), match[4]):
            raise failed("the question is not one of ours")
        if self._now().timestamp() >= int(match[2], 16):
            raise failed("the question is too old")
        question = self._question(issuer, match[3])
        if not hmac.compare_digest(question.state.encode(), state.encode()):
            raise failed("the answer is to another question")
        return question

    def _question(self, issuer: str, secret: str) -> Question:
        return Question(
            issuer, self._made("state", secret), self._made("nonce", secret),
            self._made("verifier", secret),
        )  # fmt: skip

    def _made(self, what: str, said: str) -> str:
        mark = blake2b(f"sign-in:{what}:{said}".encode(), key=self._pepper[:64], digest_size=32)
        return mark.hexdigest()


def address(issuer: Issuer, described: Described, question: Question) -> str:
    """Where the browser is sent to sign in."""
    challenge = base64.urlsafe_b64encode(sha256(question.verifier.encode()).digest())
    asked = {
        "response_type": "code",
        "client_id": issuer.client_id,
        "redirect_uri": issuer.redirect_url,
        "scope": "openid",
        "state": question.state,
        "nonce": question.nonce,
        "code_challenge": challenge.decode().rstrip("="),
        "code_challenge_method": "S256",
    }
    mark = "&" if "?" in described.authorization_endpoint else "?"
    return f"{described.authorization_endpoint}{mark}{urlencode(asked)}"


def read_keys(answer: object) -> dict[str, Key]:
    """The signing keys of a provider by their id; those we cannot use are passed over."""
    found: dict[str, Key] = {}
    listed = answer.get("keys") if isinstance(answer, dict) else None
    for each in listed if isinstance(listed, list) else ():
        kind = _KINDS.get(str(each.get("kty"))) if isinstance(each, dict) else None
        if kind is None or each.get("use", "sig") != "sig":
            continue
        try:
            key = kind.import_key(each)
        except (JoseError, ValueError, KeyError, TypeError):
            continue
        if not key.is_private:
            found[str(each.get("kid", ""))] = key
    return found


def key_id(token: str) -> str:
    """Which key a token says it is signed with; raises Refusal `sign-in-failed`."""
    head = token.partition(".")[0]
    try:
        header = msgspec.json.decode(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except ValueError:
        raise failed("the provider's token cannot be read") from None
    return str(header.get("kid", "")) if isinstance(header, dict) else ""


def subject(issuer: Issuer, token: str, key: Key, question: Question, now: datetime) -> str:
    """Whom an ID token speaks of; raises Refusal `sign-in-failed` when any check fails."""
    try:
        claims = jwt.decode(token, key, algorithms=list(ALGORITHMS)).claims
        jwt.JWTClaimsRegistry(
            now=int(now.timestamp()), leeway=LEEWAY_S,
            iss={"essential": True, "value": issuer.url},
            aud={"essential": True, "value": issuer.client_id},
            exp={"essential": True}, iat={"essential": True},
            nonce={"essential": True, "value": question.nonce},
        ).validate(claims)  # fmt: skip
    except (JoseError, ValueError, TypeError) as error:
        raise failed(f"the provider's token does not hold: {type(error).__name__}") from None
    return _subject(issuer, claims)


def _subject(issuer: Issuer, claims: Mapping[str, Any]) -> str:
    audience = claims["aud"]
    several = isinstance(audience, Sequence) and not isinstance(audience, str)
    party = claims.get("azp", issuer.client_id if not several or len(audience) == 1 else None)
    if party != issuer.client_id:
        raise failed("the provider's token was made for another client")
    found = claims.get(issuer.subject_claim)
    if not isinstance(found, str) or not 0 < len(found) <= 255:
        raise failed("the provider's token names nobody")
    return found


def failed(why: str) -> Refusal:
    """Not let in by a provider's answer; `why` is for people and holds nothing of the token."""
    return Refusal("sign-in-failed", why)
