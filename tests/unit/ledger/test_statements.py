"""Statements of a batch put together."""

from ledger.statements import ACCOUNTS, BOOKS_WIDTH, LANE_WIDTH, locking, may_share, writing
from ledger.units import Kind, Step

CHECK = Kind("a.b.check", Step.CHECK, "SELECT x FROM b WHERE x = ANY($1::text[])")
MOVE = Kind(
    "a.c.move", Step.MOVE, "UPDATE c SET x = u.x FROM unnest($1::text[], $2::int[]) u",
    "SELECT id, version FROM c WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE",
)  # fmt: skip
CLAIM = Kind("a.d.claim", Step.CLAIM, "INSERT INTO d SELECT $1 RETURNING key")
ADD = Kind("a.e.insert", Step.INSERT, "INSERT INTO e SELECT * FROM unnest($1::text[], $10::text[])")
OWN = Kind("a.f.insert", Step.INSERT, "\nWITH g AS (SELECT 1) INSERT INTO f SELECT * FROM g")


def test_a_statement_with_a_with_of_its_own_stands_alone() -> None:
    """A statement that has its own WITH cannot be a part of another that writes."""
    assert not may_share(OWN)
    assert all(may_share(kind) for kind in (MOVE, CLAIM, ADD))


def test_parameters_of_shared_statements_follow_one_another() -> None:
    """Each statement's parameters come after those of the statements before it, none twice."""
    text = writing(((CLAIM, 1), (MOVE, 2), (ADD, 10)), books=False)
    for n, shown in enumerate(("SELECT $3 ", "unnest($4::text[], $5::int[])", "$6::text[], $15::")):
        assert shown in text, n
    assert (LANE_WIDTH, BOOKS_WIDTH) == (2, 25)
    assert "SELECT $26 " in writing(((CLAIM, 1),), books=True)


def test_every_shared_statement_tells_how_many_rows_it_touched() -> None:
    """What returns nothing is made to return; what returns its keys is left as it is."""
    text = writing(((CLAIM, 1), (MOVE, 2)), books=False)
    assert text.count("RETURNING key)") == 1
    assert "u RETURNING 1)" in text
    assert "FROM k0) AS n0" in text
    assert "FROM k1) AS n1" in text


def test_checks_rows_and_accounts_are_locked_in_this_order() -> None:
    """The parts of the locking statement are read one after the other, accounts last."""
    text = locking((CHECK, MOVE), accounts=True)
    order = [text.index(f"(SELECT {part}") for part in (0, 1, ACCOUNTS)]
    assert order == sorted(order)
    assert "ANY($1::text[])" in text
    assert "ANY($2::text[])" in text
    assert "unnest($3::smallint[], $4::bigint[])" in text
    assert "accounts" not in locking((CHECK,), accounts=False)
