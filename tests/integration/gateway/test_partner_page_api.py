"""The partner's page over HTTP: who is let in, what a visit may read, what a browser is told."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import re
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from gateway.http.app import ROUTES
from tests.integration.gateway.conftest import Api, declared
from tests.integration.gateway.earning import Earner
from tests.support.servers import Database

SESSION = "brokerd_partner"
STREAM = re.compile(r"/stream$")


@pytest_asyncio.fixture
async def earner(api: Api, database: Database) -> AsyncIterator[Earner]:
    """Book 1 with its accrual at work."""
    async with Earner(api, database).at_work() as working:
        yield working


async def link(api: Api, partner: str, **asked: Any) -> str:
    """The address that opens the partner's page."""
    answer = await api.call("POST", f"/v1/partners/{partner}/page-link", key=None, **asked)
    assert answer.status == 200, await answer.text()
    return str((await answer.json())["url"])


async def browse(
    api: Api, path: str, cookie: str = "", form: dict[str, str] | None = None, **headers: str
) -> aiohttp.ClientResponse:
    """What a browser gets that follows nothing by itself and has no key; a form is posted."""
    sent = dict(headers)
    if cookie:
        name = "__Host-" + SESSION if headers.get("X-Forwarded-Proto") else SESSION
        sent["Cookie"] = f"{name}={cookie}"
    method = "GET" if form is None else "POST"
    answer = await api.client.request(method, path, headers=sent, data=form, allow_redirects=False)
    declared(method, path, answer.status)
    api.client.session.cookie_jar.clear()
    return answer


async def press(api: Api, url: str, cookie: str = "", **headers: str) -> aiohttp.ClientResponse:
    """What the button of a link's door does."""
    path, _, token = url.partition("?token=")
    return await browse(api, path, cookie, {"token": token}, **headers)


async def visit(api: Api, partner: str) -> str:
    """Open the partner's page with a fresh link; returns the secret of the cookie."""
    answer = await press(api, await link(api, partner))
    assert answer.status == 303, await answer.text()
    return secret_of(answer)


def secret_of(answer: aiohttp.ClientResponse) -> str:
    """The value of the cookie that an answer sets."""
    return SimpleCookie(answer.headers["Set-Cookie"])[SESSION].value


async def test_a_link_opens_the_page_once(api: Api) -> None:
    """It leads to the bare address with a cookie no script can read; a second use does not."""
    contract = await api.new_contract()
    url = await link(api, contract["partner"])

    first = await press(api, url)
    cookie = SimpleCookie(first.headers["Set-Cookie"])[SESSION]
    second = await press(api, url)
    door = await browse(api, url)
    page = await browse(api, first.headers["Location"], cookie.value)

    assert (first.status, first.headers["Location"]) == (303, f"/partners/{contract['partner']}")
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", "/")
    assert cookie["max-age"] == str(12 * 3600)
    for late in (second, door):
        assert (late.status, "Set-Cookie" in late.headers) == (401, False)
        assert "used already" in await late.text()
    assert page.status == 200
    assert contract["code"] in await page.text()


async def test_looking_at_a_link_uses_nothing(api: Api) -> None:
    """Scanners, previews and browsers that fetch ahead see a door; whoever presses it is let in."""
    contract = await api.new_contract()
    url = await link(api, contract["partner"])
    for _ in range(3):
        door = await browse(api, url, **{"Sec-Purpose": "prefetch"})
        text = await door.text()
        assert (door.status, "Set-Cookie" in door.headers) == (200, False)
        assert contract["code"] not in text
    (action,) = re.findall(r'<form method="post" action="([^"]+)">', text)
    (token,) = re.findall(r'<input type="hidden" name="token" value="([^"]+)">', text)
    assert "form-action 'self'" in door.headers["Content-Security-Policy"]

    assert (await browse(api, action, form={"token": token})).status == 303


async def test_only_the_door_of_ours_uses_a_link(api: Api) -> None:
    """A form on another site, another kind of body and no token at all open nothing."""
    contract = await api.new_contract()
    url = await link(api, contract["partner"])
    path, _, token = url.partition("?token=")

    strange = [
        await press(api, url, **{"Sec-Fetch-Site": "cross-site"}),
        await press(api, url, **{"Sec-Fetch-Site": "same-site"}),
        await browse(api, path, form={"token": token}, **{"Content-Type": "text/plain"}),
        await browse(api, path, form={}),
        await browse(api, path, form={str(number): "x" for number in range(9)} | {"token": token}),
        await browse(api, path, form={"token": "\u2028" * 99}),
    ]

    assert [answer.status for answer in strange] == [401] * 6
    assert (await press(api, url, **{"Sec-Fetch-Site": "same-origin"})).status == 303


