"""Reading the books, now and as of a moment."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import reads
from ledger.journal import Numbers, post
from ledger.units import Done, Left, Unit
from tests.integration.ledger.conftest import House, deposit, deposited, spend

MOVES = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(-60, 100).filter(bool)), min_size=1, max_size=12
)


async def test_a_balance_is_read_on_its_normal_side(house: House) -> None:
    """What we owe and what we own are both positive; a version counts the account's postings."""
    async with house.lane() as lane:
        for n in range(3):
            await lane.submit(deposited(f"PY{n}"))
        await lane.submit(Unit((), (spend("BO1", minor=50),)))
    found = {b.kind: (b.minor, b.version) for b in await reads.balances(house.reader, [1])}
    assert found == {"client_wallet": (250, 4), "psp_clearing": (300, 3), "in_transit": (50, 1)}
    assert await reads.balances(house.reader, [2]) == []


async def test_pages_of_balances_miss_nothing_across_books(house: House) -> None:
    """Following the account number page by page visits every account of every book once."""
    numbers, conn = Numbers(), await house.connect()
    for n in range(6):  # numbers of two books interleave
        book = 1 + n % 2
        entry = deposit(f"PY{n}", f"CL{n}")
        entry = type(entry)(book, entry.kind, entry.key, entry.effective, entry.postings, entry.ref)
        async with conn.transaction():
            await post(conn, numbers, [entry])
    seen: list[tuple[int, str, str]] = []
    after = 0
    while page := await reads.balances(house.reader, [1, 2], after=after, limit=3):
        seen += [(b.book, b.kind, b.owner) for b in page]
        after = page[-1].id
    assert len(seen) == len(set(seen)) == 8


async def test_an_entry_is_read_with_its_postings(house: House) -> None:
    """An entry tells its kind, key, day and both sides with the balance after each."""
    async with house.lane() as lane:
        done = await lane.submit(deposited("PY1"))
    assert isinstance(done, Done)
    entry = await reads.entry(house.reader, [1], done.entries[0])
    assert entry is not None
    assert (entry.kind, entry.key, entry.recorded) == ("deposit", "PY1", done.recorded)
    assert [(s.kind, s.minor, s.balance_after) for s in entry.postings] == [
        ("psp_clearing", 100, 100), ("client_wallet", -100, 100),
    ]  # fmt: skip
    assert await reads.entry(house.reader, [2], done.entries[0]) is None


async def test_entries_are_found_by_key_and_moment_together(house: House) -> None:
    """A key and a moment both narrow what is found; pages follow the entry's id."""
    async with house.lane() as lane:
        for n in range(5):
            await lane.submit(Unit((), (deposit(f"PY{n}"),)))
    everything = await reads.entries(house.reader, [1], limit=3)
    rest = await reads.entries(house.reader, [1], after=everything[-1].id)
    assert [e.key for e in (*everything, *rest)] == [f"PY{n}" for n in range(5)]
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    assert await reads.entries(house.reader, [1], key="PY3", as_of=long_ago) == []
    assert [e.key for e in await reads.entries(house.reader, [1], key="PY3")] == ["PY3"]


async def test_a_statement_lists_an_accounts_postings_in_order(house: House) -> None:
    """A statement is the account's versions without a gap, each with the balance after it."""
    async with house.lane() as lane:
        for n in range(4):
            await lane.submit(Unit((), (deposit(f"PY{n}"),)))
    rows = await reads.statement(house.reader, [1], "client_wallet", "CL1", "EUR", after=1, limit=2)
    assert [(row["version"], row["balance"]) for row in rows] == [(2, 200), (3, 300)]


async def test_a_moment_that_is_still_open_is_refused(house: House) -> None:
    """Inside the horizon no number is given: a transaction in flight could still change it."""
    now = await house.reader.fetchval("SELECT clock_timestamp()")
    for moment in (now, now + timedelta(days=1)):
        with pytest.raises(reads.StillOpen) as early:
            await reads.balances(house.reader, [1], as_of=moment)
        assert early.value.horizon < now
        with pytest.raises(reads.StillOpen):
            await reads.entries(house.reader, [1], as_of=moment)


async def test_a_writer_in_flight_holds_the_horizon_back(house: House) -> None:
    """While a transaction that has written is open, however long its commit takes, the books are
    closed only up to its beginning.
    """
    slow = await house.database.connect()
    await slow.execute("BEGIN")
    await post(slow, Numbers(), [deposit("PY1")])
    began = await slow.fetchval("SELECT now()")
    held = await passed(house, began + timedelta(seconds=reads.HORIZON_S + 0.2))
    assert held < began
    await slow.execute("COMMIT")
    assert await reads.horizon(house.reader) > began


async def passed(house: House, moment: datetime) -> datetime:
    """Wait until the server's clock is past `moment`; returns the horizon then."""
    async with asyncio.timeout(30):
        while await house.reader.fetchval("SELECT clock_timestamp()") < moment:
            await asyncio.sleep(0.05)
    return await reads.horizon(house.reader)


async def as_of(conn: asyncpg.Connection, moment: datetime) -> dict[tuple[str, str], int]:
    """Every balance as of a moment, asked of the books whether closed or not."""
    rows = await reads.balances(conn, [1], as_of=moment)
    return {(b.kind, b.owner): b.minor for b in rows}


@pytest.mark.slow
@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(moves=MOVES)
async def test_one_moment_gives_one_number_for_ever(
    house: House, monkeypatch: pytest.MonkeyPatch, moves: list[tuple[str, int]]
) -> None:
    """Whatever is posted afterwards, each moment shows the sum of what was recorded up to it."""
    numbers, conn = Numbers(), await house.connect()
    tag = str(await conn.fetchval("SELECT nextval('ledger.entry_id')"))
    told: list[tuple[datetime, dict[tuple[str, str], int]]] = []
    before = {(b.kind, b.owner): b.minor for b in await reads.balances(conn, [1]) if b.version}
    sums = dict(before)
    for n, (client, minor) in enumerate(moves):
        key, owner = f"{tag}-{n}", f"CL{client}"
        entry = deposit(key, owner, minor) if minor > 0 else spend(key, owner, -minor)
        async with conn.transaction():
            done = await post(conn, numbers, [entry])
        if isinstance(done, Left):
            continue
        for posting in entry.postings:
            name = (posting.account.kind, posting.account.owner)
            sign = 1 if posting.account.kind == "psp_clearing" else -1
            sums[name] = sums.get(name, 0) + sign * posting.minor
        told.append((done[1], dict(sums)))
    monkeypatch.setattr(reads, "HORIZON_S", 0.0)
    for _ in range(2):
        for moment, expected in told:
            assert await as_of(conn, moment) == expected
        if told:
            assert await as_of(conn, told[0][0] - timedelta(microseconds=1)) == before
