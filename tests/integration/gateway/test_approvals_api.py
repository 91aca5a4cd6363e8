"""The engine of approvals at work: votes, bound policies, withdrawal, expiry, effects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import aiohttp
import asyncpg
import msgspec
import pytest

from config.rulebook import ApprovalPolicy
from gateway.control.approvals import Approval
from gateway.control.audit import Command
from gateway.control.idempotency import Idem
from gateway.control.refusals import Refusal
from gateway.control.rules import settled
from gateway.control.views import Decide
from gateway.flows.approving import Applier, Approving, InTransaction, InUnit
from gateway.flows.expiring import Expiring
from gateway.flows.outbox import Emitter
from ledger.units import Change
from tests.integration.gateway.conftest import BOOK, Api

YES = {"decision": "approve", "reason": "fine"}
NO = {"decision": "refuse", "reason": "not so"}


async def question(api: Api, maker: str = "ann", reference: str = "c-1", **client: Any) -> Any:
    """An open question of a maker's about a client under review."""
    known = await api.new_client(reference, **client)
    view = await api.walk(known, "registered", "kyc_pending", "kyc_under_review")
    token = await api.key(role="operations", owner="ops", person=maker)
    answer = await api.move(view, "approved", token=token)
    assert answer.status == 202, await answer.text()
    return await answer.json()


async def decide(
    api: Api, approval: Mapping[str, Any], person: str, order: Mapping[str, str] = YES, *,
    role: str = "compliance", entities: tuple[str, ...] = ("*",), key: str = "",
) -> aiohttp.ClientResponse:  # fmt: skip
    """Have a person decide."""
    token = await api.key(role=role, owner="checkers", person=person, entities=entities)
    path = f"/v1/approvals/{approval['id']}/decide"
    return await api.call("POST", path, order, token=token, key=key)


async def code(answer: aiohttp.ClientResponse) -> tuple[int, str]:
    """Status and code of a problem."""
    return answer.status, (await answer.json())["code"]


async def state(api: Api, approval: Mapping[str, Any]) -> str:
    """The state that the row says."""
    [row] = await api.rows("SELECT state FROM gateway.approval WHERE id = $1", approval["id"])
    return str(row["state"])


def policies(api: Api, *rules: ApprovalPolicy) -> None:
    """Decide with these policies from now on, under the name of the rulebook in force."""
    book = msgspec.structs.replace(BOOK, approvals=rules)
    api.parts.rules.swap(settled(book).now)


# --- votes ---------------------------------------------------------------------------------------


async def test_two_of_many_agree_and_the_effect_comes_with_the_second(api: Api) -> None:
    """Votes at the same moment are counted one after the other, each once."""
    policies(api, ApprovalPolicy(kind="client.move", needed=2, risk="high"))
    approval = await question(api, risk_band="high")

    first, again = await decide(api, approval, "bob"), await decide(api, approval, "bob")
    rest = await asyncio.gather(*[decide(api, approval, f"p{n}") for n in range(3)])

    assert (await first.json())["state"] == "open"
    assert await code(again) == (409, "already-voted")
    assert sorted(each.status for each in rest) == [200, 409, 409]
    moved = await api.rows("SELECT 1 FROM gateway.client_event WHERE to_state = 'approved'")
    assert len(moved) == 1
    [row] = await api.rows("SELECT votes, authorities, state FROM gateway.approval")
    assert (row["state"], len(row["votes"]), row["votes"]) == ("approved", 2, row["authorities"])


async def test_all_votes_that_are_needed_may_come_at_once(api: Api) -> None:
    """Nobody who may still agree is told that something else happened."""
    policies(api, ApprovalPolicy(kind="client.move", needed=4))
    approval = await question(api)

    answers = await asyncio.gather(*[decide(api, approval, f"p{n}") for n in range(4)])

    assert [each.status for each in answers] == [200] * 4
    assert await state(api, approval) == "approved"


async def test_a_later_policy_changes_nothing_that_is_open(api: Api) -> None:
    """How many, who and how long were bound when it was asked."""
    approval = await question(api)
    policies(
        api,
        ApprovalPolicy(kind="client.move", needed=5, permission="kyc-high:approve", expiry_s=1),
    )
    after = await question(api, reference="c-2")

    done = await decide(api, approval, "bob")

    assert (approval["needed"], approval["level"], approval["permission"]) == (
        1, "global", "lifecycle:approve",
    )  # fmt: skip
    assert (await done.json())["state"] == "approved"
    assert (after["needed"], after["permission"]) == (5, "kyc-high:approve")


