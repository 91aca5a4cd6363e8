"""The books over HTTP: balances and entries, now and as of a time.

Knows which books a caller may see. Refuses to compute: the ledger answers, or says it is too early.
"""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import date, datetime
from typing import Annotated, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.control.access import Tags
from gateway.control.refusals import Refusal, not_found
from gateway.http.bodies import Params
from gateway.http.calls import Call, reply
from gateway.http.paging import Limit, NumberCursor
from ledger import money, reads
from ledger.chart import ACCOUNTS

T = TypeVar("T")

Moment = Annotated[datetime, Meta(tz=True)]
Entity = Annotated[str, Meta(max_length=32)]


class BalanceParams(Params, frozen=True):
    """Which balances. `as_of` is a moment of the past, RFC 3339 with its offset."""

    entity: Entity = ""
    kind: Annotated[str, Meta(max_length=32)] = ""
    owner: Annotated[str, Meta(max_length=64)] = ""
    as_of: Moment | None = None
    limit: Limit = 200


class EntryParams(Params, frozen=True):
    """Which entries. `key` is the object they speak of: a payment, an operation, a hold."""

    entity: Entity = ""
    key: Annotated[str, Meta(max_length=64)] = ""
    as_of: Moment | None = None
    after: NumberCursor = 0
    limit: Limit = 50


class BalanceView(msgspec.Struct, frozen=True, kw_only=True):
    """A balance on the account's normal side."""

    entity: str
    kind: str
    owner: str
    currency: str
    balance: str
    version: int


class BalanceList(msgspec.Struct, frozen=True):
    """Balances; `complete` is false when there are more than the limit: ask more narrowly."""

    data: tuple[BalanceView, ...]
    as_of: datetime | None
    complete: bool


class SideView(msgspec.Struct, frozen=True, kw_only=True):
    """One posting: debit positive, credit negative; the balance after it on the normal side."""

    kind: str
    owner: str
    currency: str
    amount: str
    version: int
    balance_after: str


class EntryView(msgspec.Struct, frozen=True, kw_only=True):
    """A booked entry."""

    id: int
    entity: str
    kind: str
    key: str
    ref: str
    effective: date
    recorded: datetime
    postings: tuple[SideView, ...]


class EntryPage(msgspec.Struct, frozen=True):
    """Entries by id; `next` is the cursor of the following page, null on the last."""

    data: tuple[EntryView, ...]
    next: int | None


async def balances(call: Call) -> web.Response:
    """GET /v1/ledger/balances."""
    asked = call.params(BalanceParams)
    if asked.kind and asked.kind not in ACCOUNTS:
        raise Refusal("account-kind-unknown", f"the chart has no {asked.kind!r}")
    books = entities_of(call, asked.entity)
    async with call.parts.pool.acquire() as conn:
        found = await closed(
            reads.balances(
                conn,
                list(books),
                kind=asked.kind or None,
                owner=asked.owner or None,
                as_of=asked.as_of,
                limit=asked.limit + 1,
            )
        )
    data = tuple(_balance(held, books) for held in found[: asked.limit])
    return reply(BalanceList(data, asked.as_of, len(found) <= asked.limit))


async def entries(call: Call) -> web.Response:
    """GET /v1/ledger/entries."""
    asked = call.params(EntryParams)
    books = entities_of(call, asked.entity)
    async with call.parts.pool.acquire() as conn:
        found = await closed(
            reads.entries(
                conn,
                list(books),
                key=asked.key or None,
                as_of=asked.as_of,
                after=asked.after,
                limit=asked.limit + 1,
            )
        )
    data = found[: asked.limit]
    following = data[-1].id if len(found) > asked.limit and not asked.key else None
    return reply(EntryPage(tuple(_entry(entry, books) for entry in data), following))


async def entry(call: Call) -> web.Response:
    """GET /v1/ledger/entries/{id}."""
    text = call.path("id")
    books = entities_of(call, "")
    if text.isascii() and text.isdigit() and len(text) < 19:
        async with call.parts.pool.acquire() as conn:
            found = await reads.entry(conn, list(books), int(text))
        if found is not None:
            return reply(_entry(found, books))
    raise not_found("entry", text)


def entities_of(call: Call, entity: str) -> dict[int, str]:
    """The books within the caller's reach, by number, with the entity each belongs to."""
    reach = {
        each.book: each.id
        for each in call.parts.rulebook.entities
        if call.caller.reaches(Tags(each.id)) and entity in ("", each.id)
    }
    if not reach:
        raise not_found("entity", entity)
    return reach


async def closed(reading: Awaitable[T]) -> T:
    """What a read of the books says; raises Refusal `not-closed` when it is too early to ask."""
    try:
        return await reading
    except reads.StillOpen as early:
        facts = {"horizon": early.horizon}
        said = "the books are not closed up to that moment yet"
        raise Refusal("not-closed", said, facts) from None


def _balance(held: reads.Balance, books: dict[int, str]) -> BalanceView:
    return BalanceView(
        entity=books[held.book],
        kind=held.kind,
        owner=held.owner,
        currency=held.currency,
        balance=amount_text(held.minor, held.currency),
        version=held.version,
    )


def _entry(booked: reads.BookedEntry, books: dict[int, str]) -> EntryView:
    return EntryView(
        id=booked.id,
        entity=books[booked.book],
        kind=booked.kind,
        key=booked.key,
        ref=booked.ref,
        effective=booked.effective,
        recorded=booked.recorded,
        postings=tuple(map(_side, booked.postings)),
    )


def _side(side: reads.Side) -> SideView:
    return SideView(
        kind=side.kind,
        owner=side.owner,
        currency=side.currency,
        amount=amount_text(side.minor, side.currency),
        version=side.version,
        balance_after=amount_text(side.balance_after, side.currency),
    )


def amount_text(minor: int, code: str) -> str:
    """Minor units of a currency as the wire writes them."""
    return money.text(minor, money.currency(code).exponent)
