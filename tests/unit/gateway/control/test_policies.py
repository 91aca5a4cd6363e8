"""Which policy decides for a matter, and which policies a rulebook may not have."""

from __future__ import annotations

import pytest

from config.rulebook import ApprovalPolicy, Entity, Role, Rulebook
from gateway.control import policies as rules
from gateway.control.acts import ACTIONS
from gateway.control.permissions import CATALOGUE
from gateway.control.policies import DEFAULT_EXPIRY_S, KINDS, Matter, Policies
from ledger.money import currency, parse

MOVE = "client.move"
FX_EU = Entity(id="fx-eu", name="FX EU", jurisdiction="CY", book=1, currency="EUR")


def of(*policies: ApprovalPolicy, **facts: object) -> tuple[int, str]:
    """How many are needed for a matter of these facts, and where that was written."""
    matter = Matter(kind=MOVE, subject="CL1", payload={}, **facts)  # type: ignore[arg-type]
    found = Policies("hash", policies).of(matter)
    return found.needed, found.level


def policy(needed: int, **facts: object) -> ApprovalPolicy:
    """A policy for these matters."""
    return ApprovalPolicy(kind=MOVE, needed=needed, **facts)  # type: ignore[arg-type]


def test_a_kind_without_a_policy_needs_a_second_person() -> None:
    """With the product's own permission and time."""
    found = Policies("hash").of(Matter(kind=MOVE, subject="CL1", payload={}))

    assert (found.needed, found.expiry_s, found.permission, found.level, found.rulebook) == (
        1, DEFAULT_EXPIRY_S, "lifecycle:approve", "default", "hash",
    )  # fmt: skip


def test_the_closest_policy_decides() -> None:
    """Brand before entity before everybody, however much stricter the wider one is."""
    all_three = (policy(5), policy(2, entity="fx-eu"), policy(1, brand="northgate"))

    assert of(*all_three, entity="fx-int", brand="southbank") == (5, "global")
    assert of(*all_three, entity="fx-eu", brand="eastgate") == (2, "entity")
    assert of(*all_three, entity="fx-eu", brand="northgate") == (1, "brand")


def test_of_equally_close_policies_the_strictest_decides() -> None:
    """Most people first, then the shortest time; the order of the file says nothing."""
    risky = (policy(1), policy(2, risk="high", expiry_s=60), policy(2, risk="high", expiry_s=30))
    for policies in (risky, risky[::-1]):
        assert of(*policies, risk="low")[0] == 1
        assert of(*policies, risk="high")[0] == 2
        matter = Matter(kind=MOVE, subject="CL1", payload={}, risk="high")
        assert Policies("hash", policies).of(matter).expiry_s == 30


@pytest.mark.parametrize(
    ("amount", "needed"),
    [("999.99 EUR", 1), ("1000 EUR", 2), ("5000 EUR", 2), ("5000 USD", 1), ("", 1)],
)
def test_an_amount_asks_for_more_people_from_its_bound_on(amount: str, needed: int) -> None:
    """Inclusive, in the policy's currency; what has no amount is never above one."""
    value, _, code = amount.partition(" ")
    money = parse(value, currency(code)) if amount else None
    bounds = (policy(1), policy(2, amount_from="1000", currency="EUR"))

    assert of(*bounds, amount=money)[0] == needed


def test_a_policy_may_name_who_agrees() -> None:
    """Instead of the kind's own permission."""
    found = Policies("hash", (policy(1, permission="kyc-high:approve"),)).of(
        Matter(kind=MOVE, subject="CL1", payload={})
    )

    assert found.permission == "kyc-high:approve"


def findings(*policies: ApprovalPolicy, scopes: tuple[str, ...]) -> list[tuple[str, str]]:
    """Code and key of each finding."""
    book = Rulebook(
        hash="h", entities=(FX_EU,), roles=(Role(id="checker", scopes=scopes),), approvals=policies
    )
    return [(it.code, it.key) for it in rules.compile(book)[1]]


@pytest.mark.parametrize(
    ("policies", "found"),
    [
        ((policy(1), policy(2, entity="fx-eu")), []),
        ((ApprovalPolicy(kind="client.paint"),), [("unknown-name", "approval[0].kind")]),
        ((policy(1), policy(2)), [("duplicate", "approval[1].kind")]),
        ((policy(1), policy(2, amount_from="0")), [("duplicate", "approval[1].kind")]),
        ((policy(1, permission="kyc:approve"),), [("nobody-approves", "approval[0].permission")]),
    ],
)
def test_a_policy_that_cannot_work_is_a_finding(
    policies: tuple[ApprovalPolicy, ...], found: list[tuple[str, str]]
) -> None:
    """A kind nobody asks, two for one matter, and a question that no role may decide."""
    assert findings(*policies, scopes=("lifecycle:approve",)) == found


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_names_what_the_house_knows(kind: str) -> None:
    """A permission of the catalogue, and two acts of the table of duties."""
    known = KINDS[kind]

    assert known.permission in CATALOGUE
    assert {known.asks, known.agrees} <= ACTIONS.keys()
