"""What stands between two rulebooks: what may never change, and what a running process cannot take
up.

Knows both rulebooks and nothing else. Refuses to know who publishes, and whether it may.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from config.findings import Finding
from config.rulebook import Platform, Rulebook
from gateway.control.areas import AREAS


def never(old: Rulebook, new: Rulebook) -> list[Finding]:
    """What no later rulebook may say: the books of an entity are kept for ever, in its currency."""
    return list(_never(old, new))


def _never(old: Rulebook, new: Rulebook) -> Iterator[Finding]:
    kept = {entity.id: (number, entity) for number, entity in enumerate(new.entities)}
    owners = {entity.book: entity.id for entity in old.entities}
    for entity in old.entities:
        if entity.id not in kept:
            why = f"entity `{entity.id}` has books: it stays in the rulebook"
            yield Finding(new.place("entity"), "entity-removed", why, "entity")
            continue
        number, after = kept[entity.id]
        if after.book != entity.book:
            path = f"entity[{number}].book"
            why = f"{path}: the book of `{entity.id}` is {entity.book} for ever"
            yield Finding(new.place(path), "book-changed", why, path)
        if after.currency != entity.currency:
            path = f"entity[{number}].currency"
            why = f"{path}: the books of `{entity.id}` are kept in {entity.currency}"
            yield Finding(new.place(path), "currency-changed", why, path)
    yield from _locked_out(old, new)
    known = {entity.id for entity in old.entities}
    for number, after in enumerate(new.entities):
        if after.id not in known and after.book in owners:
            path = f"entity[{number}].book"
            why = f"{path}: book {after.book} is that of `{owners[after.book]}`"
            yield Finding(new.place(path), "book-changed", why, path)
    was = {plan.id: plan.currency for plan in old.plans}
    yield from plans_in_another_currency(new, was)
    brands = {brand.id: brand.entity for brand in old.brands}
    for number, brand in enumerate(new.brands):
        if brands.get(brand.id, brand.entity) != brand.entity:
            path = f"brand[{number}].entity"
            why = f"{path}: clients of `{brand.id}` have contracts with `{brands[brand.id]}`"
            yield Finding(new.place(path), "brand-moved", why, path)


def plans_in_another_currency(new: Rulebook, was: Mapping[str, str]) -> Iterator[Finding]:
    """Contracts stay on a plan and in their currency: its numbers never mean another one.

    was  the currency that plans were published in
    """
    for number, plan in enumerate(new.plans):
        if was.get(plan.id, plan.currency) != plan.currency:
            path = f"plan[{number}].currency"
            why = f"{path}: `{plan.id}` was published in {was[plan.id]}: give the plan a new id"
            yield Finding(new.place(path), "plan-currency-changed", why, path)


def _locked_out(old: Rulebook, new: Rulebook) -> Iterator[Finding]:
    """Somebody may always agree to the next change."""
    before = {scope for role in old.roles for scope in role.scopes}
    after = {scope for role in new.roles for scope in role.scopes}
    for area in AREAS.values():
        if area.publishes in before - after:
            why = f"no role has `{area.publishes}`: nobody could agree to a change of {area.said}"
            yield Finding(new.place("role"), "nobody-publishes", why, "role")


def needs_restart(old: Rulebook, new: Rulebook) -> list[Finding]:
    """What a process takes up only at its start: sessions and feeds of platforms, cut-offs."""
    return list(_needs_restart(old, new))


def _needs_restart(old: Rulebook, new: Rulebook) -> Iterator[Finding]:
    before = {it.id: _session(it) for it in old.platforms}
    after = {it.id: _session(it) for it in new.platforms}
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            number = next((n for n, it in enumerate(new.platforms) if it.id == name), None)
            path = "platform" if number is None else f"platform[{number}]"
            what = "is new" if name not in before else "is gone" if name not in after else "changes"
            why = f"platform `{name}` {what}: sessions are opened when a process starts"
            yield Finding(new.place(path), "restart-needed", why, path)
    cuts = {it.id: it.settlement_cut_off for it in old.entities}
    for number, it in enumerate(new.entities):
        if cuts.get(it.id, it.settlement_cut_off) != it.settlement_cut_off:
            path = f"entity[{number}].settlement_cut_off"
            why = f"{path}: batches are cut by it from the start of a process"
            yield Finding(new.place(path), "restart-needed", why, path)


def _session(platform: Platform) -> Platform:
    """All of it but whom it serves: that is read at each decision."""
    return msgspec.structs.replace(platform, entities=())
