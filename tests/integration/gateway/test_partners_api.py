"""Partners through the API: contracts with a place in a tree, and clients who came through them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from config.load import hash_of
from gateway.control import audit, keys
from gateway.control import rulebook as rulebooks
from gateway.people import attribution, partners
from ledger.rebates import inputs
from tests.integration.gateway.conftest import BOOK, Api

NOBODY = "CT" + "0" * 18


async def moves_of_inputs(api: Api, book: int = 1) -> int:
    """The version of a book's inputs now."""
    async with api.pool.acquire() as conn:
        return await inputs.version(conn, book)


async def code(answer: object) -> str:
    """The code of a problem."""
    return str((await answer.json())["code"])  # type: ignore[attr-defined]


# --- partners -----------------------------------------------------------------------------------


async def test_a_partner_is_made_known_and_read_back(api: Api) -> None:
    """201 with a Location at which the same partner stands, with no contract yet."""
    answer = await api.call("POST", "/v1/partners", {"reference": "p-1", "kind": "master"})
    view = await answer.json()
    assert (answer.status, view["kind"], view["state"]) == (201, "master", "active")
    assert view["contracts"] == []
    found = await api.call("GET", answer.headers["Location"])
    assert await found.json() == view


async def test_a_reference_names_one_partner_of_a_caller(api: Api) -> None:
    """The second is refused and told of the first; another caller may use the same."""
    first = await api.new_partner()
    again = await api.call("POST", "/v1/partners", {"reference": "p-1"})
    assert (again.status, await code(again)) == (409, "reference-taken")
    assert (await again.json())["partner"] == first["id"]
    other = await api.key(owner="crm")
    assert (await api.call("POST", "/v1/partners", {"reference": "p-1"}, token=other)).status == 201


async def test_partners_are_listed_newest_first_and_found_by_reference(api: Api) -> None:
    """Page by page, each with its contracts; the reference is the caller's own."""
    made = [await api.new_partner(f"p-{n}") for n in range(3)]
    contract = await (await api.ask_contract(made[2])).json()
    page = await (await api.call("GET", "/v1/partners?limit=2")).json()
    assert [it["id"] for it in page["data"]] == [made[2]["id"], made[1]["id"]]
    assert page["data"][0]["contracts"] == [contract]
    rest = await (await api.call("GET", f"/v1/partners?limit=2&after={page['next']}")).json()
    assert [it["id"] for it in rest["data"]] == [made[0]["id"]]
    assert rest["next"] is None
    found = await (await api.call("GET", "/v1/partners?reference=p-1")).json()
    assert [it["id"] for it in found["data"]] == [made[1]["id"]]


# --- contracts ----------------------------------------------------------------------------------


async def test_a_contract_has_a_place_in_the_tree_and_a_plan(api: Api) -> None:
    """The brand decides entity and books; the code is made from the id unless it is given."""
    upper = await api.new_contract("p-1", plan="eu-master", code="MASTER-1")
    answer = await api.ask_contract(await api.new_partner("p-2"), parent=upper["id"])
    lower = await answer.json()
    assert answer.status == 201
    assert (lower["entity"], lower["parent"], lower["plan"], lower["code"]) == (
        "fx-eu", upper["id"], "eu-partner", lower["id"][2:],
    )  # fmt: skip
    assert await (await api.call("GET", answer.headers["Location"])).json() == lower
    above = await (await api.call("GET", f"/v1/contracts/{upper['id']}")).json()
    assert (above["code"], above["parent"], above["children"]) == ("MASTER-1", None, 1)


async def test_each_contract_moves_the_inputs_of_its_book_in_its_own_transaction(api: Api) -> None:
    """By one, and its rows bear the version they made; partners and clients move nothing."""
    before = await moves_of_inputs(api), await moves_of_inputs(api, 2)
    contract = await api.new_contract()
    await api.new_client(attribution={"code": contract["code"]})
    assert (await moves_of_inputs(api), await moves_of_inputs(api, 2)) == (before[0] + 1, before[1])
    for table in ("contract_edge", "contract_terms"):
        rows = await api.rows(f"SELECT inputs FROM gateway.{table}")
        assert [row["inputs"] for row in rows] == [before[0] + 1], table


