"""Duties: the 34 conflicts, and what one act may not meet."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.load import read_folder
from config.rulebook import Role
from gateway.control.duties import (
    ACTIONS,
    CONFLICTS,
    MAKING,
    SUBJECT_WINDOW,
    Act,
    Conflict,
    Nature,
    Scope,
    held_together,
    judge,
    role_findings,
)
from gateway.control.permissions import CATALOGUE

DEMO_FOLDER = Path(__file__).parents[4] / "config" / "demo"
GOLDEN = Path(__file__).parents[3] / "golden" / "conflicts.csv"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def did(action: str, *, subject: str = "CL1", case: str = "AP1", days_ago: float = 1) -> Act:
    """What Ann did some days ago."""
    return Act("ann", action, subject, case, NOW - days_ago * DAY)


def pairs(scope: Scope) -> Iterator[tuple[Conflict, str, str]]:
    """Each pair of actions that some row forbids in this scope."""
    for conflict in CONFLICTS.values():
        if scope in conflict.scopes:
            for a in sorted(conflict.first):
                yield from ((conflict, a, b) for b in sorted(conflict.second))


def test_the_table_is_the_one_of_the_domain() -> None:
    """Each of the 34 rows stands here with its number, its words and its scope."""
    rows = list(csv.DictReader(GOLDEN.read_text().splitlines()))
    said = [
        (str(it.number), it.a, it.b, ",".join(s for s in "TSG" if s in it.scopes))
        for it in CONFLICTS.values()
    ]
    assert said == [(row["number"], row["a"], row["b"], row["scope"]) for row in rows]
    assert list(CONFLICTS) == list(range(1, 35))


@pytest.mark.parametrize("swapped", [False, True])
def test_each_pair_of_a_case_is_refused_in_either_order(*, swapped: bool) -> None:
    """What may not meet on one case is refused, whichever of the two came first."""
    for conflict, a, b in pairs(Scope.CASE):
        first, second = (b, a) if swapped else (a, b)
        hit = judge([did(first)], "ann", second, "CL2", "AP1", NOW)
        assert hit is not None, (conflict.number, first, second)
        assert hit.conflict.number in {conflict.number, *_other_rows(a, b, Scope.CASE)}
        assert judge([did(first)], "ann", second, "CL2", "AP2", NOW) is None
        assert judge([did(first)], "bob", second, "CL2", "AP1", NOW) is None


@pytest.mark.parametrize("swapped", [False, True])
def test_each_pair_on_a_subject_is_refused_in_either_order(*, swapped: bool) -> None:
    """What may not meet on one client or partner is refused across cases, for one person only."""
    for conflict, a, b in pairs(Scope.SUBJECT):
        first, second = (b, a) if swapped else (a, b)
        hit = judge([did(first, case="AP9")], "ann", second, "CL1", "AP1", NOW)
        assert hit is not None, (conflict.number, first, second)
        assert hit.scope is Scope.SUBJECT
        assert judge([did(first, case="AP9")], "ann", second, "CL2", "AP1", NOW) is None
        assert judge([did(first, case="AP9")], "bob", second, "CL1", "AP1", NOW) is None


def _other_rows(a: str, b: str, scope: Scope) -> set[int]:
    """Other rows about the same pair: one of them may be named instead."""
    return {
        it.number for it in CONFLICTS.values()
        if scope in it.scopes and b in it.against(a)
    }  # fmt: skip


def test_an_act_on_a_subject_binds_for_its_window() -> None:
    """After ninety days another act on the subject is free; on the same case it never is."""
    window = SUBJECT_WINDOW / DAY
    for days_ago, bound in ((window, True), (window + 0.001, False)):
        history = [did("kyc.approve", days_ago=days_ago)]
        hit = judge(history, "ann", "withdrawal.approve", "CL1", "AP2", NOW)
        assert (hit is not None) == bound
    old = [did("attribution.request", days_ago=window * 10)]
    assert judge(old, "ann", "attribution.approve", "CL1", "AP1", NOW) is not None


def test_what_stands_binds_for_ever() -> None:
    """Nobody decides on an account of their own, however long ago that was told."""
    own = [did("account.own", days_ago=4000)]
    for action, known in ACTIONS.items():
        bound = judge(own, "ann", action, "CL1", "", NOW) is not None
        assert bound == (known.nature in {Nature.APPROVE, Nature.DECIDE}), action


def test_an_act_of_no_case_meets_none() -> None:
    """Two acts without a case are not of one case."""
    assert judge([did("plan.draft", case="")], "ann", "plan.publish", "PL1", "", NOW) is None


def test_the_particular_row_is_named_before_any_request() -> None:
    """Who asked for another partner and agrees to it hears of row 15, not of row 1."""
    for made, action, number in (
        ("attribution.request", "attribution.approve", 15),
        ("profile.request", "profile.approve", 1),
        ("profile.request", "delegate.approve", 34),
    ):
        hit = judge([did(made)], "ann", action, "CL1", "AP1", NOW)
        assert hit is not None
        assert (hit.conflict.number, hit.earlier) == (number, did(made))


def test_every_request_has_somebody_else_to_approve_it() -> None:
    """Row 1 knows each action that asks for something."""
    assert CONFLICTS[1].first == MAKING
    assert {name for name, it in ACTIONS.items() if it.nature is Nature.MAKE} == MAKING


# --- laws ---------------------------------------------------------------------------------------

acts = st.builds(
    Act,
    person=st.sampled_from(["ann", "bob", "cem"]),
    action=st.sampled_from(sorted(ACTIONS)),
    subject=st.sampled_from(["CL1", "CL2", "PA1"]),
    case=st.sampled_from(["", "AP1", "AP2"]),
    at=st.integers(0, 200).map(lambda days: NOW + days * DAY),
)


def forbidden(one: Act, other: Act) -> bool:
    """Whether a later act and an earlier one are a pair that the table forbids; written again,
    straight from the rows.
    """
    if one.person != other.person:
        return False
    for row in CONFLICTS.values():
        crosses = (one.action in row.first and other.action in row.second) or (
            one.action in row.second and other.action in row.first
        )
        near = one.at - other.at <= SUBJECT_WINDOW
        stands = ACTIONS[other.action].nature is Nature.STAND
        same_case = one.case != "" and one.case == other.case
        if crosses and Scope.CASE in row.scopes and same_case:
            return True
        same_subject = one.subject == other.subject and (near or stands)
        if crosses and Scope.SUBJECT in row.scopes and same_subject:
            return True
    return False


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine is shared
@given(st.lists(acts, max_size=40))
def test_nobody_ever_holds_a_forbidden_pair(wanted: list[Act]) -> None:
    """Whatever is tried in whatever order: what passes holds no forbidden pair, and only that is
    refused which would make one.
    """
    done: list[Act] = []
    for act in sorted(wanted, key=lambda each: each.at):
        hit = judge(done, act.person, act.action, act.subject, act.case, act.at)
        assert (hit is not None) == any(forbidden(act, each) for each in done)
        if hit is None:
            done.append(act)
    assert not [pair for pair in combinations(reversed(done), 2) if forbidden(*pair)]


def test_what_actions_ask_for_are_permissions_of_the_catalogue() -> None:
    """A conflict of roles is found by permissions that roles do have."""
    named = {name for action in ACTIONS.values() for name in action.permissions}
    assert named <= CATALOGUE.keys()


def test_every_permission_to_agree_is_known_to_the_conflicts() -> None:
    """Whatever may be approved or published is an action, so that no role slips past rows 26 to 28;
    all but the house's own affairs are business approvals.
    """
    agreeing = {name for name, it in CATALOGUE.items() if it.letter[0] in "AP"}
    agreeing.remove("approvals:decide")  # to open the inbox; each kind asks for its own
    named = {name for action in ACTIONS.values() for name in action.permissions}
    assert agreeing <= named
    business = {name for it in ACTIONS.values() if it.business for name in it.permissions}
    assert agreeing - business == {
        "psp-credentials:approve", "roles:approve", "break-glass:approve",
    }  # fmt: skip


# --- roles --------------------------------------------------------------------------------------


def test_each_row_about_roles_is_found_by_what_they_allow() -> None:
    """One person may not be allowed both ends of a row of scope G, in however many roles."""
    for conflict, a, b in pairs(Scope.ROLES):
        writes = {"clients:write"} if b == "any.write" else frozenset()
        one, two = ACTIONS[a].permissions, ACTIONS[b].permissions | writes
        for mine, yours in ((p, q) for p in sorted(one) for q in sorted(two)):
            assert conflict in held_together([mine, yours]), (conflict.number, mine, yours)


def test_reading_is_no_writing() -> None:
    """The auditor reads everything and exports the audit, and that is all."""
    audits = sorted(ACTIONS["audit.examine"].permissions)
    assert held_together([*audits, "clients:read", "clients:masked", "routing:explain"]) == ()
    assert CONFLICTS[29] in held_together([*audits, "clients:write"])


def test_no_role_of_the_sample_broker_holds_both_ends_alone() -> None:
    """Each of the sixteen is for one person; `brokerd check` names one that is not."""
    book, _ = read_folder(DEMO_FOLDER)
    assert book is not None
    assert len(book.roles) >= 16
    assert role_findings(book) == []
    both = Role(id="both", scopes=("kyc:approve", "withdrawals:approve"))
    wrong = role_findings(msgspec.structs.replace(book, roles=(*book.roles, both)))
    assert [finding.code for finding in wrong] == ["role-conflict"]


def test_the_table_refuses_these_roles_of_the_sample_broker_in_one_hand() -> None:
    """What assignment refuses, in whole: a change of the roles shows here what it means."""
    book, _ = read_folder(DEMO_FOLDER)
    assert book is not None
    people = [role for role in book.roles if not role.id.startswith("svc.")]
    refused = {
        f"{one.id}+{other.id}": [it.number for it in found]
        for one, other in combinations(sorted(people, key=lambda role: role.id), 2)
        if (found := held_together({*one.scopes, *other.scopes}))
    }
    assert refused["compliance+finance"] == [2]
    assert refused["finance+iam"] == [26, 27]
    assert refused["finance+sre"] == [27, 28]
    assert 22 in refused["compliance+sales"]
    assert all(29 in refused[name] for name in refused if "auditor" in name.split("+"))
    assert "dealing+finance" not in refused