async def test_a_used_link_still_leads_its_own_browser_to_the_page(api: Api) -> None:
    """Going back in the browser and pressing twice are no errors: its visit is still in force."""
    contract = await api.new_contract()
    url = await link(api, contract["partner"])
    first = await press(api, url)
    secret = secret_of(first)

    for again in (await browse(api, url, secret), await press(api, url, secret)):
        assert (again.status, again.headers["Location"]) == (303, first.headers["Location"])
        assert "Set-Cookie" not in again.headers


async def test_a_link_works_for_fifteen_minutes(api: Api) -> None:
    """One that lay around opens nothing."""
    contract = await api.new_contract()
    in_time, late = [await link(api, contract["partner"]) for _ in range(2)]

    api.clock.skew_s += 14 * 60
    assert (await browse(api, in_time)).status == 200
    assert (await press(api, in_time)).status == 303
    api.clock.skew_s += 61
    assert (await browse(api, late)).status == 401
    assert (await press(api, late)).status == 401


async def test_a_link_is_signed_for_its_partner_and_its_end(api: Api) -> None:
    """A letter changed, a later end, another partner: nobody is let in, and no table is asked."""
    mine = await api.new_contract("p-1", code="MINE")
    other = await api.new_contract("p-2", code="OTHER")
    url = await link(api, mine["partner"])
    until, nonce, mark = url.partition("token=")[2].split(".")
    forged = [
        f"{until}.{nonce}.{'0' * 64}",
        f"{int(until, 16) + 60:x}.{nonce}.{mark}",
        f"{until}.{'0' * 64}.{mark}",
        "",
        "x" * 5000,
    ]
    at = f"/partners/{mine['partner']}?token="

    urls = [at + token for token in forged] + [url.replace(mine["partner"], other["partner"])]
    answers = [await ask(api, each) for each in urls for ask in (browse, press)]

    assert [answer.status for answer in answers] == [401] * 12
    assert (await press(api, url)).status == 303


async def test_a_visit_ends_after_twelve_hours(api: Api) -> None:
    """Then page, rows and API are closed to its cookie."""
    contract = await api.new_contract()
    secret, path = await visit(api, contract["partner"]), f"/partners/{contract['partner']}"

    api.clock.skew_s += 12 * 3600 - 60
    assert (await browse(api, path, secret)).status == 200
    api.clock.skew_s += 61

    assert (await browse(api, path, secret)).status == 401
    assert (await browse(api, f"{path}/lines", secret)).status == 401
    assert (await browse(api, f"/v1{path}/day", secret)).status == 401


async def test_behind_tls_the_cookie_is_bound_to_this_host(api: Api) -> None:
    """It is then `Secure` and `__Host-`, and a plain one by the same value is not taken."""
    contract = await api.new_contract()
    url = await link(api, contract["partner"])

    answer = await press(api, url, **{"X-Forwarded-Proto": "https"})

    (cookie,) = SimpleCookie(answer.headers["Set-Cookie"]).values()
    assert (cookie.key, cookie["secure"]) == ("__Host-brokerd_partner", True)
    path = answer.headers["Location"]
    assert (await browse(api, path, cookie.value, **{"X-Forwarded-Proto": "https"})).status == 200
    assert (
        await browse(api, path, Host="pages.example", Cookie=f"{SESSION}={cookie.value}")
    ).status == 401


async def test_a_visitor_reads_only_what_is_open_to_partners(api: Api) -> None:
    """With the cookie alone every route answers 401 but those that say they are for partners."""
    contract = await api.new_contract()
    secret = await visit(api, contract["partner"])
    for route in ROUTES:
        if route.scope == "public" or STREAM.search(route.path):
            continue
        path = route.path.replace("{id}", contract["partner"]).replace("{no}", "1")
        path = re.sub(r"\{\w+\}", "1-1", path)
        answer = await api.client.request(
            route.method, path, headers={"Cookie": f"{SESSION}={secret}", "Idempotency-Key": "k"}
        )
        if route.partners:
            assert route.method == "GET", route
            assert answer.status in (200, 404), (route.path, await answer.text())
        else:
            assert answer.status == 401, (route.path, await answer.text())