WAITS = """
SELECT count(*) FROM pg_stat_activity
 WHERE wait_event_type = 'Lock' AND datname = current_database()
"""
BEGINS = """
SELECT min(since) AS first, max(since) AS last
  FROM (SELECT since FROM gateway.contract_edge
        UNION ALL SELECT since FROM gateway.contract_terms) dated
"""


async def test_a_contract_begins_once_every_batch_that_did_not_know_it_is_done(api: Api) -> None:
    """It waits for a batch that commits, and begins after it by the server's clock; whoever comes
    through it begins later still.
    """
    partner = await api.new_partner()
    async with api.pool.acquire() as accrual:
        async with accrual.transaction():
            await inputs.share(accrual, 1)
            asked = asyncio.create_task(api.ask_contract(partner))
            async with api.pool.acquire() as watcher, asyncio.timeout(10):
                while not await watcher.fetchval(WAITS):
                    await asyncio.sleep(0.01)
            done = await accrual.fetchval("SELECT clock_timestamp()")
        contract = await (await asked).json()
        begins = await accrual.fetchrow(BEGINS)
        assert done < begins["first"] == begins["last"]
        await api.new_client(attribution={"code": contract["code"]})
        came = "SELECT since FROM gateway.attribution WHERE contract_id = $1"
        assert await accrual.fetchval(came, contract["id"]) > begins["last"]


async def test_many_contracts_at_once_each_get_a_version(api: Api) -> None:
    """Nobody is refused because another was quicker."""
    before = await moves_of_inputs(api)
    made = [await api.new_partner(f"p-{n}") for n in range(12)]
    answers = await asyncio.gather(*[api.ask_contract(partner) for partner in made])
    assert [answer.status for answer in answers] == [201] * 12
    rows = await api.rows("SELECT inputs FROM gateway.contract ORDER BY inputs")
    assert [row["inputs"] for row in rows] == [before + n for n in range(1, 13)]


async def test_inputs_that_another_replica_moved_are_read_again(api: Api) -> None:
    """A command that finds them moved decides again with the new version."""
    partner = await api.new_partner()
    conn = await api.pool.acquire()
    held = conn.transaction()
    await held.start()
    await conn.execute("UPDATE ledger.inputs SET version = version + 1 WHERE book_id = 1")
    asked = asyncio.create_task(api.ask_contract(partner))
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
        "AND datname = current_database()"
    )
    while not (await api.rows(waiting))[0]["count"]:
        await asyncio.sleep(0.01)
    await held.commit()
    await api.pool.release(conn)
    view = await (await asked).json()
    assert (await api.rows("SELECT inputs FROM gateway.contract WHERE id = $1", view["id"]))[0][
        "inputs"
    ] == await moves_of_inputs(api)


@pytest.mark.parametrize(
    ("wish", "status", "expected"),
    [
        ({"brand": "nobody"}, 422, "brand-unknown"),
        ({"plan": "eu-moon"}, 422, "plan-unknown"),
        ({"plan": "int-partner"}, 422, "currency-mismatch"),
        ({"parent": NOBODY}, 422, "parent-unknown"),
        ({"code": "x"}, 422, "invalid-request"),
        ({"parent": "PY"}, 422, "invalid-request"),
    ],
)
async def test_a_contract_that_cannot_stand_is_refused(
    api: Api, wish: dict[str, object], status: int, expected: str
) -> None:
    """With a code, and without a trace."""
    before = await moves_of_inputs(api)
    answer = await api.ask_contract(await api.new_partner(), **wish)
    assert (answer.status, await code(answer)) == (status, expected)
    assert await api.rows("SELECT 1 FROM gateway.contract") == []
    assert await moves_of_inputs(api) == before


async def test_a_chain_stays_in_its_books_and_its_currency(api: Api) -> None:
    """A parent of another entity or another currency is refused."""
    usd = {"currency": "USD", "plan": "int-partner"}
    eu, eu_usd = await api.new_contract("p-1"), await api.new_contract("p-2", **usd)
    partner = await api.new_partner("p-3")
    elsewhere = await api.ask_contract(partner, brand="southbank", parent=eu["id"], **usd)
    assert (elsewhere.status, await code(elsewhere)) == (422, "parent-elsewhere")
    other = await api.ask_contract(partner, parent=eu_usd["id"])
    assert (other.status, await code(other)) == (422, "currency-mismatch")


