"""The report of duties: it proves a clean period, and names what was slipped past every judge."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from gateway import cli_duties
from gateway.control import keys
from gateway.control.audit import Command
from gateway.control.duty_report import Period, Report, report
from gateway.control.keys import NewKey
from gateway.control.refusals import Refusal
from tests.integration.gateway.conftest import Api

# As an owner of the database could write it, past every judge.
FORGED = """
INSERT INTO gateway.act (person, place, no, action, subject, case_id, at, actor, role, grant_id,
                         approval, correlation)
SELECT 'ann', $1, $2, $3, 'CL1', $4, $5, 'ann', 'r', '', '', 'c'
"""


async def made(api: Api, *, days: float = 7, subject: str = "") -> Report:
    """The report of some days up to now."""
    now = api.clock.now() + timedelta(seconds=1)
    access = api.parts.rules.now.access
    async with api.pool.acquire() as conn:
        return await report(conn, access, Period(now - timedelta(days=days), now, subject), now)


async def test_a_lived_house_is_clean_and_its_ends_are_counted(api: Api) -> None:
    """Who asked and who approved a client are one person each, and nobody was both."""
    asks = await api.key("as.kyc-analyst", owner="kay", person="kay")
    agrees = await api.key("as.compliance", owner="cem", person="cem")
    client = await api.walk(
        await api.new_client(risk_band="high"), "registered", "kyc_pending", "kyc_under_review"
    )
    asked = await api.move(client, "approved", token=asks)
    assert asked.status == 202, await asked.text()
    path = f"/v1/approvals/{(await asked.json())['id']}/decide"
    body = {"decision": "approve", "reason": "seen"}
    refused = await api.call("POST", path, body, token=asks)
    assert refused.status == 403
    answer = await api.call("POST", path, body, token=agrees)
    assert answer.status == 200, await answer.text()
    said = await made(api)
    assert said.violations == ()
    first = next(row for row in said.rows if row.number == 1)
    assert (first.first, first.second, first.broken) == (1, 1, 0)
    one = await made(api, subject=str(client["id"]))
    assert 0 < one.acts <= said.acts
    assert one.subjects == 1


async def test_a_forged_pair_is_named_by_row_and_acts(api: Api) -> None:
    """On one subject within the window, and in one case at any time; outside it nothing is."""
    owner, now = api.owner, api.clock.now()
    for n, (action, days) in enumerate((("kyc.approve", 100), ("kyc.approve", 80)), start=1):
        await owner.execute(FORGED, "CL1", n, action, "", now - timedelta(days=days))
    assert (await made(api)).violations == ()
    await owner.execute(FORGED, "CL1", 3, "withdrawal.approve", "", now)
    (found,) = (await made(api)).violations
    assert (found.conflict, found.later.action, found.earlier.action) == (
        2, "withdrawal.approve", "kyc.approve",
    )  # fmt: skip
    assert found.earlier.at == now - timedelta(days=80)
    for n, (action, days) in enumerate((("profile.request", 400), ("profile.approve", 1)), start=1):
        await owner.execute(FORGED, "AP1", n, action, "AP1", now - timedelta(days=days))
    said = await made(api)
    assert sorted(it.conflict for it in said.violations) == [1, 2]
    assert not said.clean
    assert [row.broken for row in said.rows if row.number in (1, 2, 3)] == [1, 1, 0]
    assert (await made(api, days=0.5)).violations == (found,)
    assert (await made(api, subject="CL2")).violations == ()


async def test_roles_that_came_into_one_hand_are_named(api: Api) -> None:
    """At the machine they are refused; what slipped in is in the report."""
    await api.key("as.finance", owner="fay", person="fay")
    by = Command(keys.operator("root"), "test", "test", api.clock.now())
    wish = NewKey("fay", "as.compliance", person="fay")
    async with api.pool.acquire() as conn:
        with pytest.raises(Refusal) as caught:
            async with conn.transaction():
                await api.maker.require_holdable(conn, by, wish)
    assert caught.value.code == "roles-conflict"
    await api.key("as.compliance", owner="fay", person="fay")
    (holder,) = (await made(api)).holders
    assert (holder.person, holder.conflict, holder.excepted) == ("fay", 2, False)
    assert not (await made(api)).clean


async def test_the_report_is_printed_for_people_and_as_json(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was broken is shown with its row, its person and both acts; JSON holds all of it."""
    now = api.clock.now()
    await api.owner.execute(FORGED, "CL1", 1, "kyc.approve", "", now - timedelta(days=2))
    cli_duties.show(await made(api))
    assert "both ends" in capsys.readouterr().out
    await api.owner.execute(FORGED, "CL1", 2, "withdrawal.approve", "", now)
    said = await made(api)
    cli_duties.show(said)
    shown = capsys.readouterr().out
    assert "2 acts of 1 people on 1 subjects" in shown
    assert any(
        line.split("\t")[:3] == ["2", "ann", "CL1"] and "withdrawal.approve" in line
        for line in shown.splitlines()
    )
    assert shown.rstrip().endswith("this is not as it must be")
    read = msgspec.json.decode(msgspec.json.encode(said))
    assert read["violations"][0]["conflict"] == 2
