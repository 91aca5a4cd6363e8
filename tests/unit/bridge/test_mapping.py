"""Where an account is created: one group or none, never a guess."""

from __future__ import annotations

import msgspec
import pytest

from bridge import mapping as rules
from bridge.mapping import NoPlacement, Placement, Wish
from config.rulebook import Entity, Group, Rulebook

ENTITY = Entity(id="fx-eu", name="FX EU", jurisdiction="CY", book=1, currency="EUR")
GENERAL = Group(
    platform="mt5-live",
    entity="fx-eu",
    account_type="standard",
    currency="EUR",
    group=r"real\EU\standard-EUR",
    leverage=20,
    leverage_max=30,
    login_from=1,
    login_to=99,
)
OWN = msgspec.structs.replace(GENERAL, brand="northgate", group="own", login_from=100, login_to=199)
WISH = Wish(entity="fx-eu", brand="northgate", account_type="standard", currency="EUR")


def book(*groups: Group) -> Rulebook:
    """A rulebook with these groups."""
    return Rulebook(hash="h", entities=(ENTITY,), groups=groups)


def test_a_brand_s_own_group_goes_before_the_entity_s() -> None:
    """A group for the brand answers for it; other brands keep the general one."""
    mapping, findings = rules.compile(book(GENERAL, OWN))
    other = msgspec.structs.replace(WISH, brand="southbank")
    assert findings == []
    assert mapping.place(WISH) == Placement(
        server="mt5-live", group="own", leverage=20, rights=355, login_from=100, login_to=199,
        level="brand",
    )  # fmt: skip
    placed = mapping.place(other)
    assert isinstance(placed, Placement)
    assert (placed.group, placed.level) == (GENERAL.group, "entity")


@pytest.mark.parametrize(
    "changes", [{"entity": "fx-int"}, {"account_type": "raw"}, {"currency": "USD"}]
)
def test_what_no_group_serves_has_no_place(changes: dict[str, str]) -> None:
    """There is no default group: an unmapped wish is refused with a code."""
    mapping, _ = rules.compile(book(GENERAL))
    placed = mapping.place(msgspec.structs.replace(WISH, **changes))
    assert isinstance(placed, NoPlacement)
    assert placed.code == "no-group"


@pytest.mark.parametrize(
    ("leverage", "given"), [(None, 20), (1, 1), (30, 30), (31, None), (0, None)]
)
def test_leverage_is_the_group_s_or_lower_than_its_highest(
    leverage: int | None, given: int | None
) -> None:
    """A wish above the highest leverage is refused, not lowered in silence."""
    mapping, _ = rules.compile(book(GENERAL))
    placed = mapping.place(msgspec.structs.replace(WISH, leverage=leverage))
    if given is None:
        assert isinstance(placed, NoPlacement)
        assert placed.code == "leverage-too-high"
    else:
        assert isinstance(placed, Placement)
        assert placed.leverage == given


def test_two_groups_for_one_wish_are_refused() -> None:
    """An ambiguous mapping is found before it decides anything, also across servers."""
    second = msgspec.structs.replace(GENERAL, platform="mt5-two")
    _, findings = rules.compile(book(GENERAL, second))
    assert [(finding.code, finding.key) for finding in findings] == [
        ("group-ambiguous", "group[1]")
    ]


@pytest.mark.parametrize(
    ("rights", "code"), [(354, "rights-disabled"), (363, "rights-service"), (867, "rights-service")]
)
def test_rights_that_no_active_account_has_are_found(rights: int, code: str) -> None:
    """An account that could not log in, or bits that the platform sets itself, are mistakes."""
    _, findings = rules.compile(book(msgspec.structs.replace(GENERAL, rights=rights)))
    assert [finding.code for finding in findings] == [code]
