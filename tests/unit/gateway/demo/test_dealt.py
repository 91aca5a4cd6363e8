"""The judge of deals: every kind of disagreement between the books of deals is named."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gateway.demo import dealt
from gateway.demo.dealt import DealJudge
from gateway.demo.partners import Contracted, Planned
from ledger.survey import DealCount, Earned
from ledger.verify import Wrong

PARTNER = Contracted(Planned("r", "b", "USD", "p", 1), "PA1", "CT1")


class Books:
    """All books of a run in which everything is right; a test makes one of them differ."""

    def __init__(self) -> None:
        self.made = {"trades": 20_000, "balance": 90, "transfers": 10}
        self.count = DealCount(landed=20_100, booked=20_095, parked=5, lines=7)
        self.earned = [Earned("CT1", "USD", 1250)]
        self.plain = {"CT1": 1250}
        self.shown: dict[str, Any] = {
            "PA1": {"contracts": [{"contract": "CT1", "accrued": "12.50"}]}
        }
        self.updates = 100

    async def get(self, path: str) -> Any:
        """What the platform's admin answers."""
        return {"made": self.made} if path == "/deals" else {"deals": []}

    async def judged(self, monkeypatch: pytest.MonkeyPatch, *found: Wrong) -> dealt.Dealt:
        """The verdict."""

        async def count_deals(_: object) -> DealCount:
            return self.count

        async def earned(_: object) -> list[Earned]:
            return self.earned

        monkeypatch.setattr(dealt.survey, "count_deals", count_deals)
        monkeypatch.setattr(dealt.survey, "earned", earned)
        plain = SimpleNamespace(add=lambda deals: None, minor=lambda: self.plain)
        watching = SimpleNamespace(
            latest=self.shown, updates=self.updates, p99_ms=lambda: 250.0
        )  # fmt: skip
        judge = DealJudge(self, plain, [PARTNER], watching)  # type: ignore[arg-type]
        return await judge.judged(None, found)


async def test_books_that_agree_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Booked and parked are all there is, sums and screens are the same."""
    verdict = await Books().judged(monkeypatch)
    assert verdict.wrong == ()
    assert verdict.deals == dealt.Deals(20_100, 20_095, 5)
    assert verdict.rebates == dealt.Rebates(7, {"USD": "12.50"})
    assert verdict.stream == dealt.Stream(100, 250.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"made": {"trades": 20_001, "balance": 90, "transfers": 10}}, "20101 deals"),
        ({"plain": {"CT1": 1251}}, "earned 1250, a plain computation says 1251"),
        ({"plain": {"CT1": 1250, "CT2": 5}}, "CT2 earned 0"),
        ({"shown": {"PA1": {"contracts": [{"contract": "CT1", "accrued": "12.49"}]}}}, "12.49"),
        ({"shown": {"PA1": None}}, "was shown None"),
        ({"updates": 99}, "99 updates"),
        (
            {"made": {"trades": 19_000, "balance": 0, "transfers": 0},
             "count": DealCount(19_000, 19_000, 0, 7)}, "19000 deals, at least",
        ),
    ],
)  # fmt: skip
async def test_what_does_not_agree_is_named(
    change: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in words, and nothing else."""
    books = Books()
    for name, value in change.items():
        setattr(books, name, value)
    verdict = await books.judged(monkeypatch)
    assert len(verdict.wrong) == 1
    assert words in verdict.wrong[0]


async def test_lines_that_verify_finds_wrong_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Findings about lines only; others are counted where they belong."""
    found = Wrong("lines-off-postings", "s", "d"), Wrong("entry-unbalanced", "s", "d")
    assert (await Books().judged(monkeypatch, *found)).line_mismatches == 1
