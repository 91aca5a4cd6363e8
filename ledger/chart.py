"""The chart of accounts as data: which kinds of account and of entry exist, and their rules.

Knows the kinds, their normal side and their floor. Refuses to know balances and how an entry of a
kind is composed (`entries.py`). A kind once used is never renumbered.
"""

from __future__ import annotations

from typing import Final

import msgspec

DEBIT, CREDIT = 1, -1


class AccountKind(msgspec.Struct, frozen=True):
    """One kind of account.

    number  stored in the books
    sign    the normal side: +1 debit (assets, expenses), -1 credit (liabilities, income)
    floor   the least balance on the normal side in minor units; None where it may go below zero
    owner   what `owner` names: the client, the provider, ...; "" for one account of the house
    """

    number: int
    name: str
    sign: int
    floor: int | None
    owner: str
    meaning: str


_ACCOUNTS: Final = (
    AccountKind(1, "client_wallet", CREDIT, 0, "client", "what we owe the client, free to use"),
    AccountKind(2, "client_hold", CREDIT, 0, "client", "what we owe the client, set aside"),
    AccountKind(3, "client_receivable", DEBIT, 0, "client", "what the client owes us"),
    AccountKind(10, "psp_clearing", DEBIT, None, "psp", "collected by the provider, not paid out"),
    AccountKind(11, "psp_fees", DEBIT, None, "psp", "what the provider charged us"),
    AccountKind(20, "in_transit", CREDIT, 0, "platform", "left the wallet, not yet on platform"),
    AccountKind(21, "on_platform", CREDIT, None, "account", "net transfers to a trading account"),
    AccountKind(30, "partner_accrued", CREDIT, None, "contract", "rebates earned, not approved"),
    AccountKind(31, "partner_held", CREDIT, None, "contract", "rebates under a hold"),
    AccountKind(32, "partner_payable", CREDIT, None, "contract", "rebates approved for payment"),
    AccountKind(33, "rebate_expense", DEBIT, None, "", "cost of rebates"),
    AccountKind(34, "clawback", DEBIT, None, "contract", "rebates to be taken back"),
    AccountKind(40, "fx_position", DEBIT, None, "", "the house's side of a conversion"),
    AccountKind(41, "bank", DEBIT, None, "bank", "money at a bank"),
    AccountKind(42, "rounding", DEBIT, None, "", "differences below a minor unit"),
    AccountKind(43, "suspense", CREDIT, None, "psp", "received, owner or cause not settled"),
    AccountKind(44, "inter_entity", DEBIT, None, "book", "owed by another legal entity's book"),
)
ACCOUNTS: Final = {kind.name: kind for kind in _ACCOUNTS}
ACCOUNT_BY_NUMBER: Final = {kind.number: kind for kind in _ACCOUNTS}

# What an entry may say happened; numbers are stored in the books.
ENTRIES: Final = {
    "deposit": 1,  # a provider confirmed a charge: clearing -> wallet
    "deposit_surplus": 2,  # a second charge of one deposit: clearing -> suspense, refund due
    "deposit_mismatch": 4,  # a charge of another amount than asked: clearing -> suspense
    "refund": 3,  # the provider paid a surplus back: suspense -> clearing
    "transfer_out": 10,  # wallet -> in transit, on its way to a trading account
    "transfer_done": 11,  # in transit -> on platform, the platform confirmed
    "transfer_back": 12,  # in transit -> wallet, the platform refused
    "hold": 20,  # wallet -> hold
    "hold_release": 21,  # hold -> wallet
    "hold_capture": 22,  # hold -> wherever the money was held for
    "accrual": 40,  # partners earned rebates: expense -> accrued, netted over a batch of deals
    "conversion": 30,  # two currencies through the fx position
    "adjustment": 90,  # 90 to 99: by approval only, which the database asks for too
}
BY_APPROVAL: Final = frozenset(name for name, number in ENTRIES.items() if 90 <= number <= 99)
ENTRY_BY_NUMBER: Final = {number: name for name, number in ENTRIES.items()}
