"""Access: what roles may do, within which tags a grant reaches, and who is calling.

Knows what a role allows and when a subject lies within reach: deny by default. Refuses to know
routes, and how a credential is recognised (`keys.py`) or a grant stored (`grants.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from config.rulebook import Finding, Rulebook
from gateway.control.permissions import CATALOGUE
from gateway.control.refusals import Refusal

EVERYWHERE: Final = "*"
ALL: Final = frozenset({EVERYWHERE})
NONE: Final[frozenset[str]] = frozenset()


class Tags(msgspec.Struct, frozen=True):
    """What is known of a subject; an empty tag lies within no set but `*`.

    contracts  the partner's contract it belongs to or came through, and those above it
    """

    entity: str = ""
    brand: str = ""
    desk: str = ""
    contracts: tuple[str, ...] = ()


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """The sets a grant is limited to; `*` in a set is no limit.

    partners  contracts at the top of the subtrees of partners
    """

    entities: frozenset[str] = ALL
    brands: frozenset[str] = ALL
    jurisdictions: frozenset[str] = ALL
    desks: frozenset[str] = ALL
    partners: frozenset[str] = ALL

    def holds(self, tags: Tags) -> bool:
        """Whether every tag is in its set. A jurisdiction is its entity's: see `Access.held`."""
        return (
            _within(self.entities, tags.entity)
            and _within(self.brands, tags.brand)
            and _within(self.desks, tags.desk)
            and (EVERYWHERE in self.partners or not self.partners.isdisjoint(tags.contracts))
        )


_FILTERED: Final = ("entities", "brands", "desks", "partners")


def _limit(held: frozenset[str]) -> list[str] | None:
    return None if EVERYWHERE in held else sorted(held)


def _tied(reach: Reach) -> bool:
    return not (EVERYWHERE in reach.desks and EVERYWHERE in reach.partners)


def _within(held: frozenset[str], tag: str) -> bool:
    return EVERYWHERE in held or tag in held


class Held(msgspec.Struct, frozen=True):
    """A grant in force, as the rulebook in force reads it.

    scopes  names of permissions
    reach   with its jurisdictions resolved to entities
    """

    grant_id: str
    role: str
    scopes: frozenset[str]
    reach: Reach


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who is calling, from the credential alone.

    person   who answers for the act; several credentials of one person are one person
    owner    the calling system or person the keys belong to: what `caller` means everywhere else
    grants   what is held: one for a key, all that are in force for somebody who signed in
    session  the id of the session of somebody who signed in; "" for a key
    partner  the partner who visits a page of their own; "" for the keys of systems and staff
    """

    key_id: str
    person: str
    owner: str
    grants: tuple[Held, ...] = ()
    session: str = ""
    partner: str = ""

    @property
    def role(self) -> str:
        """As what they act: the role of the first grant that is left for this act."""
        return self.grants[0].role if self.grants else ""

    @property
    def grant_id(self) -> str:
        """The grant by which they act; "" for who needs none."""
        return self.grants[0].grant_id if self.grants else ""

    def may(self, permission: str) -> bool:
        """Whether any grant has the permission, whatever it reaches."""
        return any(permission in held.scopes for held in self.grants)

    def narrowed(self, *permissions: str) -> Caller:
        """The same with only those grants that have one of the permissions.

        Raises Refusal `forbidden` when none has.
        """
        kept = tuple(it for it in self.grants if not it.scopes.isdisjoint(permissions))
        if not kept:
            first = permissions[0]
            raise Refusal("forbidden", f"this credential has no scope {first}", {"scope": first})
        return self if len(kept) == len(self.grants) else msgspec.structs.replace(self, grants=kept)

    def reaches(self, tags: Tags) -> bool:
        """Whether a subject exists for the caller: every tag lies within one and the same grant."""
        return any(held.reach.holds(tags) for held in self.grants)

    def sees(self, permission: str, tags: Tags) -> bool:
        """Whether a grant with this permission reaches the subject: else it is shown masked."""
        return any(permission in it.scopes and it.reach.holds(tags) for it in self.grants)

    @property
    def filter(self) -> str | None:
        """The grants as a query takes them (`queries_reach.py`): JSON; None means no limit."""
        if any(held.reach == Reach() for held in self.grants):
            return None
        rows = [
            {"no": no} | {name: _limit(getattr(held.reach, name)) for name in _FILTERED}
            for no, held in enumerate(self.grants)
        ]
        return msgspec.json.encode(rows).decode()

    @property
    def entity_filter(self) -> list[str] | None:
        """The entities within which nothing is out of reach, for what has no tag but its entity.

        As a query takes them; None means all.
        """
        whole = (it.reach for it in self.grants if it.reach == Reach(entities=it.reach.entities))
        entities = frozenset[str]().union(*(reach.entities for reach in whole))
        return None if EVERYWHERE in entities else sorted(entities)

    @property
    def tied(self) -> bool:
        """Whether any grant asks for the desk of a subject, or for the partner it came through."""
        return any(_tied(held.reach) for held in self.grants)

    def untied(self) -> Caller:
        """The same with only those grants that ask for neither."""
        kept = tuple(held for held in self.grants if not _tied(held.reach))
        return msgspec.structs.replace(self, grants=kept)


class Access(msgspec.Struct, frozen=True):
    """The compiled roles of a rulebook.

    roles          role -> the permissions it has
    jurisdictions  entity -> its jurisdiction
    """

    roles: Mapping[str, frozenset[str]]
    jurisdictions: Mapping[str, str] = {}

    def held(self, grant_id: str, role: str, reach: Reach) -> Held:
        """A grant under this rulebook; a role that it does not know may do nothing."""
        entities = reach.entities
        if EVERYWHERE not in reach.jurisdictions:
            there = {it for it, where in self.jurisdictions.items() if where in reach.jurisdictions}
            entities = frozenset(it for it in there if _within(entities, it))
        return Held(
            grant_id,
            role,
            self.roles.get(role, NONE),
            msgspec.structs.replace(reach, entities=entities, jurisdictions=ALL),
        )


def compile(book: Rulebook) -> tuple[Access, list[Finding]]:
    """Turn the roles of a rulebook into permissions: one unknown, or a role twice, is a finding."""
    findings: list[Finding] = []
    roles: dict[str, frozenset[str]] = {}
    for number, role in enumerate(book.roles):
        path = f"role[{number}]"
        if role.id in roles:
            said = f"role {role.id!r} is defined twice"
            findings.append(Finding(book.place(f"{path}.id"), "role-twice", said, f"{path}.id"))
        for position, scope in enumerate(role.scopes):
            if scope not in CATALOGUE:
                key = f"{path}.scopes[{position}]"
                said = f"there is no permission {scope!r}"
                findings.append(Finding(book.place(key), "scope-unknown", said, key))
        roles[role.id] = frozenset(role.scopes)
    return Access(roles, {it.id: it.jurisdiction for it in book.entities}), findings
