"""A batch of accrual in the books: all of it, once, by its owner, under the inputs in force."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import msgspec
import pytest
import pytest_asyncio

from ledger import queries_inputs
from ledger.deals import LandedDeal
from ledger.journal import Numbers
from ledger.rebates import inputs
from ledger.rebates.encode import content
from ledger.rebates.inputs import Inputs
from ledger.rebates.lines import Line, LineKind
from ledger.rebates.pipeline import Pipeline
from ledger.rebates.plans import Plan
from ledger.rebates.rounding import Remainders
from ledger.rebates.writer import Committed, Fenced, Moved
from tests.integration.ledger.conftest import House, Link
from tests.support.rebates import BEFORE, BOOK, FEED, T0, contract, deal, engine, landed, plan
from tests.support.rebates import accrue as computed
from tests.support.rebates import lines as lines_of

DAY = timedelta(days=1)
PLANS = (plan("P1", EURUSD="0.40"), plan("P2", EURUSD="7"))
CONTRACTS = (contract("CT1", "P1", "CT2"), contract("CT2", "P2"))
LINES = """
SELECT book_id, no, batch, feed, deal_no, concerned_no, account_id, component, kind, level, reason,
       plan, amount FROM ledger.rebate_line ORDER BY no
"""


class Broker:
    """A house with plans in force and two contracts; pipelines are opened at what stands."""

    def __init__(self, house: House, connections: int) -> None:
        self.house = house
        self._connections = connections
        self.told: list[Committed] = []

    async def inputs(self) -> Inputs:
        """Inputs as they are in the books now, and the plans as if in force since long ago."""
        reader = self.house.reader
        plans = {
            id: tuple(msgspec.structs.replace(each, since=BEFORE) for each in versions)
            for id, versions in (await inputs.plan_versions(reader)).items()
        }
        version = await inputs.version(reader, BOOK)
        return Inputs(version, {each.id: each for each in CONTRACTS}, plans)

    async def open(
        self, epoch: int = 1, *, of: Inputs | None = None, limit: int = 10,
        breaks: Callable[[str], str] | None = None,
    ) -> Pipeline:  # fmt: skip
        """A pipeline that knows login 1 is CT1's client and login 2 nobody's."""
        conns: list[Any] = [await self.house.connect() for _ in range(self._connections)]
        if breaks is not None:
            conns = [Link(conn, breaks) for conn in conns]
        pipeline = await Pipeline.open(
            conns[0], Numbers(), BOOK, epoch, of or await self.inputs(), time.monotonic,
            self.told.append, limit, *conns[1:],
        )  # fmt: skip
        pipeline.engine.learn(FEED, {1: ((BEFORE, "CT1"),), 2: ()})
        return pipeline

    async def accrue(self, deals: Sequence[LandedDeal], **how: Any) -> None:
        """Accrue what is not accrued yet, from a fresh start, to the end."""
        pipeline = await self.open(**how)
        await pipeline.accrue(FEED, deals[pipeline.reached(FEED) :])
        await pipeline.drain()

    async def lines(self) -> list[Line]:
        """Every line of the books."""
        return [Line(*row) for row in await self.house.reader.fetch(LINES)]

    async def rows(self, table: str) -> list[asyncpg.Record]:
        """Every row of a table of the books, in some one order."""
        return list(await self.house.reader.fetch(f"SELECT * FROM ledger.{table} ORDER BY 1, 2, 3"))

    async def accrued(self, owner: str) -> int:
        """What a contract has earned, by its account."""
        return await self.house.balance("partner_accrued", owner)

    async def move_inputs(self) -> None:
        """A command changes something that accrual reads."""
        await self.house.reader.execute(queries_inputs.MOVE_ALL_INPUTS)


@pytest_asyncio.fixture(params=[1, 2], ids=["one-connection", "two"])
async def broker(house: House, request: pytest.FixtureRequest) -> Broker:
    """Book 1 with its inputs open and both plans published, accrued over one connection or two."""
    async with house.reader.transaction():
        await inputs.publish(house.reader, [BOOK], PLANS)
    return Broker(house, request.param)


@contextlib.asynccontextmanager
async def nothing_written(broker: Broker) -> AsyncIterator[None]:
    """Nothing of accrual is in the books after the block that was not there before."""
    tables = ("rebate_line", "accrual_batch", "contract_batch", "contract_day", "remainder",
              "accrual_position", "posting")  # fmt: skip
    before = [await broker.rows(table) for table in tables]
    yield
    assert [await broker.rows(table) for table in tables] == before


async def test_a_batch_is_in_the_books_with_all_that_goes_with_it(broker: Broker) -> None:
    """Lines, one netted entry, balances, the contract's sums, remainders and position agree."""
    deals = landed([deal(1, "1"), deal(2, "0.01"), deal(3, "0.01"), deal(4, "2", login=2),
                    deal(5, "0.01")])  # fmt: skip
    await broker.accrue(deals)
    found = await broker.lines()
    of = await broker.inputs()
    [memory] = computed(engine(of, {1: "CT1", 2: ""}), deals)
    assert [msgspec.structs.replace(line, account=0) for line in found] == [
        msgspec.structs.replace(line, account=0) for line in lines_of(memory)
    ]
    [batch] = await broker.rows("accrual_batch")
    assert (batch["first_deal"], batch["last_deal"], batch["last_line"]) == (1, 5, len(found))
    assert (batch["lines"], batch["inputs"]) == (content(found), of.version)
    earned = {}
    for row in await broker.rows("contract_batch"):
        own = [line for line in found if line.account == row["account_id"]]
        earned[row["account_id"]] = sum(line.amount for line in own)
        assert (row["net"], row["lines"]) == (earned[row["account_id"]], len(own))
    assert sorted(earned.values()) == [await broker.accrued("CT1"), await broker.accrued("CT2")]
    assert await broker.house.balance("rebate_expense", "") == sum(earned.values()) == 721
    assert sum(row["net"] for row in await broker.rows("contract_day")) == 721
    assert max(row["last_line"] for row in await broker.rows("contract_batch")) == len(found)
    assert [row["reached"] for row in await broker.rows("accrual_position")] == [5]
    told = broker.told[0]
    assert (told.batch, told.contracts, told.reached, told.at) == (
        1, ("CT1", "CT2"), 5, batch["at"],
    )  # fmt: skip