async def test_the_closest_policy_is_named(api: Api) -> None:
    """A policy of the entity beats one for everybody, and the question says so."""
    policies(
        api,
        ApprovalPolicy(kind="client.move", needed=3),
        ApprovalPolicy(kind="client.move", needed=2, entity="fx-eu"),
    )

    shown = await question(api)

    assert (shown["needed"], shown["level"]) == (2, "entity")


async def test_a_decision_says_why(api: Api) -> None:
    """Blanks are no reason; nothing is counted."""
    approval = await question(api)

    for order in ({"decision": "approve"}, {"decision": "refuse", "reason": "  "}):
        assert await code(await decide(api, approval, "bob", order)) == (422, "reason-missing")

    assert await state(api, approval) == "open"


async def test_what_was_decided_stays_decided_whoever_writes(api: Api) -> None:
    """The row refuses its owner too: too few votes, or the maker's own, are no approval."""
    approval = await question(api)
    for statement in (
        "UPDATE gateway.approval SET state = 'approved', open_key = NULL",
        "UPDATE gateway.approval SET votes = '{ann}', authorities = '{bob}'",
        "UPDATE gateway.approval SET votes = '{bob}', authorities = '{ann}'",
        "UPDATE gateway.approval SET votes = '{bob}'",
    ):
        with pytest.raises(asyncpg.CheckViolationError):
            await api.owner.execute(statement)
    await decide(api, approval, "bob", NO)

    for statement in (
        "UPDATE gateway.approval SET state = 'open', open_key = 'x', votes = '{}'",
        "DELETE FROM gateway.approval",
        "TRUNCATE gateway.approval",
    ):
        with pytest.raises(asyncpg.RestrictViolationError):
            await api.owner.execute(statement)


# --- withdrawal ----------------------------------------------------------------------------------


async def test_a_maker_takes_a_question_back_and_may_ask_again(api: Api) -> None:
    """Only the maker, only while it is open, with a reason; the same key is answered the same."""
    approval = await question(api)
    path = f"/v1/approvals/{approval['id']}/withdraw"
    ann = await api.key(role="operations", owner="ops", person="ann")
    bob = await api.key(role="compliance", owner="checkers", person="bob")
    why = {"reason": "asked too early"}

    others = await api.call("POST", path, why, token=bob)
    silent = await api.call("POST", path, {}, token=ann)
    done = await api.call("POST", path, why, token=ann, key="w")
    again = await api.call("POST", path, why, token=ann, key="w")
    late = await decide(api, approval, "bob")
    twice = await api.call("POST", path, why, token=ann)

    assert await code(others) == (403, "not-maker")
    assert await code(silent) == (422, "reason-missing")
    assert (done.status, (await done.json())["state"]) == (200, "withdrawn")
    assert await again.read() == await done.read()
    assert await code(late) == (409, "already-decided")
    assert await code(twice) == (409, "already-decided")
    client = await (await api.call("GET", f"/v1/clients/{approval['subject']}")).json()
    assert (await api.move(client, "approved", token=ann)).status == 202
    rows = await api.rows("SELECT actor FROM gateway.audit WHERE command = 'approval.withdraw'")
    assert sorted(row["actor"] for row in rows) == ["ann", "ann", "bob"]
    [told] = await api.rows("SELECT lane FROM gateway.outbox WHERE kind = 'approval.withdrawn'")
    assert told["lane"] == "subscriber:ops"


async def test_a_withdrawal_and_an_approval_at_once_are_one_of_the_two(api: Api) -> None:
    """Whichever comes first, the client moved only if it was approved."""
    for n in range(6):
        approval = await question(api, reference=f"c-{n}")
        token = await api.key(role="operations", owner="ops", person="ann")
        path = f"/v1/approvals/{approval['id']}/withdraw"
        back, done = await asyncio.gather(
            api.call("POST", path, {"reason": "no"}, token=token), decide(api, approval, "bob")
        )
        assert sorted((back.status, done.status)) == [200, 409]
        client = await (await api.call("GET", f"/v1/clients/{approval['subject']}")).json()
        assert (client["state"] == "approved") == (done.status == 200)


# --- expiry --------------------------------------------------------------------------------------


