"""Stories of rules that change while a broker works: published by data alone, followed by every
process within a second, and never by the word of one person.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import pytest
import pytest_asyncio

from gateway.control.keys import NewKey
from gateway.demo.api import Api
from gateway.demo.children import ChildFailed
from gateway.demo.daemons import KeyRing
from tests.support.house import Addresses, Daemon, House, open_house, until
from tests.support.rulebooks import Document, named
from tests.support.servers import Cluster, fresh_database

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

Change = Callable[[Document], object]
SPARE: Final = "echo"  # a provider whose address the settings know, and the rulebook does not yet
CHECKERS: Final[Mapping[str, str]] = {
    "entities": "finance", "plans": "finance", "routing": "finance", "rules": "mlro",
    "platforms": "dealing",
}  # fmt: skip
EFFECTIVE: Final = "SELECT hash FROM gateway.rulebook_in_force"


class Board:
    """Who drafts, and who agrees: people of the roles that may, each with a key."""

    def __init__(self, house: House, second: Daemon, tokens: Mapping[str, str]) -> None:
        self.house = house
        self.second = second
        self.tokens = tokens

    def person(self, role: str) -> Api:
        """Somebody of this role."""
        return self.house.caller(self.tokens[role])

    async def drafts(self, change: Change, role: str = "admin") -> dict[str, Any]:
        """The rulebook in force, changed by data alone, as a version."""
        who = self.person(role)
        document = (await who.get("/v1/rulebook"))["document"]
        change(document)
        made = await who.send(
            "POST", "/v1/rulebook/versions", {"reason": "the board", "document": document}
        )
        assert made.status == 201, made.body
        body: dict[str, Any] = made.body
        assert body["findings"] == [], body["findings"]
        return body

    async def publishes(self, change: Change, role: str = "admin") -> dict[str, Any]:
        """A change, agreed to by those who may, and followed by every process within a second."""
        version = await self.drafts(change, role)
        path = f"/v1/rulebook/versions/{version['id']}"
        asked = await self.person(role).send("POST", f"{path}/publish", {"reason": "please"})
        assert asked.status == 202, asked.body
        for area in version["areas"]:
            checker = "second-iam" if area == "access" else CHECKERS[area]
            await self.agrees(version, area, checker)
        await self.followed(version["hash"])
        return version

    async def agrees(self, version: Mapping[str, Any], area: str, checker: str) -> None:
        """The question about one area, agreed to by one person."""
        page = await self.person(checker).get("/v1/approvals?state=open&limit=200")
        (question,) = [
            it for it in page["data"]
            if it["subject"] == version["id"] and it["kind"] == f"rulebook.{area}"
        ]  # fmt: skip
        order = {"decision": "approve", "reason": "read and agreed"}
        path = f"/v1/approvals/{question['id']}/decide"
        decided = await self.person(checker).send("POST", path, order)
        assert decided.status == 200, decided.body

    async def followed(self, hash: str) -> None:
        """Every process decides with it: each says so in its metrics."""
        said = f'brokerd_rulebook_info{{hash="{hash}"}} 1.0'

        async def all_do() -> bool:
            both = [
                self.house.caller(self.tokens["auditor"], each)
                for each in (self.house.daemon, self.second)
            ]
            answers = [await each.send("GET", "/metrics") for each in both]
            return all(said in answer.raw.decode() for answer in answers)

        await until(all_do, f"{hash} followed")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(
    migrated_cluster: Cluster, redis_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    """A broker whose settings know one provider more than its rulebook."""
    folder = tmp_path_factory.mktemp("house")
    async with fresh_database(migrated_cluster) as database:
        addresses = Addresses(database.daemon_dsn, database.owner_dsn, redis_server)
        async with open_house(addresses, folder, spare=(SPARE,)) as opened:
            yield opened
            assert await opened.disagreements() == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def board(house: House) -> Board:
    """People with keys of their own."""
    ring = KeyRing(house.book, house.secrets, house.ids, lambda: datetime.now(UTC), os.urandom)
    roles = ("admin", "finance", "mlro", "dealing", "auditor", "iam", "partner-manager")
    wishes = {role: NewKey(f"b-{role}", role) for role in roles}
    wishes["second-iam"] = NewKey("b-second-iam", "iam")
    second = await house.another_daemon("second")
    async with house.database() as conn:
        return Board(
            house, second, {name: await ring.key(conn, wish) for name, wish in wishes.items()}
        )


async def test_what_waits_for_a_start_is_adopted_by_it(house: House, board: Board) -> None:
    """Terms of a trading server's session: agreed to, they wait until a process starts with them.
    A folder that nobody agreed to starts nothing.
    """
    file = house.rulebook / "broker.toml"
    written = file.read_text()
    line = next(it for it in written.splitlines() if it.startswith("settle_time_s"))
    file.write_text(written.replace(line, "settle_time_s = 0.7"))
    await house.daemon.stop()
    with pytest.raises(ChildFailed, match="nobody has agreed to"):
        await house.daemon.start()
    file.write_text(written)
    await house.daemon.start()

    def change(document: Document) -> None:
        document["platform"][0]["settle_time_s"] = 0.7

    version = await board.drafts(change)
    assert version["restart"]
    path = f"/v1/rulebook/versions/{version['id']}"
    await board.person("admin").post(f"{path}/publish", {"reason": "please"})
    await board.agrees(version, "platforms", "dealing")
    assert (await board.person("auditor").get(path))["state"] == "approved"
    file.write_text(written.replace(line, "settle_time_s = 0.7"))
    await house.daemon.restart()
    assert (await board.person("auditor").get(path))["state"] == "effective"

    async def behind() -> bool:
        ready = await house.caller("reader", board.second).send("GET", "/readyz")
        return "sessions are opened when a process starts" in ready.raw.decode()

    await until(behind, "the process that was not started again to say so")
    await board.second.restart()
    await board.followed(version["hash"])


def country(document: Document) -> None:
    """Norway is not served any more: one code in one rule."""
    named(document, "rule", "not-served")["when"]["country"].append("NO")


async def test_a_country_is_taken_out(house: House, board: Board) -> None:
    """Before, a client's deposit is taken; within a second of the second person's word it is not.
    Deposits go on all the while, and each is decided by the rules in force at its commit.
    """
    client = await house.client(country="NO")
    assert (await house.pays(client)).status == 201
    stop = asyncio.Event()
    answers: list[Any] = []

    async def paying() -> None:
        while not stop.is_set():
            answers.append(await house.pays(client, "10.00"))

    payer = asyncio.create_task(paying())
    await board.publishes(country)
    stop.set()
    await payer
    assert {answer.status for answer in answers} == {201}  # none was turned away to come again
    declined = await house.pays(client)
    assert (declined.status, declined.body["state"]) == (201, "declined")
    trace = await house.portal.get(f"/v1/payments/{declined.body['id']}/trace")
    assert trace["route"]["refused"] == "country-not-served"
    async with house.database() as conn:
        wrong = await conn.fetchval(
            "SELECT count(*) FROM router.payment p JOIN gateway.rulebook_event e"
            " ON e.version = (SELECT max(version) FROM gateway.rulebook_event)"
            " WHERE p.client_id = $1 AND p.rulebook = e.from_hash"
            " AND p.created > e.at + interval '1 second'", client.id,
        )  # fmt: skip
    assert wrong == 0


async def test_a_routing_rule_sends_payments_another_way(house: House, board: Board) -> None:
    """Two names in one list change places."""
    client = await house.client()
    await board.publishes(lambda it: named(it, "rule", "eu-card")["route"].reverse())
    view = (await house.pays(client, "20.00")).body
    assert [attempt["psp"] for attempt in view["attempts"]] == ["bolt"]


async def test_a_provider_is_added(house: House, board: Board) -> None:
    """One table and one name: payments go to it at once. One without a way to reach it is found."""

    def adds(name: str) -> Change:
        def change(document: Document) -> None:
            made = dict(named(document, "psp", "bolt"), id=name)
            document["psp"].append(made)
            named(document, "rule", "eu-card")["route"].insert(0, name)

        return change

    who = board.person("admin")
    document = (await who.get("/v1/rulebook"))["document"]
    adds("nowhere")(document)
    body = {"reason": "a new provider", "document": document}
    made = await who.send("POST", "/v1/rulebook/versions", body)
    assert [it["code"] for it in made.body["findings"]] == ["missing-section"]
    client = await house.client()
    await board.publishes(adds(SPARE))
    view = (await house.pays(client, "20.00")).body
    assert [attempt["psp"] for attempt in view["attempts"]] == [SPARE]


async def test_an_entity_and_its_brand_are_added(house: House, board: Board) -> None:
    """A book is opened, its partners' accounts are kept, and a client contracts with it."""

    def change(document: Document) -> None:
        document["entity"].append(
            {"id": "fx-mu", "name": "Harbour Markets Ltd", "jurisdiction": "MU", "book": 3,
             "currency": "USD"}
        )  # fmt: skip
        document["brand"].append({"id": "harbour", "entity": "fx-mu", "name": "Harbour"})
        for name in ("acme", "bolt", "coral"):
            named(document, "psp", name)["entities"].append("fx-mu")
        document["rule"].append(
            {"id": "mu-any", "when": {"entity": ["fx-mu"]}, "route": ["acme", "coral"]}
        )

    await board.publishes(change)
    client = await house.client(brand="harbour", country="ZA", currency="USD")
    paid = await house.pays(client, "50.00")
    assert (paid.status, paid.body["state"]) == (201, "approved")
    assert await house.wallet(client) == "50.00"
    async with house.database() as conn:
        owns = "SELECT count(*) FROM gateway.owner WHERE name = 'book:3'"
        await until(lambda: conn.fetchval(owns), "an owner of the new book")


