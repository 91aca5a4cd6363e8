"""People's data: taken, shown with a purpose on record, masked, and erased with a second person.

Knows the order: whoever reads a field in the clear is on record before it is opened. Refuses to
hold plain text anywhere but on its way through, and to erase what an active client is known by.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

import asyncpg
import msgspec

from gateway.control import personal
from gateway.control import queries_personal as q
from gateway.control.approvals import Approval
from gateway.control.audit import Command, audited, write
from gateway.control.idempotency import Answer, Idem
from gateway.control.personal import Vault
from gateway.control.policies import Matter
from gateway.control.refusals import Refusal, not_found
from gateway.flows.approving import Applier, InTransaction, replayed
from gateway.flows.asking import Asking
from gateway.people import clients
from gateway.people.clients import Client
from gateway.people.states import State
from gateway.people.views_personal import Erasure, PersonalData, PersonalView, mask
from ledger.ids import Ids
from ledger.units import Change

KIND: Final = "client.erase"
WHOLE: Final = "clients:read"


class Personal:
    """Keeps what is known of clients as people."""

    def __init__(
        self, pool: asyncpg.Pool, vault: Vault, asking: Asking, ids: Ids,
        now: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self._pool = pool
        self._vault = vault
        self._asking = asking
        self._ids = ids
        self._now = now

    @property
    def appliers(self) -> dict[str, Applier]:
        """What this flow applies when a question of its kind is agreed to."""
        return {KIND: InTransaction(self.apply)}

    async def keep(self, command: Command, client: Client, order: PersonalData) -> PersonalView:
        """Keep these fields of a client in place of what was kept. Answers masked.

        Raises Refusal `personal-off`, `erased`.
        """
        async with self._pool.acquire() as conn, conn.transaction():
            fields = order.fields()
            closed = await self._vault.close(conn, client.id, fields, command.at)
            held = await conn.fetchrow(q.HOLD_PERSONAL, client.id)
            text = msgspec.json.encode(closed).decode()
            version = await conn.fetchval(q.KEEP_PERSONAL, client.id, text, command.at)
            before = msgspec.json.decode(held["fields"]) if held is not None else None
            row = self._audited(command, "client.personal", client, before, closed)
            await write(conn, [row])
        shown = {name: mask(value) for name, value in fields.items()}
        return PersonalView(
            client=client.id, version=version, masked=True, erased=False, fields=shown
        )

    async def view(self, command: Command, client: Client) -> PersonalView:
        """What is known of a client: whole, with its purpose on record, or masked.

        Raises Refusal `not-found` where nothing is known, `reason-missing`, `personal-off`.
        """
        whole = any(
            WHOLE in held.scopes and held.reach.holds(client.tags) for held in command.caller.grants
        )
        async with self._pool.acquire() as conn:
            held = await conn.fetchrow(q.PERSONAL, client.id)
            if held is None:
                raise not_found("personal data of", client.id)
            stored = msgspec.json.decode(held["fields"], type=dict[str, str])
            if whole:
                async with conn.transaction():
                    seen = {"fields": sorted(stored)}
                    row = self._audited(command, "client.viewed", client, None, seen)
                    await write(conn, [row])
            fields = await self._vault.open(conn, client.id, stored)
        shown = fields or {}
        if not whole:
            shown = {name: mask(value) for name, value in shown.items()}
        return PersonalView(
            client=client.id, version=held["version"], masked=not whole, erased=fields is None,
            fields=shown,
        )  # fmt: skip

    # --- erasing --------------------------------------------------------------------------------

    async def ask(self, command: Command, client: Client, order: Erasure, idem: Idem) -> Answer:
        """Ask that a client's data is erased. 202 with the approval it waits for.

        Raises Refusal `client-state` unless the client is archived, and those of `Asking.ask`.
        """
        async with self._pool.acquire() as conn:
            if (answer := await replayed(conn, idem, command.at)) is not None:
                return answer
        _require_archived(client)
        matter = Matter(
            kind=KIND, subject=client.id, payload={}, entity=client.entity, brand=client.brand,
            desk=client.desk, contracts=client.tags.contracts, risk=client.risk_band,
        )  # fmt: skip

        def also(approval: Approval) -> tuple[Change, ...]:
            asked = {"approval": approval.id}
            return (
                clients.still(client),
                self._audited(command, KIND, client, None, asked),
            )

        return await self._asking.ask(command, matter, idem, also)

    async def apply(self, conn: asyncpg.Connection, approval: Approval, command: Command) -> None:
        """Destroy the key in the transaction of the last vote. Raises Refusal `approval-stale`."""
        client = await clients.find(conn, approval.subject)
        assert client is not None, approval.subject
        if client.state is not State.ARCHIVED:
            raise Refusal("approval-stale", "the client is not archived any more")
        erased = await personal.destroy(conn, client.id, command.at, command.caller.person)
        row = self._audited(command, KIND, client, None, {"erased": erased}, (approval.id,))
        await write(conn, [row])

    def _audited(
        self, command: Command, name: str, client: Client, before: object, after: object,
        approvals: tuple[str, ...] = (),
    ) -> Change:  # fmt: skip
        return audited(
            command, name, client.id, self._ids.new("AU"), before=before, after=after,
            concerns=clients.concerning(client), approvals=approvals,
        )  # fmt: skip


def _require_archived(client: Client) -> None:
    if client.state is not State.ARCHIVED:
        said = f"the data of a client in state {client.state} is needed: archive the client first"
        raise Refusal("client-state", said, {"state": client.state})
