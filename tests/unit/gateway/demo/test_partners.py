"""The sample broker is as large as its description says, and the same each time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from config.rulebook import Rulebook
from gateway import cli
from gateway.control import rulebook as rulebooks
from gateway.demo import RULEBOOK, market, partners
from gateway.demo.partners import LEVELS_MAX, Planned
from gateway.demo.people import Person

PARTNERS = 220
LEVELS = 5
CLIENTS = 2_000


@pytest.fixture(scope="module")
def book() -> Rulebook:
    """The sample broker's rules."""
    found, findings = rulebooks.check(Path(RULEBOOK))
    assert found is not None, findings
    return found


def planned(book: Rulebook) -> tuple[tuple[Planned, ...], tuple[Person, ...]]:
    """Partners and the clients they bring, as the demo draws them."""
    chance = Random(market.SEED)
    tree = partners.tree(book, chance)
    (wanted,) = [it.default for it in cli.demo.params if it.name == "traders"]
    return tree, partners.traders(tree, chance, wanted)


def test_the_sample_broker_has_220_partners_on_up_to_five_levels(book: Rulebook) -> None:
    """A forest in each brand: each stands one below its parent, which is named before it."""
    tree, _ = planned(book)
    known: dict[str, Planned] = {}
    for each in tree:
        above = known[each.parent] if each.parent else None
        assert each.level == (above.level + 1 if above else 1)
        assert above is None or (above.brand, above.currency) == (each.brand, each.currency)
        known[each.reference] = each
    assert len(known) == len({each.code for each in tree}) == len(tree) == PARTNERS
    levels = Counter(each.level for each in tree)
    assert max(levels) == LEVELS_MAX == LEVELS
    assert all(levels[level] >= 5 for level in range(1, LEVELS + 1)), levels


def test_the_sample_broker_has_2000_clients_most_of_them_brought(book: Rulebook) -> None:
    """Each has an account of its own kind; nearly all partners bring one, and some come alone."""
    tree, people = planned(book)
    assert len({each.reference for each in people}) == len(people) == CLIENTS
    assert all(each.account for each in people)
    brands = {each.code: each.brand for each in tree}
    brought = [each for each in people if each.code]
    assert all(brands[each.code] == each.brand for each in brought)
    assert 0.88 * CLIENTS < len(brought) < 0.96 * CLIENTS
    assert len({each.code for each in brought}) > 0.95 * PARTNERS


def test_the_same_broker_is_drawn_each_time(book: Rulebook) -> None:
    """A later life finds the partners and clients of an earlier one again."""
    assert planned(book) == planned(book)