async def test_a_second_brand_of_an_entity_is_added(house: House, board: Board) -> None:
    """One table: clients of the brand are made known, with the entity's groups."""

    def change(document: Document) -> None:
        document["brand"].append({"id": "westwind", "entity": "fx-int", "name": "Westwind"})

    await board.publishes(change)
    client = await house.client(brand="westwind", country="ZA", currency="USD", account="standard")
    assert client.account


async def test_an_approval_policy_asks_for_two(house: House, board: Board) -> None:
    """The next question needs two people; the one that was open needs what it was asked with."""

    def change(document: Document) -> None:
        document["approval"] = [
            it for it in document.get("approval", []) if it["kind"] != "client.move"
        ] + [{"kind": "client.move", "needed": 2}]

    olga = house.caller("olga")

    async def asks() -> dict[str, Any]:
        client = await house.client(risk="high", goes_to="kyc_under_review")
        view = await house.portal.get(f"/v1/clients/{client.id}")
        order = {"to": "approved", "expected_version": view["version"], "reason": "complete"}
        asked = await olga.send("POST", f"/v1/clients/{client.id}/moves", order)
        assert asked.status == 202, asked.body
        body: dict[str, Any] = asked.body
        return body

    before = await asks()
    await board.publishes(change)
    assert ((await asks())["needed"], before["needed"]) == (2, 1)
    again = await olga.get(f"/v1/approvals/{before['id']}")
    assert again["needed"] == 1


