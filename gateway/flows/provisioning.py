"""Trading accounts: asked for by a client's system, created once, read back, told.

Knows the order of commits around a creation and which group an account belongs to. Refuses to know
the platform's protocol (`bridge/provision.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg
import msgspec

from bridge import reads as bridge_reads
from bridge import rows
from bridge.logins import LoginsExhausted, allocate_login
from bridge.mapping import NoPlacement, Placement, Wish
from bridge.outcomes import Done, NotSent, Outcome, Refused, Unknown
from bridge.provision import Passwords, Provisioner, state_after
from bridge.states import Account, AccountState
from gateway.control import idempotency
from gateway.control.audit import Command, audited
from gateway.control.idempotency import Abandoned, Answer, Idem, claimed
from gateway.control.items import item_opened
from gateway.control.refusals import Refusal, not_found
from gateway.control.rules import Compiled, Rules
from gateway.flows.outbox import Emitter, Submit
from gateway.flows.views import AccountView, NewAccount, account_view
from gateway.owners import Ownership
from gateway.people import clients
from gateway.people.clients import Client
from ledger import units
from ledger.ids import Ids
from ledger.units import Change, Unit, Why

ACTOR: Final = "svc.mt"
TRIES_MAX: Final = 5
STUCK_AFTER: Final = 10  # tries without an end; then a person hears of it, and we go on trying
PAUSE_FIRST_S, PAUSE_MAX_S = 1.0, 60.0
CLAIM_ANSWERED: Final = timedelta(seconds=30)


class Accounts:
    """Commands about trading accounts.

    rules  where an account belongs; a request refused because they moved is decided again
    """

    def __init__(
        self,
        *,
        lane: Submit,
        pool: asyncpg.Pool,
        rules: Rules,
        ids: Ids,
        emit: Emitter,
        now: Callable[[], datetime],
        wake: Callable[[str], None],
    ) -> None:
        self._lane = lane
        self._pool = pool
        self._rules = rules
        self._ids = ids
        self._emit = emit
        self._now = now
        self._wake = wake

    async def request(self, command: Command, order: NewAccount, idem: Idem) -> Answer:
        """Ask for an account: 202; its state is told when the platform has answered.

        Raises Refusal `not-found`, `client-state`, `no-group`, `leverage-too-high`,
        `rulebook-moved`.
        """
        for _ in range(TRIES_MAX):
            rules = self._rules.now
            async with self._pool.acquire() as conn:
                held = await idempotency.find(conn, idem)
                if held is not None:
                    return self._replayed(idem, held)
                client, placement = await self._placed(conn, rules, command, order)
            account = self._account(command, client, order, placement)
            answer = _accepted(account)
            unit = self._unit(rules, command, client, account, placement.level, idem, answer)
            left = await self._lane.submit(unit)
            if isinstance(left, units.Done):
                self._wake(account.server)
                return answer
            if left.why is Why.CLAIMED and left.found is not None:
                return self._replayed(idem, idempotency.stored(left.found))
            await self._rules.again(left, rules)
        raise Refusal("version-conflict", "the client keeps changing; try again")

    async def _placed(
        self, conn: asyncpg.Connection, rules: Compiled, command: Command, order: NewAccount
    ) -> tuple[Client, Placement]:
        client = await clients.find_within(conn, command.caller, order.client)
        if client is None:
            raise not_found("client", order.client)
        if (refused := clients.may_open_account(client)) is not None:
            raise refused
        wish = Wish(
            entity=client.entity, brand=client.brand, account_type=order.type,
            currency=order.currency, leverage=order.leverage or None,
        )  # fmt: skip
        placement = rules.mapping.place(wish)
        if isinstance(placement, NoPlacement):
            raise Refusal(placement.code, placement.detail)
        return client, placement

    def _account(
        self, command: Command, client: Client, order: NewAccount, placement: Placement
    ) -> Account:
        return Account(
            id=self._ids.new("AC"), client_id=client.id, book=client.book,
            server=placement.server, entity=client.entity, brand=client.brand,
            account_type=order.type, currency=order.currency, platform_group=placement.group,
            leverage=placement.leverage, rights=placement.rights, due_at=command.at,
            caller=command.caller.owner, correlation=command.correlation, created=command.at,
            updated=command.at,
        )  # fmt: skip

    def _unit(
        self, rules: Compiled, command: Command, client: Client, account: Account, level: str,
        idem: Idem, answer: Answer,
    ) -> Unit:  # fmt: skip
        """Its first event says where the group was written: for the brand or for the entity."""
        until = command.at + CLAIM_ANSWERED
        body = msgspec.json.encode(account_view(account))
        return Unit(
            (
                rules.check,
                clients.still(client),
                claimed(idem, account.id, answer.location, command.at, until, answer),
                *rows.account_requested(account, command.caller.person, {"group_level": level}),
                audited(
                    command, "account.request", account.id, self._ids.new("AU"),
                    after=account_view(account), concerns=clients.concerning(client),
                ),
                self._emit(
                    account.caller, "account.requested", account.id, body, account.correlation
                ),
            )
        )  # fmt: skip

    def _replayed(self, idem: Idem, held: idempotency.Stored) -> Answer:
        said = idempotency.replay_or_refuse(idem, held, self._now())
        assert not isinstance(said, Abandoned), "the answer is stored with the claim"
        return said

    async def view(self, conn: asyncpg.Connection, account_id: str) -> AccountView | None:
        """The account as it is told; None when there is none."""
        account = await bridge_reads.account(conn, account_id)
        return None if account is None else account_view(account)


def _accepted(account: Account) -> Answer:
    body = msgspec.json.encode(account_view(account))
    return Answer(202, body, f"/v1/accounts/{account.id}", 1)


class AccountMaker:
    """Creates the accounts of one server for its owner."""

    def __init__(
        self,
        *,
        server: str,
        replica: str,
        provisioner: Provisioner,
        pool: asyncpg.Pool,
        lane: Submit,
        ownership: Ownership,
        rules: Rules,
        lease_s: float,
        ids: Ids,
        emit: Emitter,
        passwords: Callable[[], Passwords],
        now: Callable[[], datetime],
        boot_time: Callable[[], float],
    ) -> None:
        self._server = server
        self._replica = replica
        self._provisioner = provisioner
        self._pool = pool
        self._lane = lane
        self._ownership = ownership
        self._rules = rules
        self._lease_s = lease_s
        self._ids = ids
        self._emit = emit
        self._passwords = passwords
        self._now = now
        self._boot_time = boot_time

    async def handle(self, account: Account) -> None:
        """One look at a due account. A creation is idempotent: its login was leased before."""
        if account.state is AccountState.SENT:  # the lease ended and nobody wrote an answer
            await self._moved(account, AccountState.UNKNOWN, due_at=self._now(), reason="lease")
            return
        login = await self._login(account)
        if login is None:
            return
        now, boot = self._now(), self._boot_time()
        until = now + timedelta(seconds=self._lease_s)
        columns: dict[str, Any] = {
            "login": login, "due_at": until, "lease_owner": self._replica, "lease_until": until,
        }  # fmt: skip
        if not await self._moved(account, AccountState.SENT, **columns):
            return
        sent = rows.account_after(account, AccountState.SENT, now, **columns)

        def may_send() -> bool:
            return self._boot_time() - boot < self._lease_s / 2 and self._ownership.fresh()

        outcome = await self._provisioner.create(sent, self._passwords(), may_send)
        await self._answered(sent, outcome)

    async def park(self, account: Account, why: str) -> None:
        """Look at it no more: its handling fails again and again, a person must find out why."""
        text = f"handling it fails: {why}"[:300].replace("\0", "")
        item = self._item("account-parked", account, text)
        parked = rows.account_parked(account, "parked", self._now(), ACTOR)
        await self._lane.submit(Unit((self._ownership.still(), *parked, item)))

    async def _login(self, account: Account) -> int | None:
        """The number leased for this account; None when the range is used up (an item says so)."""
        if account.login is not None:
            return account.login
        wish = Wish(
            entity=account.entity, brand=account.brand, account_type=account.account_type,
            currency=account.currency,
        )  # fmt: skip
        place = self._rules.now.mapping.place(wish)
        if isinstance(place, NoPlacement):
            await self._refused(account, place.code, place.detail)
            return None
        try:
            async with self._pool.acquire() as conn:
                return await allocate_login(
                    conn, account.server, place.login_from, place.login_to, account.id
                )
        except LoginsExhausted as error:
            await self._refused(account, "logins-exhausted", str(error))
            return None

    async def _refused(self, account: Account, code: str, why: str) -> None:
        item = self._item("account-refused", account, why)
        await self._moved(
            account, AccountState.REFUSED, extra=(item,), tell=True, reason=code, due_at=None
        )

    async def _answered(self, account: Account, outcome: Outcome) -> None:
        to = state_after(outcome)
        columns: dict[str, Any] = {"due_at": None, "reason": "", **_NO_LEASE}
        extra: tuple[Change, ...] = ()
        if to in (AccountState.REQUESTED, AccountState.UNKNOWN):
            columns |= {"due_at": self._pause(account), "reason": _reason(outcome)}
            if account.attempts >= STUCK_AFTER:
                why = f"{account.attempts} tries at {account.server} had no end: {_reason(outcome)}"
                extra = (self._item("account-stuck", account, why),)
        elif to is not AccountState.VERIFIED:
            columns["reason"] = _reason(outcome)
            assert isinstance(outcome, Refused)
            why = f"{account.server} answered {outcome.code} {outcome.text}"
            extra = (self._item(f"account-{to.value}".replace("_", "-"), account, why),)
        final = to not in (AccountState.REQUESTED, AccountState.UNKNOWN)
        await self._moved(account, to, outcome=outcome, extra=extra, tell=final, **columns)

    def _pause(self, account: Account) -> datetime:
        pause = min(PAUSE_FIRST_S * 2.0 ** min(account.attempts - 1, 10), PAUSE_MAX_S)
        return self._now() + timedelta(seconds=pause)

    async def _moved(
        self, account: Account, to: AccountState, *, outcome: Outcome | None = None,
        extra: tuple[Change, ...] = (), tell: bool = False, **columns: Any,
    ) -> bool:  # fmt: skip
        now = self._now()
        calls: tuple[Change, ...] = ()
        if outcome is not None:
            calls = rows.jobs_logged(account.id, account.attempts, self._server, outcome)
        told: tuple[Change, ...] = ()
        if tell:
            after = rows.account_after(account, to, now, **columns)
            body = msgspec.json.encode(account_view(after))
            kind = f"account.{to.value}"
            told = (self._emit(account.caller, kind, account.id, body, account.correlation),)
        move = rows.account_moved(account, to, at=now, actor=ACTOR, **columns)
        unit = Unit((self._ownership.still(), *move, *calls, *extra, *told))
        return isinstance(await self._lane.submit(unit), units.Done)

    def _item(self, kind: str, account: Account, why: str) -> Change:
        return item_opened(
            self._ids.new("IT"), kind, "platform", account.id, why, self._now(),
            entity=account.entity, correlation=account.correlation,
        )  # fmt: skip


def _reason(outcome: Outcome) -> str:
    """A stable code of why an account is not verified."""
    match outcome:
        case Refused():
            return "verify" if outcome.kind == "verify" else f"retcode-{outcome.code}"
        case NotSent() | Unknown():
            return outcome.reason
        case Done():
            return ""


_NO_LEASE: Final[dict[str, Any]] = {"lease_owner": "", "lease_until": None}
