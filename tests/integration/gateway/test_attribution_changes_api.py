"""Another partner for a client: asked by one, agreed to by another, dated, seen by all sides."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import aiohttp
import asyncpg
import pytest

from gateway.people import attribution
from tests.integration.gateway.conftest import Api
from tests.integration.gateway.earning import Earner
from tests.integration.gateway.test_partner_page_api import SESSION, visit
from tests.support.servers import Database

AGREED = {"decision": "approve", "reason": "the agreement is signed"}


async def sides(api: Api) -> tuple[dict[str, Any], dict[str, Any], dict[str, object]]:
    """Two contracts with the brand of the EU, and a client of the first."""
    mine = await api.new_contract("p-1", code="mine")
    other = await api.new_contract("p-2", code="other")
    return mine, other, await api.new_client(attribution={"code": "mine"})


async def ask(
    api: Api, client: Mapping[str, object], code: str | None = "other", *, token: str | None = None,
    key: str = "", **fields: object,
) -> aiohttp.ClientResponse:  # fmt: skip
    """Ask for another partner, as ann of sales unless told otherwise."""
    token = token or await api.key(role="sales", owner="desk", person="ann")
    wish = {
        "code": code, "evidence": "doc-17", "reason": "she signed with them", "ground": "agreement",
    }  # fmt: skip
    path = f"/v1/clients/{client['id']}/attribution-changes"
    return await api.call("POST", path, wish | fields, token=token, key=key)


async def agree(
    api: Api, approval: Mapping[str, Any], person: str = "bob", role: str = "compliance"
) -> aiohttp.ClientResponse:
    """Have a checker agree."""
    token = await api.key(role=role, owner="checkers", person=person)
    return await api.call("POST", f"/v1/approvals/{approval['id']}/decide", AGREED, token=token)


async def through(api: Api, client: Mapping[str, object]) -> list[str]:
    """The contracts a client came through, in the order of time."""
    async with api.pool.acquire() as conn:
        dated = (await attribution.of_clients(conn, [str(client["id"])]))[str(client["id"])]
    return [contract for _, contract in dated]


async def test_a_change_is_made_by_two_people_and_recorded_with_all_that_is_asked_of_it(
    api: Api,
) -> None:
    """202 for the maker; the checker's vote moves the client from then on, once."""
    mine, other, client = await sides(api)
    [before] = await api.rows("SELECT version FROM ledger.inputs WHERE book_id = 1")

    asked = await ask(api, client)
    approval = await asked.json()
    done = await agree(api, approval)

    assert (asked.status, approval["kind"], approval["permission"]) == (
        202, "attribution.change", "attribution:approve",
    )  # fmt: skip
    assert approval["about"] == sorted([mine["partner"], other["partner"]])
    assert (done.status, (await done.json())["state"]) == (200, "approved")
    assert await through(api, client) == [mine["id"], other["id"]]
    path = f"/v1/clients/{client['id']}/attribution-changes"
    [change] = (await (await api.call("GET", path)).json())["data"]
    assert change["old"] == {"contract": mine["id"], "code": "mine"}
    assert change["new"] == {"contract": other["id"], "code": "other"}
    assert (change["asked_by"], change["approved_by"]) == ("ann", ["bob"])
    assert (change["reason"], change["evidence"]) == ("she signed with them", "doc-17")
    assert change["effective"] == change["at"]
    assert change["approval"] == approval["id"]
    view = await (await api.call("GET", f"/v1/clients/{client['id']}")).json()
    assert view["attribution"] == {"contract": other["id"], "code": "other"}
    [after] = await api.rows("SELECT version FROM ledger.inputs WHERE book_id = 1")
    assert after["version"] == before["version"] + 1
    [told] = await api.rows("SELECT lane FROM gateway.outbox WHERE kind = 'client.reattributed'")
    assert told["lane"] == "subscriber:shop"


