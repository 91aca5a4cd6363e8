"""The entrance: who is calling, by whichever credential a request shows.

Knows the order in which credentials count: an API key, a session's cookie, a certificate. Refuses
to know what a caller may do, and what partners show who visit their page (`serving.py` asks).
"""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from gateway.control.access import Caller
from gateway.control.certificates import Certificates
from gateway.control.refusals import Refusal
from gateway.control.sign_ins import SignIns
from gateway.control.signing_in import SigningIn
from gateway.http.auth import Keys
from gateway.http.cookies import SESSION, surely_from_here
from gateway.http.origins import Origins


@dataclass(frozen=True, slots=True)
class Entrance:
    """All ways in."""

    keys: Keys
    sign_ins: SignIns
    signing_in: SigningIn
    certificates: Certificates
    origins: Origins

    async def caller(self, request: web.Request, *, reads: bool) -> Caller:
        """Who is calling; raises Refusal `unauthenticated`.

        Whatever changes something in a session must come from a page of ours: `forbidden`.
        """
        header = request.headers.get("Authorization")
        if header is not None:
            return await self.keys.caller(header)
        if secret := SESSION.read(request):
            if not reads and not surely_from_here(request):
                raise Refusal("forbidden", "in a session only a page of ours can change anything")
            return await self.sign_ins.caller(secret)
        if names := self.origins.names(request):
            return await self.certificates.caller(names)
        return await self.keys.caller(None)
