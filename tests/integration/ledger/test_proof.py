"""Every rebate is computed again from its deal, and whatever was changed behind it has a name.

A database owner who changes a row and all sums and hashes over it is found too, short of writing
the journal anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial

import asyncpg
import pytest
import pytest_asyncio

from ledger.chart import ACCOUNTS
from ledger.rebates import encode, evidence, pipeline, proof, reads
from ledger.rebates.lines import Line
from ledger.rebates.proof import Altered
from ledger.verify import Wrong, verify
from tests.support.earning import LONG_AGO, Earning, plan, working
from tests.support.servers import Database
from tests.unit.ledger.values import NOON, balance_deal, deal

DAY_S = 86_400
CUT = datetime(2026, 3, 31, 12, tzinfo=UTC)
MISPLACE = """
UPDATE ledger.rebate_line SET account_id = (
       SELECT id FROM ledger.account WHERE owner = 'CTlone' AND kind = $1) WHERE no = 1
"""
MORE_LEFT = """
UPDATE ledger.remainder_step SET exact = exact + 4 * 10::numeric ^ 15
 WHERE batch = (SELECT max(batch) FROM ledger.remainder_step)
"""
LINES = "SELECT * FROM ledger.rebate_line WHERE batch = 1 ORDER BY no"


@pytest_asyncio.fixture
async def earning(database: Database, pool: asyncpg.Pool) -> Earning:
    """A book with a chain of three, and a contract that stands alone; batches of ten deals."""
    opened = await Earning(database, pool).open()
    opened.deals_max = 10
    return opened


async def lived(earning: Earning) -> None:
    """Deals of every sort: paid, carried, zero, rounded, late, edited, of two plans."""
    await earning.accrue(
        *[deal(n, lots="0.0123", symbol="XAUUSD") for n in range(1, 31)],
        *[deal(n, lots="0.017", login=5002) for n in range(31, 46)],
        deal(46, entry=0), deal(47, symbol="NOTHING"), balance_deal(48), deal(49, login=5003),
        deal(50, after_s=-40 * DAY_S, lots="0.0123", symbol="XAUUSD"),
        *[deal(n, lots="0.0007", symbol="XAUUSD") for n in range(51, 60)],
    )  # fmt: skip
    await earning.accrue(deal(7, lots="0.0123", symbol="XAUUSD", comment="edited"))
    await earning.accrue(*[deal(n, lots="0.003") for n in range(60, 70)])


async def proved(earning: Earning) -> list[Altered]:
    """What is not as it is computed."""
    async with earning.pool.acquire() as conn:
        return await proof.prove(conn, earning.sources)


async def verified(earning: Earning) -> list[Wrong]:
    """What the books' own invariants find."""
    async with earning.pool.acquire() as conn:
        return await verify(conn)


async def tamper(earning: Earning, *statements: str) -> None:
    """Change rows as a database owner can, with no trigger in the way."""
    owner = await earning.database.connect(owner=True)
    async with owner.transaction():
        await owner.execute("SET LOCAL session_replication_role = replica")
        for sql in statements:
            await owner.execute(sql)