async def test_a_batch_is_few_round_trips(broker: Broker) -> None:
    """One batch is six statements and one COPY, however many lines it has."""
    said: list[str] = []
    pipeline = await broker.open(breaks=lambda sql: said.append(sql.split()[0]) or "")
    await pipeline.accrue(FEED, landed([deal(1)]))  # buys entry ids
    await pipeline.drain()
    said.clear()
    await pipeline.accrue(FEED, landed([deal(n) for n in range(2, 9)], begin=2))
    await pipeline.drain()
    assert said == ["BEGIN", "WITH", "SELECT", "WITH", "WITH", "COMMIT"]


async def test_small_amounts_reach_the_books_over_batches_and_restarts(broker: Broker) -> None:
    """A hundred deals of 0.01 lot at 0.40 pay 0.40 however they are cut, whoever accrues them."""
    deals = landed(deal(n, "0.01") for n in range(1, 101))
    for epoch, (upto, limit) in enumerate([(1, 1), (34, 7), (100, 40)], 1):
        await broker.accrue(deals[:upto], epoch=epoch, limit=limit)
    assert await broker.accrued("CT1") == 40
    assert await broker.accrued("CT2") == 660
    rounded = [line.amount for line in await broker.lines() if line.kind == LineKind.ROUNDING]
    remainder = {row["paid"] for row in await broker.rows("remainder")}
    assert sum(rounded) == sum(remainder)


async def test_a_day_that_ends_ends_the_batch(broker: Broker) -> None:
    """Each batch is of one day, its entry and the contract's sums belong to that day."""
    await broker.accrue(landed([deal(1, at=T0), deal(2, at=T0 + DAY), deal(3, at=T0)]))
    days = [row["day"] for row in await broker.rows("accrual_batch")]
    assert days == [T0.date(), (T0 + DAY).date(), T0.date()]
    assert [row["effective"] for row in await broker.rows("entry")] == days
    nets = {(row["day"], row["net"]) for row in await broker.rows("contract_day")}
    assert nets == {
        (T0.date(), 80), (T0.date(), 1320), ((T0 + DAY).date(), 40), ((T0 + DAY).date(), 660),
    }  # fmt: skip


