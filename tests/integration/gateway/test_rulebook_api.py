"""Versions of the rulebook over the API: drafted, agreed to by others, followed, brought back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from config.findings import NOWHERE, Finding
from config.rulebook import Rulebook
from gateway.control import rulebook as rulebooks
from gateway.control import versions
from gateway.control.audit import Command
from gateway.control.follower import Follower
from gateway.control.keys import operator
from gateway.control.ownership import PROCESSES
from gateway.control.versions import Enacting
from tests.integration.gateway.conftest import BOOK as SAMPLE
from tests.integration.gateway.conftest import Api, serving
from tests.support.rulebooks import Document, changed, document, named
from tests.support.servers import Database

Change = Callable[[Document], object]
AREAS = ("entities", "plans", "platforms", "routing", "rules")
STAFF = [
    *(f"{area}:{verb}" for area in AREAS for verb in ("draft", "publish")),
    "rulebook:read", "rulebook:draft", "approvals:read", "approvals:decide", "clients:write",
    "clients:read", "lifecycle:request", "lifecycle:approve", "partners:read", "partners:write",
]  # fmt: skip


def _house(wanted: Document) -> None:
    """Roles that no room finds wrong: nobody assigns roles and approves business."""
    kept = [it for it in wanted["role"] if it["id"] in ("nothing", "reader")]
    iam = ["rulebook:read", "rulebook:draft", "roles:request", "roles:approve", "approvals:read",
           "approvals:decide"]  # fmt: skip
    wanted["owner"] = [{"process": process, "team": "operations"} for process in PROCESSES]
    wanted["role"] = [*kept, {"id": "everything", "scopes": STAFF}, {"id": "iam", "scopes": iam}]


BOOK = changed(SAMPLE, _house)


@pytest_asyncio.fixture
async def api(database: Database, pool: asyncpg.Pool, redis: Redis) -> AsyncIterator[Api]:
    """The API of a house whose rulebook every room likes."""
    async with serving(database, pool, redis, book=BOOK) as serves:
        yield serves


def dearer(wanted: Document) -> None:
    """A plan that pays more."""
    named(wanted, "plan", "eu-partner")["rates"][0]["per_lot"] = "6"


def stricter(wanted: Document) -> None:
    """A move of a client that two people agree to."""
    wanted["approval"][0]["needed"] = 2


def by(api: Api) -> Command:
    """Whose command it is that versions take effect."""
    return Command(
        operator("rulebook"), "its time has come", "CR00000000000000000", api.clock.now()
    )


def follower(api: Api, ready: Any = lambda rules: ()) -> Follower:
    """Who keeps this process in step."""
    enacting = Enacting(api.parts.ids, by(api))
    return Follower(api.parts.rules, api.pool, enacting.due, ready, lambda *_: None, api.clock.now)


async def told(answer: Any, status: int) -> dict[str, Any]:
    """The body of an answer that has this status."""
    assert answer.status == status, await answer.text()
    return dict(await answer.json())


async def drafted(
    api: Api, change: Change, author: str = "ada", role: str = "everything", **more: Any
) -> dict[str, Any]:
    """A version of the rulebook in force, changed."""
    wanted = document(api.parts.rulebook)
    change(wanted)
    body = {"reason": "the board wants it", "document": wanted, **more}
    token = await api.key(role, owner=author, person=author)
    return await told(await api.call("POST", "/v1/rulebook/versions", body, token=token), 201)


async def asks(api: Api, version: dict[str, Any], person: str = "ada", **more: Any) -> Any:
    """Have others asked."""
    token = await api.key("everything", owner=person, person=person)
    body = {"reason": "please agree", **more}
    path = f"/v1/rulebook/versions/{version['id']}/publish"
    return await api.call("POST", path, body, token=token)


async def questions(api: Api, version: dict[str, Any]) -> dict[str, str]:
    """The open questions about a version: kind -> id."""
    rows = await api.rows(
        "SELECT kind, id FROM gateway.approval WHERE subject = $1 AND state = 'open'", version["id"]
    )
    return {row["kind"]: row["id"] for row in rows}


async def decides(api: Api, question: str, person: str, decision: str = "approve") -> Any:
    """One person's decision."""
    token = await api.key("everything", owner=person, person=person)
    body = {"decision": decision, "reason": "read and agreed"}
    return await api.call("POST", f"/v1/approvals/{question}/decide", body, token=token)


