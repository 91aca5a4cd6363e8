"""The invariants of the books as queries: each names what is wrong, none repairs it.

Knows what must always be true of schema `ledger`, its triggers and its grants. Refuses to know
other rooms (`gateway/verify.py` joins them) and to change anything.
"""

from __future__ import annotations

import re
from datetime import UTC
from importlib.resources import files
from typing import Final

import asyncpg
import msgspec

from ledger import queries as q
from ledger import queries_deals as qd
from ledger import queries_rebate_verify as qr
from ledger.chart import ACCOUNTS, ENTRIES
from ledger.rebates import reads
from ledger.rebates.lines import LineKind


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
    "balance-below-floor": q.BALANCES_BELOW_FLOOR,
    "chain-broken": q.BROKEN_CHAINS,
    "entry-altered": q.ALTERED_ENTRIES,
    "deal-numbers": qd.DEAL_NUMBERS,
    "deal-versions": qd.DEAL_VERSIONS,
    "deal-off-feed": qd.DEALS_OFF_FEEDS,
    "batch-numbers": qr.BATCH_NUMBERS,
    "batch-altered": qr.BATCHES_ALTERED,
    "batch-time": qr.BATCH_TIMES,
    "remainder-off": qr.REMAINDERS_OFF_STEPS,
}

TOLD: Final = ("currency", "accrued", "held", "payable", "today", "lines", "version")
TOLD_MAX: Final = 1_000  # contracts in one statement

_TRIGGER: Final = re.compile(r"^(?=CREATE TRIGGER (\w+))(CREATE TRIGGER [^;]+);", re.MULTILINE)
_FUNCTION: Final = re.compile(
    r"^CREATE (?:OR REPLACE )?FUNCTION ledger\.(\w+)\(.*?AS \$\$(.*?)\$\$", re.MULTILINE | re.DOTALL
)
_EVENTS: Final = re.compile(r"\b(BEFORE|AFTER) ((?:\w+ OR )*\w+) ON")

