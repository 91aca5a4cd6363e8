"""People sign in, act in their sessions, and are out when somebody says so.

It knows passwords, devices, an identity provider on a socket, and cookies. It refuses to know what
the routes do that a session reaches.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
import asyncpg
import msgspec
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from yarl import URL

from config.settings import IssuerPlace, Secret, SignIn
from gateway.control import audit, codes, keys, staff
from gateway.control.audit import Command
from gateway.control.codes import Safe
from gateway.control.grants import Grant, given, person_known
from gateway.control.passwords import Passwords
from tests.integration.gateway.conftest import PEPPER, SETTINGS, Api, serving
from tests.support.issuer import CLIENT, SECRET, IdentityProvider, identity_provider
from tests.support.servers import Database

PASSWORD = "correct horse battery"
HERE = {"Sec-Fetch-Site": "same-origin"}


@dataclass
class House:
    """The API, an identity provider, and people with proofs."""

    api: Api
    peer: IdentityProvider
    staff: staff.Staff
    devices: dict[str, bytes] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)

    @property
    def by(self) -> Command:
        """Whoever sits at the machine."""
        return Command(keys.operator("root"), "test", "test", self.api.clock.now())

    async def person(self, name: str, *roles: str, proofs: bool = True) -> None:
        """Somebody with these roles, and a password and a device."""
        async with self.api.pool.acquire() as conn:
            for role in roles:
                await self.grant(name, role)
            if proofs:
                await self.staff.password(conn, self.by, name, PASSWORD)
                address = await self.staff.device(conn, self.by, name)
                secret = re.search(r"secret=(\w+)", address)
                assert secret is not None
                self.devices[name] = base64.b32decode(secret[1])

    async def grant(self, name: str, role: str, **fields: Any) -> str:
        """Another role for somebody."""
        now = datetime.now(UTC)  # as the server sees it: its clock says whether a grant is in force
        grant = Grant(
            id=self.api.parts.ids.new("GR"), person=name, role=role, valid_from=now, created=now,
            created_by="root", **fields,
        )  # fmt: skip
        async with self.api.pool.acquire() as conn, conn.transaction():
            await audit.write(conn, [person_known(name, "human", now, "root"), given(grant)])
        return grant.id

    def code(self, name: str) -> str:
        """What the device shows; each time that of another step, as people wait for the next."""
        step = max(codes.step_of(self.api.clock.now()), self.used.get(name, 0) + 1)
        self.used[name] = step
        return codes.code_at(self.devices[name], step)

    async def enter(
        self, name: str = "ann", *, password: str = PASSWORD, code: str = "", **headers: str
    ) -> aiohttp.ClientResponse:
        """Sign in by name, password and code, as a program does."""
        body = {"person": name, "password": password, "code": code or self.code(name)}
        self.api.client.session.cookie_jar.clear()
        return await self.api.client.post("/v1/sign-ins", json=body, headers=headers)

    async def cookie(self, name: str = "ann") -> dict[str, str]:
        """The headers of a page in a session of this person."""
        answer = await self.enter(name)
        assert answer.status == 201, await answer.text()
        secret = answer.cookies["brokerd_session"].value
        self.api.client.session.cookie_jar.clear()
        return {"Cookie": f"brokerd_session={secret}"}

    async def get(self, path: str, headers: dict[str, str]) -> int:
        """The status of a read in a session."""
        return (await self.api.client.get(path, headers=headers)).status


@pytest_asyncio.fixture
async def house(database: Database, pool: asyncpg.Pool, redis: Redis) -> AsyncIterator[House]:
    """Ann may do everything, and has a password and a device."""
    async with identity_provider() as peer:
        place = IssuerPlace(
            url=peer.url, client_id=CLIENT, client_secret=Secret(SECRET),
            redirect_url="http://127.0.0.1/sign-in/corp/callback",
        )  # fmt: skip
        settings = msgspec.structs.replace(SETTINGS, sign_in=SignIn(issuers={"corp": place}))
        async with serving(database, pool, redis, settings=settings) as api:
            ids = api.parts.ids
            made = staff.Staff(Passwords(os.urandom), Safe(PEPPER, os.urandom), ids)
            house = House(api, peer, made)
            await house.person("ann", "everything")
            yield house


async def test_a_person_signs_in_acts_and_leaves(house: House) -> None:
    """The cookie is the session: it opens what the person's roles open, until they leave."""
    answer = await house.enter()
    assert answer.status == 201
    shown = await answer.json()
    assert (shown["person"], shown["method"]) == ("ann", "password")
    cookie = answer.cookies["brokerd_session"]
    assert cookie["httponly"] is True
    assert cookie["samesite"] == "Lax"
    assert answer.headers["Cache-Control"] == "no-store"
    session = {"Cookie": f"brokerd_session={cookie.value}"}
    house.api.client.session.cookie_jar.clear()

    body = {"reference": "c-1", "brand": "northgate", "country": "DE", "currency": "EUR"}
    sent = {**session, **HERE, "Idempotency-Key": "k-1"}
    made = await house.api.client.post("/v1/clients", json=body, headers=sent)
    assert made.status == 201, await made.text()
    row = (await house.api.rows("SELECT * FROM gateway.audit WHERE command = 'client.create'"))[0]
    assert (row["actor"], row["role"], row["key_id"]) == ("ann", "everything", "")
    assert row["session"] == shown["id"]
    assert row["grant_id"].startswith("GR")

    left = await house.api.client.post(
        "/sign-out", headers={**session, **HERE}, allow_redirects=False
    )
    assert (left.status, left.headers["Location"]) == (303, "/sign-in")
    assert left.cookies["brokerd_session"]["max-age"] == "0"
    assert await house.get("/v1/clients", session) == 401
    said = await house.api.rows("SELECT command, subject FROM gateway.audit ORDER BY id")
    trail = [row["command"] for row in said if row["subject"] == shown["id"]]
    assert trail == ["sign-in.open", "sign-in.leave"]