async def agreed(api: Api, version: dict[str, Any], person: str = "bob") -> None:
    """Every question about it, agreed to."""
    for question in (await questions(api, version)).values():
        await told(await decides(api, question, person), 200)


async def shown(api: Api, version: dict[str, Any]) -> dict[str, Any]:
    """The version as it stands."""
    return await told(await api.call("GET", f"/v1/rulebook/versions/{version['id']}"), 200)


async def code(answer: Any) -> tuple[int, str]:
    """Status and code of a problem."""
    return answer.status, (await answer.json())["code"]


async def test_a_change_takes_two_people_and_is_followed(api: Api) -> None:
    """Drafted, checked, agreed to by another, in force, followed; each step leaves its trace."""
    version = await drafted(api, dearer)
    assert (version["state"], version["areas"], version["findings"]) == ("checked", ["plans"], [])
    told_diff = await told(
        await api.call("GET", f"/v1/rulebook/versions/{version['id']}/diff"), 200
    )
    (difference,) = told_diff["data"]
    assert (difference["part"], difference["item"], difference["key"]) == (
        "plan", "eu-partner", "rates",
    )  # fmt: skip
    assert (await told(await asks(api, version), 202))["state"] == "asked"
    (question,) = (await questions(api, version)).values()
    # whoever drafted and asked decides nothing, by whatever credential
    assert await code(await decides(api, question, "ada")) == (403, "duty-conflict")
    await told(await decides(api, question, "bob"), 200)
    assert (await shown(api, version))["state"] == "approved"
    assert api.parts.rules.now.hash == BOOK.hash
    await follower(api).look()
    assert api.parts.rules.now.hash == version["hash"]
    now = await shown(api, version)
    assert (now["state"], now["number"], now["approvals"]) == ("effective", 2, [question])
    in_force = await told(await api.call("GET", "/v1/rulebook"), 200)
    assert (in_force["hash"], in_force["number"]) == (version["hash"], 2)
    rows = await api.rows(
        "SELECT from_state, to_state, event FROM gateway.rulebook_version_event"
        " WHERE object_id = $1 ORDER BY id", version["id"],
    )  # fmt: skip
    assert [row["event"] for row in rows] == ["drafted", "checked", "asked", "agreed", "enacted"]
    audit = await api.rows(
        "SELECT command, actor, on_behalf_of, approvals FROM gateway.audit"
        " WHERE command LIKE 'rulebook.%' ORDER BY id"
    )
    assert [(row["command"], row["actor"]) for row in audit][-3:] == [
        ("rulebook.draft", "ada"), ("rulebook.publish", "ada"), ("rulebook.adopt", "rulebook"),
    ]  # fmt: skip
    assert (audit[-1]["on_behalf_of"], audit[-1]["approvals"]) == ("ada", [question])


async def test_each_area_is_agreed_to_by_its_own_people(api: Api) -> None:
    """Two areas, two questions; with one of them it is not agreed to. Who drafted one area does
    not agree to the other, and the asker neither, though somebody else drafted.
    """
    version = await drafted(api, lambda it: (dearer(it), stricter(it)))
    assert version["areas"] == ["plans", "rules"]
    await told(await asks(api, version, "cyd"), 202)
    asked = await questions(api, version)
    assert sorted(asked) == ["rulebook.plans", "rulebook.rules"]
    for person in ("ada", "cyd"):
        answer = await decides(api, asked["rulebook.plans"], person)
        assert await code(answer) == (403, "duty-conflict")
    await told(await decides(api, asked["rulebook.plans"], "bob"), 200)
    assert (await shown(api, version))["state"] == "asked"
    await follower(api).look()
    assert api.parts.rules.now.hash == BOOK.hash
    await told(await decides(api, asked["rulebook.rules"], "dan"), 200)
    assert (await shown(api, version))["state"] == "approved"


