"""Duties: which two things one person may not both do, and whether an act would join them.

Knows the 34 conflicts as data and judges one act against what the same person did before. Refuses
to know tables, roles and clocks: history is handed in (`acts.py`), and no argument lets anybody by.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import msgspec

from config.findings import Finding
from config.rulebook import Rulebook

SUBJECT_WINDOW: Final = timedelta(days=90)  # how long an act on a subject binds its person


class Nature(StrEnum):
    """What an action is in the course of a case."""

    MAKE = "make"  # asks for something; another person approves it
    APPROVE = "approve"  # agrees to what another person asked for
    DECIDE = "decide"  # settles something without a request of its own
    DO = "do"  # carries out, or uses
    STAND = "stand"  # not done but true of a person: it binds without an end


class Action(msgspec.Struct, frozen=True):
    """Something a person does that another may then not do, or the other way round.

    permissions  what a role has that may do it; holding one of them is what scope G speaks of
    business     whether agreeing to it is a business approval, as rows 26 and 28 mean it
    """

    name: str
    nature: Nature
    says: str
    permissions: frozenset[str] = frozenset()
    business: bool = False


class Scope(StrEnum):
    """Where two actions may not meet in one person."""

    CASE = "T"  # one transaction, request or case
    SUBJECT = "S"  # one client or partner, within the window
    ROLES = "G"  # anywhere: whoever may do the one may not be allowed the other


class Conflict(msgspec.Struct, frozen=True):
    """Two kinds of action that one person may not both take; `a` and `b` say them in words."""

    number: int
    a: str
    b: str
    scopes: frozenset[Scope]
    first: frozenset[str]
    second: frozenset[str]

    def against(self, action: str) -> frozenset[str]:
        """The actions which this one may not meet; empty where the conflict is not about it."""
        if action in self.first:
            return self.second
        return self.first if action in self.second else frozenset()


class Act(msgspec.Struct, frozen=True):
    """One act of one person, as it was recorded.

    subject  the client, partner or other object it was about
    case     the request or transaction it belongs to; "" where there is none
    actor    whose credential did it; another than `person` when it counts for `person`
    """

    person: str
    action: str
    subject: str
    case: str
    at: datetime
    actor: str = ""


class Hit(msgspec.Struct, frozen=True):
    """The conflict an act would make, where it would be, and the earlier act it would meet."""

    conflict: Conflict
    scope: Scope
    earlier: Act


def _made(
    name: str, nature: Nature, says: str, *permissions: str, business: bool = False
) -> Action:
    return Action(name, nature, says, frozenset(permissions), business)


_N = Nature
_ACTIONS: Final = (
    _made(
        "kyc.request", _N.MAKE, "ask that a client be approved", "kyc:request", "kyc-high:request"
    ),
    _made(
        "kyc.approve", _N.APPROVE, "approve a client", "kyc:approve", "kyc-high:approve",
        business=True,
    ),
    _made("screening.decide", _N.MAKE, "decide a hit as the analyst", "screening:request"),
    _made(
        "screening.confirm", _N.APPROVE, "decide a hit again", "screening:approve", business=True
    ),
    _made("screening.clear", _N.DECIDE, "clear a strong hit of a review"),
    _made("risk.override", _N.DECIDE, "set a client's risk against its score"),
    _made("suspicion.request", _N.MAKE, "report a suspicion", "suspicions:request"),
    _made("suspicion.approve", _N.APPROVE, "file a suspicion", "suspicions:approve", business=True),
    _made("profile.request", _N.MAKE, "ask to change a client's data", "profiles:request"),
    _made("profile.approve", _N.APPROVE, "agree to it", "profiles:approve", business=True),
    _made("lifecycle.move", _N.DECIDE, "move a client where one person may"),
    _made("lifecycle.request", _N.MAKE, "ask for a client's move", "lifecycle:request"),
    _made("lifecycle.approve", _N.APPROVE, "agree to it", "lifecycle:approve", business=True),
    _made("attribution.request", _N.MAKE, "ask for another partner", "attribution:request"),
    _made("attribution.approve", _N.APPROVE, "agree to it", "attribution:approve", business=True),
    _made("account.request", _N.MAKE, "ask for a trading account", "accounts:request"),
    _made("account.approve", _N.APPROVE, "agree to it", "accounts:approve", business=True),
    _made("leverage.request", _N.MAKE, "ask for other leverage", "leverage:request"),
    _made("leverage.approve", _N.APPROVE, "agree to it", "leverage:approve", business=True),
    _made("deposit.request", _N.MAKE, "ask for a deposit by hand", "deposit-credits:request"),
    _made(
        "deposit.approve", _N.APPROVE, "agree to it", "deposit-credits:approve", business=True
    ),
    _made("withdrawal.request", _N.MAKE, "ask for a withdrawal", "withdrawals:request"),
    _made(
        "withdrawal.clear", _N.DECIDE, "clear it for compliance", "withdrawals:clear",
        business=True,
    ),
    _made("withdrawal.approve", _N.APPROVE, "agree to it", "withdrawals:approve", business=True),
    _made("withdrawal.send", _N.DO, "send it to a provider", "withdrawals:send"),
    _made(
        "reversal.request", _N.MAKE, "ask to take a sent one back", "withdrawal-reversals:request"
    ),
    _made(
        "reversal.approve", _N.APPROVE, "agree to it", "withdrawal-reversals:approve", business=True
    ),
    _made("destination.add", _N.MAKE, "add or change where payouts go", "destinations:request"),
    _made(
        "destination.verify", _N.APPROVE, "verify where they go", "destinations:approve",
        business=True,
    ),
    _made("refund.request", _N.MAKE, "ask for a refund", "refunds:request"),
    _made("refund.approve", _N.APPROVE, "agree to it", "refunds:approve", business=True),
    _made("adjustment.request", _N.MAKE, "ask to adjust a wallet", "adjustments:request"),
    _made("adjustment.approve", _N.APPROVE, "agree to it", "adjustments:approve", business=True),
    _made("bonus.request", _N.MAKE, "ask for a bonus", "bonuses:request"),
    _made("bonus.approve", _N.APPROVE, "agree to it", "bonuses:approve", business=True),
    _made("recon.match", _N.DO, "match an item of a statement", "reconciliation:request"),
    _made(
        "recon.write-off", _N.APPROVE, "write a difference off", "reconciliation:approve",
        business=True,
    ),
    _made("routing.draft", _N.MAKE, "draft routing rules", "routing:draft"),
    _made("routing.publish", _N.APPROVE, "publish them", "routing:publish", business=True),
    _made(
        "credential.request", _N.MAKE, "ask for other keys of a provider", "psp-credentials:request"
    ),
    _made("credential.approve", _N.APPROVE, "agree to it", "psp-credentials:approve"),
    _made(
        "application.request", _N.MAKE, "put a partner's application up", "applications:request"
    ),
    _made(
        "application.approve", _N.APPROVE, "agree to it", "applications:approve", business=True
    ),
    _made("plan.draft", _N.MAKE, "draft a partner plan", "plans:draft"),
    _made("plan.publish", _N.APPROVE, "publish it", "plans:publish", business=True),
    _made("terms.request", _N.MAKE, "draft a partner's own terms", "terms:request"),
    _made("terms.approve", _N.APPROVE, "agree to them", "terms:approve", business=True),
    _made("earnings.request", _N.MAKE, "ask to adjust earnings", "partner-adjustments:request"),
    _made(
        "earnings.approve", _N.APPROVE, "agree to it", "partner-adjustments:approve", business=True
    ),
    _made("settlement.approve", _N.APPROVE, "approve a run", "settlements:approve", business=True),
    _made("payout.send", _N.DO, "send what a run pays", "settlements:pay"),
    _made("dispute.open", _N.MAKE, "open a partner's dispute", "disputes:request"),
    _made("dispute.decide", _N.APPROVE, "decide it", "disputes:approve", business=True),
    _made("recompute.approve", _N.APPROVE, "agree to earnings computed again"),
    _made("trade.correct", _N.DO, "correct a trade"),
    _made("rule.draft", _N.MAKE, "draft codes, rules or thresholds", "rules:draft"),
    _made("rule.publish", _N.APPROVE, "publish them", "rules:publish", business=True),
    _made("rule.only-maker", _N.STAND, "be the only maker of the cases a rule changes"),
    _made("mapping.draft", _N.MAKE, "draft groups and platforms", "platforms:draft"),
    _made("mapping.publish", _N.APPROVE, "publish them", "platforms:publish", business=True),
    _made("entity.draft", _N.MAKE, "draft entities and brands", "entities:draft"),
    _made("entity.publish", _N.APPROVE, "publish them", "entities:publish", business=True),
    _made("role.request", _N.MAKE, "ask for a person's role", "roles:request"),
    _made("role.approve", _N.APPROVE, "agree to it", "roles:approve"),
    _made("machine.run", _N.DO, "operate the machine", "operations:execute"),
    _made("audit.examine", _N.DO, "examine and export the audit", "audit:export"),
    _made("any.write", _N.DO, "change anything at all"),
    _made("break-glass.request", _N.MAKE, "ask for emergency rights", "break-glass:request"),
    _made("break-glass.grant", _N.APPROVE, "grant them", "break-glass:approve"),
    _made("break-glass.use", _N.DO, "act with them"),
    _made("break-glass.review", _N.DECIDE, "review what was done with them"),
    _made("purge.request", _N.MAKE, "ask to purge a client's data", "purges:request"),
    _made("purge.approve", _N.APPROVE, "agree to it", "purges:approve", business=True),
    _made("delegate.approve", _N.APPROVE, "have a delegate agree in one's name"),
    _made("item.resolve", _N.DECIDE, "close what somebody must look at"),
    _made("partner.manage", _N.DO, "manage a partner"),
    _made("client.own", _N.DO, "own a client in sales", "leads:log"),
    _made("account.own", _N.STAND, "have, or be related to who has, the account"),
)  # fmt: skip
ACTIONS: Final[Mapping[str, Action]] = MappingProxyType({each.name: each for each in _ACTIONS})


def _of(*natures: Nature) -> frozenset[str]:
    return frozenset(name for name, action in ACTIONS.items() if action.nature in natures)


MAKING: Final = _of(Nature.MAKE)
APPROVING: Final = _of(Nature.APPROVE)
DECIDING: Final = _of(Nature.APPROVE, Nature.DECIDE)
BUSINESS: Final = frozenset(name for name, action in ACTIONS.items() if action.business)
KYC: Final = frozenset(
    {"kyc.request", "kyc.approve", "screening.decide", "screening.confirm", "screening.clear",
     "risk.override"}
)  # fmt: skip


def _row(
    number: int, a: str, b: str, scopes: str, first: str | frozenset[str],
    second: str | frozenset[str],
) -> Conflict:  # fmt: skip
    one = frozenset(first.split()) if isinstance(first, str) else first
    two = frozenset(second.split()) if isinstance(second, str) else second
    assert one | two <= ACTIONS.keys(), number
    assert not one & two, number
    return Conflict(number, a, b, frozenset(map(Scope, scopes.split(","))), one, two)


# The table of conflicts, in its own words and order; `tests/golden/conflicts.csv` is its copy.
_CONFLICTS: Final = (
    _row(1, "any request (make)", "approve the same request", "T", MAKING, APPROVING),
    _row(2, "KYC approve", "withdrawal approve", "S,G", "kyc.approve", "withdrawal.approve"),
    _row(3, "KYC approve", "payout destination verify", "S", "kyc.approve", "destination.verify"),
    _row(4, "payout destination add/change", "withdrawal approve", "S",
         "destination.add", "withdrawal.approve"),
    _row(5, "withdrawal request on behalf", "withdrawal approve", "T",
         "withdrawal.request", "withdrawal.approve"),
    _row(6, "withdrawal approve", "withdrawal send", "T", "withdrawal.approve", "withdrawal.send"),
    _row(7, "withdrawal approve", "reconciliation match of the same item", "T",
         "withdrawal.approve", "recon.match"),
    _row(8, "manual deposit credit make", "approve", "T", "deposit.request", "deposit.approve"),
    _row(9, "manual deposit credit", "withdrawal approve", "S",
         "deposit.request deposit.approve", "withdrawal.approve"),
    _row(10, "wallet adjustment make", "approve", "T", "adjustment.request", "adjustment.approve"),
    _row(11, "wallet adjustment", "reconciliation write-off", "S",
         "adjustment.request adjustment.approve", "recon.write-off"),
    _row(12, "screening hit analyst decision", "second decision", "T",
         "screening.decide", "screening.confirm"),
    _row(13, "screening hit cleared", "KYC approve (strong hit)", "T",
         "screening.clear", "kyc.approve"),
    _row(14, "risk override", "KYC approve", "T", "risk.override", "kyc.approve"),
    _row(15, "attribution change request", "attribution approve", "T",
         "attribution.request", "attribution.approve"),
    _row(16, "attribution change", "IB settlement approve (either partner)", "S",
         "attribution.request attribution.approve", "settlement.approve"),
    _row(17, "IB plan/personal terms draft", "publish/approve", "T",
         "plan.draft terms.request", "plan.publish terms.approve"),
    _row(18, "IB personal terms approve", "IB settlement approve same partner/period", "S",
         "terms.approve", "settlement.approve"),
    _row(19, "IB adjustment make", "approve", "T", "earnings.request", "earnings.approve"),
    _row(20, "settlement approve", "payout send", "T", "settlement.approve", "payout.send"),
    _row(21, "partner manager of the partner", "dispute decide", "S",
         "partner.manage", "dispute.decide"),
    _row(22, "sales owner of client", "KYC any decision, bonus approve, leverage approve", "S,G",
         "client.own", KYC | {"bonus.approve", "leverage.approve"}),
    _row(23, "person with own/related client or partner account", "any decision on it", "S",
         "account.own", DECIDING),
    _row(24, "routing rule draft", "publish", "T", "routing.draft", "routing.publish"),
    _row(25, "rule publish (reason codes, thresholds)", "being the only maker of cases it changes",
         "T", "rule.publish", "rule.only-maker"),
    _row(26, "role assignment", "any business approval role", "G",
         "role.request role.approve", BUSINESS),
    _row(27, "PSP credential change", "withdrawal approve/send", "G",
         "credential.request credential.approve", "withdrawal.approve withdrawal.send"),
    _row(28, "SRE production access", "any business approval", "G", "machine.run", BUSINESS),
    _row(29, "auditor", "any write role", "G", "audit.examine", "any.write"),
    _row(30, "break-glass request", "break-glass grant", "T",
         "break-glass.request", "break-glass.grant"),
    _row(31, "break-glass use", "post-review", "T", "break-glass.use", "break-glass.review"),
    _row(32, "client data purge request", "purge approve", "T", "purge.request", "purge.approve"),
    _row(33, "dealing trade correction", "IB dispute decision / recompute approval", "S",
         "trade.correct", "dispute.decide recompute.approve"),
    _row(34, "delegation giver", "approval as delegate of own request", "T",
         MAKING, "delegate.approve"),
)  # fmt: skip
CONFLICTS: Final[Mapping[int, Conflict]] = MappingProxyType({row.number: row for row in _CONFLICTS})


class Bonds(msgspec.Struct, frozen=True):
    """What an action may not meet: other actions of the same case, and on the same subject."""

    case: Mapping[str, Conflict]
    subject: Mapping[str, Conflict]


def _bonds(action: str) -> Bonds:
    """Of several conflicts about one pair the particular one is named, not "any request"."""
    case: dict[str, Conflict] = {}
    subject: dict[str, Conflict] = {}
    for conflict in _CONFLICTS:  # row 1 comes first and is overwritten
        others = conflict.against(action)
        if Scope.CASE in conflict.scopes:
            case.update(dict.fromkeys(others, conflict))
        if Scope.SUBJECT in conflict.scopes:
            subject.update(dict.fromkeys(others, conflict))
    return Bonds(MappingProxyType(case), MappingProxyType(subject))


BONDS: Final[Mapping[str, Bonds]] = MappingProxyType({name: _bonds(name) for name in ACTIONS})


def judge(
    history: Iterable[Act], person: str, action: str, subject: str, case: str, now: datetime,
    window: timedelta = SUBJECT_WINDOW,
) -> Hit | None:  # fmt: skip
    """The conflict that this act of this person would make with the history; None when it is free.

    The order of the two acts does not matter, nor whose credential did them. An act on the subject
    binds for `window`, one that stands for ever; of several conflicts the first row is named, and
    "any request" last.
    """
    bonds = BONDS[action]
    found: list[Hit] = []
    for act in history:
        if act.person != person:
            continue
        if case and act.case == case and act.action in bonds.case:
            found.append(Hit(bonds.case[act.action], Scope.CASE, act))
        if act.subject != subject or act.action not in bonds.subject:
            continue
        if now - act.at <= window or ACTIONS[act.action].nature is Nature.STAND:
            found.append(Hit(bonds.subject[act.action], Scope.SUBJECT, act))
    return min(found, key=_rank, default=None)


def _rank(hit: Hit) -> int:
    number = hit.conflict.number
    return number if number > 1 else len(CONFLICTS) + 1


# --- what roles allow ---------------------------------------------------------------------------

# Verbs that change nothing.
_LOOKING: Final = frozenset({"read", "masked", "totals", "area", "explain"})


def abilities(permissions: Iterable[str]) -> frozenset[str]:
    """The actions that these permissions allow."""
    held = frozenset(permissions)
    able = {name for name, action in ACTIONS.items() if action.permissions & held}
    examining = ACTIONS["audit.examine"].permissions
    if any(each.partition(":")[2] not in _LOOKING for each in held - examining):
        able.add("any.write")
    return frozenset(able)


def held_together(permissions: Iterable[str]) -> tuple[Conflict, ...]:
    """The conflicts of scope G that one person would hold with all these permissions."""
    able = abilities(permissions)
    return tuple(
        conflict
        for conflict in _CONFLICTS
        if Scope.ROLES in conflict.scopes and able & conflict.first and able & conflict.second
    )


def role_findings(book: Rulebook) -> list[Finding]:
    """The roles of a rulebook that hold both ends of a conflict alone: nobody can be given them."""
    findings = []
    for number, role in enumerate(book.roles):
        path = f"role[{number}].scopes"
        for conflict in held_together(role.scopes):
            said = f"`{role.id}` holds conflict {conflict.number}: {conflict.a} | {conflict.b}"
            findings.append(Finding(book.place(path), "role-conflict", said, path))
    return findings
