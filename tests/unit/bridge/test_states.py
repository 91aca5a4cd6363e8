"""The tables of moves: each pair is a way or is refused, and rows follow from the move."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import msgspec
import pytest

from bridge import rows
from bridge.outcomes import Call, Done, NotSent, Outcome, Refused, Unknown
from bridge.provision import new_passwords, state_after
from bridge.states import (
    ACCOUNT_MOVES,
    OPERATION_MOVES,
    Account,
    AccountState,
    IllegalMove,
    Operation,
    OperationState,
    account_event,
    operation_event,
)

AT = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)

ACCOUNT = Account(
    id="AC000000000000000001",
    client_id="CL000000000000000001",
    book=1,
    server="mt5-live",
    entity="fx-eu",
    brand="northgate",
    account_type="standard",
    currency="EUR",
    platform_group="g",
    leverage=30,
    rights=355,
    correlation="CR000000000000000001",
    created=AT,
    updated=AT,
)
OPERATION = Operation(
    id="BO000000000000000001",
    account_id=ACCOUNT.id,
    server="mt5-live",
    login=100_001,
    book=1,
    amount_minor=10_000,
    currency="EUR",
    correlation="CR000000000000000001",
    created=AT,
    updated=AT,
)


@pytest.mark.parametrize(("before", "after"), [*product(AccountState, AccountState)])
def test_an_account_moves_only_where_its_table_has_a_way(
    before: AccountState, after: AccountState
) -> None:
    """Every pair of account states has a named move or is illegal."""
    if (before, after) in ACCOUNT_MOVES:
        assert account_event(before, after) == ACCOUNT_MOVES[before, after]
    else:
        with pytest.raises(IllegalMove):
            account_event(before, after)


@pytest.mark.parametrize(("before", "after"), [*product(OperationState, OperationState)])
def test_an_operation_moves_only_where_its_table_has_a_way(
    before: OperationState, after: OperationState
) -> None:
    """Every pair of operation states has a named move or is illegal."""
    if (before, after) in OPERATION_MOVES:
        assert operation_event(before, after) == OPERATION_MOVES[before, after]
    else:
        with pytest.raises(IllegalMove):
            operation_event(before, after)


@pytest.mark.parametrize("final", [OperationState.DONE, OperationState.REFUSED])
def test_a_settled_operation_never_moves_again(final: OperationState) -> None:
    """Money that is on the platform, or refused by it, is not sent a second time."""
    assert not [pair for pair in OPERATION_MOVES if pair[0] is final]


def test_an_unknown_operation_is_never_sent_straight_away() -> None:
    """Between unknown and sent stands the proof of absence."""
    assert (OperationState.UNKNOWN, OperationState.SENT) not in OPERATION_MOVES


def test_sending_counts_and_stamps() -> None:
    """Sending counts the attempt, notes its time and forgets the lookups of an earlier one."""
    looked = msgspec.structs.replace(OPERATION, lookups=2)
    sent = rows.operation_after(looked, OperationState.SENT, AT, lease_owner="RP1")
    assert (sent.attempts, sent.sent_at, sent.lookups, sent.version) == (1, AT, 0, 2)
    assert sent.lease_owner == "RP1"


def test_the_settle_time_starts_once() -> None:
    """Lookups do not put off the moment from which the settle time runs."""
    sent = rows.operation_after(OPERATION, OperationState.SENT, AT)
    lost = rows.operation_after(sent, OperationState.UNKNOWN, AT + timedelta(seconds=1))
    again = rows.operation_after(lost, OperationState.UNKNOWN, AT + timedelta(hours=1), lookups=1)
    back = rows.operation_after(again, OperationState.QUEUED, AT + timedelta(hours=2))
    assert lost.unknown_at == again.unknown_at == AT + timedelta(seconds=1)
    assert back.unknown_at is None


def test_every_move_writes_its_event() -> None:
    """A change of state is a row that moves and an event row that says which way it went."""
    move, event = rows.operation_moved(
        OPERATION, OperationState.SENT, at=AT, actor="RP1", cause={"attempt": 1}
    )
    assert move.kind is rows.OPERATION_MOVE
    assert move.row[:3] == (OPERATION.id, 1, "sent")
    assert event.kind is rows.EVENT_INSERT
    assert event.row == (OPERATION.id, "queued", "sent", "sent", '{"attempt":1}', "RP1", AT)


def test_an_illegal_move_makes_no_row() -> None:
    """A move that the table does not have is a bug of the caller, not a row."""
    with pytest.raises(IllegalMove):
        rows.account_moved(ACCOUNT, AccountState.VERIFIED, at=AT, actor="RP1")


CALL = Call(
    method="user/add",
    payload="{}",
    payload_hash="0" * 64,
    code=0,
    text="Done",
    class_="ok",
    took_ms=3,
    at=AT,
)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Done(login=1), AccountState.VERIFIED),
        (Refused(code=0, text="leverage", kind="verify"), AccountState.VERIFY_FAILED),
        (Refused(code=8, text="", kind="configuration"), AccountState.REFUSED),
        (Refused(code=12, text="", kind="transient"), AccountState.REQUESTED),
        (NotSent(reason="lease"), AccountState.REQUESTED),
        (Unknown(reason="timeout"), AccountState.UNKNOWN),
    ],
)
def test_each_outcome_has_its_state(outcome: Outcome, state: AccountState) -> None:
    """What a creation ended in says where the account stands, and the table has that way."""
    assert state_after(outcome) is state
    assert (AccountState.SENT, state) in ACCOUNT_MOVES


def test_each_call_of_an_outcome_is_logged_with_the_decision() -> None:
    """The job log has one row a call, with what was decided from it."""
    changes = rows.jobs_logged(ACCOUNT.id, 1, "mt5-live", Unknown(reason="x", calls=(CALL, CALL)))
    assert [change.row[9] for change in changes] == ["unknown", "unknown"]


def test_passwords_satisfy_every_rule() -> None:
    """New passwords have all four kinds of characters and a length every group takes."""
    import re

    drawn = iter(range(10**6))
    made = new_passwords(lambda count: bytes(next(drawn) % 256 for _ in range(count)))
    for password in (made.main, made.investor):
        assert 8 <= len(password) <= 16
        assert all(re.search(kind, password) for kind in ("[a-z]", "[A-Z]", "[0-9]", r"\W"))
    assert made.main not in repr(made)
