"""A partner's stream on a real database and Redis: what it shows, to whom, and when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta

import asyncpg
import msgspec
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from gateway.control import audit, keys
from gateway.flows.live_events import Event
from gateway.http.stream import Stream
from tests.integration.gateway.conftest import STREAMS
from tests.integration.gateway.following import (
    EU,
    INT,
    OTHER,
    OTHERS,
    PARTNER,
    PINGING,
    WAIT_S,
    Streams,
    streaming,
)
from tests.support.servers import Database


@pytest_asyncio.fixture
async def streams(database: Database, pool: asyncpg.Pool, redis: Redis) -> AsyncIterator[Streams]:
    """The same with the figures of the tests."""
    async with streaming(database, pool, redis) as made:
        yield made


# --- what it shows ------------------------------------------------------------------------------


async def test_a_stream_begins_with_everything_as_it_stands(streams: Streams) -> None:
    """The first event is a snapshot of all contracts, those without an account among them."""
    await streams.partners.earn(EU, 1240)

    async with streams.follow() as reader:
        event = await reader.event()

    assert reader.answer.headers["Content-Type"] == "text/event-stream"
    assert reader.answer.headers["Cache-Control"] == "no-store"
    assert reader.answer.headers["X-Accel-Buffering"] == "no"
    assert "Content-Encoding" not in reader.answer.headers
    assert event.data["partner"] == PARTNER
    assert event.data["contracts"] == [
        {
            "contract": EU, "currency": "EUR", "accrued": "12.40", "held": "0.00",
            "payable": "0.00", "today": "12.40", "lines": 1, "last_line": 1, "version": 1,
        },
        {
            "contract": INT, "currency": "USD", "accrued": "0.00", "held": "0.00",
            "payable": "0.00", "today": "0.00", "lines": 0, "last_line": 0, "version": 0,
        },
    ]  # fmt: skip


async def test_each_commit_is_told_and_the_id_rises_with_each_entry(streams: Streams) -> None:
    """A batch that is committed reaches the reader with the whole state and a higher id."""
    async with streams.follow() as reader:
        first = await reader.event()
        await streams.earned(EU, 500)
        second = await reader.until(EU, "5.00")
        await streams.earned(INT, 700, entity="fx-int")
        third = await reader.until(INT, "7.00")

    assert [first.id, second.id, third.id] == [2, 3, 4]
    assert third.contract(EU)["accrued"] == "5.00"
    assert third.contract(INT)["last_line"] == 2


async def test_a_zero_line_is_told_though_no_account_moved(streams: Streams) -> None:
    """Lines that pay nothing are counted: the id stays, the number of lines does not."""
    await streams.partners.earn(EU, 500)
    async with streams.follow() as reader:
        before = await reader.event()
        await streams.earned(EU, 0)
        after = await reader.event()

    assert (after.id, after.contract()["accrued"]) == (before.id, "5.00")
    assert after.contract()["lines"] == before.contract()["lines"] + 1


async def test_what_is_not_committed_is_never_shown(
    database: Database, pool: asyncpg.Pool, redis: Redis
) -> None:
    """Told too early, and then rolled back: the reader sees what was before and what is after."""
    async with (
        streaming(database, pool, redis, PINGING) as streams,
        streams.follow() as reader,
    ):
        await reader.event()
        transaction = streams.partners.conn.transaction()
        await transaction.start()
        told = await streams.partners.write(EU, 99_999, "fx-eu", datetime.now(UTC))
        streams.live.told(told)
        await reader.comment("here")
        await transaction.rollback()
        await streams.earned(EU, 1)
        event = await reader.event()

    assert event.contract()["accrued"] == "0.01"


async def test_many_commits_are_told_at_most_as_often_as_allowed(
    database: Database, pool: asyncpg.Pool, redis: Redis
) -> None:
    """The first is told at once and those of the next moments together, with the right sum."""
    limits = msgspec.structs.replace(STREAMS, per_s=0.5)
    async with streaming(database, pool, redis, limits) as streams, streams.follow() as reader:
        await reader.event()
        for _ in range(40):
            await streams.earned(EU, 1)
        event = await reader.event()

        assert event.contract()["accrued"] == "0.40"
        assert event.contract()["lines"] == 40


async def test_at_midnight_what_was_earned_today_begins_anew(streams: Streams) -> None:
    """Nothing moves, the day ends: an event of its own says the new day and nothing earned."""
    await streams.partners.earn(EU, 500)
    async with streams.follow() as reader:
        before = await reader.event()
        streams.api.clock.skew_s += 86_400
        after = await reader.event()

    assert (before.contract()["today"], after.contract()["today"]) == ("5.00", "0.00")
    next_day = date.fromisoformat(before.data["day"]) + timedelta(days=1)
    assert after.data["day"] == next_day.isoformat()
    assert after.id == before.id
    assert after.contract()["accrued"] == "5.00"


# --- coming back --------------------------------------------------------------------------------


async def test_who_knows_the_newest_state_is_told_so(streams: Streams) -> None:
    """With the current id a stream begins with a comment; the next commit is told as ever."""
    await streams.partners.earn(EU, 500, at=datetime.now(UTC).replace(hour=23, minute=59))
    async with streams.follow(last=3) as reader:
        await reader.comment("as you know it")
        await streams.earned(EU, 1, at=datetime.now(UTC).replace(hour=23, minute=59))
        assert (await reader.event()).contract()["accrued"] == "5.01"


@pytest.mark.parametrize("last", [0, 2, 4, 10**17])
async def test_who_knows_another_state_is_told_everything(streams: Streams, last: int) -> None:
    """An id that is not the current one, be it older or from elsewhere, is answered in full."""
    await streams.partners.earn(EU, 500)
    async with streams.follow(last=last) as reader:
        assert (await reader.event()).id == 3


async def test_the_same_id_after_a_zero_line_is_told_everything(streams: Streams) -> None:
    """Lines were added without moving an account: the id alone does not say that they are known."""
    late = datetime.now(UTC).replace(hour=23, minute=59)
    await streams.partners.earn(EU, 500, at=late)
    await streams.partners.earn(EU, 0, at=late)
    async with streams.follow(last=3) as reader:
        assert (await reader.event()).contract()["lines"] == 2


async def test_the_same_id_after_a_night_is_told_everything(streams: Streams) -> None:
    """Asleep over midnight, a page knows yesterday's sum as today's: it is told the new day."""
    await streams.partners.earn(EU, 500, at=datetime.now(UTC) - timedelta(days=1))
    async with streams.follow(last=3) as reader:
        assert (await reader.event()).contract()["today"] == "0.00"


async def test_a_contract_made_meanwhile_is_told(streams: Streams) -> None:
    """Whoever knows all but a contract that has no account yet does not know everything."""
    await streams.partners.earn(EU, 500, at=datetime.now(UTC).replace(hour=23, minute=59))
    await streams.partners.sign("CT" + "7" * 18, PARTNER, "fx-eu")
    async with streams.follow(last=3) as reader:
        event = await reader.event()

    assert (event.id, len(event.data["contracts"])) == (4, 3)


# --- who may read -------------------------------------------------------------------------------


async def test_a_key_sees_the_contracts_of_its_entities_only(streams: Streams) -> None:
    """The same partner, another key: contracts of other entities do not exist."""
    token = await streams.api.key(owner="eu", entities=("fx-eu",))
    async with streams.follow(token=token) as reader:
        event = await reader.event()

    assert [each["contract"] for each in event.data["contracts"]] == [EU]


@pytest.mark.parametrize("partner", [OTHER, "PA" + "9" * 18, "nonsense"])
async def test_out_of_reach_is_not_found(streams: Streams, partner: str) -> None:
    """A partner of other entities, one who is not there and no id at all are one answer."""
    token = await streams.api.key(owner="eu", entities=("fx-eu",))
    answer = await streams.api.call("GET", f"/v1/partners/{partner}/stream", token=token)

    assert answer.status == 404
    assert (await answer.json())["code"] == "not-found"


async def test_a_partner_reads_what_is_below_and_nothing_beside(streams: Streams) -> None:
    """By the cookie of a visit: the partner below is in reach, the partner above is not."""
    await streams.api.owner.execute(
        "INSERT INTO gateway.contract_edge VALUES ($1, now(), $2, 2, 1)", OTHERS, INT
    )
    async with streams.follow(OTHER, headers=await visit(streams, PARTNER)) as reader:
        assert (await reader.event()).data["partner"] == OTHER

    answer = await streams.api.client.get(
        f"/v1/partners/{PARTNER}/stream", headers=await visit(streams, OTHER)
    )
    assert answer.status == 404


async def visit(streams: Streams, partner: str) -> dict[str, str]:
    """A partner's way in: by a link once, then by the cookie."""
    visits = streams.api.parts.visits
    async with streams.api.pool.acquire() as conn:
        command = audit.Command(keys.operator("root"), "", "test", streams.api.clock.now())
        token = await visits.link(conn, command, partner)
    return {"Cookie": f"brokerd_partner={await visits.open(partner, token, 'test')}"}


