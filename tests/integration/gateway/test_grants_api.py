"""Roles of people over the API: asked for by one, agreed to by another, never to oneself."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from gateway.control import assigning
from tests.integration.gateway.conftest import Api

WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


async def iam(api: Api, person: str) -> str:
    """A token of somebody who gives roles."""
    return await api.key("as.iam", owner=person, person=person)


async def ask(api: Api, by: str, person: str, role: str, **fields: object) -> Any:
    """Ask that a person be given a role; the answer."""
    body = {"person": person, "role": role, "reason": "joins the team", **fields}
    return await api.call("POST", "/v1/grants", body, token=await iam(api, by))


async def asked(api: Api, by: str, person: str, role: str, **fields: object) -> str:
    """The id of the question about a role."""
    answer = await ask(api, by, person, role, **fields)
    assert answer.status == 202, await answer.text()
    return str((await answer.json())["id"])


async def decide(api: Api, by: str, approval: str, decision: str = "approve") -> Any:
    """Agree, or not; the answer."""
    body = {"decision": decision, "reason": "seen"}
    return await api.call(
        "POST", f"/v1/approvals/{approval}/decide", body, token=await iam(api, by)
    )


async def code(answer: Any) -> str:
    """Why something was refused."""
    return str((await answer.json())["code"])


async def held(api: Api, person: str) -> dict[str, Any]:
    """A person as the API shows them."""
    answer = await api.call("GET", f"/v1/people/{person}", token=await iam(api, "ina"))
    assert answer.status == 200, await answer.text()
    return dict(await answer.json())


async def refusals(api: Api, command: str) -> list[str]:
    """What the audit says was refused of a command."""
    rows = await api.rows(
        "SELECT after ->> 'refused' AS code FROM gateway.audit WHERE command = $1 "
        "AND after ? 'refused' ORDER BY id", command,
    )  # fmt: skip
    return [row["code"] for row in rows]


async def test_a_role_is_given_by_two_people(api: Api) -> None:
    """One asks, another agrees, and the person holds it: by that approval, within what was said."""
    approval = await asked(api, "ina", "fay", "as.finance", entities=["fx-eu"])
    assert await code(await decide(api, "ina", approval)) == "duty-conflict"
    assert (await api.call("GET", "/v1/people/fay", token=await iam(api, "ina"))).status == 404
    assert (await decide(api, "ivo", approval)).status == 200
    person = await held(api, "fay")
    (grant,) = person["grants"]
    assert (person["kind"], person["conflicts"]) == ("human", [])
    assert grant["in_force"]
    assert (grant["role"], grant["entities"], grant["approval"]) == (
        "as.finance", ["fx-eu"], approval,
    )  # fmt: skip
    listed = await api.call("GET", "/v1/grants?person=fay", token=await iam(api, "ina"))
    assert (await listed.json())["data"] == [grant]
    rows = await api.rows("SELECT person, action FROM gateway.act WHERE place = $1", "fay")
    assert {tuple(row) for row in rows} == {("ina", "role.request"), ("ivo", "role.approve")}


async def test_nobody_gives_themselves_a_role(api: Api) -> None:
    """Neither by asking for it nor by agreeing to what another asked; both attempts are audited."""
    assert await code(await ask(api, "ina", "ina", "as.support")) == "own-role"
    approval = await asked(api, "ina", "ivo", "as.support")
    assert await code(await decide(api, "ivo", approval)) == "own-role"
    assert (await decide(api, "ida", approval)).status == 200
    assert await refusals(api, "role.grant") == ["own-role"]
    assert "own-role" in await refusals(api, "approval.decide")


async def test_roles_that_may_not_be_in_one_hand_are_refused(api: Api) -> None:
    """RA-07: whoever approves withdrawals does not get to approve clients too."""
    await api.key("as.finance", owner="fay", person="fay")
    answer = await ask(api, "ina", "fay", "as.compliance")
    assert answer.status == 409
    body = await answer.json()
    assert (body["code"], body["conflicts"]) == ("roles-conflict", [2])
    assert await refusals(api, "role.grant") == ["roles-conflict"]
    for role, number in (("as.iam", 26), ("as.auditor", 29), ("as.sre", 28)):
        body = await (await ask(api, "ina", "fay", role)).json()
        assert number in body["conflicts"], role


async def test_two_roles_asked_for_at_once_do_not_slip_by_each_other(api: Api) -> None:
    """Each was free when it was asked for: only one of them is given."""
    first = await asked(api, "ina", "fay", "as.finance")
    second = await asked(api, "ina", "fay", "as.compliance")
    for person in ("ivo", "ida"):  # making a key is no part of the race
        await iam(api, person)
    async with api.owner.transaction():
        await assigning.hold_person(api.owner, "fay")
        deciding = asyncio.gather(decide(api, "ivo", first), decide(api, "ida", second))
        async with asyncio.timeout(30):
            while await api.pool.fetchval(WAITING) < 2:
                await asyncio.sleep(0.01)
    answers = await deciding
    assert sorted(answer.status for answer in answers) == [200, 409]
    person = await held(api, "fay")
    assert len(person["grants"]) == 1
    assert person["conflicts"] == []
    assert "roles-conflict" in await refusals(api, "approval.decide")


async def test_an_exception_is_approved_short_and_shown(api: Api) -> None:
    """It needs a time within thirty days and a second person, and concerns holding only."""
    await api.key("as.finance", owner="fay", person="fay")
    now = api.clock.now()
    wish = {"exception": True}
    assert await code(await ask(api, "ina", "fay", "as.compliance", **wish)) == "exception-time"
    late = {**wish, "valid_until": (now + timedelta(days=31)).isoformat()}
    assert await code(await ask(api, "ina", "fay", "as.compliance", **late)) == "exception-time"
    soon = {**wish, "valid_until": (now + timedelta(days=10)).isoformat()}
    approval = await asked(api, "ina", "fay", "as.compliance", **soon)
    assert (await decide(api, "ivo", approval)).status == 200
    person = await held(api, "fay")
    assert person["conflicts"] == [2]
    (excepted,) = person["exceptions"]
    assert (excepted["conflict"], excepted["approval"]) == (2, approval)
    assert excepted["until"].startswith((now + timedelta(days=10)).isoformat()[:10])
    rows = await api.rows("SELECT kind FROM gateway.approval WHERE id = $1", approval)
    assert rows[0]["kind"] == "role.exception"


async def test_a_role_is_taken_back_and_allows_nothing_more(api: Api) -> None:
    """One person may: its keys are refused from then on, and it is told once."""
    token = await api.key("as.finance", owner="fay", person="fay")
    (grant,) = (await held(api, "fay"))["grants"]
    path, body = f"/v1/grants/{grant['id']}/revoke", {"reason": "left"}
    answer = await api.call("POST", path, body, token=await iam(api, "ina"))
    assert answer.status == 200
    assert (await answer.json())["revoked_by"] == "ina"
    again = await api.call("POST", path, body, token=await iam(api, "ina"))
    assert await code(again) == "grant-over"
    api.clock.skew_s += 3600
    assert (await api.call("GET", "/v1/clients", token=token)).status == 401


async def test_a_wish_that_cannot_be_meant_is_refused(api: Api) -> None:
    """An unknown role or entity, a time that is over, a service's role for a person, no reason."""
    now = api.clock.now()
    await api.key("as.finance", owner="fay", person="fay")
    before = (now - timedelta(days=1)).isoformat()
    wishes: list[tuple[dict[str, object], str]] = [
        ({"role": "no-such"}, "role-unknown"),
        ({"entities": ["nowhere"]}, "entity-unknown"),
        ({"valid_from": before}, "grant-time"),
        ({"valid_until": before}, "grant-time"),
        ({"role": "svc.caller"}, "role-unknown"),
        ({"reason": " "}, "reason-missing"),
    ]
    for wish, why in wishes:
        fields: dict[str, Any] = {"role": "as.support", **wish}
        assert await code(await ask(api, "ina", "fay", **fields)) == why, wish