async def test_deals_that_pay_nobody_move_the_position(broker: Broker) -> None:
    """A batch without lines has no entry, and the next one follows on it."""
    await broker.accrue(landed([deal(1, login=2), deal(2, login=2), deal(3)]), limit=2)
    first, second = await broker.rows("accrual_batch")
    assert (first["entry_id"], first["first_line"], first["last_line"]) == (None, 1, 0)
    assert (second["first_deal"], second["first_line"], second["last_line"]) == (3, 1, 2)
    assert second["at"] >= first["at"]


async def test_an_edit_that_takes_away_is_debited(broker: Broker) -> None:
    """A contract whose net is negative gives back in the batch that says so."""
    await broker.accrue(landed([deal(1, "2"), deal(1, "1")]), limit=1)
    assert await broker.accrued("CT1") == 40
    assert await broker.accrued("CT2") == 660
    assert [row["net"] for row in await broker.rows("contract_batch")] == [80, -40, 1320, -660]


async def test_starting_again_pays_nothing_twice(broker: Broker) -> None:
    """A pipeline stands where the rows say, so that what is accrued is not accrued again."""
    deals = landed(deal(n) for n in range(1, 31))
    await broker.accrue(deals)
    async with nothing_written(broker):
        await broker.accrue(deals, epoch=2)
    pipeline = await broker.open(3)
    assert pipeline.reached(FEED) == 30
    with pytest.raises(AssertionError):
        await pipeline.accrue(FEED, deals)
    with pytest.raises(AssertionError):  # a number is missing between them
        await pipeline.accrue(FEED, landed([deal(31), deal(33)], begin=31)[:1] + landed(
            [deal(33)], begin=33
        ))  # fmt: skip


async def test_inputs_that_moved_stop_the_batch(broker: Broker) -> None:
    """Under inputs that are not those in memory nothing is written; read again, it is."""
    deals = landed([deal(1)])
    stale = await broker.inputs()
    await broker.move_inputs()
    async with nothing_written(broker):
        with pytest.raises(Moved):
            await broker.accrue(deals, of=stale)
    await broker.accrue(deals)
    assert await broker.accrued("CT1") == 40


async def test_a_command_on_its_way_is_waited_for(broker: Broker) -> None:
    """A batch that meets an uncommitted change of inputs waits for it and then is stopped by it."""
    pipeline = await broker.open()
    command = await broker.house.connect()
    async with command.transaction():
        await command.execute(queries_inputs.MOVE_ALL_INPUTS)
        await pipeline.accrue(FEED, landed([deal(1)]))
        writing = asyncio.create_task(pipeline.drain())
        await _waits(broker, "inputs")
    async with nothing_written(broker):
        with pytest.raises(Moved):
            await writing


async def _waits(broker: Broker, what: str) -> None:
    """Return when a writer waits for a lock in a statement that names `what`."""
    asked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1"
    async with asyncio.timeout(10):
        while not await broker.house.reader.fetchval(asked, f"%{what}%"):
            await asyncio.sleep(0.01)


async def test_an_older_owner_writes_nothing(broker: Broker) -> None:
    """Once a newer owner took the book, the batch of the older one fails and so does its return."""
    older = await broker.open(1)
    newer = await broker.open(2)
    deals = landed([deal(1)])
    async with nothing_written(broker):
        await older.accrue(FEED, deals)
        with pytest.raises(Fenced):
            await older.drain()
    with pytest.raises(Fenced):
        await broker.open(1)
    await newer.accrue(FEED, deals)
    await newer.drain()
    assert [row["epoch"] for row in await broker.rows("accrual_batch")] == [2]


async def test_who_writes_as_we_do_is_found_out(broker: Broker) -> None:
    """Two writers of one epoch never both write: the head is not where the second left it."""
    one, other = await broker.open(), await broker.open()
    deals = landed([deal(1)])
    await one.accrue(FEED, deals)
    await one.drain()
    async with nothing_written(broker):
        await other.accrue(FEED, deals)
        with pytest.raises(Fenced):
            await other.drain()


