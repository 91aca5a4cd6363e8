"""The story of a first person: made at the machine, signed in at the daemon, and out again."""

from __future__ import annotations

import asyncio
import base64
import re
import sys
import time

import pytest

from gateway.control import codes
from tests.support.house import House, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

PASSWORD = "correct horse battery"
HERE = {"Sec-Fetch-Site": "same-origin"}


async def brokerd(house: House, *arguments: str, typed: str = "") -> str:
    """What a command at the machine of the house prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.cli", *arguments, "--config", str(house.daemon.settings),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=house.environ,
    )  # fmt: skip
    out, _ = await process.communicate(typed.encode())
    assert process.returncode == 0, arguments
    return out.decode()


async def test_the_first_person_signs_in_sees_the_house_and_leaves(house: House) -> None:
    """The daemon knows at once who was made known beside it, with the roles of its rulebook."""
    client = await house.client()
    await brokerd(house, "people", "add", "sue", "--role", "support", "--entity", "fx-eu")
    await brokerd(house, "people", "password", "sue", typed=PASSWORD + "\n")
    printed = await brokerd(house, "people", "totp", "sue")
    found = re.search(r"secret=(\w+)", printed)
    assert found is not None
    code = codes.code_at(base64.b32decode(found[1]), int(time.time()) // codes.STEP_S)
    url, order = house.daemon.url, {"person": "sue", "password": PASSWORD, "code": code}

    entered = await house.http.post(f"{url}/v1/sign-ins", json=order)
    assert entered.status == 201, await entered.text()
    session = {"Cookie": f"brokerd_session={entered.cookies['brokerd_session'].value}"}
    again = await house.http.post(f"{url}/v1/sign-ins", json=order)
    assert again.status == 401, "a code is good once"

    async def status(path: str) -> int:
        return (await house.http.get(f"{url}{path}", headers=session)).status

    assert await status(f"/v1/clients/{client.id}") == 200
    assert await status("/v1/grants") == 403
    assert await status("/desk/items?state=open") == 200
    left = await house.http.post(f"{url}/sign-out", headers=session | HERE, allow_redirects=False)
    assert left.status == 303

    async def out() -> bool:
        return await status(f"/v1/clients/{client.id}") == 401

    assert await until(out, "the session to be over")
