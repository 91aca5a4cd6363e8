"""Pages: a cursor, a limit, and the cut between a page and the next.

Knows that one row more than asked for was read. Refuses to count totals: they leak and they cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from msgspec import Meta

T = TypeVar("T")

LIMIT_MAX = 200
Limit = Annotated[int, Meta(ge=1, le=LIMIT_MAX)]
Cursor = Annotated[str, Meta(max_length=20, pattern="^[0-9A-Z]*$")]
NumberCursor = Annotated[int, Meta(ge=0, le=2**63 - 1)]


def cut(
    rows: Sequence[T], limit: int, cursor: Callable[[T], str]
) -> tuple[Sequence[T], str | None]:
    """The page of at most `limit` rows and the cursor of the next, None on the last."""
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], cursor(rows[limit - 1])
