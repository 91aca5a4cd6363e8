"""The deposit's journey: taken, routed, walked over the providers, settled once.

Knows the order of commits: a charge is stored as *sent* before its first byte leaves, and every
outcome, whoever brings it, goes through `settle`. Refuses to know how a provider speaks, how money
is booked, and HTTP.

Tests of failure drop the process between any two lines of this file: what is in flight is always a
row with a time at which the resolver looks at it (`resolving.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import msgspec

from bridge import reads as bridge_reads
from bridge.states import Account, AccountState
from config.log import event
from gateway.control import idempotency
from gateway.control.audit import Command, audited
from gateway.control.idempotency import Abandoned, Answer, Idem, finished
from gateway.control.items import item_opened
from gateway.control.refusals import Refusal, not_found
from gateway.control.rules import Compiled, RulebookMoved, Rules
from gateway.flows.faults import away
from gateway.flows.outbox import Outbox, Submit
from gateway.flows.settlement import Case, Composer, Settlement
from gateway.flows.views import NewDeposit, PaymentView, RouteView, route_view
from gateway.people import clients
from gateway.people.clients import Client
from gateway.people.lookup import Lookup
from ledger.ids import Ids
from ledger.money import BadAmount, Money, UnknownCurrency, currency, parse
from ledger.units import Change, Done, Left, Unit, Why
from router import reads, rows
from router.attempts import Attempts, Forged, Observer, Unreadable
from router.cascade import Charge, Finish, next_step
from router.decide import Route, decide
from router.health import Breakers
from router.intents import Attempt, Intent, Payment
from router.outcomes import Outcome
from router.psp import inbox
from router.states import PaymentState

log = logging.getLogger("gateway.deposit")

SETTLE_TRIES_MAX = 8
LOOK_EVERY_S = 1.0  # while a request waits: another replica may have settled its deposit
ANSWERING_GRACE_S = 5.0  # a claim is abandoned this long after its answer was due


class Answering:
    """The one answer a request waits for; whoever settles the payment may store it with it."""

    def __init__(self, idem: Idem) -> None:
        self.idem = idem
        self.open = True
        self.answer: Answer | None = None
        self.decided: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Prepared(msgspec.Struct, frozen=True):
    """A deposit that may be taken, and what it was decided with."""

    rules: Compiled
    client: Client
    account: Account | None
    payment: Payment
    route: Route


class Deposits:
    """Commands and news about deposits.

    rules            what to decide with; a unit refused because they moved is decided again
    boot_time        the clock that also counts while the machine sleeps, for leases
    answer_within_s  how long a request waits for the end before it is answered 202
    """

    def __init__(
        self,
        *,
        lane: Submit,
        pool: asyncpg.Pool,
        rules: Rules,
        breakers: Breakers,
        attempts: Attempts,
        composer: Composer,
        outbox: Outbox | None,
        ids: Ids,
        boot_time: Callable[[], float],
        answer_within_s: float,
        wake_transfers: Callable[[str], None],
        observer: Observer,
    ) -> None:
        self._lane = lane
        self._pool = pool
        self._clients = Lookup(pool)
        self._rules = rules
        self._breakers = breakers
        self._attempts = attempts
        self._composer = composer
        self._outbox = outbox
        self._ids = ids
        self._boot_time = boot_time
        self._within_s = answer_within_s
        self._wake_transfers = wake_transfers
        self._observer = observer
        self._waiting: dict[str, Answering] = {}
        self._walks: set[asyncio.Task[Case | None]] = set()

    @property
    def walks(self) -> int:
        """Walks under way in this process."""
        return len(self._walks)

    # --- taking a deposit -----------------------------------------------------------------------

    async def start(self, command: Command, order: NewDeposit, idem: Idem) -> Answer:
        """Take a deposit and walk it; 201 with its end, or 202 with a Location while it goes on.

        Raises Refusal: `not-found`, `client-state`, `amount-*`, `currency-unknown`,
        `account-not-ready`, `currency-mismatch`, `rulebook-moved`, and those of a key that was
        used before.
        """
        self._rules.require()
        for _ in range(SETTLE_TRIES_MAX):
            try:
                prepared = await self._prepare(command, order)
            except Refusal:
                answer = await self._answered_before(idem)
                if answer is None:
                    raise
                return answer
            boot = self._boot_time()
            settlement, unit, answering = self._taken(command, prepared, idem)
            left = await self._lane.submit(unit)
            if isinstance(left, Done):
                return await self._walk_and_answer(settlement, answering, boot)
            if left.why is Why.CLAIMED and left.found is not None:
                return await self._repeated(idem, left.found)
            await self._rules.again(left, prepared.rules)
        raise Refusal("version-conflict", "the client keeps changing; try again")

    async def _prepare(self, command: Command, order: NewDeposit) -> Prepared:
        """May this client deposit this, and which way would it go? Nothing is stored."""
        client = await self._clients.find(order.client)
        if client is None or not command.caller.reaches(client.tags):
            raise not_found("client", order.client)
        refused = clients.may_deposit(client)
        if refused is not None:
            raise refused
        amount = read_amount(order.amount.amount, order.amount.currency)
        account = None
        if order.to != "wallet":
            async with self._pool.acquire() as conn:
                account = await self._destination(conn, client, order.to, amount)
        return self._routed(command, order, client, account, amount)

    async def _destination(
        self, conn: asyncpg.Connection, client: Client, account_id: str, amount: Money
    ) -> Account:
        account = await bridge_reads.account(conn, account_id)
        if account is None or account.client_id != client.id:
            raise not_found("account", account_id)
        if account.state is not AccountState.VERIFIED:
            said = f"the account is {account.state.value}, not verified"
            raise Refusal("account-not-ready", said, {"state": account.state.value})
        if account.currency != amount.currency.code:
            said = f"the account is kept in {account.currency}"
            raise Refusal("currency-mismatch", said, {"currency": account.currency})
        return account

    def _routed(
        self, command: Command, order: NewDeposit, client: Client, account: Account | None,
        amount: Money,
    ) -> Prepared:  # fmt: skip
        rules = self._rules.now
        payment = Payment(
            id=self._ids.new("PY"), version=1, state=PaymentState.IN_PROGRESS, book=client.book,
            client_id=client.id, entity=client.entity, brand=client.brand, country=client.country,
            method=order.method, risk_band=client.risk_band, instrument=order.instrument,
            amount=amount, account_id=account.id if account else "",
            caller=command.caller.owner, correlation=command.correlation,
            rulebook=rules.hash, created=command.at, due_at=None,
        )  # fmt: skip
        route = decide(payment.intent, rules.routing, self._breakers.health())
        return Prepared(rules, client, account, payment, route)

    def _taken(
        self, command: Command, prepared: Prepared, idem: Idem
    ) -> tuple[Settlement, Unit, Answering]:
        """The first unit: the payment, its decision, and its first attempt as sent or its end."""
        payment, route = prepared.payment, prepared.route
        step = next_step(payment, (), route, prepared.rules.book.routing, command.at)
        attempt = None
        if isinstance(step, Charge):
            attempt = self._composer.first_charge(payment, step)
            payment = msgspec.structs.replace(payment, due_at=attempt.lease_until)
        elif isinstance(step, Finish):
            payment = msgspec.structs.replace(payment, state=step.state, reason=step.reason)
        attempts = (attempt,) if attempt else ()
        case = Case(payment, attempts, route, prepared.account)
        answering = Answering(idem)
        told: tuple[Change, ...] = ()
        if attempt is None:
            answering.answer = answer_of(case)
            told = (self._composer.told(case),)
        until = command.at + timedelta(seconds=self._within_s + ANSWERING_GRACE_S)
        changes = (
            prepared.rules.check,
            clients.still(prepared.client),
            idempotency.claimed(
                idem, payment.id, location(payment.id), command.at, until, answering.answer
            ),
            *rows.payment_created(payment, route, command.caller.person),
            *rows.decision_stored(payment, route),
            *(rows.attempt_sent(attempt, command.caller.person) if attempt else ()),
            *told,
            audited(
                command,
                "deposit.start",
                payment.id,
                self._ids.new("AU"),
                after=_said(payment),
                concerns=clients.concerning(prepared.client),
            ),
        )
        settlement = Settlement(case, changes, (), attempt, decided=attempt is None)
        return settlement, Unit(changes), answering

    async def _walk_and_answer(
        self, taken: Settlement, answering: Answering, boot: float
    ) -> Answer:
        """Walk, and wait for the end only as long as a request may."""
        if taken.charge is None:
            assert answering.answer is not None
            return answering.answer
        payment_id = taken.case.payment.id
        self._waiting[payment_id] = answering
        walk = self._spawn(self._walk(taken.case, taken.charge, boot, answering))
        try:
            await self._wait(walk, answering)
        finally:
            self._waiting.pop(payment_id, None)
        if answering.answer is not None:
            return answering.answer
        answering.open = False
        return await self._answer_now(answering.idem, payment_id, version=1)

    async def _wait(self, walk: asyncio.Task[Case | None], answering: Answering) -> None:
        """Until the answer is stored, or it is time to say that the walk goes on."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._within_s
        decided = answering.decided
        either: set[asyncio.Future[Any]] = {walk, decided}
        await asyncio.wait(either, timeout=self._within_s, return_when=asyncio.FIRST_COMPLETED)
        if walk.done() and walk.exception() is None:
            # it ended in waiting for the provider, or another replica was quicker
            while not decided.done() and not await self._settled_elsewhere(walk.result()):
                left = until - loop.time()
                if left <= 0:
                    break
                await asyncio.wait({decided}, timeout=min(left, LOOK_EVERY_S))
        if not answering.open and answering.answer is None:
            await asyncio.wait({walk}, timeout=ANSWERING_GRACE_S)  # its commit is on its way

    async def _settled_elsewhere(self, walked: Case | None) -> bool:
        """Whether the rows say by now that a deposit whose walk ended here has its end."""
        if walked is None:
            return True
        try:
            case = await self.case(walked.payment.id)
        except Exception as error:
            if not away(error):
                raise
            return False
        return case is None or case.payment.state is not PaymentState.IN_PROGRESS

    async def _answer_now(self, idem: Idem, payment_id: str, version: int) -> Answer:
        """The answer as the rows have it now, stored under the key for whoever repeats it."""
        case = await self.case(payment_id)
        assert case is not None, payment_id
        answer = answer_of(case)
        left = await self._lane.submit(Unit((finished(idem, answer, version),)))
        if isinstance(left, Left):  # somebody stored another answer first: that one is the answer
            stored = await self._answered_before(idem)
            return stored if stored is not None else answer
        return answer

    async def _answered_before(self, idem: Idem) -> Answer | None:
        async with self._pool.acquire() as conn:
            held = await idempotency.find(conn, idem)
        return None if held is None else await self._from_claim(idem, held)

    async def _repeated(self, idem: Idem, found: Mapping[str, object]) -> Answer:
        return await self._from_claim(idem, idempotency.stored(found))

    async def _from_claim(self, idem: Idem, held: idempotency.Stored) -> Answer:
        said = idempotency.replay_or_refuse(idem, held, self._composer.now())
        if isinstance(said, Abandoned):  # the process that was answering is gone
            return await self._answer_now(idem, said.subject, said.version)
        return said

    # --- walking --------------------------------------------------------------------------------

    def walk_on(self, case: Case, attempt: Attempt, boot: float) -> None:
        """Charge an attempt that a settlement stored as sent, and go on from there."""
        self._spawn(self._walk(case, attempt, boot, self._waiting.get(case.payment.id)))

    async def drain(self) -> None:
        """Wait for the walks under way; what is not done in time is resumed from its rows."""
        while self._walks:
            await asyncio.wait(set(self._walks))

    def _spawn(self, walk: Coroutine[object, object, Case | None]) -> asyncio.Task[Case | None]:
        task = asyncio.create_task(walk)
        self._walks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Case | None]) -> None:
        self._walks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Refusal) or (error is not None and away(error)):
            event(log, "deposit.walk_left", why=repr(error))  # its rows say where to go on
        elif error is not None:
            log.error("deposit.walk_failed", exc_info=error)

    async def _walk(
        self, case: Case, attempt: Attempt, boot: float, answering: Answering | None
    ) -> Case | None:
        """Charge, settle, and charge the next, until nobody is to be charged next."""
        charge: Attempt | None = attempt
        while charge is not None:
            assert charge.lease_until is not None, charge
            half = (charge.lease_until - charge.sent_at).total_seconds() / 2  # of its own lease
            taken = boot

            def may_send(taken: float = taken, half: float = half) -> bool:
                return self._boot_time() - taken < half

            outcome = await self._attempts.charge(charge, case.payment.intent, may_send)
            boot = self._boot_time()
            settled = await self._settle(
                case, charge.reference, outcome, f"answer of {charge.psp}", answering=answering
            )
            if settled is None:
                return None
            case, charge = settled.case, settled.charge
        return case

    # --- settling -------------------------------------------------------------------------------

    async def settle(
        self, reference: str, outcome: Outcome, source: str, *, inquiry: bool = False,
        extra: tuple[Change, ...] = (),
    ) -> Settlement | None:  # fmt: skip
        """News about an attempt from anywhere; None when there is no such attempt.

        extra  goes into the same unit (the claim of a notice); a taken claim makes it a repetition
        """
        async with self._pool.acquire() as conn:
            case = await self._load(conn, await reads.by_reference(conn, reference))
        if case is None:
            return None
        boot = self._boot_time()
        answering = self._waiting.get(case.payment.id)
        settled = await self._settle(
            case, reference, outcome, source, inquiry=inquiry, extra=extra, answering=answering
        )
        if settled is not None and settled.charge is not None:
            self.walk_on(settled.case, settled.charge, boot)
        return settled

    async def proceed(self, payment_id: str, source: str) -> None:
        """Take up a walk that stopped between two attempts (its process is gone)."""
        case = await self.case(payment_id)
        if case is None:
            return
        boot, rules = self._boot_time(), self._rules.now
        settlement = self._composer.proceed(case, source)
        left = await self._submit(settlement, rules, (), None)
        if left is None and settlement.charge is not None:
            self.walk_on(settlement.case, settlement.charge, boot)

    async def park(self, payment_id: str, why: str) -> None:
        """Have nobody look at a payment by itself any more; news still settle it."""
        case = await self.case(payment_id)
        if case is not None:
            await self._submit(self._composer.parked(case, why), self._rules.now, (), None)

    async def _settle(
        self, case: Case, reference: str, outcome: Outcome, source: str, *,
        inquiry: bool = False, extra: tuple[Change, ...] = (),
        answering: Answering | None = None,
    ) -> Settlement | None:  # fmt: skip
        """Compose and commit; when rows or rules moved meanwhile, read them and compose again.

        None when what `extra` stores was there already: it was applied the first time.
        """
        mine = {change.kind.name for change in extra}
        for _ in range(SETTLE_TRIES_MAX):
            rules = self._rules.now
            settlement = self._composer.settle(case, reference, outcome, source, inquiry=inquiry)
            left = await self._submit(settlement, rules, extra, answering)
            if left is None:
                return settlement
            if left.kind in mine:
                return None
            fresh = await self.case(case.payment.id)
            assert fresh is not None, case.payment.id
            case = fresh
        raise Refusal("version-conflict", f"payment {case.payment.id} keeps moving")

    async def _submit(
        self, settlement: Settlement, rules: Compiled, extra: tuple[Change, ...],
        answering: Answering | None,
    ) -> Left | None:  # fmt: skip
        """Commit a settlement; None when it is done, Left (the rows or the rules moved) to look
        again. Raises RulebookMoved where there are no rules to look again with.
        """
        if not settlement.changes and not extra:
            return None
        changes = (rules.check, *extra, *settlement.changes)
        storing = None
        if settlement.decided and answering is not None and answering.open:
            answering.open = False
            storing = answer_of(settlement.case)
            changes += (finished(answering.idem, storing),)
        left = await self._lane.submit(Unit(changes, settlement.entries))
        if isinstance(left, Done):
            self._told(settlement, answering, storing)
            return None
        if answering is not None and storing is not None:
            answering.open = left.kind != idempotency.FINISH.name  # else another one stored it
        await self._rules.again(left, rules)
        assert left.why in (Why.CHECK, Why.STALE, Why.CLAIMED, Why.EXISTS), left
        return left

    def _told(
        self, settlement: Settlement, answering: Answering | None, storing: Answer | None
    ) -> None:
        """After the commit: wake whoever waits for it in this process."""
        if settlement.case.operation is not None and settlement.entries:
            self._wake_transfers(settlement.case.operation.server)
        if self._outbox is not None:
            self._outbox.wake()
        if settlement.decided and answering is not None:
            answering.answer = storing or answering.answer
            if not answering.decided.done():
                answering.decided.set_result(None)

    # --- notices --------------------------------------------------------------------------------

    async def notice(self, psp: str, headers: Mapping[str, str], raw: bytes) -> str:
        """A provider's notice: verified on its bytes, stored and applied in one unit, once.

        Returns `applied`, `repeated` or `parked`. Raises Refusal `not-found`, `webhook-forged`,
        `webhook-unreadable`; then nothing is stored.
        """
        terminal = self._attempts.terminal(psp)
        if terminal is None:
            raise not_found("provider", psp)
        secret = terminal.webhook_secret.reveal().encode()
        try:
            told = inbox.verify(terminal.connector, headers, raw, secret, self._composer.now())
            verdict = await self._noticed(psp, told, raw)
        except Forged as error:
            self._observer.webhook_checked(psp, error.code)
            why = {"why": error.code}
            raise Refusal("webhook-forged", "the signature does not match", why) from None
        except Unreadable as error:
            self._observer.webhook_checked(psp, "unreadable")
            raise Refusal("webhook-unreadable", str(error)[:200]) from None
        self._observer.webhook_checked(psp, verdict)
        return verdict

    async def _noticed(self, psp: str, told: inbox.Notice, raw: bytes) -> str:
        async with self._pool.acquire() as conn:
            found = await reads.by_reference(conn, told.reference)
        if found is not None and not made_at(psp, told.reference, found[1]):
            raise Unreadable(f"{told.reference} is not an attempt at {psp}")
        now = self._composer.now()
        claim = rows.inbox_claimed(inbox.entry(psp, told, raw, found[0].id if found else "", now))
        if found is None:
            why = f"{psp} tells of {told.reference[:40]}, which is no attempt of ours"
            item = item_opened(
                self._ids.new("IT"), "notice-parked", "payments", f"{psp}:{told.event_id}", why, now
            )
            left = await self._lane.submit(Unit((*claim, item)))
            return "parked" if isinstance(left, Done) else "repeated"
        settled = await self.settle(told.reference, told.outcome, f"notice of {psp}", extra=claim)
        return "applied" if settled is not None else "repeated"

    # --- reading --------------------------------------------------------------------------------

    async def view(self, conn: asyncpg.Connection, payment_id: str) -> PaymentView | None:
        """The deposit as it is told; None when there is none."""
        case = await self._load(conn, await reads.payment(conn, payment_id))
        return None if case is None else case.view()

    async def explain(self, command: Command, order: NewDeposit) -> RouteView:
        """The way this deposit would take now, with a verdict for every provider left out."""
        prepared = await self._prepare(command, order)
        return route_view(prepared.route, prepared.payment.amount)

    async def case(self, payment_id: str) -> Case | None:
        """The deposit as its rows stand; None when there is none."""
        async with self._pool.acquire() as conn:
            return await self._load(conn, await reads.payment(conn, payment_id))

    async def _load(
        self, conn: asyncpg.Connection,
        found: tuple[Payment, tuple[Attempt, ...], Route] | None,
    ) -> Case | None:  # fmt: skip
        if found is None:
            return None
        payment, attempts, route = found
        account = operation = None
        if payment.account_id:
            account = await bridge_reads.account(conn, payment.account_id)
            operations = await bridge_reads.operations_of_payment(conn, payment.id)
            operation = operations[-1] if operations else None
        return Case(payment, attempts, route, account, operation)