async def test_a_key_that_is_revoked_ends_its_streams(
    database: Database, pool: asyncpg.Pool, redis: Redis
) -> None:
    """The credential is looked at again with each ping."""
    async with streaming(database, pool, redis, PINGING) as streams:
        token = await streams.api.key(owner="short")
        async with streams.follow(token=token) as reader:
            await reader.event()
            await reader.comment("here")
            await streams.api.owner.execute("UPDATE gateway.api_key SET revoked = now()")
            streams.api.clock.skew_s += 60
            await reader.end()


async def test_a_visit_that_is_ended_ends_its_streams(
    database: Database, pool: asyncpg.Pool, redis: Redis
) -> None:
    """Whoever ends a partner's visits also ends what is being watched in them, within a ping."""
    async with streaming(database, pool, redis, PINGING) as streams:
        path = f"/v1/partners/{PARTNER}/visits"
        async with (
            streams.follow(headers=await visit(streams, PARTNER)) as ended,
            streams.follow() as other,
        ):
            await ended.event()
            await other.event()
            assert (await streams.api.call("DELETE", path, key=None)).status == 200
            await ended.end()
            await other.comment("here")


async def test_a_stream_that_is_busy_is_asked_for_its_credential_too(
    database: Database, pool: asyncpg.Pool, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader who is always behind, told more often than it is pinged, is pinged and asked."""
    monkeypatch.setattr(Stream, "take", behind)
    limits = msgspec.structs.replace(PINGING, per_s=1_000)
    async with streaming(database, pool, redis, limits) as streams:
        token = await streams.api.key(owner="short")
        async with streams.follow(token=token) as reader:
            await reader.event()
            await streams.api.owner.execute("UPDATE gateway.api_key SET revoked = now()")
            streams.api.clock.skew_s += 60
            earning = asyncio.create_task(busy(streams))
            try:
                parts = await reader.end()
            finally:
                earning.cancel()
                await asyncio.wait([earning])

    assert ": here\n\n" in parts


def behind(stream: Stream, event: Event) -> None:
    """What `take` does for a reader who has not read yet what was sent before."""
    stream._newest = event
    stream._woken.set()


async def busy(streams: Streams) -> None:
    """One batch after another."""
    while True:
        await streams.earned(EU, 1)


async def test_a_new_contract_joins_a_stream_that_is_open(streams: Streams) -> None:
    """The first batch of a contract that nobody watches yet brings it into its partner's stream."""
    added = "CT" + "8" * 18
    async with streams.follow() as reader:
        await reader.event()
        await streams.partners.sign(added, PARTNER, "fx-eu")
        await streams.earned(added, 300)
        event = await reader.event()

    assert event.contract(added)["accrued"] == "3.00"


async def test_no_more_streams_than_allowed(
    database: Database, pool: asyncpg.Pool, redis: Redis
) -> None:
    """Beyond the limit a caller is told to come back; a place that is left is free again."""
    limits = msgspec.structs.replace(STREAMS, subscribers_max=1)
    async with streaming(database, pool, redis, limits) as streams:
        async with streams.follow() as reader:
            await reader.event()
            answer = await streams.api.call("GET", f"/v1/partners/{PARTNER}/stream")
            assert answer.status == 503
            assert (await answer.json())["code"] == "overloaded"
        async with asyncio.timeout(WAIT_S):
            while streams.counted("brokerd_stream_readers"):
                await asyncio.sleep(0.01)
        async with streams.follow() as reader:
            await reader.event()


@pytest.mark.parametrize("who", ["owner", "visitor"])
async def test_nobody_takes_the_places_of_others(
    database: Database, pool: asyncpg.Pool, redis: Redis, who: str
) -> None:
    """One calling system, and one partner with all their windows, have so many streams each."""
    limits = msgspec.structs.replace(STREAMS, owner_max=1, visitor_max=1)
    async with streaming(database, pool, redis, limits) as streams:
        mine = {"Authorization": f"Bearer {await streams.api.key(owner='greedy')}"}
        if who == "visitor":
            mine = await visit(streams, PARTNER)
        async with streams.follow(headers=mine) as reader:
            await reader.event()
            answer = await streams.api.client.get(f"/v1/partners/{PARTNER}/stream", headers=mine)
            assert (answer.status, (await answer.json())["code"]) == (429, "limit-exceeded")
            assert answer.headers["Retry-After"] == "5"
            async with (
                streams.follow(headers=await visit(streams, OTHER), partner=OTHER) as other,
                streams.follow(token=await streams.api.key(owner="modest")) as another,
            ):
                await other.event()
                await another.event()
        async with asyncio.timeout(WAIT_S):
            while streams.counted("brokerd_stream_readers"):
                await asyncio.sleep(0.01)
        async with streams.follow(headers=mine) as reader:
            await reader.event()
