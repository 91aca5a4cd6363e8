"""A manager session over real TLS: proved, pinned to one connection, honest when lost."""

from __future__ import annotations

import asyncio
import ssl
import time
from datetime import UTC, datetime, timedelta
from random import SystemRandom

import pytest

from bridge.faults import AnswerLost, NothingSent
from bridge.mt5 import http
from bridge.mt5.map import User
from bridge.pool import Pool
from bridge.session import SessionState, SessionStatus
from config.secret import Secret
from tests.integration.bridge.conftest import (
    EUR,
    STARTED,
    Field,
    eventually,
    kept_alive,
    now,
)


def states(field: Field) -> list[str]:
    """What the session went through."""
    return [state.value for state in field.observer.states]


async def refused(field: Field, **changes: object) -> SessionStatus:
    """The status of a pool whose dials fail."""
    async with kept_alive(field.new_pool(**changes)) as pool:
        await eventually(lambda: pool.status().retries > 0)
        return pool.status()


async def test_a_session_goes_live_once_each_side_has_proved_itself(pool: Pool) -> None:
    """Right password, right certificate: one dial and the session is live."""
    status = pool.status()
    assert (status.state, status.retries, status.last_error) == (SessionState.LIVE, 0, "")


async def test_a_wrong_password_opens_no_session(field: Field) -> None:
    """A hash that does not prove the password is turned away, and the status says why."""
    status = await refused(field, password=Secret("Password2"))
    assert status.last_error.startswith("authentication: auth/answer")
    assert SessionState.LIVE not in field.observer.states


async def test_an_unknown_manager_opens_no_session(field: Field) -> None:
    """The platform's own code for a refused login is in the status."""
    assert "1001 Invalid account" in (await refused(field, login=1)).last_error


async def test_a_server_with_another_certificate_is_not_spoken_to(field: Field) -> None:
    """Only the pinned authority is believed: nothing is sent to a stranger."""
    status = await refused(field, ca_file=ssl.get_default_verify_paths().cafile or "")
    assert "Certificate" in status.last_error
    assert not field.platform.received


async def test_a_server_that_does_not_know_the_password_is_a_fake(field: Field) -> None:
    """The server must answer our challenge as well, else the session is not opened."""
    genuine = field.platform._authenticate

    def fake(connection, params):
        return genuine(connection, dict(params) | {"cli_rand": "00" * 16})

    field.platform._authenticate = fake
    assert "does not know the password" in (await refused(field)).last_error


async def test_nobody_listening_is_a_dial_that_failed(field: Field) -> None:
    """A refused connection is counted and tried again, never an exception of the pool."""
    await field.stop()
    status = await refused(field)
    assert status.last_error.startswith("dial")


async def test_a_call_without_a_session_sends_nothing(field: Field) -> None:
    """While no session is live a call ends in NothingSent within its limit."""
    pool = field.new_pool(dial_timeout_s=0.05)
    with pytest.raises(NothingSent, match="session"):
        await pool.call(http.test_access())


async def test_the_servers_offset_is_measured_by_its_clock(field: Field, tmp_path) -> None:
    """In winter the server is two hours ahead of UTC, and that is measured, not configured."""
    await field.stop()
    await field.start(clock=lambda: datetime(2026, 1, 15, 12, 0, 3, tzinfo=UTC))
    pool = Pool(field.server(), lambda: STARTED, time.monotonic, SystemRandom(), field.observer)
    async with kept_alive(pool):
        await eventually(lambda: pool.status().state is SessionState.LIVE)
        assert (pool.status().offset_s, pool.status().clock_error_s) == (7200, 3)


async def test_a_cut_connection_is_noticed_and_replaced(field: Field, pool: Pool) -> None:
    """The end of the connection is known at once and a new session is proved."""
    field.platform.cut()
    await eventually(lambda: states(field).count("live") == 2)
    assert (await pool.call(http.test_access())).ok


async def test_an_expired_session_is_replaced_and_a_read_asked_again(
    field: Field, pool: Pool, opened: int
) -> None:
    """A 403 that means an ended session costs a read one new session, and nothing else."""
    field.script("user/get", "expire")
    assert (await pool.call(http.user_get(opened))).ok
    await eventually(lambda: states(field).count("live") == 2)


