"""Permissions: every name by which something may be allowed, and where the matrix of roles says it.

Knows names, what each guards, and its row and letter. Refuses to know who holds one: the roles of
the rulebook say that (`access.py`), and routes and commands say which one they ask for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec


class Permission(msgspec.Struct, frozen=True):
    """One thing a role may allow.

    row     the row of the matrix of roles; those of the API's own are in its second part
    letter  R read, m read masked, Q request, A approve, X execute, C draft, P publish; a word in
            brackets behind it makes it a narrower one of its row
    """

    name: str
    says: str
    row: str
    letter: str


_MATRIX: Final[Mapping[str, tuple[tuple[str, str, str], ...]]] = {
    "lead/contact read, log contact": (
        ("R", "leads:read", "read leads and contacts"),
        ("m", "leads:masked", "read leads and contacts, masked"),
        ("X", "leads:log", "log a contact"),
    ),
    "client profile": (
        ("R", "clients:read", "read clients and their history"),
        ("m", "clients:masked", "read clients, masked"),
    ),
    "client profile change (name, dob, address)": (
        ("Q", "profiles:request", "ask for a change of a client's profile"),
        ("A", "profiles:approve", "approve a change of a client's profile"),
    ),
    "lifecycle restrict / lift": (
        ("R", "lifecycle:read", "read who moved clients and why"),
        ("Q", "lifecycle:request", "move clients from state to state, or ask for it"),
        ("A", "lifecycle:approve", "approve a client's move"),
        ("X", "lifecycle:execute", "move clients by rule"),
    ),
    "attribution read": (
        ("R", "attribution:read", "read whom clients came through"),
        ("m", "attribution:masked", "read whom clients came through, masked"),
    ),
    "attribution change": (
        ("R", "attribution-changes:read", "read changes of attribution"),
        ("Q", "attribution:request", "ask for a change of attribution"),
        ("A", "attribution:approve", "approve a change of attribution"),
    ),
    "KYC documents view": (
        ("R", "documents:read", "read documents of clients; each reading is logged"),
        ("X", "documents:process", "pass documents to a checking service"),
    ),
    "KYC decide low/medium": (
        ("R", "kyc:read", "read decisions on clients of low and medium risk"),
        ("Q", "kyc:request", "propose a decision on a client of low or medium risk"),
        ("A", "kyc:approve", "decide on clients of low and medium risk"),
        ("X", "kyc:execute", "decide by rule on clients of low risk"),
    ),
    "KYC decide high/PEP": (
        ("R", "kyc-high:read", "read decisions on clients of high risk"),
        ("Q", "kyc-high:request", "propose a decision on a client of high risk"),
        ("A", "kyc-high:approve", "decide on clients of high risk"),
    ),
    "screening hit decide": (
        ("R", "screening:read", "read screening hits"),
        ("Q", "screening:request", "propose a decision on a screening hit"),
        ("A", "screening:approve", "decide on screening hits"),
    ),
    "suspicious activity file": (
        ("R", "suspicions:read", "read suspicions"),
        ("Q", "suspicions:request", "file a suspicion"),
        ("A", "suspicions:approve", "decide on a suspicion"),
    ),
    "trading account create/modify": (
        ("R", "account-requests:read", "read who asked for trading accounts"),
        ("Q", "accounts:request", "ask for trading accounts"),
        ("A", "accounts:approve", "approve a trading account"),
        ("X", "accounts:execute", "make trading accounts by rule"),
    ),
    "leverage/group change": (
        ("R", "leverage:read", "read changes of leverage and group"),
        ("Q", "leverage:request", "ask for another leverage or group"),
        ("A", "leverage:approve", "approve another leverage or group"),
        ("X", "leverage:execute", "change leverage and group by rule"),
    ),
    "platform job retry / verify": (
        ("R", "jobs:read", "read jobs of platforms"),
        ("X", "jobs:retry", "run a platform's job again"),
        ("X(verify)", "jobs:verify", "look whether a platform's job was done"),
    ),
    "deposit view": (
        ("R", "deposits:read", "read deposits and payments with their attempts and routing"),
        ("m", "deposits:masked", "read deposits, masked"),
        ("m(totals)", "deposits:totals", "read totals of deposits"),
    ),
    "manual deposit credit": (
        ("R", "deposit-credits:read", "read manual deposit credits"),
        ("Q", "deposit-credits:request", "ask for a manual deposit credit"),
        ("A", "deposit-credits:approve", "approve a manual deposit credit"),
    ),
    "withdrawal request view": (
        ("R", "withdrawals:read", "read withdrawals"),
        ("m", "withdrawals:masked", "read withdrawals, masked"),
    ),
    "withdrawal compliance clearance": (
        ("R", "withdrawal-clearances:read", "read clearances of withdrawals"),
        ("A", "withdrawals:clear", "clear a withdrawal for compliance"),
    ),
    "withdrawal approve": (
        ("R", "withdrawal-approvals:read", "read approvals of withdrawals"),
        ("Q", "withdrawals:request", "put a withdrawal up for approval"),
        ("A", "withdrawals:approve", "approve a withdrawal"),
    ),
    "withdrawal send/retry to PSP": (
        ("R", "withdrawal-sends:read", "read what was sent to providers"),
        ("X", "withdrawals:send", "send a withdrawal to a provider"),
    ),
    "withdrawal reverse after sent": (
        ("R", "withdrawal-reversals:read", "read reversals of withdrawals"),
        ("Q", "withdrawal-reversals:request", "ask for the reversal of a withdrawal"),
        ("A", "withdrawal-reversals:approve", "approve the reversal of a withdrawal"),
    ),
    "payout destination add/verify": (
        ("R", "destinations:read", "read payout destinations"),
        ("Q", "destinations:request", "add a payout destination"),
        ("A", "destinations:approve", "verify a payout destination"),
    ),
    "refund / chargeback handling": (
        ("R", "refunds:read", "read refunds and chargebacks"),
        ("Q", "refunds:request", "ask for a refund"),
        ("A", "refunds:approve", "approve a refund"),
        ("X", "refunds:execute", "handle refunds and chargebacks by rule"),
    ),
    "wallet adjustment": (
        ("R", "adjustments:read", "read adjustments of wallets"),
        ("Q", "adjustments:request", "ask for an adjustment of a wallet"),
        ("A", "adjustments:approve", "approve an adjustment of a wallet"),
    ),
    "bonus/credit": (
        ("R", "bonuses:read", "read bonuses"),
        ("Q", "bonuses:request", "ask for a bonus"),
        ("A", "bonuses:approve", "approve a bonus"),
    ),
    "recon match manual / write-off": (
        ("R", "reconciliation:read", "read matches and write-offs"),
        ("Q", "reconciliation:request", "propose a match or a write-off"),
        ("A", "reconciliation:approve", "approve a match or a write-off"),
        ("X", "reconciliation:execute", "match by rule"),
    ),
    "routing rules": (
        ("R", "routing:read", "read routing rules"),
        ("C", "routing:draft", "draft routing rules"),
        ("P", "routing:publish", "publish routing rules"),
    ),
    "PSP credentials": (
        ("R", "psp-credentials:read", "read which credentials of providers there are"),
        ("Q", "psp-credentials:request", "ask for a change of a provider's credentials"),
        ("A", "psp-credentials:approve", "approve a change of a provider's credentials"),
        ("use", "psp-credentials:use", "use a provider's credentials"),
    ),
    "IB application/agreement": (
        ("R", "applications:read", "read applications of partners"),
        ("Q", "applications:request", "put up a partner's application"),
        ("A", "applications:approve", "approve a partner's application"),
    ),
    "IB plan draft / publish": (
        ("R", "plans:read", "read plans"),
        ("C", "plans:draft", "draft plans"),
        ("P", "plans:publish", "publish plans"),
    ),
    "IB personal terms": (
        ("R", "terms:read", "read partners' personal terms"),
        ("Q", "terms:request", "ask for personal terms"),
        ("A", "terms:approve", "approve personal terms"),
    ),
    "IB adjustment": (
        ("R", "partner-adjustments:read", "read adjustments of partners' balances"),
        ("Q", "partner-adjustments:request", "ask for an adjustment of a partner's balance"),
        ("A", "partner-adjustments:approve", "approve an adjustment of a partner's balance"),
    ),
    "settlement run calculate / approve / pay": (
        ("R", "settlements:read", "read settlements"),
        ("A", "settlements:approve", "approve a settlement"),
        ("X(pay)", "settlements:pay", "pay a settlement"),
        ("X(calc)", "settlements:calculate", "calculate a settlement"),
    ),
    "dispute open / decide": (
        ("R", "disputes:read", "read disputes"),
        ("Q", "disputes:request", "open a dispute"),
        ("A", "disputes:approve", "decide a dispute"),
    ),
    "reason codes, KYC rules, thresholds": (
        ("R", "rules:read", "read reason codes, rules of onboarding and approval policies"),
        ("C", "rules:draft", "draft reason codes, rules of onboarding and approval policies"),
        ("P", "rules:publish", "publish reason codes, rules of onboarding and approval policies"),
    ),
    "group mapping, platform registry": (
        ("R", "platforms:read", "read group mapping and platforms"),
        ("C", "platforms:draft", "draft group mapping and platforms"),
        ("P", "platforms:publish", "publish group mapping and platforms"),
    ),
    "entity/brand config": (
        ("R", "entities:read", "read entities, brands and desks"),
        ("C", "entities:draft", "draft entities, brands and desks"),
        ("P", "entities:publish", "publish entities, brands and desks"),
    ),
    "role assignment": (
        ("R", "roles:read", "read who holds which role"),
        ("Q", "roles:request", "ask that somebody is given a role"),
        ("A", "roles:approve", "approve that somebody is given a role"),
    ),
    "break-glass grant": (
        ("R", "break-glass:read", "read uses of break-glass"),
        ("Q", "break-glass:request", "ask for break-glass"),
        ("A", "break-glass:approve", "grant break-glass"),
    ),
    "audit read/export/verify": (
        ("R", "audit:read", "read the audit"),
        ("R(own area)", "audit:area", "read the audit of one's own area"),
        ("X", "audit:export", "export and verify the audit"),
        ("append", "audit:append", "write the audit of one's own acts"),
    ),
    "metrics/reports": (
        ("R", "reports:read", "read reports"),
        ("write", "reports:write", "write what reports are made of"),
    ),
    "logs/ops, restart, backup": (
        ("R", "operations:read", "read what operations did"),
        ("X", "operations:execute", "restart, back up, read logs"),
    ),
    "data purge / legal hold": (
        ("R", "purges:read", "read purges and legal holds"),
        ("Q", "purges:request", "ask for a purge or a legal hold"),
        ("A", "purges:approve", "approve a purge or a legal hold"),
        ("X", "purges:execute", "purge what was approved"),
    ),
}
"""The matrix of roles (`tests/golden/permission_matrix.csv`), row by row."""

_OWN: Final[Mapping[str, tuple[tuple[str, str, str], ...]]] = {
    "client made known": (("X", "clients:write", "make clients known"),),
    "trading account view": (("R", "accounts:read", "read trading accounts"),),
    "deposit taken": (("X", "deposits:write", "take deposits"),),
    "routing explained": (
        ("R", "routing:explain", "ask which way a payment would go, without paying"),
    ),
    "books view": (("R", "ledger:read", "read balances and entries, now and as of a time"),),
    "platform session view": (("R", "sessions:read", "read the state of platform sessions"),),
    "item": (
        ("R", "items:read", "read what people must look at"),
        ("X", "items:resolve", "close items with a reason"),
    ),
    "approval": (
        ("R", "approvals:read", "read approvals"),
        ("A", "approvals:decide", "decide questions of the kinds that the role approves"),
        ("Q", "approvals:withdraw", "take back what one asked"),
    ),
    "delegation": (
        ("R", "delegations:read", "read who lent whom the right to decide"),
        ("X", "delegations:give", "lend one's own right to decide for a while, and end it"),
    ),
    "event of one's own": (
        ("R", "events:read", "pull one's own events"),
        ("X", "events:resend", "have an event delivered again, and set where they go"),
    ),
    "partner and contract": (
        ("R", "partners:read", "read partners, their contracts, balances and lines"),
        ("X", "partners:write", "make partners and their contracts known"),
        ("X(link)", "partners:link", "open partners' pages to them, and end their visits"),
    ),
    "metrics of the process": (("R", "metrics:read", "read the metrics from another machine"),),
    "sign-in": (
        ("R", "sign-ins:read", "read who is signed in"),
        ("X", "sign-ins:revoke", "end somebody's session"),
    ),
    "person": (
        ("R", "people:read", "read people with their roles and credentials"),
        ("X", "people:tie", "say whose account or client something is"),
    ),
    "rulebook version": (
        ("R", "rulebook:read", "read versions of the rulebook"),
        ("C", "rulebook:draft", "draft versions of what one's role drafts, and have them agreed"),
    ),
}
"""What the API has and the matrix lacks (`tests/golden/permission_matrix_api.csv`)."""

ROWS: Final = tuple(_MATRIX)
OWN_ROWS: Final = tuple(_OWN)

CATALOGUE: Final[Mapping[str, Permission]] = {
    name: Permission(name, says, row, letter)
    for row, cells in (*_MATRIX.items(), *_OWN.items())
    for letter, name, says in cells
}
