"""Composing entries, and taking them onto a page within the accounts' floors."""

from collections import defaultdict
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import entries
from ledger.chart import ACCOUNT_BY_NUMBER, ACCOUNTS, BY_APPROVAL, ENTRIES, ENTRY_BY_NUMBER
from ledger.facts import AccountName, Approved, Entry
from ledger.journal import Account, Draft, Page, content, require_distinct
from ledger.money import Money, currency
from ledger.units import Left, Why

DAY = date(2026, 3, 1)
AMOUNTS = st.integers(1, 10**17).map(lambda minor: Money(minor, currency("EUR")))
CHECKED = Approved("AP1", "ann", "bob", "v1")


def every_kind(amount: Money) -> list[Entry]:
    """One entry of each kind that a function composes."""
    to, source = AccountName("bank", "b", "EUR"), AccountName("suspense", "p", "EUR")
    return [
        entries.deposit(1, "PY1", "CL1", "acme", amount, DAY),
        entries.surplus(1, "AT1", "PY1", "acme", amount, DAY),
        entries.refund(1, "RF1", "PY1", "acme", amount, DAY),
        *[
            entries.transfer(kind, 1, "BO1", "CL1", "live", "AC1", amount, DAY)
            for kind in ("transfer_out", "transfer_done", "transfer_back")
        ],
        *[
            entries.hold(kind, 1, "HD1", "CL1", amount, DAY) for kind in ("hold", "hold_release")
        ],
        entries.adjustment(1, "AP1", source, to, amount.minor, DAY, CHECKED),
    ]  # fmt: skip


@given(amount=AMOUNTS)
def test_every_kind_of_entry_balances(amount: Money) -> None:
    """Whatever an entry says, its postings sum to zero in each currency and none is of nothing."""
    for entry in every_kind(amount):
        sums: dict[str, int] = defaultdict(int)
        for posting in entry.postings:
            sums[posting.account.currency] += posting.minor
            assert posting.minor != 0
        assert set(sums.values()) == {0}, entry
        assert len(entry.postings) >= 2


def test_money_moves_the_way_the_kind_says() -> None:
    """A deposit adds to the wallet, a transfer takes it through transit onto the platform."""
    amount = Money(100, currency("EUR"))
    moves = {
        entry.kind: {posting.account.kind: posting.minor for posting in entry.postings}
        for entry in every_kind(amount)
    }
    assert moves["deposit"] == {"psp_clearing": 100, "client_wallet": -100}
    assert moves["deposit_surplus"] == {"psp_clearing": 100, "suspense": -100}
    assert moves["refund"] == {"suspense": 100, "psp_clearing": -100}
    assert moves["transfer_out"] == {"client_wallet": 100, "in_transit": -100}
    assert moves["transfer_done"] == {"in_transit": 100, "on_platform": -100}
    assert moves["transfer_back"] == {"in_transit": 100, "client_wallet": -100}
    assert moves["hold"] == {"client_wallet": 100, "client_hold": -100}
    assert moves["hold_release"] == {"client_hold": 100, "client_wallet": -100}


@pytest.mark.parametrize(
    "sides",
    [
        (),
        (("client_wallet", "EUR", 0), ("bank", "EUR", 0)),
        (("client_wallet", "EUR", 5),),
        (("client_wallet", "EUR", 5), ("bank", "EUR", -4)),
        (("client_wallet", "EUR", 5), ("bank", "USD", -5)),
        (("nowhere", "EUR", 5), ("bank", "EUR", -5)),
    ],
)
def test_an_unbalanced_entry_cannot_be_composed(sides: tuple[tuple[str, str, int], ...]) -> None:
    """An entry of one side, of nothing, to nowhere, or out of balance in a currency is a bug."""
    named = [(AccountName(kind, "x", code), minor) for kind, code, minor in sides]
    with pytest.raises(entries.Unbalanced):
        entries.compose(1, "adjustment", "k", DAY, "r", *named, approved=CHECKED)


def test_an_unknown_kind_of_entry_cannot_be_composed() -> None:
    """The chart is data: a kind that is not in it is refused."""
    sides = (AccountName("bank", "b", "EUR"), 5), (AccountName("suspense", "p", "EUR"), -5)
    with pytest.raises(entries.Unbalanced):
        entries.compose(1, "gift", "k", DAY, "r", *sides)


def test_one_person_cannot_approve_their_own_adjustment() -> None:
    """The books take an approval only of two persons."""
    with pytest.raises(ValueError, match="one person"):
        Approved("AP1", "ann", "ann", "v1")


def test_only_an_adjustment_has_an_approval_and_it_always_does() -> None:
    """Nothing else moves money because people say so, and they never do it without two of them."""
    sides = (AccountName("bank", "b", "EUR"), 5), (AccountName("suspense", "p", "EUR"), -5)
    with pytest.raises(ValueError, match="needs an approval"):
        entries.compose(1, "adjustment", "k", DAY, "r", *sides)
    with pytest.raises(ValueError, match="has no approval"):
        entries.compose(1, "refund", "k", DAY, "r", *sides, approved=CHECKED)
    assert set(BY_APPROVAL) == {"adjustment"}


def test_the_content_hash_covers_who_made_and_who_checked() -> None:
    """The same adjustment by other people is another one."""
    source, to = AccountName("bank", "b", "EUR"), AccountName("suspense", "p", "EUR")
    people = [("ann", "bob"), ("bob", "ann"), ("ann", "cem"), ("anb", "ob")]
    made = [
        entries.adjustment(1, "k", source, to, 5, DAY, Approved("AP1", *pair, "v1"))
        for pair in people
    ]
    assert len({content(each) for each in made}) == len(people)


