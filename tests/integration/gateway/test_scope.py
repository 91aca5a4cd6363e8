"""What lies outside a grant does not exist: no endpoint, list or total shows a byte of it.

Each corner of the house (an entity, a brand, a desk, a partner) is filled with things whose every
text bears the corner's own mark; whoever reaches one corner asks every endpoint for everything.
"""

from __future__ import annotations

import random
import re
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from gateway.control import audit, keys
from gateway.control.access import NONE, Caller, Held, Reach
from gateway.control.items import item_opened
from gateway.http.app import ROUTES
from gateway.http.serving import PUBLIC
from gateway.people import clients
from ledger.facts import AccountName, Entry, Posting
from ledger.units import Done, Unit
from tests.integration.gateway.conftest import Api

PAYMENT = """
INSERT INTO router.payment
SELECT r.* FROM jsonb_populate_record(NULL::router.payment, $1::text::jsonb) AS r
"""
DECISION = """
INSERT INTO router.decision (payment_id, rulebook, trace) VALUES ($1, 'r', $2::text::jsonb)
"""
ACCOUNT = """
INSERT INTO bridge.account
SELECT r.* FROM jsonb_populate_record(NULL::bridge.account, $1::text::jsonb) AS r
"""
SEAT = "UPDATE gateway.client SET desk = $2 WHERE id = $1"
CORNERS = (
    # mark, entity, book, brand, currency, plan, desk
    ("alpha", "fx-eu", 1, "northgate", "EUR", "eu-partner", "desk-one"),
    ("bravo", "fx-int", 2, "southbank", "USD", "int-partner", "desk-one"),
    ("delta", "fx-int", 2, "eastwind", "USD", "int-partner", "desk-two"),
)
# Who reaches which corners: a grant's sets -> the marks within.
REACHES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "an entity": ({"entities": ("fx-eu",)}, {"alpha"}),
    "a jurisdiction": ({"jurisdictions": ("SC",)}, {"bravo", "delta"}),
    "a brand": ({"brands": ("eastwind",)}, {"delta"}),
    "a desk": ({"desks": ("desk-one",)}, {"alpha", "bravo"}),
    "an entity and a desk": ({"entities": ("fx-int",), "desks": ("desk-two",)}, {"delta"}),
    "an entity and a brand of another": ({"entities": ("fx-eu",), "brands": ("eastwind",)}, set()),
    "nothing known": ({"entities": ("moon",)}, set()),
}


