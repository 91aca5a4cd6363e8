"""Talking to a provider about one attempt: charge it, ask about it, refund it.

Knows terminals (our agreement with one provider), the transport and the breakers. Refuses to store
anything and to decide what follows: it returns an outcome, and never sends anything twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

import msgspec

from config.rulebook import Finding, Rulebook
from config.secret import Secret
from router.health import Breakers
from router.intents import Attempt, Intent
from router.outcomes import (
    Approved,
    Declined,
    Mismatch,
    NotFound,
    NotSent,
    Outcome,
    Pending,
    Unknown,
    checked,
)
from router.psp.connector import Connector, HttpAnswer, HttpRequest
from router.psp.inbox import Forged, Unreadable
from router.psp.transport import MaySend, Transport

OUTCOME_NAMES: Final = {
    Approved: "approved",
    Declined: "declined",
    Pending: "pending",
    NotSent: "not_sent",
    Unknown: "unknown",
    NotFound: "not_found",
    Mismatch: "mismatch",
}


class Terminal(msgspec.Struct, frozen=True):
    """Our agreement with one provider: how to speak to it, where, and with which credentials."""

    psp: str
    connector: Connector
    url: str
    api_key: Secret
    webhook_secret: Secret


class Server(Protocol):
    """How to reach one provider; `config.settings.PspServer` has this shape."""

    @property
    def url(self) -> str:
        """Scheme, host and port, with a path where the provider has one."""

    @property
    def api_key(self) -> Secret:
        """What our requests bear."""

    @property
    def webhook_secret(self) -> Secret:
        """What its notices are signed with."""


def terminals(
    book: Rulebook, servers: Mapping[str, Server], connectors: Mapping[str, Connector]
) -> tuple[Mapping[str, Terminal], list[Finding]]:
    """A terminal for each PSP of the rulebook; a missing connector or server is a finding."""
    made: dict[str, Terminal] = {}
    findings = []
    for index, psp in enumerate(book.psps):
        path = f"psp[{index}].connector"
        connector, server = connectors.get(psp.connector), servers.get(psp.id)
        if connector is None:
            why = f"there is no connector {psp.connector!r}"
            findings.append(Finding(book.place(path), "connector-unknown", f"{path}: {why}", path))
        elif server is None:
            why = f"no settings say how to reach it: [psps.{psp.id}]"
            findings.append(Finding(book.place(path), "psp-unreachable", f"psp[{index}]: {why}"))
        else:
            made[psp.id] = Terminal(
                psp.id, connector, server.url, server.api_key, server.webhook_secret
            )
    return made, findings


class Observer(Protocol):
    """Who counts what happens here."""

    def attempt_finished(self, psp: str, outcome: str, seconds: float) -> None:
        """A charge ended in `outcome` (a word of OUTCOME_NAMES)."""

    def inquiry_finished(self, psp: str, outcome: str) -> None:
        """An inquiry ended."""

    def webhook_checked(self, psp: str, verdict: str) -> None:
        """A notice was `applied`, `repeated`, `parked`, `unreadable`, or refused with its code."""


class Unobserved:
    """Counts nothing."""

    def attempt_finished(self, psp: str, outcome: str, seconds: float) -> None:
        """Nobody counts."""

    def inquiry_finished(self, psp: str, outcome: str) -> None:
        """Nobody counts."""

    def webhook_checked(self, psp: str, verdict: str) -> None:
        """Nobody counts."""


class Attempts:
    """The calls to all providers.

    answer_timeout_s  for a whole exchange, from the rulebook's routing
    monotonic         a clock in seconds, for durations
    """

    def __init__(
        self,
        terminals: Mapping[str, Terminal],
        transport: Transport,
        breakers: Breakers,
        answer_timeout_s: float,
        monotonic: Callable[[], float],
        observer: Observer | None = None,
    ) -> None:
        self._terminals = terminals
        self._transport = transport
        self._breakers = breakers
        self._timeout_s = answer_timeout_s
        self._monotonic = monotonic
        self._observer = observer or Unobserved()
        self._offered = frozenset(terminals)

    def offer(self, terminals: Mapping[str, Terminal], answer_timeout_s: float) -> None:
        """Charge at these from now on, and at no others.

        The others are still asked about what was sent to them, and may still tell us.
        """
        self._breakers.know(terminals)
        self._terminals = {**self._terminals, **terminals}
        self._offered = frozenset(terminals)
        self._timeout_s = answer_timeout_s

    @property
    def psps(self) -> Iterable[str]:
        """The providers that can be spoken to, those no longer charged at among them."""
        return self._terminals.keys()

    def terminal(self, psp: str) -> Terminal | None:
        """Our agreement with this provider; None when there is none."""
        return self._terminals.get(psp)

    async def charge(self, attempt: Attempt, intent: Intent, may_send: MaySend) -> Outcome:
        """Take the money, once. The attempt is already committed as *sent*.

        may_send  asked immediately before the first byte; False gives NotSent("lease")
        An approval of another amount than the intent's comes back as Mismatch.
        """
        terminal = self._terminals.get(attempt.psp)
        if terminal is None or attempt.psp not in self._offered:
            return NotSent("no_terminal")
        started = self._monotonic()
        request = terminal.connector.charge(intent, attempt.reference, terminal.api_key.reveal())
        self._breakers.admit(attempt.psp)
        try:
            outcome = await self._exchange(
                terminal, request, may_send,
                lambda answer: terminal.connector.read_charge(answer, attempt.reference),
            )  # fmt: skip
        except BaseException:
            self._breakers.abandon(attempt.psp)
            raise
        outcome = checked(outcome, intent.minor, intent.currency)
        self._breakers.record(attempt.psp, outcome)
        seconds = self._monotonic() - started
        self._observer.attempt_finished(attempt.psp, OUTCOME_NAMES[type(outcome)], seconds)
        return outcome

    async def ask(self, attempt: Attempt) -> Outcome:
        """Ask what became of the charge, by our own reference: changes nothing at the provider.

        NotSent and Unknown mean that the question was not answered, and say nothing of the charge.
        """
        terminal = self._terminals.get(attempt.psp)
        if terminal is None:
            return NotSent("no_terminal")
        connector, reference = terminal.connector, attempt.reference
        outcome = await self._exchange(
            terminal,
            connector.inquiry(reference, attempt.psp_reference, terminal.api_key.reveal()),
            _always,
            lambda answer: connector.read_inquiry(answer, reference),
        )
        self._observer.inquiry_finished(attempt.psp, OUTCOME_NAMES[type(outcome)])
        return outcome

    async def refund(
        self, attempt: Attempt, minor: int, currency: str, may_send: MaySend
    ) -> Outcome:
        """Give `minor` units of an approved charge back, under the reference that belongs to it.

        The same attempt always has the same refund reference, so a provider that knows it answers
        with the refund it made. Unknown is resolved by `ask_refund`.
        """
        terminal = self._terminals.get(attempt.psp)
        if terminal is None:
            return NotSent("no_terminal")
        mine = refund_reference(attempt)
        connector = terminal.connector
        request = connector.refund(
            attempt.reference, attempt.psp_reference, mine, minor, currency,
            terminal.api_key.reveal(),
        )  # fmt: skip
        outcome = await self._exchange(
            terminal, request, may_send, lambda answer: connector.read_charge(answer, mine)
        )
        return checked(outcome, minor, currency)

    async def ask_refund(self, attempt: Attempt) -> Outcome:
        """Ask what became of the refund of this attempt."""
        terminal = self._terminals.get(attempt.psp)
        if terminal is None:
            return NotSent("no_terminal")
        mine = refund_reference(attempt)
        connector = terminal.connector
        request = connector.refund_inquiry(
            attempt.reference, attempt.psp_reference, mine, terminal.api_key.reveal()
        )
        return await self._exchange(
            terminal, request, _always, lambda answer: connector.read_inquiry(answer, mine)
        )

    async def _exchange(
        self,
        terminal: Terminal,
        request: HttpRequest,
        may_send: MaySend,
        read: Callable[[HttpAnswer], Outcome],
    ) -> Outcome:
        answer = await self._transport.exchange(terminal.url, request, self._timeout_s, may_send)
        return read(answer) if isinstance(answer, HttpAnswer) else answer


def refund_reference(attempt: Attempt) -> str:
    """Our own reference of the refund of an attempt: `RF` and the attempt's own symbols."""
    return "RF" + attempt.reference[2:]


def _always() -> bool:
    """A question needs no lease to be harmless."""
    return True


__all__ = [
    "Attempts", "Forged", "Observer", "Outcome", "Server", "Terminal", "Unobserved", "Unreadable",
    "refund_reference", "terminals",
]  # fmt: skip
