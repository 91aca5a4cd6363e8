"""Verify names what is wrong, whoever did it."""

from __future__ import annotations

import asyncpg
import pytest

from ledger import verify
from ledger.units import Done, Unit
from tests.integration.ledger.conftest import House, deposit, deposited


@pytest.fixture
async def booked(house: House) -> House:
    """Books with a few deposits in them, and nothing wrong."""
    async with house.lane() as lane:
        for n in range(4):
            assert isinstance(await lane.submit(deposited(f"PY{n}", f"CL{n % 2}")), Done)
    assert await house.wrong() == []
    return house


async def as_owner(house: House, *statements: str) -> None:
    """Do with the tables what only their owner can."""
    owner = await house.database.connect(owner=True)
    for statement in statements:
        await owner.execute(statement)


def off(table: str, statement: str) -> tuple[str, ...]:
    """A change behind the back of the triggers, which stand again afterwards."""
    return (
        f"ALTER TABLE ledger.{table} DISABLE TRIGGER ALL", statement,
        f"ALTER TABLE ledger.{table} ENABLE TRIGGER ALL",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("UPDATE ledger.balance SET posted = posted + sign * 5", "balance-without-postings"),
        ("UPDATE ledger.balance SET version = version + 1", "balance-without-postings"),
        (
            "INSERT INTO ledger.entry VALUES (1, 7, 1, 'k', '\\x00', now(), now(), '', 2)",
            "entry-without-postings",
        ),
        (
            "INSERT INTO ledger.account VALUES (1, 900, 1, 'x', 'EUR')",
            "account-off-chart",
        ),
        (
            "INSERT INTO ledger.account VALUES (1, 900, 99, 'x', 'EUR')",
            "account-off-chart",
        ),
        (
            "INSERT INTO ledger.hold VALUES ('HD1', 1, 'CL1', 'EUR', 5, 'open', 1, now())",
            "hold-off-books",
        ),
        ("INSERT INTO ledger.feed_book VALUES (1, 1, 5)", "deal-numbers"),
        ("INSERT INTO ledger.feed_book VALUES (1, 99, 0)", "deal-off-feed"),
    ],
)
async def test_what_the_daemons_rights_still_allow_is_named(
    booked: House, statement: str, code: str
) -> None:
    """A balance moved without postings, an entry without any, an account or a hold beside the
    books: the daemon's role can write them, verify names them.
    """
    await booked.reader.execute(statement)
    assert code in {wrong.code for wrong in await booked.wrong()}


SET_POSTING = "UPDATE ledger.posting SET"
SET_ENTRY = "UPDATE ledger.entry SET"
ALTERED = [
    (off("posting", f"{SET_POSTING} amount = amount + 1 WHERE seq = 0"), "entry-unbalanced"),
    (off("posting", f"{SET_POSTING} balance = balance + 1 WHERE version = 1"), "chain-broken"),
    (off("posting", f"{SET_POSTING} version = 9 WHERE version = 2"), "chain-broken"),
    (off("posting", f"{SET_POSTING} account_id = 999 WHERE seq = 0"), "entry-unbalanced"),
    (off("posting", "DELETE FROM ledger.posting WHERE version = 1"), "entry-without-postings"),
    (off("entry", "DELETE FROM ledger.entry WHERE key = 'PY0'"), "posting-without-entry"),
    (off("entry", f"{SET_ENTRY} recorded = recorded + '1 day' WHERE key = 'PY0'"), "chain-broken"),
    (off("entry", f"{SET_ENTRY} ref = 'other' WHERE key = 'PY0'"), "entry-altered"),
    (off("entry", f"{SET_ENTRY} effective = '2020-01-01' WHERE key = 'PY0'"), "entry-altered"),
    (("UPDATE ledger.balance SET floor = -5 WHERE floor = 0",), "account-off-chart"),
    (
        (
            "ALTER TABLE ledger.balance DROP CONSTRAINT balance_floor",
            "UPDATE ledger.balance SET posted = 1 WHERE floor = 0",
        ),
        "balance-below-floor",
    ),
    (("UPDATE ledger.balance SET sign = 1, floor = NULL",), "account-off-chart"),
]


@pytest.mark.parametrize(("statements", "code"), ALTERED)
async def test_what_an_owner_did_behind_the_triggers_is_named(
    booked: House, statements: tuple[str, ...], code: str
) -> None:
    """Rows edited with the triggers off do not agree with the rest, and verify says where."""
    await as_owner(booked, *statements)
    assert code in {wrong.code for wrong in await booked.wrong()}


