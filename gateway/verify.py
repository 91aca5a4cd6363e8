"""Whether the whole house agrees: the books' own invariants, and what the rooms say of each other.

Knows which statement proves what. Refuses to repair anything: it names what is wrong.
"""

from __future__ import annotations

from typing import Any

import asyncpg

from gateway import defences
from gateway import queries_verify as q
from gateway.control import queries_audit as audit
from gateway.control.exporting import first_bad
from gateway.flows.attributions import SOURCES
from ledger.chart import ACCOUNTS, ENTRIES
from ledger.money import codes
from ledger.rebates import proof
from ledger.rebates.inputs import altered_plans
from ledger.verify import Wrong
from ledger.verify import verify as verify_books

CONNECT_TIMEOUT_S = 10.0


async def run(dsn: str, *, quick: bool = False) -> list[Wrong]:
    """Everything that is wrong, by any role that can read; an empty list is the proof.

    quick  leaves out to compute every rebate again
    """
    conn = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S)
    try:
        wrong = [*await verify_books(conn), *await agree(conn)]
        return wrong if quick else [*wrong, *await recomputed(conn)]
    finally:
        await conn.close()


async def agree(conn: asyncpg.Connection) -> list[Wrong]:
    """What the rooms say of each other, in one snapshot: it may be taken while they work."""
    kinds = {name: kind.number for name, kind in ACCOUNTS.items()}
    deposit, surplus = ENTRIES["deposit"], ENTRIES["deposit_surplus"]
    wallet, transit, platform = (
        kinds[name] for name in ("client_wallet", "in_transit", "on_platform")
    )
    transfers = [ENTRIES[name] for name in ("transfer_out", "transfer_done", "transfer_back")]
    checks: dict[str, tuple[str, list[Any]]] = {
        "credit-off-payment": (q.CREDITS_OFF_PAYMENTS, [deposit]),
        "credit-off-amount": (q.CREDITED_AMOUNTS, [deposit, wallet, kinds["psp_clearing"]]),
        "charge-off-books": (q.CHARGES_OFF_BOOKS, [surplus]),
        "mismatch-off-books": (
            q.MISMATCHES_OFF_BOOKS, [ENTRIES["deposit_mismatch"], kinds["suspense"], codes()],
        ),
        "refund-off-surplus": (
            q.REFUNDS_OFF_SURPLUS, [surplus, ENTRIES["refund"], kinds["suspense"]],
        ),
        "operation-off-payment": (q.OPERATIONS_OFF_PAYMENTS, []),
        "transfer-off-operation": (q.TRANSFERS_OFF_OPERATIONS, transfers),
        "transfer-off-amount": (q.TRANSFERRED_AMOUNTS, [*transfers, wallet, transit, platform]),
        "platform-off-books": (q.PLATFORM_OFF_BOOKS, [platform]),
        "transit-off-books": (q.TRANSIT_OFF_BOOKS, [transit]),
        "state-off-events": (q.STATES_OFF_EVENTS, []),
        "outbox-numbers": (q.OUTBOX_NUMBERS, []),
        "end-untold": (q.UNTOLD_ENDS, []),
        "key-without-object": (q.KEYS_WITHOUT_OBJECTS, []),
        "object-without-audit": (q.OBJECTS_WITHOUT_AUDIT, []),
        "adjustment-off-approval": (q.ADJUSTMENTS_OFF_APPROVALS, []),
        "act-numbers": (q.ACT_NUMBERS, []),
        "rulebook-unagreed": (q.RULEBOOK_UNAGREED, []),
        "tree-cycle": (q.TREE_CYCLES, []),
        "tree-leaves-book": (q.TREES_OFF_BOOKS, []),
        "contract-incomplete": (q.CONTRACTS_INCOMPLETE, []),
        "plan-off-currency": (q.PLANS_OFF_CURRENCIES, []),
        "inputs-behind": (q.INPUTS_BEHIND, []),
        "attribution-missing": (q.CLIENTS_WITHOUT_ATTRIBUTION, []),
        "attribution-astray": (q.ATTRIBUTIONS_ASTRAY, []),
        "attribution-unapproved": (q.ATTRIBUTIONS_UNAPPROVED, []),
        "approval-off-votes": (q.APPROVALS_OFF_VOTES, []),
    }  # fmt: skip
    wrong: list[Wrong] = []
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        for code, (sql, arguments) in checks.items():
            rows = await conn.fetch(sql, *arguments)
            wrong += [Wrong(code, str(row["subject"]), str(row["detail"])) for row in rows]
        wrong += [
            Wrong("plan-altered", f"{plan} {id}", "its body is not what its hash names")
            for id, plan in await altered_plans(conn)
        ]
        return [*wrong, *await sealed(conn), *await defences.stand(conn)]


async def sealed(conn: asyncpg.Connection) -> list[Wrong]:
    """Whether every record of the audit is what was sealed, in the caller's snapshot."""
    checks = {
        "record-unsealed": audit.RECORDS_UNSEALED,
        "seal-off-record": audit.SEALS_OFF_RECORDS,
        "anchor-off": audit.ANCHORS_OFF_SEALS,
    }
    wrong = [
        Wrong(code, row["subject"], row["detail"])
        for code, sql in checks.items()
        for row in await conn.fetch(sql)
    ]
    if (bad := await first_bad(conn)) is not None:
        wrong.append(Wrong("seal-broken", str(bad[0]), bad[1]))
    return wrong


async def recomputed(conn: asyncpg.Connection) -> list[Wrong]:
    """What is not as it follows from the deals that are stored; takes minutes for big books."""
    return [
        Wrong(each.code, each.subject, each.detail) for each in await proof.prove(conn, SOURCES)
    ]
