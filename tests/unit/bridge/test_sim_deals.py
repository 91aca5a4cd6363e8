"""Deals of the simulated platform: what people do by a seed, how it is kept, and the row of it.

Knows the generator, the tape and the books without a socket. Refuses to test the ports.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random

import msgspec
import pytest

from bridge.mt5 import deals as reader
from bridge.sim import tape as tapes
from bridge.sim.books import Books, Deal, Group, User
from bridge.sim.clock import Setting, Wall
from bridge.sim.dealer import Dealer
from bridge.sim.dealing import ADJUSTMENT, LATE_MAX_S, Dealing, Terms
from bridge.sim.market import INSTRUMENTS
from bridge.sim.tape import Tape
from bridge.sim.trades import BALANCE, IN, INOUT, OUT, OUT_BY, Trade, row
from ledger import facts

NOON = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
MANAGER = 1007
LOGINS = range(1, 6)
BUSY = Terms(
    seed=7, edits=0.2, late=0.1, partials=0.5, balances=0.05, reversals=0.1, close_bys=0.1,
    symbols=("EURUSD", "USDJPY", "BTCUSD"),
)  # fmt: skip
WIRE_FIELDS = (  # noqa: SIM905 as the dump has them, not a word a line
    "Deal ExternalID Login Dealer Order Action Entry Reason Digits DigitsCurrency ContractSize Time"
    " TimeMsc Symbol Price Volume VolumeExt Profit Storage Commission Fee RateProfit RateMargin"
    " ExpertID PositionID Comment ProfitRaw PricePosition PriceSL PriceTP VolumeClosed"
    " VolumeClosedExt TickValue TickSize Flags Gateway PriceGateway ModifyFlags Value MarketBid"
    " MarketAsk MarketLast"
).split()


def trade(ticket: int, second: int, login: int = 1, **more: object) -> Trade:
    """A deal of a second."""
    return Trade(
        ticket=ticket, login=login, action=0, wall_ms=second * 1000, utc_ms=0, **more
    )  # fmt: skip


def shown(deal: Trade) -> dict[str, str]:
    """Its row as a client reads it."""
    return json.loads(bytes(row(deal)))


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    """Five accounts in two groups."""
    with closing(new_books(tmp_path / "journal")) as made:
        yield made


def new_books(path: Path) -> Books:
    """Books of five accounts, one of them in a currency without decimals."""
    books = Books(path)
    books.record(Group(group="e", currency="EUR"), Group(group="j", currency="JPY", digits=0))
    for login in LOGINS:
        group = "j" if login == 5 else "e"
        books.record(
            User(
                login=login, group=group, rights=355, leverage=1, name="n", id="", comment="",
                registration=0,
            )
        )  # fmt: skip
    return books


def play(books: Books, count: int, terms: Terms = BUSY, tick: int = 50, at: datetime = NOON) -> int:
    """Deal some deals, so many in a tick of 50 ms; returns how many new ones there are."""
    moment = at
    dealer = Dealer(books, Wall(lambda: moment), MANAGER)
    dealing = Dealing(terms, Random(terms.seed), MANAGER)
    made = 0
    while made < count:
        made += dealer.play(dealing, min(tick, count - made), terms)
        moment += timedelta(milliseconds=50)
    return made


def deals_of(books: Books) -> list[Trade]:
    """Every deal as it is now."""
    return list(books.tape.after(0, 1_000_000))


def timeless(books: Books) -> list[Trade]:
    """The same without their times."""
    return [msgspec.structs.replace(deal, wall_ms=0, utc_ms=0) for deal in deals_of(books)]


def test_a_seed_and_accounts_make_the_same_deals_again(tmp_path: Path) -> None:
    """Whenever it is played and however long the ticks are; only the times are others."""
    with closing(new_books(tmp_path / "one")) as one, closing(new_books(tmp_path / "two")) as two:
        play(one, 500)
        play(two, 500, tick=7, at=NOON + timedelta(days=40))
        assert timeless(one) == timeless(two)
        assert deals_of(one) != deals_of(two)


def test_another_seed_makes_other_deals(tmp_path: Path) -> None:
    """Chance comes from the seed."""
    with closing(new_books(tmp_path / "one")) as one, closing(new_books(tmp_path / "two")) as two:
        play(one, 100)
        play(two, 100, msgspec.structs.replace(BUSY, seed=8))
        assert timeless(one) != timeless(two)


def test_every_kind_of_deal_comes_to_pass(books: Books) -> None:
    """Openings, closings, reversals, closings by the opposite, and money moved by hand."""
    play(books, 1_000)
    deals = deals_of(books)
    kinds = Counter(deal.entry for deal in deals if deal.action < BALANCE)
    assert all(kinds[entry] > 10 for entry in (IN, OUT, INOUT, OUT_BY))
    assert {deal.action for deal in deals} >= {0, 1, 2, 3, 4, 5, 6}
    assert {deal.symbol for deal in deals} == {"EURUSD", "USDJPY", "BTCUSD", ""}
    assert books.tape.counts["trades"] + books.tape.counts["balance"] == len(deals) == 1_000


def test_no_position_is_closed_by_more_than_it_holds(books: Books) -> None:
    """What closes a position was open, on the other side and of the same symbol."""
    play(books, 2_000)
    held: dict[int, int] = {}
    side: dict[int, int] = {}
    symbol: dict[int, str] = {}
    for deal in deals_of(books):
        if deal.action >= BALANCE:
            continue
        name = deal.position
        if deal.entry == IN:
            assert name not in held
            assert deal.closed == 0
            held[name], side[name], symbol[name] = deal.volume, deal.action, deal.symbol
            continue
        assert (deal.action, deal.symbol) == (1 - side[name], symbol[name])
        assert 0 < deal.closed <= held[name]
        held[name] -= deal.closed
        if deal.entry == INOUT:  # closes all of it, and opens the rest the other way
            assert held[name] == 0
            held[name], side[name] = deal.volume - deal.closed, deal.action
        else:
            assert deal.closed == deal.volume
    assert min(held.values()) == 0


def test_positions_close_in_several_parts(books: Books) -> None:
    """Some positions have more than one closing deal."""
    play(books, 1_000)
    closings = Counter(deal.position for deal in deals_of(books) if deal.entry == OUT)
    assert max(closings.values()) > 2


def test_two_opposite_positions_close_each_other_in_two_deals(books: Books) -> None:
    """One deal for each position: equal volumes and one order, opposite sides."""
    play(books, 1_000)
    orders = defaultdict(list)
    for deal in deals_of(books):
        if deal.entry == OUT_BY:
            orders[deal.order].append(deal)
    # A pair that is the very last thing to happen is still whole: it is made at once.
    for one, other in orders.values():
        assert (one.volume, one.symbol, one.login) == (other.volume, other.symbol, other.login)
        assert (one.action, one.position) != (other.action, other.position)


def test_an_edit_shows_in_the_flags_and_moves_the_difference(books: Books) -> None:
    """A touched deal keeps its number; its money is counted once, as it is now."""
    play(books, 1_000)
    deals = deals_of(books)
    edited = [deal for deal in deals if deal.edits]
    assert len(edited) > 50
    assert all(bool(deal.flags) == bool(deal.edits) for deal in deals)
    assert books.tape.counts["edits"] == sum(deal.edits for deal in deals) > len(edited)
    for login in LOGINS:
        mine = [deal for deal in deals if deal.login == login]
        assert books.balance(login) == sum(deal.moved for deal in mine if deal.action != 3)
        assert books.credit(login) == sum(deal.moved for deal in mine if deal.action == 3)


def test_no_deal_is_older_than_its_account(books: Books) -> None:
    """A deal booked too late is not booked for a time at which nobody could have made it."""
    opened = Wall(lambda: NOON - timedelta(seconds=10)).seconds()
    for login in LOGINS:
        books.record(msgspec.structs.replace(books.users[login], registration=opened))
    play(books, 1_000, tick=1_000)
    assert min(deal.wall_ms for deal in deals_of(books)) >= opened * 1000
    assert sum(deal.late for deal in deals_of(books)) > 50


def test_late_deals_carry_an_earlier_time(books: Books) -> None:
    """A new number with a time of up to a minute ago; all others carry the time of their tick."""
    play(books, 1_000, tick=1_000)
    ages = {deal.ticket: NOON.timestamp() * 1000 - deal.utc_ms for deal in deals_of(books)}
    late = {deal.ticket for deal in deals_of(books) if deal.late}
    assert len(late) == books.tape.counts["late"] > 50
    assert all(1_000 <= ages[ticket] <= LATE_MAX_S * 1000 + 50 for ticket in late)
    assert all(0 <= age < 50 for ticket, age in ages.items() if ticket not in late)


def test_adjustments_are_no_transfers(books: Books) -> None:
    """Money moved by hand and trades are in the balance, not in what trade/balance moved."""
    books.record(Deal(ticket=100_001, login=1, action=2, minor=5_000, comment="BO1", time=0))
    play(books, 300)
    assert books.transfers(1) == 5_000
    assert books.balance(1) != 5_000
    assert {deal.comment for deal in deals_of(books) if deal.action >= BALANCE} == {
        "BO1", ADJUSTMENT,
    }  # fmt: skip
    assert [deal.ticket for deal in deals_of(books) if deal.transfer] == [100_001]


def test_without_accounts_nobody_deals(tmp_path: Path) -> None:
    """A platform that is empty waits for its first account."""
    with closing(Books(tmp_path / "journal")) as books:
        dealer = Dealer(books, Wall(lambda: NOON), MANAGER)
        assert dealer.play(Dealing(BUSY, Random(7), MANAGER), 5, BUSY) == 0


def test_only_the_accounts_that_were_named_deal(books: Books) -> None:
    """Logins of the terms that do not exist are passed over."""
    play(books, 50, msgspec.structs.replace(BUSY, logins=(3, 2, 99)))
    assert {deal.login for deal in deals_of(books)} == {2, 3}


def test_the_deals_survive_a_restart(tmp_path: Path) -> None:
    """Deals, edits, money, counts and numbers are there again when the journal is opened."""
    with closing(new_books(tmp_path / "journal")) as books:
        play(books, 400)
        before = deals_of(books), dict(books.tape.counts), books.last_ticket, books.last_order
        money = [books.balance(login) for login in LOGINS]
    with closing(Books(tmp_path / "journal")) as again:
        after = deals_of(again), dict(again.tape.counts), again.last_ticket, again.last_order
        assert after == before
        assert [again.balance(login) for login in LOGINS] == money


def test_the_deals_of_a_tick_are_one_write(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many they are, the journal is written and flushed once."""
    calls = []

    class Counting:
        def write(self, blob: bytes) -> None:
            calls.append(blob.count(b"\n"))

        def flush(self) -> None:
            calls.append(0)

        def close(self) -> None:
            """Nothing is open."""

    monkeypatch.setattr(books, "_file", Counting())
    play(books, 100, msgspec.structs.replace(BUSY, edits=0.0), tick=100)
    assert calls == [100, 0]


