"""Looking into the audit over the API: what is found, what a grant reaches, and that it is seen.

Records are sealed by the product's own sealer, run by the test.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
import pytest_asyncio

from gateway import queries as gateway_queries
from gateway.control.sealing import Sealer
from gateway.http.app import ROUTES
from tests.integration.gateway.conftest import Api


class Owned:
    """The one who seals."""

    name = "control"
    epoch = 1


async def seal(api: Api) -> None:
    """Seal everything there is."""
    while await Sealer(api.pool, Owned(), api.clock.now).seal():
        pass


async def look(api: Api, token: str = "", **asked: Any) -> list[dict[str, Any]]:
    """The records that are found."""
    query = urlencode({"purpose": "test", **asked})
    answer = await api.call("GET", f"/v1/audit?{query}", token=token or None)
    assert answer.status == 200, await answer.text()
    return list((await answer.json())["data"])


@pytest_asyncio.fixture
async def busy(api: Api) -> Api:
    """Ann's clients in two entities, a partner, and a question decided by Bob."""
    await api.pool.execute(gateway_queries.NEW_EPOCH, "control", "tests")
    view = await api.new_client()
    view = await api.walk(view, "registered", "kyc_pending", "kyc_under_review")
    approval = await (await api.move(view, "approved")).json()
    checker = await api.key(role="compliance", owner="desk", person="bob")
    order = {"decision": "approve", "reason": "fine"}
    path = f"/v1/approvals/{approval['id']}/decide"
    assert (await api.call("POST", path, order, token=checker)).status == 200
    await api.new_client("c-2", brand="southbank", currency="USD")
    await api.new_contract()
    await seal(api)
    return api


async def test_records_are_found_by_person_object_client_command_and_period(busy: Api) -> None:
    """Each alone and together, newest first, a page at a time."""
    (client,) = await busy.rows("SELECT id FROM gateway.client WHERE entity = 'fx-eu'")
    everything = await look(busy)
    assert [each["no"] for each in everything] == sorted(
        (each["no"] for each in everything), reverse=True
    )
    by_bob = await look(busy, person="bob")
    of_client = await look(busy, client=client["id"])
    moves = await look(busy, subject=client["id"], command="client.move")

    assert {each["command"] for each in by_bob} >= {"approval.decide"}
    assert {each["actor"] for each in by_bob} == {"bob"}
    assert {"client.create", "client.move", "approval.decide"} <= {
        each["command"] for each in of_client
    }
    assert {each["client"] for each in of_client} == {client["id"]}
    assert moves[0]["before"]["state"] == "kyc_under_review"
    assert moves[0]["approvals"][0].startswith("AP")
    now = datetime.now(UTC)
    assert await look(busy, since=(now + timedelta(hours=1)).isoformat()) == []
    assert await look(busy, until=(now - timedelta(hours=1)).isoformat()) == []
    assert len(await look(busy, since=(now - timedelta(hours=1)).isoformat())) == len(everything)

    query = "/v1/audit?purpose=test&limit=3"
    first = await (await busy.call("GET", query)).json()
    second = await (await busy.call("GET", f"{query}&after={first['next']}")).json()
    assert [each["no"] for each in first["data"] + second["data"]] == [
        each["no"] for each in everything[:6]
    ]


async def test_looking_is_on_record_with_its_purpose(busy: Api) -> None:
    """Who looked, at what, why; without a reason nothing is shown."""
    auditor = await busy.key(owner="otto", person="otto")
    refused = await busy.call("GET", "/v1/audit?person=ann", token=auditor)
    await look(busy, auditor, purpose="the audit of March", person="ann")
    await seal(busy)

    (seen,) = await look(busy, command="audit.read", person="otto")

    assert (refused.status, (await refused.json())["code"]) == (422, "reason-missing")
    assert seen["reason"] == "the audit of March"
    assert seen["after"]["person"] == "ann"


async def test_a_grant_reads_its_entities_and_its_area_alone(busy: Api) -> None:
    """Records of other entities and of the house do not exist; an area is what one may read."""
    narrow = await busy.key(owner="local", entities=("fx-eu",))
    area = await busy.key(owner="area", role="area")

    found = await look(busy, narrow)
    in_area = await look(busy, area)

    assert {each["entity"] for each in found} == {"fx-eu"}
    assert {each["command"].partition(".")[0] for each in in_area} == {"client", "approval"}
    assert (await busy.call("GET", "/v1/audit", token=await busy.key(role="reader"))).status == 403


async def test_what_is_not_sealed_is_not_shown(busy: Api) -> None:
    """Nobody reads what could still be given another place."""
    await busy.new_client("c-9")

    assert not [each for each in await look(busy) if "c-9" in str(each["after"])]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_nothing_of_the_audit_can_be_edited(api: Api, method: str) -> None:
    """There is no route to change or remove a record, an event or a decision."""
    answer = await api.client.request(method, "/v1/audit", data=b"{}")
    assert answer.status == 405
    facts = ("/v1/audit", "/history", "/trace", "/ledger/", "/attribution-changes")
    for route in ROUTES:
        if route.method in ("PUT", "PATCH", "DELETE"):
            assert not any(fact in route.path for fact in facts), route.path
