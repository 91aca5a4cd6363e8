"""Areas of the rulebook: which parts belong together, who drafts them and who agrees to a change.

Knows the names of tables, of permissions (`permissions.py`) and of acts (`duties.py`). Refuses to
know values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec


class Area(msgspec.Struct, frozen=True):
    """Parts of a rulebook that the same people answer for.

    drafts, publishes  permissions: to write a change of it, and to agree to one
    draft, publish     the names under which both are recorded as acts
    """

    said: str
    parts: tuple[str, ...]
    drafts: str
    publishes: str
    draft: str
    publish: str

    @property
    def kind(self) -> str:
        """The kind of the question by which a change of it is agreed to."""
        return f"rulebook.{self.said}"


AREAS: Final[Mapping[str, Area]] = {
    it.said: it
    for it in (
        Area("access", ("role",), "roles:request", "roles:approve",
             "role.request", "role.approve"),
        Area("entities", ("entity", "brand", "desk", "owner"), "entities:draft", "entities:publish",
             "entity.draft", "entity.publish"),
        Area("plans", ("plan", "symbol_group"), "plans:draft", "plans:publish",
             "plan.draft", "plan.publish"),
        Area("platforms", ("platform", "group"), "platforms:draft", "platforms:publish",
             "mapping.draft", "mapping.publish"),
        Area("routing", ("psp", "rule", "routing"), "routing:draft", "routing:publish",
             "routing.draft", "routing.publish"),
        Area("rules", ("approval", "outbox"), "rules:draft", "rules:publish",
             "rule.draft", "rule.publish"),
    )
}  # fmt: skip
DEFAULT: Final = "rules"  # a part that nobody has claimed is a rule like others

DRAFTS: Final = tuple(area.drafts for area in AREAS.values())


def of_parts(parts: Iterable[str]) -> tuple[str, ...]:
    """The areas that these parts of a rulebook belong to, in the order of their names."""
    return tuple(sorted({_area(part) for part in parts}))


def _area(part: str) -> str:
    return next((name for name, area in AREAS.items() if part in area.parts), DEFAULT)
