"""Lent rights: by whose right somebody decides, for how long, and what cannot be lent."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import aiohttp
import asyncpg
import msgspec

from config.rulebook import ApprovalPolicy
from gateway.control import audit, grants
from gateway.control.approvals import Approval
from gateway.control.audit import Command
from gateway.flows.approving import InUnit
from ledger.units import Change
from tests.integration.gateway.conftest import Api
from tests.integration.gateway.test_approvals_api import (
    YES,
    applied_by,
    code,
    decide,
    policies,
    question,
    state,
)


async def lend(
    api: Api, giver: str, delegate: str, *, role: str = "compliance", days: float = 1,
    **wish: Any,
) -> aiohttp.ClientResponse:  # fmt: skip
    """Have a giver lend their right to decide."""
    token = await api.key(role=role, owner="checkers", person=giver)
    until = (api.clock.now() + timedelta(days=days)).isoformat()
    body = {"delegate": delegate, "until": until, "reason": "on holiday", **wish}
    return await api.call("POST", "/v1/delegations", body, token=token)


async def clerk(api: Api, person: str) -> str:
    """Somebody who may decide questions, but of no kind."""
    return await api.key(role="clerk", owner="desk", person=person)


async def by_clerk(api: Api, approval: Mapping[str, Any], person: str) -> aiohttp.ClientResponse:
    """Have such a person decide."""
    path = f"/v1/approvals/{approval['id']}/decide"
    return await api.call("POST", path, YES, token=await clerk(api, person))


async def test_a_lent_right_decides_while_it_is_lent_and_is_named(api: Api) -> None:
    """Not before, not after; the vote, its event, its acts and its audit say whose right it was."""
    await clerk(api, "dan")
    first, second = await question(api), await question(api, reference="c-2")
    alone = await by_clerk(api, first, "dan")

    lent = await lend(api, "eve", "dan", kinds=["client.move"], entities=["fx-eu"])
    done = await by_clerk(api, first, "dan")
    api.clock.skew_s = 24 * 3600 + 5
    over = await (await api.call("GET", "/v1/delegations")).json()

    delegation = await lent.json()
    assert await code(alone) == (403, "forbidden")
    assert (lent.status, delegation["state"], over["data"][0]["state"]) == (201, "in force", "over")
    view = await done.json()
    assert (view["state"], view["votes"], view["authorities"]) == ("approved", ["dan"], ["eve"])
    [event] = await api.rows("SELECT cause, actor FROM gateway.approval_event WHERE event='agreed'")
    cause = msgspec.json.decode(event["cause"])
    assert (event["actor"], cause["on_behalf_of"], cause["delegation"]) == (
        "dan", "eve", delegation["id"],
    )  # fmt: skip
    [row] = await api.rows(
        "SELECT actor, on_behalf_of FROM gateway.audit WHERE command = 'approval.decide' "
        "AND after->>'state' = 'approved'"
    )
    assert tuple(row) == ("dan", "eve")
    people = await api.rows(
        "SELECT person FROM gateway.act WHERE approval = $1 AND person <> 'ann'", first["id"]
    )
    assert {row["person"] for row in people} == {"dan", "eve"}
    assert second["state"] == "open"


async def test_a_lent_right_reaches_as_far_as_its_givers(api: Api) -> None:
    """The delegate reads and decides in an entity of the giver's that is none of their own."""
    away = await api.key(role="clerk", owner="desk", person="dan", entities=("fx-int",))
    approval = await question(api)
    path = f"/v1/approvals/{approval['id']}"
    hidden = await api.call("GET", path, token=away)
    unknown = await api.call("POST", f"{path}/decide", YES, token=away)

    await lend(api, "eve", "dan", entities=["fx-eu"])
    seen = await api.call("GET", path, token=away)
    done = await api.call("POST", f"{path}/decide", YES, token=away)

    assert (hidden.status, unknown.status) == (404, 404)
    assert (seen.status, done.status) == (200, 200)


async def test_a_right_lent_by_the_maker_is_no_right(api: Api) -> None:
    """Conflict 34: who asked does not have a delegate agree."""
    await clerk(api, "dan")
    await api.key(role="compliance", owner="checkers", person="ann")
    await lend(api, "ann", "dan")
    approval = await question(api, maker="ann")

    answer = await by_clerk(api, approval, "dan")

    assert (await code(answer), (await answer.json())["conflict"]) == ((403, "duty-conflict"), 34)


