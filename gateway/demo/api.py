"""brokerd's API as a calling system uses it.

Knows requests, keys and idempotency keys. Refuses to know what anything means: bodies are decoded
JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import aiohttp
import msgspec

ANSWER_LIMIT_S: Final = 30.0


class Answer(msgspec.Struct, frozen=True):
    """An answer: its status, its headers that matter, and its decoded body."""

    status: int
    body: Any
    raw: bytes
    location: str = ""


class Unexpected(Exception):
    """An answer that the caller has no use for."""


class Api:
    """One caller: an address, a key, and where idempotency keys come from.

    new_key  makes an idempotency key, another one each time
    """

    def __init__(
        self, http: aiohttp.ClientSession, url: str, token: str, new_key: Callable[[], str]
    ) -> None:
        self._http = http
        self._token = token
        self._new_key = new_key
        self.url = url

    async def get(self, path: str) -> Any:
        """Read something. Raises Unexpected unless it is there."""
        answer = await self.send("GET", path)
        return self._wanted(answer, path, {200})

    async def post(self, path: str, body: object) -> Any:
        """Ask for something new. Raises Unexpected when it is refused."""
        answer = await self.send("POST", path, body)
        return self._wanted(answer, path, {200, 201, 202})

    async def put(self, path: str, body: object) -> Any:
        """Set something. Raises Unexpected when it is refused."""
        return self._wanted(await self.send("PUT", path, body), path, {200})

    def _wanted(self, answer: Answer, path: str, statuses: set[int]) -> Any:
        if answer.status not in statuses:
            raise Unexpected(f"{path}: {answer.status} {answer.raw.decode()[:500]}")
        return answer.body

    async def send(
        self, method: str, path: str, body: object = None, *, key: str = "", raw: bytes = b""
    ) -> Answer:
        """One request; the idempotency key is a new one unless it is given.

        Raises aiohttp.ClientError and TimeoutError: then nothing is known.
        """
        headers = {"Authorization": f"Bearer {self._token}"}
        if method == "POST":
            headers["Idempotency-Key"] = key or self._new_key()
        data = raw or (msgspec.json.encode(body) if body is not None else None)
        if data is not None:
            headers["Content-Type"] = "application/json"
        limit = aiohttp.ClientTimeout(total=ANSWER_LIMIT_S)
        async with self._http.request(
            method, self.url + path, data=data, headers=headers, timeout=limit
        ) as answer:
            read = await answer.read()
            told = answer.content_type.endswith("json") and read
            location = answer.headers.get("Location", "")
            return Answer(
                answer.status, msgspec.json.decode(read) if told else None, read, location
            )
