"""A small market for stories of deals: partners of both books, the clients they brought, a platform
they deal on.

It knows how to have deals made, to wait until all of them are booked, and to add up a second time
what partners earned by them. It refuses to know how the daemon does it: it is asked over its API,
and judged by its books.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
import msgspec

from gateway import verify
from gateway.demo import dealt
from gateway.demo import partners as demo
from gateway.demo.partners import Contracted, Planned
from gateway.demo.people import Desk, Known, Person, settle_in
from gateway.demo.rebates import Expected
from gateway.demo.watch import Watching
from ledger import money, survey
from tests.support.house import Daemon, House, until_within

SEED: Final = 41
TRADERS: Final = 60
AT_ONCE: Final = 12
PAGE: Final = 10_000
REST_S: Final = 90.0
ORGANIC: Final = 12  # each so many-th trader came through nobody
DIRECT: Final = "direct"
SYMBOLS: Final = (
    "EURUSD", "GBPUSD", "USDJPY", "EURGBP", "GBPJPY", "XAUUSD", "XAGUSD", "DE40", "US500", "BTCUSD",
)  # fmt: skip

CHAINS: Final = (
    ("northgate", "EUR", "eu", "DE", "standard"),
    ("southbank", "USD", "int", "BR", "standard"),
)
LADDER: Final = ("master", "regional", "lead", "senior", "partner")  # the best paid first
LONG_KNOWN: Final = (
    ("ledger.plan_version", "since"), ("gateway.contract_edge", "since"),
    ("gateway.contract_terms", "since"), ("gateway.attribution", "since"),
)  # fmt: skip
POSTED: Final = """
SELECT a.owner, p.version, p.balance, a.currency
  FROM ledger.posting p JOIN ledger.account a ON (a.book_id, a.id) = (p.book_id, p.account_id)
 WHERE a.owner = ANY($1)
"""
COUNTS: Final = """
SELECT (SELECT count(*) FROM ledger.deal) AS deals,
       (SELECT count(*) FROM ledger.rebate_line) AS lines,
       (SELECT count(*) FROM ledger.accrual_batch) AS batches,
       (SELECT count(*) FROM ledger.entry) AS entries,
       (SELECT count(*) FROM ledger.posting) AS postings
"""
UNFINISHED: Final = """
SELECT count(*) FROM ledger.feed_book b LEFT JOIN ledger.accrual_position p USING (book_id, feed)
 WHERE b.landed > coalesce(p.reached, 0)
