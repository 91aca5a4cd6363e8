"""People's data: ciphertext at rest, shown on record, masked, and erased by two people.

It knows the routes and looks into every table for what must not stand there. It refuses to know how
a field is closed: that has unit tests.
"""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from gateway import queries as gateway_queries
from gateway.control.exporting import first_bad
from tests.integration.gateway.conftest import Api
from tests.integration.gateway.test_audit_reading import look, seal

ANN = {"name": "Annabel Lee", "email": "annabel@sea.example", "birth_date": "1990-02-03"}
HIDDEN = ("Annabel", "sea.example", "1990-02")


async def told(api: Api) -> str:
    """A client whose data is kept; the id."""
    client = await api.new_client()
    answer = await api.call("PUT", f"/v1/clients/{client['id']}/personal", ANN, key=None)
    assert answer.status == 200, await answer.text()
    assert await answer.json() == {
        "client": client["id"], "version": 1, "masked": True, "erased": False,
        "fields": {"name": "A***", "email": "a***", "birth_date": "1***"},
    }  # fmt: skip
    return str(client["id"])


async def view(api: Api, client: str, query: str = "?purpose=a+call", **asked: Any) -> Any:
    """What is shown."""
    answer = await api.call("GET", f"/v1/clients/{client}/personal{query}", **asked)
    assert answer.status == 200, await answer.text()
    assert answer.headers["Cache-Control"] == "no-store"
    return await answer.json()


async def everything(api: Api) -> str:
    """All rows of all tables of the gateway, as one text."""
    tables = await api.owner.fetch(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'gateway'"
    )
    texts = []
    for (table,) in tables:
        texts += [
            str(tuple(row)) for row in await api.owner.fetch(f"SELECT * FROM gateway.{table}")
        ]
    return "\n".join(texts)


async def test_no_table_holds_what_is_known_of_a_person(api: Api) -> None:
    """Neither the table of fields nor the audit of who set them, before nor after a change."""
    client = await told(api)
    other = {"name": "Bella Annabel"}
    assert (await api.call("PUT", f"/v1/clients/{client}/personal", other, key=None)).status == 200
    assert (await view(api, client))["fields"] == {"name": "Bella Annabel"}

    text = await everything(api)

    assert client in text
    for hidden in HIDDEN:
        assert hidden not in text


async def test_looking_unmasked_is_on_record_with_its_purpose(api: Api) -> None:
    """Without a purpose nothing is shown; masked data needs none and leaves no record."""
    client = await told(api)
    support = await api.key(role="masked", owner="sue", person="sue")

    refused = await api.call("GET", f"/v1/clients/{client}/personal")
    masked = await view(api, client, "", token=support)
    shown = await view(api, client)

    assert (refused.status, (await refused.json())["code"]) == (422, "reason-missing")
    assert masked["fields"] == {"name": "A***", "email": "a***", "birth_date": "1***"}
    assert shown["fields"] == ANN
    rows = await api.rows("SELECT * FROM gateway.audit WHERE command = 'client.viewed'")
    assert [(row["actor"], row["subject"], row["reason"]) for row in rows] == [
        ("shop", client, "a call")
    ]
    away = await api.key(owner="away", entities=("fx-int",))
    for method, path, body in (
        ("GET", "personal?purpose=x", None), ("PUT", "personal", ANN),
        ("POST", "erasures", {"reason": "x"}),
    ):  # fmt: skip
        answer = await api.call(method, f"/v1/clients/{client}/{path}", body, token=away)
        assert answer.status == 404


async def test_a_record_that_fails_shows_nothing(api: Api) -> None:
    """Whoever could read without a record would be unseen: no record, no field."""
    client = await told(api)
    await api.owner.execute(
        "ALTER TABLE gateway.audit ADD CONSTRAINT no_room "
        "CHECK (command <> 'client.viewed') NOT VALID"
    )

    answer = await api.call("GET", f"/v1/clients/{client}/personal?purpose=x")

    assert answer.status == 500
    assert "Annabel" not in await answer.text()


async def test_erased_data_is_gone_everywhere_and_the_chain_holds(api: Api) -> None:
    """Asked by one, agreed to by another: the key is gone, every record is as it was sealed."""
    await api.pool.execute(gateway_queries.NEW_EPOCH, "control", "tests")
    client = await told(api)
    path = f"/v1/clients/{client}/erasures"
    early = await api.call("POST", path, {"reason": "asked for"})
    await api.walk(await (await api.call("GET", f"/v1/clients/{client}")).json(), "archived")
    approval = await (await api.call("POST", path, {"reason": "asked for"})).json()
    await seal(api)
    order = {"decision": "approve", "reason": "five years are over"}
    decide = f"/v1/approvals/{approval['id']}/decide"
    own = await api.call("POST", decide, order)
    checker = await api.key(role="compliance", owner="mia", person="mia")
    agreed = await api.call("POST", decide, order, token=checker)
    await seal(api)

    assert (early.status, (await early.json())["code"]) == (409, "client-state")
    assert own.status == 403
    assert agreed.status == 200, await agreed.text()
    shown = await view(api, client)
    assert (shown["erased"], shown["fields"]) == (True, {})
    again = await api.call("PUT", f"/v1/clients/{client}/personal", ANN, key=None)
    assert (again.status, (await again.json())["code"]) == (409, "erased")
    (row,) = await api.rows("SELECT * FROM gateway.subject_key")
    assert row["wrapped"] is None
    with pytest.raises(asyncpg.RestrictViolationError):
        await api.rows("UPDATE gateway.subject_key SET wrapped = 'x', destroyed = NULL")
    async with api.pool.acquire() as conn, conn.transaction():
        assert await first_bad(conn) is None
    done = [each for each in await look(api, command="client.erase") if each["approvals"]]
    assert (done[0]["actor"], done[0]["approvals"]) == ("mia", [approval["id"]])
