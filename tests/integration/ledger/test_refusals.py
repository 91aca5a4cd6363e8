"""What the database itself refuses to the daemon's role, whatever program uses it."""

from __future__ import annotations

import asyncpg
import msgspec
import pytest

from ledger import entries
from ledger.facts import AccountName, Approved
from ledger.units import Done, Left, Unit, Why
from tests.integration.ledger.conftest import DAY, House, deposited

COLUMN = {
    "entry": "ref = 'x'",
    "posting": "amount = 1",
    "account": "owner = 'x'",
    "fact": "kind = 'x'",
    "book": "entity = 'x'",
}
BOOKED = tuple(COLUMN)
ENTRY = """
INSERT INTO ledger.entry VALUES (1, $1, 1, 'raw', '\\x00', '2026-03-01', now(), '', $2)
"""


async def two_accounts(house: House) -> tuple[int, int]:
    """A clearing account and a wallet, each with one posting of a deposit."""
    async with house.lane() as lane:
        assert isinstance(await lane.submit(deposited("PY1")), Done)
    rows = await house.reader.fetch("SELECT id FROM ledger.account ORDER BY kind DESC")
    return rows[0]["id"], rows[1]["id"]


async def write(
    house: House, number: int, says: int, balances: list[tuple[int, int, int]],
    postings: list[tuple[int, int, int, int, int]],
) -> None:  # fmt: skip
    """Raw SQL as the daemon's role: an entry, balances (account, posted, version), and postings
    (seq, account, version, amount, balance), in one transaction.
    """
    async with house.reader.transaction():
        await house.reader.execute(ENTRY, number, says)
        await house.reader.executemany(
            "UPDATE ledger.balance SET posted = $2, version = $3 WHERE account_id = $1", balances
        )
        await house.reader.execute(
            "INSERT INTO ledger.posting SELECT 1, $1, * FROM unnest("
            "$2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])",
            number, *[list(column) for column in zip(*postings, strict=True)],
        )  # fmt: skip


async def test_a_true_entry_passes(house: House) -> None:
    """What the refusals below refuse is not refused when it is right."""
    bank, wallet = await two_accounts(house)
    await write(
        house, 7, 2, [(bank, 150, 2), (wallet, -150, 2)],
        [(0, bank, 2, 50, 150), (1, wallet, 2, -50, -150)],
    )  # fmt: skip
    assert [wrong.code for wrong in await house.wrong()] == ["entry-altered"]  # the hash is made up


@pytest.mark.parametrize(
    ("says", "balances", "postings", "sqlstate"),
    [
        pytest.param(
            2, [(0, 150, 2), (1, -149, 2)], [(0, 0, 2, 50, 150), (1, 1, 2, -49, -149)], "LB002",
            id="unbalanced",
        ),
        pytest.param(
            3, [(0, 150, 2), (1, -150, 2)], [(0, 0, 2, 50, 150), (1, 1, 2, -50, -150)], "LB003",
            id="a posting short",
        ),
        pytest.param(
            2, [(0, 150, 2), (1, -150, 2)], [(0, 0, 2, 50, 150), (2, 1, 2, -50, -150)], "LB003",
            id="a gap in the sides",
        ),
        pytest.param(2, [(0, 150, 2)], [(0, 0, 2, 50, 150)], "LB002", id="one side"),
        pytest.param(
            2, [(0, 150, 2)], [(0, 0, 2, 50, 150), (1, 1, 2, -50, -150)], "LB004",
            id="balance does not follow",
        ),
        pytest.param(
            2, [(0, 150, 2), (1, -150, 3)], [(0, 0, 2, 50, 150), (1, 1, 3, -50, -150)], "LB004",
            id="a version skipped",
        ),
        pytest.param(
            2, [(0, 9000, 2), (1, -150, 2)], [(0, 0, 2, 50, 9000), (1, 1, 2, -50, -150)], "LB004",
            id="a running balance from nowhere",
        ),
        pytest.param(
            2, [(0, 100, 3), (1, -100, 1)], [(0, 0, 2, 50, 8), (1, 0, 3, -50, 100)], "LB004",
            id="a broken link inside one entry",
        ),
        pytest.param(
            2, [(0, 150, 2), (1, 50, 2)], [(0, 0, 2, -150, -50), (1, 1, 2, 150, 50)], "23514",
            id="below the floor",
        ),
    ],
)  # fmt: skip
async def test_raw_sql_cannot_store_what_does_not_add_up(
    house: House, says: int, balances: list[tuple[int, int, int]],
    postings: list[tuple[int, int, int, int, int]], sqlstate: str,
) -> None:  # fmt: skip
    """Unbalanced entries, missing postings and balances that do not follow cannot be committed."""
    accounts = await two_accounts(house)
    with pytest.raises(asyncpg.PostgresError) as refused:
        await write(
            house, 7, says, [(accounts[a], posted, version) for a, posted, version in balances],
            [(seq, accounts[a], v, amount, after) for seq, a, v, amount, after in postings],
        )  # fmt: skip
    assert refused.value.sqlstate == sqlstate
    assert await house.wrong() == []


async def test_a_posting_on_no_account_cannot_be_stored(house: House) -> None:
    """A posting names an account that exists in its book."""
    bank, _ = await two_accounts(house)
    with pytest.raises(asyncpg.PostgresError) as refused:
        await write(
            house, 7, 2, [(bank, 150, 2)], [(0, bank, 2, 50, 150), (1, 999, 1, -50, -50)]
        )  # fmt: skip
    assert refused.value.sqlstate == "LB002"