async def test_no_secret_stands_in_a_table(house: House) -> None:
    """Neither the password nor the device's secret nor the session's is there to be read."""
    session = await house.cookie()
    texts = []
    for table in ("password", "device", "sign_in", "audit"):
        texts += [str(dict(row)) for row in await house.api.rows(f"SELECT * FROM gateway.{table}")]
    everything = "\n".join(texts)
    secret = session["Cookie"].partition("=")[2]
    for hidden in (PASSWORD, secret, str(bytes.fromhex(secret)), str(house.devices["ann"])):
        assert hidden not in everything


WRONG = {
    "the wrong password": {"password": "wrong horse battery"},
    "the wrong code": {"code": "000000"},
    "another person": {"name": "bob", "code": "000000"},
    "what is no name": {"name": "Ann; DROP", "code": "000000"},
}  # fmt: skip


async def test_every_wrong_proof_sounds_the_same(house: House) -> None:
    """Nobody learns which part was wrong, or whether there is such a person."""
    said = set()
    for wish in WRONG.values():
        answer = await house.enter(**wish)  # type: ignore[arg-type]
        body = await answer.json()
        said.add((answer.status, body["code"], body["detail"]))
        assert not answer.cookies
    assert said == {(401, "sign-in-failed", "name, password or code is wrong")}
    refused = await house.api.rows("SELECT * FROM gateway.audit WHERE command = 'sign-in.refuse'")
    assert [row["subject"] for row in refused] == ["ann", "ann"], "what strangers type is not kept"


async def test_a_code_works_once(house: House) -> None:
    """The same code again, even at the same moment, lets nobody else in."""
    code = house.code("ann")
    answers = await asyncio.gather(*[house.enter(code=code) for _ in range(3)])
    assert sorted(answer.status for answer in answers) == [201, 401, 401]
    assert (await house.enter(code=code)).status == 401


async def test_a_person_without_a_device_is_not_let_in(house: House) -> None:
    """A password alone is half a proof."""
    async with house.api.pool.acquire() as conn:
        await house.staff.password(conn, house.by, "bob", PASSWORD)
    assert (await house.enter("bob", code="123456")).status == 401


async def test_tries_by_one_name_are_few(house: House) -> None:
    """After five tries the name waits, whatever is shown; others do not."""
    await house.person("bob", "reader")
    for _ in range(5):
        assert (await house.enter(code="000000")).status == 401
    full = await house.enter()
    assert full.status == 429
    assert int(full.headers["Retry-After"]) >= 1
    assert (await house.enter("bob")).status == 201


