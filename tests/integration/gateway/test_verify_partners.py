"""`brokerd verify` on partners: what was done to a tree, to attribution or to a plan has its code.

As in `test_verify.py`: a house that lived is copied, and one thing in the copy is tampered with.
"""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import pytest

from gateway import verify

UPPER, LOWER = (
    f"(SELECT id FROM gateway.contract WHERE code = '{it}')" for it in ("UPPER", "LOWER")
)
_IN_DOLLARS = (
    "INSERT INTO ledger.plan_version (plan, hash, body, since) "
    """SELECT plan, 'dollars', jsonb_set(body, '{{currency}}', '"USD"'), {} """
    "FROM ledger.plan_version WHERE plan = 'eu-partner'"
)

TAMPERED: Sequence[tuple[str, str, set[str]]] = (
    (
        "the audit row of a contract was removed",
        f"DELETE FROM gateway.audit WHERE subject = {LOWER}",
        {"object-without-audit"},
    ),
    (
        "a caller's key stands for a contract that does not exist",
        f"UPDATE gateway.idempotency SET subject = 'CT000000000000000000' WHERE subject = {LOWER}",
        {"key-without-object"},
    ),
    (
        "two contracts stand above each other",
        f"UPDATE gateway.contract_edge SET parent = {LOWER} WHERE contract_id = {UPPER}",
        {"tree-cycle"},
    ),
    (
        "a contract stands below one that does not exist",
        f"UPDATE gateway.contract_edge SET parent = 'CT0' WHERE contract_id = {LOWER}",
        {"tree-leaves-book"},
    ),
    (
        "a contract stands below one of another currency",
        (
            f"UPDATE gateway.contract SET currency = 'USD' WHERE id = {UPPER}; "
            f"UPDATE gateway.contract_terms SET plan = 'int-master' WHERE contract_id = {UPPER}"
        ),
        {"tree-leaves-book"},
    ),
    (
        "a contract stands below one of another entity",
        (
            "UPDATE gateway.contract SET book = 2, entity = 'fx-int', inputs = 0 "
            f"WHERE id = {UPPER}; "
            f"UPDATE gateway.contract_edge SET book = 2, inputs = 0 WHERE contract_id = {UPPER}"
        ),
        {"tree-leaves-book"},
    ),
    (
        "a contract is in the books of another entity than it says",
        f"UPDATE gateway.contract SET entity = 'fx-int' WHERE id = {UPPER}",
        {"tree-leaves-book"},
    ),
    (
        "a contract lost its place in the tree",
        f"DELETE FROM gateway.contract_edge WHERE contract_id = {LOWER}",
        {"contract-incomplete"},
    ),
    (
        "a contract lost its plan",
        f"DELETE FROM gateway.contract_terms WHERE contract_id = {LOWER}",
        {"contract-incomplete"},
    ),
    (
        "a contract is on a plan of another currency",
        f"UPDATE gateway.contract_terms SET plan = 'int-master' WHERE contract_id = {LOWER}",
        {"plan-off-currency"},
    ),
    (
        "a contract is on a plan that was never published",
        f"UPDATE gateway.contract_terms SET plan = 'nothing' WHERE contract_id = {LOWER}",
        {"contract-incomplete"},
    ),
    (
        "a plan was in another currency for a while, and is as it was again",
        (
            f"{_IN_DOLLARS.format('now()')}; "
            "INSERT INTO ledger.plan_version (plan, hash, body, since) "
            "SELECT plan, hash, body, now() + interval '1 second' FROM ledger.plan_version "
            "WHERE plan = 'eu-partner' AND hash <> 'dollars'"
        ),
        {"plan-off-currency", "plan-altered"},
    ),
    (
        "a plan was in another currency before anybody was on it",  # nothing was paid by it
        _IN_DOLLARS.format("'2020-01-01'"),
        {"plan-altered"},
    ),
    (
        "the partner of a contract was removed",
        "DELETE FROM gateway.partner WHERE reference = 'LOWER'",
        {"contract-incomplete", "key-without-object"},
    ),
    (
        "an edge was added without moving the inputs",
        (
            "INSERT INTO gateway.contract_edge SELECT contract_id, now(), parent, book, inputs + 9 "
            f"FROM gateway.contract_edge WHERE contract_id = {LOWER}"
        ),
        {"inputs-behind"},
    ),
    (
        "nothing says any more whom a client came through",
        "DELETE FROM gateway.attribution WHERE inputs = 0 AND contract_id <> ''",
        {"attribution-missing"},
    ),
    (
        "a client was given to a contract of another brand",
        (
            "UPDATE gateway.client SET brand = 'eastwind' WHERE id = "
            "(SELECT client_id FROM gateway.attribution WHERE inputs = 0 AND contract_id <> '')"
        ),
        {"attribution-astray"},
    ),
    (
        "a client was given to nobody who exists",
        "UPDATE gateway.attribution SET contract_id = 'CT0' WHERE inputs = 0 AND contract_id <> ''",
        {"attribution-astray"},
    ),
    (
        "a client was moved to another contract and nobody asked",
        (
            "INSERT INTO gateway.attribution SELECT client_id, now(), '', book, '{}', 1, 'mallory' "
            "FROM gateway.attribution WHERE inputs = 0 AND contract_id <> ''"
        ),
        {"attribution-unapproved"},
    ),
    (
        "a change of attribution was undone",
        "DELETE FROM gateway.attribution WHERE inputs > 0",
        {"attribution-unapproved"},
    ),
    (
        "a change of attribution says that others agreed to it",
        "UPDATE gateway.attribution_change SET approved_by = '{eve}'",
        {"attribution-unapproved"},
    ),
    (
        "the question of a change was refused after all",
        (
            "UPDATE gateway.approval SET state = 'refused' WHERE kind = 'attribution.change'; "
            "UPDATE gateway.approval_event SET to_state = 'refused' WHERE to_state = 'approved'"
        ),
        {"attribution-unapproved"},
    ),
    (
        "a published plan pays more than it did",
        (
            "UPDATE ledger.plan_version SET body = jsonb_set(body, '{rates,0,per_lot}', '\"99\"') "
            "WHERE plan = 'eu-partner'"
        ),
        {"plan-altered"},
    ),
    (
        "a published plan cannot be read",
        "UPDATE ledger.plan_version SET body = body - 'mode' WHERE plan = 'eu-partner'",
        {"plan-altered"},
    ),
)


@pytest.mark.parametrize(
    ("sql", "codes"), [t[1:] for t in TAMPERED], ids=[t[0].replace(" ", "-") for t in TAMPERED]
)
async def test_each_disagreement_is_named(
    owner: asyncpg.Connection, sql: str, codes: set[str]
) -> None:
    """Rows changed behind the product's back are named by their code, and by no other."""
    await owner.execute("SET session_replication_role = replica")  # no trigger stands in the way
    await owner.execute(sql)
    named = await verify.agree(owner)
    assert {wrong.code for wrong in named} == codes, named
