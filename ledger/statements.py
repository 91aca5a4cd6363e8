"""Statements of a batch: what the rooms contribute, put together into few round trips.

Knows how several set-based statements become one: as parts of its WITH, their parameters one after
the other. Refuses to know what a statement does, and touches nothing but its text.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from ledger import queries as q
from ledger.units import Kind, Step

STATEMENTS_MAX: Final = 1000  # sets of kinds that have met in a batch; a product has some dozens
LANE_WIDTH: Final = 2  # parameters of the part that moves the lane's row
BOOKS_WIDTH: Final = 25  # parameters of the books' own parts
ACCOUNTS_WIDTH: Final = 2
ACCOUNTS: Final = -1  # the part that bears the locked balances
_PARAMETER: Final = re.compile(r"\$(\d+)")


def may_share(kind: Kind) -> bool:
    """Whether its statement may stand in another's WITH: one that has its own WITH may not."""
    return kind.sql.lstrip()[:4].upper() != "WITH"


@lru_cache(maxsize=STATEMENTS_MAX)
def locking(kinds: tuple[Kind, ...], *, accounts: bool) -> str:
    """One statement that asks every check, then locks every row, then every account, in this order.

    Each kind has one parameter; the accounts' two follow. A row tells its `part`, the kind's place
    or ACCOUNTS, and then a key (with a version for rows), or a balance.
    """
    parts, rows = [], []
    for n, kind in enumerate(kinds):
        check = kind.step is Step.CHECK
        named, seen = ("key", "NULL::bigint") if check else ("key, version", "version")
        text = _shifted(kind.sql if check else kind.look, n)
        parts.append(f"k{n} ({named}) AS ({text})")
        rows.append(q.LOCKED_ROWS.format(n=n, version=seen))
    if accounts:
        parts.append(f"accounts AS ({_shifted(q.LOCK_BALANCES, len(kinds))})")
        rows.append(q.LOCKED_ACCOUNTS.format(n=ACCOUNTS))
    return f"WITH {', '.join(parts)} {' UNION ALL '.join(rows)}"


@lru_cache(maxsize=STATEMENTS_MAX)
def writing(kinds: tuple[tuple[Kind, int], ...], *, books: bool) -> str:
    """One statement that moves the lane, writes the books if there is something for them, and does
    what each kind's statement does.

    kinds    each with the number of its parameters, which follow those of the books or the lane
    answers  one row: recorded, written and advanced as in WRITE_BOOKS, then `n0`, `n1`, ...: how
             many rows each kind touched
    """
    parts = [q.BOOKS_PARTS if books else q.LANE_PARTS]
    answers = [q.BOOKS_ANSWER if books else q.LANE_ANSWER]
    before = BOOKS_WIDTH if books else LANE_WIDTH
    for n, (kind, width) in enumerate(kinds):
        text = _shifted(kind.sql, before)
        returning = "" if "RETURNING" in kind.sql else " RETURNING 1"
        parts.append(f"k{n} AS ({text}{returning})")
        answers.append(q.TOUCHED.format(n=n))
        before += width
    source = q.BOOKS_SOURCE if books else ""
    return f"WITH {', '.join(parts)} SELECT {', '.join(answers)} {source}"


def _shifted(sql: str, by: int) -> str:
    """The statement with its parameters numbered from `by` + 1."""
    return _PARAMETER.sub(lambda m: f"${int(m[1]) + by}", sql.strip())
