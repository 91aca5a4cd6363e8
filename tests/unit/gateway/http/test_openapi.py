"""The description is the table: valid OpenAPI 3.1, every route, every status a problem can have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from openapi_spec_validator import validate

from gateway.http.app import ROUTES
from gateway.http.openapi import document
from gateway.http.problems import TABLE
from gateway.http.serving import PUBLIC, Route

DOCS = Path(__file__).parents[4] / "docs"


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    """The description as a reader decodes it."""
    return dict(msgspec.json.decode(document(ROUTES, "1.2.3")))


def operation(described: dict[str, Any], route: Route) -> dict[str, Any]:
    """The route's part of the description."""
    return dict(described["paths"][route.path][route.method.lower()])


def test_the_description_is_valid_openapi(described: dict[str, Any]) -> None:
    """A validator of the standard accepts it."""
    validate(described)
    assert described["openapi"].startswith("3.1")


def test_every_route_is_described_once(described: dict[str, Any]) -> None:
    """Operation ids are unique, so that generated clients have one name a route."""
    ids = [operation(described, route)["operationId"] for route in ROUTES]

    assert len(set(ids)) == len(ROUTES)


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.method} {r.path}")
def test_every_status_of_a_route_is_declared(described: dict[str, Any], route: Route) -> None:
    """Its own answers, and those that the way there can give."""
    declared = set(operation(described, route)["responses"])
    wanted = {str(status) for status in route.responses} | {"500", "503"}
    wanted |= {str(TABLE[code].status) for code in route.problems}
    if route.scope != PUBLIC:
        wanted |= {"401", "403", "429"}
    if route.idempotent:
        wanted |= {"400", "409", "422"}
    if route.request not in (None, bytes):
        wanted |= {"400", "413", "415", "422"}

    assert wanted <= declared


def test_commands_declare_their_key_and_amounts_are_texts(described: dict[str, Any]) -> None:
    """What a caller must send is in the description, not only in prose."""
    deposit = described["paths"]["/v1/deposits"]["post"]
    headers = {each["name"]: each for each in deposit["parameters"] if each["in"] == "header"}
    amount = described["components"]["schemas"]["Amount"]["properties"]["amount"]

    assert headers["Idempotency-Key"]["required"] is True
    assert amount["type"] == "string"
    assert amount["pattern"].startswith("^(0|[1-9]")


def test_every_route_and_problem_is_in_the_guide() -> None:
    """docs/api.md names each path with its scope, and each code with its status."""
    guide = (DOCS / "api.md").read_text()
    for route in ROUTES:
        assert f"| {route.method} | `{route.path}` | `{route.scope}` |" in guide, route.path
    for code, meaning in TABLE.items():
        assert f"| `{code}` | {meaning.status} |" in guide, code
