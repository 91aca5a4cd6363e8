"""The matrix of roles executed: every role at every endpoint of the description, allow and deny."""

from __future__ import annotations

import re

from gateway.control.permissions import CATALOGUE
from gateway.http.app import ROUTES
from gateway.http.serving import PUBLIC
from tests.integration.gateway.conftest import DESCRIBED, SAMPLE_ROLES, Api
from tests.support.matrix import ROLES, cells

CELLS = cells()
COLUMN = {f"as.{role}": column for column, roles in ROLES.items() for role in roles}
# Whoever these are for has no key yet, or shows something else: a link, a cookie, a signature.
OPEN = {
    "/assets/{hash}/{name}", "/livez", "/metrics", "/openapi.json", "/partners/{id}",
    "/partners/{id}/leave", "/partners/{id}/lines", "/problems/{code}", "/readyz",
    "/v1/psps/{psp}/webhooks",
}  # fmt: skip
DECIDE = ("as.compliance", "as.mlro")
OPEN_BY_PREFIX = ("/sign-", "/v1/sign-ins", "/desk", "/staff")


def test_every_endpoint_has_a_row_of_the_matrix() -> None:
    """One without a permission of the catalogue is open to all: it is named here, or wrong."""
    rows = {row for row, _ in CELLS}
    described = {
        (method.upper(), path) for path, found in DESCRIBED["paths"].items() for method in found
    }

    assert described == {(route.method, route.path) for route in ROUTES}
    for route in ROUTES:
        if route.scope == PUBLIC:
            assert route.path in OPEN or route.path.startswith(OPEN_BY_PREFIX), route.path
        else:
            assert CATALOGUE[route.scope].row in rows, route.path


async def test_only_compliance_decides_what_only_compliance_may(api: Api) -> None:
    """Of all 21 roles: administrators, operations engineers and services are refused as well."""
    client = await api.new_client()
    view = await api.walk(client, "registered", "kyc_pending", "kyc_under_review")
    asked = await (await api.move(view, "approved")).json()
    path, may = f"/v1/approvals/{asked['id']}/decide", []
    order = {"decision": "refuse", "reason": "the file is not complete"}
    for role in sorted((it.id for it in SAMPLE_ROLES), key=DECIDE.count):
        token = await api.key(role, owner=role.partition(".")[2])
        answer = await api.call("POST", path, order, token=token)
        text = await answer.text()
        if answer.status == 403:
            assert '"forbidden"' in text, (role, text)
        else:
            may.append((role, answer.status))

    assert may == [("as.compliance", 200), ("as.mlro", 409)]  # the second finds it decided


async def test_every_role_at_every_endpoint(api: Api) -> None:
    """403 where the matrix has no letter for it, and never 403 where it has one.

    What is asked for does not exist and carries no body, so nothing happens where it is allowed.
    """
    wrong, asked, allowed = [], 0, 0
    tokens = {role.id: await api.key(role.id, owner="staff") for role in SAMPLE_ROLES}
    held = {role.id: frozenset(role.scopes) for role in SAMPLE_ROLES}
    for route in ROUTES:
        if route.scope == PUBLIC:
            continue
        path = re.sub(r"\{\w+\}", "x", route.path)
        for role, token in tokens.items():
            answer = await api.call(route.method, path, token=token, key=None)
            text = await answer.text()
            refused = answer.status == 403 and '"forbidden"' in text and '"scope"' in text
            cell = CELLS.get((CATALOGUE[route.scope].row, COLUMN[role]), frozenset())
            # The functions of services share a column: which of them has the letter is its role's.
            may = bool(cell & {route.scope, *route.masked}) and bool(
                held[role] & {route.scope, *route.masked}
            )
            asked, allowed = asked + 1, allowed + may
            if refused is may or answer.status in (401, 500):
                wrong.append((role, route.method, route.path, answer.status))

    assert not wrong
    assert asked > 700
    assert 100 < allowed < asked
