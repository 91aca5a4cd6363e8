"""An emergency: a role for minutes, granted by another person, tagged, over by itself, reviewed.

It knows three people: who needs it, who grants it, who reviews it. It refuses to know what an
emergency is.
"""

from __future__ import annotations

from typing import Any

from gateway.flows.glass import Glass
from tests.integration.gateway.conftest import Api

ASKED = {"role": "looker", "minutes": 15, "reason": "the desk is empty"}
REVIEW = "SELECT * FROM gateway.item WHERE kind = 'break-glass-review'"


async def broken(api: Api, **wish: object) -> dict[str, Any]:
    """Somebody of operations asks and is granted; the approval."""
    asker = await api.key("engineer", owner="pager", person="sre")
    asked = await api.call("POST", "/v1/break-glass", ASKED | wish, token=asker)
    assert asked.status == 202, await asked.text()
    approval = await asked.json()
    decided = await decide(api, approval["id"], "iam")
    assert decided.status == 200, await decided.text()
    return dict(approval)


async def decide(api: Api, approval: str, person: str, role: str = "everything") -> Any:
    """A person agrees."""
    token = await api.key(role, owner=person, person=person)
    body = {"decision": "approve", "reason": "seen"}
    return await api.call("POST", f"/v1/approvals/{approval}/decide", body, token=token)


async def by_grant(api: Api, grant: str) -> str:
    """A credential of that very grant."""
    token = await api.key("nothing", owner="laptop", person="sre")
    sql = "UPDATE gateway.api_key SET grant_id = $1 WHERE owner = 'laptop'"
    await api.owner.execute(sql, grant)
    api.clock.skew_s += 4
    return token


async def test_it_is_granted_by_another_tagged_and_over_by_itself(api: Api) -> None:
    """From the question to the end of the role, each step is on record."""
    approval = await broken(api)
    (used,) = (await (await api.call("GET", "/v1/break-glass")).json())["data"]
    assert (used["person"], used["role"], used["approval"]) == ("sre", "looker", approval["id"])
    assert used["ended"] is None

    token = await by_grant(api, used["grant_id"])
    made = await api.call("POST", "/v1/partners", {"reference": "p-1"}, token=token)
    assert made.status == 201, await made.text()
    (act,) = await api.rows("SELECT * FROM gateway.audit WHERE command = 'partner.create'")
    assert (act["actor"], act["grant_id"]) == ("sre", used["grant_id"])

    glass: Any = api.parts.glass
    assert isinstance(glass, Glass)
    assert await glass.sweep() == 0
    api.clock.skew_s += 15 * 60
    assert await glass.sweep() == 1
    assert await glass.sweep() == 0
    api.clock.skew_s += 4
    late = await api.call("POST", "/v1/partners", {"reference": "p-2"}, token=token)
    assert late.status == 401
    (used,) = (await (await api.call("GET", "/v1/break-glass")).json())["data"]
    assert used["ended"] is not None
    commands = [
        row["command"]
        for row in await api.rows(
            "SELECT command FROM gateway.audit WHERE subject = $1 ORDER BY id", used["grant_id"]
        )
    ]
    assert commands == ["break-glass.grant", "break-glass.grant", "break-glass.end"]


async def test_its_time_passes_though_nobody_looks(api: Api) -> None:
    """A grant past its end allows nothing, whether or not it was swept."""
    await broken(api)
    (used,) = (await (await api.call("GET", "/v1/break-glass")).json())["data"]
    token = await by_grant(api, used["grant_id"])
    assert (await api.call("GET", "/v1/partners", token=token)).status == 200
    await api.owner.execute(
        "UPDATE gateway.access_grant SET valid_from = now() - interval '1 hour',"
        " valid_until = now() - interval '1 second' WHERE id = $1",
        used["grant_id"],
    )
    api.clock.skew_s += 4
    assert (await api.call("GET", "/v1/partners", token=token)).status == 401


async def test_whoever_needs_it_neither_grants_nor_reviews_it(api: Api) -> None:
    """Conflicts 30 and 31: another person grants it, and another one says what was done."""
    asker = await api.key("engineer", owner="pager", person="sre")
    asked = await (await api.call("POST", "/v1/break-glass", ASKED, token=asker)).json()
    own = await decide(api, asked["id"], "sre", "engineer")
    assert (own.status, (await own.json())["code"]) == (403, "duty-conflict")
    assert await api.rows("SELECT 1 FROM gateway.break_glass") == []
    assert (await decide(api, asked["id"], "iam")).status == 200

    (item,) = await api.rows(REVIEW)
    assert (item["owner_team"], item["state"]) == ("compliance", "open")
    assert item["reason"].endswith("UTC: the desk is empty")
    path, body = f"/v1/items/{item['id']}/resolve", {"reason": "looked at every record"}
    mine = await api.call("POST", path, body, token=asker)
    assert (mine.status, (await mine.json())["code"]) == (403, "duty-conflict")
    theirs = await api.key("everything", owner="mlro", person="mlro")
    assert (await api.call("POST", path, body, token=theirs)).status == 200


async def test_what_cannot_be_meant_is_refused(api: Api) -> None:
    """No reason, no such role or entity, too long, a service's role."""
    asker = await api.key("engineer", owner="pager", person="sre")
    for wish, code in (
        ({"reason": " "}, "reason-missing"),
        ({"role": "nobody"}, "role-unknown"),
        ({"entities": ["fx-mars"]}, "entity-unknown"),
        ({"minutes": 241}, "invalid-request"),
        ({"minutes": 0}, "invalid-request"),
    ):
        answer = await api.call("POST", "/v1/break-glass", ASKED | wish, token=asker)
        assert (await answer.json())["code"] == code
    denied = await api.key("reader", owner="bob", person="bob")
    answer = await api.call("POST", "/v1/break-glass", ASKED, token=denied)
    assert answer.status == 403
    assert await api.rows("SELECT 1 FROM gateway.approval") == []


async def test_a_scope_sees_its_own_emergencies(api: Api) -> None:
    """One limited to an entity is listed for whoever reaches it; one of all for whoever reaches
    all.
    """
    await broken(api, entities=["fx-int"])
    eu = await api.key("everything", owner="eu", person="eu", entities=("fx-eu",))
    int_ = await api.key("everything", owner="int", person="int", entities=("fx-int",))
    seen = [
        len((await (await api.call("GET", "/v1/break-glass", token=token)).json())["data"])
        for token in (eu, int_)
    ]
    assert seen == [0, 1]
