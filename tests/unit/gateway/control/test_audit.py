"""The record of an act: what it says, and what it cannot be without."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from gateway import audit_check
from gateway.control import queries_audit as q
from gateway.control.access import Caller, Held, Reach
from gateway.control.audit import COMMANDS, REASONED, Command, Concerns, audited
from gateway.control.refusals import Refusal
from gateway.control.sealing import form

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
CALLER = Caller(
    key_id="KY1", person="ann", owner="crm", session="SS1",
    grants=(Held("GR1", "sales", frozenset({"clients:read"}), Reach()),),
)  # fmt: skip


def record(name: str = "client.move", reason: str = "why") -> dict[str, object]:
    """A record by the names of its columns."""
    command = Command(CALLER, reason, "CR1", NOW, on_behalf_of="bob")
    change = audited(
        command, name, "CL1", "AU1", before={"a": 1}, after={"b": 2}, approvals=("AP1", "AP2"),
        concerns=Concerns("fx-eu", "northgate", "CL1", "CT1"),
    )  # fmt: skip
    columns = re.search(r"INSERT INTO gateway.audit \(([^)]*)\)", q.INSERT_AUDIT)
    assert columns is not None
    return dict(zip(re.findall(r"\w+", columns[1]), change.row, strict=True))


def test_a_record_says_who_as_what_for_whom_what_when_why_and_by_whose_leave() -> None:
    """Every part comes from the credential and the command, in the column of its name."""
    assert record() == {
        "id": "AU1", "at": NOW, "actor": "ann", "role": "sales", "on_behalf_of": "bob",
        "command": "client.move", "subject": "CL1", "before": '{"a":1}', "after": '{"b":2}',
        "reason": "why", "correlation": "CR1", "key_id": "KY1", "session": "SS1",
        "grant_id": "GR1", "approvals": "AP1,AP2", "entity": "fx-eu", "brand": "northgate",
        "client": "CL1", "contract": "CT1",
    }  # fmt: skip


def test_all_of_a_record_is_sealed() -> None:
    """Each column is in the form that is hashed, and the verifier knows the same fields."""
    columns = record() | {"approvals": ["AP1"]}

    sealed = form(columns)

    assert sealed.keys() == audit_check.RECORD
    renamed = {"key_id": "key", "grant_id": "grant"}
    assert {renamed.get(name, name) for name in columns} == sealed.keys()
    assert sealed["at"] == "2026-11-22T10:00:00.000000Z"


@pytest.mark.parametrize("name", sorted(REASONED))
@pytest.mark.parametrize("reason", ["", "   "])
def test_an_act_that_needs_a_reason_is_refused_without(name: str, reason: str) -> None:
    """Nothing of it can be written: its record cannot be made."""
    with pytest.raises(Refusal) as refused:
        record(name, reason)

    assert refused.value.code == "reason-missing"
    assert record(name)["reason"] == "why"


def test_an_act_that_nobody_decides_needs_no_reason() -> None:
    """What a system does by itself says so by its role."""
    assert "deposit.start" in COMMANDS.keys() - REASONED
    assert record("deposit.start", "")["reason"] == ""
