"""What one decision makes of a question: makers, checkers, votes, lent rights, expiry."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from gateway.control.access import Caller
from gateway.control.approvals import (
    Approval,
    Verdict,
    Voter,
    after,
    asked,
    decide,
    withdraw,
)
from gateway.control.audit import Command
from gateway.control.policies import Matter, Policy
from gateway.control.refusals import Refusal

AT = datetime(2026, 1, 1, tzinfo=UTC)


def question(**changed: object) -> Approval:
    """An open question of ann's."""
    asked = Approval(
        id="AP" + "0" * 18, version=1, kind="client.move", subject="CL" + "0" * 18,
        entity="fx-eu", state="open", maker="ann", maker_role="operations", maker_owner="ops",
        needed=1, votes=(), policy="hash", payload=msgspec.Raw(b"{}"), reason="r",
        correlation="c", created=AT, expires=AT + timedelta(hours=1), decided=None,
        permission="lifecycle:approve", level="global",
    )  # fmt: skip
    return msgspec.structs.replace(asked, **changed)


def person(name: str, giver: str = "") -> Voter:
    """Somebody who decides by their own right, or by a giver's."""
    return Voter(name, giver or name, "DG" + "0" * 18 if giver else "")


def test_one_vote_approves_where_one_is_needed() -> None:
    """The last needed vote applies the effect."""
    verdict = decide(question(), person("bob"), "approve", AT)

    assert (verdict, verdict.applies) == (Verdict("approved", ("bob",), ("bob",)), True)


def test_of_two_needed_votes_the_first_only_counts() -> None:
    """It stays open until different people have agreed."""
    first = decide(question(needed=2), person("bob"), "approve", AT)
    second = decide(after(question(needed=2), first, AT), person("eve"), "approve", AT)

    assert (first.state, first.applies) == ("open", False)
    assert (second.state, second.votes) == ("approved", ("bob", "eve"))


def test_a_refusal_ends_the_question() -> None:
    """One no is enough, and the votes before it stay on record."""
    half = question(needed=3, votes=("eve",), authorities=("eve",))

    assert decide(half, person("bob"), "refuse", AT) == Verdict("refused", ("eve",), ("eve",))


def test_a_vote_by_a_lent_right_says_whose_it_is() -> None:
    """The delegate votes, by the right of who lent it."""
    verdict = decide(question(), person("bob", "eve"), "approve", AT)

    assert verdict == Verdict("approved", ("bob",), ("eve",))


VOTED = {"needed": 3, "votes": ("bob",), "authorities": ("eve",)}


@pytest.mark.parametrize(
    ("asked", "who", "code"),
    [
        (question(), None, "forbidden"),
        (question(), person("ann"), "duty-conflict"),
        (question(), person("bob", "ann"), "duty-conflict"),
        (question(state="refused"), person("ann"), "duty-conflict"),
        (question(state="approved"), person("bob"), "already-decided"),
        (question(state="withdrawn"), person("bob"), "already-decided"),
        (question(expires=AT), person("bob"), "approval-expired"),
        (question(**VOTED), person("bob"), "already-voted"),
        (question(**VOTED), person("eve"), "already-voted"),  # who lent the right has used it
        (question(**VOTED), person("kim", "eve"), "already-voted"),
        (question(**VOTED), person("kim", "bob"), "already-voted"),
        (question(**VOTED), person("bob", "kim"), "already-voted"),
    ],
)
def test_who_may_not_decide_is_told_why(asked: Approval, who: Voter | None, code: str) -> None:
    """Refusals in their order; the maker is refused whatever the role, and so is their delegate."""
    for decision in ("approve", "refuse"):
        with pytest.raises(Refusal) as no:
            decide(asked, who, decision, AT)  # type: ignore[arg-type]
        assert no.value.code == code


def test_a_maker_and_the_makers_delegate_meet_different_rules() -> None:
    """The table of conflicts names both: 1 is maker and checker, 34 the right lent by the maker."""
    for who, number in ((person("ann"), 1), (person("bob", "ann"), 34)):
        with pytest.raises(Refusal) as no:
            decide(question(), who, "approve", AT)
        assert no.value.facts == {"conflict": number}


def test_only_the_maker_withdraws_and_only_what_is_open() -> None:
    """What was decided, or has lapsed, is not taken back."""
    assert withdraw(question(), "ann", AT).state == "withdrawn"
    for held, who, code in (
        (question(), "bob", "not-maker"),
        (question(state="approved"), "ann", "already-decided"),
        (question(expires=AT), "ann", "approval-expired"),
    ):
        with pytest.raises(Refusal) as no:
            withdraw(held, who, AT)
        assert no.value.code == code


def test_a_question_keeps_what_its_policy_said() -> None:
    """How many, which permission, until when, and by which rulebook."""
    policy = Policy("client.move", 2, 60.0, "kyc:approve", "entity", "hash")
    command = Command(Caller(key_id="KY", person="ann", owner="ops"), "why", "c", AT)

    made = asked("AP1", command, policy, Matter(kind="client.move", subject="CL1", payload={}))

    assert (made.needed, made.permission, made.level, made.policy) == (
        2, "kyc:approve", "entity", "hash",
    )  # fmt: skip
    assert (made.maker, made.expires, made.state) == ("ann", AT + timedelta(seconds=60), "open")


@pytest.mark.parametrize("reason", ["", "  "])
def test_a_question_without_a_reason_is_not_asked(reason: str) -> None:
    """Blanks are no reason."""
    policy = Policy("client.move", 1, 60.0, "kyc:approve", "global", "hash")
    command = Command(Caller(key_id="KY", person="ann", owner="ops"), reason, "c", AT)

    with pytest.raises(Refusal) as no:
        asked("AP1", command, policy, Matter(kind="client.move", subject="CL1", payload={}))

    assert no.value.code == "reason-missing"


def test_an_open_question_past_its_time_is_shown_as_expired() -> None:
    """Nobody has to move it for people to see it."""
    assert question().state_at(AT + timedelta(hours=2)) == "expired"
    assert question(state="approved").state_at(AT + timedelta(hours=2)) == "approved"
