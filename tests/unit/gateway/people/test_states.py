"""The ten states of a client: which pair is a move, who must agree, and what a state permits."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product

import pytest

from gateway.control.refusals import Refusal
from gateway.people import clients, states
from gateway.people.clients import Client, Move
from gateway.people.states import MOVES, State

AT = datetime(2026, 1, 1, tzinfo=UTC)
TABLE = """
new_lead         contacted registered archived
contacted        registered archived
registered       kyc_pending restricted archived
kyc_pending      kyc_under_review restricted archived
kyc_under_review approved? kyc_pending restricted archived
approved         deposit_enabled kyc_pending restricted
deposit_enabled  trading_enabled kyc_pending restricted
trading_enabled  restricted* kyc_pending archived*
restricted       origin* archived*
archived         registered*
"""
RULES = {line.split()[0]: line.split()[1:] for line in TABLE.strip().splitlines()}
ORIGINS = [State(name) for name, to in RULES.items() if {"restricted", "restricted*"} & set(to)]


def client(state: State, *, came_from: str = "", blocks: tuple[str, ...] = ()) -> Client:
    """A client of medium risk in this state."""
    return Client(
        id="CL" + "0" * 18, version=3, caller="shop", reference="c", brand="northgate",
        entity="fx-eu", book=1, country="DE", currency="EUR", client_type="individual",
        risk_band="medium", state=state, blocks=blocks, came_from=came_from, correlation="x",
        created=AT, updated=AT,
    )  # fmt: skip


def expected(before: State, after: State, risk: str, came_from: str) -> bool | None:
    """What the table above says: None no such move, else whether it is starred."""
    for word in RULES[before]:
        if word.rstrip("*?") == after:
            return word.endswith("*") or (word.endswith("?") and risk != "low")
        if word == "origin*" and after == came_from:
            return True
    return None


@pytest.mark.parametrize(("before", "after"), list(product(State, State)))
@pytest.mark.parametrize("risk", ["low", "medium", "high"])
def test_every_pair_of_states_is_what_the_table_says(
    before: State, after: State, risk: str
) -> None:
    """All hundred ordered pairs: allowed pairs pass with their star, the rest are refused."""
    for came_from in ORIGINS if before is State.RESTRICTED else [""]:
        wanted = expected(before, after, risk, came_from)
        if wanted is None:
            with pytest.raises(Refusal) as no:
                states.needs_checker(before, after, risk, came_from)
            assert no.value.code == "client-transition"
        else:
            assert states.needs_checker(before, after, risk, came_from) is wanted


def test_every_state_can_be_reached() -> None:
    """No hidden state, and none that only exists on paper."""
    reached = {State.NEW_LEAD}
    while more := {after for before, after in MOVES if before in reached} - reached:
        reached |= more
    assert reached == set(State)


@pytest.mark.parametrize("state", list(State))
def test_deposits_are_taken_in_two_states_only(state: State) -> None:
    """Deposit enabled and trading enabled; a restriction is told apart below."""
    allowed = clients.may_deposit(client(state)) is None

    assert allowed is (state in {State.DEPOSIT_ENABLED, State.TRADING_ENABLED})


@pytest.mark.parametrize(
    ("came_from", "blocks", "allowed"),
    [
        ("trading_enabled", ("trade",), True),
        ("deposit_enabled", ("withdraw", "login"), True),
        ("trading_enabled", ("deposit",), False),
        ("registered", ("trade",), False),
        ("approved", ("trade",), False),
    ],
)
def test_a_restriction_blocks_what_it_names_and_grants_nothing(
    came_from: str, blocks: tuple[str, ...], allowed: bool
) -> None:
    """Without a deposit block whoever could deposit before still may, and nobody else."""
    held = client(State.RESTRICTED, came_from=came_from, blocks=blocks)

    assert (clients.may_deposit(held) is None) is allowed


@pytest.mark.parametrize("state", list(State))
def test_accounts_are_opened_in_three_states(state: State) -> None:
    """Approved and what follows it."""
    allowed = clients.may_open_account(client(state)) is None

    assert allowed is (state in {State.APPROVED, State.DEPOSIT_ENABLED, State.TRADING_ENABLED})


def test_a_restriction_without_blocks_is_refused() -> None:
    """A restriction says what it forbids."""
    with pytest.raises(Refusal) as no:
        clients.needs_checker(client(State.APPROVED), Move(State.RESTRICTED))
    assert no.value.code == "blocks-missing"


def test_blocks_belong_to_restrictions() -> None:
    """Any other move with blocks is refused, not silently stripped."""
    with pytest.raises(Refusal) as no:
        clients.needs_checker(client(State.NEW_LEAD), Move(State.CONTACTED, ("trade",)))
    assert no.value.code == "blocks-misplaced"


def test_a_move_keeps_the_origin_of_a_restriction_and_forgets_it_when_lifted() -> None:
    """The way back is known while the restriction lasts, and only then."""
    held = clients.moved(client(State.APPROVED), Move(State.RESTRICTED, ("trade", "trade")), AT)
    lifted = clients.moved(held, Move(State.APPROVED), AT)

    assert (held.came_from, held.blocks, held.version) == ("approved", ("trade",), 4)
    assert (lifted.came_from, lifted.blocks, lifted.version) == ("", (), 5)
