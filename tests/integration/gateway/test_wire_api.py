"""What the wire answers to everything that is not a good request, and that nothing changed."""

from __future__ import annotations

import asyncio
import re
from itertools import product

from gateway.control import audit, keys
from gateway.http.app import ROUTES
from gateway.http.problems import TABLE
from gateway.http.serving import PUBLIC, Route
from tests.integration.gateway.conftest import Api

ID = "PY" + "0" * 18
CLIENT = '"client":"CL000000000000000000","method":"card"'


def deposit(amount: str) -> bytes:
    """A deposit whose amount member is this JSON."""
    return b"{" + CLIENT.encode() + b',"amount":' + amount.encode() + b"}"


def path_of(route: Route) -> str:
    """The route's path with something in each variable."""
    return re.sub(r"\{\w+\}", ID, route.path)


MALFORMED = {
    "nothing": b"",
    "half": b'{"a":',
    "two values": deposit('{"amount":"1","currency":"EUR"}') + b"{}",
    "not UTF-8": deposit('{"amount":"1","currency":"EUR"}').replace(b"card", b"c\xff"),
    "NaN": deposit('{"amount":NaN,"currency":"EUR"}'),
    "a key twice": deposit('{"amount":"1","currency":"EUR","amount":"2"}'),
    "a lone surrogate": deposit('{"amount":"1","currency":"EUR"}').replace(b"card", b"\\ud800"),
    "deep": b"[" * 5000,
}
WRONG = {
    "a list": b"[]",
    "an unknown field": deposit('{"amount":"1","currency":"EUR"}').replace(b"{", b'{"x":1,', 1),
    "a missing field": b"{" + CLIENT.encode() + b"}",
    "a number": deposit('{"amount":100,"currency":"EUR"}'),
    "a fraction": deposit('{"amount":100.5,"currency":"EUR"}'),
    "1e30": deposit('{"amount":1e30,"currency":"EUR"}'),
    '"1e30"': deposit('{"amount":"1e30","currency":"EUR"}'),
    '"NaN"': deposit('{"amount":"NaN","currency":"EUR"}'),
    "negative": deposit('{"amount":"-1.00","currency":"EUR"}'),
    "a plus": deposit('{"amount":"+1","currency":"EUR"}'),
    "spaces": deposit('{"amount":" 1","currency":"EUR"}'),
    "leading zero": deposit('{"amount":"01","currency":"EUR"}'),
    "sixteen digits": deposit('{"amount":"1234567890123456","currency":"EUR"}'),
    "nine decimals": deposit('{"amount":"1.123456789","currency":"EUR"}'),
    "Arabic digits": deposit('{"amount":"١٠٠","currency":"EUR"}'),
    "a final line break": deposit('{"amount":"1\\n","currency":"EUR"}'),
    "a NUL": deposit('{"amount":"1","currency":"EUR"}').replace(b'"card"', b'"ca\\u0000d"'),
    "a lower-case currency": deposit('{"amount":"1","currency":"eur"}'),
    "a card number as instrument": deposit('{"amount":"1","currency":"EUR"}').replace(
        b"{", b'{"instrument":"4111 1111 1111 1111",', 1
    ),
}


async def nothing_happened(api: Api) -> bool:
    """No command left a row."""
    counts = await api.rows(
        "SELECT (SELECT count(*) FROM gateway.client) + (SELECT count(*) FROM gateway.idempotency)"
        " + (SELECT count(*) FROM gateway.outbox) AS rows"
    )
    return counts[0]["rows"] == 0 and not api.deposits.started


async def test_what_is_not_json_is_a_400(api: Api) -> None:
    """The body is refused before anything looks at its meaning."""
    for name, body in MALFORMED.items():
        answer = await api.call("POST", "/v1/deposits", body)

        problem = await answer.json()
        assert answer.content_type == "application/problem+json", name
        assert (answer.status, problem["code"]) == (400, "malformed-json"), (name, problem)
    assert await nothing_happened(api)


async def test_what_is_not_a_deposit_is_a_422_that_names_the_field(api: Api) -> None:
    """Absurd amounts and unknown fields never reach the flow."""
    for name, body in WRONG.items():
        answer = await api.call("POST", "/v1/deposits", body)

        problem = await answer.json()
        assert (answer.status, problem["code"]) == (422, "invalid-request"), (name, problem)
        assert problem["errors"][0]["path"].startswith("$"), name
        assert problem["errors"][0]["code"].startswith("field-"), name
    assert await nothing_happened(api)