async def test_a_partner_has_one_contract_with_a_brand(api: Api) -> None:
    """The second is refused and told of the first; another brand is another contract."""
    first = await api.new_contract()
    partner = {"id": first["partner"]}
    again = await api.ask_contract(partner, plan="eu-master")
    assert (again.status, await code(again)) == (409, "contract-exists")
    assert (await again.json())["contract"] == first["id"]
    usd = {"currency": "USD", "plan": "int-partner"}
    assert (await api.ask_contract(partner, brand="southbank", **usd)).status == 201
    view = await (await api.call("GET", f"/v1/partners/{partner['id']}")).json()
    assert [it["brand"] for it in view["contracts"]] == ["northgate", "southbank"]


async def test_a_code_names_one_contract(api: Api) -> None:
    """Also when two ask for it at the same time, on two replicas."""
    await api.new_contract("p-1", code="GOLD")
    taken = await api.ask_contract(await api.new_partner("p-2"), code="GOLD")
    assert (taken.status, await code(taken)) == (409, "code-taken")
    made = [await api.new_partner(f"q-{n}") for n in range(4)]
    answers = await asyncio.gather(*[api.ask_contract(each, code="SILVER") for each in made])
    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409]


async def test_a_repeated_request_hears_the_first_answer(api: Api) -> None:
    """Byte for byte, with one contract and one move of inputs."""
    partner = await api.new_partner()
    first = await api.ask_contract(partner, key="k", code="GOLD")
    before = await moves_of_inputs(api)
    again = await api.ask_contract(partner, key="k", code="GOLD")
    assert (again.status, await again.read()) == (201, await first.read())
    assert again.headers["Location"] == first.headers["Location"]
    assert await moves_of_inputs(api) == before


async def test_a_contract_is_not_made_with_rules_that_are_not_in_force(api: Api) -> None:
    """A process whose rulebook was replaced says so; whoever asks again finds another process."""
    partner = await api.new_partner()
    other = msgspec.structs.replace(BOOK, hash=hash_of(b"{ }"), source=b"{ }")
    async with api.pool.acquire() as conn:
        command = audit.Command(keys.operator("root"), "test", "test", api.clock.now())
        await rulebooks.adopt(conn, other, command, api.parts.ids)
    answer = await api.ask_contract(partner)
    assert (answer.status, await code(answer)) == (503, "rulebook-moved")


# --- who sees what ------------------------------------------------------------------------------


async def test_partners_exist_for_those_in_whose_entities_they_have_contracts(api: Api) -> None:
    """And for whoever made them known; others hear that there is none."""
    contract = await api.new_contract()
    bare = await api.new_partner("p-2")
    inside = await api.key(owner="crm", entities=("fx-eu",))
    outside = await api.key(owner="desk", entities=("fx-int",))
    path, own = f"/v1/partners/{contract['partner']}", f"/v1/contracts/{contract['id']}"
    assert (await api.call("GET", path, token=inside)).status == 200
    assert (await api.call("GET", own, token=inside)).status == 200
    assert (await api.call("GET", path, token=outside)).status == 404
    assert (await api.call("GET", own, token=outside)).status == 404
    assert (await api.call("GET", f"/v1/partners/{bare['id']}", token=inside)).status == 404
    page = await (await api.call("GET", "/v1/partners", token=inside)).json()
    assert [it["id"] for it in page["data"]] == [contract["partner"]]
    page = await (await api.call("GET", "/v1/partners", token=outside)).json()
    assert page["data"] == []


async def test_a_caller_gives_contracts_within_its_entities_only(api: Api) -> None:
    """Neither a brand nor a parent nor a partner of others exists for it."""
    contract = await api.new_contract()
    partner = {"id": contract["partner"]}
    outside = await api.key(owner="desk", entities=("fx-int",))
    answer = await api.ask_contract(partner, token=outside)
    assert await code(answer) == "brand-unknown"
    usd = {"brand": "southbank", "currency": "USD", "plan": "int-partner"}
    answer = await api.ask_contract(partner, token=outside, **usd)
    assert await code(answer) == "not-found"
    mine = await (
        await api.call("POST", "/v1/partners", {"reference": "mine"}, token=outside)
    ).json()
    answer = await api.ask_contract(mine, token=outside, parent=contract["id"], **usd)
    assert await code(answer) == "parent-unknown"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/partners"),
        ("POST", f"/v1/partners/PA{'0' * 18}/contracts"),
        ("GET", "/v1/partners"),
        ("GET", f"/v1/partners/PA{'0' * 18}"),
        ("GET", f"/v1/contracts/{NOBODY}"),
    ],
)
async def test_each_route_asks_for_its_scope(api: Api, method: str, path: str) -> None:
    """A credential without it is refused."""
    answer = await api.call(method, path, {}, token=await api.key(role="reader"))
    assert (answer.status, await code(answer)) == (403, "forbidden")