# As the server words them; a migration that changes one changes this list.
CONSTRAINTS: Final = {
    "account.account_book_id_kind_owner_currency_key": "UNIQUE (book_id, kind, owner, currency)",
    "account.account_pkey": "PRIMARY KEY (book_id, id)",
    "balance.balance_floor": "CHECK (((floor IS NULL) OR ((sign * posted) >= floor)))",
    "balance.balance_pkey": "PRIMARY KEY (book_id, account_id)",
    "balance.balance_sign_check": "CHECK ((sign = ANY (ARRAY['-1'::integer, 1])))",
    "book.book_entity_key": "UNIQUE (entity)",
    "book.book_pkey": "PRIMARY KEY (id)",
    "entry.entry_approved": (
        "CHECK ((((kind >= 90) AND (kind <= 99)) = COALESCE(((approval <> ''::text) AND "
        "(maker <> ''::text) AND (checker <> ''::text) AND (maker <> checker)), false))) NOT VALID"
    ),
    "entry.entry_book_id_kind_key_key": "UNIQUE (book_id, kind, key)",
    "entry.entry_pkey": "PRIMARY KEY (book_id, id)",
    "entry.entry_postings_check": "CHECK ((postings >= 2))",
    "fact.fact_pkey": "PRIMARY KEY (id)",
    "fact_work.fact_work_pkey": "PRIMARY KEY (reader, fact_id)",
    "hold.hold_amount_check": "CHECK ((amount > 0))",
    "hold.hold_pkey": "PRIMARY KEY (id)",
    "hold.hold_state_check": (
        "CHECK ((state = ANY (ARRAY['open'::text, 'released'::text, 'captured'::text])))"
    ),
    "lane.lane_pkey": "PRIMARY KEY (id)",
    "posting.posting_amount_check": "CHECK ((amount <> 0))",
    "posting.posting_book_id_account_id_version_key": "UNIQUE (book_id, account_id, version)",
    "posting.posting_pkey": "PRIMARY KEY (book_id, entry_id, seq)",
    "accrual_batch.accrual_batch_book_id_feed_first_deal_key": "UNIQUE (book_id, feed, first_deal)",
    "accrual_batch.accrual_batch_check": (
        "CHECK (((last_deal >= first_deal) AND (last_line >= (first_line - 1))))"
    ),
    "accrual_batch.accrual_batch_pkey": "PRIMARY KEY (book_id, batch)",
    "accrual_batch.accrual_batch_settles": (
        "CHECK (((settles = day) OR ((settles = (day + 1)) AND "
        "(cut_off > '00:00:00'::time without time zone))))"
    ),
    "accrual_head.accrual_head_pkey": "PRIMARY KEY (book_id)",
    "accrual_position.accrual_position_pkey": "PRIMARY KEY (book_id, feed)",
    "contract_batch.contract_batch_lines_check": "CHECK ((lines > 0))",
    "contract_batch.contract_batch_pkey": "PRIMARY KEY (book_id, account_id, batch)",
    "contract_day.contract_day_pkey": "PRIMARY KEY (book_id, account_id, day)",
    "deal.deal_book_id_feed_ticket_phase_version_key": (
        "UNIQUE (book_id, feed, ticket, phase, version)"
    ),
    "deal.deal_closed_check": "CHECK ((closed >= 0))",
    "deal.deal_pkey": "PRIMARY KEY (book_id, feed, no)",
    "deal.deal_version_check": "CHECK ((version > 0))",
    "deal.deal_volume_check": "CHECK ((volume >= 0))",
    "deal_parked.deal_parked_pkey": "PRIMARY KEY (feed, ticket, phase, content)",
    "feed_book.feed_book_pkey": "PRIMARY KEY (book_id, feed)",
    "feed_cursor.feed_cursor_pkey": "PRIMARY KEY (feed)",
    "feed_cursor.feed_cursor_server_key": "UNIQUE (server)",
    "inputs.inputs_pkey": "PRIMARY KEY (book_id)",
    "plan_version.plan_version_pkey": "PRIMARY KEY (id)",
    "plan_version.plan_version_plan_hash_since_key": "UNIQUE (plan, hash, since)",
    "rebate_line.rebate_line_book_id_feed_deal_no_concerned_no_account_id_co_key": (
        "UNIQUE (book_id, feed, deal_no, concerned_no, account_id, component, kind)"
    ),
    "remainder.remainder_pkey": "PRIMARY KEY (book_id, account_id, component, period)",
    "remainder_step.remainder_step_pkey": (
        "PRIMARY KEY (book_id, account_id, component, period, batch)"
    ),
}