async def test_postings_cannot_be_added_to_a_booked_entry(house: House) -> None:
    """An entry says how many postings it has; a balanced pair cannot join it later."""
    bank, wallet = await two_accounts(house)
    entry = await house.reader.fetchval("SELECT id FROM ledger.entry")
    await house.reader.execute("BEGIN")
    await house.reader.execute("UPDATE ledger.balance SET posted = posted + sign * 5, version = 2")
    with pytest.raises(asyncpg.PostgresError) as refused:
        await house.reader.execute(
            "INSERT INTO ledger.posting"
            " VALUES (1, $1, 2, $2, 2, 5, 105), (1, $1, 3, $3, 2, -5, -105)",
            entry, bank, wallet,
        )  # fmt: skip
    await house.reader.execute("ROLLBACK")
    assert refused.value.sqlstate == "LB003"


@pytest.mark.parametrize("table", BOOKED)
@pytest.mark.parametrize("verb", ["UPDATE", "DELETE", "TRUNCATE"])
async def test_booked_rows_cannot_be_changed_by_the_daemon(
    house: House, table: str, verb: str
) -> None:
    """The daemon's role has no right to change what is booked."""
    await two_accounts(house)
    statement = {
        "UPDATE": f"UPDATE ledger.{table} SET {COLUMN[table]}",
        "DELETE": f"DELETE FROM ledger.{table}",
        "TRUNCATE": f"TRUNCATE ledger.{table}",
    }[verb]
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await house.reader.execute(statement)


@pytest.mark.parametrize("table", BOOKED)
@pytest.mark.parametrize("verb", ["UPDATE", "DELETE", "TRUNCATE"])
async def test_booked_rows_refuse_even_their_owner(house: House, table: str, verb: str) -> None:
    """Who owns the tables is stopped by triggers: it takes a deliberate act that verify names."""
    await two_accounts(house)
    owner = await house.database.connect(owner=True)
    statement = {
        "UPDATE": f"UPDATE ledger.{table} SET {COLUMN[table]}",
        "DELETE": f"DELETE FROM ledger.{table}",
        "TRUNCATE": f"TRUNCATE ledger.{table}",
    }[verb]
    with pytest.raises(asyncpg.PostgresError) as refused:
        await owner.execute(statement)
    assert refused.value.sqlstate == "LB001"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger.balance SET sign = -sign",
        "UPDATE ledger.balance SET floor = NULL",
        "UPDATE ledger.balance SET account_id = 1",
        "DELETE FROM ledger.balance",
        "UPDATE ledger.hold SET amount = 1",
        "DELETE FROM ledger.hold",
        "ALTER TABLE ledger.posting DISABLE TRIGGER ALL",
        "DROP TRIGGER postings_are_proved ON ledger.posting",
        "ALTER TABLE ledger.balance DROP CONSTRAINT balance_floor",
        "SET session_replication_role = replica",
    ],
)
async def test_the_daemon_cannot_loosen_what_binds_it(house: House, statement: str) -> None:
    """Signs, floors, holds' amounts and the triggers are out of the daemon's reach."""
    await two_accounts(house)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await house.reader.execute(statement)


ADJUSTED = """
INSERT INTO ledger.entry (book_id, id, kind, key, content, effective, recorded, ref, postings,
                          approval, maker, checker)
VALUES (1, 7, $1, 'raw', '\\x00', '2026-03-01', now(), '', 2, $2, $3, $4)
"""


@pytest.mark.parametrize("kind", [90, 99])
@pytest.mark.parametrize(
    ("approval", "maker", "checker"),
    [
        (None, None, None), ("", "ann", "bob"), (None, "ann", "bob"), ("AP1", None, "bob"),
        ("AP1", "ann", None), ("AP1", "ann", ""), ("AP1", "", "bob"), ("AP1", "ann", "ann"),
    ],
)  # fmt: skip
async def test_no_adjustment_without_two_people(
    house: House, kind: int, approval: str | None, maker: str | None, checker: str | None
) -> None:
    """Raw SQL cannot store an adjustment without the approval of another person than its maker."""
    with pytest.raises(asyncpg.CheckViolationError, match="entry_approved"):
        await house.reader.execute(ADJUSTED, kind, approval, maker, checker)
    with pytest.raises(asyncpg.CheckViolationError, match="entry_approved"):
        await house.reader.execute(ADJUSTED, 89, "AP1", "ann", "bob")


async def test_an_adjustment_bears_its_approval(house: House) -> None:
    """The books say which question allowed it, who asked and who agreed, and verify agrees."""
    source, to = AccountName("bank", "b", "EUR"), AccountName("suspense", "acme", "EUR")
    approved = Approved("AP1", "ann", "bob", "v1")
    entry = entries.adjustment(1, "by-hand", source, to, 5, DAY, approved)
    async with house.lane() as lane:
        assert isinstance(await lane.submit(Unit((), (entry,))), Done)
        again = await lane.submit(Unit((), (entry,)))
        other = msgspec.structs.replace(entry, approved=Approved("AP1", "ann", "cem", "v1"))
        differs = await lane.submit(Unit((), (other,)))
    assert isinstance(again, Left)
    assert isinstance(differs, Left)
    assert (again.why, differs.why) == (Why.EXISTS, Why.DIFFERS)
    row = await house.reader.fetchrow("SELECT approval, maker, checker FROM ledger.entry")
    assert tuple(row) == ("AP1", "ann", "bob")
    assert await house.wrong() == []
