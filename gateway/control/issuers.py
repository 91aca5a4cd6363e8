"""Identity providers: asked for their description, their keys, and what a code stands for.

Knows connections, ages and limits. Refuses to judge a token: `oidc.py` does, and nobody is let in
by what stands here.

Keys are kept for an hour. A token signed with a key we do not know has them read again, at most
once a minute, so a provider may change its keys at any time and nobody can make us ask it without
end. Whoever needs them while they are being read waits for that one answer.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, TypeVar
from urllib.parse import quote_plus, urlsplit

import aiohttp
import msgspec

from gateway.control import oidc
from gateway.control.oidc import Described, Issuer, Key, Question
from gateway.control.refusals import Refusal

T = TypeVar("T")

ANSWER_BYTES_MAX: Final = 1024 * 1024
TIMEOUT_S: Final = 5.0
KEPT_S: Final = 3600.0
AGAIN_S: Final = 60.0
SILENT_S: Final = 2.0  # one that does not answer is let be: nobody queues for its silence
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")


class _Answer(msgspec.Struct):
    """What a provider gives for a code."""

    id_token: str


class Provider:
    """One identity provider, reached over `http`, a session without cookies."""

    def __init__(
        self,
        issuer: Issuer,
        http: aiohttp.ClientSession,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self.issuer = issuer
        self._http = http
        self._now = now
        self._monotonic = monotonic
        self._reading = asyncio.Lock()
        self._described: Described | None = None
        self._keys: dict[str, Key] = {}
        self._read_at = self._silent_until = -KEPT_S

    async def address(self, question: Question) -> str:
        """Where a browser goes with this question; raises Refusal `issuer-away`."""
        described, _ = await self._known()
        return oidc.address(self.issuer, described, question)

    async def subject(self, code: str, question: Question) -> str:
        """Whom a code stands for; raises Refusal `sign-in-failed` and `issuer-away`."""
        described, _ = await self._known()
        token = await self._token(described, code, question)
        wanted = oidc.key_id(token)
        key = await self._key(wanted)
        if key is None:
            raise oidc.failed("the provider's token is signed with a key it does not name")
        return oidc.subject(self.issuer, token, key, question, self._now())

    async def _key(self, wanted: str) -> Key | None:
        _, keys = await self._known()
        if wanted not in keys:
            _, keys = await self._known(AGAIN_S)
        if wanted == "" and len(keys) == 1:
            return next(iter(keys.values()))  # a provider with one key need not name it
        return keys.get(wanted)

    async def _known(self, age_max_s: float = KEPT_S) -> tuple[Described, dict[str, Key]]:
        """The provider's description and keys, no older than that."""
        async with self._reading:
            if self._described is None or self._monotonic() - self._read_at >= age_max_s:
                if self._monotonic() < self._silent_until:
                    raise _away(self.issuer, "it did not answer a moment ago")
                self._silent_until = self._monotonic() + SILENT_S
                described = await self._describe()
                keys = oidc.read_keys(await self._get(described.jwks_uri, dict[str, Any]))
                self._described, self._keys = described, keys
                self._read_at = self._monotonic()
                self._silent_until = self._read_at
            return self._described, self._keys

    async def _describe(self) -> Described:
        url = self.issuer.url.rstrip("/") + "/.well-known/openid-configuration"
        described = await self._get(url, Described)
        if described.issuer != self.issuer.url:
            raise _away(self.issuer, "it describes another issuer")
        for each in (described.token_endpoint, described.jwks_uri):
            if not _guarded(each):
                raise _away(self.issuer, "it names an address without TLS")
        return described

    async def _get(self, url: str, kind: type[T]) -> T:
        status, body = await self._send("GET", url)
        if status != 200:
            raise _away(self.issuer, f"it answered {status}")
        return self._decoded(body, kind)

    async def _token(self, described: Described, code: str, question: Question) -> str:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.issuer.redirect_url,
            "code_verifier": question.verifier,
            "client_id": self.issuer.client_id,
        }
        headers = {}
        if secret := self.issuer.client_secret:
            pair = f"{quote_plus(self.issuer.client_id)}:{quote_plus(secret)}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        status, body = await self._send("POST", described.token_endpoint, form, headers)
        if status in (400, 401):
            raise oidc.failed("the provider does not take the code")
        if status != 200:
            raise _away(self.issuer, f"it answered {status}")
        return self._decoded(body, _Answer).id_token

    def _decoded(self, body: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(body, type=kind)
        except ValueError:
            raise _away(self.issuer, "its answer cannot be read") from None

    async def _send(
        self,
        method: str,
        url: str,
        form: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """One request: no redirects, an answer of bounded size within bounded time."""
        limit = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with self._http.request(
                method, url, data=form, headers=headers, timeout=limit, allow_redirects=False
            ) as response:
                body = bytearray()
                async for chunk in response.content.iter_chunked(65536):
                    body += chunk
                    if len(body) > ANSWER_BYTES_MAX:
                        raise _away(self.issuer, "its answer is too long")
                return response.status, bytes(body)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise _away(self.issuer, type(error).__name__) from None


def _guarded(url: str) -> bool:
    """Whether an address is of TLS; on this machine it need not be."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOCAL)


def _away(issuer: Issuer, why: str) -> Refusal:
    facts = {"issuer": issuer.id, "retry_after_s": 5}
    return Refusal("issuer-away", f"the identity provider cannot be used: {why}", facts)