def expiring(api: Api) -> Expiring:
    """The service, as the daemon runs it."""
    return Expiring(api.lane, api.pool, Emitter(api.clock.now), api.clock.now)


async def test_what_nobody_decided_in_time_is_closed_and_told(api: Api) -> None:
    """Once, by whichever replica looks first; what has time left stays open."""
    lapsed = await question(api)
    api.clock.skew_s = 3000
    fresh = await question(api, reference="c-2")
    assert await expiring(api).sweep() == 0
    api.clock.skew_s = 3700

    await asyncio.gather(*[expiring(api).sweep() for _ in range(3)])

    assert (await state(api, lapsed), await state(api, fresh)) == ("expired", "open")
    events = await api.rows("SELECT event, actor FROM gateway.approval_event ORDER BY id")
    assert [tuple(row) for row in events] == [
        ("asked", "ann"), ("asked", "ann"), ("expired", "clock"),
    ]  # fmt: skip
    told = await api.rows("SELECT aggregate FROM gateway.outbox WHERE kind = 'approval.expired'")
    assert [row["aggregate"] for row in told] == [lapsed["id"]]


async def test_a_decision_that_is_stored_too_late_does_not_count(api: Api) -> None:
    """In time by the clock of who decides, too late by the server's when it is to be written."""
    approval = await question(api)
    await api.owner.execute(
        "UPDATE gateway.approval SET expires = clock_timestamp() - interval '1 second'"
    )
    api.clock.skew_s = -3600

    answer = await decide(api, approval, "bob")

    assert await code(answer) == (409, "approval-expired")
    assert await state(api, approval) == "open"
    assert not await api.rows("SELECT 1 FROM gateway.client_event WHERE to_state = 'approved'")


async def test_a_decision_and_the_clock_at_once_are_one_of_the_two(api: Api) -> None:
    """An approval that counted is never undone by expiry, nor the other way round."""
    made = [await question(api, reference=f"c-{n}") for n in range(5)]
    sweeper = Expiring(
        api.lane, api.pool, Emitter(api.clock.now), lambda: api.clock.now() + timedelta(hours=2)
    )

    _, *answers = await asyncio.gather(
        sweeper.sweep(), *[decide(api, each, "bob") for each in made]
    )

    for approval, answer in zip(made, answers, strict=True):
        client = await (await api.call("GET", f"/v1/clients/{approval['subject']}")).json()
        expected = ("approved", "approved") if answer.status == 200 else (
            "expired", "kyc_under_review"
        )  # fmt: skip
        assert (await state(api, approval), client["state"]) == expected


# --- an effect with a transaction of its own -----------------------------------------------------


@asynccontextmanager
async def applied_by(api: Api, applier: Applier) -> AsyncIterator[None]:
    """Approving with another effect for moves of clients."""
    kinds = {"client.move": applier}
    emit, before = Emitter(api.clock.now), api.parts.approving
    parts = api.parts
    mine = Approving(
        api.lane, api.pool, parts.rules, parts.ids, emit, kinds, api.clock.now
    )  # fmt: skip
    object.__setattr__(parts, "approving", mine)
    try:
        yield
    finally:
        object.__setattr__(parts, "approving", before)


async def note(conn: asyncpg.Connection, approval: Approval) -> None:
    """An effect that can be counted: a fact of its own."""
    await conn.execute(
        "INSERT INTO gateway.approval_event (object_id, version, from_state, to_state, event, "
        "cause, actor, at) VALUES ($1, 99, '', '', 'effect', '{}', 'test', now())",
        approval.id,
    )


async def effects(api: Api) -> int:
    """How often the effect happened."""
    [row] = await api.rows("SELECT count(*) AS n FROM gateway.approval_event WHERE version = 99")
    return int(row["n"])


async def test_an_effect_in_a_transaction_happens_once_whoever_decides_at_once(api: Api) -> None:
    """Five checkers, three of them with the same credential and key."""

    async def run(conn: asyncpg.Connection, approval: Approval, command: Command) -> None:
        await note(conn, approval)
        await asyncio.sleep(0.05)  # long enough for the others to come

    approval = await question(api)
    async with applied_by(api, InTransaction(run)):
        answers = await asyncio.gather(
            *[decide(api, approval, "bob", key="same") for _ in range(3)],
            *[decide(api, approval, f"p{n}") for n in range(2)],
        )

    assert await effects(api) == 1
    assert await state(api, approval) == "approved"
    [row] = await api.rows("SELECT votes FROM gateway.approval")
    winner = row["votes"][0]
    expected = [200, 200, 200, 409, 409] if winner == "bob" else [200, 409, 409, 409, 409]
    assert sorted(answer.status for answer in answers) == expected