def made_at(psp: str, reference: str, attempts: Sequence[Attempt]) -> bool:
    """Whether this provider made this attempt: none may speak of another's charges."""
    return any(a.reference == reference and a.psp == psp for a in attempts)


def read_amount(text: str, code: str) -> Money:
    """An amount a client may pay; Refusal `currency-unknown`, `amount-malformed`,
    `amount-precision`, `amount-zero`.
    """
    try:
        money = parse(text, currency(code))
    except UnknownCurrency as error:
        raise Refusal("currency-unknown", str(error)) from None
    except BadAmount as error:
        raise Refusal(error.code, str(error)) from None
    if money.minor == 0:
        raise Refusal("amount-zero", "a deposit is more than nothing")
    return money


def location(payment_id: str) -> str:
    """Where a payment can be read."""
    return f"/v1/payments/{payment_id}"


def answer_of(case: Case) -> Answer:
    """201 with the deposit's end; 202 while it goes on or a person looks at it."""
    body, place = msgspec.json.encode(case.view()), location(case.payment.id)
    return Answer(201, body, place) if _ended(case.payment) else Answer(202, body, place, 1)


def _ended(payment: Payment) -> bool:
    return payment.state in (PaymentState.APPROVED, PaymentState.DECLINED)


def _said(payment: Payment) -> dict[str, object]:
    """What the audit keeps of a deposit: no instrument, no names."""
    return {
        "client": payment.client_id, "amount": payment.amount.text,
        "currency": payment.amount.currency.code, "method": payment.method,
        "to": payment.account_id or "wallet", "state": payment.state.value,
    }  # fmt: skip


__all__ = ["Answer", "Answering", "Deposits", "Intent", "RulebookMoved", "read_amount"]
