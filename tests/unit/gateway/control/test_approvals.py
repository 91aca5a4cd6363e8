"""What one decision makes of a question: makers, checkers, votes, expiry."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from gateway.control.access import Caller
from gateway.control.approvals import Approval, Verdict, decide
from gateway.control.refusals import Refusal

AT = datetime(2026, 1, 1, tzinfo=UTC)


def question(**changed: object) -> Approval:
    """An open question of ann's."""
    asked = Approval(
        id="AP" + "0" * 18, version=1, kind="client.move", subject="CL" + "0" * 18,
        entity="fx-eu", state="open", maker="ann", maker_role="operations", maker_owner="ops",
        needed=1, votes=(), policy="hash", payload=msgspec.Raw(b"{}"), reason="r",
        correlation="c", created=AT, expires=AT + timedelta(hours=1), decided=None,
    )  # fmt: skip
    return msgspec.structs.replace(asked, **changed)


def person(name: str, *approves: str) -> Caller:
    """A caller who decides these kinds."""
    kinds = frozenset(approves or ("client.move",))
    return Caller("KY", name, "compliance", frozenset(), frozenset({"*"}), "desk", kinds)


def test_one_vote_approves_where_one_is_needed() -> None:
    """The last needed vote applies the effect."""
    verdict = decide(question(), person("bob"), "approve", AT)

    assert (verdict, verdict.applies) == (Verdict("approved", ("bob",)), True)


def test_of_two_needed_votes_the_first_only_counts() -> None:
    """It stays open until different people have agreed."""
    first = decide(question(needed=2), person("bob"), "approve", AT)
    second = decide(question(needed=2, votes=first.votes), person("eve"), "approve", AT)

    assert (first.state, first.applies) == ("open", False)
    assert (second.state, second.votes) == ("approved", ("bob", "eve"))


def test_a_refusal_ends_the_question() -> None:
    """One no is enough."""
    assert decide(question(needed=3), person("bob"), "refuse", AT).state == "refused"


@pytest.mark.parametrize(
    ("asked", "who", "code"),
    [
        (question(), person("bob", "money.adjust"), "forbidden"),
        (question(), person("ann"), "same-person"),
        (question(state="refused"), person("ann"), "same-person"),
        (question(state="approved"), person("bob"), "already-decided"),
        (question(expires=AT), person("bob"), "approval-expired"),
        (question(needed=2, votes=("bob",)), person("bob"), "already-voted"),
    ],
)
def test_who_may_not_decide_is_told_why(asked: Approval, who: Caller, code: str) -> None:
    """Refusals in their order; the maker is refused whatever the role."""
    for decision in ("approve", "refuse"):
        with pytest.raises(Refusal) as no:
            decide(asked, who, decision, AT)  # type: ignore[arg-type]
        assert no.value.code == code


def test_an_open_question_past_its_time_is_shown_as_expired() -> None:
    """Nobody has to move it for people to see it."""
    assert question().state_at(AT + timedelta(hours=2)) == "expired"
    assert question(state="approved").state_at(AT + timedelta(hours=2)) == "approved"
