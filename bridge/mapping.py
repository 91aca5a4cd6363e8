"""Where an account is created: entity, brand, account type and currency name one platform group.

Knows the decision and what must be true of it. Refuses to guess: a combination that no group
serves, or that two would, has no answer. It never asks a platform.
"""

from __future__ import annotations

from collections.abc import Mapping as Map
from typing import Final

import msgspec

from config.rulebook import Finding, Group, Rulebook

ENABLED: Final = 0x1
SERVICE_RIGHTS: Final = 0x8 | 0x200  # the platform sets these itself, by the kind of password
ANY_BRAND: Final = "*"


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks for; `leverage` None takes the group's own."""

    entity: str
    brand: str
    account_type: str
    currency: str
    leverage: int | None = None


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where the account goes, and with which terms.

    level  where the group was written: for the `brand`, or for every brand of the `entity`
    """

    server: str
    group: str
    leverage: int
    rights: int
    login_from: int
    login_to: int
    level: str = ""


class NoPlacement(msgspec.Struct, frozen=True):
    """Why there is no place: `no-group` or `leverage-too-high`, and the words for it."""

    code: str
    detail: str


class Mapping(msgspec.Struct, frozen=True):
    """The compiled groups of a rulebook.

    groups  (entity, brand or `*`, account type, currency) -> the one group
    """

    rulebook: str
    groups: Map[tuple[str, str, str, str], Group]

    def place(self, wish: Wish) -> Placement | NoPlacement:
        """The one group for this wish: the brand's own where it has one, else the entity's."""
        group = self._group(wish, wish.brand) or self._group(wish, ANY_BRAND)
        if group is None:
            detail = f"{wish.entity} offers no {wish.account_type} account in {wish.currency}"
            return NoPlacement("no-group", detail)
        leverage = wish.leverage if wish.leverage is not None else group.leverage
        if not 1 <= leverage <= group.leverage_max:
            detail = f"1:{leverage} is not offered, 1:{group.leverage_max} is the highest"
            return NoPlacement("leverage-too-high", detail)
        return Placement(
            server=group.platform,
            group=group.group,
            leverage=leverage,
            rights=group.rights,
            login_from=group.login_from,
            login_to=group.login_to,
            level="entity" if group.brand == ANY_BRAND else "brand",
        )

    def _group(self, wish: Wish, brand: str) -> Group | None:
        return self.groups.get((wish.entity, brand, wish.account_type, wish.currency))


def compile(book: Rulebook) -> tuple[Mapping, list[Finding]]:
    """Compile the groups of a rulebook. With findings the mapping is incomplete: do not use it.

    What the rulebook shows by itself (names, ranges, limits out of order) is found when it is
    loaded; here is found what takes knowledge of platforms.
    """
    groups: dict[tuple[str, str, str, str], Group] = {}
    findings: list[Finding] = []
    first: dict[tuple[str, str, str, str], int] = {}
    for index, group in enumerate(book.groups):
        findings += _flaws(book, index, group)
        key = (group.entity, group.brand, group.account_type, group.currency)
        if key in groups:
            why = f"answers for the same accounts as group[{first[key]}]: exactly one may"
            findings.append(_finding(book, index, "", "group-ambiguous", why))
            continue
        groups[key], first[key] = group, index
    return Mapping(book.hash, groups), findings


def _flaws(book: Rulebook, index: int, group: Group) -> list[Finding]:
    """What no platform would do with one group's rights."""
    found = []
    if not group.rights & ENABLED:
        why = f"{group.rights} lacks bit 1: nobody could log in"
        found.append(_finding(book, index, "rights", "rights-disabled", why))
    if group.rights & SERVICE_RIGHTS:
        why = f"{group.rights} holds bits 8 or 512, which the platform sets itself"
        found.append(_finding(book, index, "rights", "rights-service", why))
    return found


def _finding(book: Rulebook, index: int, key: str, code: str, why: str) -> Finding:
    path = f"group[{index}]" + (f".{key}" if key else "")
    return Finding(book.place(path), code, f"{path}: {why}", path)
