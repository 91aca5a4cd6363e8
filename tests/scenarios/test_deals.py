"""Stories of deals: from the platform to a partner's screen, each of them once.

The ladder pays by the lot in EURUSD, from the client outward: 5.00, 7.00, 9.00, 10.50 and 12.00;
each level earns what its rate is above those below it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
import pytest_asyncio

from gateway.demo.people import Known
from tests.support.house import House, until
from tests.support.market import Market, open_market

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

BELOW: Final = "northgate-partner"  # the lowest of five levels
ALONE: Final = "northgate-direct"  # nobody above it earns by its clients
EACH: Final = {
    "northgate-partner": "5.00", "northgate-senior": "2.00", "northgate-lead": "2.00",
    "northgate-regional": "1.50", "northgate-master": "1.50",
}  # fmt: skip
LATE_S: Final = 40  # longer ago than every look reaches back: only a second look finds it
VERSIONS: Final = "SELECT version, profit, login, symbol FROM ledger.deal WHERE ticket = $1"
REACHED: Final = """
SELECT (cursor->>'next')::bigint - (cursor->>'offset')::bigint FROM ledger.feed_cursor
"""
NEWEST_ENTRY: Final = """
SELECT a.kind, a.owner, p.amount FROM ledger.posting p
  JOIN ledger.account a ON (a.book_id, a.id) = (p.book_id, p.account_id)
 WHERE p.entry_id = (SELECT max(id) FROM ledger.entry)
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def market(house: House) -> AsyncIterator[Market]:
    """Partners and traders of this file; at the end lines, books and platform agree."""
    async with open_market(house) as opened:
        yield opened
        await opened.agrees()


async def lines_of(market: Market, ticket: int) -> dict[str, list[dict[str, Any]]]:
    """The lines that a deal brought, by partner; those that have none are left out."""
    found = {}
    for each in market.partners:
        name = each.planned.reference
        lines = await market.lines(name)
        mine = [it for it in lines if it["deal"] and it["deal"]["ticket"] == ticket]
        if mine:
            found[name] = mine
    return found


async def versions(market: Market, ticket: int) -> list[int]:
    """The versions of a deal in the books."""
    async with market.house.database() as conn:
        return sorted(row["version"] for row in await conn.fetch(VERSIONS, ticket))


def paid(lines: dict[str, list[dict[str, Any]]]) -> dict[str, list[str]]:
    """The amounts of lines by partner."""
    return {name: [it["amount"] for it in mine] for name, mine in lines.items()}


@pytest.fixture
def trader(market: Market) -> Known:
    """A client of the lowest partner."""
    return market.trader_of(BELOW)


async def test_a_closing_deal_pays_every_level_and_reaches_every_screen(
    market: Market, trader: Known
) -> None:
    """One deal: a line for each level, one entry of what they come to, and all screens show it."""
    async with market.watched() as screen:
        await until(lambda: has_all(market, screen.latest), "the first event of every screen")
        ticket = await market.tells(trader)
        await market.rests()

        async def shown() -> bool:
            seen = {body["contracts"][0]["today"] for body in screen.latest.values()}
            return seen >= {"5.00", "2.00", "1.50"}

        await until(shown, "the deal on the screens")
        assert await market.astray(screen) == []
    assert paid(await lines_of(market, ticket)) == {name: [it] for name, it in EACH.items()}
    for name, amount in EACH.items():
        assert (await market.balances(name))["accrued"] == amount
    async with market.house.database() as conn:
        posted = [row["amount"] for row in await conn.fetch(NEWEST_ENTRY)]
    assert sorted(map(abs, posted)) == [150, 150, 200, 200, 500, 1200]
    assert sum(posted) == 0


async def has_all(market: Market, latest: dict[str, Any]) -> bool:
    """Whether every partner has seen something."""
    return len(latest) == len(market.partners)


async def test_every_line_is_explained_to_the_cent(market: Market, trader: Known) -> None:
    """What is stored says why each line says what it says, at every level and where nothing is."""
    tickets = [
        await market.tells(trader, lots="0.37"), await market.tells(trader, "XAUUSD", lots="0.01"),
        await market.tells(trader, "ETHUSD"), await market.tells(trader, entry=0),
        await market.tells(market.trader_of(ALONE), "DE40", lots="0.01"),
    ]  # fmt: skip
    await market.rests()
    reasons = Counter[str]()
    for ticket in tickets:
        for mine in (await lines_of(market, ticket)).values():
            for line in mine:
                path = f"/v1/rebates/{line['id']}/explanation"
                told = await market.house.portal.get(path)
                assert (told["agrees"], told["amount"]) == (True, line["amount"])
                assert told["fact"]["ticket"] == ticket
                reasons[line["reason"]] += 1
    assert reasons.keys() == {"paid", "opening", "no_rate_rule", "carried"}, reasons