async def test_a_visitor_sees_the_own_subtree_only(api: Api) -> None:
    """Those below are in reach; those above and beside do not exist."""
    top = await api.new_contract("p-top", code="TOP", plan="eu-master")
    mine = await api.new_contract("p-mine", code="MINE", parent=top["id"])
    below = await api.new_contract("p-below", code="BELOW", parent=mine["id"])
    beside = await api.new_contract("p-beside", code="BESIDE", parent=top["id"])
    secret = await visit(api, mine["partner"])

    seen = {
        each["code"]: (
            (await browse(api, f"/v1/partners/{each['partner']}/day", secret)).status,
            (await browse(api, f"/partners/{each['partner']}", secret)).status,
        )
        for each in (top, mine, below, beside)
    }

    assert seen == {
        "TOP": (404, 404), "MINE": (200, 200), "BELOW": (200, 200), "BESIDE": (404, 404),
    }  # fmt: skip


async def test_one_contract_in_reach_does_not_show_the_others_of_its_partner(api: Api) -> None:
    """Reach is by contract: a partner below one's own contract has others elsewhere."""
    mine = await api.new_contract("p-mine", code="MINE")
    below = await api.new_contract("p-below", code="BELOW", parent=mine["id"])
    partner = {"id": below["partner"]}
    answer = await api.ask_contract(
        partner, brand="southbank", currency="USD", plan="int-partner", code="ELSEWHERE"
    )
    assert answer.status == 201, await answer.text()
    secret = await visit(api, mine["partner"])

    page = await (await browse(api, f"/partners/{below['partner']}", secret)).text()

    assert "BELOW" in page
    assert "ELSEWHERE" not in page


@pytest.mark.parametrize("asked", [("POST", "page-link"), ("DELETE", "visits")])
async def test_links_and_their_end_need_the_scope_and_reach(
    api: Api, asked: tuple[str, str]
) -> None:
    """Whoever may only read a partner neither opens their page nor closes it."""
    contract = await api.new_contract()
    method, last = asked
    path = f"/v1/partners/{contract['partner']}/{last}"

    poor = await api.call(method, path, token=await api.key("looker"))
    away = await api.call(method, path, token=await api.key(owner="b", entities=("fx-int",)))

    assert (poor.status, away.status) == (403, 404)


async def test_a_partner_ends_their_visit(api: Api) -> None:
    """The cookie is taken back and opens nothing any more, elsewhere neither; others go on."""
    contract = await api.new_contract()
    partner = contract["partner"]
    path = f"/partners/{partner}"
    secret, other = await visit(api, partner), await visit(api, partner)
    assert (await browse(api, path, secret)).status == 200

    left = await browse(api, f"{path}/leave", secret, form={})
    again = await browse(api, f"{path}/leave", secret, form={})
    cookie = SimpleCookie(left.headers["Set-Cookie"])[SESSION]

    assert (left.status, again.status) == (204, 204)
    assert (cookie.value, cookie["max-age"], cookie["path"]) == ("", "0", "/")
    assert (await browse(api, path, secret)).status == 401
    assert (await browse(api, path, other)).status == 200
    (row,) = await api.rows("SELECT * FROM gateway.audit WHERE command = 'partner.leave'")
    assert (row["actor"], row["role"], row["subject"]) == (partner, "partner", partner)


async def test_no_other_site_ends_a_visit(api: Api) -> None:
    """A form from elsewhere is refused even where a browser would send the cookie with it."""
    contract = await api.new_contract()
    secret, path = await visit(api, contract["partner"]), f"/partners/{contract['partner']}"

    answer = await browse(api, f"{path}/leave", secret, form={}, **{"Sec-Fetch-Site": "cross-site"})

    assert answer.status == 403
    assert (await browse(api, path, secret)).status == 200


async def test_all_visits_of_a_partner_are_ended(api: Api) -> None:
    """Every cookie and every link that was given out is void; other partners notice nothing."""
    mine = await api.new_contract("p-1", code="MINE")
    other = await api.new_contract("p-2", code="OTHER")
    partner, path = mine["partner"], f"/partners/{mine['partner']}"
    secrets = [await visit(api, partner) for _ in range(2)]
    unused, theirs = await link(api, partner), await visit(api, other["partner"])
    assert (await browse(api, path, secrets[0])).status == 200

    answer = await api.call("DELETE", f"/v1{path}/visits", key=None)
    again = await api.call("DELETE", f"/v1{path}/visits", key=None)

    assert (await answer.json(), await again.json()) == ({"ended": 2}, {"ended": 0})
    assert [(await browse(api, path, each)).status for each in secrets] == [401, 401]
    assert (await press(api, unused)).status == 401
    assert (await browse(api, f"/partners/{other['partner']}", theirs)).status == 200
    assert (await browse(api, path, await visit(api, partner))).status == 200
    rows = await api.rows("SELECT * FROM gateway.audit WHERE command = 'visits.end' ORDER BY id")
    assert [(row["actor"], row["subject"], row["after"]) for row in rows] == [
        ("shop", partner, '{"ended": 2}'), ("shop", partner, '{"ended": 0}'),
    ]  # fmt: skip


