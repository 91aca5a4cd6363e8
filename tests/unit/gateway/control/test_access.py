"""Roles have permissions, grants have a reach, a token is recognised by its secret alone."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gateway
from config.rulebook import Entity, Role, Rulebook, Where
from gateway.control import access, keys
from gateway.control.access import Caller, Held, Reach, Tags
from gateway.control.audit import COMMANDS
from gateway.control.permissions import CATALOGUE
from gateway.control.refusals import Refusal
from gateway.http.app import ROUTES
from gateway.http.problems import TABLE
from gateway.http.serving import PUBLIC

EU = Entity(id="fx-eu", name="EU", jurisdiction="CY", book=1, currency="EUR")
KEY_ID = "KY" + "0" * 18


READER = frozenset({"clients:read"})
SETS = ("entities", "brands", "desks", "partners")


def caller(**reach: str) -> Caller:
    """A reader of clients within these sets."""
    return reading(Reach(**{name: frozenset({tag}) for name, tag in reach.items()}))


def reading(*reaches: Reach) -> Caller:
    """A reader of clients with one grant for each reach."""
    grants = tuple(Held(f"GR{n}", "r", READER, reach) for n, reach in enumerate(reaches))
    return Caller(key_id=KEY_ID, person="ann", owner="shop", grants=grants)


def test_unknown_permissions_and_repeated_roles_are_findings_with_their_place() -> None:
    """Both mistakes are found at once, each where it was written."""
    where = {"role[0].scopes[1]": Where("r.toml", 3), "role[1].id": Where("r.toml", 9)}
    book = Rulebook(
        hash="h",
        entities=(EU,),
        roles=(Role(id="a", scopes=("clients:read", "clients:fly")), Role(id="a", scopes=())),
        where=where,
    )

    _, findings = access.compile(book)

    assert [(f.code, f.where.line) for f in findings] == [("scope-unknown", 3), ("role-twice", 9)]


def test_a_role_that_is_not_in_force_may_do_nothing() -> None:
    """A grant outlives its role without keeping its powers."""
    granted, _ = access.compile(Rulebook(hash="h", entities=(EU,)))

    assert granted.held("GR", "gone", Reach()).scopes == frozenset()


def test_a_missing_permission_is_refused_by_name() -> None:
    """The caller is told which one to ask for."""
    with pytest.raises(Refusal) as no:
        caller().narrowed("clients:write")
    assert (no.value.code, no.value.facts["scope"]) == ("forbidden", "clients:write")


def test_every_tag_lies_in_the_set_of_one_grant() -> None:
    """A star is no limit; a tag that is absent lies in no other set: deny by default."""
    tags = Tags("fx-eu", "northgate", "desk-1", ("CT1", "CT0"))
    held = dict(zip(SETS, ("fx-eu", "northgate", "desk-1", "CT0"), strict=True))

    assert caller().reaches(tags)
    assert caller().reaches(Tags())
    assert caller(**held).reaches(tags)
    for name in SETS:
        assert not caller(**held | {name: "other"}).reaches(tags), name
        assert not caller(**{name: held[name]}).reaches(Tags()), name


def test_two_grants_never_make_a_third() -> None:
    """The entity of one and the brand of the other reach nothing together."""
    one = Reach(entities=frozenset({"fx-eu"}), brands=frozenset({"northgate"}))
    other = Reach(entities=frozenset({"fx-int"}), brands=frozenset({"southbank"}))

    both = reading(one, other)

    assert both.reaches(Tags("fx-eu", "northgate"))
    assert both.reaches(Tags("fx-int", "southbank"))
    assert not both.reaches(Tags("fx-eu", "southbank"))


def test_an_act_is_by_the_grants_that_allow_it() -> None:
    """What one grant allows is not allowed within the reach of another."""
    eu = Held("GR1", "reader", READER, Reach(entities=frozenset({"fx-eu"})))
    everywhere = Held("GR2", "writer", frozenset({"clients:write"}), Reach())
    ann = Caller(key_id="", person="ann", owner="ann", grants=(everywhere, eu))

    reads = ann.narrowed("clients:read")

    assert (ann.role, reads.role, reads.grant_id) == ("writer", "reader", "GR1")
    assert ann.reaches(Tags("fx-int"))
    assert not reads.reaches(Tags("fx-int"))
    assert ann.narrowed("clients:read", "clients:write") is ann


def test_a_jurisdiction_is_its_entities() -> None:
    """A set of jurisdictions leaves the entities there, of those that the grant names."""
    there = Entity(id="fx-int", name="INT", jurisdiction="SC", book=2, currency="USD")
    granted, _ = access.compile(Rulebook(hash="h", entities=(EU, there)))

    def entities(**sets: str) -> frozenset[str]:
        reach = Reach(**{name: frozenset({tag}) for name, tag in sets.items()})
        return granted.held("GR", "r", reach).reach.entities

    assert entities(jurisdictions="CY") == {"fx-eu"}
    assert entities(jurisdictions="CY", entities="fx-int") == frozenset()
    assert entities(jurisdictions="MT") == frozenset()
    assert entities(entities="fx-int") == {"fx-int"}


def test_a_token_is_recognised_by_its_own_secret_alone() -> None:
    """The digest is keyed: another secret or another pepper does not match."""
    token = keys.new_token(KEY_ID, os.urandom)
    split = keys.split_token(token)
    assert split is not None
    digest = keys.digest(split[1], b"pepper")

    assert keys.matches(split[1], digest, b"pepper")
    assert not keys.matches(split[1], digest, b"salt")
    assert not keys.matches("0" * 64, digest, b"pepper")
    assert split[1].encode() not in digest


@given(st.text(max_size=120))
def test_what_is_no_token_is_no_token(text: str) -> None:
    """Whatever strangers send is refused without an error."""
    assert keys.split_token(text) is None


def test_every_route_asks_for_a_permission_of_the_catalogue() -> None:
    """A typo in the table must not open or close a route."""
    asked = {route.scope for route in ROUTES} - {PUBLIC}

    assert asked <= set(CATALOGUE)


def test_every_code_of_a_refusal_has_its_row() -> None:
    """A refusal whose code the table does not know would be a fault of ours."""
    root = Path(gateway.__file__).parent
    source = "\n".join(path.read_text() for path in root.rglob("*.py"))
    raised = set(re.findall(r"Refusal\(\s*\"([a-z-]+)\"", source))

    assert len(raised) > 20
    assert raised <= set(TABLE), raised - set(TABLE)


def test_every_command_is_in_the_catalogue() -> None:
    """What is audited is a command that has been described, and each of them is audited."""
    root = Path(gateway.__file__).parent
    source = "\n".join(path.read_text() for path in root.rglob("*.py"))
    named = set(re.findall(r"audited\(\s*\w+,\s*\"([a-z.]+)\"", source))

    assert named <= set(COMMANDS)
