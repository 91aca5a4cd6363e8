"""The judge of deals: every kind of disagreement between the books of deals is named."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from gateway.demo import dealt
from gateway.demo.dealt import DealJudge
from gateway.demo.partners import Contracted, Planned
from ledger.survey import DealCount, Earned, FirstLine, Version
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
        self.deals = [
            {"ticket": 7, "profit_minor": 100, "commission_minor": -3, "storage_minor": 0,
             "fee_minor": 0, "flags": 2, "comment": "checked", "edits": 1,
             "late": False, "utc_ms": 10_000},
            {"ticket": 8, "profit_minor": 0, "commission_minor": 0, "storage_minor": 0,
             "fee_minor": 0, "flags": 0, "comment": "", "edits": 0,
             "late": True, "utc_ms": 0},
        ]  # fmt: skip
        self.versions = [Version(7, 100, -3, 0, 0, 2, "checked"), Version(8, 0, 0, 0, 0, 0, "")]

    async def get(self, path: str) -> Any:
        """What the platform's admin answers."""
        if path == "/deals":
            return {"made": self.made}
        return {"deals": self.deals if path.startswith("/deals?after=0&") else []}

    def judge(self, monkeypatch: pytest.MonkeyPatch) -> DealJudge:
        """Who looks into these books."""

        async def count_deals(_: object) -> DealCount:
            return self.count

        async def earned(_: object) -> list[Earned]:
            return self.earned

        async def newest_versions(_: object, tickets: list[int]) -> list[Version]:
            return [it for it in self.versions if it.ticket in tickets]

        monkeypatch.setattr(dealt.survey, "count_deals", count_deals)
        monkeypatch.setattr(dealt.survey, "earned", earned)
        monkeypatch.setattr(dealt.survey, "newest_versions", newest_versions)

        async def first_lines(_: object, contracts: list[str]) -> list[FirstLine]:
            tickets = (7, 8, 9)  # seen, booked late, and one the platform no longer shows
            return [FirstLine(each, ticket, ticket) for each in contracts for ticket in tickets]

        monkeypatch.setattr(dealt.survey, "first_lines", first_lines)
        plain = SimpleNamespace(add=lambda deals: None, minor=lambda: self.plain)
        watching = SimpleNamespace(
            latest=self.shown, updates=self.updates, p99_ms=lambda: 250.0,
            seen_ms=lambda _, line: 10_400.0 if line < 9 else None,
        )  # fmt: skip
        return DealJudge(self, plain, [PARTNER], watching)  # type: ignore[arg-type]

    async def judged(self, monkeypatch: pytest.MonkeyPatch, *found: Wrong) -> dealt.Dealt:
        """The verdict."""
        return await self.judge(monkeypatch).judged(None, found)


async def test_books_that_agree_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Booked and parked are all there is, sums and screens are the same."""
    verdict = await Books().judged(monkeypatch)
    assert verdict.wrong == ()
    assert verdict.deals == dealt.Deals(20_100, 20_095, 5)
    assert verdict.rebates == dealt.Rebates(7, {"USD": "12.50"})
    assert verdict.stream == dealt.Stream(100, 250.0, 400.0, 400.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"made": {"trades": 20_001, "balance": 90, "transfers": 10}}, "20101 deals"),
        ({"plain": {"CT1": 1251}}, "earned 1250, a plain computation says 1251"),
        ({"plain": {"CT1": 1250, "CT2": 5}}, "CT2 earned 0"),
        ({"shown": {"PA1": {"contracts": [{"contract": "CT1", "accrued": "12.49"}]}}}, "12.49"),
        ({"shown": {"PA1": None}}, "was shown None"),
        ({"earned": [], "plain": {}}, "CT1 was shown 12.50, not 0.00"),
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


@pytest.mark.parametrize(
    "other",
    [
        {"profit": 101}, {"commission": 0}, {"swap": 1}, {"fee": 1}, {"flags": 0}, {"comment": ""},
    ],
    ids=str,
)  # fmt: skip
async def test_an_edit_that_is_not_in_the_books_is_waited_for_and_named(
    other: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edit lost on the way moves no count and no rebate; it is found all the same."""
    books = Books()
    judge = books.judge(monkeypatch)
    assert await judge.unfinished(None) == []
    books.versions[0] = msgspec.structs.replace(books.versions[0], **other)
    (open_still,) = await judge.unfinished(None)
    assert open_still.startswith("deal 7 is booked as")
    assert (await judge.judged(None, ())).wrong == (open_still,)


async def test_a_version_the_platform_never_showed_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also of a deal that nobody edited."""
    books = Books()
    books.versions[1] = msgspec.structs.replace(books.versions[1], profit=1)
    (wrong,) = (await books.judged(monkeypatch)).wrong
    assert wrong.startswith("deal 8 is booked as")


async def test_lines_that_verify_finds_wrong_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Findings about lines only; others are counted where they belong."""
    found = Wrong("lines-off-postings", "s", "d"), Wrong("entry-unbalanced", "s", "d")
    assert (await Books().judged(monkeypatch, *found)).line_mismatches == 1