# --- the row -------------------------------------------------------------------------------------


def test_a_row_has_every_field_in_the_order_of_the_wire_each_a_string() -> None:
    """As in a dump of a real server."""
    fields = shown(trade(1, 1, symbol="EURUSD", digits=5))
    assert list(fields) == WIRE_FIELDS
    assert all(isinstance(value, str) for value in fields.values())


def test_a_row_says_volumes_prices_and_money_with_their_decimals() -> None:
    """Both scales of volume, prices with the symbol's decimals, money with the account's."""
    fields = shown(
        trade(
            9, 1_772_000_000, entry=OUT, symbol="EURUSD", digits=5, contract=100_000,
            volume=25_000_000, closed=25_000_000, price=108_405, position_price=99,
            profit=-5, commission=-1_075, storage=120, fee=0, rate_e8=92_250_922, order=3,
            position=2, reason=4, flags=2,
        )
    )  # fmt: skip
    assert (fields["Volume"], fields["VolumeExt"]) == ("2500", "25000000")
    assert (fields["VolumeClosed"], fields["VolumeClosedExt"]) == ("2500", "25000000")
    assert (fields["Price"], fields["PricePosition"]) == ("1.08405", "0.00099")
    money = [fields[name] for name in ("Profit", "Commission", "Storage", "Fee")]
    assert money == ["-0.05", "-10.75", "1.20", "0.00"]
    assert (fields["Time"], fields["TimeMsc"]) == ("1772000000", "1772000000000")
    assert (fields["RateProfit"], fields["ContractSize"]) == ("0.92250922", "100000.00")
    assert (fields["Entry"], fields["Reason"], fields["ModifyFlags"]) == ("1", "4", "2")