async def test_parts_of_a_position_pay_as_they_are_closed(market: Market, trader: Known) -> None:
    """Opening pays nothing and says so; each part that closes pays for itself."""
    opened = await market.tells(trader, entry=0, lots="1")
    parts = [await market.tells(trader, lots=lots) for lots in ("0.3", "0.7")]
    await market.rests()
    first, *closed = [(await lines_of(market, ticket))[BELOW] for ticket in (opened, *parts)]
    assert [(it["amount"], it["reason"]) for it in first] == [("0.00", "opening")]
    assert [line["amount"] for (line,) in closed] == ["1.50", "3.50"]


async def test_money_without_a_trade_is_recognised(market: Market, trader: Known) -> None:
    """A balance deal is in the books and pays nobody."""
    before = await market.counts()
    ticket = await market.tells(trader, symbol="", action=2, entry=0, lots="0", profit="-12.34")
    await market.rests()
    assert await versions(market, ticket) == [1]
    assert await lines_of(market, ticket) == {}
    assert (await market.counts()).lines == before.lines


async def test_a_clients_own_deals_pay_nobody(market: Market) -> None:
    """A client who came through nobody deals for nobody."""
    before = await market.earned()
    ticket = await market.tells(market.trader_of(""))
    await market.rests()
    assert await versions(market, ticket) == [1]
    assert await lines_of(market, ticket) == {}
    assert await market.earned() == before


async def test_a_late_deal_brings_lines_of_its_own_and_its_edit_moves_nothing(
    market: Market, trader: Known
) -> None:
    """Booked behind the feed's place it is found by a second look, and so is what is changed."""
    ticket = await market.tells(trader, late_s=LATE_S)
    await market.rests()
    assert paid(await lines_of(market, ticket)) == {name: [it] for name, it in EACH.items()}
    before = await market.earned()
    await market.edits(ticket, profit="77.00", comment="checked")

    async def found() -> bool:
        return await versions(market, ticket) == [1, 2]

    await until(found, "the edit as a version")
    await market.rests()
    lines = (await lines_of(market, ticket))[BELOW]
    assert [(it["amount"], it["kind"]) for it in lines] == [
        ("5.00", "ordinary"), ("0.00", "difference"),
    ]  # fmt: skip
    assert lines[1]["reason"] == "unchanged"
    assert await market.earned() == before


async def test_a_deal_that_becomes_another_is_set_aside(market: Market, trader: Known) -> None:
    """Another volume under a booked ticket is no edit: it waits for a person, what was paid stays.

    The platform shows the deal as it was again, so that its book and ours agree in the end.
    """
    ticket = await market.tells(trader, lots="0.5", late_s=LATE_S)
    await market.rests()
    before = await market.earned()
    await market.edits(ticket, lots="5")
    subject = f"mt5-live:identity-changed:{ticket}"

    async def told() -> bool:
        return "deal-parked" in await market.house.items(subject)

    await until(told, "an item about the deal")
    assert await versions(market, ticket) == [1]
    assert await market.earned() == before
    await market.edits(ticket, lots="0.5", flags=0)

    async def over() -> bool:
        return not await market.house.items(subject)

    await until(over, "the end of the item")
    await market.rests()
    assert await market.earned() == before


async def test_a_symbol_nobody_knows_is_set_aside_with_one_item(
    market: Market, trader: Known
) -> None:
    """Deals in a symbol of no group wait, with one item for all of them; others go on."""
    before = await market.earned()
    strange = [await market.tells(trader, "USDSEK") for _ in range(3)]
    await market.tells(market.trader_of(ALONE), "EURUSD", lots="1")
    await market.rests()
    assert [await versions(market, ticket) for ticket in strange] == [[], [], []]
    assert await market.house.items("mt5-live:unknown-symbol:USDSEK") == ["deal-parked"]
    assert (await market.earned())[ALONE] == before.get(ALONE, 0) + 650
    # The sample broker's plans pay nothing for a symbol they do not know: both books agree.


async def test_deals_that_cannot_be_landed_keep_no_deposit_waiting(
    market: Market, trader: Known
) -> None:
    """The daemon lost a right on one table: its feed stands and says so, a deposit reaches its
    trading account all the same, and once the right is back the deal is landed and paid.
    """
    before = await market.earned()
    async with market.house.database(owner=True) as owner:
        await owner.execute("REVOKE INSERT ON ledger.deal FROM brokerd_daemon")
        try:
            await market.tells(trader, lots="1")

            async def told() -> bool:
                return await market.house.items("mt5-live:feed") == ["feed-stopped"]

            await until(told, "an item about the feed")
            async with market.house.http.get(market.house.daemon.url + "/readyz") as answer:
                ready = await answer.json()
            assert (answer.status, ready["phase"]) == (200, "degraded")
            assert [it["part"] for it in ready["degraded"]] == ["feed:mt5-live"]
            client = await market.house.client(account="standard")
            answered = await market.house.pays(client, to="account")
            assert answered.status == 201, answered.body
            await market.house.becomes(answered.body["id"], transfer="done")
        finally:
            await owner.execute("GRANT INSERT ON ledger.deal TO brokerd_daemon")
    await market.rests()
    assert (await market.earned())["northgate-partner"] == before["northgate-partner"] + 500


