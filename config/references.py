"""What a rulebook's parts say of each other: names that exist, keys that are one, numbers in order.

Knows only what can be seen in the rulebook itself. Refuses to know what routing, provisioning or
access make of it: those rooms compile their parts and find the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import combinations, pairwise
from typing import Final, Literal

from config.countries import COUNTRIES, hint
from config.findings import Finding, Where
from config.rulebook import Group, Rule, Rulebook

Check = Callable[[Rulebook], Iterator[Finding]]
Named = Iterator[tuple[str, str]]  # where a name is used (its path), and the name


def references(book: Rulebook) -> list[Finding]:
    """Every mistake that the rulebook shows by itself, in the order of the file they stand in."""
    found = (finding for check in _CHECKS for finding in check(book))
    return sorted(found, key=lambda finding: finding.where)


def _finding(book: Rulebook, path: str, code: str, why: str) -> Finding:
    return Finding(book.place(path), code, f"{path}: {why}", path)


def _duplicates(book: Rulebook) -> Iterator[Finding]:
    """Ids name one thing; a book belongs to one entity; one key has one group."""
    kinds: dict[str, Sequence[Hashable]] = {
        "entity[].id": [it.id for it in book.entities],
        "entity[].book": [it.book for it in book.entities],
        "brand[].id": [it.id for it in book.brands],
        "desk[].id": [it.id for it in book.desks],
        "owner[].process": [f"{it.process} / {it.entity}" for it in book.owners],
        "platform[].id": [it.id for it in book.platforms],
        "group[]": [_group_key(it) for it in book.groups],
        "psp[].id": [it.id for it in book.psps],
        "rule[].id": [it.id for it in book.rules],
        "role[].id": [it.id for it in book.roles],
        "symbol_group[].id": [it.id for it in book.symbol_groups],
        "plan[].id": [it.id for it in book.plans],
    }
    for pattern, keys in kinds.items():
        yield from _duplicates_of(book, pattern, keys)


def _duplicates_of(book: Rulebook, pattern: str, keys: Sequence[Hashable]) -> Iterator[Finding]:
    first: dict[Hashable, Where] = {}
    for number, key in enumerate(keys):
        path = pattern.replace("[]", f"[{number}]")
        if key in first:
            yield _finding(book, path, "duplicate", f"`{key}` is already at {first[key].text}")
        first.setdefault(key, book.place(path))


def _group_key(group: Group) -> str:
    parts = (group.platform, group.entity, group.brand, group.account_type, group.currency)
    return " / ".join(parts)


def _names(book: Rulebook) -> Iterator[Finding]:
    """Whoever is named exists."""
    for what, uses, known in (
        ("entity", _entity_names(book), {it.id for it in book.entities}),
        ("brand", _brand_names(book), {it.id for it in book.brands}),
        ("platform", _platform_names(book), {it.id for it in book.platforms}),
        ("PSP", _listed("rule", "route", (it.route for it in book.rules)), _psp_ids(book)),
        ("country", _country_names(book), COUNTRIES),
        ("symbol group", _rate_names(book, "group"), {it.id for it in book.symbol_groups}),
        ("symbol in a symbol group", _rate_names(book, "symbol"), book.symbols),
    ):
        for path, name in uses:
            if name not in known:
                tip = hint(name) if what == "country" else ""
                yield _finding(book, path, "unknown-name", f"there is no {what} `{name}`{tip}")


def _entity_names(book: Rulebook) -> Named:
    yield from ((f"brand[{n}].entity", it.entity) for n, it in enumerate(book.brands))
    yield from ((f"group[{n}].entity", it.entity) for n, it in enumerate(book.groups))
    yield from ((f"desk[{n}].entity", it.entity) for n, it in enumerate(book.desks))
    named = ((n, it.entity) for n, it in enumerate(book.owners) if it.entity != "*")
    yield from ((f"owner[{n}].entity", entity) for n, entity in named)
    yield from _listed("platform", "entities", (it.entities for it in book.platforms))
    yield from _listed("psp", "entities", (it.entities for it in book.psps))
    yield from _listed("rule", "when.entity", (it.when.entity for it in book.rules))
    yield from (
        (f"approval[{n}].entity", it.entity)
        for n, it in enumerate(book.approvals)
        if it.entity != "*"
    )


def _brand_names(book: Rulebook) -> Named:
    yield from (
        (f"approval[{n}].brand", it.brand) for n, it in enumerate(book.approvals) if it.brand != "*"
    )


def _platform_names(book: Rulebook) -> Named:
    yield from ((f"group[{n}].platform", it.platform) for n, it in enumerate(book.groups))


def _psp_ids(book: Rulebook) -> set[str]:
    return {it.id for it in book.psps}


def _country_names(book: Rulebook) -> Named:
    yield from (
        (f"entity[{n}].jurisdiction", it.jurisdiction) for n, it in enumerate(book.entities)
    )
    looked_after = _listed("desk", "countries", (it.countries for it in book.desks))
    yield from ((path, name) for path, name in looked_after if name != "*")
    served = _listed("psp", "countries", (it.countries for it in book.psps))
    yield from ((path, name) for path, name in served if name != "*")
    yield from _listed("psp", "countries_blocked", (it.countries_blocked for it in book.psps))
    yield from _listed("rule", "when.country", (it.when.country for it in book.rules))


def _rate_names(book: Rulebook, key: Literal["group", "symbol"]) -> Named:
    """What plans name. A symbol that no group has is not traded here: its rate never pays."""
    for number, plan in enumerate(book.plans):
        for position, rate in enumerate(plan.rates):
            if name := (rate.group if key == "group" else rate.symbol):
                yield f"plan[{number}].rates[{position}].{key}", name


def _listed(part: str, key: str, lists: Iterable[Sequence[str]]) -> Named:
    for number, names in enumerate(lists):
        for position, name in enumerate(names):
            yield f"{part}[{number}].{key}[{position}]", name


def _repeats(book: Rulebook) -> Iterator[Finding]:
    """A list names each thing once: a PSP tried twice on one route is a mistake, not a wish."""
    for part, key, lists in (
        ("platform", "entities", [it.entities for it in book.platforms]),
        ("psp", "entities", [it.entities for it in book.psps]),
        ("psp", "currencies", [it.currencies for it in book.psps]),
        ("rule", "route", [it.route for it in book.rules]),
        ("role", "scopes", [it.scopes for it in book.roles]),
        ("symbol_group", "symbols", [it.symbols for it in book.symbol_groups]),
    ):
        for number, names in enumerate(lists):
            for position, name in enumerate(names):
                if name in names[:position]:
                    path = f"{part}[{number}].{key}[{position}]"
                    yield _finding(book, path, "duplicate", f"`{name}` is named twice")


def _symbols(book: Rulebook) -> Iterator[Finding]:
    """A symbol stands in one group: with two, a plan that prices both would not know which."""
    first: dict[str, str] = {}
    for number, group in enumerate(book.symbol_groups):
        for position, symbol in enumerate(group.symbols):
            holder = first.setdefault(symbol, group.id)
            if holder != group.id:
                path = f"symbol_group[{number}].symbols[{position}]"
                yield _finding(book, path, "duplicate", f"`{symbol}` stands in `{holder}` too")


def _groups(book: Rulebook) -> Iterator[Finding]:
    """A group's brand is its entity's, its platform serves the entity, its numbers are in order."""
    brands = {it.id: it.entity for it in book.brands}
    served = {it.id: it.entities for it in book.platforms}
    for number, group in enumerate(book.groups):
        path = f"group[{number}]"
        if group.brand != "*" and brands.get(group.brand) != group.entity:
            why = f"`{group.entity}` has no brand `{group.brand}`"
            yield _finding(book, f"{path}.brand", "unknown-name", why)
        if group.entity not in served.get(group.platform, (group.entity,)):
            why = f"`{group.platform}` does not serve `{group.entity}`"
            yield _finding(book, f"{path}.platform", "not-served", why)
        if group.leverage > group.leverage_max:
            why = f"{group.leverage} is above leverage_max, {group.leverage_max}"
            yield _finding(book, f"{path}.leverage", "out-of-order", why)
        if group.login_from > group.login_to:
            why = f"{group.login_from} is above login_to, {group.login_to}"
            yield _finding(book, f"{path}.login_from", "out-of-order", why)


def _foreign_groups(book: Rulebook) -> Iterator[Finding]:
    """A group of a server belongs to one entity: accounts of two never meet in it."""
    owned: dict[tuple[str, str], str] = {}
    for number, group in enumerate(book.groups):
        owner = owned.setdefault((group.platform, group.group), group.entity)
        if owner != group.entity:
            why = f"`{group.group}` of `{group.platform}` is `{owner}`'s"
            yield _finding(book, f"group[{number}].group", "group-of-another", why)


def _desks(book: Rulebook) -> Iterator[Finding]:
    """A desk's brand is its entity's."""
    brands = {it.id: it.entity for it in book.brands}
    for number, desk in enumerate(book.desks):
        if desk.brand != "*" and brands.get(desk.brand) != desk.entity:
            why = f"`{desk.entity}` has no brand `{desk.brand}`"
            yield _finding(book, f"desk[{number}].brand", "unknown-name", why)


def _login_ranges(book: Rulebook) -> Iterator[Finding]:
    """Two groups of one server never lease one login."""
    for (_, one), (second, other) in combinations(enumerate(book.groups), 2):
        apart = one.login_to < other.login_from or other.login_to < one.login_from
        if one.platform == other.platform and not apart:
            why = (
                f"{other.login_from}-{other.login_to} overlaps "
                f"{one.login_from}-{one.login_to} of {_group_key(one)}"
            )
            yield _finding(book, f"group[{second}].login_from", "overlap", why)


def _amounts(book: Rulebook) -> Iterator[Finding]:
    """A band has a lower and an upper end, in this order."""
    for number, psp in enumerate(book.psps):
        if Decimal(psp.amount_min) > Decimal(psp.amount_max):
            why = f"{psp.amount_min} is above amount_max, {psp.amount_max}"
            yield _finding(book, f"psp[{number}].amount_min", "out-of-order", why)
    for number, rule in enumerate(book.rules):
        low, high = rule.when.amount_from, rule.when.amount_to
        if low and high and Decimal(low) >= Decimal(high):
            why = f"{low} is not below amount_to, {high}"
            yield _finding(book, f"rule[{number}].when.amount_from", "out-of-order", why)


def _rules(book: Rulebook) -> Iterator[Finding]:
    """A rule routes or refuses."""
    for number, rule in enumerate(book.rules):
        if (why := _rule_objection(rule)) is not None:
            yield _finding(book, f"rule[{number}]", "rule-unclear", why)


def _rule_objection(rule: Rule) -> str | None:
    if rule.route and rule.refuse:
        return f"rule `{rule.id}` both routes and refuses"
    if not rule.route and not rule.refuse:
        return f"rule `{rule.id}` neither routes nor refuses"
    return None


def _times(book: Rulebook) -> Iterator[Finding]:
    """Steps increase, and a lease outlives the longest answer."""
    for path, steps in (
        ("routing.resolver_steps_s", book.routing.resolver_steps_s),
        ("outbox.steps_s", book.outbox.steps_s),
    ):
        if any(later <= earlier for earlier, later in pairwise(steps)):
            yield _finding(
                book, path, "out-of-order", "each step must be longer than the one before"
            )
    routing = book.routing
    if routing.lease_s < 2 * routing.answer_timeout_s:
        # A sender may start until half its lease has passed, and its answer must come within it.
        twice = f"twice answer_timeout_s, {routing.answer_timeout_s:g} s"
        why = f"a lease of {routing.lease_s:g} s is shorter than {twice}"
        yield _finding(book, "routing.lease_s", "lease-too-short", why)


_CHECKS: Final[tuple[Check, ...]] = (
    _duplicates, _names, _repeats, _symbols, _groups, _foreign_groups, _desks,
    _login_ranges, _amounts, _rules, _times,
)  # fmt: skip