def test_a_volume_finer_than_the_older_field_is_cut_off_there() -> None:
    """Volume counts ten thousandths of a lot, VolumeExt hundred millionths."""
    fields = shown(trade(1, 1, symbol="BTCUSD", volume=1_234_567))
    assert (fields["Volume"], fields["VolumeExt"]) == ("123", "1234567")


def test_a_currency_without_decimals_has_none_in_its_rows(books: Books) -> None:
    """Yen are whole."""
    play(books, 200, msgspec.structs.replace(BUSY, logins=(5,)))
    rows = [shown(deal) for deal in deals_of(books)]
    assert {fields["DigitsCurrency"] for fields in rows} == {"0"}
    assert all("." not in fields["Profit"] for fields in rows)


def test_any_comment_survives_the_wire() -> None:
    """Quotes, backslashes and foreign letters are escaped."""
    assert shown(trade(1, 1, comment='"\\ é\n'))["Comment"] == '"\\ é\n'


def test_a_story_may_put_anything_into_a_row() -> None:
    """Fields told as raw stand in the row in place of the true ones."""
    fields = shown(trade(1, 1, volume=10, raw=(("VolumeExt", "x"), ("New", "y"))))
    assert (fields["VolumeExt"], fields["New"], fields["Deal"]) == ("x", "y", "1")


