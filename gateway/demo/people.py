"""The demo's people: clients of every brand on their way to trading, each with a trading account.

Knows whom the sample broker serves. Refuses to touch a table: all of it goes through the API, and
what needs a second person is agreed to by a second person.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from gateway.demo.api import Api, Unexpected

AT_ONCE: Final = 6
ACCOUNT_LIMIT_S: Final = 60.0
POLL_S: Final = 0.2
PATH: Final = (
    "registered",
    "kyc_pending",
    "kyc_under_review",
    "approved",
    "deposit_enabled",
    "trading_enabled",
)

T = TypeVar("T")
R = TypeVar("R")


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """One client of the demo.

    account  the type of the trading account, "" for none
    code     of the partner who brought them, "" for nobody
    """

    reference: str
    brand: str
    country: str
    currency: str
    risk: str
    account: str = ""
    goes_to: str = PATH[-1]
    code: str = ""


class Known(msgspec.Struct, frozen=True):
    """A client that is known to the broker, with the id and login of a verified account, if any."""

    person: Person
    id: str
    account: str = ""
    login: int = 0


class Desk(msgspec.Struct, frozen=True):
    """Who asks for what: another system, a member of staff, and the one who checks."""

    portal: Api
    operations: Api
    compliance: Api


def sample() -> tuple[Person, ...]:
    """Clients of three brands in two legal entities, of all risk bands."""
    rows = (
        ("northgate", "DE", "EUR", "low", "standard"), ("northgate", "FR", "EUR", "medium", "raw"),
        ("northgate", "CY", "EUR", "low", "standard"), ("northgate", "ES", "EUR", "high", ""),
        ("northgate", "IT", "EUR", "low", "raw"), ("northgate", "PL", "USD", "medium", "standard"),
        ("southbank", "BR", "USD", "low", "standard"), ("southbank", "ZA", "USD", "medium", "raw"),
        ("southbank", "MX", "USD", "low", "standard"), ("southbank", "AE", "USD", "high", ""),
        ("southbank", "TH", "USD", "low", "raw"), ("southbank", "CU", "USD", "low", ""),
        ("eastwind", "VN", "USD", "low", "pro"), ("eastwind", "NG", "USD", "medium", "standard"),
        ("eastwind", "ID", "USD", "low", "pro"), ("eastwind", "KE", "USD", "medium", "raw"),
    )  # fmt: skip
    return tuple(
        Person(
            reference=f"demo-{number:03}", brand=brand, country=country, currency=currency,
            risk=risk, account=account,
            goes_to="restricted" if country == "CU" else PATH[-1],
        )
        for number, (brand, country, currency, risk, account) in enumerate(rows, start=1)
    )  # fmt: skip


async def in_turn(
    work: Callable[[T], Awaitable[R]], things: Sequence[T], at_once: int = AT_ONCE
) -> list[R]:
    """Do the work for each thing, a few at once; the results in the order of the things."""
    room = asyncio.Semaphore(at_once)

    async def one(thing: T) -> R:
        async with room:
            return await work(thing)

    async with asyncio.TaskGroup() as tasks:
        under_way = [tasks.create_task(one(thing)) for thing in things]
    return [task.result() for task in under_way]


async def settle_in(desk: Desk, people: Sequence[Person], at_once: int = AT_ONCE) -> list[Known]:
    """Make the people known, walk them to where they go, and open their accounts."""

    async def one(person: Person) -> Known:
        client = await _client(desk, person)
        client = await _walk(desk, client, person.goes_to)
        if not person.account:
            return Known(person, client["id"])
        account = await open_account(desk, client, person.account)
        return Known(person, client["id"], account["id"], account["login"])

    return await in_turn(one, people, at_once)


async def _client(desk: Desk, person: Person) -> dict[str, Any]:
    """The client of this reference: of an earlier life, or made now."""
    page = await desk.portal.get(f"/v1/clients?reference={person.reference}")
    if page["data"]:
        found: dict[str, Any] = page["data"][0]
        return found
    order = {
        "reference": person.reference, "brand": person.brand, "country": person.country,
        "currency": person.currency, "risk_band": person.risk,
        **({"attribution": {"code": person.code}} if person.code else {}),
    }  # fmt: skip
    made: dict[str, Any] = await desk.portal.post("/v1/clients", order)
    return made


async def _walk(desk: Desk, client: dict[str, Any], goal: str) -> dict[str, Any]:
    """Move a client step by step; a starred step is agreed to by the checker."""
    while client["state"] not in (goal, "restricted"):
        if client["state"] in PATH and goal not in PATH:
            return await move(desk, client, goal, ("deposit",))
        following = PATH[PATH.index(client["state"]) + 1] if client["state"] in PATH else PATH[0]
        client = await move(desk, client, following)
    return client


async def move(
    desk: Desk, client: dict[str, Any], to: str, blocks: tuple[str, ...] = ()
) -> dict[str, Any]:
    """One move of a client, with the agreement of the checker where it needs one."""
    order: dict[str, Any] = {
        "to": to, "expected_version": client["version"], "reason": f"all is in order for {to}",
    }  # fmt: skip
    if blocks:
        order["blocks"] = blocks
    answer = await desk.operations.send("POST", f"/v1/clients/{client['id']}/moves", order)
    if answer.status == 202:
        await desk.compliance.post(
            f"/v1/approvals/{answer.body['id']}/decide",
            {"decision": "approve", "reason": "the file is complete"},
        )
        moved: dict[str, Any] = await desk.portal.get(f"/v1/clients/{client['id']}")
        return moved
    if answer.status != 200:
        raise Unexpected(f"{client['id']} to {to}: {answer.status} {answer.raw.decode()[:500]}")
    done: dict[str, Any] = answer.body
    return done


async def open_account(desk: Desk, client: dict[str, Any], kind: str) -> dict[str, Any]:
    """A verified trading account of the client: one it has, or a new one. Raises Unexpected."""
    have = await desk.portal.get(f"/v1/accounts?client={client['id']}")
    account: dict[str, Any] | None = have["data"][0] if have["data"] else None
    if account is None:
        order = {"client": client["id"], "type": kind, "currency": client["currency"]}
        account = await desk.portal.post("/v1/accounts", order)
    async with asyncio.timeout(ACCOUNT_LIMIT_S):
        while account["state"] in ("requested", "sent", "unknown"):
            await asyncio.sleep(POLL_S)
            account = await desk.portal.get(f"/v1/accounts/{account['id']}")
    if account["state"] != "verified":
        raise Unexpected(f"account {account['id']} is {account['state']}: {account['reason']}")
    return account
