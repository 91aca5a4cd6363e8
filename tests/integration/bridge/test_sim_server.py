"""The simulated platform as others meet it: a process, an admin port, proofs on connections."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from bridge.faults import AnswerLost, always
from bridge.mt5 import auth, http
from bridge.mt5.https import PinnedConnection
from bridge.pool import Pool
from bridge.session import tls_context
from bridge.sim.certificate import Certificate
from bridge.sim.mt5 import main
from bridge.sim.platform import AUTH_LIMIT_S
from tests.integration.bridge.conftest import (
    EUR,
    MANAGER,
    PASSWORD,
    Field,
    eventually,
    kept_alive,
)


@asynccontextmanager
async def connection(field: Field) -> AsyncIterator[PinnedConnection]:
    """A bare connection that has proved nothing."""
    link = PinnedConnection(
        field.url,
        tls_context(field.server()),
        idle_s=60,
        dial_timeout_s=5,
        call_timeout_s=5,
        answer_bytes_max=1_000_000,
    )
    try:
        yield link
    finally:
        await link.close()


async def send(link: PinnedConnection, request: http.Request) -> tuple[int, dict[str, Any]]:
    """One request; its status and its JSON."""
    status, body = await link.exchange(request.method, request.target, request.content, always)
    return status, json.loads(body) if body else {}


async def challenge(link: PinnedConnection) -> bytes:
    """Ask for a challenge; returns our proof."""
    _, start = await send(link, http.auth_start(MANAGER))
    return auth.challenge_answer(auth.password_hash(PASSWORD), bytes.fromhex(start["srv_rand"]))


async def test_authentication_belongs_to_its_connection(field: Field) -> None:
    """What one connection proved opens nothing for another."""
    async with connection(field) as one, connection(field) as other:
        proof = await challenge(one)
        status, _ = await send(one, http.auth_answer(proof, bytes(16)))
        assert status == 200
        assert (await send(one, http.test_access()))[0] == 200
        assert (await send(other, http.test_access()))[0] == 403


async def test_an_answer_after_ten_seconds_is_too_late(field: Field) -> None:
    """A challenge is good for ten seconds."""
    async with connection(field) as link:
        proof = await challenge(link)
        [known] = field.platform._connections.values()
        known.challenged_at -= AUTH_LIMIT_S + 0.1
        assert (await send(link, http.auth_answer(proof, bytes(16))))[0] == 403


async def test_a_challenge_is_answered_once(field: Field) -> None:
    """A wrong answer uses the challenge up."""
    async with connection(field) as link:
        proof = await challenge(link)
        assert (await send(link, http.auth_answer(bytes(16), bytes(16))))[0] == 403
        assert (await send(link, http.auth_answer(proof, bytes(16))))[0] == 403


async def test_a_spent_connection_is_never_dialled_again(field: Field) -> None:
    """When its connection is gone a pinned connection sends nothing more."""
    async with connection(field) as link:
        await challenge(link)
        field.platform.cut()
        await asyncio.wait_for(link.gone.wait(), 10)
        with pytest.raises(Exception, match="session"):
            await send(link, http.test_access())


async def test_an_answer_beyond_the_limit_is_lost(field: Field) -> None:
    """An answer that does not end is not read for ever."""
    async with connection(field) as link:
        link._answer_bytes_max = 10
        with pytest.raises(AnswerLost):
            await send(link, http.auth_start(MANAGER))


async def test_every_scalar_of_an_answer_is_a_string(field: Field, pool: Pool, opened: int) -> None:
    """As on the real wire, numbers and money travel as JSON strings."""
    for request in (http.user_get(opened), http.account_get(opened), http.group_get(EUR.group)):
        answer = await pool.call(request)
        assert isinstance(answer.answer, dict)
        assert all(isinstance(value, str) for value in answer.answer.values())


async def test_an_unknown_command_is_a_business_error(pool: Pool) -> None:
    """Errors are HTTP 200 with a code."""
    answer = await pool.call(http.Request(command="no/such"))
    assert (answer.code, answer.ok) == (12002, False)


async def test_a_balance_given_to_an_update_is_ignored(
    field: Field, pool: Pool, opened: int
) -> None:
    """Money moves by balance operations alone, and a group of another currency is refused."""
    assert (await pool.call(http.user_update(opened, {"balance": "100", "rights": 1}))).ok
    assert field.platform.books.balance(opened) == 0
    assert field.users[0].rights == 1
    moved = await pool.call(http.user_update(opened, {"group": r"real\INT\raw-USD"}))
    assert moved.code == 3010


async def test_logins_are_listed_by_mask(field: Field, pool: Pool, opened: int) -> None:
    """A mask covers groups by `*`, and `!` takes groups away."""
    assert (await pool.call(http.user_logins(r"real\EU\*"))).answer == [str(opened)]
    assert (await pool.call(http.user_logins(r"real\*,!real\EU\*"))).answer == []


async def test_the_admin_port_scripts_faults_and_shows_the_books(
    field: Field, pool: Pool, opened: int
) -> None:
    """Faults, groups, margin and cuts are told over plain HTTP; the books are read there."""
    async with aiohttp.ClientSession(field.admin_url) as admin:
        fault = {"command": "user/get", "action": "retcode_before", "code": 11}
        async with admin.post("/faults", json=[fault, fault]) as answer:
            assert len(await answer.json()) == 2
        assert (await pool.call(http.user_get(opened))).code == 11
        async with admin.delete("/faults") as answer:
            assert await answer.json() == []
        assert (await pool.call(http.user_get(opened))).ok
        async with admin.post(
            "/margin", json={"type": "margin", "login": opened, "minor": 5}
        ) as no:
            assert no.status == 204
        group = {"type": "group", "group": "g2", "currency": "USD"}
        async with admin.post("/groups", json=[group]) as answer:
            assert answer.status == 200
        async with admin.get("/books") as answer:
            books = await answer.json()
        assert books["accounts"][0]["login"] == opened
        assert books["received"]["user/get"] == 2
        async with admin.post("/cut") as answer:
            assert await answer.json() == {"connections": 1}


@pytest.mark.parametrize("body", ["{", "{}", '{"command":"x","action":"explode"}', '{"no":1}'])
async def test_a_fault_that_makes_no_sense_is_refused(field: Field, body: str) -> None:
    """A typing error in a story is told, not ignored."""
    async with (
        aiohttp.ClientSession(field.admin_url) as admin,
        admin.post("/faults", data=body) as answer,
    ):
        assert answer.status == 400


@asynccontextmanager
async def process(
    folder: Path, groups: Path, *more: str
) -> AsyncIterator[tuple[Any, dict[str, Any]]]:
    """The simulator as its own process, with the line it prints once it listens."""
    code = "from bridge.sim.mt5 import main; main()"
    arguments = [
        *("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--groups", str(groups)),
        *("--state", str(folder / "journal"), "--manager", str(MANAGER)),
        *("--password-file", str(folder / "password")),
        *more,
    ]
    made = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert made.stdout is not None
    try:
        yield made, json.loads(await asyncio.wait_for(made.stdout.readline(), 30))
    finally:
        if made.returncode is None:
            made.kill()
        await made.wait()


async def test_the_books_survive_the_death_of_the_process(
    tmp_path: Path, certificate: Certificate
) -> None:
    """A killed simulator has its accounts again when it is started; SIGTERM ends it in order."""
    field = Field(tmp_path, certificate)
    groups = tmp_path / "groups.json"
    groups.write_bytes(msgspec.json.encode([EUR]))
    async with process(tmp_path, groups) as (made, started):
        field.url = started["listening"]
        server = {"ca_file": str(tmp_path / "authority.pem")}
        async with kept_alive(field.new_pool(**server)) as pool:
            user = http.wire.User(
                login=100_001, group=EUR.group, rights=355, leverage=30, name="n", id="", comment=""
            )
            assert (await pool.call(http.user_add(user, "Qw-er7tyui", "Qw-er7tyui"))).ok
        made.send_signal(signal.SIGKILL)
        await made.wait()
    async with process(tmp_path, groups) as (made, started):
        async with (
            aiohttp.ClientSession(started["admin"]) as admin,
            admin.get("/books") as answer,
        ):
            assert [account["login"] for account in (await answer.json())["accounts"]] == [100_001]
        made.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(made.wait(), 20) == 0


async def test_the_command_line_can_ask_for_deals(tmp_path: Path, certificate: Certificate) -> None:
    """A server may deal from its start; it waits for its first account."""
    Field(tmp_path, certificate)
    groups = tmp_path / "groups.json"
    groups.write_bytes(msgspec.json.encode([EUR]))
    options = ("--deals-per-s", "50", "--deals-seed", "7", "--deals-symbols", "EURUSD,US500")
    async with (
        process(tmp_path, groups, *options, "--deals-edits", "0.5") as (_, started),
        aiohttp.ClientSession(started["admin"]) as admin,
        admin.get("/deals") as answer,
    ):
        state = await answer.json()
    assert (state["running"], state["last"]) == (True, 100_000)
    asked = {name: state["terms"][name] for name in ("seed", "per_s", "symbols", "edits")}
    assert asked == {"seed": 7, "per_s": 50.0, "symbols": ["EURUSD", "US500"], "edits": 0.5}


def test_a_share_that_is_none_is_refused(tmp_path: Path) -> None:
    """The command line says what is wrong with the terms of dealing."""
    needed = ["--state", str(tmp_path / "x"), "--manager", "1", "--password-file", "x"]
    with pytest.raises(SystemExit):
        main([*needed, "--deals-per-s", "5", "--deals-late", "2"])


def test_the_command_line_says_what_is_missing() -> None:
    """Without a manager and a journal the simulator does not start."""
    with pytest.raises(SystemExit):
        main(["--listen", "127.0.0.1:0"])


async def test_a_session_lives_through_a_restart_of_the_platform(field: Field) -> None:
    """When the platform comes back the session does as well."""
    async with kept_alive(field.new_pool()) as pool:
        await eventually(lambda: "live" in field.observer.states)
        await field.stop()
        await eventually(lambda: "backing_off" in field.observer.states)
        await field.start()
        await eventually(lambda: field.observer.states.count("live") == 2)
        assert (await pool.call(http.test_access())).ok
