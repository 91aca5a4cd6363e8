"""The first people of a house are made at its machine, and services that show a certificate.

It knows the command line and TLS on a real socket. It refuses to know the pages.
"""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import asyncpg
import msgspec
import pytest
import pytest_asyncio
import trustme
from click.testing import CliRunner
from redis.asyncio import Redis

from config.rulebook import Rulebook
from config.settings import Http
from gateway.cli import DEMO_FOLDER, cli
from gateway.control import certificates, codes, keys
from gateway.control.audit import Command
from gateway.http.app import build
from gateway.opening import listening
from tests.integration.gateway.conftest import BOOK, PEPPER, SETTINGS, Api, serving
from tests.support.servers import Database

PASSWORD = "correct horse battery"
NAME = "URI:spiffe://house/router"


class Machine:
    """Somebody at the machine of the house."""

    def __init__(self, database: Database) -> None:
        self._environ = {
            "BROKERD_RULEBOOK__FOLDER": str(DEMO_FOLDER),
            "BROKERD_CONTROL__PEPPER": "env:PEPPER",
            "PEPPER": PEPPER.decode(),
            "BROKERD_DATABASE__DSN": "env:DSN",
            "DSN": database.daemon_dsn,
            "BROKERD_SIGN_IN__ISSUERS__CORP__URL": "https://login.example",
            "BROKERD_SIGN_IN__ISSUERS__CORP__CLIENT_ID": "brokerd",
            "BROKERD_SIGN_IN__ISSUERS__CORP__REDIRECT_URL": "https://house.example/sign-in",
        }

    async def does(self, *arguments: str, typed: str = "", status: int = 0) -> str:
        """Run a command; what it printed."""
        done = await asyncio.to_thread(
            CliRunner().invoke, cli, list(arguments), env=self._environ, input=typed
        )
        assert done.exit_code == status, done.output
        return done.output


@pytest.fixture(autouse=True)
def in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rulebook of these tests has no source that could be read back from its row."""

    async def book(*_: object) -> Rulebook:
        return BOOK

    monkeypatch.setattr("gateway.cli.rulebook_of", book)


@pytest_asyncio.fixture
async def api(database: Database, pool: asyncpg.Pool, redis: Redis) -> AsyncIterator[Api]:
    """The API, where TLS may end and one proxy is believed."""
    settings = msgspec.structs.replace(
        SETTINGS, http=Http(proxies=("127.0.0.1",), certificate_header="X-Client")
    )
    async with serving(database, pool, redis, settings=settings) as serves:
        yield serves


async def test_the_first_person_is_made_at_the_machine_and_signs_in(
    api: Api, database: Database
) -> None:
    """A role, a password, a device: with these three a person is let in."""
    machine = Machine(database)
    await machine.does("people", "add", "ann", "--role", "reader")
    await machine.does("people", "password", "ann", typed=PASSWORD + "\n")
    printed = await machine.does("people", "totp", "ann")
    found = re.search(r"secret=(\w+)", printed)
    assert found is not None
    code = codes.code_at(base64.b32decode(found[1]), int(time.time()) // codes.STEP_S)
    body = {"person": "ann", "password": PASSWORD, "code": code}
    answer = await api.client.post("/v1/sign-ins", json=body)
    assert answer.status == 201, await answer.text()
    assert (await api.client.get("/v1/clients")).status == 200
    assert (await api.client.get("/v1/partners")).status == 403

    await machine.does("people", "identity", "ann", "--issuer", "corp", "--subject", "00u1")
    listed = await machine.does("people", "list")
    assert listed.splitlines()[1].split("\t")[0] == "ann"
    assert "corp 00u1" in listed
    await machine.does(
        "people", "identity", "ann", "--issuer", "corp", "--subject", "00u1", "--remove"
    )
    assert "corp 00u1" not in await machine.does("people", "list")
    rows = await api.rows("SELECT command, subject FROM gateway.audit WHERE subject = 'ann'")
    assert sorted(row["command"] for row in rows) == [
        "person.add", "person.device", "person.identity", "person.identity", "person.password",
    ]  # fmt: skip


async def test_a_person_is_given_nothing_that_cannot_be(api: Api, database: Database) -> None:
    """No such role, a short password, an identity provider nobody set up: refused in one line."""
    machine = Machine(database)
    said = await machine.does("people", "add", "ann", "--role", "nobody", status=1)
    assert "role-unknown" in said
    said = await machine.does("people", "password", "ann", typed="short\n", status=1)
    assert "password-weak" in said
    said = await machine.does(
        "people", "identity", "ann", "--issuer", "else", "--subject", "x", status=2
    )
    assert "there is no [sign_in.issuers.else]" in said
    assert await api.rows("SELECT 1 FROM gateway.password") == []


async def called(api: Api, **headers: str) -> int:
    """The status of a read over the plain socket."""
    return (await api.client.get("/v1/clients", headers=headers)).status


async def test_a_proxy_that_is_believed_names_the_holder_of_a_certificate(
    api: Api, database: Database, pool: asyncpg.Pool, redis: Redis
) -> None:
    """A name it was given for, until it is taken back; anybody else's word is worth nothing."""
    machine = Machine(database)
    assert await called(api, **{"X-Client": NAME}) == 401
    printed = await machine.does(
        "keys", "certificate", "router", "--name", NAME, "--role", "reader", "--reason", "new"
    )
    (id,) = re.findall(r"CE\w{18}", printed)
    api.clock.skew_s += 4
    assert await called(api, **{"X-Client": f"DNS:other, {NAME}"}) == 200
    assert await called(api, **{"X-Client": "URI:spiffe://house/other"}) == 401
    assert await called(api, **{"X-Client": NAME, "Authorization": "Bearer nonsense"}) == 401
    assert NAME in await machine.does("keys", "certificates")
    taken = ("keys", "certificate", "else", "--name", NAME, "--role", "reader")
    assert "name-taken" in await machine.does(*taken, status=1)

    async with serving(database, pool, redis) as trusts_nobody:
        assert await called(trusts_nobody, **{"X-Client": NAME}) == 401

    await machine.does("keys", "revoke", id, "--reason", "gone")
    api.clock.skew_s += 4
    assert await called(api, **{"X-Client": NAME}) == 401


