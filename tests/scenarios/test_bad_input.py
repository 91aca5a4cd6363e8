"""Bad input at the daemon's door: the right problem, and nothing changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.house import House

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

COUNTS = """
SELECT (SELECT count(*) FROM router.payment) || ' ' || (SELECT count(*) FROM ledger.entry) || ' '
    || (SELECT count(*) FROM bridge.operation) || ' ' || (SELECT count(*) FROM gateway.outbox)
    || ' ' || (SELECT count(*) FROM router.inbox)
"""


async def state(house: House) -> tuple[str, int]:
    """What would change if a refused request had changed anything, books of providers included."""
    requests = [(await admin.get("/books"))["requests"] for admin in house.providers.values()]
    async with house.database() as conn:
        return await conn.fetchval(COUNTS), sum(requests)


@pytest.mark.parametrize(
    ("amount", "status"),
    [
        ('"0.00"', 422), ('"0"', 422), ('"-1.00"', 422), ('"1.001"', 422), ('"1e30"', 422),
        ('"NaN"', 422), ('"Infinity"', 422), ('""', 422), ('" 1.00"', 422), ('"1,00"', 422),
        ('"01.00"', 422), ('"+1.00"', 422), ('"1."', 422), ('".5"', 422), ('"٣.٠٠"', 422),
        ('"１００"', 422), ('"9999999999999999.00"', 422), ("1", 422), ("1.00", 422),
        ("1e30", 422), ("null", 422), ("true", 422), ("[]", 422), ("{}", 422),
    ],
)  # fmt: skip
async def test_an_absurd_amount_is_refused(house: House, amount: str, status: int) -> None:
    """Only a plain decimal text above zero, with the currency's decimals, is an amount."""
    client = await somebody(house)
    before = await state(house)
    raw = (
        f'{{"client": "{client}", "amount": {{"amount": {amount}, "currency": "EUR"}},'
        ' "method": "card", "to": "wallet"}'
    ).encode()
    answer = await house.portal.send("POST", "/v1/deposits", raw=raw)
    assert answer.status == status, answer
    assert answer.body["type"].startswith("/problems/")
    assert await state(house) == before


async def somebody(house: House) -> str:
    """A client of this house who may deposit."""
    page = await house.portal.get("/v1/clients?state=trading_enabled&limit=1")
    return str(page["data"][0]["id"]) if page["data"] else (await house.client()).id


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", 400), (b"{", 400), (b"not json", 400), (b"[]", 422), (b'"text"', 422),
        (b"null", 422), (b"{}", 422), (b"\xff\xfe", 400), (b'{"client": 1}', 422),
        (b"[" * 5000, 400), (b'{"a":' * 2000, 400),
    ],
)  # fmt: skip
async def test_a_body_that_is_no_deposit_is_refused(house: House, raw: bytes, status: int) -> None:
    """Malformed JSON is 400, JSON of another shape 422."""
    before = await state(house)
    answer = await house.portal.send("POST", "/v1/deposits", raw=raw or b" ")
    assert answer.status == status, answer
    assert await state(house) == before


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"card_number": "4111111111111111"}, 422, "field-unknown"),
        ({"client": "CL" + "0" * 18}, 404, "not-found"),
        ({"client": "CL"}, 422, "invalid-request"),
        ({"client": "AC" + "0" * 18}, 404, "not-found"),
        ({"to": "AC" + "0" * 18}, 404, "not-found"),
        ({"to": ""}, 422, "invalid-request"),
        ({"amount": {"amount": "1.00", "currency": "XXX"}}, 422, "currency-unknown"),
        ({"amount": {"amount": "1.00", "currency": "eur"}}, 422, "invalid-request"),
        ({"amount": {"amount": "1.00"}}, 422, "invalid-request"),
        ({"method": "CARD; DROP TABLE"}, 422, "invalid-request"),
        ({"instrument": "x" * 65}, 422, "invalid-request"),
    ],
)
async def test_a_field_that_does_not_fit_is_refused(
    house: House, change: dict[str, Any], status: int, code: str
) -> None:
    """Unknown fields, unknown ids and values out of shape are refused with a code of their own."""
    order: dict[str, Any] = {
        "client": await somebody(house), "amount": {"amount": "1.00", "currency": "EUR"},
        "method": "card", "to": "wallet",
    }  # fmt: skip
    before = await state(house)
    answer = await house.portal.send("POST", "/v1/deposits", order | change)
    codes = {answer.body["code"], *(each["code"] for each in answer.body.get("errors", ()))}
    assert (answer.status, code in codes) == (status, True), answer
    assert await state(house) == before