# --- clients ------------------------------------------------------------------------------------


async def test_a_client_comes_through_the_contract_of_its_code(api: Api) -> None:
    """Told at creation, shown everywhere a client is shown, kept as it was given."""
    contract = await api.new_contract(code="GOLD")
    came = {"code": "GOLD", "channel": "web", "campaign": "spring", "landing": "fx.example/eu"}
    client = await api.new_client(attribution=came)
    shown = {"contract": contract["id"], "code": "GOLD"}
    assert client["attribution"] == shown
    read = await (await api.call("GET", f"/v1/clients/{client['id']}")).json()
    assert read["attribution"] == shown
    page = await (await api.call("GET", "/v1/clients")).json()
    assert page["data"][0]["attribution"] == shown
    moved = await api.walk(client, "registered")
    assert moved["attribution"] == shown
    (row,) = await api.rows("SELECT * FROM gateway.attribution")
    assert msgspec.json.decode(row["captured"]) == came
    assert (row["book"], row["inputs"], row["actor"]) == (1, 0, "shop")


async def test_a_client_who_names_nobody_is_organic(api: Api) -> None:
    """Which is an answer too: it has its row."""
    client = await api.new_client()
    assert client["attribution"] is None
    (row,) = await api.rows("SELECT client_id, contract_id FROM gateway.attribution")
    assert tuple(row) == (client["id"], "")


async def test_a_code_counts_for_clients_of_its_brand(api: Api) -> None:
    """A code nobody has, and one of another brand of the same entity; no client is made."""
    usd = {"currency": "USD", "plan": "int-partner"}
    await api.new_contract(code="GOLD", brand="southbank", **usd)
    for brand, said in (("southbank", "SILVER"), ("eastwind", "GOLD")):
        body = {"reference": "c", "brand": brand, "country": "BR", "currency": "USD"}
        answer = await api.call("POST", "/v1/clients", body | {"attribution": {"code": said}})
        assert (answer.status, await code(answer)) == (422, "code-unknown")
    assert await api.rows("SELECT 1 FROM gateway.client") == []


@pytest.mark.parametrize(
    "came",
    [
        {},
        {"code": "GOLD", "landing": "fx.example/?mail=ann@example.org"},
        {"code": "GOLD", "channel": "two words"},
        {"code": "GOLD", "by": "ann"},
    ],
)
async def test_what_registration_says_is_plain(api: Api, came: dict[str, object]) -> None:
    """Labels and an address without a query: nothing in it may name a person."""
    body = {"reference": "c", "brand": "northgate", "country": "DE", "currency": "EUR"}
    answer = await api.call("POST", "/v1/clients", body | {"attribution": came})
    assert (answer.status, await code(answer)) == (422, "invalid-request")


# --- what accrual is handed ---------------------------------------------------------------------


async def test_accrual_is_handed_contracts_with_all_that_their_dates_say(api: Api) -> None:
    """Of one book, in its own words; and as they stood at an earlier version of the inputs."""
    upper = await api.new_contract("p-1", plan="eu-master")
    version = await moves_of_inputs(api)
    lower = await api.new_contract("p-2", parent=upper["id"])
    await api.new_contract("p-3", brand="southbank", currency="USD", plan="int-partner")
    async with api.pool.acquire() as conn:
        now = await partners.read_contracts(conn, 1)
        earlier = await partners.read_contracts(conn, 1, version)
    said = {
        it.id: (it.currency, [p for _, p in it.parents], [p for _, p in it.plans]) for it in now
    }
    assert said == {
        upper["id"]: ("EUR", [""], ["eu-master"]),
        lower["id"]: ("EUR", [upper["id"]], ["eu-partner"]),
    }
    assert [it.id for it in earlier] == [upper["id"]]


