"""The README's first deposit: its lines are run as they are printed."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from gateway.demo import people, screen
from gateway.demo.people import Desk
from tests.support.house import House

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

README = Path(__file__).parents[2] / "README.md"
LINES_LIMIT_S = 60


def lines() -> str:
    """The shell of the section, all blocks together."""
    section = README.read_text().partition("## A first deposit\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    assert len(blocks) >= 3
    return "set -eu\n" + "\necho\n".join(blocks)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README's lines need curl")
async def test_the_readmes_lines_pay_twice(house: House, tmp_path: Path) -> None:
    """A stranger who pastes the lines sees one deposit in the wallet and one on the account."""
    desk = Desk(house.portal, house.caller("olga"), house.caller("carl"))
    [client] = await people.settle_in(desk, [people.sample()[0]])
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "demo.env").write_text(
        screen.exports(house.daemon.url, house.tokens["portal"])
    )
    async with asyncio.timeout(LINES_LIMIT_S):
        shell = await asyncio.create_subprocess_exec(
            "sh", "-c", lines(), cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said = (await shell.communicate())[0].decode()
    assert shell.returncode == 0, said
    assert "HTTP/1.1 201 Created" in said, said
    assert '"available":"100.00"' in said, said
    wallet, account = [await house.becomes(payment) for payment in await house.payments(client)]
    assert (wallet["to"], account["to"]) == ("wallet", client.account)
    await house.becomes(account["id"], transfer="done")
    assert len(await house.deals(client)) == 1
