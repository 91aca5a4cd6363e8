"""Access: what roles may do, and who is calling.

Knows what each scope allows and what lies within a caller's entities. Refuses to know routes, and
how a credential is recognised (`keys.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from config.rulebook import Finding, Rulebook
from gateway.control.refusals import Refusal

SCOPES: Final[Mapping[str, str]] = {
    "clients:read": "read clients and their history",
    "clients:write": "make clients known",
    "clients:move": "move clients from state to state",
    "accounts:read": "read trading accounts",
    "accounts:write": "ask for trading accounts",
    "deposits:read": "read deposits",
    "deposits:write": "take deposits",
    "payments:read": "read payments, their attempts and their routing trace",
    "routing:explain": "ask which way a payment would go, without paying",
    "ledger:read": "read balances and entries, now and as of a time",
    "sessions:read": "read the state of platform sessions",
    "items:read": "read what people must look at",
    "items:resolve": "close items with a reason",
    "approvals:read": "read approvals",
    "approvals:decide": "approve or refuse what another person asked for",
    "events:read": "pull one's own events",
    "events:resend": "have an event delivered again, and set the address they go to",
    "partners:read": "read partners, their contracts, balances and lines",
    "partners:write": "make partners and their contracts known",
    "partners:link": "open partners' pages to them by links, and end their visits",
    "metrics:read": "read the metrics from another machine",
}

EVERYWHERE: Final = "*"


class Caller(msgspec.Struct, frozen=True):
    """Who is calling, from the credential alone.

    person    who answers for the act; several credentials of one person are one person
    entities  the legal entities within reach; {"*"} is all of them
    owner     the calling system or person the keys belong to: what `caller` means everywhere else
    approves  the kinds of approval this role may decide
    partner   the partner who visits a page of their own; "" for the keys of systems and staff
    """

    key_id: str
    person: str
    role: str
    scopes: frozenset[str]
    entities: frozenset[str]
    owner: str
    approves: frozenset[str] = frozenset()
    partner: str = ""

    def reaches(self, entity: str) -> bool:
        """Whether objects of this entity exist for the caller."""
        return EVERYWHERE in self.entities or entity in self.entities

    @property
    def entity_filter(self) -> list[str] | None:
        """The entities as a query takes them; None means all."""
        return None if EVERYWHERE in self.entities else sorted(self.entities)


class Grant(msgspec.Struct, frozen=True):
    """What one role may do."""

    scopes: frozenset[str]
    approves: frozenset[str]


class Access(msgspec.Struct, frozen=True):
    """The compiled roles of a rulebook."""

    grants: Mapping[str, Grant]

    def grant(self, role: str) -> Grant:
        """The grant of a role; a role the rulebook in force does not know may do nothing."""
        return self.grants.get(role, Grant(frozenset(), frozenset()))


def compile(book: Rulebook) -> tuple[Access, list[Finding]]:
    """Turn the roles of a rulebook into grants; an unknown scope or a role twice is a finding."""
    findings: list[Finding] = []
    grants: dict[str, Grant] = {}
    for number, role in enumerate(book.roles):
        path = f"role[{number}]"
        if role.id in grants:
            said = f"role {role.id!r} is defined twice"
            findings.append(Finding(book.place(f"{path}.id"), "role-twice", said, f"{path}.id"))
        for position, scope in enumerate(role.scopes):
            if scope not in SCOPES:
                key = f"{path}.scopes[{position}]"
                said = f"there is no scope {scope!r}"
                findings.append(Finding(book.place(key), "scope-unknown", said, key))
        grants[role.id] = Grant(frozenset(role.scopes), frozenset(role.approves))
    return Access(grants), findings


def need(caller: Caller, scope: str) -> None:
    """Raise Refusal `forbidden` unless the caller's role has the scope."""
    if scope not in caller.scopes:
        raise Refusal("forbidden", f"this credential has no scope {scope}", {"scope": scope})