async def test_it_waits_for_its_time_and_never_begins_in_the_past(api: Api) -> None:
    """A time that is over is refused; a later one is waited for."""
    version = await drafted(api, dearer)
    past = (api.clock.now() - timedelta(seconds=1)).isoformat()
    answer = await asks(api, version, effective_at=past)
    assert await code(answer) == (422, "effective-in-past")
    later = api.clock.now() + timedelta(seconds=1.5)
    await told(await asks(api, version, effective_at=later.isoformat()), 202)
    await agreed(api, version)
    follows = follower(api)
    await follows.look()
    assert api.parts.rules.now.hash == BOOK.hash
    async with asyncio.timeout(20), running(follows):
        while api.parts.rules.now.hash == BOOK.hash:
            await asyncio.sleep(0.05)
    since = await api.pool.fetchval(
        "SELECT since FROM gateway.rulebook_version WHERE id = $1", version["id"]
    )
    assert since >= later


@asynccontextmanager
async def running(follows: Follower) -> AsyncIterator[None]:
    """While it looks by itself."""
    task = asyncio.create_task(follows.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_version_that_another_overtook_is_outdated(api: Api) -> None:
    """Nobody agreed to what it would undo: it is named outdated with an item, and drafted again."""
    slow, quick = await drafted(api, dearer), await drafted(api, stricter)
    for version in (slow, quick):
        await told(await asks(api, version), 202)
    (left,) = (await questions(api, slow)).values()
    await agreed(api, quick)
    await follower(api).look()
    assert api.parts.rules.now.hash == quick["hash"]
    assert (await shown(api, slow))["state"] == "outdated"
    items = await api.rows("SELECT kind, subject FROM gateway.item WHERE state = 'open'")
    assert ("rulebook-outdated", slow["id"]) in [tuple(row) for row in items]
    assert await code(await decides(api, left, "bob")) == (409, "approval-stale")
    assert await code(await asks(api, slow)) == (409, "version-state")


async def test_an_earlier_content_is_brought_back_by_the_same_way(api: Api) -> None:
    """A rollback is a version like others: drafted, agreed to, and the plan's old rate is new."""
    version = await drafted(api, dearer)
    await told(await asks(api, version), 202)
    await agreed(api, version)
    follows = follower(api)
    await follows.look()
    token = await api.key("everything", owner="ada", person="ada")
    body = {"reason": "it was wrong", "restores": 1}
    back = await told(await api.call("POST", "/v1/rulebook/versions", body, token=token), 201)
    assert (back["hash"], back["restores"], back["areas"]) == (BOOK.hash, 1, ["plans"])
    await told(await asks(api, back), 202)
    await agreed(api, back)
    await follows.look()
    assert api.parts.rules.now.hash == BOOK.hash
    assert [(await shown(api, it))["state"] for it in (version, back)] == [
        "superseded", "effective",
    ]  # fmt: skip
    plans = await api.rows(
        "SELECT body->'rates'->0->>'per_lot' AS rate FROM ledger.plan_version"
        " WHERE plan = 'eu-partner' ORDER BY since"
    )
    assert [row["rate"] for row in plans] == ["5", "6", "5"]


async def test_what_is_wrong_is_found_and_goes_nowhere(api: Api) -> None:
    """Every room's findings, and what no later rulebook may say."""

    def wrong(wanted: Document) -> None:
        named(wanted, "plan", "eu-partner")["currency"] = "XYZ"
        named(wanted, "entity", "fx-eu")["book"] = 7
        wanted["entity"] = [it for it in wanted["entity"] if it["id"] != "fx-int"]
        wanted["brand"] = [it for it in wanted["brand"] if it["entity"] != "fx-int"]

    version = await drafted(api, wrong)
    found = {each["code"] for each in version["findings"]}
    assert version["state"] == "draft"
    assert {"currency-unknown", "book-changed", "entity-removed"} <= found
    assert await code(await asks(api, version)) == (409, "version-state")
    token = await api.key("everything", owner="ada", person="ada")
    for body, said in (
        ({"reason": "x", "document": {"entity": "no"}}, (422, "rulebook-unreadable")),
        ({"reason": "x", "document": document(BOOK)}, (409, "rulebook-same")),
        ({"reason": "x"}, (422, "rulebook-unreadable")),
        ({"reason": "x", "restores": 99}, (404, "not-found")),
    ):
        answer = await api.call("POST", "/v1/rulebook/versions", body, token=token)
        assert await code(answer) == said


async def test_who_may_not_draft_an_area_does_not(api: Api) -> None:
    """A role without the area's permission, and a grant of a part of the house, are refused."""
    wanted = document(BOOK)
    stricter(wanted)
    body = {"reason": "x", "document": wanted}
    for role, entities, status in (
        ("reader", ("*",), 403), ("everything", ("fx-eu",), 403),
    ):  # fmt: skip
        token = await api.key(role, owner="eve", person="eve", entities=entities)
        answer = await api.call("POST", "/v1/rulebook/versions", body, token=token)
        assert answer.status == status, await answer.text()
        assert (await api.call("GET", "/v1/rulebook", token=token)).status == 403


async def test_a_refused_question_is_asked_again_and_a_version_taken_back(api: Api) -> None:
    """Asked twice at once it is open already; after a refusal others are asked anew."""
    version = await drafted(api, dearer)
    await told(await asks(api, version), 202)
    assert await code(await asks(api, version)) == (409, "approval-open")
    (question,) = (await questions(api, version)).values()
    await told(await decides(api, question, "bob", "refuse"), 200)
    await told(await asks(api, version), 202)
    token = await api.key("everything", owner="ada", person="ada")
    path = f"/v1/rulebook/versions/{version['id']}/withdraw"
    body = {"reason": "not now"}
    gone = await told(await api.call("POST", path, body, token=token), 200)
    assert gone["state"] == "withdrawn"
    (left,) = (await questions(api, version)).values()
    assert await code(await decides(api, left, "bob")) == (409, "approval-stale")
    assert await code(await asks(api, version)) == (409, "version-state")


async def test_the_only_maker_of_cases_does_not_publish_their_policy(api: Api) -> None:
    """Conflict 25: a policy of client moves, agreed to by the one person who asks for them."""
    client = await api.new_client(risk_band="high")
    token = await api.key("everything", owner="max", person="max")
    client = await api.walk(client, "registered", "kyc_pending", "kyc_under_review")
    await told(await api.move(client, "approved", token=token), 202)
    version = await drafted(api, stricter)
    await told(await asks(api, version), 202)
    (question,) = (await questions(api, version)).values()
    refused = await decides(api, question, "max")
    assert await code(refused) == (403, "duty-conflict")
    assert (await refused.json())["conflict"] == 25
    tried = await api.rows(
        "SELECT after->>'refused' AS code FROM gateway.audit"
        " WHERE command = 'approval.decide' AND actor = 'max'"
    )
    assert [row["code"] for row in tried] == ["duty-conflict"]
    await told(await decides(api, question, "bob"), 200)


async def test_a_process_that_cannot_follow_decides_nothing(api: Api) -> None:
    """It says why, and a command is refused rather than decided with rules not in force."""
    async with api.pool.acquire() as conn:
        await rulebooks.adopt(conn, changed(BOOK, dearer), by(api), api.parts.ids)
    follows = follower(api, lambda _: [Finding(NOWHERE, "missing-section", "no way to acme")])
    await follows.look()
    assert "no way to acme" in api.parts.rules.trouble
    body = {"reference": "c-9", "brand": "northgate", "country": "DE", "currency": "EUR"}
    answer = await api.call("POST", "/v1/clients", body)
    assert await code(answer) == (503, "rulebook-moved")
    able = follower(api)
    await able.look()
    assert (await api.call("POST", "/v1/clients", body)).status == 201


async def test_of_many_processes_one_brings_it_into_force(api: Api) -> None:
    """All look at once: one event, one version in force."""
    version = await drafted(api, dearer)
    await told(await asks(api, version), 202)
    await agreed(api, version)

    async def looks() -> None:
        async with api.pool.acquire() as conn:
            await Enacting(api.parts.ids, by(api)).due(conn)

    await asyncio.gather(*(looks() for _ in range(6)))
    assert await api.pool.fetchval("SELECT max(version) FROM gateway.rulebook_event") == 2
    assert (await shown(api, version))["state"] == "effective"


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE gateway.rulebook_version SET state = 'approved'", "agreed"),
        ("UPDATE gateway.rulebook_version SET hash = base", "permission"),
        ("UPDATE gateway.rulebook_version SET areas = '{}'", "permission"),
        ("DELETE FROM gateway.rulebook_version", "permission"),
        ("UPDATE gateway.rulebook_version SET agreed = areas, state = 'approved'", "proved"),
    ],
)
async def test_the_database_lets_nobody_alone_approve(
    api: Api, statement: str, why: str
) -> None:  # fmt: skip
    """As the daemon's role: a version without approvals does not become an approved one."""
    await drafted(api, dearer)
    with pytest.raises(asyncpg.PostgresError, match=why):
        await api.pool.execute(statement)


