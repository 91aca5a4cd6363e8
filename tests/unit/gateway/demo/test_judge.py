"""The judge's rules: which books agree, and that every kind of disagreement is named."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from bridge.reads import Total
from bridge.states import Operation, OperationState
from gateway.demo.judge import Found, compared, judged, without
from ledger.verify import Wrong
from router.reads import Surveyed

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
BEFORE = datetime(2026, 11, 22, 11, tzinfo=UTC)


def attempt(number: int, no: int = 1, psp: str = "acme", state: str = "approved") -> Surveyed:
    """The attempt `no` of payment `number`, which was approved for 10.00 EUR."""
    return Surveyed(
        payment_id=f"PY{number}", payment_state="approved", minor=1000, currency="EUR",
        created=AT, reference=f"AT{number}_{no}", no=no, psp=psp, state=state, resolved=False,
    )  # fmt: skip


def charge(number: int, no: int = 1, **more: Any) -> dict[str, Any]:
    """What a provider's book says of that attempt."""
    return {
        "reference": f"AT{number}_{no}", "status": "approved", "amount": "10.00",
        "currency": "EUR",
    } | more  # fmt: skip


def provider(*charges: dict[str, Any], refunds: tuple[str, ...] = (), due: int = 0) -> Any:
    """A provider's book."""
    return {
        "charges": list(charges), "refunds": [{"charge_reference": name} for name in refunds],
        "notices": {"due": due},
    }  # fmt: skip


def operation(**more: Any) -> Operation:
    """A balance operation of ours that the platform did under ticket 7."""
    return Operation(
        **{
            "id": "BO1", "account_id": "AC1", "server": "mt5", "login": 5, "book": 1,
            "amount_minor": 1000, "currency": "EUR", "state": OperationState.DONE, "ticket": 7,
            "payment_id": "PY1", "correlation": "CR1", "created": AT, "updated": AT,
        }
        | more
    )  # fmt: skip


DEAL = {"ticket": 7, "login": 5, "minor": 1000, "comment": "BO1"}

RIGHT = Found(
    attempts=[attempt(1), attempt(2, 1, "acme", "declined"), attempt(2, 2, "bolt")],
    providers={
        "acme": provider(charge(1), charge(2, status="declined")),
        "bolt": provider(charge(2, 2)),
    },
    platform={"accounts": [{"login": 5, "transfers_minor": 1000}], "deals": [DEAL]},
    totals=[
        Total(account_id="AC1", server="mt5", login=5, currency="EUR", done_minor=1000, open=0)
    ],
    operations={"BO1": operation()},
    outbox={"done": 2},
    events=[{"no": 1, "id": "ev_1"}, {"no": 2, "id": "ev_2"}],
    told=frozenset({"ev_1", "ev_2"}),
)


def test_books_that_agree_are_agreed_with() -> None:
    """Each charge credited, each deal a deposit, all told: nothing is wrong."""
    assert compared(RIGHT) == []


def with_acme(*charges: dict[str, Any], refunds: tuple[str, ...] = (), due: int = 0) -> Found:
    """The right books, but for acme's."""
    books = dict(RIGHT.providers) | {"acme": provider(*charges, refunds=refunds, due=due)}
    return replace(RIGHT, providers=books)