"""
TIMES: Final = "SELECT DISTINCT ticket, at FROM ledger.deal"


class Counts(msgspec.Struct, frozen=True):
    """How many rows the books have; what is delivered twice moves none of them."""

    deals: int
    lines: int
    batches: int
    entries: int
    postings: int


class Shown(msgspec.Struct, frozen=True):
    """What one event said of one contract."""

    contract: str
    version: int
    accrued: str
    lines: int


class Screen(Watching):
    """Streams of partners, every event kept in its order."""

    def __init__(self, market: Market, daemon: Daemon) -> None:
        house = market.house
        super().__init__(house.http, daemon.url, house.tokens["portal"], lambda: datetime.now(UTC))
        self.shown: list[Shown] = []

    def _told(self, partner: str, data: str, *, first: bool) -> None:
        super()._told(partner, data, first=first)
        self.shown += [
            Shown(it["contract"], it["version"], it["accrued"], it["lines"])
            for it in msgspec.json.decode(data)["contracts"]
        ]


class Market:
    """Partners, traders and their deals; empty until `settle`."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.partners: Sequence[Contracted] = ()
        self.traders: Sequence[Known] = ()

    # --- who there is ---------------------------------------------------------------------------

    async def settle(self, traders: int = TRADERS) -> None:
        """Make partners and traders known, and all of it as if it had been so for a year.

        What a partner earns begins with the contract, and a story may tell of an earlier hour.
        """
        self.partners = await demo.contract_all(self.house.portal, planned())
        desk = Desk(self.house.portal, self.house.caller("olga"), self.house.caller("carl"))
        self.traders = await settle_in(desk, people(self.partners, traders), AT_ONCE)
        await self.long_known()

    async def long_known(self) -> None:
        """Date everything back by a year, as only the owner of the database can."""
        async with self.house.database(owner=True) as conn, conn.transaction():
            for table, column in LONG_KNOWN:
                await conn.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
                await conn.execute(f"UPDATE {table} SET {column} = {column} - interval '1 year'")
                await conn.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
        await self.house.daemon.restart()  # what it has read by now is not as old

    def partner(self, reference: str) -> Contracted:
        """The partner of this reference."""
        return next(each for each in self.partners if each.planned.reference == reference)

    def trader_of(self, reference: str) -> Known:
        """A trader whom this partner brought; "" for one who came through nobody."""
        code = self.partner(reference).planned.code if reference else ""
        return next(each for each in self.traders if each.person.code == code)

    # --- deals ----------------------------------------------------------------------------------

    async def tells(self, trader: Known, symbol: str = "EURUSD", **more: object) -> int:
        """Have one deal made: by default a closing one of a lot. Returns its ticket."""
        told = {"login": trader.login, "symbol": symbol, "entry": 1, "lots": "1"} | more
        return int((await self.house.platform.post("/deals/one", told))["ticket"])

    async def edits(self, ticket: int, **more: object) -> None:
        """Have a deal changed."""
        await self.house.platform.post("/deals/edit", {"ticket": ticket} | more)

    async def deals(self, per_s: float, total: int = 0, seed: int = SEED, **more: object) -> None:
        """Have the traders deal from now on: so many deals, or until `stops`."""
        wish = {"seed": seed, "per_s": per_s, "total": total, "symbols": SYMBOLS}
        logins = [each.login for each in self.traders]
        await self.house.platform.post("/deals", wish | {"logins": logins} | more)

    async def stops(self) -> None:
        """Have nobody deal any more."""
        await self.house.platform.delete("/deals")

    @asynccontextmanager
    async def dealing(self, per_s: float, **more: Any) -> AsyncIterator[None]:
        """Have the traders deal while the block lasts."""
        await self.deals(per_s, **more)
        try:
            yield
        finally:
            await self.stops()

    async def dealt(self) -> None:
        """Wait until as many deals are made as were asked for."""

        async def over() -> bool:
            return not (await self.house.platform.get("/deals"))["running"]

        await until_within(REST_S, over, "the last deal")

    async def made(self) -> int:
        """How many deals there are on the platform, of any kind."""
        made = (await self.house.platform.get("/deals"))["made"]
        return int(made["trades"] + made["balance"] + made["transfers"])

    async def rests(self) -> None:
        """Wait until every deal is booked, or parked for a reason, and all versions are accrued."""
        said = ""

        async def booked() -> bool:
            nonlocal said
            made = await self.made()
            try:
                async with self.house.database() as conn:
                    count = await survey.count_deals(conn)
                    open_books = await conn.fetchval(UNFINISHED)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                said = repr(error)
                return False
            said = f"of {made} deals {count.booked} booked and {count.parked} parked"
            return count.booked + count.parked == made and not open_books

        try:
            await until_within(REST_S, booked, "all deals to be booked")
        except AssertionError as no:
            raise AssertionError(f"{no}: {said}") from None

    async def edits_are_in(self) -> None:
        """Wait until the newest version of every deal is what the platform shows."""
        deals = await self.deals_of_platform()
        unlike: list[str] = []

        async def alike() -> bool:
            nonlocal unlike
            async with self.house.database() as conn:
                unlike = await dealt.unlike(conn, dealt.edited(deals))
                unlike = unlike or await dealt.unlike(conn, deals)
            return not unlike

        try:
            await until_within(REST_S, alike, "the newest versions")
        except AssertionError as no:
            raise AssertionError(f"{no}: {unlike[:3]}, {len(unlike)} in all") from None

    # --- what came of them ----------------------------------------------------------------------

    async def counts(self) -> Counts:
        """How many rows the books have."""
        async with self.house.database() as conn:
            return Counts(*await conn.fetchrow(COUNTS))

    async def earned(self) -> dict[str, int]:
        """What each partner's lines come to, minor units, by reference."""
        names = {each.contract: each.planned.reference for each in self.partners}
        async with self.house.database() as conn:
            return {names[it.contract]: it.minor for it in await survey.earned(conn) if it.minor}

    async def plain(self, *, our_times: bool = False) -> dict[str, int]:
        """The same by a second, plain computation from the platform's own deals.

        our_times  months are told by the times in our books: the platform's clock was played with
        """
        deals = await self.deals_of_platform()
        if our_times:
            async with self.house.database() as conn:
                at = {row["ticket"]: row["at"] for row in await conn.fetch(TIMES)}
            deals = [it | {"utc_ms": at[it["ticket"]].timestamp() * 1000} for it in deals]
        expected = Expected(self.house.book, self.partners, self.traders)
        expected.add(deals)
        names = {each.contract: each.planned.reference for each in self.partners}
        return {names[contract]: minor for contract, minor in expected.minor().items() if minor}

    async def deals_of_platform(self) -> list[dict[str, Any]]:
        """Every deal of the platform as it stands now."""
        deals: list[dict[str, Any]] = []
        while True:
            after = deals[-1]["ticket"] if deals else 0
            page = (await self.house.platform.get(f"/deals?after={after}&limit={PAGE}"))["deals"]
            if not page:
                return deals
            deals += page

    async def wrong(self) -> list[str]:
        """What `verify` finds."""
        found = await verify.run(self.house.addresses.owner_dsn)
        return [f"{it.code} {it.subject}: {it.detail}" for it in found]

    async def agrees(self, *, our_times: bool = False) -> dict[str, int]:
        """Wait for rest and hold everything against everything; returns what was earned."""
        await self.rests()
        await self.edits_are_in()
        await self.rests()  # a later version has lines of its own
        earned = await self.earned()
        assert earned == await self.plain(our_times=our_times)
        assert await self.wrong() == []
        return earned

    async def lines(self, reference: str, after: int = 0) -> list[dict[str, Any]]:
        """The lines of a partner, as the API tells them."""
        partner = self.partner(reference).partner
        page = await self.house.portal.get(f"/v1/partners/{partner}/lines?after={after}&limit=200")
        lines: list[dict[str, Any]] = page["data"]
        return lines

    async def balances(self, reference: str) -> dict[str, Any]:
        """The balances of a partner's one contract, as the API tells them."""
        partner = self.partner(reference).partner
        page = await self.house.portal.get(f"/v1/partners/{partner}/balances")
        (contract,) = page["contracts"]
        balances: dict[str, Any] = contract
        return balances

    # --- screens --------------------------------------------------------------------------------

    @asynccontextmanager
    async def watched(self, daemon: Daemon | None = None) -> AsyncIterator[Screen]:
        """Have every partner watch while the block lasts."""
        screen = Screen(self, daemon or self.house.daemon)
        watching = asyncio.create_task(screen.run(self.partners))
        try:
            yield screen
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

    async def ends(self, screen: Screen) -> None:
        """Wait until what each partner was shown last is what the books say now."""
        said = ""

        async def there() -> bool:
            nonlocal said
            for each in self.partners:
                name = each.planned.reference
                held, last = await self.balances(name), screen.latest[each.partner]
                (shown,) = last["contracts"] if last else ({},)
                names = ("accrued", "held", "payable", "today", "lines", "last_line", "version")
                if any(shown.get(it) != held[it] for it in names):
                    said = f"{name} was shown {shown}, its balances are {held}"
                    return False
            return True

        try:
            await until_within(REST_S, there, "the last word of every stream")
        except AssertionError as no:
            raise AssertionError(f"{no}: {said}") from None

    async def astray(self, screen: Screen) -> list[str]:
        """What was shown and never stood in the books, or went back; [] is the proof."""
        async with self.house.database() as conn:
            rows = await conn.fetch(POSTED, [each.contract for each in self.partners])
        stood = {
            (row["owner"], row["version"]): money.text(
                -row["balance"],
                money.currency(row["currency"]).exponent,  # a credit is negative
            )
            for row in rows
        }
        last: dict[str, Shown] = {}
        wrong = []
        for it in screen.shown:
            if it.version and stood.get((it.contract, it.version)) != it.accrued:
                wrong.append(f"{it} never stood in the books")
            before = last.get(it.contract, it)
            if (it.version, it.lines) < (before.version, before.lines):
                wrong.append(f"{it} after {before}")
            last[it.contract] = it
        return wrong


