"""The books through the API: balances and entries, now and as of a closed moment, by entity."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from ledger.facts import AccountName, Entry, Posting
from ledger.units import Done, Unit
from tests.integration.gateway.conftest import Api

OWNER = "CL" + "0" * 18


async def book(api: Api, key: str, minor: int, number: int = 1) -> int:
    """Book a deposit of this many cents; returns the entry's id."""
    for each, entity, currency in ((1, "fx-eu", "EUR"), (2, "fx-int", "USD")):
        await api.owner.execute(
            "INSERT INTO ledger.book (id, entity, currency) VALUES ($1, $2, $3)"
            " ON CONFLICT DO NOTHING",
            each, entity, currency,
        )  # fmt: skip
    sides = (
        Posting(AccountName("psp_clearing", "acme", "EUR"), minor),
        Posting(AccountName("client_wallet", OWNER, "EUR"), -minor),
    )
    done = await api.lane.submit(
        Unit((), (Entry(number, "deposit", key, api.clock.now().date(), sides),))
    )
    assert isinstance(done, Done)
    return done.entries[0]


async def test_balances_and_entries_are_shown_as_texts_on_their_normal_side(api: Api) -> None:
    """A client's wallet is a liability: what we owe is positive there, negative as a posting."""
    entry_id = await book(api, "PY1", 12_345)

    held = await (await api.call("GET", f"/v1/ledger/balances?owner={OWNER}")).json()
    entry = await (await api.call("GET", f"/v1/ledger/entries/{entry_id}")).json()
    found = await (await api.call("GET", "/v1/ledger/entries?key=PY1")).json()

    assert held["data"] == [
        {
            "entity": "fx-eu", "kind": "client_wallet", "owner": OWNER, "currency": "EUR",
            "balance": "123.45", "version": 1,
        }
    ]  # fmt: skip
    assert held["complete"] is True
    amounts = {side["kind"]: side["amount"] for side in entry["postings"]}
    assert amounts == {"psp_clearing": "123.45", "client_wallet": "-123.45"}
    assert found["data"] == [entry]


async def test_a_moment_is_answered_once_it_is_closed_and_for_ever(api: Api) -> None:
    """Too near is a 409 that names the horizon; after it the same moment has one balance."""
    await book(api, "PY1", 100)
    moment = (api.clock.now() + timedelta(milliseconds=50)).isoformat().replace("+", "%2B")
    path = f"/v1/ledger/balances?owner={OWNER}&as_of={moment}"

    early = await api.call("GET", path)
    async with asyncio.timeout(20):
        while (answer := await api.call("GET", path)).status == 409:
            await asyncio.sleep(0.2)
    before = await answer.json()
    await book(api, "PY2", 900)
    after = await (await api.call("GET", path)).json()
    now = await (await api.call("GET", f"/v1/ledger/balances?owner={OWNER}")).json()

    assert (early.status, (await early.json())["code"]) == (409, "not-closed")
    assert before == after
    assert (after["data"][0]["balance"], now["data"][0]["balance"]) == ("1.00", "10.00")


async def test_entries_come_in_pages(api: Api) -> None:
    """By id, without a gap or a repetition."""
    made = [await book(api, f"PY{n}", 100) for n in range(5)]
    seen: list[int] = []
    after = 0
    while True:
        page = await (await api.call("GET", f"/v1/ledger/entries?limit=2&after={after}")).json()
        seen += [entry["id"] for entry in page["data"]]
        if page["next"] is None:
            break
        after = page["next"]

    assert seen == made


async def test_the_books_of_other_entities_do_not_exist(api: Api) -> None:
    """Neither by list, nor by id, nor by the entity's name."""
    mine = await book(api, "PY1", 100, number=1)
    theirs = await book(api, "PY2", 100, number=2)
    narrow = await api.key(entities=("fx-eu",))

    balances = await (await api.call("GET", "/v1/ledger/balances", token=narrow)).json()
    listed = await (await api.call("GET", "/v1/ledger/entries", token=narrow)).json()

    assert {held["entity"] for held in balances["data"]} == {"fx-eu"}
    assert [entry["id"] for entry in listed["data"]] == [mine]
    for path in (f"/v1/ledger/entries/{theirs}", "/v1/ledger/balances?entity=fx-int"):
        assert (await api.call("GET", path, token=narrow)).status == 404


async def test_a_kind_that_the_chart_does_not_have_is_refused(api: Api) -> None:
    """A typo is not an empty list."""
    answer = await api.call("GET", "/v1/ledger/balances?kind=client_walet")

    assert (answer.status, (await answer.json())["code"]) == (422, "account-kind-unknown")
