"""Desks: who looks after a client. Knows the rulebook's desks; refuses to know who sits there."""

from __future__ import annotations

from collections.abc import Iterable

from config.rulebook import Desk


def desk_of(desks: Iterable[Desk], entity: str, brand: str, country: str) -> str:
    """The id of the first desk that fits, in the order they are written; "" for none."""
    for desk in desks:
        if (
            desk.entity == entity
            and desk.brand in ("*", brand)
            and ("*" in desk.countries or country in desk.countries)
        ):
            return desk.id
    return ""