async def test_tries_from_one_address_are_few(house: House) -> None:
    """Trying many names takes from the same measure."""
    answers = [await house.enter(f"no name {at}", code="000000") for at in range(50)]
    statuses = [answer.status for answer in answers]
    assert statuses[:40] == [401] * 40
    assert 429 in statuses[40:]


async def test_a_session_ends_when_it_is_not_used_and_at_last_in_any_case(house: House) -> None:
    """Half an hour without a request, or twelve hours of them."""
    idle, busy = await house.cookie(), await house.cookie()
    house.api.clock.skew_s += 29 * 60
    assert await house.get("/v1/clients", busy) == 200
    house.api.clock.skew_s += 2 * 60
    assert await house.get("/v1/clients", idle) == 401
    for _ in range(24):
        assert await house.get("/v1/clients", busy) == 200
        house.api.clock.skew_s += 29 * 60
    assert await house.get("/v1/clients", busy) == 401


async def test_sessions_are_listed_and_ended(house: House) -> None:
    """Whoever may sees who is signed in, since when and from where, and ends a session."""
    await house.person("bob", "reader")
    bob = await house.cookie("bob")
    assert await house.get("/v1/clients", bob) == 200
    answer = await house.api.call("GET", "/v1/sign-ins?person=bob")
    (shown,) = (await answer.json())["data"]
    assert (shown["person"], shown["method"], shown["address"]) == ("bob", "password", "127.0.0.1")

    ended = await house.api.call("DELETE", f"/v1/sign-ins/{shown['id']}", key=None)
    assert await ended.json() == {"id": shown["id"], "person": "bob"}
    assert await house.get("/v1/clients", bob) == 401
    again = await house.api.call("DELETE", f"/v1/sign-ins/{shown['id']}", key=None)
    assert again.status == 404
    assert (await (await house.api.call("GET", "/v1/sign-ins?person=bob")).json())["data"] == []
    (row,) = await house.api.rows("SELECT * FROM gateway.audit WHERE command = 'sign-in.revoke'")
    assert (row["subject"], msgspec.json.decode(row["after"])) == (shown["id"], {"person": "bob"})
    reader = await house.api.key("reader")
    denied = await house.api.call("DELETE", f"/v1/sign-ins/{shown['id']}", key=None, token=reader)
    assert denied.status == 403


async def test_a_session_has_all_the_roles_of_its_person_and_loses_them(house: House) -> None:
    """Grants of now, not of the moment of signing in; over within seconds of their end."""
    await house.person("bob")
    bob = await house.cookie("bob")
    assert await house.get("/v1/clients", bob) == 403
    await house.grant("bob", "reader")
    house.api.clock.skew_s += 4
    assert await house.get("/v1/clients", bob) == 200
    assert await house.get("/v1/partners", bob) == 403
    grant = await house.grant("bob", "looker")
    house.api.clock.skew_s += 4
    assert await house.get("/v1/partners", bob) == 200
    await house.api.rows("UPDATE gateway.access_grant SET revoked = now() WHERE id = $1", grant)
    house.api.clock.skew_s += 4
    assert await house.get("/v1/partners", bob) == 403


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Origin": "https://evil.example"}, False),
        ({}, False),
    ],
)
async def test_only_our_own_pages_change_anything_in_a_session(
    house: House, headers: dict[str, str], passes: bool
) -> None:
    """The cookie alone is not enough for a command, or another page could send it along."""
    session = await house.cookie()
    body = {"reference": "c-1", "brand": "northgate", "country": "DE", "currency": "EUR"}
    sent = {**session, **headers, "Idempotency-Key": "k-1"}
    answer = await house.api.client.post("/v1/clients", json=body, headers=sent)
    assert answer.status == (201 if passes else 403)
    left = await house.api.client.post(
        "/sign-out", headers={**session, **headers}, allow_redirects=False
    )
    assert left.status == (303 if passes else 403)


async def test_another_proof_ends_what_the_old_one_opened(house: House) -> None:
    """A new password or device: the sessions of before are over, and the old proof with them."""
    session = await house.cookie()
    old = house.devices["ann"]
    await house.person("ann")
    house.api.clock.skew_s += 4
    assert await house.get("/v1/clients", session) == 401
    step = codes.step_of(house.api.clock.now())
    assert (await house.enter(code=codes.code_at(old, step))).status == 401
    house.used.clear()
    assert (await house.enter()).status == 201


