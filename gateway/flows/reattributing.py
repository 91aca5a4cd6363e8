"""Another partner for a client: asked by one person, agreed to by another, dated, never backwards.

Knows how a change becomes a question, and what the last vote writes: the dated row, its record, and
the version of the book's inputs that makes accrual read them. Refuses to touch what was earned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import asyncpg
import msgspec

from gateway.control.approvals import Approval
from gateway.control.audit import Command, Concerns, audited
from gateway.control.idempotency import Answer, Idem
from gateway.control.policies import Matter
from gateway.control.refusals import Refusal, not_found
from gateway.flows.approving import Applier, Emit, InTransaction, Lane, replayed
from gateway.flows.asking import Asking
from gateway.flows.transacting import store
from gateway.people import attribution_changes as changes
from gateway.people import clients, partners
from gateway.people.attribution_changes import AttributionChange, Wish
from gateway.people.clients import Client
from gateway.people.partners import Contract
from gateway.people.views_attribution import NewAttribution, change_view
from ledger.ids import Ids
from ledger.rebates import inputs
from ledger.units import Change, Unit

KIND: Final = "attribution.change"


class Reattributing:
    """Asks for changes of attribution, and makes those that were agreed to."""

    def __init__(
        self,
        lane: Lane,
        pool: asyncpg.Pool,
        asking: Asking,
        ids: Ids,
        emit: Emit,
        now: Callable[[], datetime],
    ) -> None:
        self._lane = lane
        self._pool = pool
        self._asking = asking
        self._ids = ids
        self._emit = emit
        self._now = now

    @property
    def appliers(self) -> dict[str, Applier]:
        """What this flow applies when a question of its kind is agreed to."""
        return {KIND: InTransaction(self.apply)}

    # --- asking ---------------------------------------------------------------------------------

    async def ask(
        self, command: Command, client_id: str, order: NewAttribution, idem: Idem
    ) -> Answer:
        """Ask that a client comes through another contract. 202 with the approval it waits for.

        Raises Refusal `not-found`, `code-unknown`, those of `changes.require_possible` and of
        `Asking.ask`. A wish that cannot be leaves its trace in the audit.
        """
        async with self._pool.acquire() as conn:
            if (answer := await replayed(conn, idem, command.at)) is not None:
                return answer
            client = await clients.find(conn, client_id)
            if client is None or not command.caller.reaches(client.tags):
                raise not_found("client", client_id)
            last = await changes.last_of(conn, client.id)
            old = await partners.contract(conn, last.contract_id)
            new = await partners.contract_of_code(conn, order.code) if order.code else None
        try:
            wish = _wish(client, order, last.contract_id, new)
            changes.require_possible(client, last, wish, command.at)
        except Refusal as no:
            await self._refused(command, client, order, no)
            raise

        def also(approval: Approval) -> tuple[Change, ...]:
            asked = {"asked": wish, "approval": approval.id}
            return (self._audited(command, client, asked, wish),)

        return await self._asking.ask(command, _matter(client, wish, (old, new)), idem, also)

    async def _refused(
        self, command: Command, client: Client, order: NewAttribution, no: Refusal
    ) -> None:
        tried = {"code": order.code, "refused": no.code}
        await self._lane.submit(Unit((self._audited(command, client, tried, None),)))

    def _audited(
        self, command: Command, client: Client, after: object, wish: Wish | None,
        approvals: Sequence[str] = (),
    ) -> Change:  # fmt: skip
        return audited(
            command, KIND, client.id, self._ids.new("AU"),
            before=None if wish is None else {"contract": wish.before}, after=after,
            concerns=Concerns(client.entity, client.brand, client.id, client.contract),
            approvals=approvals,
        )  # fmt: skip

    # --- applying -------------------------------------------------------------------------------

    async def apply(self, conn: asyncpg.Connection, approval: Approval, command: Command) -> None:
        """Make the change in the transaction of the last vote.

        The book's inputs are moved first: from here on no accrual commits that does not know of it.
        Raises Refusal `approval-stale`.
        """
        client = await clients.find(conn, approval.subject)
        assert client is not None, approval.subject
        wish = msgspec.json.decode(approval.payload, type=Wish)
        version = await inputs.advance(conn, client.book)
        changes.require_unmoved(await changes.last_of(conn, client.id), wish)
        change_id, person = self._ids.new("CA"), command.caller.person
        since = await changes.begin(conn, client, wish, change_id, version, person)
        old, new = [await partners.contract(conn, it) for it in (wish.before, wish.after)]
        change = AttributionChange(
            id=change_id, client_id=client.id, effective=since, old_contract=wish.before,
            new_contract=wish.after, old_code=old.code if old else "",
            new_code=new.code if new else "", entity=client.entity, brand=client.brand,
            book=client.book, inputs=version, asked_by=approval.maker,
            asked_role=approval.maker_role, approved_by=(*approval.votes, person),
            ground=wish.ground, reason=approval.reason, evidence=wish.evidence,
            approval=approval.id, at=command.at,
        )  # fmt: skip
        view = change_view(change)
        body = msgspec.json.encode(view)
        left = await store(
            conn,
            (
                changes.recorded(change),
                self._audited(command, client, view, wish, (approval.id,)),
                self._emit(
                    client.caller, "client.reattributed", client.id, body, command.correlation
                ),
            ),
        )
        assert left is None, "these only insert"


def _wish(client: Client, order: NewAttribution, before: str, new: Contract | None) -> Wish:
    """The wish with its contract; a code counts for clients of its contract's brand."""
    if order.code is not None and (new is None or new.brand != client.brand):
        said = f"{client.brand} has no contract of the code {order.code!r}"
        raise Refusal("code-unknown", said)
    return Wish(
        before=before, after=new.id if new else "", ground=order.ground, evidence=order.evidence,
        effective=order.effective,
    )  # fmt: skip


def _matter(client: Client, wish: Wish, sides: Sequence[Contract | None]) -> Matter:
    """What checkers are asked; it concerns both partners, so acts on it count for them too."""
    return Matter(
        kind=KIND,
        subject=client.id,
        payload=wish,
        entity=client.entity,
        brand=client.brand,
        desk=client.desk,
        contracts=client.tags.contracts,
        about=tuple(sorted({each.partner_id for each in sides if each is not None})),
        risk=client.risk_band,
    )