def planned() -> tuple[Planned, ...]:
    """In each book a chain of five levels, and below its master one that is paid directly."""
    made: list[Planned] = []
    for brand, currency, ladder, _, _ in CHAINS:
        above = ""
        for level, rung in enumerate(LADDER, start=1):
            name = f"{brand}-{rung}"
            made.append(Planned(name, brand, currency, f"{ladder}-{rung}", level, above))
            above = name
        master = f"{brand}-{LADDER[0]}"
        made.append(Planned(f"{brand}-{DIRECT}", brand, currency, f"{ladder}-{DIRECT}", 2, master))
    return tuple(made)


def people(partners: Sequence[Contracted], traders: int) -> tuple[Person, ...]:
    """Traders of both books in turn, each through the next partner of the brand."""
    found, turns = [], Counter[str]()
    for number in range(traders):
        brand, currency, _, country, account = CHAINS[number % len(CHAINS)]
        mine = [each.planned for each in partners if each.planned.brand == brand]
        organic = number % ORGANIC >= ORGANIC - len(CHAINS)
        code = "" if organic else mine[turns[brand] % len(mine)].code
        turns[brand] += not organic
        found.append(
            Person(
                reference=f"trader-{number:03}", brand=brand, country=country, currency=currency,
                risk="low", account=account, goes_to="approved", code=code,
            )
        )  # fmt: skip
    return tuple(found)


@asynccontextmanager
async def open_market(house: House, traders: int = TRADERS) -> AsyncIterator[Market]:
    """A market in this house."""
    market = Market(house)
    await market.settle(traders)
    yield market