async def test_a_read_is_asked_once_more_after_a_lost_answer(
    field: Field, pool: Pool, opened: int
) -> None:
    """Only a second loss of a read reaches the caller."""
    field.script("user/get", "drop_after")
    assert (await pool.call(http.user_get(opened))).ok
    field.script("user/get", "drop_after", times=2)
    with pytest.raises(AnswerLost):
        await pool.call(http.user_get(opened))


async def test_a_write_is_never_repeated_by_the_pool(field: Field, pool: Pool) -> None:
    """After a lost answer a write arrived once and the caller is told."""
    field.script("user/add", "drop_after")
    user = User(login=100_001, group=EUR.group, rights=1, leverage=1, name="n", id="", comment="")
    with pytest.raises(AnswerLost):
        await pool.call(http.user_add(user, "Pass-word1", "Pass-word2"))
    assert field.platform.received["user/add"] == 1


async def test_a_call_on_a_connection_that_ended_unnoticed_goes_to_the_next(
    field: Field, pool: Pool, opened: int
) -> None:
    """What met a dead connection before its first byte is sent on a new session instead."""
    for _ in range(5):
        field.platform.cut()
        assert (await pool.call(http.user_get(opened))).ok


async def test_one_connection_serves_all_callers_in_turn(
    field: Field, pool: Pool, opened: int
) -> None:
    """Many callers at once share the one connection that is authenticated."""
    await asyncio.gather(*(pool.call(http.user_get(opened)) for _ in range(50)))
    assert len(field.platform._connections) == 1
    assert field.platform.received["user/get"] == 50


async def test_pings_keep_an_idle_session(field: Field) -> None:
    """A session that pings more often than the server's idle limit is not closed."""
    await field.stop()
    field.idle_s = 2.0
    await field.start()
    async with kept_alive(field.new_pool(ping_s=0.2)) as pool:
        await eventually(lambda: field.platform.received["test/access"] >= 15, within_s=30)
        assert states(field).count("live") == 1
        assert pool.status().lag_ms is not None


async def test_an_idle_session_without_pings_is_closed_by_the_server(field: Field) -> None:
    """The server ends what is silent beyond its limit, and the session is opened again."""
    await field.stop()
    field.idle_s = 0.3
    await field.start()
    async with kept_alive(field.new_pool(ping_s=100.0)):
        await eventually(lambda: states(field).count("live") >= 2, within_s=30)


async def test_a_fresh_session_is_a_new_connection(field: Field, pool: Pool, opened: int) -> None:
    """Asking for a fresh session ends the old connection; a young enough one is kept."""
    await pool.fresh()
    assert states(field).count("live") == 2
    await pool.fresh(after=now() - timedelta(minutes=1))
    assert states(field).count("live") == 2
    await pool.fresh(after=now())
    assert states(field).count("live") == 3


async def test_a_cancelled_call_leaves_no_half_read_connection(
    field: Field, pool: Pool, opened: int
) -> None:
    """A call given up in the middle takes its connection with it."""
    field.script("user/get", "delay_before", seconds=30.0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await pool.call(http.user_get(opened))
    assert (await pool.call(http.user_get(opened))).ok
    assert states(field).count("live") == 2


async def test_a_balance_is_read_in_minor_units(pool: Pool, opened: int) -> None:
    """The account's money is read exactly; an account that is not there has none."""
    balance = await pool.balance(opened)
    assert balance is not None
    assert (balance.balance_minor, balance.digits) == (0, 2)
    assert await pool.balance(999) is None


async def test_calls_are_counted_by_how_they_ended(field: Field, pool: Pool, opened: int) -> None:
    """The observer hears of every call with its class, and of each change of state."""
    field.script("user/get", "retcode_before", code=11)
    await pool.call(http.user_get(opened))
    await pool.call(http.user_get(opened))
    assert field.observer.calls["user/get", "transient"] == 1
    assert field.observer.calls["user/get", "ok"] == 1
    assert states(field) == ["dialling", "live"]
