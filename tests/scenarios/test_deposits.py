"""Stories of deposits: who is charged, what falls back, what is looked up, what is credited once.

Each story has its own client; the house compares all books when the last of them has ended.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.house import House, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

SOFT = {"status": "declined", "decline": {"code": "issuer_unavailable"}}
HARD = {"status": "declined", "decline": {"code": "insufficient_funds"}}


def tried(view: dict[str, Any]) -> list[tuple[str, str]]:
    """The providers of a payment in order, each with the state of its attempt."""
    return [(attempt["psp"], attempt["state"]) for attempt in view["attempts"]]


async def test_an_approved_deposit_is_in_the_wallet_when_the_answer_says_so(house: House) -> None:
    """A deposit to the wallet is answered 201 approved, and the wallet holds it at once."""
    client = await house.client()
    answer = await house.pays(client, "100.00")
    assert answer.status == 201
    assert answer.body["state"] == "approved"
    assert tried(answer.body) == [("acme", "approved")]
    assert await house.wallet(client) == "100.00"
    assert [charge["amount"] for charge in await house.charges(client)] == ["100.00"]


async def test_a_deposit_to_an_account_ends_on_the_platform(house: House) -> None:
    """The money goes on to the trading account by exactly one deal of the same amount."""
    client = await house.client(account="standard")
    answer = await house.pays(client, "250.00", to="account")
    view = await house.becomes(answer.body["id"], transfer="done")
    deals = await house.deals(client)
    assert [(deal["minor"], deal["comment"]) for deal in deals] == [(25000, view["transfer"]["id"])]
    assert view["transfer"]["ticket"] == deals[0]["ticket"]
    assert await house.wallet(client) == "0.00"


async def test_a_soft_decline_falls_back_to_the_next_provider(house: House) -> None:
    """After a soft decline the next provider of the route is charged, and only that one."""
    client = await house.client()
    await house.will("acme", **SOFT)
    answer = await house.pays(client)
    assert tried(answer.body) == [("acme", "declined"), ("bolt", "approved")]
    assert [charge["psp"] for charge in await house.charges(client)] == ["bolt"]


async def test_a_hard_decline_ends_the_deposit(house: House) -> None:
    """After a hard decline nobody else is charged, and nothing is credited."""
    client = await house.client()
    await house.will("acme", **HARD)
    answer = await house.pays(client)
    assert (answer.status, answer.body["state"]) == (201, "declined")
    assert tried(answer.body) == [("acme", "declined")]
    assert await house.charges(client) == []
    assert await house.wallet(client) == "0.00"


@pytest.mark.parametrize(
    ("method", "psp", "answer"),
    [
        ("bank_transfer", "coral", {"answer": "hang"}),
        ("bank_transfer", "coral", {"answer": "reset"}),
        ("ewallet", "bolt", {"answer": "status", "http_status": 502}),
        ("ewallet", "bolt", {"answer": "garbage"}),
        ("ewallet", "bolt", {"answer": "truncated"}),
    ],
    ids=["hang", "reset", "502", "garbage", "truncated"],
)
async def test_a_lost_answer_is_looked_up_and_never_charged_again(
    house: House, method: str, psp: str, answer: dict[str, Any]
) -> None:
    """A charge whose answer was lost is found by our own reference and credited once."""
    client = await house.client()
    await house.will(psp, notices="none", **answer)
    taken = await house.pays(client, method=method)
    view = await house.becomes(taken.body["id"])
    assert tried(view) == [(psp, "approved")]
    assert view["attempts"][0]["inquiries"] >= 1
    charges = await house.charges(client)
    assert [charge["requests"] for charge in charges] == [1]
    assert await house.wallet(client) == "100.00"


async def test_what_was_never_charged_is_proved_absent_before_another_is_asked(
    house: House,
) -> None:
    """A charge that never took place is asked about twice; only then the next one follows."""
    client = await house.client()
    await house.will("acme", charges=False, answer="reset")
    taken = await house.pays(client)
    view = await house.becomes(taken.body["id"])
    assert tried(view) == [("acme", "not_found"), ("bolt", "approved")]
    assert view["attempts"][0]["inquiries"] >= 2
    assert len(await house.charges(client)) == 1


async def test_a_provider_that_cannot_be_reached_was_not_asked(house: House) -> None:
    """A request that provably never left us falls back at once."""
    client = await house.client()
    await house.lose_provider("acme")
    try:
        answer = await house.pays(client)
    finally:
        await house.regain_provider("acme")
    assert tried(answer.body) == [("acme", "not_sent"), ("bolt", "approved")]
    assert len(await house.charges(client)) == 1


async def test_a_pending_charge_is_settled_by_its_notice(house: House) -> None:
    """A pending charge stays in progress until the provider tells how it ended."""
    client = await house.client()
    await house.will("coral", status="pending")
    taken = await house.pays(client, method="bank_transfer")
    assert (taken.status, taken.body["state"]) == (202, "in_progress")
    assert taken.location == f"/v1/payments/{taken.body['id']}"
    reference = taken.body["attempts"][0]["reference"]
    await house.providers["coral"].post("/settle", {"reference": reference, "status": "approved"})
    await house.becomes(taken.body["id"])
    assert await house.wallet(client) == "100.00"


@pytest.mark.parametrize("notices", ["twice", "reversed", "forged"])
async def test_notices_settle_once_however_they_come(house: House, notices: str) -> None:
    """Notices that come twice, out of order, or beside a forged one credit the client once."""
    client = await house.client()
    before = (await house.providers["coral"].get("/books"))["notices"]["delivered"]
    await house.will("coral", notices=notices)
    answer = await house.pays(client, method="bank_transfer")
    assert answer.body["state"] == "approved"

    async def delivered() -> bool:
        books = await house.providers["coral"].get("/books")
        return bool(books["notices"]["delivered"] > before and not books["notices"]["due"])

    await until(delivered, "the notices of coral")
    assert (await house.payment(answer.body["id"]))["state"] == "approved"
    assert await house.wallet(client) == "100.00"


async def test_a_notice_of_an_unknown_charge_is_kept_and_changes_nothing(house: House) -> None:
    """A properly signed notice about a charge nobody knows is parked, once, and credits nobody."""
    lie = {"reference": house.ids.new("AT"), "status": "approved", "event_id": "ev_nobody"}
    await house.providers["coral"].post("/notify", lie | {"times": 2})

    async def parked() -> int:
        async with house.database() as conn:
            found: int = await conn.fetchval(
                "SELECT count(*) FROM router.inbox WHERE event_id = 'ev_nobody'"
            )
        return found

    assert await until(parked, "the parked notice") == 1


async def test_a_charge_of_another_amount_is_for_a_person(house: House) -> None:
    """A provider that charged another amount credits nothing; a person is asked to look."""
    client = await house.client()
    await house.will("acme", amount="90.00")
    answer = await house.pays(client, "100.00")
    view = await house.becomes(answer.body["id"], "review")
    assert tried(view) == [("acme", "mismatch")]
    house.excused |= {view["id"], view["attempts"][0]["reference"]}
    assert await house.items(view["id"]) == ["payment-review"]
    assert await house.wallet(client) == "0.00"


async def test_a_late_second_charge_is_given_back(house: House) -> None:
    """A charge that turns up after another provider paid is refunded, and credited to nobody."""
    client = await house.client()
    await house.will("acme", effect_after_s=5, answer="reset")
    taken = await house.pays(client)
    view = await house.becomes(taken.body["id"])
    assert tried(view) == [("acme", "not_found"), ("bolt", "approved")]
    late = view["attempts"][0]["reference"]

    async def refunded() -> list[Any]:
        refunds = (await house.providers["acme"].get("/books"))["refunds"]
        return [it for it in refunds if it["charge_reference"] == late]

    assert len(await until(refunded, "the refund of acme")) == 1
    assert await house.wallet(client) == "100.00"
    assert await house.items(late) == ["second-charge"]


async def test_a_charge_that_turns_up_after_the_decline_is_credited(house: House) -> None:
    """Money that comes in after the deposit was declined belongs to the client, once."""
    client = await house.client()
    await house.will("bolt", effect_after_s=5, answer="reset")
    taken = await house.pays(client, method="ewallet")
    view = await house.becomes(taken.body["id"], "declined")
    assert tried(view) == [("bolt", "not_found")]
    view = await house.becomes(taken.body["id"], "approved")
    assert tried(view) == [("bolt", "approved")]
    assert await house.wallet(client) == "100.00"
    assert await house.items(view["id"]) == ["late-success"]


async def test_a_pending_charge_may_end_in_a_decline(house: House) -> None:
    """A pending charge that the provider then declines credits nothing and ends the deposit."""
    client = await house.client()
    await house.will("coral", status="pending", becomes="declined", becomes_after_s=0.5)
    taken = await house.pays(client, method="bank_transfer")
    view = await house.becomes(taken.body["id"], "declined")
    assert tried(view) == [("coral", "declined")]
    assert await house.wallet(client) == "0.00"


async def test_a_deposit_that_no_provider_takes_says_why(house: House) -> None:
    """Without a provider the deposit is declined with a verdict for each one left out."""
    client = await house.client()
    answer = await house.pays(client, "120000.00")
    assert (answer.status, answer.body["state"]) == (201, "declined")
    assert answer.body["attempts"] == []
    trace = await house.portal.get(f"/v1/payments/{answer.body['id']}/trace")
    left_out = {verdict["psp"]: verdict["code"] for verdict in trace["route"]["left_out"]}
    assert left_out.keys() == {"acme", "bolt", "coral", "delta"}
    assert left_out["acme"] == left_out["bolt"] == "amount"


async def test_explaining_a_route_pays_nothing(house: House) -> None:
    """The way of a deposit can be asked for; it is the way the deposit then takes."""
    client = await house.client(brand="southbank", country="BR", currency="USD")
    route = await house.portal.post("/v1/routing/explain", house.order(client))
    assert await house.payments(client) == []
    assert [candidate["psp"] for candidate in route["candidates"]] == ["delta", "bolt", "acme"]
    answer = await house.pays(client)
    assert answer.body["psp"] == "delta"


@pytest.mark.parametrize("state", ["approved", "restricted"])
async def test_only_a_client_who_may_deposit_deposits(house: House, state: str) -> None:
    """A client in another state, or with a deposit block, is refused and nobody is charged."""
    client = await house.client(goes_to=state)
    answer = await house.pays(client)
    assert (answer.status, answer.body["code"]) == (409, "client-state")
    assert await house.payments(client) == []


async def test_the_books_can_be_read_as_they_were(house: House) -> None:
    """One moment gives one balance for ever, whatever is booked later."""
    client = await house.client()
    await house.pays(client, "10.00")
    moment = await until(lambda: closed(house, client), "a closed moment")
    path = f"/v1/ledger/balances?kind=client_wallet&owner={client.id}&as_of={moment}"
    before = (await house.portal.get(path))["data"]
    await house.pays(client, "20.00")
    assert (await house.portal.get(path))["data"] == before
    assert await house.wallet(client) == "30.00"


async def closed(house: House, client: Any) -> str | None:
    """The moment of the client's first entry once the books are closed up to it."""
    [payment] = await house.payments(client)
    async with house.database() as conn:
        moment = await conn.fetchval(
            "SELECT recorded FROM ledger.entry WHERE key = $1 ORDER BY id", payment
        )
    stamp = moment.isoformat().replace("+00:00", "Z")
    path = f"/v1/ledger/balances?kind=client_wallet&owner={client.id}&as_of={stamp}"
    answer = await house.portal.send("GET", path)
    return stamp if answer.status == 200 else None
