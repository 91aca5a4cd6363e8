"""Commands on partners: made known, and given contracts with a place in the tree and a plan.

Knows how such a command becomes one unit that moves the inputs of its book. Refuses to know what a
plan pays, and to change what stands: edges and terms are only added.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from typing import Final

import asyncpg
import msgspec

from config.rulebook import Brand, Entity
from gateway.control.access import Tags
from gateway.control.audit import Command, Concerns, audited
from gateway.control.idempotency import Answer, Idem
from gateway.control.refusals import Refusal, not_found
from gateway.control.rules import Compiled, Rules
from gateway.flows.approving import Lane, answered_claim, replayed
from gateway.people import partners
from gateway.people.partners import Contract, Partner
from gateway.people.views_partners import NewContract, NewPartner, contract_view, partner_view
from ledger.ids import Ids
from ledger.rebates import inputs
from ledger.units import Done, Left, Unit, Why

TRIES_MAX: Final = 20  # times the inputs of a book may move under a command, by other replicas


class Partnering:
    """Commands on partners.

    lane   one unit a transaction: what locks a book's inputs must wait for nobody
    rules  brands and plans; a contract refused because they moved is decided again
    """

    def __init__(
        self,
        lane: Lane,
        pool: asyncpg.Pool,
        rules: Rules,
        ids: Ids,
        now: Callable[[], datetime],
    ) -> None:
        self._lane = lane
        self._pool = pool
        self._rules = rules
        self._ids = ids
        self._now = now
        # One command of this replica at a time reads a book's inputs and moves them.
        self._turns: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    # --- partners -------------------------------------------------------------------------------

    async def create(self, command: Command, order: NewPartner, idem: Idem) -> Answer:
        """Make a partner known. 201 with its Location. Raises Refusal `reference-taken`."""
        partner = Partner(
            id=self._ids.new("PA"), version=1, caller=command.caller.owner,
            reference=order.reference, kind=order.kind, state="active",
            correlation=command.correlation, created=command.at,
        )  # fmt: skip
        view = partner_view(partner)
        answer = Answer(201, msgspec.json.encode(view), f"/v1/partners/{partner.id}")
        unit = Unit(
            (
                answered_claim(idem, partner.id, command, answer),
                partners.partner_created(partner),
                audited(command, "partner.create", partner.id, self._ids.new("AU"), after=view),
            )
        )
        left = await self._lane.submit(unit)
        return answer if isinstance(left, Done) else await self._other_answer(left, idem)

    # --- contracts ------------------------------------------------------------------------------

    async def contract(
        self, command: Command, partner_id: str, order: NewContract, idem: Idem
    ) -> Answer:
        """Give a partner a contract. 201 with its Location.

        Raises Refusal `not-found`, `brand-unknown`, `plan-unknown`, `currency-mismatch`,
        `parent-unknown`, `parent-elsewhere`, `contract-exists`, `code-taken`, `rulebook-moved`.
        """
        _, entity = _brand(self._rules.now, command, order)
        async with self._turns[entity.book]:
            for _ in range(TRIES_MAX):
                rules = self._rules.now
                brand, entity = _brand(rules, command, order)
                _require_plan(rules, order)
                async with self._pool.acquire() as conn:
                    if (answer := await replayed(conn, idem, command.at)) is not None:
                        return answer
                    await self._require_partner(conn, command, partner_id)
                    await self._require_parent(conn, command, order, entity)
                    version = await inputs.version(conn, entity.book)
                made = self._contract(command, partner_id, order, brand, entity, version + 1)
                answer, unit = self._unit(rules, command, made, idem)
                left = await self._lane.submit(unit)
                if isinstance(left, Done):
                    return answer
                if left.why is not Why.STALE and not await self._rules.again(left, rules):
                    return await self._other_answer(left, idem)
        raise Refusal("conflict", "the tree of this book kept changing meanwhile")

    async def _require_partner(
        self, conn: asyncpg.Connection, command: Command, partner_id: str
    ) -> None:
        if await partners.find(conn, command.caller, partner_id) is None:
            raise not_found("partner", partner_id)

    async def _require_parent(
        self, conn: asyncpg.Connection, command: Command, order: NewContract, entity: Entity
    ) -> None:
        """What stands above it is in the same books and currency. A new contract closes no circle:
        nothing stands below it yet.
        """
        if order.parent is None:
            return
        parent = await partners.contract_within(conn, command.caller, order.parent)
        if parent is None:
            raise Refusal("parent-unknown", f"no contract {order.parent!r} is known to you")
        if parent.book != entity.book:
            said = f"the parent is in the books of {parent.entity}, the contract of {entity.id}"
            raise Refusal("parent-elsewhere", said)
        if parent.currency != order.currency:
            said = f"the parent is in {parent.currency}, the contract in {order.currency}"
            raise Refusal("currency-mismatch", said)

    def _contract(
        self, command: Command, partner_id: str, order: NewContract, brand: Brand, entity: Entity,
        version: int,
    ) -> Contract:  # fmt: skip
        id = self._ids.new("CT")
        return Contract(
            id=id, partner_id=partner_id, brand=brand.id, entity=entity.id, book=entity.book,
            currency=order.currency, code=order.code or id[2:], parent=order.parent or "",
            plan=order.plan, inputs=version, children=0, correlation=command.correlation,
            created=command.at,
        )  # fmt: skip

    def _unit(
        self, rules: Compiled, command: Command, contract: Contract, idem: Idem
    ) -> tuple[Answer, Unit]:
        view = contract_view(contract)
        answer = Answer(201, msgspec.json.encode(view), f"/v1/contracts/{contract.id}")
        audit_id = self._ids.new("AU")
        changes = (
            rules.check,
            answered_claim(idem, contract.id, command, answer),
            inputs.moved(contract.book, contract.inputs - 1),
            *partners.contract_created(contract),
            audited(
                command,
                "contract.create",
                contract.id,
                audit_id,
                after=view,
                concerns=Concerns(contract.entity, contract.brand, "", contract.id),
            ),
        )
        return answer, Unit(changes)

    async def _other_answer(self, left: Left, idem: Idem) -> Answer:
        """What a unit that was left out means: a replay of our key, or a Refusal."""
        async with self._pool.acquire() as conn:
            if (answer := await replayed(conn, idem, self._now())) is not None:
                return answer
        found = left.found or {}
        if left.kind == partners.PARTNER.name:
            facts = {"partner": found.get("id")}
            raise Refusal("reference-taken", "you have a partner of this reference", facts)
        if left.kind == partners.CONTRACT.name:
            facts = {"contract": found.get("id")}
            raise Refusal("contract-exists", "the partner has a contract with this brand", facts)
        if left.kind == partners.CODE.name:
            raise Refusal("code-taken", f"another contract has the code {left.key!r}")
        raise Refusal("conflict", f"left out: {left.why.value} {left.kind}")


def _brand(rules: Compiled, command: Command, order: NewContract) -> tuple[Brand, Entity]:
    known = rules.brands.get(order.brand)
    if known is None or not command.caller.reaches(Tags(known[1].id, known[0].id)):
        raise Refusal("brand-unknown", f"no brand {order.brand!r} is known to you")
    return known


def _require_plan(rules: Compiled, order: NewContract) -> None:
    unit = rules.plans.get(order.plan)
    if unit is None:
        raise Refusal("plan-unknown", f"the rulebook in force has no plan {order.plan!r}")
    if unit != order.currency:
        said = f"plan {order.plan!r} is in {unit}, the contract in {order.currency}"
        raise Refusal("currency-mismatch", said)
