"""An identity provider: small, real, on a socket of its own.

It knows discovery, the code flow with PKCE, and how to misbehave when a test tells it to. It
refuses to show a page: whoever comes is signed in as the person the test named.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

CLIENT = "brokerd"
SECRET = "a secret of the tests"


@dataclass
class IdentityProvider:
    """Its keys, whom it signs in, and what it does otherwise than it should.

    subject  whom it signs in
    claims   changes to the claims of its tokens; a value of None leaves one out
    signed   makes the token where the test forges one
    """

    subject: str = "00u-ann"
    client: str = CLIENT
    secret: str = SECRET
    claims: dict[str, object] = field(default_factory=dict)
    signed: Callable[[dict[str, Any]], str] | None = None
    described: dict[str, object] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    keys: list[RSAKey | ECKey] = field(default_factory=list)
    listed: list[RSAKey | ECKey] | None = None
    away: int = 0  # answers with this status
    hold: asyncio.Event | None = None
    url: str = ""
    skew_s: float = 0.0
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def new_key(self, kid: str) -> ECKey:
        """From now on it signs with this key."""
        key = ECKey.generate_key("P-256", {"kid": kid, "use": "sig", "alg": "ES256"})
        self.keys.append(key)
        return key

    async def description(self, request: web.Request) -> web.Response:
        """What it says of itself."""
        self.asked["description"] += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.away:
            return web.Response(status=self.away)
        said = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
        }
        return web.json_response(said | self.described)

    async def jwks(self, request: web.Request) -> web.Response:
        """Its public keys, and one of a kind that nobody knows."""
        self.asked["keys"] += 1
        listed = self.keys if self.listed is None else self.listed
        shown = [key.as_dict(private=False) for key in listed]
        return web.json_response({"keys": [{"kty": "quantum", "kid": "q"}, *shown]})

    async def authorize(self, request: web.Request) -> web.Response:
        """Sign the person in and send the browser back with a code."""
        asked = dict(request.query)
        assert asked["response_type"] == "code", asked
        assert asked["client_id"] == self.client, asked
        assert asked["code_challenge_method"] == "S256", asked
        assert "openid" in asked["scope"].split(), asked
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        back = urlencode({"code": code, "state": asked["state"], "iss": self.url})
        raise web.HTTPFound(f"{asked['redirect_uri']}?{back}")

    async def token(self, request: web.Request) -> web.Response:
        """A token for a code: once, to this client, with the verifier of the question."""
        self.asked["token"] += 1
        if self.away:
            return web.Response(status=self.away)
        form = await request.post()
        asked = self.codes.pop(str(form.get("code")), None)
        pair = base64.b64encode(f"{self.client}:{self.secret.replace(' ', '+')}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {pair}":
            return web.json_response({"error": "invalid_client"}, status=401)
        if asked is None or form.get("redirect_uri") != asked["redirect_uri"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        digest = hashlib.sha256(str(form.get("code_verifier")).encode()).digest()
        if base64.urlsafe_b64encode(digest).decode().rstrip("=") != asked["code_challenge"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        return web.json_response({"id_token": self._token(asked), "token_type": "Bearer"})

    def _token(self, asked: dict[str, str]) -> str:
        now = int(time.time() + self.skew_s)
        claims: dict[str, Any] = {
            "iss": self.url, "sub": self.subject, "aud": self.client, "iat": now,
            "exp": now + 300, "nonce": asked["nonce"],
        }  # fmt: skip
        claims |= self.claims
        claims = {name: value for name, value in claims.items() if value is not None}
        return self.sign(claims) if self.signed is None else self.signed(claims)

    def sign(self, claims: dict[str, Any], key: RSAKey | ECKey | None = None) -> str:
        """A token as it should be."""
        key = key or self.keys[-1]
        alg = {"RSA": "RS256", "EC": "ES256"}[key.key_type]
        return jwt.encode({"alg": alg, "kid": key.kid}, claims, key)


@asynccontextmanager
async def identity_provider() -> AsyncIterator[IdentityProvider]:
    """One at a free loopback port."""
    provider = IdentityProvider()
    provider.new_key("first")
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", provider.description)
    app.router.add_get("/keys", provider.jwks)
    app.router.add_get("/authorize", provider.authorize)
    app.router.add_post("/token", provider.token)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        provider.url = "http://{}:{}".format(*runner.addresses[0][:2])
        yield provider
    finally:
        await runner.cleanup()