async def test_a_visit_that_opens_just_then_is_ended_too(api: Api) -> None:
    """Whoever is using a link while all visits are ended does not stay in."""
    contract = await api.new_contract()
    partner = contract["partner"]
    url = await link(api, partner)
    entering = api.owner.transaction()
    await entering.start()
    await api.owner.execute("LOCK TABLE gateway.audit IN EXCLUSIVE MODE")  # holds it at its end
    opening = asyncio.create_task(press(api, url))
    await waits(api, "gateway.audit")
    ending = asyncio.create_task(api.call("DELETE", f"/v1/partners/{partner}/visits", key=None))
    await waits(api, "transactionid")
    await entering.commit()

    opened, ended = await opening, await ending

    assert opened.status == 303
    assert await ended.json() == {"ended": 1}
    assert (await browse(api, f"/partners/{partner}", secret_of(opened))).status == 401


async def waits(api: Api, what: str) -> None:
    """Until somebody waits for a lock of this kind, or on this table."""
    async with asyncio.timeout(10):
        while not await api.rows(
            "SELECT 1 FROM pg_locks WHERE NOT granted AND database IS NOT DISTINCT FROM"
            " CASE WHEN locktype = 'relation' THEN (SELECT oid FROM pg_database"
            " WHERE datname = current_database()) END"
            " AND (locktype = $1 OR relation = to_regclass($1))",
            what,
        ):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("state", ["suspended", "terminated"])
async def test_the_page_of_a_partner_who_is_not_active_is_closed(api: Api, state: str) -> None:
    """Neither the visits that are open nor the links that were given out let them in."""
    contract = await api.new_contract()
    partner = contract["partner"]
    secret, url = await visit(api, partner), await link(api, partner)

    await api.owner.execute("UPDATE gateway.partner SET state = $2 WHERE id = $1", partner, state)

    assert (await browse(api, f"/partners/{partner}", secret)).status == 401
    assert (await browse(api, url)).status == 401
    assert (await press(api, url)).status == 401


async def test_links_and_visits_are_audited_without_their_secrets(api: Api) -> None:
    """One row each, by the key that asked and by the partner who came; tables hold digests only."""
    contract = await api.new_contract()
    partner = contract["partner"]
    url = await link(api, partner)
    await browse(api, url)
    secret = secret_of(await press(api, url))

    audited = await api.rows(
        "SELECT command, actor, role FROM gateway.audit WHERE subject = $1"
        " AND command LIKE 'partner.%' AND command <> 'partner.create' ORDER BY id", partner,
    )  # fmt: skip
    stored = await api.rows("SELECT t::text AS row FROM gateway.partner_session t")
    said = await api.rows("SELECT t::text AS row FROM gateway.audit t")

    assert [tuple(row) for row in audited] == [
        ("partner.link", "shop", "everything"), ("partner.enter", partner, "partner"),
    ]  # fmt: skip
    token = url.partition("token=")[2]
    for row in [*stored, *said]:
        for hidden in (token, token.split(".")[1], token.split(".")[2], secret):
            assert hidden not in row["row"]