WAITING = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE wait_event_type = 'Lock' AND datname = current_database()"
)


@pytest.mark.parametrize("proof", ["password", "identity"])
async def test_a_proof_that_is_taken_away_meanwhile_lets_nobody_in(
    house: House, proof: str
) -> None:
    """Whoever is signing in at that moment does not stay in with what they showed."""
    async with house.api.pool.acquire() as conn:
        await house.staff.identity(conn, house.by, "ann", "corp", "00u-ann")
    taking = house.api.owner.transaction()
    await taking.start()
    changed = "password SET hash = '$argon2id$other'"
    if proof == "identity":
        changed = "identity SET removed = now(), removed_by = 'root'"
    await house.api.owner.execute(f"UPDATE gateway.{changed} WHERE person = 'ann'")
    entering = asyncio.create_task(house.enter() if proof == "password" else by_provider(house))
    async with asyncio.timeout(30):
        while not await house.api.owner.fetchval(WAITING):
            await asyncio.sleep(0.01)
    await taking.commit()
    assert (await entering).status == 401
    assert await house.api.rows("SELECT 1 FROM gateway.sign_in") == []


async def by_provider(house: House) -> aiohttp.ClientResponse:
    """Go to the identity provider and come back; the last answer."""
    client = house.api.client
    client.session.cookie_jar.clear()
    asked = await client.get("/sign-in/corp", allow_redirects=False)
    assert asked.status == 303, await asked.text()
    async with aiohttp.ClientSession() as elsewhere:
        there = await elsewhere.get(asked.headers["Location"], allow_redirects=False)
    back = URL(there.headers["Location"])
    return await client.get(back.path_qs, allow_redirects=False)


async def test_a_person_signs_in_by_an_identity_provider(house: House) -> None:
    """Whom the house knows by that provider is let in; nobody else is."""
    stranger = await by_provider(house)
    assert stranger.status == 401
    assert "brokerd_session" not in stranger.cookies
    async with house.api.pool.acquire() as conn:
        await house.staff.identity(conn, house.by, "ann", "corp", "00u-ann")
    back = await by_provider(house)
    assert (back.status, back.headers["Location"]) == (303, "/desk")
    assert back.cookies["brokerd_question"]["max-age"] == "0"
    session = {"Cookie": f"brokerd_session={back.cookies['brokerd_session'].value}"}
    house.api.client.session.cookie_jar.clear()
    assert await house.get("/v1/clients", session) == 200
    (row,) = await house.api.rows("SELECT * FROM gateway.sign_in")
    assert (row["person"], row["method"]) == ("ann", "oidc")

    async with house.api.pool.acquire() as conn:
        await house.staff.forget_identity(conn, house.by, "corp", "00u-ann")
    house.api.clock.skew_s += 4
    assert await house.get("/v1/clients", session) == 401
    assert (await by_provider(house)).status == 401


async def test_an_answer_that_another_browser_asked_for_signs_nobody_in(house: House) -> None:
    """Without the cookie of the question, the provider's answer is worth nothing."""
    async with house.api.pool.acquire() as conn:
        await house.staff.identity(conn, house.by, "ann", "corp", "00u-ann")
    client = house.api.client
    asked = await client.get("/sign-in/corp", allow_redirects=False)
    async with aiohttp.ClientSession() as elsewhere:
        there = await elsewhere.get(asked.headers["Location"], allow_redirects=False)
    client.session.cookie_jar.clear()
    back = await client.get(URL(there.headers["Location"]).path_qs, allow_redirects=False)
    assert back.status == 401
    assert "brokerd_session" not in back.cookies
    assert not await house.api.rows("SELECT 1 FROM gateway.sign_in")
    assert (await client.get("/sign-in/else", allow_redirects=False)).status == 401


async def test_what_was_over_long_ago_is_forgotten(house: House) -> None:
    """Rows of sessions stay for a month, then they go a few at a time."""
    await house.cookie()
    sign_ins = house.api.parts.entrance.sign_ins
    async with house.api.pool.acquire() as conn:
        house.api.clock.skew_s += 30 * 86400
        assert await sign_ins.purge(conn) == 0
        house.api.clock.skew_s += 43200
        assert await sign_ins.purge(conn) == 1
