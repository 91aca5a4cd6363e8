"""The decline taxonomy."""

from __future__ import annotations

import pytest

from router import taxonomy
from router.taxonomy import ADVICE, ISSUER, Meaning, Taxonomy

TABLE = taxonomy.load()
OWN = Meaning("simpay", "limit", "over the limit", "limit", "no")


@pytest.mark.parametrize(
    ("namespace", "code", "category", "other_psp"),
    [
        ("iso", "51", "funds", "no"),
        ("iso", "91", "issuer_later", "yes"),
        ("iso", "96", "technical", "yes"),
        ("iso", "05", "soft_generic", "ask"),
        ("iso", "43", "fraud", "no"),
        ("iso", "94", "duplicate", "after_resolution"),
        ("mc_mac", "03", "hard", "no"),
        ("transport", "http_401", "config", "yes"),
        ("checkout", "20051", "funds", "no"),
        ("checkout", "20123", "soft_generic", "ask"),
        ("checkout", "30001", "hard", "no"),
        ("braintree", "2044/hard", "hard", "no"),
        ("braintree", "2044/soft", "soft_generic", "ask"),
        ("braintree", "3001", "technical", "yes"),
    ],
)
def test_a_code_has_the_meaning_of_its_row(
    namespace: str, code: str, category: str, other_psp: str
) -> None:
    """Exact codes and ranges give the category and say whether another PSP may follow."""
    found = TABLE.find(namespace, code)
    assert found is not None
    assert (found.category, found.other_psp) == (category, other_psp)


def test_no_fraud_or_compliance_row_lets_another_psp_follow() -> None:
    """A suspicion is never carried from acquirer to acquirer."""
    rows = [row for row in TABLE._rows if row.category in ("fraud", "compliance")]
    assert rows
    assert {row.other_psp for row in rows} == {"no"}


def test_the_most_trusted_code_decides() -> None:
    """Network advice goes before the issuer's code, and that before the PSP's own."""
    table = TABLE.with_rows([OWN])
    codes = [(ADVICE, "03"), (ISSUER, "91"), ("simpay", "limit")]
    assert table.classify(codes).name == "mc_mac:03"
    assert table.classify([(ADVICE, ""), *codes[1:]]).name == "iso:91"
    assert table.classify([(ADVICE, ""), (ISSUER, ""), codes[2]]) == OWN


def test_an_unknown_more_trusted_code_leaves_the_word_to_the_next() -> None:
    """A code nobody described says nothing; the next one may."""
    assert TABLE.classify([(ADVICE, "99"), (ISSUER, "51")]).name == "iso:51"


def test_a_code_nobody_described_never_cascades() -> None:
    """Unmapped declines stop the walk and keep the code, so that a person can describe it."""
    meaning = TABLE.classify([(ISSUER, ""), ("simpay", "new_code")])
    assert (meaning.name, meaning.category, meaning.other_psp) == (
        "simpay:new_code", "unmapped", "no",
    )  # fmt: skip


def test_own_rows_win_over_the_table() -> None:
    """A connector may say what a code means at its provider."""
    changed = Taxonomy([Meaning("iso", "51", "", "technical", "yes")])
    table = TABLE.with_rows(changed._rows)
    found = table.find("iso", "51")
    assert found is not None
    assert found.category == "technical"
