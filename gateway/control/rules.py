"""The rules this process decides with: everything the rooms made of one rulebook, in one value.

Knows the compiled rulebook of now, how another takes its place between two decisions, and whether
this process may decide at all. Refuses to know what a rule means, and how versions come into force.

Whoever decides reads `Rules.now` once, decides with that value alone, and puts its `check` into the
unit: a unit that was decided with rules that are no longer in force is left out of the books.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property

import msgspec

import bridge.mapping
import router.rules
from config.findings import Finding
from config.rulebook import Brand, Entity, Rulebook
from gateway.control import access, policies
from gateway.control.refusals import Refusal
from gateway.control.rulebook import RULEBOOK
from ledger.units import Change, Left


class RulebookMoved(Refusal):
    """Another rulebook is in force, and this process cannot follow it: it may not decide."""

    def __init__(self) -> None:
        super().__init__("rulebook-moved", "another rulebook came into force; try again")


class Compiled(msgspec.Struct, frozen=True, dict=True):
    """One rulebook and what each room made of it."""

    book: Rulebook
    routing: router.rules.Rules
    mapping: bridge.mapping.Mapping
    access: access.Access
    policies: policies.Policies

    @property
    def hash(self) -> str:
        """What names it."""
        return self.book.hash

    @cached_property
    def check(self) -> Change:
        """For a unit of work: it is left out unless these rules are in force at its commit."""
        return Change(RULEBOOK, (self.book.hash,))

    @cached_property
    def brands(self) -> Mapping[str, tuple[Brand, Entity]]:
        """Each brand with the entity that runs it."""
        entities = {entity.id: entity for entity in self.book.entities}
        return {brand.id: (brand, entities[brand.entity]) for brand in self.book.brands}

    @cached_property
    def plans(self) -> Mapping[str, str]:
        """The currency of each plan that a new contract may be on."""
        return {plan.id: plan.currency for plan in self.book.plans}

    @cached_property
    def symbols(self) -> frozenset[str]:
        """Every symbol that is traded here."""
        return self.book.symbols

    @cached_property
    def owners(self) -> Mapping[int, str]:
        """The legal entity whose book a number names."""
        return {entity.book: entity.id for entity in self.book.entities}


def compiled(book: Rulebook) -> tuple[Compiled, list[Finding]]:
    """Have each room compile its part. With findings the value is incomplete: do not use it."""
    routing, wrong = router.rules.compile(book)
    mapping, more = bridge.mapping.compile(book)
    granted, most = access.compile(book)
    asks, rest = policies.compile(book)
    return Compiled(book, routing, mapping, granted, asks), [*wrong, *more, *most, *rest]


class Rules:
    """What this process decides with now.

    now  the compiled rulebook; one assignment takes its place, between two decisions
    """

    def __init__(self, now: Compiled) -> None:
        self.now = now
        self._trouble = ""
        self._look: Callable[[], Awaitable[None]] | None = None

    @property
    def trouble(self) -> str:
        """Why this process may not decide, "" when it may."""
        return self._trouble

    @property
    def behind(self) -> bool:
        """Whether another rulebook is in force and this process has not followed."""
        return self._trouble != ""

    def swap(self, rules: Compiled) -> None:
        """Decide with these from now on; they are in force."""
        self.now = rules
        self._trouble = ""

    def in_force(self, hash: str) -> None:
        """Hear which rulebook is in force now, by its hash."""
        self._trouble = "" if hash == self.now.hash else "another one is in force"

    def stuck(self, why: str) -> None:
        """Another rulebook is in force that this process cannot follow: it decides nothing."""
        self._trouble = why

    def followed_by(self, look: Callable[[], Awaitable[None]]) -> None:
        """Name what reads which rulebook is in force, and follows it."""
        self._look = look

    def require(self) -> Compiled:
        """What to decide with now. Raises RulebookMoved where this process may not decide."""
        if self.behind:
            raise RulebookMoved
        return self.now

    async def again(self, left: Left, decided_with: Compiled) -> bool:
        """Whether a unit was left out because its rules are not in force any more, and there are
        newer ones to decide with. Raises RulebookMoved where there are none.
        """
        if left.kind != RULEBOOK.name:
            return False
        if self.now is decided_with:
            if self._look is None:
                self.stuck("another one is in force")
            else:
                await self._look()
        if self.behind or self.now is decided_with:
            raise RulebookMoved
        return True


def settled(book: Rulebook) -> Rules:
    """The rules of a rulebook that was checked before. Findings in it are a bug of the caller."""
    now, findings = compiled(book)
    assert not findings, findings
    return Rules(now)