@pytest.mark.parametrize("page", [1, 3, 200])
async def test_a_house_that_lived_is_proved(
    earning: Earning, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many batches are read at once, every line and every remainder is reached again."""
    monkeypatch.setattr(proof, "BATCHES_MAX", page)
    await lived(earning)
    assert await proved(earning) == []
    assert await verified(earning) == []
    kinds = await earning.rows("SELECT DISTINCT kind FROM ledger.rebate_line ORDER BY 1")
    assert kinds == [(1,), (2,), (3,)]


async def test_what_is_left_without_a_line_is_kept_as_well(earning: Earning) -> None:
    """A level above a zero line has no line of its own, and yet it may have something left over."""
    async with earning.pool.acquire() as conn, conn.transaction():
        await earning.publish(conn, [plan("master", XAUUSD="0.70")])
        now = await conn.fetchval("SELECT clock_timestamp()")
    when = (now - NOON).total_seconds() + 60
    await earning.accrue(deal(1, after_s=when, lots="0.003", symbol="XAUUSD"))
    lines = await earning.rows("SELECT account_id FROM ledger.rebate_line")
    steps = await earning.rows("SELECT account_id FROM ledger.remainder_step")
    assert (len(lines), len(steps)) == (1, 3)
    assert await proved(earning) == []


TAMPERED: dict[str, tuple[Sequence[str], set[str]]] = {
    "a deal closed more than it did": (
        ["UPDATE ledger.deal SET closed = closed * 3 WHERE no = 31"],
        {"deal-altered", "line-altered", "remainder-off"},
    ),
    "a deal is another client's": (
        ["UPDATE ledger.deal SET login = 5002 WHERE no = 60"], {"deal-altered", "line-altered"},
    ),
    "a deal was dealt long before": (
        ["UPDATE ledger.deal SET at = at - interval '40 days' WHERE no = 46"], {"deal-altered"},
    ),
    "a deal says something that no rebate depends on": (
        ["UPDATE ledger.deal SET price = price + 1, comment = 'x' WHERE no = 46"],
        {"deal-altered"},
    ),
    "a batch read other inputs": (
        ["UPDATE ledger.accrual_batch SET inputs = inputs - 1 WHERE batch = 2"],
        {"batch-altered"},
    ),
    "a batch was written by another owner": (
        ["UPDATE ledger.accrual_batch SET epoch = epoch + 1 WHERE batch = 2"], {"batch-altered"},
    ),
    "a batch was booked earlier": (
        ["UPDATE ledger.accrual_batch SET at = at - interval '3 days' WHERE batch <= 2"],
        {"batch-altered"},
    ),
    "a plan was published later": (
        ["UPDATE ledger.plan_version SET since = since + interval '300 days'"], {"line-altered"},
    ),
    "more was left over in a batch": (
        [MORE_LEFT],
        {"batch-altered", "remainder-off"},
    ),
    "what a batch left over is gone": (
        ["DELETE FROM ledger.remainder_step WHERE batch = 1"], {"batch-altered", "remainder-off"},
    ),
    "a line is gone": (["DELETE FROM ledger.rebate_line WHERE no = 3"], {"line-altered"}),
    "a line says what no line can": (
        ["UPDATE ledger.rebate_line SET reason = 99 WHERE no = 3"], {"line-altered"},
    ),
}  # fmt: skip


async def around_a_cut_off(earning: Earning) -> None:
    """Deals of one day and of two months, because the book cuts off its last day at noon."""
    gold = partial(deal, lots="0.0123", symbol="XAUUSD")
    await earning.land(
        *[gold(n, at=CUT - timedelta(minutes=1)) for n in range(1, 5)],
        *[gold(n, at=CUT) for n in range(5, 9)],
    )
    async with working(earning.owned(cut_off=CUT.time())):
        await earning.until_caught_up()


async def test_what_is_left_over_is_carried_by_settlement_days(earning: Earning) -> None:
    """From the cut-off on a deal is of the next day, here of the next month; its entry is not."""
    await around_a_cut_off(earning)
    march, april = date(2026, 3, 31), date(2026, 4, 1)
    assert await earning.rows(
        "SELECT first_deal, b.day, settles, effective FROM ledger.accrual_batch b"
        " JOIN ledger.entry e ON e.id = b.entry_id ORDER BY 1"
    ) == [(1, march, march, march), (5, march, april, march)]
    assert await earning.rows(
        "SELECT DISTINCT batch, period FROM ledger.remainder_step ORDER BY 1"
    ) == [(1, date(2026, 3, 1)), (2, april)]
    assert await proved(earning) == []
    assert await verified(earning) == []
    async with earning.pool.acquire() as conn:
        for line in await reads.lines(conn, 1, "CTpartner", 0, 100):
            assert (await evidence.explain(conn, line, earning.sources)).agrees


async def test_a_batch_over_a_cut_off_is_named(
    earning: Earning, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deals of both sides in one batch, by whatever mistake: those that are not its own."""
    monkeypatch.setattr(pipeline, "batch_length", lambda deals, limit, _: min(len(deals), limit))
    await around_a_cut_off(earning)
    (found,) = await proved(earning)
    assert (found.code, found.subject) == ("batch-mixed", "1/1")
    assert found.detail.startswith("deals [5, 6, 7, 8] are not settled on 2026-03-31")


@pytest.mark.parametrize(
    "change",
    ["settles = '2026-04-01'", "cut_off = '11:00', settles = day + 1", "cut_off = '13:00'"],
)
async def test_a_settlement_day_that_was_changed_is_named(earning: Earning, change: str) -> None:
    """It decides which month a rest is paid in: the content binds it, the deals prove it."""
    await around_a_cut_off(earning)
    await tamper(earning, f"UPDATE ledger.accrual_batch SET {change} WHERE batch = 1")
    found = {each.code for each in await proved(earning) if each.subject == "1/1"}
    assert "batch-altered" in found
    assert ("batch-mixed" in found) == ("settles = '" in change)


@pytest.mark.parametrize("change", TAMPERED)
async def test_whatever_was_changed_is_named(earning: Earning, change: str) -> None:
    """Deals, batches, plans, remainders and lines: each by its code."""
    await lived(earning)
    statements, codes = TAMPERED[change]
    await tamper(earning, *statements)
    found = {each.code for each in await proved(earning)}
    assert codes <= found, found
    if change == "a plan was published later":
        assert found <= codes | {"remainder-off"}


async def test_a_remainder_that_pays_more_next_time_is_named(earning: Earning) -> None:
    """Less than a minor unit more is left over: nothing else would ever show it."""
    await lived(earning)
    await tamper(earning, "UPDATE ledger.remainder SET exact = exact + 10::numeric ^ 14")
    assert {each.code for each in await verified(earning)} == {"remainder-off"}


async def test_a_time_that_is_not_the_entrys_is_named(earning: Earning) -> None:
    """As-of answers follow a batch's time, and its time its entry's."""
    await lived(earning)
    await tamper(
        earning, "UPDATE ledger.accrual_batch SET at = at + interval '1 s' WHERE entry_id ="
        " (SELECT max(entry_id) FROM ledger.accrual_batch)",
    )  # fmt: skip
    assert "batch-time" in {each.code for each in await verified(earning)}


async def test_lines_moved_with_their_hash_are_named(earning: Earning) -> None:
    """One cent from a line to another of the same contract, the hash over them put right."""
    await lived(earning)
    await tamper(
        earning, "UPDATE ledger.rebate_line SET amount = amount + 1 WHERE no ="
        " (SELECT min(no) FROM ledger.rebate_line WHERE amount > 0)",
        "UPDATE ledger.rebate_line l SET amount = amount - 1 FROM (SELECT no, account_id FROM"
        " ledger.rebate_line WHERE amount > 0 ORDER BY no LIMIT 1) f WHERE l.no = (SELECT min(no)"
        " FROM ledger.rebate_line WHERE account_id = f.account_id AND no > f.no)",
    )  # fmt: skip
    owner = await earning.database.connect(owner=True)
    said = encode.content(Line(*row) for row in await owner.fetch(LINES))
    await tamper(
        earning, f"UPDATE ledger.accrual_batch SET lines = '\\x{said.hex()}' WHERE batch = 1"
    )
    assert await verified(earning) == []
    found = await proved(earning)
    assert [each.code for each in found] == ["batch-altered", "line-altered", "line-altered"]


async def test_a_batch_put_right_with_its_content_is_not_what_its_entry_says(
    earning: Earning,
) -> None:
    """The entry names the content of its batch, and the journal's own hash binds that name."""
    await lived(earning)
    await tamper(earning, "UPDATE ledger.accrual_batch SET content = sha256('x') WHERE batch = 1")
    assert {each.code for each in await verified(earning)} == {"entry-without-batch"}
    assert [each.subject for each in await proved(earning)] == ["1/1", "1/2"]


async def test_lines_that_are_missing_or_too_many_are_named(earning: Earning) -> None:
    """A whole batch is computed again: who was left out is named by the deal."""
    await earning.accrue(deal(1), deal(2, login=5002))
    owner = await earning.database.connect(owner=True)
    async with owner.transaction():
        await owner.execute("SET LOCAL session_replication_role = replica")
        await owner.execute("DELETE FROM ledger.rebate_line WHERE deal_no = 2")
        await owner.execute(MISPLACE, ACCOUNTS["partner_accrued"].number)
    assert [(each.subject, each.detail.partition(",")[0]) for each in await proved(earning)] == [
        ("1-1", "says 500 (paid"), ("1 deal 1", "has no line"), ("1 deal 2", "has no line"),
    ]  # fmt: skip


async def test_contracts_that_stand_above_each_other_are_no_endless_chain(
    earning: Earning,
) -> None:
    """What cannot be computed is named and ends nothing."""
    await earning.accrue(deal(1))
    upper = earning.contracts["CTmaster"]
    earning.contracts["CTmaster"] = type(upper)(
        upper.id, upper.currency, ((LONG_AGO, "CTpartner"),), upper.plans
    )
    (found,) = await proved(earning)
    assert (found.code, found.subject) == ("line-altered", "1/1")
