"""The path of a client: made known, moved from state to state, with a second person where needed.

Knows how a client's command becomes one unit: idempotency key, client, event, audit, the caller's
own event. Refuses to know platforms and payments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import asyncpg
import msgspec

from bridge import reads as platform
from gateway.control import acts
from gateway.control.access import Tags
from gateway.control.acts import Deed
from gateway.control.approvals import Approval
from gateway.control.audit import Command, audited
from gateway.control.idempotency import Answer, Idem
from gateway.control.policies import Matter
from gateway.control.refusals import Refusal, not_found
from gateway.control.rules import Compiled, RulebookMoved, Rules
from gateway.flows.approving import Applier, Emit, InUnit, Lane, answered_claim, replayed
from gateway.flows.asking import Asking
from gateway.people import attribution, clients, partners
from gateway.people.clients import Client, Move
from gateway.people.desks import desk_of
from gateway.people.states import State
from gateway.people.views import ClientView, MoveClient, NewClient, client_view
from ledger import reads as books
from ledger.ids import Ids
from ledger.money import UnknownCurrency, currency
from ledger.units import Change, Done, Left, Unit, Why

MOVE_KIND = "client.move"
TRIES_MAX = 5  # times the rules may move under a command


class Asked(msgspec.Struct, frozen=True):
    """What a question about a client keeps until it is decided."""

    before: State
    to: State
    blocks: tuple[str, ...] = ()


class Onboarding:
    """Commands on clients.

    rules   brands; a command refused because they moved is decided again
    asking  asks the second person
    """

    def __init__(
        self,
        lane: Lane,
        pool: asyncpg.Pool,
        rules: Rules,
        asking: Asking,
        ids: Ids,
        emit: Emit,
        now: Callable[[], datetime],
    ) -> None:
        self._lane = lane
        self._pool = pool
        self._rules = rules
        self._asking = asking
        self._ids = ids
        self._emit = emit
        self._now = now

    @property
    def appliers(self) -> dict[str, Applier]:
        """What this flow applies when a question of its kind is agreed to."""
        return {MOVE_KIND: InUnit(self.apply_move, _agreeing)}

    # --- create ---------------------------------------------------------------------------------

    async def create(self, command: Command, order: NewClient, idem: Idem) -> Answer:
        """Make a client known in state `new_lead`. 201 with its Location.

        Raises Refusal `brand-unknown`, `currency-unknown`, `code-unknown`, `reference-taken`,
        `rulebook-moved`.
        """
        for _ in range(TRIES_MAX):
            rules = self._rules.now
            client = await self._attributed(_new_client(rules, self._ids, command, order), order)
            answer, unit = self._creation(rules, client, command, order, idem)
            left = await self._lane.submit(unit)
            if isinstance(left, Done):
                return answer
            if not await self._rules.again(left, rules):
                return await self._other_answer(left, idem)
        raise RulebookMoved

    def _creation(
        self, rules: Compiled, client: Client, command: Command, order: NewClient, idem: Idem
    ) -> tuple[Answer, Unit]:
        body = msgspec.json.encode(client_view(client))
        answer = Answer(201, body, f"/v1/clients/{client.id}")
        unit = Unit(
            (
                rules.check,
                answered_claim(idem, client.id, command, answer),
                *clients.client_created(client, command),
                attribution.attributed(client, order.attribution, command),
                audited(
                    command,
                    "client.create",
                    client.id,
                    self._ids.new("AU"),
                    after=client_view(client),
                    concerns=clients.concerning(client),
                ),
                self._told(client, "client.created", body, command),
            )
        )
        return answer, unit

    async def _attributed(self, client: Client, order: NewClient) -> Client:
        """The client with the contract that registration names. Codes and contracts never change.

        A code counts for clients of its contract's brand.
        """
        if order.attribution is None:
            return client
        async with self._pool.acquire() as conn:
            found = await partners.contract_of_code(conn, order.attribution.code)
        if found is None or found.brand != client.brand:
            said = f"{client.brand} has no contract of the code {order.attribution.code!r}"
            raise Refusal("code-unknown", said)
        return msgspec.structs.replace(client, contract=found.id, code=found.code)

    # --- move -----------------------------------------------------------------------------------

    async def move(self, command: Command, client_id: str, order: MoveClient, idem: Idem) -> Answer:
        """Move a client: 200 with the client, or 202 with the approval a starred move waits for.

        Raises Refusal `not-found`, `version-conflict`, `client-transition`, `blocks-missing`,
        `blocks-misplaced`, `approval-open`, `money-left`.
        """
        async with self._pool.acquire() as conn:
            if (answer := await replayed(conn, idem, command.at)) is not None:
                return answer
            client = await clients.find_within(conn, command.caller, client_id)
            if client is None:
                raise not_found("client", client_id)
            rich = order.to is State.ARCHIVED and await has_money(conn, client)
        move = Move(order.to, order.blocks)
        if await self._starred(command, client, order, rich=rich):
            return await self._ask(command, client, move, idem)
        done = await self._judged(command, client, move)
        after = clients.moved(client, move, command.at)
        view = client_view(after)
        answer = Answer(200, msgspec.json.encode(view))
        claim = answered_claim(idem, client.id, command, answer)
        unit = Unit((claim, *done, *self._moved(client, after, command)))
        left = await self._lane.submit(unit)
        return answer if isinstance(left, Done) else await self._other_answer(left, idem)

    async def _judged(self, command: Command, client: Client, move: Move) -> Sequence[Change]:
        """The act of a move that needs nobody else; a refused one leaves its trace in the audit."""
        action = "kyc.approve" if _passes(client.state, move.to) else "lifecycle.move"
        try:
            async with self._pool.acquire() as conn:
                return await acts.acted(conn, command, Deed(action, client.id))
        except Refusal as no:
            tried = {"to": move.to, "refused": no.code, **no.facts}
            await self._lane.submit(Unit((self._audited(command, client, tried),)))
            raise

    async def _starred(
        self, command: Command, client: Client, order: MoveClient, *, rich: bool
    ) -> bool:
        """Whether the move needs a checker; a refused move leaves its trace in the audit."""
        try:
            if client.version != order.expected_version:
                said = f"the client is at version {client.version}"
                raise Refusal("version-conflict", said, {"version": client.version})
            starred = clients.needs_checker(client, Move(order.to, order.blocks))
            if rich:
                raise _money_left()
            return starred
        except Refusal as no:
            tried = {"to": order.to, "refused": no.code}
            await self._lane.submit(Unit((self._audited(command, client, tried),)))
            raise

    def _moved(
        self, client: Client, after: Client, command: Command, approval: str = ""
    ) -> tuple[Change, ...]:
        view = client_view(after)
        return (
            *clients.client_moved(client, after, command, approval=approval),
            self._audited(command, client, {"view": view}, approval),
            self._told(client, "client.moved", msgspec.json.encode(view), command),
        )

    def _told(self, client: Client, kind: str, body: bytes, command: Command) -> Change:
        """The event for whoever made the client known."""
        return self._emit(client.caller, kind, client.id, body, command.correlation)

    def _audited(
        self, command: Command, client: Client, after: object, approval: str = ""
    ) -> Change:
        before: ClientView = client_view(client)
        return audited(
            command, "client.move", client.id, self._ids.new("AU"), before=before, after=after,
            concerns=clients.concerning(client), approvals=(approval,) if approval else (),
        )  # fmt: skip

    # --- a second person ------------------------------------------------------------------------

    async def _ask(self, command: Command, client: Client, move: Move, idem: Idem) -> Answer:
        """Ask a second person, while the client stays as it was read."""
        matter = Matter(
            kind=MOVE_KIND,
            subject=client.id,
            payload=Asked(client.state, move.to, move.blocks),
            entity=client.entity,
            brand=client.brand,
            desk=client.tags.desk,
            contracts=client.tags.contracts,
            risk=client.risk_band,
        )

        def also(approval: Approval) -> tuple[Change, ...]:
            asked = {"to": move.to, "approval": approval.id}
            return clients.still(client), self._audited(command, client, asked)

        return await self._asking.ask(command, matter, idem, also, _making)

    async def apply_move(
        self, conn: asyncpg.Connection, approval: Approval, command: Command
    ) -> Sequence[Change]:
        """The effect of an agreed move.

        Raises Refusal `approval-stale` when the client went on, `money-left` as `move` does.
        """
        client = await clients.find(conn, approval.subject)
        assert client is not None, approval.subject
        asked = msgspec.json.decode(approval.payload, type=Asked)
        if client.state is not asked.before:
            said = f"the client is {client.state} now; refuse this and ask again"
            raise Refusal("approval-stale", said, {"state": client.state})
        if asked.to is State.ARCHIVED and await has_money(conn, client):
            raise _money_left()
        after = clients.moved(client, Move(asked.to, asked.blocks), command.at)
        return self._moved(client, after, command, approval.id)

    async def _other_answer(self, left: Left, idem: Idem) -> Answer:
        """What a unit that was left out means: a replay of our key, or a Refusal."""
        async with self._pool.acquire() as conn:
            if (answer := await replayed(conn, idem, self._now())) is not None:
                return answer
        if left.why is Why.CLAIMED and left.kind == clients.CLAIM.name:
            found = left.found or {}
            facts = {"client": found.get("id")}
            raise Refusal("reference-taken", "you have a client of this reference", facts)
        raise Refusal("version-conflict", "the client changed while this command was under way")


def _passes(before: State, to: State) -> bool:
    """Whether a move is the decision of a review of who the client is."""
    return before is State.KYC_UNDER_REVIEW and to is State.APPROVED


def _making(approval: Approval) -> Sequence[Deed]:
    asked = msgspec.json.decode(approval.payload, type=Asked)
    action = "kyc.request" if _passes(asked.before, asked.to) else "lifecycle.request"
    return (Deed(action, approval.subject, approval.id),)


def _agreeing(approval: Approval) -> Sequence[Deed]:
    asked = msgspec.json.decode(approval.payload, type=Asked)
    action = "kyc.approve" if _passes(asked.before, asked.to) else "lifecycle.approve"
    return (Deed(action, approval.subject, approval.id),)


def _new_client(rules: Compiled, ids: Ids, command: Command, order: NewClient) -> Client:
    known = rules.brands.get(order.brand)
    unknown = Refusal("brand-unknown", f"no brand {order.brand!r} is known to you")
    if known is None:
        raise unknown
    brand, entity = known
    desk = desk_of(rules.book.desks, entity.id, brand.id, order.country)
    if not command.caller.reaches(Tags(entity.id, brand.id, desk)):
        raise unknown
    try:
        currency(order.currency)
    except UnknownCurrency as error:
        raise Refusal("currency-unknown", str(error)) from None
    return Client(
        id=ids.new("CL"),
        version=1,
        caller=command.caller.owner,
        reference=order.reference,
        brand=brand.id,
        entity=entity.id,
        book=entity.book,
        country=order.country,
        currency=order.currency,
        client_type=order.client_type,
        risk_band=order.risk_band,
        state=State.NEW_LEAD,
        blocks=(),
        came_from="",
        correlation=command.correlation,
        created=command.at,
        updated=command.at,
        desk=desk,
    )


async def has_money(conn: asyncpg.Connection, client: Client) -> bool:
    """Whether the books still hold anything of the client's, in the wallet or on a platform."""
    owners = [client.id, *[each.id for each in await platform.accounts_of(conn, client.id)]]
    for owner in owners:
        if any(held.minor for held in await books.balances(conn, [client.book], owner=owner)):
            return True
    return False


def _money_left() -> Refusal:
    return Refusal("money-left", "the client still has money; an archived client has none")
