"""Ownership: which team answers for a process in an entity, and that somebody does for each.

Knows the processes and the closest row that names a team. Refuses to know what a team then does:
roles and their grants say that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

import msgspec

from config.findings import Finding
from config.rulebook import Process, Rulebook

Level = Literal["entity", "global"]
ANY: Final = "*"
PROCESSES: Final[tuple[str, ...]] = get_args(Process)


class Team(msgspec.Struct, frozen=True):
    """Who answers, and where that is written: for the entity itself or for all."""

    name: str
    level: Level


class Owners(msgspec.Struct, frozen=True):
    """The teams of a rulebook: (process, entity or `*`) -> team."""

    teams: Mapping[tuple[str, str], str]

    def of(self, process: str, entity: str) -> Team | None:
        """The team of a process in an entity: the entity's own row before one for all."""
        if (own := self.teams.get((process, entity))) is not None:
            return Team(own, "entity")
        if (common := self.teams.get((process, ANY))) is not None:
            return Team(common, "global")
        return None


def compile(book: Rulebook) -> tuple[Owners, list[Finding]]:
    """The owners of a rulebook; a process that nobody answers for in an entity is a finding."""
    owners = Owners({(it.process, it.entity): it.team for it in book.owners})
    findings = []
    for number, entity in enumerate(book.entities):
        for process in PROCESSES:
            if owners.of(process, entity.id) is None:
                key = f"entity[{number}]"
                said = f"{key}: nobody answers for `{process}` in `{entity.id}`: [[owner]]"
                findings.append(Finding(book.place(key), "owner-missing", said, f"{key}:{process}"))
    return owners, findings