class Corner:
    """What one corner holds: ids by which it can be asked for, and its mark."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.ids: dict[str, str] = {}


async def fill(api: Api, row: tuple[Any, ...]) -> Corner:
    """Something of everything in one corner."""
    mark, entity, book, brand, currency, plan, desk = row
    corner, new = Corner(mark), api.parts.ids.new
    contract = await api.new_contract(f"{mark}-p", brand=brand, currency=currency, plan=plan,
                                      code=f"{mark.upper()}1")  # fmt: skip
    client = await api.new_client(f"{mark}-c", brand=brand, currency=currency,
                                  attribution={"code": contract["code"]})  # fmt: skip
    await api.owner.execute(SEAT, client["id"], desk)
    view = await api.walk(client, "registered", "kyc_pending", "kyc_under_review")
    asked = await api.move(view, "approved", reason=f"{mark} is in order")
    assert asked.status == 202, await asked.text()
    payment, account, item = new("PY"), new("AC"), new("IT")
    common = {
        "version": 1, "client_id": client["id"], "book": book, "entity": entity, "brand": brand,
        "currency": currency, "caller": "crm", "correlation": "c", "reason": f"{mark}-why",
        "created": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    paid = common | {
        "id": payment, "state": "approved", "country": "DE", "method": "card", "risk_band": "low",
        "instrument": "", "amount_minor": 100, "account_id": "", "rulebook": "r",
    }  # fmt: skip
    traded = common | {
        "id": account, "server": "mt5", "account_type": "standard", "platform_group": mark,
        "leverage": 30, "rights": 355, "state": "requested", "attempts": 0, "lease_owner": "",
        "updated": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    await api.owner.execute(PAYMENT, msgspec.json.encode(paid).decode())
    route = {"rulebook": "r", "rule": f"{mark}-rule", "candidates": [], "left_out": []}
    await api.owner.execute(DECISION, payment, msgspec.json.encode(route).decode())
    await api.owner.execute(ACCOUNT, msgspec.json.encode(traded).decode())
    opened = item_opened(
        item, "test", "payments", str(client["id"]), f"{mark} stands still", api.clock.now(),
        entity=entity,
    )  # fmt: skip
    await api.owner.execute(
        "INSERT INTO ledger.book (id, entity, currency) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        book, entity, currency,
    )  # fmt: skip
    sides = (
        Posting(AccountName("psp_clearing", f"{mark}-psp", currency), 100),
        Posting(AccountName("client_wallet", str(client["id"]), currency), -100),
    )
    entry = Entry(book, "deposit", payment, api.clock.now().date(), sides)
    done = await api.lane.submit(Unit((opened,), (entry,)))
    assert isinstance(done, Done)
    corner.ids = {
        "client": str(client["id"]), "contract": contract["id"], "partner": contract["partner"],
        "approval": (await asked.json())["id"], "payment": payment, "account": account,
        "item": item, "entry": str(done.entries[0]),
    }  # fmt: skip
    return corner


def strange(corners: list[Corner], within: set[str]) -> dict[str, str]:
    """Each text that must not be seen -> what it is."""
    found = {}
    for corner in corners:
        if corner.mark not in within:
            found |= {id: f"{corner.mark} {name}" for name, id in corner.ids.items() if len(id) > 9}
            found |= {corner.mark: corner.mark, corner.mark.upper() + "1": corner.mark}
    return found


def questions(corners: list[Corner], chance: random.Random) -> list[str]:
    """Every GET of the API, with every id of every corner and parameters of all kinds."""
    ids = [id for corner in corners for id in corner.ids.values()]
    asked = []
    for route in ROUTES:
        if route.method != "GET" or route.scope == PUBLIC or route.streams:
            continue
        paths = [route.path]
        if "{" in route.path:
            paths = [re.sub(r"\{\w+\}", id, route.path) for id in ids]
        for path in paths:
            asked.append(path)
            if route.params is None:
                continue
            for field in msgspec.structs.fields(route.params):
                values = chance.sample([*ids, "fx-eu", "fx-int", "open", "1", "200"], 4)
                asked += [f"{path}?{field.encode_name}={value}" for value in values]
    return asked


@pytest.mark.parametrize("reach", REACHES)
async def test_nothing_of_another_scope_is_seen(api: Api, reach: str) -> None:
    """Whatever is asked, at whatever endpoint: not one text of a corner that is out of reach."""
    corners = [await fill(api, row) for row in CORNERS]
    sets, within = REACHES[reach]
    token = await holding(api, reach, **sets)
    forbidden, leaks, shown = strange(corners, within), [], set()
    for path in questions(corners, random.Random(reach)):
        answer = await api.call("GET", path, token=token)
        text = await answer.text()
        if answer.status >= 400 or path.startswith("/desk/"):
            # The question's own words may be said again, nothing else: by a problem, by a form.
            text = text.replace(path, "").replace(path.rpartition("=")[2], "")
            text = text.replace(path.rpartition("/")[2], "") if answer.status == 404 else text
            for part in re.findall(r"[0-9A-Z]{20}|\d+", path):
                text = text.replace(part, "")
        leaks += [(path, what) for id, what in forbidden.items() if id in text]
        shown |= {corner.mark for corner in corners if corner.ids["client"] in text}

    assert not leaks
    assert shown >= within  # what is within reach is there to be seen


async def holding(api: Api, name: str, **sets: tuple[str, ...]) -> str:
    """A key with every permission within these sets."""
    owner = re.sub(r"\W+", "-", name)
    wish = keys.NewKey(owner, "everything", **sets)  # type: ignore[arg-type]
    by = audit.Command(keys.operator("root"), "test", "test", api.clock.now())
    async with api.pool.acquire() as conn, conn.transaction():
        _, token = await api.maker.add(conn, by, wish)
    return token


async def test_commands_on_what_is_out_of_reach_find_nothing(api: Api) -> None:
    """Every command with an id in its path answers 404 and changes nothing."""
    corner = await fill(api, CORNERS[0])
    token = await holding(api, "elsewhere", entities=("fx-int",))
    bodies = {
        "/v1/clients/{id}/moves": {"to": "archived", "expected_version": 4, "reason": "r"},
        "/v1/partners/{id}/contracts": {
            "brand": "southbank", "currency": "USD", "plan": "int-partner", "code": "ELSEWHERE"
        },
        "/v1/approvals/{id}/decide": {"decision": "refuse", "reason": "r"},
        "/v1/approvals/{id}/withdraw": {"reason": "r"},
        "/v1/items/{id}/resolve": {"reason": "r"},
        "/v1/partners/{id}/page-link": None,
        "/v1/partners/{id}/visits": None,
    }  # fmt: skip
    id_of = {"clients": "client", "partners": "partner", "approvals": "approval", "items": "item"}
    for route in ROUTES:
        if route.path in bodies:
            id = corner.ids[id_of[route.path.split("/")[2]]]
            path = route.path.replace("{id}", id)
            answer = await api.call(route.method, path, bodies[route.path], token=token)
            assert answer.status == 404, (path, await answer.text())
    assert set(bodies) <= {route.path for route in ROUTES}
    stream = await api.call("GET", f"/v1/partners/{corner.ids['partner']}/stream", token=token)
    assert stream.status == 404


async def test_a_partners_subtree_is_a_set_too(api: Api) -> None:
    """A grant for a partner reaches the clients below it, however deep, and no others."""
    top = await api.new_contract("top", code="TOP")
    below = await api.new_contract("below", code="BELOW", parent=top["id"])
    beside = await api.new_contract("beside", code="BESIDE")
    clients = {
        code: (await api.new_client(code, attribution={"code": code}))["id"]
        for code in ("TOP", "BELOW", "BESIDE")
    }
    organic = (await api.new_client("organic"))["id"]
    token = await holding(api, "manager", partners=(top["id"],))

    page = await (await api.call("GET", "/v1/clients", token=token)).json()
    held = await (await api.call("GET", "/v1/partners", token=token)).json()
    alone = await api.call("GET", f"/v1/clients/{clients['BELOW']}", token=token)
    other = await api.call("GET", f"/v1/contracts/{beside['id']}", token=token)
    payments = await api.call("GET", "/v1/payments", token=token)

    assert {each["id"] for each in page["data"]} == {clients["TOP"], clients["BELOW"]}
    assert organic not in {each["id"] for each in page["data"]}
    assert {each["id"] for each in held["data"]} == {top["partner"], below["partner"]}
    assert (alone.status, other.status) == (200, 404)
    assert (payments.status, (await payments.json())["code"]) == (422, "client-needed")


async def test_who_may_see_masked_sees_masked(api: Api) -> None:
    """The end of the reference, no risk and no type, in lists and alone; and no history."""
    client = await api.new_client("reference-77", risk_band="high")
    sales = await api.key("as.sales", owner="sally")

    alone = await (await api.call("GET", f"/v1/clients/{client['id']}", token=sales)).json()
    page = await (await api.call("GET", "/v1/clients", token=sales)).json()
    full = await (await api.call("GET", f"/v1/clients/{client['id']}")).json()
    history = await api.call("GET", f"/v1/clients/{client['id']}/history", token=sales)

    assert (alone["reference"], alone["risk_band"], alone["masked"]) == ("***77", "", True)
    assert page["data"] == [alone]
    assert (full["reference"], full["risk_band"], full["masked"]) == ("reference-77", "high", False)
    assert history.status == 403


async def test_a_grant_ends_with_its_time_and_when_it_is_taken_back(api: Api) -> None:
    """The key of a grant that is not in force is no key."""
    token = await api.key(owner="leaver")
    assert (await api.call("GET", "/v1/clients", token=token)).status == 200
    await api.owner.execute(
        "UPDATE gateway.access_grant SET valid_from = now() - interval '2 hours',"
        " valid_until = now() - interval '1 hour' WHERE person = 'leaver'"
    )
    api.clock.skew_s += timedelta(seconds=10).total_seconds()  # past the memory of keys

    assert (await api.call("GET", "/v1/clients", token=token)).status == 401


async def test_payments_are_seen_masked_too(api: Api) -> None:
    """What was paid and how it stands, without the way it went; in full to who may see it all."""
    corner = await fill(api, CORNERS[0])
    told = {}
    for name in ("support", "sales"):
        token = await api.key(f"as.{name}", owner=name, entities=("fx-eu",))
        alone = await api.call("GET", f"/v1/payments/{corner.ids['payment']}", token=token)
        page = await (await api.call("GET", "/v1/payments", token=token)).json()
        mine = f"/v1/payments?client={corner.ids['client']}"
        of_client = await (await api.call("GET", mine, token=token)).json()
        told[name] = [await alone.json(), page["data"][0], of_client["data"][0]]
    trace = f"/v1/payments/{corner.ids['payment']}/trace"

    assert [(it["masked"], it["reason"]) for it in told["sales"]] == [(True, "")] * 3
    assert [(it["masked"], it["reason"]) for it in told["support"]] == [(False, "alpha-why")] * 3
    sales = await api.key("as.sales", owner="sales", entities=("fx-eu",))
    assert (await api.call("GET", trace, token=sales)).status == 403


async def test_a_query_and_the_pure_rule_find_the_same(api: Api) -> None:
    """Of random callers with several grants each: what is listed is what `reaches` says."""
    contract = await api.new_contract("p", code="CODE")
    for number, (brand, desk, code) in enumerate(
        [("northgate", "one", "CODE"), ("northgate", "two", ""), ("southbank", "one", ""),
         ("eastwind", "", ""), ("northgate", "", "CODE"), ("southbank", "two", "")]
    ):  # fmt: skip
        more = {"attribution": {"code": code}} if code else {}
        made = await api.new_client(f"c-{number}", brand=brand, **more)
        await api.owner.execute(SEAT, made["id"], desk)
    whole = Caller(key_id="", person="a", owner="a", grants=(Held("GR", "r", NONE, Reach()),))
    chance, sizes = random.Random(4), set()
    sets = {
        "entities": ("fx-eu", "fx-int", "moon"), "brands": ("northgate", "southbank", "eastwind"),
        "desks": ("one", "two"), "partners": (contract["id"], "CT" + "0" * 18),
    }  # fmt: skip
    async with api.pool.acquire() as conn:
        everybody = await clients.page(conn, whole, state="", reference="", after="", limit=99)
        for _ in range(200):
            reaches = [
                Reach(**{
                    name: frozenset(chance.sample(tags, chance.randint(1, len(tags))))
                    for name, tags in sets.items() if chance.random() < 0.4
                })
                for _ in range(chance.randint(0, 3))
            ]  # fmt: skip
            grants = tuple(Held(f"GR{n}", "r", NONE, reach) for n, reach in enumerate(reaches))
            caller = msgspec.structs.replace(whole, grants=grants)
            listed = await clients.page(conn, caller, state="", reference="", after="", limit=99)
            assert listed == [it for it in everybody if caller.reaches(it.tags)], reaches
            for it in everybody:
                alone = await clients.find_within(conn, caller, it.id)
                assert (alone is not None) is caller.reaches(it.tags), (reaches, it.tags)
            sizes.add(len(listed))

    assert len(sizes) > 3  # neither always all nor always nothing
