"""What partners earned over the API: balances, lines, explanations and what is owed in all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from gateway import verify
from tests.integration.gateway.conftest import Api
from tests.integration.gateway.earning import SERVER, Earner
from tests.support.servers import Database

ACCOUNT = """
INSERT INTO bridge.account (id, version, client_id, book, server, entity, brand, account_type,
    currency, platform_group, leverage, rights, login, state, correlation, created, updated)
VALUES ($1, 1, $2, 1, $3, 'fx-eu', 'northgate', 'standard',
    'EUR', 'g', 100, 0, $4, 'verified', 'c', now(), now())
"""


@pytest_asyncio.fixture
async def earner(api: Api, database: Database) -> AsyncIterator[Earner]:
    """Book 1 at work."""
    async with Earner(api, database).at_work() as working:
        yield working


async def client_of(api: Api, contract: Mapping[str, Any]) -> None:
    """A client who came through the contract, with the account that `Earner.earns` deals on."""
    client = await api.new_client("of-" + contract["id"], attribution={"code": contract["code"]})
    login = int.from_bytes(contract["id"].encode()[-6:])
    account = api.parts.ids.new("AC")
    await api.owner.execute(ACCOUNT, account, client["id"], SERVER, login)


@pytest_asyncio.fixture
async def chain(api: Api) -> tuple[dict[str, Any], dict[str, Any]]:
    """A partner's contract below a master's, with a client each."""
    master = await api.new_contract("master", plan="eu-master")
    partner = await api.new_contract("partner", parent=master["id"])
    await client_of(api, partner)
    return partner, master


async def read(api: Api, path: str, **how: Any) -> dict[str, Any]:
    """What a path answers."""
    answer = await api.call("GET", path, **how)
    assert answer.status == 200, await answer.text()
    return dict(await answer.json())


async def test_balances_say_what_was_earned(
    api: Api, earner: Earner, chain: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """Each contract has its share of the chain, today's apart, and its lines counted."""
    partner, master = chain
    before = await read(api, f"/v1/partners/{partner['partner']}/balances")
    assert before["contracts"][0]["accrued"] == "0.00"
    assert before["contracts"][0]["currency"] == "EUR"

    await earner.earns(partner, "1", "0.5")

    (below,) = (await read(api, f"/v1/partners/{partner['partner']}/balances"))["contracts"]
    (above,) = (await read(api, f"/v1/partners/{master['partner']}/balances"))["contracts"]
    assert (below["accrued"], below["today"], below["lines"]) == ("7.50", "7.50", 2)
    assert (above["accrued"], above["today"], above["lines"]) == ("4.50", "4.50", 2)
    assert (below["held"], below["payable"]) == ("0.00", "0.00")
    assert below["contract"] == partner["id"]
    assert (below["last_line"], above["last_line"]) == (3, 4)


