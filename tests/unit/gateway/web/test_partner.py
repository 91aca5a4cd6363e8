"""What the partner's page says: amounts, times, reasons; and no text of others becomes markup."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime

import pytest
from msgspec.structs import replace

from gateway.web import partner
from gateway.web.partner import Figures, Shown, amount, closed, figures, page, rows
from ledger.rebates.lines import LineKind, Reason
from ledger.rebates.reads import ContractBalances, Dealt, Line

NOON = datetime(2026, 3, 2, 12, 30, 5, tzinfo=UTC)
TODAY = date(2026, 3, 2)
LINE = Line(
    book=1, no=77, batch=9, feed=1, deal_no=40, concerned_no=40, account=5, contract="CT1",
    currency="EUR", component=1, kind=LineKind.ORDINARY, level=1, reason=Reason.PAID, plan=1,
    amount=1250, at=NOON, deal=Dealt(481, 1, "EURUSD", 250_000_000, NOON),
)  # fmt: skip
SHOWN = Shown("PA1", ["NORTH"], TODAY, NOON, [Figures("EUR", 1250, 99_999_950, 0, 300)], [LINE])


def cells(html: str) -> list[str]:
    """The texts of a row's cells."""
    found = re.findall(r"<td[^>]*>(.*?)</td>", html, re.DOTALL)
    return [re.sub(r"<[^>]+>", "", each) for each in found]


@pytest.mark.parametrize(
    ("minor", "exponent", "text"),
    [
        (0, 2, "0.00"),
        (5, 2, "0.05"),
        (-5, 2, "−0.05"),
        (99_999_950, 2, "999\u202f999.50"),
        (-123_456_789, 0, "−123\u202f456\u202f789"),
        (1_234_567_890, 6, "1\u202f234.567890"),
    ],
)
def test_an_amount_is_grouped_by_three_and_keeps_its_decimals(
    minor: int, exponent: int, text: str
) -> None:
    """Exact to the last digit, with a true minus."""
    assert amount(minor, exponent) == text


def test_figures_are_summed_by_currency() -> None:
    """Contracts of one currency are one card; one that never earned is a card of zeros."""
    read = [
        ContractBalances("CT1", 1, "EUR", 100, 1, 10, 5, 2, 2, 3, NOON),
        ContractBalances("CT2", 1, "EUR", 200, 2, 20, 6, 2, 2, 3, NOON),
        ContractBalances("CT3", 2, "", 0, 0, 0, 0, 0, 0, 0, None),
    ]
    assert figures({"CT1": "EUR", "CT2": "EUR", "CT3": "USD"}, read) == [
        Figures("EUR", today=11, accrued=300, held=3, payable=30),
        Figures("USD", today=0, accrued=0, held=0, payable=0),
    ]


def test_a_page_names_exact_amounts_for_programs_and_grouped_ones_for_people() -> None:
    """The script compares the exact ones; people read the others."""
    html = page(SHOWN)
    assert '<data value="999999.50">999\u202f999.50</data>' in html
    assert 'data-partner="PA1"' in html
    assert 'data-day="2026-03-02"' in html


def test_what_is_held_is_shown_only_where_something_is() -> None:
    """A zero of it would only ask a question."""
    held = replace(SHOWN, figures=[Figures("EUR", 0, 0, 700, 0)])
    assert "<div hidden><dt>Held" in page(SHOWN)
    assert "<div><dt>Held" in page(held)


def test_a_row_says_when_for_which_deal_how_much_and_why() -> None:
    """Of today the time alone, of another day the date; a zero says why it is one."""
    yesterday = replace(LINE, at=datetime(2026, 3, 1, 23, 59, tzinfo=UTC))
    zero = replace(LINE, amount=0, reason=Reason.NO_RATE_RULE)
    rounding = replace(LINE, kind=LineKind.ROUNDING, reason=Reason.ROUNDING, amount=1, deal=None)

    assert cells(rows([LINE], TODAY)) == [
        "12:30:05", "481", "EURUSD", "2.50", "Rebate", "12.50 EUR", "Why?",
    ]  # fmt: skip
    assert cells(rows([yesterday], TODAY))[0] == "01 Mar, 23:59"
    assert cells(rows([zero], TODAY))[4:6] == ["No rate for the symbol", "0.00 EUR"]
    assert cells(rows([rounding], TODAY))[1:6] == ["–", "–", "–", "Cents carried", "0.01 EUR"]


@pytest.mark.parametrize(
    "reason", [each for each in Reason if each not in (Reason.PAID, Reason.ROUNDING)]
)
def test_every_reason_of_a_zero_has_words(reason: Reason) -> None:
    """A reason that is added to the ledger is added here."""
    said = cells(rows([replace(LINE, amount=0, reason=reason)], TODAY))[4]
    assert said not in ("", "Rebate")


def test_text_of_others_never_becomes_markup() -> None:
    """Codes and symbols are what somebody typed: they are shown, not obeyed."""
    evil = "<script>\"&'</script>"
    deal = Dealt(1, 1, evil, 10, NOON)
    html = page(replace(SHOWN, codes=[evil], lines=[replace(LINE, deal=deal)]))
    assert evil not in html
    assert html.count("&lt;script&gt;&quot;&amp;&#x27;&lt;/script&gt;") == 3
    assert evil not in closed(evil, evil)


def test_a_partner_without_contracts_is_told_so() -> None:
    """No card, a sentence, and the page still has its state."""
    html = page(replace(SHOWN, codes=[], figures=[], lines=[]))
    assert "no contract yet" in html
    assert 'id="state"' in html
    assert partner.MINUS not in html
