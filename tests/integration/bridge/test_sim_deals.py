"""Dealing on the simulated platform as others meet it: the wire's answers, and the admin port.

Knows what is asked for over both ports. Refuses to know how deals come about: the unit tests do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from bridge.mt5 import http
from bridge.mt5.http import Request
from bridge.pool import Pool
from bridge.sim.books import User
from tests.integration.bridge.conftest import EUR, MANAGER, USD, Field

YEARS = (("from", "0"), ("to", "4000000000"))
MASKS = r"real\*"


class Port:
    """The admin port."""

    def __init__(self, client: aiohttp.ClientSession) -> None:
        self._client = client

    async def ask(self, method: str, path: str, body: object = None, status: int = 200) -> Any:
        """One request, its JSON, or its text where it is refused."""
        async with self._client.request(
            method, path, json=body, headers={"Content-Type": "application/json"}
        ) as answer:
            assert answer.status == status, await answer.text()
            return await (answer.json() if status == 200 else answer.text())

    async def one(self, **told: object) -> dict[str, int]:
        """Play one deal."""
        made: dict[str, int] = await self.ask("POST", "/deals/one", told)
        return made

    async def finished(self) -> dict[str, Any]:
        """Wait until dealing has come to its own end."""
        state: dict[str, Any] = {"running": True}
        while state["running"]:
            state = await self.ask("GET", "/deals")
        return state


@pytest.fixture
async def port(field: Field, accounts: None) -> AsyncIterator[Port]:
    """The admin port of a platform with accounts."""
    async with aiohttp.ClientSession(field.admin_url) as client:
        yield Port(client)


@pytest.fixture
def accounts(field: Field) -> None:
    """Two accounts of euros and one of dollars."""
    for login, group in ((100_001, EUR), (100_002, EUR), (200_001, USD)):
        field.platform.books.record(
            User(
                login=login, group=group.group, rights=355, leverage=30, name="n", id="",
                comment="", registration=0,
            )
        )  # fmt: skip


def batch(*query: tuple[str, str]) -> Request:
    """A request for deals."""
    return Request(command="deal/get_batch", query=query)


async def rows(pool: Pool, *query: tuple[str, str]) -> list[dict[str, str]]:
    """The deals that a batch shows, by ticket."""
    answer = await pool.call(batch(*query))
    assert answer.ok, answer.text
    assert isinstance(answer.answer, list)
    return sorted(answer.answer, key=lambda each: int(each["Deal"]))


async def test_deals_are_made_at_a_rate_until_their_number_is_full(port: Port, pool: Pool) -> None:
    """What the admin port counts is what the wire shows, every scalar of it a string."""
    terms = {"seed": 7, "per_s": 5_000, "total": 600, "edits": 0.1, "balances": 0.1}
    started = await port.ask("POST", "/deals", terms)
    assert started["running"]
    state = await port.finished()
    found = await rows(pool, ("group", MASKS), *YEARS)
    assert 600 <= len(found) <= 601  # the last may be one of a pair
    assert sum(int(each["Action"]) >= 2 for each in found) == state["made"]["balance"] > 0
    assert sum(int(each["Action"]) < 2 for each in found) == state["made"]["trades"]
    assert sum(each["ModifyFlags"] != "0" for each in found) == state["made"]["edited"] > 0
    assert all(isinstance(value, str) for each in found for value in each.values())


async def test_dealing_can_be_stopped_and_begun_again(port: Port) -> None:
    """Nothing is made after the stop; other terms take the place of the first."""
    await port.ask("POST", "/deals", {"per_s": 2_000})
    while not (await port.ask("GET", "/deals"))["made"]["trades"]:
        pass
    stopped = await port.ask("DELETE", "/deals")
    assert not stopped["running"]
    assert (await port.ask("GET", "/deals"))["last"] == stopped["last"]
    await port.ask("POST", "/deals", {"per_s": 2_000, "seed": 3, "logins": [200_001]})
    again = await port.ask("POST", "/deals", {"per_s": 2_000, "seed": 4, "total": 50})
    assert again["terms"]["seed"] == 4
    await port.finished()


async def test_the_deals_are_paged_by_ticket_with_their_newest_state(port: Port) -> None:
    """Whoever compares books reads all deals in pages: numbers, minor units and both times."""
    await port.ask("POST", "/deals", {"per_s": 5_000, "total": 250, "edits": 0.2})
    state = await port.finished()
    seen: list[dict[str, Any]] = []
    while page := (await port.ask("GET", f"/deals?after={_last(seen)}&limit=100"))["deals"]:
        seen += page
    assert len(seen) == state["made"]["trades"] + state["made"]["balance"]
    assert sum(deal["edits"] for deal in seen) == state["made"]["edits"] > 0
    assert all(deal["time_msc"] > deal["utc_ms"] for deal in seen)


def _last(seen: list[dict[str, Any]]) -> int:
    return int(seen[-1]["ticket"]) if seen else 0


async def test_the_order_of_a_batch_is_nobodys_promise(port: Port, pool: Pool) -> None:
    """The same window asked for twice comes in two orders, both of them whole."""
    await port.ask("POST", "/deals", {"per_s": 5_000, "total": 100})
    await port.finished()
    answers = [(await pool.call(batch(("group", "*"), *YEARS))).answer for _ in range(2)]
    one, other = ([row["Deal"] for row in answer] for answer in answers)
    assert one != other
    assert sorted(one) == sorted(other)


async def test_a_batch_is_asked_for_by_masks_logins_or_tickets(port: Port, pool: Pool) -> None:
    """One kind of the three; masks may take groups away; tickets need no window."""
    logins = (100_001, 100_002, 200_001)
    made = [
        (await port.one(login=login, symbol="EURUSD", lots="0.10"))["ticket"] for login in logins
    ]

    async def shown(*query: tuple[str, str]) -> list[int]:
        return [int(row["Deal"]) for row in await rows(pool, *query)]

    assert await shown(("group", MASKS), *YEARS) == made
    assert await shown(("group", r"real\*,!real\EU\*"), *YEARS) == made[2:]
    assert await shown(("login", "100002,200001,5"), *YEARS) == made[1:]
    assert await shown(("ticket", f"{made[0]},{made[2]},1")) == [made[0], made[2]]
    for wrong in ((), (("group", "*"), ("login", "1")), (("ticket", "x"),)):
        assert (await pool.call(batch(*wrong, *YEARS))).code == 3
    assert (await pool.call(batch(("group", "*")))).code == 3


async def test_lists_may_come_in_a_body(port: Port, pool: Pool) -> None:
    """A POST names logins as an array."""
    made = await port.one(login=100_001, symbol="EURUSD", lots="0.10")
    await port.one(login=100_002, symbol="EURUSD", lots="0.10")
    body: Any = (("Login", ["100001", 200_001]), ("From", 0), ("To", "4000000000"))
    answer = await pool.call(Request(command="deal/get_batch", body=body))
    assert [row["Deal"] for row in answer.answer] == [str(made["ticket"])]


async def test_a_symbol_narrows_a_batch(port: Port, pool: Pool) -> None:
    """Only deals of that symbol."""
    for symbol in ("EURUSD", "XAUUSD", "EURUSD.x"):
        await port.one(login=100_001, symbol=symbol, lots="0.10")
    found = await rows(pool, ("group", "*"), *YEARS, ("symbol", "EURUSD"))
    assert [each["Symbol"] for each in found] == ["EURUSD"]


async def test_a_window_counts_seconds_of_the_wall_clock_both_ends_included(
    port: Port, pool: Pool
) -> None:
    """A deal booked late is found where its time is."""
    await port.ask("POST", "/clock", {"now": "2026-07-01T12:00:00Z"})
    at = 1_782_907_200 + 10_800
    made = await port.one(login=100_001, symbol="EURUSD", lots="1", late_s=30)
    clock = await port.ask("GET", "/clock")
    [row] = await rows(pool, ("group", "*"), *YEARS)
    assert clock["offset_s"] == 10_800
    time = int(row["Time"])
    assert at - 30 <= time <= int(clock["server"].split()[0]) - 30

    async def within(since: int, until: int) -> int:
        return len(await rows(pool, ("group", "*"), ("from", str(since)), ("to", str(until))))

    assert await within(time, time) == 1
    assert [await within(time - 9, time), await within(time, time + 9)] == [1, 1]
    assert [await within(time + 1, time + 9), await within(time - 9, time - 1)] == [0, 0]
    assert (await pool.call(http.deal_total(100_001, time, time))).answer == {"Total": "1"}
    [paged] = (await pool.call(http.deal_page(100_001, time, time, 0))).answer
    assert paged["Deal"] == str(made["ticket"])


async def test_a_story_tells_one_deal_exactly(port: Port, pool: Pool) -> None:
    """Opened, closed in part: the closing belongs to the position that was opened."""
    opened = await port.one(login=100_001, symbol="EURUSD", lots="0.30", price="1.1")
    closed = await port.one(
        login=100_001, symbol="EURUSD", action=1, entry=1, lots=0.1, price="1.10010",
        profit="0.92", commission=-0.35, storage="-0.01", reason=4, comment="[tp 1.10010]",
    )  # fmt: skip
    assert closed["position"] == opened["position"]
    [first, second] = await rows(pool, ("group", "*"), *YEARS)
    assert (first["VolumeExt"], first["VolumeClosedExt"]) == ("30000000", "0")
    assert (second["Volume"], second["VolumeClosed"]) == ("1000", "1000")
    money = [second[name] for name in ("Profit", "Commission", "Storage", "Fee")]
    assert money == ["0.92", "-0.35", "-0.01", "0.00"]
    assert (second["Price"], second["Reason"], second["PositionID"]) == (
        "1.10010", "4", str(opened["position"]),
    )  # fmt: skip


async def test_a_story_edits_a_deal(port: Port, pool: Pool) -> None:
    """The number stays, the flags say that it was touched, and the balance follows."""
    made = await port.one(login=100_001, symbol="EURUSD", entry=1, lots="1", profit="5.00")
    edit = {"ticket": made["ticket"], "profit": "4.00", "comment": "checked", "lots": "2"}
    assert (await port.ask("POST", "/deals/edit", edit))["edits"] == 1
    [row] = await rows(pool, ("group", "*"), *YEARS)
    shown = (row["Profit"], row["Comment"], row["VolumeExt"], row["VolumeClosedExt"])
    assert shown == ("4.00", "checked", "200000000", "200000000")
    assert row["ModifyFlags"] != "0"
    [account, *_] = (await port.ask("GET", "/books"))["accounts"]
    assert (account["balance_minor"], account["transfers_minor"]) == (400, 0)
    moved = {"ticket": made["ticket"], "login": 100_002, "symbol": "XAUUSD", "moved_s": -60}
    await port.ask("POST", "/deals/edit", moved)
    [other] = await rows(pool, ("login", "100002"), *YEARS)
    assert int(row["Time"]) - int(other["Time"]) == 60


async def test_a_story_may_tell_what_no_platform_would(port: Port, pool: Pool) -> None:
    """Raw fields stand in the row as they were told."""
    await port.one(login=100_001, symbol="EURUSD", lots="1", raw={"Volume": "7", "Profit": "many"})
    [row] = await rows(pool, ("group", "*"), *YEARS)
    assert (row["Volume"], row["VolumeExt"], row["Profit"]) == ("7", "100000000", "many")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/deals", {"per_s": 0}),
        ("/deals", {"edits": 2}),
        ("/deals", {"no": 1}),
        ("/deals/one", {"login": 1}),
        ("/deals/one", {"login": 100_001, "lots": "0.000000001"}),
        ("/deals/one", {"login": 100_001, "profit": "0.001"}),
        ("/deals/edit", {"ticket": 1}),
        ("/clock", {"now": "2026-07-01T12:00:00"}),
    ],
)
async def test_a_story_that_makes_no_sense_is_refused(port: Port, path: str, body: object) -> None:
    """In words, and nothing is made."""
    assert await port.ask("POST", path, body, status=400)
    assert (await port.ask("GET", "/deals?after=0"))["deals"] == []


async def test_our_own_credits_are_deals_among_the_others(
    field: Field, port: Port, pool: Pool
) -> None:
    """A balance operation is on the tape, in the books, and the only one of the transfers."""
    await port.one(login=100_001, action=2, profit="7.00", comment="manual adj")
    answer = await pool.call(http.trade_balance(100_001, "10.00", "BO1"))
    ticket = int(answer.answer["Ticket"])
    shown = (await port.ask("GET", "/deals?after=0"))["deals"]
    assert [deal["transfer"] for deal in shown] == [False, True]
    books = await port.ask("GET", "/books")
    assert [deal["ticket"] for deal in books["deals"]] == [ticket]
    [account, *_] = books["accounts"]
    assert (account["balance_minor"], account["transfers_minor"]) == (1_700, 1_000)
    [mine] = await rows(pool, ("ticket", str(ticket)))
    assert (mine["Dealer"], mine["Symbol"], mine["PositionID"], mine["Reason"]) == (
        str(MANAGER), "", "0", "2",
    )  # fmt: skip


async def test_a_batch_can_be_made_to_fail_like_any_command(
    field: Field, port: Port, pool: Pool
) -> None:
    """Codes, lost answers: the session asks again for what was lost, and the deals are there."""
    await port.one(login=100_001, symbol="EURUSD", lots="1")
    field.script("deal/get_batch", "retcode_before", code=12)
    field.script("deal/get_batch", "drop_after")
    assert (await pool.call(batch(("group", "*"), *YEARS))).code == 12
    assert len(await rows(pool, ("group", "*"), *YEARS)) == 1
    assert field.platform.script.open == []
    assert field.platform.received["deal/get_batch"] == 3


async def test_a_switch_of_the_season_moves_the_wall_clock(port: Port, pool: Pool) -> None:
    """Two deals a second apart are an hour and a second apart on the wall."""
    await port.ask("POST", "/clock", {"now": "2026-03-29T00:59:59Z"})
    await port.one(login=100_001, symbol="EURUSD", lots="1")
    await port.ask("POST", "/clock", {"now": "2026-03-29T01:00:00Z"})
    await port.one(login=100_001, symbol="EURUSD", lots="1")
    ahead = [deal["time_msc"] - deal["utc_ms"] for deal in await _all(port)]
    assert ahead == [7_200_000, 10_800_000]
    await port.ask("POST", "/clock", {"offset_s": -18_000})
    assert (await port.ask("GET", "/clock"))["offset_s"] == -18_000
    await port.ask("DELETE", "/clock")
    assert (await port.ask("GET", "/clock"))["offset_s"] in (7_200, 10_800)


async def _all(port: Port) -> list[dict[str, Any]]:
    deals: list[dict[str, Any]] = (await port.ask("GET", "/deals?after=0"))["deals"]
    return deals


async def test_the_deals_are_there_after_a_restart(field: Field, port: Port) -> None:
    """A platform that comes back knows what was dealt, and its numbers go on."""
    first = await port.one(login=100_001, symbol="EURUSD", lots="1")
    await field.stop()
    await field.start()
    async with aiohttp.ClientSession(field.admin_url) as client:
        again = Port(client)
        assert [deal["ticket"] for deal in await _all(again)] == [first["ticket"]]
        second = await again.one(login=100_001, symbol="EURUSD", entry=1, action=1, lots="1")
        assert second["ticket"] == first["ticket"] + 1
        assert second["position"] == first["position"]