FINAL = "ON ledger.entry FOR EACH STATEMENT"
REFUSE = "EXECUTE FUNCTION ledger.refuse_change()"
REFUSING = "CREATE OR REPLACE FUNCTION ledger.refuse_change() RETURNS trigger LANGUAGE plpgsql"
PROVING = "CREATE OR REPLACE FUNCTION ledger.prove_postings() RETURNS trigger LANGUAGE plpgsql"
LOOSENED = {
    "DROP TRIGGER postings_are_proved ON ledger.posting": "trigger-missing",
    "ALTER TABLE ledger.entry DISABLE TRIGGER entry_is_final": "trigger-disabled",
    "ALTER TABLE ledger.entry ENABLE REPLICA TRIGGER entry_is_final": "trigger-disabled",
    f"CREATE OR REPLACE TRIGGER entry_is_final BEFORE UPDATE {FINAL} {REFUSE}": "trigger-changed",
    f"CREATE OR REPLACE TRIGGER entry_is_final BEFORE UPDATE OR DELETE OR TRUNCATE {FINAL}"
    f" WHEN (false) {REFUSE}": "trigger-changed",
    f"CREATE TRIGGER guest AFTER INSERT {FINAL} {REFUSE}": "trigger-added",
    f"{REFUSING} AS $$BEGIN RETURN NULL; END$$": "function-changed",
    f"{PROVING} AS 'BEGIN END'": "function-changed",
    "ALTER FUNCTION ledger.refuse_change() SET search_path = public": "function-changed",
    "ALTER TABLE ledger.balance DROP CONSTRAINT balance_floor": "constraint-changed",
    "ALTER TABLE ledger.entry DROP CONSTRAINT entry_book_id_kind_key_key": "constraint-changed",
    "GRANT DELETE ON ledger.posting TO brokerd_daemon": "grant-added",
    "GRANT UPDATE (floor) ON ledger.balance TO brokerd_daemon": "grant-added",
    "GRANT TRUNCATE ON ledger.entry TO PUBLIC": "grant-added",
    "REVOKE SELECT ON ledger.entry FROM brokerd_daemon": "grant-missing",
    "ALTER TABLE ledger.posting OWNER TO brokerd_daemon": "grant-added",
    "GRANT CREATE ON SCHEMA ledger TO brokerd_daemon": "grant-added",
}


@pytest.mark.parametrize(("statement", "code"), LOOSENED.items(), ids=str)
async def test_a_loosened_bond_is_named(booked: House, statement: str, code: str) -> None:
    """A trigger dropped, switched off, changed or added, a function replaced, a right given or
    taken by any way: verify names it.
    """
    await as_owner(booked, statement)
    owner = await booked.database.connect(owner=True)
    assert code in {wrong.code for wrong in await verify.verify(owner)}


async def test_a_right_by_membership_is_named(booked: House) -> None:
    """A right that reaches the daemon through another role is found like one of its own."""
    name = f"{booked.database.name}_helper"
    await as_owner(
        booked, f"CREATE ROLE {name}", f"GRANT DELETE ON ledger.entry TO {name}",
        f"GRANT {name} TO brokerd_daemon",
    )  # fmt: skip
    try:
        assert "grant-added" in {wrong.code for wrong in await booked.wrong()}
    finally:
        await as_owner(booked, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


async def test_the_lists_of_verify_are_what_the_migrations_make(house: House) -> None:
    """A fresh database agrees with verify's own lists, and each trigger of the books is in them."""
    assert await house.wrong() == []
    assert set(verify.made_triggers()) == {
        "entry_is_final", "posting_is_final", "postings_are_proved", "account_is_final",
        "book_is_final", "fact_is_final", "balance_stays", "deal_is_final",
        "plan_version_is_final", "rebate_line_is_final", "accrual_batch_is_final",
        "contract_batch_is_final", "remainder_step_is_final",
    }  # fmt: skip
    assert set(verify.made_functions()) == {"refuse_change", "prove_postings", "version_as_of"}


async def test_verify_sees_one_moment(booked: House) -> None:
    """Verify runs while lanes write and finds nothing wrong: it reads one snapshot."""
    async with booked.lane() as lane:
        for n in range(30):
            waiting = [lane.submit(Unit((), (deposit(f"PZ{n}-{i}"),))) for i in range(10)]
            assert await booked.wrong() == []
            for answer in waiting:
                assert isinstance(await answer, Done)


async def test_verify_changes_nothing(booked: House) -> None:
    """Verify is read only, even for who may write."""
    async with booked.reader.transaction(readonly=True):
        with pytest.raises(asyncpg.PostgresError):
            await booked.reader.execute("DELETE FROM ledger.lane")