async def test_no_log_line_holds_a_token_or_a_cookie(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever happens with a link: logs name paths without their query."""
    contract = await api.new_contract()
    with caplog.at_level(logging.DEBUG):
        url = await link(api, contract["partner"])
        await browse(api, url)
        answer = await press(api, url)
        secret = secret_of(answer)
        await browse(api, url)
        await press(api, url)
        await browse(api, f"/partners/{contract['partner']}/lines?token={'f' * 64}")
        await browse(api, answer.headers["Location"], secret)
    written = "\n".join(
        f"{record.getMessage()} {vars(record)}"
        for record in caplog.records
        if record.name.startswith(("gateway", "aiohttp.server", "aiohttp.web", "ledger"))
    )
    assert "http.request" in written
    for hidden in (*url.partition("token=")[2].split(".")[1:], secret, "f" * 64):
        assert hidden not in written


async def test_a_visit_that_is_over_is_forgotten(api: Api) -> None:
    """Rows of links and sessions are removed after their end, not before."""
    contract = await api.new_contract()
    await visit(api, contract["partner"])
    async with api.pool.acquire() as conn:
        assert await api.parts.visits.purge(conn) == 0
        api.clock.skew_s += 16 * 60
        assert await api.parts.visits.purge(conn) == 1
        api.clock.skew_s += 12 * 3600
        assert await api.parts.visits.purge(conn) == 1


async def test_every_answer_to_a_browser_is_guarded(api: Api) -> None:
    """Scripts and styles come from here alone, no other page frames it, nothing is kept."""
    contract = await api.new_contract()
    url = await link(api, contract["partner"])
    door, opened = await browse(api, url), await press(api, url)
    secret = secret_of(opened)
    path = opened.headers["Location"]
    answers = [
        door, opened, await browse(api, url), await browse(api, path, secret),
        await browse(api, f"{path}/lines", secret),
    ]  # fmt: skip
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert ("form-action 'none'" in policy) == (answer is not door)
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"


async def test_what_a_page_loads_has_the_hash_that_the_page_names(api: Api) -> None:
    """Each script and style is one of ours, kept for ever, and a browser can check it."""
    contract = await api.new_contract()
    secret = await visit(api, contract["partner"])
    page = await (await browse(api, f"/partners/{contract['partner']}", secret)).text()
    tags = re.findall(r"<(?:script|link)\b[^>]*>", page)

    checked = 0
    for tag in tags:
        (path,) = re.findall(r'(?:src|href)="([^"]+)"', tag)
        answer = await browse(api, path)
        assert (answer.status, "immutable" in answer.headers["Cache-Control"]) == (200, True)
        if 'rel="icon"' not in tag:  # browsers check no pictures
            (named,) = re.findall(r'integrity="sha384-([^"]+)"', tag)
            digest = hashlib.sha384(await answer.read()).digest()
            assert named == base64.b64encode(digest).decode()
            checked += 1

    assert checked == 4
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|<style", page)


async def test_a_file_that_is_not_an_asset_does_not_exist(api: Api) -> None:
    """No address leads into a folder."""
    for path in ("/assets/0/partner.js", "/assets/x/..%2f..%2fpartner.py", "/assets/1/%2e%2e"):
        assert (await browse(api, path)).status == 404


async def test_the_page_shows_what_the_books_say(api: Api, earner: Earner) -> None:
    """Today's, accrued and payable by currency, and the newest lines with their deals."""
    contract = await api.new_contract()
    await earner.earns(contract, "1", "0.5")
    await earner.earns(contract, "2", symbol="XAUUSD")
    secret = await visit(api, contract["partner"])

    page = await (await browse(api, f"/partners/{contract['partner']}", secret)).text()
    shown = dict(re.findall(r'data-figure="(\w+)"><data value="([^"]+)"', page))
    held = await (await api.call("GET", f"/v1/ledger/balances?owner={contract['id']}")).json()

    assert shown == {"today": "7.50", "accrued": "7.50", "held": "0.00", "payable": "0.00"}
    assert held["data"][0]["balance"] == "7.50"
    assert re.findall(r'data-label="Kind">([^<]+)<', page) == [
        "No rate for the symbol", "Rebate", "Rebate",
    ]  # fmt: skip
    assert re.findall(r'data-label="Lots" class="number">([^<]+)<', page) == [
        "2.00",
        "0.50",
        "1.00",
    ]


async def test_the_day_adds_up_to_what_is_earned_today(api: Api, earner: Earner) -> None:
    """Minute by minute, the last sum is today's; yesterday's deals are not in it."""
    contract = await api.new_contract()
    secret = await visit(api, contract["partner"])
    path = f"/v1/partners/{contract['partner']}/day"
    empty = await (await browse(api, path, secret)).json()
    await earner.earns(contract, "1", "0.5")
    await earner.earns(contract, "3")

    day = await (await browse(api, path, secret)).json()

    assert empty["data"] == [{"currency": "EUR", "minutes": [], "sums": []}]
    (line,) = day["data"]
    assert line["sums"][-1] == "22.50"
    assert line["minutes"] == sorted(set(line["minutes"]))
    assert day["day"] == api.clock.now().date().isoformat()

    api.clock.skew_s += 24 * 3600
    secret = await visit(api, contract["partner"])
    assert (await (await browse(api, path, secret)).json())["data"] == empty["data"]