async def test_a_process_starts_with_what_is_in_force_whatever_its_folder_says(api: Api) -> None:
    """Its own where that is in force or the house is new; else the one in force, if its own was
    ever drafted here; what waits for a start is adopted, what nobody agreed to is not.
    """
    ids = api.parts.ids

    async def started(book: Rulebook, *, adopt: bool = False) -> str:
        async with api.pool.acquire() as conn:
            return (await versions.start(conn, book, by(api), ids, adopt=adopt)).hash

    other = changed(BOOK, dearer)
    assert await started(BOOK) == BOOK.hash
    for adopt in (False, True):
        with pytest.raises(versions.NotAgreed):
            await started(other, adopt=adopt)
    version = await drafted(api, dearer)
    assert version["hash"] == other.hash
    for adopt in (False, True):
        assert await started(other, adopt=adopt) == BOOK.hash  # known, but nobody agreed
    await told(await asks(api, version), 202)
    await agreed(api, version)
    await api.pool.execute(
        "UPDATE gateway.rulebook_version SET restart = true WHERE id = $1", version["id"]
    )
    await follower(api).look()
    assert api.parts.rules.now.hash == BOOK.hash  # it waits for a process to start with it
    assert await started(other) == BOOK.hash
    assert await started(other, adopt=True) == other.hash
    assert await started(BOOK, adopt=True) == other.hash  # an old folder brings nothing back
    assert (await shown(api, version))["state"] == "effective"


