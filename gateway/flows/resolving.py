"""The resolver: whatever a deposit waits for, looked at when it is due.

Knows which payments are due, and that an attempt is asked about by one replica at a time. Refuses
to charge blindly: an open attempt is asked about by our own reference, and what follows is decided
by `settle` like any other news.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import asyncpg

from config.log import event
from gateway.control.refusals import Refusal
from gateway.flows.deposit import Deposits, RulebookMoved, made_at
from gateway.flows.outbox import Submit
from gateway.flows.settlement import ACTOR, Case, Composer
from ledger.units import Done, Unit
from router import moves, reads, rows
from router.attempts import Attempts
from router.intents import Attempt
from router.psp import inbox
from router.resolver import next_due
from router.states import OPEN, AttemptState

log = logging.getLogger("gateway.resolver")

POLL_S = 0.25
DUE_MAX = 64


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
    ) -> None:
        self._pool = pool
        self._lane = lane
        self._deposits = deposits
        self._attempts = attempts
        self._composer = composer
        self._looking: set[str] = set()

    async def run(self) -> None:
        """Poll; each payment in a task of its own, so a slow provider delays nobody else."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                for payment_id in await self._due():
                    self._looking.add(payment_id)
                    tasks.create_task(self._look(payment_id))
                await asyncio.sleep(POLL_S)

    async def _due(self) -> list[str]:
        busy = set(self._looking)  # as before the read: what ends meanwhile is read as due
        try:
            async with self._pool.acquire() as conn:
                await self._apply_parked(conn)
                due = await reads.due(conn, self._composer.now(), DUE_MAX + len(busy))
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            event(log, "resolver.database_away", why=repr(error))
            return []
        return [one for one in due if one not in busy][:DUE_MAX]

    async def _look(self, payment_id: str) -> None:
        try:
            await self._resolve(payment_id)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            event(log, "resolver.database_away", payment=payment_id, why=repr(error))
        except (RulebookMoved, Refusal) as error:
            event(log, "resolver.left", payment=payment_id, why=str(error))
        finally:
            self._looking.discard(payment_id)

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

    async def _apply_parked(self, conn: asyncpg.Connection) -> None:
        """Notices that came before their attempt was known are applied now that it is."""
        for entry in await reads.parked(conn, DUE_MAX):
            terminal = self._attempts.terminal(entry.psp)
            found = await reads.by_reference(conn, entry.reference)
            known = found is not None and made_at(entry.psp, entry.reference, found[1])
            if terminal is None or not known:
                continue
            told = inbox.read_notice(terminal.connector, entry.raw)
            applied = rows.inbox_applied(entry, entry.payment_id, self._composer.now())
            await self._deposits.settle(
                told.reference, told.outcome, f"parked notice of {entry.psp}", extra=applied
            )
