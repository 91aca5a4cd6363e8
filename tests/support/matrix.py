"""The matrix of roles as the customer wrote it, cell by cell. Knows its files and their letters."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Final

from gateway.control.permissions import CATALOGUE

GOLDEN: Final = Path(__file__).parents[1] / "golden"
ROLES: Final = {
    "SAL": ("sales",), "RET": ("retention",), "SUP": ("support",), "KYA": ("kyc-analyst",),
    "CMP": ("compliance",), "MLR": ("mlro",), "FIN": ("finance",), "PAY": ("payments",),
    "PTM": ("partner-manager",), "DEA": ("dealing",), "SRE": ("sre",), "ADM": ("admin",),
    "IAM": ("iam",), "AUD": ("auditor",), "IB": ("partner",),
    "SVC": ("svc.psp", "svc.kyc", "svc.mt", "svc.router", "svc.settle"),
    "CALLER": ("svc.caller",),
}  # fmt: skip
"""A column -> the roles of the rulebook that it is; the functions of services share one."""


def cells() -> dict[tuple[str, str], frozenset[str]]:
    """(row, column) -> the permissions that the cell gives, of both files."""
    found: dict[tuple[str, str], frozenset[str]] = {}
    for name in ("permission_matrix.csv", "permission_matrix_api.csv"):
        with (GOLDEN / name).open(newline="") as file:
            for line in csv.DictReader(file):
                row = line.pop("Permission")
                for column, cell in line.items():
                    if cell:  # the second file is silent on what the first says
                        found[row, column] = permissions(row, cell)
    return found


def permissions(row: str, cell: str) -> frozenset[str]:
    """The permissions of a cell: a letter whose words in brackets name none of their own is the
    letter alone, within the scope of the grant.
    """
    if cell == "-":
        return frozenset()
    by_letter = {each.letter: each.name for each in CATALOGUE.values() if each.row == row}
    return frozenset(
        by_letter.get(token) or by_letter[token.partition("(")[0]]
        for token in (part.strip().rstrip("*") for part in cell.split(","))
    )
