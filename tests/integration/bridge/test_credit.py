"""Balance operations on a platform that misbehaves: never twice, never believed unproved."""

from __future__ import annotations

from decimal import Decimal

import pytest

from bridge.credit import Crediting
from bridge.outcomes import Done, NotSent, Refused, Unknown
from bridge.pool import Pool
from bridge.sim.faults import Action
from bridge.states import Operation
from tests.integration.bridge.conftest import Field, kept_alive, new_operation


def yes() -> bool:
    """A gate that is open."""
    return True


async def test_a_credit_is_one_deal_with_our_reference(
    field: Field, pool: Pool, opened: int
) -> None:
    """A balance operation becomes one deal of type balance whose comment is our reference."""
    operation = new_operation(opened, 12_345)
    outcome = await Crediting(pool).apply(operation, yes)
    [deal] = field.deals
    assert isinstance(outcome, Done)
    assert (outcome.ticket, deal.minor, deal.comment) == (deal.ticket, 12_345, operation.id)
    assert deal.action == 2


async def test_a_debit_beyond_the_balance_is_refused_by_the_platforms_rules(
    field: Field, pool: Pool, opened: int
) -> None:
    """A withdrawal the account does not cover is a business refusal and moves nothing."""
    outcome = await Crediting(pool).apply(new_operation(opened, -1), yes)
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.kind) == (10019, "business")
    assert field.deals == []


async def test_margin_in_use_cannot_be_withdrawn(field: Field, pool: Pool, opened: int) -> None:
    """The margin check leaves what open positions need."""
    crediting = Crediting(pool)
    await crediting.apply(new_operation(opened, 10_000), yes)
    field.platform.books.margins[opened] = 4_000
    refused = await crediting.apply(new_operation(opened, -6_001), yes)
    allowed = await crediting.apply(new_operation(opened, -6_000), yes)
    assert isinstance(refused, Refused)
    assert isinstance(allowed, Done)


async def test_a_shut_gate_sends_nothing(field: Field, pool: Pool, opened: int) -> None:
    """Whoever may no longer send sends no byte, and the session stays good."""
    outcome = await Crediting(pool).apply(new_operation(opened), lambda: False)
    assert isinstance(outcome, NotSent)
    assert outcome.reason == "lease"
    assert field.platform.received["trade/balance"] == 0
    assert isinstance(await Crediting(pool).apply(new_operation(opened), yes), Done)


@pytest.mark.parametrize(
    ("action", "done"),
    [
        ("drop_before", 0),
        ("drop_after", 1),
        ("hang_before", 0),
        ("hang_after", 1),
        ("retcode_before", 0),
        ("retcode_after", 1),
        ("http_before", 0),
        ("http_after", 1),
        ("garbage_after", 1),
        ("expire", 0),
    ],
)
async def test_an_ambiguous_end_is_unknown_and_the_lookup_tells(
    field: Field, opened: int, action: Action, done: int
) -> None:
    """Whatever happens to the answer, the outcome is unknown and our reference finds the truth."""
    code = 500 if action.startswith("http") else 9
    field.script("trade/balance", action, code=code)
    operation = new_operation(opened)
    async with kept_alive(field.new_pool(call_timeout_s=2.0)) as pool:
        crediting = Crediting(pool)
        outcome = await crediting.apply(operation, yes)
        found = await crediting.find(operation)
    assert isinstance(outcome, Unknown)
    assert not isinstance(found, Unknown)
    assert len(found) == len(field.deals) == done
    assert all(ticket.amount == Decimal("100.00") for ticket in found)
    assert field.platform.received["trade/balance"] == 1


async def test_a_call_the_manager_may_not_make_is_refused_and_the_session_stays(
    field: Field, pool: Pool, opened: int
) -> None:
    """HTTP 403 on a session that still answers means a missing right, not a lost session."""
    field.script("trade/balance", "deny")
    outcome = await Crediting(pool).apply(new_operation(opened), yes)
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.kind) == (403, "configuration")
    assert field.observer.states.count("live") == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [(8, "configuration"), (11, "transient"), (12, "transient"), (4005, "business")],
)
async def test_a_refusal_says_who_must_act(
    field: Field, pool: Pool, opened: int, code: int, kind: str
) -> None:
    """A return code that means *not done* is a refusal of its class."""
    field.script("trade/balance", "retcode_before", code=code)
    outcome = await Crediting(pool).apply(new_operation(opened), yes)
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.kind) == (code, kind)


async def test_a_second_deal_with_one_reference_is_seen(
    field: Field, pool: Pool, opened: int
) -> None:
    """Two deals that carry one reference are both found, oldest first."""
    crediting, operation = Crediting(pool), new_operation(opened)
    for _ in range(2):
        await crediting.apply(operation, yes)
    found = await crediting.find(operation)
    assert not isinstance(found, Unknown)
    assert [ticket.ticket for ticket in found] == [deal.ticket for deal in field.deals]


async def test_a_deal_is_found_among_more_than_a_page(
    field: Field, pool: Pool, opened: int
) -> None:
    """The lookup turns every page: a hundred newer deals do not hide ours."""
    crediting, operation = Crediting(pool), new_operation(opened)
    await crediting.apply(operation, yes)
    for _ in range(205):
        await crediting.apply(new_operation(opened, 1), yes)
    found = await crediting.find(operation)
    assert not isinstance(found, Unknown)
    assert [ticket.ticket for ticket in found] == [field.deals[0].ticket]


async def test_a_lookup_that_fails_says_so(field: Field, pool: Pool, opened: int) -> None:
    """A platform that refuses the lookup has not said that the deal is absent."""
    field.script("deal/get_total", "retcode_before", code=11)
    assert isinstance(await Crediting(pool).find(new_operation(opened)), Unknown)


async def test_the_log_of_a_call_shows_what_was_sent(pool: Pool, opened: int) -> None:
    """Each call is recorded with its parameters, its code and its class."""
    operation: Operation = new_operation(opened)
    outcome = await Crediting(pool).apply(operation, yes)
    [call] = outcome.calls
    assert (call.method, call.code, call.class_) == ("trade/balance", 0, "ok")
    assert operation.id in call.payload
    assert len(call.payload_hash) == 64
