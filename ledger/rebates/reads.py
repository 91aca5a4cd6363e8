"""What partners earned, as readers see it: balances of contracts and their lines.

Knows how to read them, now and as of a time, many contracts in one statement. Refuses to write, and
to know who may see a contract.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

import asyncpg
import msgspec

from ledger import queries_rebate_reads as q
from ledger.chart import ACCOUNTS

KINDS = tuple(
    ACCOUNTS[kind].number for kind in ("partner_accrued", "partner_held", "partner_payable")
)


class ContractBalances(msgspec.Struct, frozen=True):
    """What stands on a contract's accounts, in minor units of its currency.

    currency   "" for a contract that never had an account: then all is zero
    today      what the lines of one UTC day come to
    lines      how many lines it has, and the number of the newest of them (0: none)
    version    the sum of its accounts' versions: it rises with each entry that moves one of them
    at         when its newest batch was booked
    """

    contract: str
    book: int
    currency: str
    accrued: int
    held: int
    payable: int
    today: int
    lines: int
    last_line: int
    version: int
    at: datetime | None


async def contract_balances(
    conn: asyncpg.Connection, contracts: Sequence[tuple[int, str]], today: date
) -> list[ContractBalances]:
    """The balances of these (book, contract) as they stand, in the order asked: one statement.

    today   the UTC day whose earnings are told apart
    """
    books, ids = [book for book, _ in contracts], [contract for _, contract in contracts]
    rows = await conn.fetch(q.CONTRACT_BALANCES, books, ids, today, *KINDS)
    return [_balances(row) for row in rows]


def _balances(row: asyncpg.Record) -> ContractBalances:
    return ContractBalances(
        row["owner"], row["book_id"], row["currency"], row["accrued"], row["held"], row["payable"],
        row["today"], row["lines"], row["last_line"], row["version"], row["at"],
    )  # fmt: skip
