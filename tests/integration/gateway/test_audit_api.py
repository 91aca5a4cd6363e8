"""What is on record says who acted, and the records are facts; items and events beside them."""

from __future__ import annotations

import asyncpg
import pytest

from gateway.control import audit, keys
from gateway.control.items import item_opened
from ledger.units import Done, Unit
from tests.integration.gateway.conftest import Api


async def open_item(api: Api, subject: str = "PY1", entity: str = "fx-eu") -> str:
    """An item as a flow opens it; returns the id that was offered."""
    item_id = api.parts.ids.new("IT")
    change = item_opened(
        item_id, "unknown-payment", "payments", subject, "no answer", api.clock.now(), entity=entity
    )
    assert isinstance(await api.lane.submit(Unit((change,))), Done)
    return item_id


async def run_all(api: Api) -> None:
    """Something that leaves facts in every table."""
    client = await api.new_client()
    view = await api.walk(client, "registered", "kyc_pending", "kyc_under_review")
    approval = await (await api.move(view, "approved")).json()
    await api.new_contract()
    checker = await api.key(role="compliance", owner="desk", person="bob")
    order = {"decision": "approve", "reason": "fine"}
    decided = await api.call("POST", f"/v1/approvals/{approval['id']}/decide", order, token=checker)
    assert decided.status == 200
    item = await open_item(api)
    resolved = await api.call("POST", f"/v1/items/{item}/resolve", {"reason": "looked up"})
    assert resolved.status == 200
    address = await api.call(
        "PUT", "/v1/subscription", {"webhook_url": "https://shop.example/hooks"}
    )
    assert address.status == 200, await address.text()
    await api.rows("UPDATE gateway.outbox SET state = 'done', no = id, ended = now()")
    (event,) = await api.rows("SELECT min(no) AS no FROM gateway.outbox")
    resent = await api.call("POST", f"/v1/events/{event['no']}/resend")
    assert resent.status == 202, await resent.text()
    split = keys.split_token(checker)
    assert split is not None
    command = audit.Command(keys.operator("root"), "left", "c", api.clock.now())
    async with api.pool.acquire() as conn, conn.transaction():
        await api.maker.revoke(conn, command, split[0])


async def test_the_actor_is_the_person_of_the_credential(api: Api) -> None:
    """Two keys of one person are one actor, and the key used is on record."""
    first = await api.key(owner="crm", person="ann")
    second = await api.key(owner="desk", person="ann")
    client = await (
        await api.call(
            "POST", "/v1/clients",
            {"reference": "r", "brand": "northgate", "country": "DE", "currency": "EUR"},
            token=first,
        )
    ).json()  # fmt: skip
    await api.move(client, "contacted", token=second)

    rows = await api.rows(
        "SELECT actor, key_id, reason FROM gateway.audit WHERE subject = $1 ORDER BY at, id",
        client["id"],
    )

    assert [row["actor"] for row in rows] == ["ann", "ann"]
    assert len({row["key_id"] for row in rows}) == 2
    assert rows[1]["reason"] == "test"


@pytest.mark.parametrize("table", ["audit", "client_event", "approval_event", "item_event"])
async def test_facts_cannot_be_changed_by_anyone(api: Api, table: str) -> None:
    """The daemon has no right to, and the trigger refuses even its owner."""
    await run_all(api)
    for attempt in ("UPDATE gateway.{} SET actor = 'x'", "DELETE FROM gateway.{}"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await api.rows(attempt.format(table))
        with pytest.raises(asyncpg.RestrictViolationError):
            await api.owner.execute(attempt.format(table))
    with pytest.raises(asyncpg.RestrictViolationError):
        await api.owner.execute(f"TRUNCATE gateway.{table}")


async def test_an_item_is_one_however_often_it_is_noticed(api: Api) -> None:
    """While it is open the same kind and subject open nothing new; once resolved they do."""
    first = await open_item(api)
    await open_item(api)
    page = await (await api.call("GET", "/v1/items?state=open")).json()
    assert [item["id"] for item in page["data"]] == [first]

    done = await api.call("POST", f"/v1/items/{first}/resolve", {"reason": "paid"})
    late = await api.call("POST", f"/v1/items/{first}/resolve", {"reason": "paid"})
    third = await open_item(api)

    view = await done.json()
    assert (view["state"], view["resolution"], view["resolved_by"]) == ("resolved", "paid", "shop")
    assert (late.status, (await late.json())["code"]) == (409, "already-resolved")
    page = await (await api.call("GET", "/v1/items?state=open&team=payments")).json()
    assert [item["id"] for item in page["data"]] == [third]
    events = await api.rows("SELECT event FROM gateway.item_event ORDER BY id")
    assert [row["event"] for row in events] == ["opened", "resolved", "opened"]


async def test_items_of_other_entities_are_hidden(api: Api) -> None:
    """Neither in lists nor by their id; one of no entity is for those who reach all of them."""
    hidden = await open_item(api, "PY1", "fx-int")
    common = await open_item(api, "PY2", "")
    shown = await open_item(api, "PY3", "fx-eu")
    narrow = await api.key(entities=("fx-eu",))

    page = await (await api.call("GET", "/v1/items", token=narrow)).json()

    assert [item["id"] for item in page["data"]] == [shown]
    for method, path, body in (
        ("GET", f"/v1/items/{hidden}", None),
        ("GET", f"/v1/items/{common}", None),
        ("POST", f"/v1/items/{hidden}/resolve", {"reason": "x"}),
    ):
        assert (await api.call(method, path, body, token=narrow)).status == 404


async def test_events_are_the_owners_own(api: Api) -> None:
    """What one system is told, another cannot pull."""
    await api.new_client()
    await api.owner.execute("UPDATE gateway.outbox SET no = id")

    mine = await (await api.call("GET", "/v1/events")).json()
    theirs = await (await api.call("GET", "/v1/events", token=await api.key(owner="other"))).json()

    assert [event["type"] for event in mine["data"]] == ["client.created"]
    assert mine["next"] == mine["data"][0]["no"]
    assert theirs == {"data": [], "next": 0}