async def test_one_right_is_one_vote(api: Api) -> None:
    """Neither the giver beside the delegate, nor two delegates of one giver."""
    policies(api, ApprovalPolicy(kind="client.move", needed=2))
    for person in ("dan", "kim"):
        await clerk(api, person)
        assert (await lend(api, "eve", person)).status == 201
    approval = await question(api)

    assert (await by_clerk(api, approval, "dan")).status == 200
    assert await code(await by_clerk(api, approval, "kim")) == (409, "already-voted")
    assert await code(await decide(api, approval, "eve")) == (409, "already-voted")
    assert (await decide(api, approval, "bob")).status == 200


async def test_a_lent_right_ends_with_the_delegation_and_with_the_givers_own(api: Api) -> None:
    """Taken back by its giver; or the giver holds it no more: then nobody has it of them."""
    await clerk(api, "dan")
    approval = await question(api)
    lent = await (await lend(api, "eve", "dan")).json()
    giver = await api.key(role="compliance", owner="checkers", person="eve")
    stranger = await api.key(role="compliance", owner="checkers", person="bob")
    path = f"/v1/delegations/{lent['id']}/end"

    foreign = await api.call("POST", path, {"reason": "x"}, token=stranger)
    ended = await api.call("POST", path, {"reason": "back"}, token=giver)
    after = await by_clerk(api, approval, "dan")
    twice = await api.call("POST", path, {"reason": "back"}, token=giver)
    await lend(api, "eve", "dan")
    async with api.pool.acquire() as conn, conn.transaction():
        [held] = await grants.of_person(conn, "eve")
        change = grants.taken(held, "root", api.clock.now())
        await audit.write(conn, [change])
    powerless = await by_clerk(api, approval, "dan")

    assert foreign.status == 404
    assert (ended.status, (await ended.json())["ended_by"]) == (200, "eve")
    assert await code(twice) == (409, "delegation-over")
    assert await code(after) == (403, "forbidden")
    assert await code(powerless) == (403, "forbidden")


async def test_a_right_that_is_taken_back_at_that_moment_does_not_count(api: Api) -> None:
    """It was lent when it was read, and is not when the vote is to be written."""
    await clerk(api, "dan")
    await lend(api, "eve", "dan")
    approval = await question(api)

    async def changes(
        conn: asyncpg.Connection, approval: Approval, command: Command
    ) -> tuple[Change, ...]:
        await api.owner.execute("UPDATE gateway.delegation SET ended = now(), ended_by = 'eve'")
        return ()

    async with applied_by(api, InUnit(changes)):
        answer = await by_clerk(api, approval, "dan")

    assert await code(answer) == (403, "forbidden")
    assert await state(api, approval) == "open"


async def test_what_cannot_be_lent_is_refused(api: Api) -> None:
    """Too long, into the past, to oneself, to nobody, to a machine, or what one does not have."""
    await clerk(api, "dan")
    await api.key(role="svc.portal", owner="portal", person="portal")
    past = (api.clock.now() - timedelta(minutes=1)).isoformat()
    for status, wanted, wish in (
        (422, "delegation-time", {"days": 32}),
        (422, "delegation-time", {"days": -1}),
        (422, "delegation-time", {"since": past}),
        (422, "delegate-self", {"delegate": "eve"}),
        (422, "person-unknown", {"delegate": "nobody"}),
        (422, "person-unknown", {"delegate": "portal"}),
        (422, "kind-unknown", {"kinds": ["client.paint"]}),
        (422, "reason-missing", {"reason": ""}),
        (403, "forbidden", {"role": "clerk"}),
    ):
        answer = await lend(api, "eve", wish.pop("delegate", "dan"), **wish)
        assert await code(answer) == (status, wanted), wish


async def test_nothing_is_lent_into_a_hand_that_may_not_hold_it(api: Api) -> None:
    """As no role is given beside another: neither by name, nor by what is lent of everything."""
    await api.key(role="auditor", owner="desk", person="kim")
    named = await lend(api, "eve", "kim", kinds=["client.move"])
    everything = await lend(api, "eve", "kim")
    approval = await question(api)
    token = await api.key(role="auditor", owner="desk", person="kim")

    used = await api.call("POST", f"/v1/approvals/{approval['id']}/decide", YES, token=token)

    assert await code(named) == (409, "roles-conflict")
    assert (await named.json())["conflicts"] == [29]
    assert everything.status == 201
    assert await code(used) == (403, "forbidden")


async def test_who_sees_what_was_lent(api: Api) -> None:
    """Giver and delegate see their own; others what lies within their entities."""
    await clerk(api, "dan")
    await lend(api, "eve", "dan", entities=["fx-int"])
    narrow = {
        person: await api.key(role="compliance", owner="o", person=person, entities=("fx-eu",))
        for person in ("dan", "bob")
    }

    seen = {
        person: (await (await api.call("GET", "/v1/delegations", token=token)).json())["data"]
        for person, token in narrow.items()
    }

    assert [len(seen[person]) for person in ("dan", "bob")] == [1, 0]