async def test_a_good_deposit_reaches_the_flow_with_text_amounts(api: Api) -> None:
    """The counterpart: what is right passes untouched, and its answer leaves byte for byte."""
    answer = await api.call("POST", "/v1/deposits", deposit('{"amount":"100.00","currency":"EUR"}'))

    assert answer.status == 202
    assert answer.headers["Location"] == f"/v1/payments/{ID}"
    assert answer.headers["Retry-After"] == "1"
    assert api.deposits.started[0].amount.amount == "100.00"


async def test_a_body_of_another_type_is_a_415(api: Api) -> None:
    """Forms and plain text are not read."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonp"):
        answer = await api.call("POST", "/v1/clients", b"{}", headers={"Content-Type": kind})
        assert (answer.status, (await answer.json())["code"]) == (415, "unsupported-media-type")


async def test_a_body_over_the_limit_is_a_413(api: Api) -> None:
    """64 KiB and not a byte more is read."""
    answer = await api.call("POST", "/v1/clients", b" " * 65_537)

    assert (answer.status, (await answer.json())["code"]) == (413, "body-too-large")


async def test_unknown_paths_and_methods_are_problems_too(api: Api) -> None:
    """404 and 405 with Allow, in the same shape as everything else."""
    nowhere = await api.call("GET", "/v1/nothing")
    wrong = await api.call("DELETE", "/v1/clients", key=None)

    assert (nowhere.status, (await nowhere.json())["code"]) == (404, "route-unknown")
    assert (wrong.status, (await wrong.json())["code"]) == (405, "method-not-allowed")
    assert wrong.headers["Allow"] == "GET,POST"


async def test_each_route_asks_for_a_key_and_its_scope(api: Api) -> None:
    """No key 401, a key without the scope 403, before a word about body or object."""
    powerless = await api.key(role="nothing", owner="n")
    for route in [route for route in ROUTES if route.scope != PUBLIC]:
        path = path_of(route)
        stranger = await api.client.request(route.method, path)
        narrow = await api.call(route.method, path, token=powerless)

        assert (stranger.status, (await stranger.json())["code"]) == (401, "unauthenticated")
        assert stranger.headers["WWW-Authenticate"].startswith("Bearer")
        problem = await narrow.json()
        assert (narrow.status, problem["code"]) == (403, "forbidden"), path
        assert problem["scope"] == route.scope


def test_what_is_public_is_no_command_of_a_caller() -> None:
    """Only the process's own answers, signed webhooks and pages for partners ask for no key."""
    paths = {route.path for route in ROUTES if route.scope == PUBLIC}

    assert paths == {
        "/livez", "/readyz", "/metrics", "/openapi.json", "/problems/{code}",
        "/v1/psps/{psp}/webhooks", "/partners/{id}", "/partners/{id}/lines",
        "/partners/{id}/leave", "/assets/{hash}/{name}", "/v1/sign-ins", "/sign-in",
        "/sign-in/{issuer}", "/sign-in/{issuer}/callback", "/sign-out", "/desk",
    }  # fmt: skip


async def test_each_command_demands_an_idempotency_key(api: Api) -> None:
    """400 when it is missing or malformed."""
    for route in [route for route in ROUTES if route.idempotent]:
        for key in (None, "two words"):
            answer = await api.call(route.method, path_of(route), b"{}", key=key)
            code = (await answer.json())["code"]
            wanted = "missing" if key is None else "malformed"
            assert (answer.status, code) == (400, f"idempotency-key-{wanted}"), route.path


OBJECTS = (
    "/v1/clients/{}", "/v1/clients/{}/history", "/v1/clients/{}/wallet", "/v1/accounts/{}",
    "/v1/deposits/{}", "/v1/payments/{}", "/v1/payments/{}/trace", "/v1/approvals/{}",
    "/v1/items/{}", "/v1/ledger/entries/{}", "/v1/accounts?client={}",
    "/v1/partners/{}", "/v1/partners/{}/day", "/v1/partners/{}/balances", "/v1/partners/{}/lines",
    "/v1/partners/{}/stream", "/v1/contracts/{}", "/v1/rebates/{}/explanation",
)  # fmt: skip
NAMES = ("CL" + "0" * 18, "PY" + "0" * 18, "AC" + "0" * 18, "x", "9" * 30, "%00", "%F0%9F%92%A9")


async def test_an_unknown_object_is_a_404_whatever_it_is_called(api: Api) -> None:
    """Ids of other things, of nothing, and of bytes no table can hold."""
    for path, name in product(OBJECTS, NAMES):
        answer = await api.call("GET", path.format(name))

        code = (await answer.json())["code"]
        if "?" in path and len(name) != 20:
            assert (answer.status, code) == (422, "invalid-parameter"), (path, name)
        else:
            assert (answer.status, code) == (404, "not-found"), (path, name)


