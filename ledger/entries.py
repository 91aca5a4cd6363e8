"""From a fact to a balanced entry: pure composition, one function a kind.

Knows which accounts each kind of event moves. Refuses to know balances, clocks and storage.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from ledger.chart import ACCOUNTS, BY_APPROVAL, ENTRIES
from ledger.facts import AccountName, Approved, Entry, Posting
from ledger.money import Money


class Unbalanced(AssertionError):
    """An entry that does not sum to zero in each currency: a bug, never an input."""


def compose(
    book: int, kind: str, key: str, effective: date, ref: str, *sides: tuple[AccountName, int],
    approved: Approved | None = None,
) -> Entry:  # fmt: skip
    """An entry from its sides; raises Unbalanced. Every other function here ends in this one.

    Raises ValueError where a kind that is by approval only has none, or another kind has one.
    """
    if (kind in BY_APPROVAL) != (approved is not None):
        raise ValueError(f"{kind} {key}: {'needs an' if approved is None else 'has no'} approval")
    postings = tuple(Posting(account, minor) for account, minor in sides)
    sums: dict[str, int] = {}
    for posting in postings:
        if posting.minor == 0 or posting.account.kind not in ACCOUNTS:
            raise Unbalanced(f"{kind} {key}: a posting of nothing or to nowhere: {posting}")
        currency = posting.account.currency
        sums[currency] = sums.get(currency, 0) + posting.minor
    if len(postings) < 2 or any(sums.values()) or kind not in ENTRIES:
        raise Unbalanced(f"{kind} {key}: {sums}")
    return Entry(book, kind, key, effective, postings, ref, approved)


def wallet(client_id: str, currency: str) -> AccountName:
    """The client's wallet in one currency."""
    return AccountName("client_wallet", client_id, currency)


def move(
    kind: str, book: int, key: str, ref: str, day: date, source: AccountName, to: AccountName,
    minor: int,
) -> Entry:  # fmt: skip
    """Take `minor` > 0 from `source` (debited) and give it to `to` (credited)."""
    return compose(book, kind, key, day, ref, (source, minor), (to, -minor))


def deposit(
    book: int, payment_id: str, client_id: str, psp: str, amount: Money, day: date
) -> Entry:
    """A provider confirmed the charge of a payment: it holds our money, we owe the client."""
    code = amount.currency.code
    clearing = AccountName("psp_clearing", psp, code)
    to = wallet(client_id, code)
    return move("deposit", book, payment_id, payment_id, day, clearing, to, amount.minor)


def surplus(
    book: int, attempt_id: str, payment_id: str, psp: str, amount: Money, day: date
) -> Entry:
    """A second charge of a payment that is already credited: ours to give back, nobody's wallet."""
    code = amount.currency.code
    source = AccountName("psp_clearing", psp, code)
    to = AccountName("suspense", psp, code)
    return move("deposit_surplus", book, attempt_id, payment_id, day, source, to, amount.minor)


def mismatch(
    book: int, attempt_id: str, payment_id: str, psp: str, amount: Money, day: date
) -> Entry:
    """The provider charged another amount than was asked: held until a person says whose it is."""
    code = amount.currency.code
    source = AccountName("psp_clearing", psp, code)
    to = AccountName("suspense", psp, code)
    return move("deposit_mismatch", book, attempt_id, payment_id, day, source, to, amount.minor)


def refund(book: int, refund_id: str, payment_id: str, psp: str, amount: Money, day: date) -> Entry:
    """The provider confirmed that a surplus charge went back to its payer."""
    code = amount.currency.code
    source = AccountName("suspense", psp, code)
    to = AccountName("psp_clearing", psp, code)
    return move("refund", book, refund_id, payment_id, day, source, to, amount.minor)


def transfer(
    kind: str, book: int, operation_id: str, client_id: str, server: str, account_id: str,
    amount: Money, day: date,
) -> Entry:  # fmt: skip
    """A step of a transfer to a trading account: `transfer_out`, `_done` or `_back`."""
    code = amount.currency.code
    purse = wallet(client_id, code)
    transit = AccountName("in_transit", server, code)
    platform = AccountName("on_platform", account_id, code)
    source, to = {
        "transfer_out": (purse, transit),
        "transfer_done": (transit, platform),
        "transfer_back": (transit, purse),
    }[kind]
    return move(kind, book, operation_id, operation_id, day, source, to, amount.minor)


def hold(kind: str, book: int, key: str, client_id: str, amount: Money, day: date) -> Entry:
    """Set money of a wallet aside (`hold`) or free it (`hold_release`)."""
    code = amount.currency.code
    purse, held = wallet(client_id, code), AccountName("client_hold", client_id, code)
    source, to = (purse, held) if kind == "hold" else (held, purse)
    return move(kind, book, key, key, day, source, to, amount.minor)


def accrual(
    book: int, key: str, ref: str, day: date, earned: Iterable[tuple[AccountName, int]]
) -> Entry | None:
    """A batch of rebates, netted: each accrued account is credited what it earned (negative: it
    gives back), the expense of each currency debited with the sum. None where nothing moved.
    """
    sides = [(account, -minor) for account, minor in earned if minor]
    expense: dict[str, int] = {}
    for account, minor in sides:
        expense[account.currency] = expense.get(account.currency, 0) - minor
    house = [
        (AccountName("rebate_expense", "", currency), minor)
        for currency, minor in sorted(expense.items()) if minor
    ]  # fmt: skip
    return compose(book, "accrual", key, day, ref, *house, *sides) if sides else None


def adjustment(
    book: int, key: str, source: AccountName, to: AccountName, minor: int, day: date,
    approved: Approved,
) -> Entry:  # fmt: skip
    """A correction by two people; one alone cannot make an `Approved`."""
    sides = (source, minor), (to, -minor)
    return compose(book, "adjustment", key, day, approved.id, *sides, approved=approved)