async def test_whoever_reaches_one_entity_gives_and_sees_roles_of_that_one(api: Api) -> None:
    """Roles of another entity, and of all, are neither shown nor given."""
    await api.key("as.finance", owner="fay", person="fay", entities=("fx-int",))
    near = await api.key("as.iam", owner="nia", person="nia", entities=("fx-eu",))
    listed = await (await api.call("GET", "/v1/grants", token=near)).json()
    assert "data" in listed, listed
    assert {grant["person"] for grant in listed["data"]} == {"nia"}
    assert (await api.call("GET", "/v1/people/fay", token=near)).status == 404
    body = {"person": "sam", "role": "as.support", "reason": "joins"}
    for entities, status in ((["fx-int"], 422), (["*"], 422), (["fx-eu"], 202)):
        answer = await api.call("POST", "/v1/grants", body | {"entities": entities}, token=near)
        assert answer.status == status, entities


async def test_nobody_decides_on_an_account_of_their_own(api: Api) -> None:
    """Rows 22 and 23: once it is said whose an account is, that person neither moves the client
    nor agrees to it; it is shown with them, within the caller's reach.
    """
    boss = await api.key("as.mlro", owner="mo", person="mo")
    own, other = await api.new_client("own"), await api.new_client("other")
    clerk = await api.key("as.compliance", owner="cem", person="cem")
    body = {"tie": "account.own", "subject": own["id"], "reason": "their brother's"}
    answer = await api.call("POST", "/v1/people/cem/ties", body, token=boss)
    assert answer.status == 201, await answer.text()
    refused = await api.move(own, "registered", token=clerk)
    assert refused.status == 403
    assert (await refused.json())["conflict"] == 23
    assert (await api.move(other, "registered", token=clerk)).status == 200
    person = await held(api, "cem")
    assert [(tie["tie"], tie["said_by"]) for tie in person["ties"]] in ([], [("account.own", "mo")])
    assert (await refusals(api, "client.move")) == ["duty-conflict"]
    for who, subject, status in (("cem", "CL" + "0" * 18, 404), ("nobody", own["id"], 404)):
        again = await api.call(
            "POST", f"/v1/people/{who}/ties", body | {"subject": subject}, token=boss
        )
        assert again.status == status


async def test_a_tie_is_said_however_late(api: Api) -> None:
    """Who decided before it was known is not refused the truth: the report names what was done."""
    boss = await api.key("as.mlro", owner="mo", person="mo")
    clerk = await api.key("as.compliance", owner="cem", person="cem")
    client = await api.new_client("own")
    assert (await api.move(client, "registered", token=clerk)).status == 200
    body = {"tie": "account.own", "subject": client["id"], "reason": "found out"}
    answer = await api.call("POST", "/v1/people/cem/ties", body, token=boss)
    assert answer.status == 201
    rows = await api.rows("SELECT action FROM gateway.act WHERE person = 'cem' ORDER BY no")
    assert [row["action"] for row in rows] == ["lifecycle.move", "account.own"]
