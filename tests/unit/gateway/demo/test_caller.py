"""The calling system's ear: what it believes, what it keeps, what it notices."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio
import standardwebhooks

from gateway.demo.caller import Ear

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()


def event(no: int, aggregate: str = "PY1") -> bytes:
    """The body of one event."""
    body = {"no": no, "id": f"ev_{no}", "type": "payment.approved", "data": {"id": aggregate}}
    return msgspec.json.encode(body)


class Teller:
    """Posts signed webhooks to an ear."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url

    async def tell(self, raw: bytes, *, secret: str = SECRET, age_s: int = 0) -> int:
        """One delivery, signed by the public library; returns the status of the answer."""
        at = datetime.now(UTC) - timedelta(seconds=age_s)
        name = f"ev_{msgspec.json.decode(raw)['no']}"
        headers = {
            "webhook-id": name, "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": standardwebhooks.Webhook(secret).sign(name, at, raw.decode()),
        }  # fmt: skip
        async with self._http.post(self._url, data=raw, headers=headers) as answer:
            return answer.status


@pytest_asyncio.fixture
async def ear(tmp_path: Path) -> Ear:
    """An ear with an empty journal."""
    made = Ear(tmp_path / "journal", lambda: datetime.now(UTC), lambda _: False)
    made.secret = SECRET
    return made


@pytest_asyncio.fixture
async def teller(ear: Ear) -> AsyncIterator[Teller]:
    """Somebody who tells it things."""
    async with ear.listening() as url, aiohttp.ClientSession() as http:
        yield Teller(http, url)


async def test_a_signed_event_is_heard_once(ear: Ear, teller: Teller) -> None:
    """An event is kept the first time and only counted when it comes again."""
    assert [await teller.tell(event(1)) for _ in range(2)] == [204, 204]
    assert (list(ear.told), ear.repeated) == (["ev_1"], 1)


@pytest.mark.parametrize(
    "how",
    [{"secret": "whsec_" + base64.b64encode(b"x" * 32).decode()}, {"age_s": 400}, {"age_s": -400}],
)
async def test_what_is_not_signed_now_by_the_broker_is_refused(
    ear: Ear, teller: Teller, how: dict[str, Any]
) -> None:
    """Another secret, an old stamp or one from the future: 401, and nothing is kept."""
    assert await teller.tell(event(1), **how) == 401
    assert (ear.told, ear.forged) == ({}, 1)


async def test_disorder_within_one_object_is_noticed(ear: Ear, teller: Teller) -> None:
    """A smaller number after a larger one of the same object is disorder; of another it is not."""
    for raw in (event(2), event(1, "PY2"), event(4), event(3)):
        await teller.tell(raw)
    assert ear.disordered == ["ev_3"]


async def test_the_next_life_remembers(ear: Ear, teller: Teller, tmp_path: Path) -> None:
    """What was heard is in the journal; a line cut by a crash is not."""
    await teller.tell(event(1))
    with (tmp_path / "journal").open("ab") as journal:
        journal.write(b'{"id": "ev_2"')
    again = Ear(tmp_path / "journal", lambda: datetime.now(UTC), lambda _: False)
    async with again.listening():
        assert list(again.told) == ["ev_1"]


async def test_a_caller_that_is_away_hears_it_later(tmp_path: Path) -> None:
    """A delivery that is refused leaves nothing behind, so that the next one is the first."""
    ear = Ear(tmp_path / "journal", lambda: datetime.now(UTC), lambda number: number == 1)
    ear.secret = SECRET
    async with ear.listening() as url, aiohttp.ClientSession() as http:
        teller = Teller(http, url)
        assert [await teller.tell(event(1)) for _ in range(2)] == [503, 204]
    assert (list(ear.told), ear.repeated) == (["ev_1"], 0)