def test_the_chart_numbers_each_kind_once() -> None:
    """A number stands for one kind of account or entry, for ever."""
    assert len(ACCOUNT_BY_NUMBER) == len(ACCOUNTS)
    assert len(ENTRY_BY_NUMBER) == len(ENTRIES)
    assert all(kind.sign in (-1, 1) for kind in ACCOUNTS.values())


def changed(entry: Entry) -> list[Entry]:
    """The entry with one thing changed, each thing in turn."""
    first, *rest = entry.postings
    other = AccountName(first.account.kind, first.account.owner + "x", first.account.currency)
    return [
        Entry(2, entry.kind, entry.key, DAY, entry.postings, entry.ref),
        Entry(1, "refund", entry.key, DAY, entry.postings, entry.ref),
        Entry(1, entry.kind, entry.key + "1", DAY, entry.postings, entry.ref),
        Entry(1, entry.kind, entry.key, date(2026, 3, 2), entry.postings, entry.ref),
        Entry(1, entry.kind, entry.key, DAY, entry.postings, entry.ref + "1"),
        Entry(1, entry.kind, entry.key, DAY, entry.postings[::-1], entry.ref),
        Entry(1, entry.kind, entry.key, DAY, (type(first)(other, first.minor), *rest), entry.ref),
        Entry(
            1, entry.kind, entry.key, DAY, (type(first)(first.account, 7), *rest), entry.ref
        ),
    ]  # fmt: skip


def test_the_content_hash_covers_everything_an_entry_says() -> None:
    """One key with two contents is told from a repetition by any difference at all."""
    entry = entries.deposit(1, "PY1", "CL1", "acme", Money(100, currency("EUR")), DAY)
    hashes = [content(each) for each in [entry, *changed(entry)]]
    assert len(set(hashes)) == len(hashes)
    assert content(entry) == content(entries.deposit(
        1, "PY1", "CL1", "acme", Money(100, currency("EUR")), DAY
    ))  # fmt: skip


def test_the_content_hash_is_what_the_books_hold() -> None:
    """Stored hashes are compared for ever, so the form of what is hashed is frozen."""
    entry = entries.deposit(1, "PY1", "CL1", "acme", Money(100, currency("EUR")), DAY)
    assert content(entry).hex() == "59498509dd4609b1f9013c1af641fa74"


def test_the_content_hash_does_not_confuse_neighbouring_fields() -> None:
    """Text that moves from one field to the next is another content."""
    sides = (AccountName("bank", "b", "EUR"), 5), (AccountName("suspense", "p", "EUR"), -5)
    one = entries.compose(1, "refund", "ab", DAY, "c", *sides)
    other = entries.compose(1, "refund", "a", DAY, "bc", *sides)
    sly = entries.compose(1, "refund", "ab\x1f2026-03-01", DAY, "c", *sides)
    assert len({content(one), content(other), content(sly)}) == 3


def test_one_key_stands_once_in_a_unit() -> None:
    """Two entries of one unit under one key are refused before anything is written."""
    entry = entries.deposit(1, "PY1", "CL1", "acme", Money(100, currency("EUR")), DAY)
    require_distinct([entry])
    with pytest.raises(ValueError, match="one key twice"):
        require_distinct([entry, entry])


# -- floors, against a naive model ---------------------------------------------------------------

FLOORS = {1: 0, 2: 0, 3: None, 4: None, 5: -50}
SIGNS = {1: -1, 2: 1, 3: -1, 4: 1, 5: -1}
SIDES = st.lists(
    st.tuples(st.sampled_from(sorted(FLOORS)), st.integers(-40, 40).filter(bool)),
    min_size=1,
    max_size=4,
)
UNITS = st.lists(st.lists(SIDES, min_size=1, max_size=3), max_size=12)


def draft(number: int, sides: list[tuple[int, int]]) -> Draft:
    """A draft with these signed sides; balance of entries is not a page's business."""
    entry = Entry(1, "adjustment", f"k{number}", DAY, ())
    numbered = [(Account(1, id, SIGNS[id], FLOORS[id]), minor) for id, minor in sides]
    return Draft(entry, 90, b"", tuple(numbered))


def opening(balances: dict[int, int]) -> list[dict[str, object]]:
    """The rows that a page reads under its locks."""
    return [
        {"book_id": 1, "account_id": id, "posted": posted, "version": 0, "changed": None}
        for id, posted in balances.items()
    ]


@given(units=UNITS)
def test_floors_hold_as_in_a_naive_model(units: list[list[list[tuple[int, int]]]]) -> None:
    """Each entry in turn is taken if it leaves no account it lowers below its floor; a unit is all
    or nothing, and what is left out changes nothing.
    """
    page = Page(opening(dict.fromkeys(FLOORS, 0)))  # type: ignore[arg-type]
    model = dict.fromkeys(FLOORS, 0)
    versions = dict.fromkeys(FLOORS, 0)
    number = 0
    for unit in units:
        after, moves, sound = dict(model), dict(versions), True
        for sides in unit:
            for id, minor in sides:
                after[id] += minor
                moves[id] += 1
            lowered = [id for id, minor in sides if SIGNS[id] * minor < 0]
            sound &= all(
                FLOORS[id] is None or SIGNS[id] * after[id] >= FLOORS[id] for id in lowered
            )
        answer = page.add([draft(number + n, sides) for n, sides in enumerate(unit)])
        number += len(unit)
        assert (answer is None) is sound
        if sound:
            model, versions = after, moves
        else:
            assert isinstance(answer, Left)
            assert answer.why is Why.FLOOR
    assert {id: page.balance(1, id) for id in FLOORS} == {
        id: (model[id], versions[id]) for id in FLOORS
    }
