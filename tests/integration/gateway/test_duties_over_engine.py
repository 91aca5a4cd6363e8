"""The law of duties over the whole engine: whatever people try, nobody touches both ends.

Knows how to be many people with several credentials, roles and lent rights at once, over the API.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import timedelta
from typing import Any, Final

from gateway.control.duty_report import Period, report
from gateway.control.items import item_opened
from ledger.units import Done, Unit
from tests.integration.gateway.conftest import Api

SEED: Final = 2026
ROUNDS: Final = 40
AT_ONCE: Final = 6
PEOPLE: Final = ("ann", "bob", "cem", "dua")
ROLES: Final = ("everything", "everything", "everything", "as.compliance", "as.finance", "as.iam")
STATES: Final = ("kyc_pending", "kyc_under_review", "approved", "restricted", "deposit_enabled")
SEPARATED: Final = ("duty-conflict", "own-role", "same-person", "roles-conflict")


class Town:
    """People at work on the same few clients, and what became of what they tried."""

    def __init__(self, api: Api, chance: random.Random) -> None:
        self.api = api
        self.chance = chance
        self.clients: list[str] = []
        self.contracts: list[str] = []
        self.said: Counter[str] = Counter()

    async def found(self) -> None:
        """Three clients in review, an item about each, and two partners' contracts."""
        for n in range(3):
            made = await self.api.new_client(f"c-{n}", risk_band="high")
            view = await self.api.walk(made, "registered", "kyc_pending", "kyc_under_review")
            self.clients.append(str(view["id"]))
        for n in range(2):
            contract = await self.api.new_contract(f"p-{n}")
            self.contracts.append(str(contract["code"]))

    async def item(self, client: str) -> None:
        """Something about a client that somebody must look at."""
        opened = item_opened(
            self.api.parts.ids.new("IT"), "duty-test", "payments", client, "look",
            self.api.clock.now(), entity="fx-eu",
        )  # fmt: skip
        assert isinstance(await self.api.lane.submit(Unit((opened,))), Done)

    async def token(self) -> str:
        """A credential of anybody, one of several they have."""
        person, role = self.chance.choice(PEOPLE), self.chance.choice(ROLES)
        return await self.api.key(role, owner=f"{person}.{self.chance.randrange(2)}", person=person)

    async def post(self, path: str, body: object) -> Any:
        """Try it, and remember what was said."""
        answer = await self.api.call("POST", path, body, token=await self.token())
        said = await answer.json()
        self.said["done" if answer.status < 300 else str(said.get("code"))] += 1
        return said

    async def moves(self) -> None:
        """A client is to be moved."""
        client = self.chance.choice(self.clients)
        rows = await self.api.rows("SELECT version FROM gateway.client WHERE id = $1", client)
        to = self.chance.choice(STATES)
        body: dict[str, object] = {
            "to": to, "expected_version": rows[0]["version"], "reason": "r",
        }  # fmt: skip
        if to == "restricted":
            body["blocks"] = ["trade"]
        await self.post(f"/v1/clients/{client}/moves", body)

    async def reattributes(self) -> None:
        """A client is to come through another partner."""
        client = self.chance.choice(self.clients)
        body = {"code": self.chance.choice(self.contracts), "reason": "r", "evidence": "DOC-1"}
        await self.post(f"/v1/clients/{client}/attribution-changes", body)

    async def decides(self) -> None:
        """An open question is decided, by its asker too."""
        rows = await self.api.rows("SELECT id FROM gateway.approval WHERE state = 'open'")
        if rows:
            body = {"decision": self.chance.choice(("approve", "approve", "refuse")), "reason": "r"}
            await self.post(f"/v1/approvals/{self.chance.choice(rows)['id']}/decide", body)

    async def lends(self) -> None:
        """Somebody lends their right to decide."""
        until = self.api.clock.now() + timedelta(days=1)
        body = {"delegate": self.chance.choice(PEOPLE), "until": until.isoformat(), "reason": "r"}
        await self.post("/v1/delegations", body)

    async def gives(self) -> None:
        """Somebody is to be given a role."""
        person = self.chance.choice((*PEOPLE, "eve", "fay"))
        role = self.chance.choice(("as.finance", "as.compliance", "as.support"))
        await self.post("/v1/grants", {"person": person, "role": role, "reason": "r"})

    async def resolves(self) -> None:
        """What somebody must look at is closed."""
        await self.item(self.chance.choice(self.clients))
        rows = await self.api.rows("SELECT id FROM gateway.item WHERE state = 'open'")
        if rows:
            body = {"reason": "r"}
            await self.post(f"/v1/items/{self.chance.choice(rows)['id']}/resolve", body)

    def tries(self) -> Any:
        """Whatever comes to somebody's mind."""
        kinds = (self.moves, self.reattributes, self.decides, self.lends, self.gives, self.resolves)
        return self.chance.choices(kinds, weights=(4, 3, 9, 1, 2, 1))[0]()


async def test_nobody_touches_both_ends_whatever_is_tried(api: Api) -> None:
    """Random people with several credentials, roles and lent rights ask, decide and close at once:
    the search of the report finds no pair, and each refusal is in the audit.
    """
    town = Town(api, random.Random(SEED))
    await town.found()
    for _ in range(ROUNDS):
        await asyncio.gather(*(town.tries() for _ in range(AT_ONCE)))
    now = api.clock.now() + timedelta(seconds=1)
    period = Period(now - timedelta(days=1), now)
    async with api.pool.acquire() as conn:
        said = await report(conn, api.parts.rules.now.access, period, now)
    assert said.violations == ()
    assert said.acts > 20, "enough was done to say so"
    refused = await api.rows(
        "SELECT after ->> 'refused' AS code, count(*) AS n FROM gateway.audit "
        "WHERE after ? 'refused' GROUP BY 1"
    )
    audited = {row["code"]: row["n"] for row in refused}
    for code in SEPARATED:
        assert audited.get(code, 0) == town.said[code], (code, town.said, audited)
    assert sum(town.said[code] for code in SEPARATED) > 10, town.said
