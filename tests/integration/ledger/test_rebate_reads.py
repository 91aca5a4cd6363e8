"""What is read of rebates is what was booked: balances, lines, explanations, and proofs of all."""

from __future__ import annotations

from datetime import timedelta

import asyncpg
import pytest
import pytest_asyncio

from ledger.rebates import evidence, proof, reads
from ledger.rebates.liability import liability
from ledger.rebates.lines import LineKind, Reason
from ledger.rebates.reads import Behind, ContractBalances, Line
from ledger.verify import Wrong, verify
from tests.support.earning import Earning, contract, plan
from tests.support.servers import Database
from tests.unit.ledger.values import NOON, balance_deal, deal

DAY = NOON.date()
NUMBERS = """
SELECT r.no FROM ledger.rebate_line r JOIN ledger.account a ON a.id = r.account_id
 WHERE a.owner = $1 ORDER BY r.no
"""
ALL = ("CTpartner", "CTmaster", "CTdirector", "CTlone")


@pytest_asyncio.fixture
async def earning(database: Database, pool: asyncpg.Pool) -> Earning:
    """A book with a chain of three, and a contract that stands alone."""
    return await Earning(database, pool).open()


async def balances(earning: Earning, *names: str) -> list[ContractBalances]:
    """What the stream would tell."""
    async with earning.pool.acquire() as conn:
        return await reads.contract_balances(conn, [(1, name) for name in names], DAY)


async def all_lines(earning: Earning, name: str, limit: int = 7) -> list[Line]:
    """A contract's lines, page by page."""
    found: list[Line] = []
    async with earning.pool.acquire() as conn:
        while page := await reads.lines(conn, 1, name, found[-1].no if found else 0, limit):
            found += page
    return found


async def wrong(earning: Earning) -> list[Wrong]:
    """What verify says of the books."""
    async with earning.pool.acquire() as conn:
        return await verify(conn)


async def test_balances_come_in_the_order_asked(earning: Earning) -> None:
    """One row for each that is asked for; who never earned has zeros and no currency."""
    await earning.accrue(deal(1), deal(2, login=5002, lots="3"))
    lone, nobody, partner = await balances(earning, "CTlone", "CTnobody", "CTpartner")
    assert (lone.contract, lone.accrued, lone.currency) == ("CTlone", 1500, "EUR")
    assert (partner.contract, partner.accrued, partner.lines) == ("CTpartner", 500, 1)
    assert nobody == ContractBalances("CTnobody", 1, "", 0, 0, 0, 0, 0, 0, 0, None)


async def test_today_is_what_the_deals_of_a_day_earned(earning: Earning) -> None:
    """A late deal of yesterday counts for yesterday, whenever it is booked."""
    await earning.accrue(deal(1), deal(2, after_s=-86_400, lots="2"), deal(3))
    (now,) = await balances(earning, "CTpartner")
    assert (now.accrued, now.today, now.lines) == (2000, 1000, 3)
    async with earning.pool.acquire() as conn:
        (before,) = await reads.contract_balances(conn, [(1, "CTpartner")], DAY - timedelta(days=1))
    assert before.today == 1000


async def test_a_version_rises_with_each_entry_and_tells_the_newest_line(earning: Earning) -> None:
    """Whoever has seen a version and a last line knows what is new."""
    seen = []
    for ticket in range(1, 4):
        await earning.accrue(deal(ticket))
        (held,) = await balances(earning, "CTpartner")
        last = (await all_lines(earning, "CTpartner"))[-1]
        assert (held.last_line, held.at) == (last.no, last.at)
        seen.append((held.version, held.lines))
    assert seen == [(1, 1), (2, 2), (3, 3)]


async def test_lines_are_paged_without_gap_or_repetition(earning: Earning) -> None:
    """Through batches that have none of the contract, and batches that have no line at all."""
    earning.deals_max = 5
    seen = [
        deal(n, login=5003 if n % 3 == 0 or 20 < n < 32 else 5001 + n % 2) for n in range(1, 60)
    ]
    await earning.accrue(*seen)
    rows = await earning.rows(NUMBERS, "CTpartner")
    wanted = [no for (no,) in rows]
    for limit in (1, 2, 7, 100):
        assert [line.no for line in await all_lines(earning, "CTpartner", limit)] == wanted
    async with earning.pool.acquire() as conn:
        newest, before = [], reads.NUMBER_MAX
        while page := await reads.latest(conn, 1, "CTpartner", 4, before):
            newest += page
            before = page[-1].no
        assert [line.no for line in newest] == wanted[::-1]
        one = await reads.line(conn, 1, wanted[3])
        assert one == newest[-4]
        assert await reads.line(conn, 1, 10_000) is None
        assert await reads.lines(conn, 2, "CTpartner", 0, 10) == []


async def explained(earning: Earning, *names: str) -> list[evidence.Explanation]:
    """Every line of these contracts, computed again."""
    found = []
    for name in names:
        for line in await all_lines(earning, name):
            async with earning.pool.acquire() as conn:
                found.append(await evidence.explain(conn, line, earning.sources))
    return found


