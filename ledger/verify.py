"""The invariants of the books as queries: each names what is wrong, none repairs it.

Knows what must always be true of schema `ledger`, its triggers and its grants. Refuses to know
other rooms (`gateway/verify.py` joins them) and to change anything.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

import asyncpg
import msgspec

from ledger import queries as q
from ledger.chart import ACCOUNTS


class Wrong(msgspec.Struct, frozen=True):
    """One broken invariant: a stable code, what it is about, and what was found."""

    code: str
    subject: str
    detail: str


INVARIANTS: Final = {
    "entry-unbalanced": q.UNBALANCED_ENTRIES,
    "entry-without-postings": q.ENTRIES_WITHOUT_POSTINGS,
    "posting-without-entry": q.ORPHAN_POSTINGS,
    "balance-without-postings": q.BALANCES_WITHOUT_POSTINGS,
    "chain-broken": q.BROKEN_CHAINS,
}

TRIGGERS: Final = {
    ("entry", "entry_is_final"),
    ("posting", "posting_is_final"),
    ("posting", "postings_are_proved"),
    ("account", "account_is_final"),
    ("book", "book_is_final"),
    ("fact", "fact_is_final"),
    ("balance", "balance_stays"),
}

_READ_AND_ADD: Final = {
    (table, right, "")
    for table in (
        "book", "account", "balance", "entry", "posting", "hold", "fact", "fact_work", "lane"
    )
    for right in ("select", "insert")
}  # fmt: skip
GRANTS: Final = _READ_AND_ADD | {
    ("balance", "update", "posted"),
    ("balance", "update", "version"),
    ("balance", "update", "changed"),
    ("hold", "update", "state"),
    ("hold", "update", "version"),
    ("lane", "update", "batch"),
    ("lane", "update", "seen"),
    ("lane", "delete", ""),
    ("fact_work", "update", "reader"),
    ("fact_work", "delete", ""),
}


async def verify(conn: asyncpg.Connection) -> list[Wrong]:
    """Everything that is wrong in the books; an empty list is the proof. One snapshot."""
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        wrong: list[Wrong] = []
        for code, sql in INVARIANTS.items():
            wrong += _rows(code, await conn.fetch(sql))
        kinds = list(ACCOUNTS.values())
        chart = [k.number for k in kinds], [k.sign for k in kinds], [k.floor for k in kinds]
        wrong += _rows("account-off-chart", await conn.fetch(q.ACCOUNTS_OFF_CHART, *chart))
        hold_kind = ACCOUNTS["client_hold"].number
        wrong += _rows("hold-off-books", await conn.fetch(q.HOLDS_OFF_BOOKS, hold_kind))
        return wrong + await _triggers(conn) + await _grants(conn)


def _rows(code: str, rows: list[asyncpg.Record]) -> list[Wrong]:
    return [Wrong(code, str(row["subject"]), str(row["detail"])) for row in rows]


async def _triggers(conn: asyncpg.Connection) -> list[Wrong]:
    """Each trigger stands, is switched on, and runs the text of the migrations."""
    found = {(r["table_name"], r["trigger_name"]): r for r in await conn.fetch(q.TRIGGERS)}
    wrong = [
        Wrong("trigger-missing", f"{table}.{name}", "the migrations made it, it is gone")
        for table, name in sorted(TRIGGERS - found.keys())
    ]
    source = "".join(
        path.read_text()
        for path in files("ledger").joinpath("migrations").iterdir()
        if path.name.endswith(".sql")
    )
    for (table, name), row in found.items():
        if row["enabled"] != "O":
            wrong.append(Wrong("trigger-disabled", f"{table}.{name}", "it is switched off"))
        if row["body"] not in source:
            wrong.append(Wrong("trigger-changed", f"{table}.{name}", "its text was changed"))
    return wrong


async def _grants(conn: asyncpg.Connection) -> list[Wrong]:
    found = {
        (r["table_name"], r["privilege"], r["column_name"]) for r in await conn.fetch(q.GRANTS)
    }
    surplus = [
        Wrong("grant-added", table, f"the daemon may {right} {column}".strip())
        for table, right, column in sorted(found - GRANTS)
    ]
    missing = [
        Wrong("grant-missing", table, f"the daemon may not {right} {column}".strip())
        for table, right, column in sorted(GRANTS - found)
    ]
    return surplus + missing