def test_the_profit_of_a_closing_is_what_the_price_moved(books: Books) -> None:
    """Price difference x lots x contract, in the account's currency, never more in its favour."""
    play(books, 500, msgspec.structs.replace(BUSY, edits=0.0))
    for deal in deals_of(books):
        if deal.entry != OUT:
            continue
        points = (deal.position_price - deal.price) * (1 if deal.action == 0 else -1)
        quote = Decimal(points).scaleb(-deal.digits) * deal.contract * deal.volume / 10**8
        exact = (quote * deal.rate_e8 / 10**8).scaleb(deal.money_digits)
        assert 0 <= exact - deal.profit < 1


def test_the_product_reads_every_row_as_it_was_meant(books: Books) -> None:
    """The bridge finds each deal fit, with its volumes, money and true moment."""
    play(books, 1_000, msgspec.structs.replace(BUSY, symbols=tuple(INSTRUMENTS)))
    for deal in deals_of(books):
        read = reader.read(row(deal), lambda wall_ms: wall_ms - 10_800_000)
        assert isinstance(read, facts.Deal)
        assert (read.volume, read.closed, read.flags) == (deal.volume, deal.closed, deal.flags)
        assert read.profit + read.commission + read.swap + read.fee == deal.moved
        assert round(read.at.timestamp() * 1000) == deal.utc_ms


# --- the tape ------------------------------------------------------------------------------------


def taped(*deals: Trade) -> Tape:
    """A tape with deals on it."""
    tape = Tape()
    for deal in deals:
        tape.put(deal, msgspec.json.encode(deal))
    return tape


def tickets(rows: list[msgspec.Raw]) -> list[int]:
    """Which deals the rows are."""
    return [int(json.loads(bytes(each))["Deal"]) for each in rows]