async def test_every_step_is_on_record_with_its_person(api: Api) -> None:
    """The wish, the change with the approval that allowed it, and the acts of both people."""
    mine, other, client = await sides(api)
    approval = await (await ask(api, client)).json()
    await agree(api, approval)

    rows = await api.rows(
        "SELECT actor, reason, approvals FROM gateway.audit WHERE command = 'attribution.change' "
        "AND subject = $1 ORDER BY at, id", client["id"],
    )  # fmt: skip
    acts = await api.rows(
        "SELECT person, action, subject FROM gateway.act WHERE case_id = $1", approval["id"]
    )

    assert [tuple(row) for row in rows] == [
        ("ann", "she signed with them", []),
        ("bob", "the agreement is signed", [approval["id"]]),
    ]
    about = {client["id"], mine["partner"], other["partner"]}
    assert {tuple(act) for act in acts} == {
        *(("ann", "attribution.request", it) for it in about),
        *(("bob", "attribution.approve", it) for it in about),
    }


async def test_who_asked_does_not_agree_and_sales_does_not_either(api: Api) -> None:
    """Whatever other role the maker holds; and a role that may only ask is refused."""
    _, _, client = await sides(api)
    approval = await (await ask(api, client)).json()

    own = await agree(api, approval, person="ann")
    sales = await agree(api, approval, person="sam", role="sales")

    problem = await own.json()
    assert (own.status, problem["code"], problem["conflict"]) == (403, "duty-conflict", 1)
    assert (sales.status, (await sales.json())["code"]) == (403, "forbidden")
    assert len(await through(api, client)) == 1


async def test_a_wish_that_cannot_be_is_refused_and_leaves_its_trace(api: Api) -> None:
    """Each with its own code; nothing is asked."""
    _, _, client = await sides(api)
    await api.new_contract("p-3", code="south", brand="southbank", currency="USD",
                           plan="int-partner")  # fmt: skip
    past = (api.clock.now() - timedelta(seconds=5)).isoformat()
    far = (api.clock.now() + timedelta(days=400)).isoformat()
    reader = await api.key(role="reader")

    for status, code, wish in (
        (422, "code-unknown", {"code": "nobody"}),
        (422, "code-unknown", {"code": "south"}),
        (422, "evidence-missing", {"evidence": ""}),
        (422, "reason-missing", {"reason": " "}),
        (422, "effective-in-past", {"effective": past}),
        (422, "effective-too-far", {"effective": far}),
        (409, "attribution-same", {"code": "mine"}),
        (403, "forbidden", {"token": reader}),
    ):
        answer = await ask(api, client, **wish)
        assert (answer.status, (await answer.json())["code"]) == (status, code), wish

    assert not await api.rows("SELECT 1 FROM gateway.approval")
    traces = await api.rows(
        "SELECT after->>'refused' AS code FROM gateway.audit WHERE command = 'attribution.change'"
    )
    assert {row["code"] for row in traces} >= {
        "code-unknown", "evidence-missing", "effective-in-past", "attribution-same",
    }  # fmt: skip


async def test_a_change_begins_when_it_was_asked_to_and_no_other_overtakes_it(api: Api) -> None:
    """Until then the client is the old partner's, and nothing else is agreed to meanwhile."""
    mine, other, client = await sides(api)
    effective = api.clock.now() + timedelta(days=30)
    approval = await (await ask(api, client, effective=effective.isoformat())).json()

    done = await agree(api, approval)
    late = await ask(api, client, None)

    assert done.status == 200, await done.text()
    view = await (await api.call("GET", f"/v1/clients/{client['id']}")).json()
    assert view["attribution"]["contract"] == mine["id"]
    assert await through(api, client) == [mine["id"], other["id"]]
    [row] = await api.rows("SELECT max(since) AS since FROM gateway.attribution")
    assert row["since"] == effective
    assert (late.status, (await late.json())["code"]) == (409, "attribution-ahead")


async def test_a_change_agreed_to_late_begins_with_the_agreement(api: Api) -> None:
    """What was earned in between stays with whom it was earned by."""
    _, _, client = await sides(api)
    soon = api.clock.now() + timedelta(milliseconds=200)
    approval = await (await ask(api, client, effective=soon.isoformat())).json()
    await asyncio.sleep(0.4)  # the moment it asked for passes

    done = await agree(api, approval)

    assert done.status == 200, await done.text()
    [row] = await api.rows("SELECT effective, at FROM gateway.attribution_change")
    assert row["effective"] > soon
    assert row["effective"] == row["at"]


