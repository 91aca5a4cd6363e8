"""Every process of every entity has an owner, the closest row decides, and clients have desks."""

from __future__ import annotations

import pytest

from config.rulebook import Desk, Entity, Owner, Rulebook
from gateway.cli import DEMO_FOLDER
from gateway.control import ownership
from gateway.control.ownership import PROCESSES, Team
from gateway.control.rulebook import check
from gateway.people.desks import desk_of

EU = Entity(id="fx-eu", name="EU", jurisdiction="CY", book=1, currency="EUR")
INT = Entity(id="fx-int", name="INT", jurisdiction="SC", book=2, currency="USD")
ALL = tuple(Owner(process=each, team="house") for each in PROCESSES)  # type: ignore[arg-type]


def rulebook(*owners: Owner) -> Rulebook:
    """Two entities and these owners."""
    return Rulebook(hash="h", entities=(EU, INT), owners=owners)


@pytest.mark.parametrize("missing", PROCESSES)
def test_a_process_that_nobody_answers_for_is_found_in_each_entity(missing: str) -> None:
    """Whatever it is; a row for one entity leaves the other without."""
    others = tuple(it for it in ALL if it.process != missing)
    one = Owner(process=missing, entity="fx-eu", team="eu")  # type: ignore[arg-type]

    _, none = ownership.compile(rulebook(*others))
    _, half = ownership.compile(rulebook(*others, one))

    assert [(it.code, it.key) for it in none] == [
        ("owner-missing", f"entity[0]:{missing}"), ("owner-missing", f"entity[1]:{missing}"),
    ]  # fmt: skip
    assert [it.key for it in half] == [f"entity[1]:{missing}"]


def test_the_entitys_own_row_comes_before_the_one_for_all() -> None:
    """And it says where it was written."""
    own = Owner(process="kyc", entity="fx-eu", team="kyc-eu")
    owners, findings = ownership.compile(rulebook(*ALL, own))

    assert not findings
    assert owners.of("kyc", "fx-eu") == Team("kyc-eu", "entity")
    assert owners.of("kyc", "fx-int") == Team("house", "global")
    assert owners.of("gardening", "fx-int") is None


def test_a_rulebook_without_an_owner_is_refused_as_a_whole(tmp_path_factory: object) -> None:
    """`brokerd check` and the start of the daemon read it by this function: no rulebook at all."""
    folder = tmp_path_factory.mktemp("rules")  # type: ignore[attr-defined]
    for file in DEMO_FOLDER.glob("*.toml"):
        (folder / file.name).write_text(file.read_text())
    broker = folder / "broker.toml"
    broker.write_text(broker.read_text().replace('process = "settlements"', 'process = "sales"'))

    book, findings = check(folder)

    assert book is None
    assert {it.code for it in findings} == {"duplicate", "owner-missing"}


@pytest.mark.parametrize(
    ("brand", "country", "desk"),
    [("b", "DE", "dach"), ("b", "FR", "rest"), ("c", "DE", "dach"), ("c", "FR", "")],
)
def test_a_client_is_of_the_first_desk_that_fits(brand: str, country: str, desk: str) -> None:
    """Entity, brand and country; none may fit."""
    desks = (
        Desk(id="abroad", entity="fx-int"),
        Desk(id="dach", entity="fx-eu", countries=("DE", "AT")),
        Desk(id="rest", entity="fx-eu", brand="b"),
    )

    assert desk_of(desks, "fx-eu", brand, country) == desk
