"""The bytes of lines: what the server reads, and what their hash is over."""

from __future__ import annotations

import hashlib
from datetime import time, timedelta

import msgspec
import pytest

from ledger.rebates.encode import (
    NAMES,
    WIDTH,
    Copy,
    Facts,
    content,
    deal_bytes,
    link,
    row,
    template,
)
from ledger.rebates.lines import Line
from tests.support.rebates import T0, deal, decoded, landed

LINE = Line(book=2, no=5, batch=7, feed=3, deal_no=2**40 + 1, concerned_no=9, account=-11,
            component=1, kind=3, level=4, reason=7, plan=2**30, amount=-12345)  # fmt: skip


FACTS = Facts(
    book=1, batch=2, feed=3, first_deal=4, last_deal=5, first_line=6, last_line=7, day=T0.date(),
    settles=T0.date(), cut_off=time(21), inputs=8, epoch=9,
    deals=b"d" * 32, lines=b"l" * 32, left={(10, 1): -(10**30), (9, 1): 11},
)  # fmt: skip


def test_a_row_has_the_columns_of_the_table_in_their_order() -> None:
    """A line's bytes name no column: their order is the struct's, and it never changes."""
    fields = tuple(Line.__struct_fields__)
    assert tuple(name.removesuffix("_id") for name in NAMES) == fields
    assert len(row(LINE)) == WIDTH


def test_the_canonical_bytes_of_a_line_are_fixed() -> None:
    """The stored hash is over these bytes: another form would make every old batch look altered."""
    assert content([LINE]).hex() == (
        "8268e19c494a4bb0b80bd262707e62a9aaf05c319fa463a3e9906c04047c9450"
    )
    assert row(LINE)[:8].hex() == "000d000000020002"
    assert row(LINE)[-12:].hex() == "00000008ffffffffffffcfc7"


def test_numbers_are_filled_into_all_rows() -> None:
    """Blank rows get the numbers of line, batch and deals; some concern another deal."""
    blank = [template(2, 3, account, 1, 1, 1, 0, 5, account * 2) for account in range(4)]
    copy = Copy(blank, [10, 10, 11, 2**40], {2: 4, 3: 0})
    copy.number(6, 2**33)
    found = decoded(bytes(copy.stream))
    assert [line.no for line in found] == [2**33 + n for n in range(4)]
    assert [line.deal_no for line in found] == [10, 10, 11, 2**40]
    assert [line.concerned_no for line in found] == [10, 10, 4, 0]
    assert {line.batch for line in found} == {6}
    assert [(line.account, line.amount) for line in found] == [(n, n * 2) for n in range(4)]
    assert copy.content() == content(found)


def test_a_batch_without_lines_has_the_hash_of_nothing() -> None:
    """No rows, no bytes."""
    copy = Copy([], [], {})
    copy.number(1, 1)
    assert copy.content() == content([]) == hashlib.sha256().digest()
    assert decoded(bytes(copy.stream)) == []


def test_the_canonical_bytes_of_deals_are_fixed() -> None:
    """All that accrual is given is in them; how many are encoded at once changes nothing."""
    deals = landed([deal(1, "0.5"), deal(1, "0.7"), deal(2)])
    whole = deal_bytes(deals)
    assert b"".join(deal_bytes([each]) for each in deals) == whole
    assert hashlib.sha256(whole).hexdigest() == (
        "92792b9d2818c9b21d00c349971123cdc14238233a87b65523790be588e55d25"
    )


def test_the_content_of_a_batch_is_fixed() -> None:
    """Another form would make every old batch look altered."""
    assert link(b"", None, FACTS).hex() == (
        "cee7469119e6289fd4dc767a9f46c1d2eac55c33e95bacfe1b527e00665d8596"
    )
    left = dict(reversed(FACTS.left.items()))
    assert link(b"", None, msgspec.structs.replace(FACTS, left=left)) == link(b"", None, FACTS)


@pytest.mark.parametrize("field", Facts.__struct_fields__)
def test_the_content_of_a_batch_binds_all_it_says(field: str) -> None:
    """Each fact, the batch before it and that one's time."""
    said = getattr(FACTS, field)
    other = {
        int: lambda: said + 1, bytes: lambda: said[::-1] + b"x",
        dict: lambda: said | {(9, 1): 12}, time: lambda: said.replace(minute=1),
    }.get(type(said), lambda: said + timedelta(days=1))()  # fmt: skip
    changed = msgspec.structs.replace(FACTS, **{field: other})
    assert link(b"p", T0, changed) != link(b"p", T0, FACTS)
    assert link(b"q", T0, FACTS) != link(b"p", T0, FACTS)
    assert link(b"p", T0 + timedelta(microseconds=1), FACTS) != link(b"p", T0, FACTS)