async def test_each_line_is_reached_again_from_what_is_stored(earning: Earning) -> None:
    """Paid, carried, zero, edited, rounded: by a computation that shares nothing with the first."""
    earning.deals_max = 11
    await earning.accrue(
        *[deal(n, lots="0.0123", symbol="XAUUSD") for n in range(1, 41)],
        *[deal(n, lots="0.017", symbol="EURUSD", login=5002) for n in range(41, 61)],
        deal(61, entry=0), deal(62, symbol="NOTHING"), balance_deal(63),
        deal(64, after_s=-40 * 86_400, lots="0.0123", symbol="XAUUSD"), deal(65),
    )  # fmt: skip
    await earning.accrue(deal(7, lots="0.0123", symbol="XAUUSD", comment="edited"))
    found = await explained(earning, *ALL)
    assert {(e.line.kind, e.line.reason) for e in found} >= {
        (LineKind.ORDINARY, Reason.PAID), (LineKind.ORDINARY, Reason.CARRIED),
        (LineKind.ORDINARY, Reason.OPENING), (LineKind.ORDINARY, Reason.NO_RATE_RULE),
        (LineKind.ORDINARY, Reason.NO_DIFFERENTIAL), (LineKind.DIFFERENCE, Reason.UNCHANGED),
        (LineKind.ROUNDING, Reason.ROUNDING),
    }  # fmt: skip
    assert [e.line for e in found if not e.agrees] == []
    assert all(e.amount == e.line.amount for e in found)
    assert await wrong(earning) == []


async def test_a_line_is_explained_by_the_inputs_its_batch_had(earning: Earning) -> None:
    """A plan published between two batches explains the second, and rounding over both."""
    few = [deal(n, lots="0.0123", symbol="XAUUSD") for n in range(1, 31)]
    await earning.accrue(*few)
    async with earning.pool.acquire() as conn, conn.transaction():
        await earning.publish(conn, [plan("partner", EURUSD="5", XAUUSD="0.70")])
        at = await conn.fetchval("SELECT clock_timestamp()")
    when = (at - NOON).total_seconds() + 60
    await earning.accrue(
        *[deal(100 + n, after_s=when, lots="0.0123", symbol="XAUUSD") for n in range(30)], *few[:0]
    )
    found = await explained(earning, "CTpartner", "CTdirector")
    assert [e.line for e in found if not e.agrees] == []
    rates = {rung.rate for e in found if e.trace for rung in e.trace.rungs if rung.level == 1}
    assert rates == {40, 70}
    async with earning.pool.acquire() as conn:
        assert await proof.prove(conn, earning.sources) == []


async def test_what_is_owed_is_accounts_and_lines_alike(earning: Earning) -> None:
    """By currency, now and as of a moment that is closed."""
    earning.contracts["CTdollar"] = contract("CTdollar", "dollar", unit="USD")
    earning.clients[5004] = ((NOON.replace(month=1), "CTdollar"),)
    async with earning.pool.acquire() as conn, conn.transaction():
        await earning.publish(conn, [plan("dollar", unit="USD", EURUSD="2")])
    await earning.accrue(deal(1), deal(2, login=5002))
    async with earning.pool.acquire() as conn:
        owed, dollars = await liability(conn, [1])
        assert (dollars.currency, dollars.accrued, dollars.contracts) == ("USD", 0, 1)
        assert (owed.currency, owed.accrued, owed.earned) == ("EUR", 1300, 1300)
        held = await balances(earning, *ALL)
        assert sum(each.accrued for each in held) == owed.accrued
        moment = NOON - timedelta(days=1)
        assert [each.accrued for each in await liability(conn, [1], moment)] == [0, 0]
        (then,) = await reads.contract_balances_as_of(conn, [(1, "CTpartner")], moment)
        assert (then.accrued, then.lines, then.at) == (0, 0, None)


async def test_how_far_behind_a_book_is(earning: Earning) -> None:
    """Deals that are landed and not accrued are counted, and how long they wait."""
    await earning.land(deal(1), deal(2))
    async with earning.pool.acquire() as conn:
        (behind,) = await reads.behind(conn)
        assert (behind.book, behind.deals) == (1, 2)
        assert behind.seconds > 0
        await earning.accrue()
        assert await reads.behind(conn) == [Behind(1, 0, 0.0)]


TAMPERED = {
    "lines-off-postings": "UPDATE ledger.rebate_line SET amount = amount + 1 WHERE no = 1",
    "batch-altered": "UPDATE ledger.rebate_line SET level = 2 WHERE no = 1",
    "batch-numbers": "DELETE FROM ledger.accrual_batch WHERE batch = 2",
    "contract-batch-off": "UPDATE ledger.contract_batch SET net = net + 1 WHERE batch = 1",
    "contract-day-off": "UPDATE ledger.contract_day SET net = net + 1",
    "remainder-off": "UPDATE ledger.remainder SET paid = paid + 1",
    "entry-without-batch": "UPDATE ledger.accrual_batch SET entry_id = NULL WHERE batch = 1",
    "stream-off-books": "UPDATE ledger.contract_batch SET lines_ever = lines_ever + 1",
}


@pytest.mark.parametrize("code", TAMPERED)
async def test_verify_finds_what_was_changed(earning: Earning, code: str) -> None:
    """Whatever a database owner changes of lines, batches and sums has a name."""
    earning.deals_max = 10
    await earning.accrue(*[deal(n, lots="0.0123", symbol="XAUUSD") for n in range(1, 41)])
    assert await wrong(earning) == []
    owner = await earning.database.connect(owner=True)
    async with owner.transaction():
        await owner.execute("SET LOCAL session_replication_role = replica")
        await owner.execute(TAMPERED[code])
    assert code in {each.code for each in await wrong(earning)}


@pytest.mark.parametrize(
    "change",
    [
        "head SET line = line + 1",
        "head SET batch = batch - 1",
        "position SET reached = reached + 1",
    ],
)
async def test_verify_finds_a_head_that_was_moved(earning: Earning, change: str) -> None:
    """The head and the positions are where the batches end."""
    await earning.accrue(deal(1), deal(2))
    async with earning.pool.acquire() as conn:
        await conn.execute(f"UPDATE ledger.accrual_{change}")
    assert [each.code for each in await wrong(earning)] == ["batch-numbers"]
