"""Stories of the way onto a trading account: one deal for one deposit, whatever happens there."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.house import House

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


@pytest.mark.parametrize(
    "fault",
    [
        {"action": "drop_before"},
        {"action": "drop_after"},
        {"action": "hang_before"},
        {"action": "hang_after"},
        {"action": "retcode_after", "code": 9},
        {"action": "retcode_before", "code": 10},
        {"action": "http_after", "code": 502},
        {"action": "garbage_after"},
        {"action": "retcode_before", "code": 11},
        {"action": "expire"},
    ],
    ids=lambda fault: "-".join(map(str, fault.values())),
)
async def test_the_platform_is_credited_once_whatever_became_of_its_answer(
    house: House, fault: dict[str, Any]
) -> None:
    """Before or after the effect, cut, hung or unclear: the account gets exactly one deal."""
    client = await house.client(account="standard")
    await house.fault("trade/balance", **fault)
    answer = await house.pays(client, "75.50", to="account")
    view = await house.becomes(answer.body["id"], transfer="done")
    deals = await house.deals(client)
    assert [(deal["minor"], deal["comment"]) for deal in deals] == [(7550, view["transfer"]["id"])]
    assert await house.wallet(client) == "0.00"


async def test_what_the_platform_refuses_is_back_in_the_wallet(house: House) -> None:
    """A refusal by the platform's rules brings the money back, and a person hears of it."""
    client = await house.client(account="standard")
    await house.fault("trade/balance", "retcode_before", code=10006)
    answer = await house.pays(client, "40.00", to="account")
    view = await house.becomes(answer.body["id"], transfer="refused")
    assert view["state"] == "approved"
    assert await house.deals(client) == []
    assert await house.wallet(client) == "40.00"
    assert await house.items(view["transfer"]["id"]) == ["credit-refused"]


@pytest.mark.parametrize("action", ["drop_before", "drop_after", "hang_after"])
async def test_an_account_is_created_once_whatever_became_of_the_answer(
    house: House, action: str
) -> None:
    """A repeated creation finds the account we leased the number for, and verifies it."""
    await house.fault("user/add", action)
    client = await house.client(account="raw")
    account = await house.portal.get(f"/v1/accounts/{client.account}")
    books = await house.platform.get("/books")
    mine = [user for user in books["accounts"] if user["login"] == account["login"]]
    assert account["state"] == "verified"
    assert [(user["group"], user["leverage"]) for user in mine] == [
        (account["group"], account["leverage"])
    ]


async def test_a_cut_connection_is_dialled_again(house: House) -> None:
    """After every connection was cut the session comes back, and money goes on."""
    client = await house.client(account="standard")
    await house.platform.post("/cut", {})
    answer = await house.pays(client, "10.00", to="account")
    await house.becomes(answer.body["id"], transfer="done")
    assert len(await house.deals(client)) == 1


async def test_only_a_client_far_enough_gets_an_account(house: House) -> None:
    """Before approval no account is asked for; the platform hears nothing of it."""
    client = await house.client(goes_to="kyc_pending")
    before = (await house.platform.get("/books"))["received"].get("user/add", 0)
    order = {"client": client.id, "type": "standard", "currency": "EUR"}
    answer = await house.portal.send("POST", "/v1/accounts", order)
    assert (answer.status, answer.body["code"]) == (409, "client-state")
    assert (await house.platform.get("/books"))["received"].get("user/add", 0) == before