async def test_a_parameter_that_is_not_understood_is_refused(api: Api) -> None:
    """A typo is never a default."""
    for query in (
        "limit=0", "limit=201", "limit=x", "limt=1", "limit=1&limit=2", "state=sleeping",
        "after=%00", "after=a%0A", "reference=%00",
    ):  # fmt: skip
        answer = await api.call("GET", f"/v1/clients?{query}")

        assert (answer.status, (await answer.json())["code"]) == (422, "invalid-parameter"), query


async def test_tokens_that_are_almost_right_are_strangers(api: Api) -> None:
    """One answer for every way a credential can be wrong."""
    good = await api.key()
    wrong = [
        good[:-1] + ("0" if good[-1] != "0" else "1"), good + "0", good.upper(), "",
        good.replace("KY", "KX"), "bk_live__", good.replace("bk_live", "bk_test"),
    ]  # fmt: skip
    bodies = set()
    for token in wrong:
        answer = await api.client.get(
            "/v1/clients",
            headers={"Authorization": f"Bearer {token}", "X-Correlation-Id": "same"},
        )
        assert answer.status == 401
        bodies.add(await answer.text())
    basic = await api.client.get("/v1/clients", headers={"Authorization": f"Basic {good}"})

    assert basic.status == 401
    assert len(bodies) == 1


async def test_a_revoked_key_stops_within_the_memory_of_keys(api: Api) -> None:
    """At once it may still pass; after the few seconds that keys are remembered it does not."""
    token = await api.key(owner="leaver")
    assert (await api.call("GET", "/v1/clients", token=token)).status == 200
    split = keys.split_token(token)
    assert split is not None
    command = audit.Command(keys.operator("root"), "left", "c", api.clock.now())
    async with api.pool.acquire() as conn, conn.transaction():
        assert await api.maker.revoke(conn, command, split[0]) == "leaver"

    api.clock.skew_s += 3.1

    assert (await api.call("GET", "/v1/clients", token=token)).status == 401


async def test_a_well_formed_correlation_is_kept_and_a_bad_one_replaced(api: Api) -> None:
    """It is echoed, and it is the request_id of a problem."""
    kept = await api.call("GET", "/v1/nothing", headers={"X-Correlation-Id": "order-77"})
    made = await api.call("GET", "/v1/nothing", headers={"X-Correlation-Id": "a b\u00e4"})

    assert kept.headers["X-Correlation-Id"] == (await kept.json())["request_id"] == "order-77"
    assert (await made.json())["request_id"].startswith("CR")


async def test_a_problems_type_can_be_followed(api: Api) -> None:
    """Each code of the table explains itself."""
    for code, meaning in TABLE.items():
        answer = await api.client.get(f"/problems/{code}")
        assert (await answer.json())["status"] == meaning.status
    assert (await api.client.get("/problems/nothing")).status == 404


async def test_a_forged_webhook_is_a_401(api: Api) -> None:
    """The raw bytes go to the flow; a provider nobody knows is a 404."""
    answer = await api.client.post("/v1/psps/nobody/webhooks", data=b"{}")

    assert (answer.status, (await answer.json())["code"]) == (404, "psp-unknown")


async def test_the_metrics_are_local_or_asked_for_with_a_scope(api: Api) -> None:
    """A scraper on this machine needs no key; a request that a proxy passed on does."""
    await api.call("GET", "/v1/clients")
    local = await api.client.get("/metrics")
    passed_on = await api.client.get("/metrics", headers={"X-Forwarded-For": "203.0.113.9"})
    with_key = await api.call("GET", "/metrics", headers={"X-Forwarded-For": "203.0.113.9"})

    assert local.status == 200
    text = await local.text()
    assert 'brokerd_http_requests_total{method="GET",route="/v1/clients",status="200"} 1.0' in text
    assert (passed_on.status, with_key.status) == (401, 200)


async def test_a_lost_database_is_a_503_and_not_a_fault(api: Api) -> None:
    """Whoever asks is told to ask again."""
    token = await api.key()
    await api.pool.close()

    answer = await api.call("GET", "/v1/clients", token=token)

    assert (answer.status, (await answer.json())["code"]) == (503, "unavailable")
    assert answer.headers["Retry-After"] == "1"


async def test_livez_and_readyz_need_no_key(api: Api) -> None:
    """They answer whoever watches."""
    alive, ready = await asyncio.gather(api.client.get("/livez"), api.client.get("/readyz"))

    assert (alive.status, ready.status) == (200, 200)
    assert (await ready.json())["phase"] == "ready"
