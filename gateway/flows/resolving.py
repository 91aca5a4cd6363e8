"""The resolver: whatever a deposit waits for, looked at when it is due.

Knows which payments are due, and that an attempt is asked about by one replica at a time. Refuses
to charge blindly: an open attempt is asked about by our own reference, and what follows is decided
by `settle` like any other news. What fails in a way of its own is parked with an item after some
tries, and its neighbours go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

import asyncpg

from config.log import event
from gateway.control.refusals import Refusal
from gateway.control.rules import Rules
from gateway.flows.deposit import Deposits, made_at
from gateway.flows.faults import Patience, away
from gateway.flows.outbox import Submit
from gateway.flows.settlement import ACTOR, Case, Composer
from ledger.units import Done, Unit
from router import moves, reads, rows
from router.attempts import Attempts
from router.intents import Attempt
from router.psp import inbox
from router.psp.inbox import InboxEntry
from router.resolver import next_due
from router.states import OPEN, AttemptState

log = logging.getLogger("gateway.resolver")

POLL_S: Final = 0.25
DUE_MAX: Final = 64
IN_HAND_MAX: Final = 256


class Resolver:
    """Looks at due payments and parked notices until cancelled; any replica may run one."""

    def __init__(
        self,
        *,
        pool: asyncpg.Pool,
        lane: Submit,
        deposits: Deposits,
        attempts: Attempts,
        composer: Composer,
        rules: Rules,
    ) -> None:
        self._pool = pool
        self._lane = lane
        self._deposits = deposits
        self._attempts = attempts
        self._composer = composer
        self._rules = rules
        self._looking: set[str] = set()
        self._patience = Patience()
        self._trouble = ""

    def trouble(self) -> str:
        """What keeps the rows from being read, "" when they are."""
        return self._trouble

    async def run(self) -> None:
        """Poll; each payment in a task of its own, so a slow provider delays nobody else."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                payments, notices = await self._due()
                for payment_id in payments:
                    self._looking.add(payment_id)
                    tasks.create_task(self._look(payment_id))
                for entry in notices:
                    await self._apply(entry)
                await asyncio.sleep(POLL_S)

    async def _due(self) -> tuple[list[str], list[InboxEntry]]:
        """Payments and parked notices to look at; none while the database is away, and none while
        another rulebook is in force that we could not follow: other replicas take them up.
        """
        busy = set(self._looking)  # as before the read: what ends meanwhile is read as due
        room = min(DUE_MAX, IN_HAND_MAX - len(busy))
        if self._rules.behind or room <= 0:
            return [], []
        try:
            async with self._pool.acquire() as conn:
                due = await reads.due(conn, self._composer.now(), DUE_MAX + len(busy))
                notices = await reads.parked(conn, DUE_MAX)
                self._trouble = ""
        except Exception as error:
            if not away(error):
                raise
            self._trouble = repr(error)
            event(log, "resolver.database_away", why=self._trouble)
            return [], []
        return [one for one in due if one not in busy][:room], notices

    async def _look(self, payment_id: str) -> None:
        try:
            await self._guarded(payment_id, self._resolve(payment_id), self._park)
        finally:
            self._looking.discard(payment_id)

    async def _guarded(
        self, key: str, work: Awaitable[None], park: Callable[[str, str], Awaitable[None]]
    ) -> None:
        """Work on one row; one that keeps failing in a way of its own is parked."""
        try:
            try:
                await work
                self._patience.forget(key)
            except Exception as error:
                if _passing(error):
                    raise
                log.exception("resolver.row_failed", extra={"facts": {"row": key}})
                if self._patience.lost(key):
                    # what cannot even be parked is a bug: it ends the process
                    await park(key, f"{type(error).__name__}: {error}")
        except Exception as error:
            if not _passing(error):
                raise
            event(log, "resolver.left", row=key, why=repr(error))

    async def _park(self, payment_id: str, why: str) -> None:
        await self._deposits.park(payment_id, why)

    async def _resolve(self, payment_id: str) -> None:
        """One look: expire a lease, ask about an open attempt, or take up a stopped walk."""
        case = await self._deposits.case(payment_id)
        if case is None:
            return
        open_ones = [a for a in case.attempts if a.state in OPEN]
        now = self._composer.now()
        if not open_ones:
            await self._deposits.proceed(payment_id, "resolver")
            return
        attempt = open_ones[-1]
        if attempt.lease_until is not None and attempt.lease_until > now:
            await self._deposits.proceed(payment_id, "resolver")  # looks again when it ends
        elif attempt.state is AttemptState.SENT:
            await self._deposits.settle(
                attempt.reference, moves.LEASE_EXPIRED, "lease", inquiry=False
            )
        else:
            await self._ask(case, attempt)

    async def _ask(self, case: Case, attempt: Attempt) -> None:
        """Ask about one attempt under a lease, so that no other replica asks at the same time."""
        now, policy = self._composer.now(), self._composer.policy
        if next_due(attempt, policy, now) is None:  # asking is exhausted: a person must look
            await self._deposits.proceed(case.payment.id, "resolver")
            return
        until = now + timedelta(seconds=policy.lease_s)
        held = moves.leased(attempt, self._composer.replica, until)
        due = moves.due(case.payment, until)
        unit = Unit(
            (
                *rows.attempt_leased(attempt, held),
                *rows.payment_moved(case.payment, due, ACTOR, now),
            )
        )
        if not isinstance(await self._lane.submit(unit), Done):
            return  # somebody else is at it
        outcome = await self._attempts.ask(held)
        source = f"inquiry at {attempt.psp}"
        await self._deposits.settle(attempt.reference, outcome, source, inquiry=True)

    async def _apply(self, entry: InboxEntry) -> None:
        """A notice that came before its attempt was known is applied now that it is."""

        async def park(_: str, why: str) -> None:
            await self._set_aside(entry, why)

        await self._guarded(entry.key, self._apply_notice(entry), park)

    async def _apply_notice(self, entry: InboxEntry) -> None:
        terminal = self._attempts.terminal(entry.psp)
        if terminal is None:  # this rulebook no longer has the provider: another one may
            return
        async with self._pool.acquire() as conn:
            found = await reads.by_reference(conn, entry.reference)
        if found is None or not made_at(entry.psp, entry.reference, found[1]):
            await self._set_aside(entry, "the attempt is another provider's")
            return
        told = inbox.read_notice(terminal.connector, entry.raw)
        applied = rows.inbox_applied(entry, entry.payment_id, self._composer.now())
        await self._deposits.settle(
            told.reference, told.outcome, f"parked notice of {entry.psp}", extra=applied
        )

    async def _set_aside(self, entry: InboxEntry, why: str) -> None:
        """Look at a notice no more; a person hears why."""
        aside = rows.inbox_applied(entry, "", self._composer.now(), reason="set-aside")
        item = self._composer.notice_set_aside(entry.psp, entry.key, why)
        await self._lane.submit(Unit((*aside, item)))


def _passing(error: Exception) -> bool:
    """Whether the next look may go well: the world is unwell, another rulebook is in force, or the
    row keeps moving.
    """
    return isinstance(error, Refusal) or away(error)