async def test_a_role_gains_a_permission(house: House, board: Board) -> None:
    """The same key may do more within a second: no restart, no new key."""
    reader = house.caller("reader")
    assert (await reader.send("GET", "/v1/partners")).status == 403

    def change(document: Document) -> None:
        named(document, "role", "sre")["scopes"].append("partners:read")

    await board.publishes(change, role="iam")
    assert (await reader.send("GET", "/v1/partners")).status == 200


async def test_a_plan_pays_another_rate_from_now_on(house: House, board: Board) -> None:
    """The new content is a version of the plan, in force from its commit; the old one stays."""

    def change(document: Document) -> None:
        named(document, "plan", "eu-partner")["rates"][1]["per_lot"] = "5.50"

    version = await board.publishes(change, role="partner-manager")
    async with house.database() as conn:
        rows = await conn.fetch(
            "SELECT body->'rates' AS rates, since FROM ledger.plan_version"
            " WHERE plan = 'eu-partner' ORDER BY since"
        )
    assert len(rows) == 2
    assert '"5.5"' in rows[-1]["rates"]
    assert '"5.5"' not in rows[0]["rates"]
    diff = await board.person("auditor").get(f"/v1/rulebook/versions/{version['id']}/diff")
    assert [(it["part"], it["item"], it["key"]) for it in diff["data"]] == [
        ("plan", "eu-partner", "rates")
    ]


async def brokerd(house: House, *arguments: str) -> tuple[int, str]:
    """The command line, as whoever sits at the machine: its status and what it printed."""
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.cli", "rulebook", *arguments,
        "--config", str(house.daemon.settings), env=dict(house.environ) | {"COLUMNS": "300"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await running.communicate()
    assert running.returncode is not None
    return running.returncode, said.decode()


async def test_from_the_command_line_a_version_is_brought_back(house: House, board: Board) -> None:
    """Whoever sits at the machine sees differences and asks; nobody there agrees."""
    now = await board.person("auditor").get("/v1/rulebook")
    before = now["number"] - 1
    status, said = await brokerd(house, "diff", "--against", str(before), "--effects")
    assert (status, "differences" in said) == (0, True)
    assert '"entities"' in said
    status, said = await brokerd(house, "rollback", str(before), "--reason", "it was too dear")
    assert status == 0, said
    assert "is asked: plans" in said
    page = await board.person("auditor").get("/v1/rulebook/versions?state=asked")
    (version,) = page["data"]
    assert version["restores"] == before
    assert (await board.person("auditor").get("/v1/rulebook"))["hash"] == now["hash"]
    await board.agrees(version, "plans", "finance")
    await board.followed(version["hash"])
    status, said = await brokerd(house, "history")
    assert status == 0
    assert "it was too dear" in said
    past = ("--effective-at", "2020-01-01T00:00:00Z")
    status, said = await brokerd(house, "rollback", str(before - 1), "--reason", "x", *past)
    assert (status, "effective-in-past" in said) == (1, True)
    status, said = await brokerd(house, "publish", "--reason", "the folder as it is")
    assert (status, "entity-removed" in said) == (1, True)


async def test_a_restart_decides_with_what_is_in_force_not_with_its_folder(
    house: House, board: Board
) -> None:
    """The folder still says what the first start brought; the process follows what was agreed."""
    async with house.database() as conn:
        before = await conn.fetchval(EFFECTIVE)
    assert before != house.book.hash
    await house.daemon.restart()
    await board.followed(before)
