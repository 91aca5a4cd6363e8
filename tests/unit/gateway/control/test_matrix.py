"""The sample broker's roles are the matrix of roles, cell by cell, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import gateway
from gateway.cli import DEMO_FOLDER
from gateway.control import access
from gateway.control.permissions import CATALOGUE, OWN_ROWS, ROWS
from gateway.control.rulebook import check
from gateway.http.app import ROUTES
from gateway.http.serving import PUBLIC
from tests.support.matrix import GOLDEN, ROLES, cells

CELLS = cells()
MAKES = frozenset("QAXCP")


def roles() -> dict[str, frozenset[str]]:
    """Role -> its permissions, of the sample broker."""
    book, findings = check(DEMO_FOLDER)
    assert book is not None, findings
    return dict(access.compile(book)[0].roles)


def test_every_cell_of_the_matrix_is_what_the_roles_have() -> None:
    """43 rows of 16 roles and the rows of the API's own: allowed what it says, and no more."""
    have = roles()
    wrong = []
    for row in (*ROWS, *OWN_ROWS):
        of_row = {name for name, each in CATALOGUE.items() if each.row == row}
        for column, names in ROLES.items():
            held = of_row & frozenset[str]().union(*(have[name] for name in names))
            if held != CELLS.get((row, column), frozenset()):
                wrong.append((row, column, held))

    assert not wrong
    assert len(ROWS) == 43
    assert set(have) == {name for names in ROLES.values() for name in names}


def test_the_catalogue_and_the_matrix_have_the_same_rows() -> None:
    """A permission without a row would be nobody's business; a row without one, nobody's right."""
    rows = {row for row, _ in CELLS}

    assert rows == {*ROWS, *OWN_ROWS}
    given = frozenset[str]().union(*CELLS.values())
    assert set(CATALOGUE) - given == set()


def test_services_approve_nothing() -> None:
    """Whatever runs by itself has no letter A and none of publishing."""
    for name, held in roles().items():
        if name.startswith("svc."):
            assert not {it for it in held if CATALOGUE[it].letter[0] in "AP"}, name


def test_an_auditor_writes_nothing() -> None:
    """The one letter that is no reading: an export of the audit."""
    made = {it for it in roles()["auditor"] if CATALOGUE[it].letter[0] in MAKES}

    assert made == {"audit:export"}


def test_every_permission_has_an_endpoint_or_is_listed() -> None:
    """What the matrix allows and nothing asks for yet is known by name."""
    root = Path(gateway.__file__).parent
    source = "\n".join(
        path.read_text() for path in root.rglob("*.py") if path.name != "permissions.py"
    )
    named = set(re.findall(r"\"([a-z-]+:[a-z-]+)\"", source))
    asked = {route.scope for route in ROUTES} - {PUBLIC} | named & set(CATALOGUE)
    listed = set((GOLDEN / "permissions_without_endpoint.txt").read_text().split())

    assert set(CATALOGUE) - asked <= listed <= set(CATALOGUE)