async def test_an_effect_that_is_refused_or_fails_leaves_the_question_open(api: Api) -> None:
    """Nothing of the vote stays: not the effect, the event, the act, nor the key."""
    approval = await question(api)

    async def refuses(conn: asyncpg.Connection, approval: Approval, command: Command) -> None:
        await note(conn, approval)
        raise Refusal("approval-stale", "it went on")

    async def dies(conn: asyncpg.Connection, approval: Approval, command: Command) -> None:
        await note(conn, approval)
        await api.owner.execute("SELECT pg_terminate_backend($1)", conn.get_server_pid())
        await conn.execute("SELECT 1")

    async def works(conn: asyncpg.Connection, approval: Approval, command: Command) -> None:
        await note(conn, approval)

    async with applied_by(api, InTransaction(refuses)):
        assert await code(await decide(api, approval, "bob", key="k")) == (409, "approval-stale")
    async with applied_by(api, InTransaction(dies)):
        assert (await decide(api, approval, "bob", key="k")).status == 503
    assert (await effects(api), await state(api, approval)) == (0, "open")
    assert not await api.rows("SELECT 1 FROM gateway.act WHERE person = 'bob'")

    async with applied_by(api, InTransaction(works)):
        done = await decide(api, approval, "bob", key="k")
        again = await decide(api, approval, "bob", key="k")

    assert (done.status, again.status, await again.read()) == (200, 200, await done.read())
    assert (await effects(api), await state(api, approval)) == (1, "approved")


async def test_a_commit_whose_answer_was_lost_is_found_by_its_key(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503, for nothing is known; the same request again is answered as if it had not been lost."""
    approval = await question(api)

    async def run(conn: asyncpg.Connection, approval: Approval, command: Command) -> None:
        await note(conn, approval)

    async def lost(transaction: asyncpg.transaction.Transaction) -> None:
        await commit(transaction)
        raise ConnectionResetError("the answer to COMMIT")

    commit = asyncpg.transaction.Transaction.commit
    async with applied_by(api, InTransaction(run)):
        with monkeypatch.context() as patched:
            patched.setattr(asyncpg.transaction.Transaction, "commit", lost)
            first = await decide(api, approval, "bob", key="k")
        again = await decide(api, approval, "bob", key="k")
        other = await decide(api, approval, "eve")

    assert (first.status, again.status) == (503, 200)
    assert (await again.json())["state"] == "approved"
    assert await code(other) == (409, "already-decided")
    assert await effects(api) == 1


async def test_a_checker_who_goes_away_while_it_is_applied_leaves_all_or_nothing(api: Api) -> None:
    """The connection of the request is gone in the middle of the transaction."""
    entered, approval = asyncio.Event(), await question(api)

    async def hangs(conn: asyncpg.Connection, approval: Approval, command: Command) -> None:
        await note(conn, approval)
        entered.set()
        await asyncio.Event().wait()

    async with applied_by(api, InTransaction(hangs)):
        flow = api.parts.approving
        caller = await api.parts.entrance.keys.caller(
            f"Bearer {await api.key(role='compliance', owner='checkers', person='bob')}"
        )
        command = Command(caller.narrowed("approvals:decide"), "fine", "c", api.clock.now())
        order = Decide(decision="approve", reason="fine")
        deciding = asyncio.create_task(
            flow.decide(command, approval["id"], order, Idem("checkers", "gone", b"fingerprint"))
        )
        await entered.wait()
        deciding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await deciding

    assert (await effects(api), await state(api, approval)) == (0, "open")


async def test_an_effect_in_the_unit_is_read_again_when_others_voted_meanwhile(api: Api) -> None:
    """A vote that was counted against an older row is counted anew, with its effect."""
    approval = await question(api)
    reads = 0

    async def changes(
        conn: asyncpg.Connection, approval: Approval, command: Command
    ) -> tuple[Change, ...]:
        nonlocal reads
        reads += 1
        if reads == 1:
            await api.owner.execute("UPDATE gateway.approval SET version = version + 1")
        return ()

    async with applied_by(api, InUnit(changes)):
        done = await decide(api, approval, "bob")

    assert (done.status, reads) == (200, 2)