def test_both_ends_of_a_window_are_in_it() -> None:
    """From and to are seconds, inclusive; a deal counts by its own time, whenever it was made."""
    tape = taped(trade(1, 10), trade(2, 11), trade(3, 13), trade(4, 12), trade(5, 9))
    assert tickets(tape.window(10, 12, {1})) == [1, 2, 4]
    assert tickets(tape.window(-5, 10**18, {1})) == [5, 1, 2, 4, 3]
    assert tape.window(12, 10, {1}) == []


def test_a_window_shows_the_wanted_accounts_only() -> None:
    """Deals of others in the same second are left out."""
    tape = taped(trade(1, 10), trade(2, 10, login=2), trade(3, 10, login=3))
    assert tickets(tape.window(0, 20, {1, 3})) == [1, 3]


def test_pages_of_an_account_are_newest_first_and_whole() -> None:
    """Page after page shows each deal once."""
    tape = taped(*(trade(ticket, ticket) for ticket in range(1, 8)), trade(8, 3, login=2))
    assert tape.count_of(1, 2, 6) == 5
    pages = [tickets(tape.page_of(1, 2, 6, offset, 2)) for offset in (0, 2, 4, 6)]
    assert pages == [[6, 5], [4, 3], [2], []]
    assert tape.page_of(9, 0, 100, 0, 2) == []


def test_a_deal_can_pass_to_another_account(books: Books) -> None:
    """An edit may change anything: the deal and its money are then found in one place only."""
    deal = trade(7, 10, profit=300, transfer=True)
    books.record(deal)
    books.record(msgspec.structs.replace(deal, login=2, wall_ms=99_000, edits=1))
    assert tickets(books.tape.window(0, 100, {1, 2})) == [7]
    assert (books.tape.count_of(1, 0, 100), books.tape.count_of(2, 0, 100)) == (0, 1)
    assert (books.balance(1), books.balance(2), books.transfers(1)) == (0, 300, 0)


def test_rows_that_are_no_longer_kept_are_written_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the newest rows are kept encoded; older ones are the same bytes all the same."""
    monkeypatch.setattr(tapes, "ROWS_KEPT", 2)
    deals = [trade(ticket, ticket, comment="x") for ticket in range(1, 6)]
    tape = taped(*deals)
    assert len(tape._rows) == 2
    assert [bytes(each) for each in tape.window(0, 9, {1})] == [bytes(row(it)) for it in deals]


def test_deals_are_read_on_after_a_ticket() -> None:
    """In the order of tickets, whatever their times."""
    tape = taped(trade(1, 30), trade(2, 20), trade(3, 10))
    assert [deal.ticket for deal in tape.after(1, 10)] == [2, 3]
    assert [deal.ticket for deal in tape.after(0, 1)] == [1]
    assert [deal.ticket for deal in tape.newest_of(1, 2)] == [1, 2]


# --- the clock -----------------------------------------------------------------------------------


def test_a_switch_to_summer_time_can_be_played() -> None:
    """A set moment runs on, and the wall clock jumps where the season changes."""
    moment = NOON
    wall = Wall(lambda: moment)
    wall.set(Setting(now=datetime(2026, 3, 29, 0, 59, 59, tzinfo=UTC)))
    before = wall.seconds()
    moment += timedelta(seconds=1)
    assert wall.utc() == datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
    assert wall.seconds() - before == 3601
    wall.reset()
    assert wall.utc() == moment


def test_in_autumn_an_hour_of_the_wall_clock_comes_twice() -> None:
    """Two moments an hour apart have one wall time."""
    wall = Wall(lambda: NOON)
    first = int(datetime(2026, 10, 25, 0, 30, tzinfo=UTC).timestamp()) * 1000
    assert wall.wall_ms(first) == wall.wall_ms(first + 3_600_000)


def test_an_offset_can_be_played_whatever_the_season() -> None:
    """A server may move its clock by any rule."""
    wall = Wall(lambda: NOON)
    assert wall.seconds() - NOON.timestamp() == 10_800
    wall.set(Setting(offset_s=7200))
    assert wall.seconds() - NOON.timestamp() == 7_200
    with pytest.raises(ValueError, match="UTC"):
        wall.set(Setting(now=datetime(2026, 1, 1)))  # noqa: DTZ001 it is the mistake