@pytest.mark.parametrize(
    ("owner", "path", "status"),
    [
        ("nobody", "/v1/clients", 401),
        ("bk_live_KY000000000000000000_" + "0" * 64, "/v1/clients", 401),
        ("reader", "/v1/clients", 403),
        ("reader", "/v1/ledger/balances", 403),
        ("portal", "/v1/items", 403),
        ("portal", "/v1/sessions", 403),
        ("portal", "/v1/payments/PY000000000000000000", 404),
        ("portal", "/v1/payments/nonsense", 404),
        ("portal", "/v1/nothing", 404),
        ("portal", "/v1/events?after=-1", 422),
        ("portal", "/v1/events?limit=0", 422),
        ("portal", "/v1/clients?colour=red", 422),
    ],
)
async def test_who_may_not_read_is_told_so(
    house: House, owner: str, path: str, status: int
) -> None:
    """A missing key is 401, a narrow one 403, what is not there or out of reach 404."""
    answer = await house.caller(owner).send("GET", path)
    assert answer.status == status, answer


async def test_what_lies_outside_a_keys_entities_does_not_exist(house: House) -> None:
    """A key of one legal entity cannot read, pay or move a client of another."""
    client = await somebody(house)
    order = {
        "client": client, "amount": {"amount": "1.00", "currency": "EUR"}, "method": "card",
    }  # fmt: skip
    before = await state(house)
    narrow = house.caller("narrow")
    assert (await narrow.send("GET", f"/v1/clients/{client}")).status == 404
    assert (await narrow.send("GET", f"/v1/clients/{client}/wallet")).status == 404
    assert (await narrow.send("POST", "/v1/deposits", order)).status == 404
    assert await state(house) == before


async def test_a_deposit_without_its_key_is_refused(house: House) -> None:
    """Without an Idempotency-Key nothing that moves money is begun."""
    headers = {"Authorization": f"Bearer {house.tokens['portal']}"}
    url = house.daemon.url + "/v1/deposits"
    async with house.http.post(url, json={}, headers=headers) as answer:
        problem = json.loads(await answer.read())
    assert (answer.status, problem["code"]) == (400, "idempotency-key-missing")
    assert answer.headers["Content-Type"] == "application/problem+json"


async def test_a_body_too_large_is_refused(house: House) -> None:
    """More bytes than a request may have are not read to their end."""
    raw = b'{"client": "' + b"x" * 200_000 + b'"}'
    answer = await house.portal.send("POST", "/v1/deposits", raw=raw)
    assert answer.status == 413


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Simpay-Signature": "t=1,v1=00"},
        {"Simpay-Signature": "nonsense"},
        {"Simpay-Signature": "t=99999999999,v1=" + "0" * 64},
    ],
)
async def test_a_forged_notice_is_refused_and_not_kept(
    house: House, headers: dict[str, str]
) -> None:
    """A notice that the provider did not sign is 401, and leaves no row behind."""
    body = {"id": "ev_1", "type": "charge.updated", "created": 1, "data": {"status": "approved"}}
    before = await state(house)
    url = house.daemon.url + "/v1/psps/acme/webhooks"
    async with house.http.post(url, json=body, headers=headers) as answer:
        assert answer.status == 401
    assert await state(house) == before


async def test_a_notice_of_a_provider_nobody_knows_is_refused(house: House) -> None:
    """There is no address for a provider that the rulebook does not name."""
    async with house.http.post(house.daemon.url + "/v1/psps/zeta/webhooks", json={}) as answer:
        assert answer.status == 404