async def test_a_client_may_be_nobodys_and_somebodys_again(api: Api) -> None:
    """Each change is one more row; none is ever altered."""
    mine, _, client = await sides(api)
    await agree(api, await (await ask(api, client, None)).json())
    view = await (await api.call("GET", f"/v1/clients/{client['id']}")).json()
    await agree(api, await (await ask(api, client, "mine")).json())

    assert view["attribution"] is None
    assert await through(api, client) == [mine["id"], "", mine["id"]]
    for statement in ("UPDATE gateway.attribution_change SET reason = 'x'",
                      "DELETE FROM gateway.attribution_change"):  # fmt: skip
        with pytest.raises(asyncpg.RestrictViolationError):
            await api.owner.execute(statement)


async def test_checkers_at_once_make_one_change(api: Api) -> None:
    """The others are told that it is decided."""
    _, _, client = await sides(api)
    approval = await (await ask(api, client)).json()

    answers = await asyncio.gather(*[agree(api, approval, f"p{n}") for n in range(4)])

    assert sorted(answer.status for answer in answers) == [200, 409, 409, 409]
    codes = {(await answer.json()).get("code") for answer in answers}
    assert codes == {None, "already-decided"}
    assert len(await through(api, client)) == 2
    assert len(await api.rows("SELECT 1 FROM gateway.attribution_change")) == 1


async def test_what_was_asked_about_another_partner_is_stale(api: Api) -> None:
    """A row that came by hand meanwhile is not overwritten by what people agreed to before it."""
    _, other, client = await sides(api)
    approval = await (await ask(api, client, None)).json()
    await api.owner.execute(
        "INSERT INTO gateway.attribution SELECT client_id, statement_timestamp(), $1, book, '{}', "
        "0, 'hand' FROM gateway.attribution WHERE client_id = $2", other["id"], client["id"],
    )  # fmt: skip

    answer = await agree(api, approval)

    assert (answer.status, (await answer.json())["code"]) == (409, "approval-stale")
    [row] = await api.rows("SELECT state FROM gateway.approval")
    assert row["state"] == "open"
    assert not await api.rows("SELECT 1 FROM gateway.attribution_change")


async def test_both_partners_see_the_change_masked(api: Api) -> None:
    """Their own side by its code, nothing of the other partner, of staff or of free words."""
    mine, other, client = await sides(api)
    stranger = await api.new_contract("p-3", code="third")
    await agree(api, await (await ask(api, client)).json())
    seen = {}
    for contract in (mine, other, stranger):
        cookie = {"Cookie": f"{SESSION}={await visit(api, contract['partner'])}"}
        api.client.session.cookie_jar.clear()
        path = f"/v1/partners/{contract['partner']}/attribution-changes"
        answer = await api.client.get(path, headers=cookie)
        assert answer.status == 200, await answer.text()
        seen[contract["code"]] = (await answer.json())["data"], await answer.text()

    [lost], lost_text = seen["mine"]
    [won], won_text = seen["other"]
    assert (lost["old"], lost["new"]) == ("mine", "another partner")
    assert (won["old"], won["new"]) == ("another partner", "other")
    for change in (lost, won):
        assert (change["asked_by"], change["approved_by"]) == ("sales", 1)
        assert change["reason"] == "agreement"
        assert change["effective"]
        assert change["client"] == f"…{str(client['id'])[-4:]}"
    for text, foreign in ((lost_text, other), (won_text, mine)):
        for hidden in ("ann", "bob", "signed", "doc-17", client["id"], foreign["id"],
                       foreign["code"] + '"'):  # fmt: skip
            assert str(hidden) not in text
    assert seen["third"][0] == []


async def test_others_earn_by_deals_from_the_change_on_and_nothing_before_it_moves(
    api: Api, database: Database
) -> None:
    """Accrual reads the change with the next batch; the old lines stand byte for byte."""
    async with Earner(api, database).at_work() as earner:
        mine = await api.new_contract("p-1", code="mine")
        other = await api.new_contract("p-2", code="other")
        await earner.earns(mine, "1.00")
        [client] = await api.rows("SELECT id FROM gateway.client")
        lines = (
            "SELECT l.*, a.owner FROM ledger.rebate_line l "
            "JOIN ledger.account a ON a.id = l.account_id ORDER BY l.book_id, l.no"
        )
        before = await api.rows(lines)

        done = await agree(api, await (await ask(api, client)).json())
        await earner.earns(mine, "2.00")

    assert done.status == 200, await done.text()
    after = await api.rows(lines)
    assert [row for row in after if row in before] == before
    [paid] = [row for row in after if row not in before]
    assert paid["owner"] == other["id"]
