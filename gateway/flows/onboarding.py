"""The path of a client: made known, moved from state to state, with a second person where needed.

Knows how a client's command becomes one unit: idempotency key, client, event, audit, the caller's
own event. Refuses to know platforms and payments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import asyncpg
import msgspec

from bridge import reads as platform
from config.rulebook import ApprovalPolicy, Brand, Entity, Rulebook
from gateway.control import approvals
from gateway.control.approvals import Approval, Verdict
from gateway.control.audit import Command, audited
from gateway.control.idempotency import Answer, Idem
from gateway.control.refusals import Refusal, not_found
from gateway.control.views import approval_view
from gateway.flows.approving import Applier, Emit, Lane, answered_claim, replayed
from gateway.people import attribution, clients, partners
from gateway.people.clients import Client, Move
from gateway.people.states import State
from gateway.people.views import ClientView, MoveClient, NewClient, client_view
from ledger import reads as books
from ledger.ids import Ids
from ledger.money import UnknownCurrency, currency
from ledger.units import Change, Done, Left, Unit, Why

MOVE_KIND = "client.move"
DEFAULT_POLICY = ApprovalPolicy(kind=MOVE_KIND)  # a starred move has a checker, rulebook or not


class Asked(msgspec.Struct, frozen=True):
    """What a question about a client keeps until it is decided."""

    before: State
    to: State
    blocks: tuple[str, ...] = ()


class Onboarding:
    """Commands on clients."""

    def __init__(
        self,
        lane: Lane,
        pool: asyncpg.Pool,
        book: Rulebook,
        ids: Ids,
        emit: Emit,
        now: Callable[[], datetime],
    ) -> None:
        self._lane = lane
        self._pool = pool
        self._rulebook = book.hash
        self._policy = book.onboarding.policy(MOVE_KIND) or DEFAULT_POLICY
        self._ids = ids
        self._emit = emit
        self._now = now
        entities = {entity.id: entity for entity in book.entities}
        self._brands: dict[str, tuple[Brand, Entity]] = {
            brand.id: (brand, entities[brand.entity]) for brand in book.brands
        }

    @property
    def appliers(self) -> dict[str, Applier]:
        """What this flow applies when a question of its kind is agreed to."""
        return {MOVE_KIND: self.apply_move}

    # --- create ---------------------------------------------------------------------------------

    async def create(self, command: Command, order: NewClient, idem: Idem) -> Answer:
        """Make a client known in state `new_lead`. 201 with its Location.

        Raises Refusal `brand-unknown`, `currency-unknown`, `code-unknown`, `reference-taken`.
        """
        client = await self._attributed(self._new_client(command, order), order)
        body = msgspec.json.encode(client_view(client))
        answer = Answer(201, body, f"/v1/clients/{client.id}")
        unit = Unit(
            (
                answered_claim(idem, client.id, command, answer),
                *clients.client_created(client, command),
                attribution.attributed(client, order.attribution, command),
                audited(
                    command,
                    "client.create",
                    client.id,
                    self._ids.new("AU"),
                    after=client_view(client),
                ),
                self._told(client, "client.created", body, command),
            )
        )
        left = await self._lane.submit(unit)
        if isinstance(left, Done):
            return answer
        return await self._other_answer(left, idem)

    def _new_client(self, command: Command, order: NewClient) -> Client:
        known = self._brands.get(order.brand)
        if known is None or not command.caller.reaches(known[1].id):
            raise Refusal("brand-unknown", f"no brand {order.brand!r} is known to you")
        try:
            currency(order.currency)
        except UnknownCurrency as error:
            raise Refusal("currency-unknown", str(error)) from None
        brand, entity = known
        return Client(
            id=self._ids.new("CL"),
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
        )

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
            client = await clients.find(conn, client_id)
            if client is None or not command.caller.reaches(client.entity):
                raise not_found("client", client_id)
            rich = order.to is State.ARCHIVED and await has_money(conn, client)
        move = Move(order.to, order.blocks)
        if await self._starred(command, client, order, rich=rich):
            return await self._ask(command, client, move, idem)
        after = clients.moved(client, move, command.at)
        view = client_view(after)
        answer = Answer(200, msgspec.json.encode(view))
        unit = Unit(
            (answered_claim(idem, client.id, command, answer), *self._moved(client, after, command))
        )
        left = await self._lane.submit(unit)
        return answer if isinstance(left, Done) else await self._other_answer(left, idem)

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
            self._audited(command, client, {"view": view, "approval": approval}),
            self._told(client, "client.moved", msgspec.json.encode(view), command),
        )

    def _told(self, client: Client, kind: str, body: bytes, command: Command) -> Change:
        """The event for whoever made the client known."""
        return self._emit(client.caller, kind, client.id, body, command.correlation)

    def _audited(self, command: Command, client: Client, after: object) -> Change:
        before: ClientView = client_view(client)
        audit_id = self._ids.new("AU")
        return audited(command, "client.move", client.id, audit_id, before=before, after=after)

    # --- a second person ------------------------------------------------------------------------

    async def _ask(self, command: Command, client: Client, move: Move, idem: Idem) -> Answer:
        """Store the question and answer 202; an expired question makes way first."""
        for _ in range(2):
            answer, unit = self._question(command, client, move, idem)
            left = await self._lane.submit(unit)
            if isinstance(left, Done):
                return answer
            if left.why is not Why.CLAIMED or left.kind != approvals.ASK.name:
                return await self._other_answer(left, idem)
            await self._expire_or_refuse(left, idem, command)
        raise Refusal("conflict", "another question about this client was asked meanwhile")

    def _question(
        self, command: Command, client: Client, move: Move, idem: Idem
    ) -> tuple[Answer, Unit]:
        approval = approvals.asked(
            self._ids.new("AP"),
            command,
            self._policy,
            self._rulebook,
            subject=client.id,
            entity=client.entity,
            payload=Asked(client.state, move.to, move.blocks),
            expires=command.at + timedelta(seconds=self._policy.expiry_s),
        )
        body = msgspec.json.encode(approval_view(approval, command.at))
        answer = Answer(202, body, f"/v1/approvals/{approval.id}")
        asked = {"to": move.to, "approval": approval.id}
        changes = (
            answered_claim(idem, approval.id, command, answer),
            *approvals.approval_asked(approval),
            clients.still(client),
            self._audited(command, client, asked),
            self._emit(
                approval.maker_owner,
                "approval.asked",
                approval.id,
                body,
                command.correlation,
            ),
        )
        return answer, Unit(changes)

    async def _expire_or_refuse(self, left: Left, idem: Idem, command: Command) -> None:
        """Close the open question in our way when its time has passed, else refuse."""
        held_id = str((left.found or {}).get("id", ""))
        async with self._pool.acquire() as conn:
            held = await approvals.find(conn, held_id)
        if held is None or held.state != "open":
            return  # it was decided a moment ago: ask again
        if held.expires > command.at:
            raise Refusal(
                "approval-open", "this client has an open approval already", {"approval": held.id}
            )
        verdict = Verdict("expired", held.votes)
        await self._lane.submit(Unit(approvals.approval_moved(held, verdict, command, "expired")))

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


async def has_money(conn: asyncpg.Connection, client: Client) -> bool:
    """Whether the books still hold anything of the client's, in the wallet or on a platform."""
    owners = [client.id, *[each.id for each in await platform.accounts_of(conn, client.id)]]
    for owner in owners:
        if any(held.minor for held in await books.balances(conn, [client.book], owner=owner)):
            return True
    return False


def _money_left() -> Refusal:
    return Refusal("money-left", "the client still has money; an archived client has none")
