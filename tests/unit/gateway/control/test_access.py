"""Roles become grants, tokens are recognised, entities bound what a caller reaches."""

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
from gateway.control.access import SCOPES, Caller
from gateway.control.audit import COMMANDS
from gateway.control.refusals import Refusal
from gateway.http.app import ROUTES
from gateway.http.problems import TABLE
from gateway.http.serving import PUBLIC

EU = Entity(id="fx-eu", name="EU", jurisdiction="CY", book=1, currency="EUR")
KEY_ID = "KY" + "0" * 18


def caller(*entities: str) -> Caller:
    """A reader of these entities."""
    return Caller(KEY_ID, "ann", "r", frozenset({"clients:read"}), frozenset(entities), "shop")


def test_unknown_scopes_and_repeated_roles_are_findings_with_their_place() -> None:
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
    """A key outlives its role without keeping its powers."""
    granted, _ = access.compile(Rulebook(hash="h", entities=(EU,)))

    assert granted.grant("gone").scopes == frozenset()


def test_a_missing_scope_is_refused_by_name() -> None:
    """The caller is told which scope to ask for."""
    with pytest.raises(Refusal) as no:
        access.need(caller("*"), "clients:write")
    assert (no.value.code, no.value.facts["scope"]) == ("forbidden", "clients:write")


def test_entities_bound_what_exists_for_a_caller() -> None:
    """A star is everything; else only what is named."""
    assert caller("*").reaches("fx-eu")
    assert caller("*").entity_filter is None
    assert not caller("fx-int").reaches("fx-eu")
    assert caller("fx-int").entity_filter == ["fx-int"]


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


def test_every_route_asks_for_a_scope_that_exists() -> None:
    """A typo in the table must not open or close a route."""
    asked = {route.scope for route in ROUTES} - {PUBLIC}

    assert asked <= set(SCOPES)
    assert set(SCOPES) - asked == {"metrics:read"}  # asked for by its handler


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