async def test_balances_as_of_a_closed_moment_stay_as_they_were(
    api: Api, earner: Earner, chain: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """What was read as of a moment is read so for ever; a moment that is open is refused."""
    partner, _ = chain
    path = f"/v1/partners/{partner['partner']}/balances"
    await earner.earns(partner, "1")
    (first,) = (await read(api, path))["contracts"]
    moment = first["at"].replace("+", "%2B")
    early = await api.call("GET", f"{path}?as_of={moment}")
    await asyncio.sleep(0)
    assert early.status in (200, 409)  # the books close a few seconds behind the clock
    await earner.earns(partner, "2")
    async with asyncio.timeout(20):
        while (await api.call("GET", f"{path}?as_of={moment}")).status == 409:
            await asyncio.sleep(0.2)

    then = await read(api, f"{path}?as_of={moment}")

    assert then["contracts"] == [first]
    (now,) = (await read(api, path))["contracts"]
    assert now["accrued"] == "15.00"
    ahead = (datetime.now(UTC) + timedelta(hours=1)).isoformat().replace("+", "%2B")
    refused = await api.call("GET", f"{path}?as_of={ahead}")
    assert (refused.status, (await refused.json())["code"]) == (409, "not-closed")


async def test_lines_are_read_in_order_and_newest_first(
    api: Api, earner: Earner, chain: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """Pages neither leave out a line nor repeat one, whichever way they are read."""
    partner, _ = chain
    for _ in range(4):
        await earner.earns(partner, "0.1", "0.2", "0.3")
    path = f"/v1/partners/{partner['partner']}/lines"

    forward, after = [], 0
    while True:
        page = await read(api, f"{path}?limit=5&after={after}")
        forward += page["data"]
        if page["next"] is None:
            break
        after = page["next"]
    backward, before = [], 0
    while True:
        page = await read(api, f"{path}?limit=5&newest=true&before={before}")
        backward += page["data"]
        if page["next"] is None:
            break
        before = page["next"]

    assert [line["no"] for line in forward] == list(range(1, 25, 2))
    assert backward == forward[::-1]
    first = forward[0]
    assert first["amount"] == "0.50"
    assert (first["kind"], first["reason"], first["level"]) == ("ordinary", "paid", 1)
    assert (first["deal"]["symbol"], first["deal"]["lots"]) == ("EURUSD", "0.1")
    last = forward[-1]["no"]
    assert (await read(api, f"{path}?after={last}"))["data"] == []


async def test_lines_as_of_a_closed_moment_stay_as_they_were(
    api: Api, earner: Earner, chain: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """A later batch changes nothing in any page of the moment; a moment that is open is refused."""
    partner, _ = chain
    path = f"/v1/partners/{partner['partner']}/lines"
    await earner.earns(partner, "0.1", "0.2", "0.3")
    first = (await read(api, f"{path}"))["data"]
    at = datetime.fromisoformat(first[-1]["at"])
    moment, before = (
        each.isoformat().replace("+", "%2B") for each in (at, at - timedelta(microseconds=1))
    )
    await earner.earns(partner, "2", "3")  # behind the moment, though it may not be closed yet
    async with asyncio.timeout(20):
        while (await api.call("GET", f"{path}?as_of={moment}")).status == 409:
            await asyncio.sleep(0.2)

    assert len((await read(api, path))["data"]) == 5
    then = await read(api, f"{path}?as_of={moment}")
    assert (then["data"], then["next"]) == (first, None)
    assert datetime.fromisoformat(then["as_of"]) == at
    newest = await read(api, f"{path}?newest=true&as_of={moment}")
    assert (newest["data"], newest["next"]) == (first[::-1], None)
    last = first[-1]["no"]
    page = await read(api, f"{path}?as_of={moment}&limit=2")
    assert (page["data"], page["next"]) == (first[:2], first[1]["no"])
    page = await read(api, f"{path}?as_of={moment}&limit=2&after={page['next']}")
    assert (page["data"], page["next"]) == (first[2:], None)
    older = await read(api, f"{path}?newest=true&before={last}&as_of={moment}")
    assert older["data"] == first[-2::-1]
    for way in ("", "&newest=true"):
        assert (await read(api, f"{path}?as_of={before}{way}"))["data"] == []
    held = await read(api, f"/v1/partners/{partner['partner']}/balances?as_of={moment}")
    assert held["contracts"][0]["lines"] == len(first)
    ahead = (datetime.now(UTC) + timedelta(hours=1)).isoformat().replace("+", "%2B")
    lone = await api.new_partner("lone")
    for of in (partner["partner"], lone["id"]):  # who has no contract yet may have lines by then
        refused = await api.call("GET", f"/v1/partners/{of}/lines?as_of={ahead}")
        assert (refused.status, (await refused.json())["code"]) == (409, "not-closed")


async def test_a_partner_with_several_contracts_names_one(api: Api) -> None:
    """Lines are counted within a book, so a page is of one contract."""
    contract = await api.new_contract()
    partner = {"id": contract["partner"]}
    path = f"/v1/partners/{contract['partner']}/lines"
    assert (await read(api, path))["data"] == []
    made = await api.ask_contract(partner, brand="southbank", currency="USD", plan="int-partner")
    assert made.status == 201
    refused = await api.call("GET", path)
    assert (refused.status, (await refused.json())["code"]) == (422, "contract-needed")
    assert (await read(api, f"{path}?contract={contract['id']}"))["data"] == []
    strange = await api.call("GET", f"{path}?contract=CT000000000000000000")
    assert strange.status == 404


async def test_an_explanation_reaches_the_same_cent(
    api: Api, earner: Earner, chain: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """The deal, the chain, each rate and what is left of it, exact and rounded."""
    partner, master = chain
    await earner.earns(partner, "0.013")
    (line,) = (await read(api, f"/v1/partners/{master['partner']}/lines"))["data"]

    said = await read(api, f"/v1/rebates/{line['id']}/explanation")

    assert said["agrees"] is True
    assert said["line"] == line
    assert said["amount"] == line["amount"] == "0.04"
    assert (said["fact"]["symbol"], said["base"], said["mode"]) == (
        "EURUSD", "0.013", "differential",
    )  # fmt: skip
    assert said["attribution"]["contract"] == partner["id"]
    below, above = said["levels"]
    assert (below["contract"], below["per_lot"], below["exact"]) == (partner["id"], "5.00", "0.065")
    assert (above["below"], above["per_lot"], above["earned"]) == ("5.00", "8.00", "3.00")
    assert (above["exact"], above["amount"], above["left"]) == ("0.039", "0.04", "-0.001")
    assert above["rule"] == "group fx-majors"
    assert len(above["plan_hash"]) == 64
    assert said["total"] == {"exact": "0.104", "amount": "0.10"}


async def test_every_line_explains_itself(
    api: Api, earner: Earner, chain: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """Paid, carried, rounded, opening, without a rate: computed again each says what it said."""
    partner, master = chain
    await earner.earns(partner, *["0.0007"] * 40)
    await earner.earns(partner, "1", entry=0)
    await earner.earns(partner, "1", symbol="XAUUSD")
    found = []
    for contract in (partner, master):
        page = await read(api, f"/v1/partners/{contract['partner']}/lines?limit=200")
        found += page["data"]
    kinds = {(line["kind"], line["reason"]) for line in found}
    assert kinds == {
        ("ordinary", "carried"), ("ordinary", "opening"), ("ordinary", "no_rate_rule"),
        ("ordinary", "paid"), ("rounding", "rounding"),
    }  # fmt: skip
    for line in found:
        said = await read(api, f"/v1/rebates/{line['id']}/explanation")
        assert said["agrees"] is True, said
        assert said["amount"] == line["amount"]


async def test_what_changed_later_explains_nothing_earlier(
    api: Api, earner: Earner, chain: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """A line is explained by what its batch could know, whatever was made known since."""
    partner, _ = chain
    await earner.earns(partner, "1")
    (line,) = (await read(api, f"/v1/partners/{partner['partner']}/lines"))["data"]
    before = await read(api, f"/v1/rebates/{line['id']}/explanation")
    await api.owner.execute(
        "INSERT INTO gateway.contract_terms (contract_id, since, plan, book, inputs) "
        "VALUES ($1, $2, 'eu-master', 1, 99)",
        partner["id"], datetime.fromisoformat(before["fact"]["at"]) - timedelta(seconds=0.001),
    )  # fmt: skip
    assert await read(api, f"/v1/rebates/{line['id']}/explanation") == before


async def test_a_line_out_of_reach_is_not_there(
    api: Api, earner: Earner, chain: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """A key of another entity, an id that is none, a number not given yet: all the same answer."""
    partner, _ = chain
    await earner.earns(partner, "1")
    away = await api.key(owner="away", entities=("fx-int",))
    for token, line in ((away, "1-1"), (None, "1-99"), (None, "7"), (None, "1-1x"), (None, "9-1")):
        answer = await api.call("GET", f"/v1/rebates/{line}/explanation", token=token)
        assert (answer.status, (await answer.json())["code"]) == (404, "not-found"), line
    reader = await api.key("reader")
    answer = await api.call("GET", "/v1/rebates/1-1/explanation", token=reader)
    assert answer.status == 403


async def test_what_is_owed_is_what_the_accounts_hold(
    api: Api, earner: Earner, chain: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """By entity and currency, the contracts' balances come to the ledger's accounts."""
    partner, master = chain
    await earner.earns(partner, "1.5", "0.25")
    owed = await read(api, "/v1/rebates/liability")
    assert owed["data"] == [
        {
            "entity": "fx-eu", "currency": "EUR", "accrued": "14.00", "held": "0.00",
            "payable": "0.00", "total": "14.00", "earned": "14.00", "contracts": 2,
        }
    ]  # fmt: skip
    total = 0.0
    for contract in (partner, master):
        (held,) = (await read(api, f"/v1/partners/{contract['partner']}/balances"))["contracts"]
        total += float(held["accrued"])
    assert total == 14.0
    accounts = await read(api, "/v1/ledger/balances?kind=rebate_expense")
    assert [each["balance"] for each in accounts["data"]] == ["14.00"]
    away = await api.key(owner="away", entities=("fx-int",))
    assert (await read(api, "/v1/rebates/liability", token=away))["data"] == []


# The account of these tests was never asked for, so it has no events and no audit.
UNRELATED = {"state-off-events", "object-without-audit"}


@pytest.mark.parametrize("amount", [1, -1])
async def test_verify_names_a_line_that_was_changed_by_a_cent(
    api: Api,
    earner: Earner,
    chain: tuple[dict[str, Any], dict[str, Any]],
    database: Database,
    amount: int,
) -> None:
    """A database owner can change a line; the proof says which one, and what it should say."""
    partner, _ = chain
    await earner.earns(partner, "1", "0.5", *["0.0007"] * 30)
    assert [w for w in await verify.run(database.owner_dsn) if w.code not in UNRELATED] == []
    async with api.owner.transaction():
        await api.owner.execute("ALTER TABLE ledger.rebate_line DISABLE TRIGGER USER")
        await api.owner.execute(
            "UPDATE ledger.rebate_line SET amount = amount + $1 WHERE no = 3", amount
        )
        await api.owner.execute("ALTER TABLE ledger.rebate_line ENABLE TRIGGER USER")

    wrong = await verify.run(database.owner_dsn)

    named = [(w.subject, w.detail) for w in wrong if w.code == "line-altered"]
    says = f"says {250 + amount} (paid, level 1, plan"
    assert len(named) == 1, wrong
    assert named[0][0] == "1-3"
    assert named[0][1].startswith(says), named
    assert "computes 250 (paid" in named[0][1]
    codes = {w.code for w in wrong}
    assert {"lines-off-postings", "batch-altered", "contract-batch-off"} <= codes