async def test_a_hundred_deals_of_a_hundredth_lot_pay_forty_cents(market: Market) -> None:
    """Each is 0.004 and pays nothing by itself; none of it is lost, and each line says so."""
    before = (await market.earned()).get(ALONE, 0)
    remainder_before = await carried(market)
    small = market.trader_of(ALONE)
    tickets = {await market.tells(small, "US500", lots="0.01") for _ in range(100)}
    await market.rests()
    after = (await market.earned())[ALONE]
    assert after * 10 + await carried(market) == before * 10 + remainder_before + 400
    lines = await all_lines(market, ALONE)
    mine = [it for it in lines if it["deal"] and it["deal"]["ticket"] in tickets]
    assert Counter((it["amount"], it["reason"]) for it in mine) == {("0.00", "carried"): 100}


async def carried(market: Market) -> int:
    """What is left over on the lonely partner's lines, tenths of a minor unit, and not yet paid."""
    contract = market.partner(ALONE).contract
    async with market.house.database() as conn:
        found = await conn.fetchval(
            "SELECT sum(exact - paid * 10::numeric ^ 16) / 10::numeric ^ 15 FROM ledger.remainder r"
            " JOIN ledger.account a ON (a.book_id, a.id) = (r.book_id, r.account_id)"
            " WHERE a.owner = $1",
            contract,
        )
    return int(found or 0)


async def all_lines(market: Market, name: str) -> list[dict[str, Any]]:
    """Every line of a partner, page by page."""
    lines: list[dict[str, Any]] = []
    while page := await market.lines(name, lines[-1]["no"] if lines else 0):
        lines += page
    return lines


async def test_what_is_told_again_from_the_beginning_adds_nothing(market: Market) -> None:
    """The whole history once more, to a daemon that remembers nothing: not one row is new."""
    await market.deals(3_000, 1_500)
    await market.dealt()
    await market.agrees()
    before = await market.counts()
    house = market.house
    await house.daemon.stop()
    async with house.database(owner=True) as conn:
        await conn.execute("UPDATE ledger.feed_cursor SET cursor = '{}'")
    started = time.time()
    await house.daemon.start()

    async def read_again() -> bool:
        async with house.database() as conn:
            return (await conn.fetchval(REACHED) or 0) >= started

    await until(read_again, "the feed to have read everything again")
    await market.rests()
    assert await market.counts() == before
    await market.tells(market.trader_of(BELOW))
    await market.agrees()
    assert (await market.counts()).deals == before.deals + 1


@asynccontextmanager
async def altered(market: Market, table: str, change: str, back: str) -> AsyncIterator[None]:
    """A row changed by who owns the database and may do anything, while the block lasts."""
    async with market.house.database(owner=True) as conn:
        for statement in (change, back):
            async with conn.transaction():
                await conn.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
                assert (await conn.execute(statement)).endswith(" 1")
                await conn.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
            if statement == change:
                yield


async def test_verify_names_a_line_changed_by_one_cent(market: Market, trader: Known) -> None:
    """Whoever owns the database can change a line; `verify` says which, and what it should say."""
    ticket = await market.tells(trader)
    await market.rests()
    (line,) = (await lines_of(market, ticket))[BELOW]
    book, _, no = line["id"].partition("-")
    where = f"WHERE book_id = {book} AND no = {no}"
    change = f"UPDATE ledger.rebate_line SET amount = amount {{}} 1 {where}"
    async with altered(market, "ledger.rebate_line", change.format("+"), change.format("-")):
        wrong = await market.wrong()
        (named,) = [it for it in wrong if it.startswith("line-altered")]
        assert line["id"] in named
        assert any(it.startswith("lines-off-postings") for it in wrong)
    assert await market.wrong() == []


async def test_verify_names_a_stream_that_disagrees(market: Market, trader: Known) -> None:
    """What a stream tells of today stands in a row of sums; it is added up again."""
    await market.tells(trader)
    await market.rests()
    contract = market.partner(BELOW).contract
    where = (
        "WHERE (book_id, account_id) = (SELECT book_id, id FROM ledger.account WHERE owner ="
        f" '{contract}') AND day = (now() AT TIME ZONE 'UTC')::date"
    )
    change = f"UPDATE ledger.contract_day SET net = net {{}} 1 {where}"
    async with altered(market, "ledger.contract_day", change.format("+"), change.format("-")):
        codes = {it.split()[0] for it in await market.wrong() if contract in it}
        assert "stream-off-books" in codes
    assert await market.wrong() == []