_READ_AND_ADD: Final = {
    (table, right, "")
    for table in (
        "book", "account", "balance", "entry", "posting", "hold", "fact", "fact_work", "lane",
        "feed_cursor", "feed_book", "deal", "deal_parked", "inputs", "plan_version", "rebate_line",
        "accrual_batch", "contract_batch", "contract_day", "remainder", "remainder_step",
        "accrual_head", "accrual_position",
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
    *(("feed_cursor", "update", column) for column in ("epoch", "cursor", "moved")),
    ("feed_book", "update", "landed"),
    *(("deal_parked", "update", column) for column in ("reason", "subject", "landed")),
    ("inputs", "update", "version"),
    ("contract_day", "update", "net"),
    *(("remainder", "update", column) for column in ("exact", "paid")),
    *(("accrual_head", "update", column) for column in ("epoch", "batch", "line")),
    ("accrual_position", "update", "reached"),
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
        wrong += await _rebates(conn)
        for bond in (_triggers, _functions, _constraints, _grants):
            wrong += await bond(conn)
        return wrong


async def _rebates(conn: asyncpg.Connection) -> list[Wrong]:
    """Lines, postings and sums of what partners earned say the same, and so does what is told."""
    accrued, kind = ACCOUNTS["partner_accrued"].number, ENTRIES["accrual"]
    sums = await conn.fetch(qr.SUMS, accrued, int(LineKind.ROUNDING), kind)
    entries = await conn.fetch(qr.ENTRIES_WITHOUT_BATCHES, kind)
    return [
        *(Wrong(str(row["code"]), str(row["subject"]), str(row["detail"])) for row in sums),
        *_rows("entry-without-batch", entries),
        *await _told(conn),
    ]


async def _told(conn: asyncpg.Connection) -> list[Wrong]:
    """What streams tell of a contract is what postings and batches come to."""
    today = (await conn.fetchval(qr.NOW)).astimezone(UTC).date()
    rows = await conn.fetch(qr.STREAM, list(reads.KINDS), today)
    wrong = []
    for start in range(0, len(rows), TOLD_MAX):
        part = rows[start : start + TOLD_MAX]
        told = await reads.contract_balances(
            conn, [(row["book_id"], row["owner"]) for row in part], today
        )
        for row, tells in zip(part, told, strict=True):
            books = {name: row[name] for name in TOLD}
            says = {name: getattr(tells, name) for name in TOLD}
            if says != books:
                detail = f"tells {says}, the books say {books}"
                wrong.append(Wrong("stream-off-books", row["owner"], detail))
    return wrong


def _rows(code: str, rows: list[asyncpg.Record]) -> list[Wrong]:
    return [Wrong(code, str(row["subject"]), str(row["detail"])) for row in rows]


def made_triggers() -> dict[str, str]:
    """The triggers that the migrations make: name -> definition in one form."""
    return {name: _one_form(text) for name, text in _TRIGGER.findall(_migrations())}


def made_functions() -> dict[str, str]:
    """The functions that the migrations make: name -> body."""
    return dict(_FUNCTION.findall(_migrations()))


def _migrations() -> str:
    """The text of the migrations in the order in which they run: what comes later holds."""
    folder = files("ledger").joinpath("migrations")
    paths = sorted((p for p in folder.iterdir() if p.name.endswith(".sql")), key=lambda p: p.name)
    return "".join(path.read_text() for path in paths)


def _one_form(definition: str) -> str:
    """A trigger's definition with single blanks and its events in one order."""
    text = " ".join(definition.split())
    return _EVENTS.sub(lambda m: f"{m[1]} {' OR '.join(sorted(m[2].split(' OR ')))} ON", text)


async def _triggers(conn: asyncpg.Connection) -> list[Wrong]:
    """Each trigger stands as the migrations made it, switched on, and there is no other."""
    wrong: list[Wrong] = []
    missing = made_triggers()
    for row in await conn.fetch(q.TRIGGERS):
        subject = f"{row['table_name']}.{row['name']}"
        made = missing.pop(row["name"], None)
        if made is None:
            wrong.append(Wrong("trigger-added", subject, "no migration made it"))
        elif made != _one_form(row["definition"]):
            wrong.append(Wrong("trigger-changed", subject, row["definition"]))
        if row["enabled"] != "O":
            wrong.append(Wrong("trigger-disabled", subject, "it is switched off"))
    gone = "the migrations made it, it is gone"
    return wrong + [Wrong("trigger-missing", name, gone) for name in sorted(missing)]


async def _functions(conn: asyncpg.Connection) -> list[Wrong]:
    """Each function runs the text of the migrations."""
    made = made_functions()
    found = {row["name"]: row for row in await conn.fetch(q.FUNCTIONS)}
    return [
        Wrong("function-changed", name, "it does not run the text of the migrations")
        for name in sorted(made.keys() | found.keys())
        if name not in found or found[name]["body"] != made.get(name) or found[name]["altered"]
    ]


async def _constraints(conn: asyncpg.Connection) -> list[Wrong]:
    """Each key and each check stands in the words of `CONSTRAINTS`, and there is no other."""
    found = {row["name"]: row["definition"] for row in await conn.fetch(q.CONSTRAINTS)}
    return [
        Wrong("constraint-changed", name, f"{found.get(name)} instead of {CONSTRAINTS.get(name)}")
        for name in sorted(found.keys() | CONSTRAINTS.keys())
        if found.get(name) != CONSTRAINTS.get(name)
    ]


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