@pytest.mark.parametrize("known", [True, False])
async def test_a_service_calls_with_its_certificate_where_tls_ends_here(
    database: Database, pool: asyncpg.Pool, redis: Redis, tmp_path: Path, known: bool
) -> None:
    """The handshake proves the holder; one of an authority that is not trusted gets no answer."""
    ours, others = trustme.CA(), trustme.CA()
    server = ours.issue_cert("127.0.0.1")
    server.private_key_pem.write_to_path(tmp_path / "key")
    server.cert_chain_pems[0].write_to_path(tmp_path / "cert")
    ours.cert_pem.write_to_path(tmp_path / "ca")
    http = Http(
        port=0, certificate=str(tmp_path / "cert"), certificate_key=str(tmp_path / "key"),
        client_ca=str(tmp_path / "ca"),
    )  # fmt: skip
    settings = msgspec.structs.replace(SETTINGS, http=http)
    context = ssl.create_default_context(cafile=tmp_path / "ca")
    (ours if known else others).issue_cert("router.house").configure_cert(context)
    async with AsyncExitStack() as opened:
        api = await opened.enter_async_context(serving(database, pool, redis))
        by = Command(keys.operator("root"), "test", "test", api.clock.now())
        wish, access = keys.NewKey("router", "reader"), api.parts.rules.now.access
        async with pool.acquire() as conn, conn.transaction():
            await certificates.add(conn, by, api.parts.ids, access, wish, "DNS:router.house")
        address = await opened.enter_async_context(listening(build(api.parts), settings))
        assert address.startswith("https://")
        assert await status_of(address, ssl.create_default_context(cafile=tmp_path / "ca")) == 401
        if known:
            assert await status_of(address, context) == 200
        else:
            with pytest.raises((aiohttp.ClientError, OSError)):
                await status_of(address, context)


async def status_of(address: str, context: ssl.SSLContext) -> int:
    """The status of a read over a connection of its own."""
    async with aiohttp.ClientSession() as client:
        answer = await client.get(f"{address}/v1/clients", ssl=context)
        return answer.status