async def test_effects_name_whom_a_version_concerns(api: Api) -> None:
    """Contracts on a plan that changes, people of a role that changes, what each gains."""
    await api.new_contract()
    await api.key("reader", owner="rita", person="rita")

    def wider(wanted: Document) -> None:
        named(wanted, "role", "reader")["scopes"].append("deposits:read")

    async def effects(version: dict[str, Any]) -> dict[str, Any]:
        path = f"/v1/rulebook/versions/{version['id']}/effects"
        return await told(await api.call("GET", path), 200)

    seen = await effects(await drafted(api, dearer))
    assert seen["plans"] == [{"plan": "eu-partner", "contracts": 1}]
    assert (seen["roles"], seen["routing"]["payments"]) == ([], 0)
    seen = await effects(await drafted(api, wider, "ian", "iam"))
    assert seen["roles"] == [
        {"role": "reader", "people": ["rita"], "gains": ["deposits:read"], "loses": []}
    ]


async def test_a_plan_that_comes_back_in_another_currency_never_takes_effect(api: Api) -> None:
    """What was published before it was drafted is seen at the end: it is outdated, with the why."""
    plan: dict[str, Any] = {}

    def without(wanted: Document) -> None:
        plan.update(named(wanted, "plan", "eu-partner"))
        wanted["plan"] = [each for each in wanted["plan"] if each["id"] != "eu-partner"]

    def back(wanted: Document) -> None:
        wanted["plan"].append(plan | {"currency": "USD"})

    gone = await drafted(api, without)
    await told(await asks(api, gone), 202)
    await agreed(api, gone)
    await follower(api).look()
    assert api.parts.rules.now.hash == gone["hash"]
    other = await drafted(api, back)
    await told(await asks(api, other), 202)
    await agreed(api, other)

    await follower(api).look()

    assert api.parts.rules.now.hash == gone["hash"]
    assert (await shown(api, other))["state"] == "outdated"
    [(subject, reason)] = await api.rows(
        "SELECT subject, reason FROM gateway.item WHERE kind = 'rulebook-outdated'"
    )
    assert subject == other["id"]
    assert "`eu-partner` was published in EUR" in reason