async def test_accrual_is_handed_what_changed_of_contracts(api: Api) -> None:
    """Whole, with all their dates, and nothing of those that stayed as they were."""
    upper = await api.new_contract("p-1", plan="eu-master")
    known = await moves_of_inputs(api)
    lower = await api.new_contract("p-2", parent=upper["id"])
    latest = await moves_of_inputs(api)
    async with api.pool.acquire() as conn:
        every = await partners.read_contracts(conn, 1)
        assert await partners.contracts_since(conn, 1, 0) == every
        changed = await partners.contracts_since(conn, 1, known)
        assert changed == [it for it in every if it.id == lower["id"]]
        assert await partners.contracts_since(conn, 1, latest) == []
    await api.owner.execute(
        "INSERT INTO gateway.contract_terms (contract_id, since, plan, book, inputs)"
        " VALUES ($1, now(), 'eu-partner', 1, $2)", upper["id"], latest + 1,
    )  # fmt: skip
    async with api.pool.acquire() as conn:
        (changed,) = await partners.contracts_since(conn, 1, latest)
    assert [plan for _, plan in changed.plans] == ["eu-master", "eu-partner"]
    assert [parent for _, parent in changed.parents] == [""]


async def test_accrual_is_told_whether_clients_changed_hands(api: Api) -> None:
    """Those who were just registered did not; a later row of one of them is a change."""
    client = await api.new_client("c-1", attribution={"code": (await api.new_contract())["code"]})
    async with api.pool.acquire() as conn:
        assert not await attribution.changed_since(conn, 1, 0)
    await api.owner.execute(
        "INSERT INTO gateway.attribution"
        " (client_id, since, contract_id, book, captured, inputs, actor)"
        " VALUES ($1, now(), '', 1, '{}', 7, 'ann')", client["id"],
    )  # fmt: skip
    async with api.pool.acquire() as conn:
        assert await attribution.changed_since(conn, 1, 6)
        assert not await attribution.changed_since(conn, 1, 7)
        assert not await attribution.changed_since(conn, 2, 6)


async def test_accrual_is_handed_whom_clients_came_through(api: Api) -> None:
    """Dated from the client's creation; "" for an organic client, nothing for a stranger."""
    contract = await api.new_contract()
    sent = await api.new_client("c-1", attribution={"code": contract["code"]})
    organic = await api.new_client("c-2")
    ids = [str(sent["id"]), str(organic["id"]), "CL" + "0" * 18]
    async with api.pool.acquire() as conn:
        found = await attribution.of_clients(conn, ids)
    assert {id: [who for _, who in dated] for id, dated in found.items()} == {
        ids[0]: [contract["id"]],
        ids[1]: [""],
    }


async def test_adopting_a_rulebook_publishes_what_changed_in_its_plans(api: Api) -> None:
    """A new content is a version from now on and moves the inputs of all books; the same is not."""
    command: Callable[[], audit.Command] = lambda: audit.Command(  # noqa: E731
        keys.operator("root"), "test", "test", api.clock.now()
    )
    before = await moves_of_inputs(api), await moves_of_inputs(api, 2)
    async with api.pool.acquire() as conn:
        await rulebooks.agree(conn, BOOK, command(), api.parts.ids, adopt=False)
        first = await inputs.plan_versions(conn)
        assert (await moves_of_inputs(api), await moves_of_inputs(api, 2)) == before
        partner, *others = BOOK.plans
        (rate,) = partner.rates
        dearer = msgspec.structs.replace(
            partner, rates=(msgspec.structs.replace(rate, per_lot="5.5"),)
        )
        book = msgspec.structs.replace(
            BOOK, plans=(dearer, *others), hash=hash_of(b"{ }"), source=b"{ }"
        )
        await rulebooks.adopt(conn, book, command(), api.parts.ids)
        then = await inputs.plan_versions(conn)
    assert (await moves_of_inputs(api), await moves_of_inputs(api, 2)) == (
        before[0] + 1, before[1] + 1,
    )  # fmt: skip
    assert {id: len(versions) for id, versions in first.items()} == dict.fromkeys(first, 1)
    old, new = then[partner.id]
    assert (old.plan.rate("EURUSD"), new.plan.rate("EURUSD")) == (5 * 10**10, 55 * 10**9)
    assert old.since < new.since
    assert {id: versions for id, versions in then.items() if id != partner.id} == {
        id: versions for id, versions in first.items() if id != partner.id
    }
