"""What a look at a deal means: the same deal, an edit of it, another deal, or no deal at all."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from ledger.facts import Deal
from ledger.verdicts import (
    LOT,
    Known,
    Meaning,
    Opening,
    Reason,
    absurd,
    changed,
    content,
    early,
    has_come,
    meaning,
    opened,
    park,
    park_unread,
    parked_deal,
    with_openings,
)
from tests.unit.ledger.values import NOON, balance_deal, deal

EDITS: list[dict[str, Any]] = [
    {"price": Decimal("1.08515")}, {"profit": 1}, {"commission": 1}, {"swap": 1}, {"fee": 1},
    {"flags": 1}, {"comment": "requote"}, {"reason": 3},
]  # fmt: skip
ALTERATIONS: list[dict[str, Any]] = [
    {"login": 5002}, {"symbol": "GBPUSD"}, {"action": 0}, {"entry": 3}, {"volume": 2 * LOT},
    {"closed": LOT // 2}, {"position": 7}, {"server_ms": 1_772_460_000_001},
]  # fmt: skip


def known(seen: Deal) -> Known:
    """A deal of book 1 as the books have it."""
    return Known(1, 1, seen)


def test_a_ticket_nobody_has_seen_is_new() -> None:
    """What is not in the books is booked."""
    assert meaning(1, deal(), None) is Meaning.NEW


def test_equal_content_is_a_repeat() -> None:
    """Neither the way a price is written, nor our own reading of the time, makes it another."""
    again = replace(deal(), price=Decimal("1.0851400"), at=NOON + timedelta(hours=1), opened=NOON)
    assert meaning(1, again, known(deal())) is Meaning.REPEATED
    assert content(again) == content(deal())


@pytest.mark.parametrize("change", EDITS, ids=str)
def test_money_comment_and_flags_may_be_edited(change: dict[str, Any]) -> None:
    """A change of one of them is a new version."""
    assert meaning(1, replace(deal(), **change), known(deal())) is Meaning.EDITED
    assert content(replace(deal(), **change)) != content(deal())


@pytest.mark.parametrize("change", ALTERATIONS, ids=str)
def test_login_symbol_side_volume_and_time_may_not(change: dict[str, Any]) -> None:
    """A change of one of them is not an edit, and what changed is said."""
    other = replace(deal(), **change)
    assert meaning(1, other, known(deal())) is Meaning.ALTERED
    assert content(other) != content(deal())
    (field,) = change
    assert changed(other, known(deal())).startswith(f"{field} ")


def test_an_account_that_moved_to_another_book_alters_its_deals() -> None:
    """A ticket stays in the book that landed it."""
    assert meaning(2, deal(), known(deal())) is Meaning.ALTERED
    assert "another book" in changed(deal(), known(deal()))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"volume": 10_000 * LOT + 1}, "volume"), ({"symbol": ""}, "symbol"),
        ({"price": Decimal(0)}, "price"), ({"price": Decimal("-1.2")}, "price"),
        ({"price": Decimal("NaN")}, "price"), ({"price": Decimal("1E+400")}, "price"),
        ({"at": NOON - timedelta(days=36_500)}, "at"), ({"at": NOON + timedelta(days=2)}, "at"),
        ({"volume": LOT, "closed": LOT + 1}, "closed"), ({"volume": -1, "closed": -1}, "volume"),
        ({"digits": 9}, "digits"), ({"digits": -1}, "digits"), ({"login": 0}, "login"),
        ({"profit": 10**17 + 1}, "profit"), ({"commission": -(10**17) - 1}, "commission"),
        ({"swap": 2**70}, "swap"), ({"ticket": 0}, "ticket"), ({"ticket": 2**63}, "ticket"),
        ({"flags": 2**31}, "flags"), ({"comment": "a\0b"}, "comment"),
        ({"comment": "x" * 257}, "comment"),
    ],
    ids=str,
)  # fmt: skip
def test_values_no_deal_can_have_are_absurd(change: dict[str, Any], field: str) -> None:
    """The field is named; the deal never reaches the books, and can be kept beside them."""
    odd = replace(deal(), **change)
    assert field in absurd(odd, NOON)
    if change.get("swap") is None:
        park(odd, Reason.ABSURD, "odd")


def test_what_is_usual_is_not_absurd() -> None:
    """A trade, the largest volume, a negative swap and money without a trade may be booked."""
    assert absurd(deal(), NOON) == ""
    assert absurd(deal(lots="10000", swap=-5), NOON) == ""
    assert absurd(deal(at=NOON + timedelta(hours=23)), NOON) == ""
    assert absurd(balance_deal(2), NOON) == ""


def test_a_deal_set_aside_comes_back_as_it_was() -> None:
    """Its body holds the deal, and its subject is what its reason is about."""
    for reason, subject in (
        (Reason.LOGIN, "5001"), (Reason.SYMBOL, "EURUSD"), (Reason.ABSURD, "1"),
        (Reason.IDENTITY, "1"),
    ):  # fmt: skip
        parked = park(deal(), reason, "why")
        assert parked_deal(parked.body) == deal()
        assert (parked.subject, parked.content) == (subject, content(deal()))


def test_a_row_that_cannot_be_read_is_kept_as_it_came() -> None:
    """It has no deal, and two looks at it are told apart."""
    first, second = park_unread(7, "no symbol", '{"a"'), park_unread(7, "no symbol", '{"b"')
    assert parked_deal(first.body) is None
    assert first.content != second.content
    assert (first.ticket, first.subject, first.reason) == (7, "7", Reason.ABSURD)


def test_a_position_was_opened_by_its_first_deal_in() -> None:
    """Added to later, it is as old as its first deal; deals after the closing one say nothing."""
    closing = deal(50, after_s=60)
    openings = [
        Opening(NOON + timedelta(seconds=s), t, 0) for s, t in ((20, 12), (10, 11), (90, 60))
    ]
    assert opened(closing, openings) == NOON + timedelta(seconds=10)
    assert opened(closing, ()) is None


def test_a_reversal_opens_the_position_anew() -> None:
    """What is closed after it was opened by it; it closes what was opened before it."""
    openings = [Opening(NOON, 1, 0), Opening(NOON + timedelta(seconds=30), 5, 2)]
    assert opened(deal(9, after_s=60), openings) == NOON + timedelta(seconds=30)
    assert opened(deal(5, after_s=30, entry=2), openings) == NOON


def test_openings_come_from_the_same_landing_or_from_the_books() -> None:
    """Only deals that close get a time; those of another login, position or book lend none."""
    came_in = deal(1, entry=0, position=77)
    out = deal(2, after_s=5, position=77)
    other = deal(3, after_s=5, position=78)
    stored = {(1, 5001, 78): (Opening(NOON - timedelta(hours=1), 0, 0),)}

    filled = with_openings([(1, out), (1, came_in), (1, other), (2, out)], stored)

    times = [each.opened for _, each in filled]
    assert times == [NOON, None, NOON - timedelta(hours=1), None]


@pytest.mark.parametrize("ahead_s", [-86_400, 0, 900])
def test_a_deal_about_now_is_never_early(ahead_s: int) -> None:
    """A server's clock may be some minutes wrong."""
    assert early(replace(deal(), at=NOON + timedelta(seconds=ahead_s)), NOON) == ""


@pytest.mark.parametrize("ahead_s", [901, 960, 3 * 3600, 3 * 3600 + 59])
def test_a_deal_of_the_future_waits_for_its_minute(ahead_s: int) -> None:
    """Once the minute it waits for has come it is early no more; and it is no minute too late."""
    seen = replace(deal(), at=NOON + timedelta(seconds=ahead_s))
    minute = early(seen, NOON)
    parked = park(seen, Reason.AHEAD, "early", minute)
    assert (parked.reason, parked.subject) == ("ahead-of-time", minute)
    passed = [s for s in range(ahead_s) if has_come(minute, NOON + timedelta(seconds=s))]
    assert early(seen, NOON + timedelta(seconds=passed[0])) == ""
    assert ahead_s - 900 <= passed[0] <= ahead_s - 900 + 60