def with_platform(*deals: dict[str, Any], balance: int = 1000) -> Found:
    """The right books, but for the platform's."""
    accounts = [{"login": 5, "transfers_minor": balance}]
    return replace(RIGHT, platform={"accounts": accounts, "deals": list(deals)})


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (with_acme(charge(1), charge(9)), "charge AT9_1 of acme is not credited"),
        (with_acme(), "attempt AT1_1 is approved, but no provider charged"),
        (with_acme(charge(1, amount="10.01")), "charge AT1_1 of acme is not credited"),
        (with_acme(charge(1, currency="USD")), "charge AT1_1 of acme is not credited"),
        (with_acme(charge(1, status="pending")), "charge AT1_1 of acme is pending"),
        (with_acme(charge(1), due=1), "1 notices of acme are due"),
        (with_acme(charge(1), refunds=("AT1_1",)), "payment PY1: 0 surplus charges, 1 refunds"),
        (with_platform(balance=0), "account 5: the platform says 0, we say 1000"),
        (with_platform(DEAL, DEAL, balance=2000), "deal 7 (BO1) is not one deposit of ours"),
        (with_platform(DEAL | {"comment": "gift"}), "deal 7 (gift) is not one deposit of ours"),
        (with_platform(DEAL, balance=999), "account 5: the platform says 999, we say 1000"),
        (replace(RIGHT, operations={"BO1": operation(amount_minor=1)}), "is not one deposit"),
        (replace(RIGHT, operations={"BO1": operation(ticket=8)}), "is not one deposit"),
        (replace(RIGHT, told=frozenset({"ev_1"})), "event ev_2 was never heard"),
        (replace(RIGHT, disordered=["ev_2"]), "event ev_2 came after a later one"),
        (replace(RIGHT, events=RIGHT.events[1:]), "the numbers of the events are not dense"),
        (replace(RIGHT, outbox={"dead": 1}), "1 rows of the outbox are dead"),
        (replace(RIGHT, outbox={"waiting": 3}), "3 rows of the outbox wait"),
        (replace(RIGHT, wrong=[Wrong("chain-broken", "7", "gap")]), "chain-broken 7: gap"),
    ],
    ids=lambda it: it if isinstance(it, str) else "",
)
def test_each_kind_of_disagreement_is_named(found: Found, words: str) -> None:
    """Whatever does not agree is said in words that name it."""
    assert any(words in line for line in compared(found)), compared(found)


def test_a_surplus_charge_is_right_once_its_refund_is_in_the_providers_book() -> None:
    """A second charge of one payment is right when it was given back, and only then."""
    twice = replace(RIGHT, attempts=[attempt(1), attempt(1, 2, "bolt")])
    books = {"acme": provider(charge(1)), "bolt": provider(charge(1, 2))}
    kept = replace(twice, providers=books)
    assert compared(kept) == ["payment PY1: 1 surplus charges, 0 refunds"]
    back = books | {"bolt": provider(charge(1, 2), refunds=("AT1_2",))}
    assert compared(replace(twice, providers=back)) == []


@pytest.mark.parametrize("state", ["sent", "pending", "unknown"])
def test_an_attempt_without_an_end_is_not_at_rest(state: str) -> None:
    """An attempt that is open counts as unfinished, also beside an approved one."""
    open_one = [*RIGHT.attempts, attempt(2, 3, "delta", state)]
    assert any("PY2" in line for line in compared(replace(RIGHT, attempts=open_one)))


def test_too_little_proves_nothing() -> None:
    """A run with too few deposits, or without a fallback or a resolved unknown, is not ok."""
    summary, wrong = judged(RIGHT, BEFORE)
    assert not summary.ok
    assert summary.deposits.requested == 2
    assert summary.deposits.approved_after_fallback == 1
    assert [line.split(",")[0] for line in wrong] == [
        "2 deposits", "0 unknown outcomes that were resolved",
    ]  # fmt: skip


def test_enough_that_agrees_is_ok() -> None:
    """With enough deposits, a fallback and a resolved unknown the verdict is ok."""
    many = [replace(attempt(number), resolved=number == 3) for number in range(3, 203)]
    charges = [charge(number) for number in range(3, 203)]
    found = replace(
        with_acme(charge(1), charge(2, status="declined"), *charges),
        attempts=[*RIGHT.attempts, *many],
    )
    summary, wrong = judged(found, BEFORE)
    assert (summary.ok, wrong) == (True, [])
    assert judged(found, AT.replace(hour=13))[0].deposits.requested == 0


def test_what_a_person_must_settle_is_left_out_by_whole_ids() -> None:
    """An excused id takes out its own lines and no others that begin like it."""
    lines = ["event ev_3 was never heard", "event ev_31 was never heard"]
    assert without(lines, {"ev_3"}) == lines[1:]