@pytest.mark.parametrize(("when", "reached"), [("before", 10), ("after", 20)])
async def test_after_a_lost_answer_the_rows_tell(broker: Broker, when: str, reached: int) -> None:
    """A connection that dies around a COMMIT: the next start knows, and all is paid once."""
    commits = []

    def breaks(sql: str) -> str:
        commits.append(sql == "COMMIT")
        return when if sql == "COMMIT" and sum(commits) == 2 else ""

    deals = landed(deal(n) for n in range(1, 51))
    pipeline = await broker.open(breaks=breaks)
    with pytest.raises(asyncpg.PostgresConnectionError):
        await pipeline.accrue(FEED, deals)
    await pipeline.abandon()
    again = await broker.open()
    assert again.reached(FEED) == reached
    await again.accrue(FEED, deals[reached:])
    await again.drain()
    assert await broker.accrued("CT1") == 50 * 40
    assert [row["last_deal"] for row in await broker.rows("accrual_batch")] == [10, 20, 30, 40, 50]


async def test_what_was_computed_after_a_failed_batch_is_thrown_away(broker: Broker) -> None:
    """Inputs move between two batches: the second and all after it are computed again."""
    deals = landed(deal(n, "0.013") for n in range(1, 41))
    pipeline = await broker.open()
    await pipeline.accrue(FEED, deals[:10])
    await pipeline.drain()
    await broker.move_inputs()
    with pytest.raises(Moved):
        await pipeline.accrue(FEED, deals[10:])
    await pipeline.abandon()
    await broker.accrue(deals)
    at_one_go = Remainders()
    whole = computed(engine(await broker.inputs()), deals, 10, at_one_go)
    assert await broker.accrued("CT1") == sum(line.amount for line in lines_of(*whole)
                                              if line.account == 1001)  # fmt: skip
    assert [row["inputs"] for row in await broker.rows("accrual_batch")] == [1, 2, 2, 2]


async def test_a_batch_that_is_abandoned_leaves_all_or_nothing(broker: Broker) -> None:
    """Stopped at any moment, a batch is whole in the books or not there at all."""
    deals = landed(deal(n) for n in range(1, 201))
    for turn in range(8):
        pipeline = await broker.open(limit=200)
        await pipeline.accrue(FEED, deals[pipeline.reached(FEED) : 200])
        await asyncio.sleep(turn / 1000)
        await pipeline.abandon()
    await broker.accrue(deals, limit=200)
    assert await broker.accrued("CT1") == 200 * 40
    assert [line.no for line in await broker.lines()] == list(range(1, 401))


async def test_a_line_cannot_be_changed(broker: Broker) -> None:
    """Lines and batches are only added to, as everything that is money."""
    await broker.accrue(landed([deal(1)]))
    owner = await broker.house.database.connect(owner=True)
    for change in (
        "UPDATE ledger.rebate_line SET amount = amount + 1", "DELETE FROM ledger.rebate_line",
        "UPDATE ledger.accrual_batch SET content = ''", "DELETE FROM ledger.contract_batch",
    ):  # fmt: skip
        with pytest.raises(asyncpg.PostgresError, match="only added to"):
            await owner.execute(change)


async def test_plans_of_two_currencies_are_two_expenses(broker: Broker) -> None:
    """Each currency of a batch has its own expense, and the entry sums to zero in each."""
    euro = Plan("P3", "EUR", "direct", PLANS[1].rates)
    async with broker.house.reader.transaction():
        await inputs.publish(broker.house.reader, [BOOK], [euro])
    of = await broker.inputs()
    more = {**of.contracts, "CT3": contract("CT3", "P3", currency="EUR")}
    pipeline = await broker.open(of=msgspec.structs.replace(of, contracts=more))
    pipeline.engine.learn(FEED, {3: ((BEFORE, "CT3"),)})
    await pipeline.accrue(FEED, landed([deal(1), deal(2, login=3)]))
    await pipeline.drain()
    assert await broker.accrued("CT3") == 700
    assert [row["postings"] for row in await broker.rows("entry")] == [5]
