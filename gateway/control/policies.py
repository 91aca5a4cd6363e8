"""Policies of approvals: which kinds of request need other people, how many, who, and for how long.

Knows the kinds that the product asks about, and which policy of the rulebook decides for a matter.
Refuses to know what is asked and by whom: `approvals.py` keeps the question.

The closest policy decides: one for the brand before one for its entity, before one for everybody.
Among those equally close the strictest of them that fit the matter: most people, then least time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from decimal import Decimal
from functools import partial
from typing import Final, Literal

import msgspec

from config.findings import Finding
from config.rulebook import ApprovalPolicy, Rulebook
from gateway.control.areas import AREAS
from ledger.money import Money

ANY: Final = "*"
DEFAULT_EXPIRY_S: Final = 60.0 * 60 * 24 * 3

Level = Literal["brand", "entity", "global", "default"]
LEVELS: Final[tuple[Level, ...]] = ("brand", "entity", "global", "default")  # the closest first


class KindOf(msgspec.Struct, frozen=True):
    """A kind of request that other people must agree to.

    said        what is asked, for people
    permission  what a checker must hold unless a policy of the rulebook says another
    asks        the name under which asking is recorded as an act (`duties.py`); `agrees` likewise
    house       it concerns the whole house: there is no entity, and no policy for one
    """

    said: str
    permission: str
    asks: str
    agrees: str
    house: bool = False


# Every kind of question of the product. Who asks such a question registers an applier for it; a
# test finds each kind without one.
KINDS: Final[Mapping[str, KindOf]] = {
    "attribution.change": KindOf(
        "have a client come through another partner's contract", "attribution:approve",
        "attribution.request", "attribution.approve",
    ),
    "break-glass.grant": KindOf(
        "give a person a role for minutes in an emergency", "break-glass:approve",
        "break-glass.request", "break-glass.grant",
    ),
    "client.erase": KindOf(
        "erase what is known of a client as a person", "purges:approve", "purge.request",
        "purge.approve",
    ),
    "client.move": KindOf(
        "move a client to another state", "lifecycle:approve", "lifecycle.request",
        "lifecycle.approve",
    ),
    "role.grant": KindOf(
        "give a person a role", "roles:approve", "role.request", "role.approve",
    ),
    "role.exception": KindOf(
        "let a person hold, for a while, roles that may not be in one hand", "roles:approve",
        "role.request", "role.approve",
    ),
    **{
        area.kind: KindOf(
            f"change the {area.said} of the rulebook", area.publishes, area.draft, area.publish,
            house=True,
        )
        for area in AREAS.values()
    },
}  # fmt: skip


class Matter(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked: by these facts a policy is chosen, and checkers are found within reach.

    subject   the object the effect will change; one question of a kind may be open about it
    entity, brand, desk, contracts   its tags; "" where it has none
    about     whom else it concerns: a person's acts on the subject are acts on these too
    risk      its risk band; "" where the kind has none
    amount    what is at stake; None where no money is
    payload   what will be applied: a JSON value whose shape belongs to the kind
    """

    kind: str
    subject: str
    payload: object
    entity: str = ""
    brand: str = ""
    desk: str = ""
    contracts: tuple[str, ...] = ()
    about: tuple[str, ...] = ()
    risk: str = ""
    amount: Money | None = None


class Policy(msgspec.Struct, frozen=True):
    """What one policy asks for.

    needed      how many different people must agree
    permission  what each of them must hold
    level       where it was written: the brand's, the entity's, everybody's, or the product's own
    rulebook    the hash of the rulebook that said so
    """

    kind: str
    needed: int
    expiry_s: float
    permission: str
    level: Level
    rulebook: str


class Policies(msgspec.Struct, frozen=True):
    """The policies of one rulebook; `rulebook` is its hash."""

    rulebook: str
    policies: tuple[ApprovalPolicy, ...] = ()

    def of(self, matter: Matter) -> Policy:
        """What decides for this matter. A kind without a policy still needs a second person."""
        fits = [each for each in self.policies if _fits(each, matter)]
        kind = KINDS[matter.kind]
        if not fits:
            return Policy(
                matter.kind, 1, DEFAULT_EXPIRY_S, kind.permission, "default", self.rulebook
            )
        best = min(fits, key=lambda each: (LEVELS.index(_level(each)), -each.needed, each.expiry_s))
        return Policy(
            matter.kind, best.needed, best.expiry_s, best.permission or kind.permission,
            _level(best), self.rulebook,
        )  # fmt: skip

    def permissions(self, kind: str) -> frozenset[str]:
        """Every permission by which some question of this kind is decided."""
        own = KINDS[kind].permission
        named = [it.permission or own for it in self.policies if it.kind == kind]
        return frozenset((own, *named))


def _fits(policy: ApprovalPolicy, matter: Matter) -> bool:
    return (
        policy.kind == matter.kind
        and policy.entity in (ANY, matter.entity)
        and policy.brand in (ANY, matter.brand)
        and policy.risk in (ANY, matter.risk)
        and _enough(policy, matter.amount)
    )


def _enough(policy: ApprovalPolicy, amount: Money | None) -> bool:
    """Whether the amount reaches the policy's; one in another currency than the policy's does not.

    A policy that names neither is for every matter.
    """
    if policy.currency == ANY and not policy.amount_from:
        return True
    if amount is None or policy.currency not in (ANY, amount.currency.code):
        return False
    return Decimal(amount.text) >= Decimal(policy.amount_from or "0")


def _level(policy: ApprovalPolicy) -> Level:
    if policy.brand != ANY:
        return "brand"
    return "global" if policy.entity == ANY else "entity"


# --- compiling ----------------------------------------------------------------------------------


def compile(book: Rulebook) -> tuple[Policies, list[Finding]]:
    """The policies of a rulebook; a question that no role may decide is a finding."""
    findings: list[Finding] = []
    granted = {scope for role in book.roles for scope in role.scopes}

    def found(number: int, key: str, code: str, said: str) -> None:
        path = f"approval[{number}].{key}"
        findings.append(Finding(book.place(path), code, f"{path}: {said}", path))

    seen: dict[tuple[object, ...], int] = {}
    for number, policy in enumerate(book.approvals):
        _examine(policy, granted, partial(found, number))
        key = (
            policy.kind, policy.entity, policy.brand, policy.risk, policy.currency,
            Decimal(policy.amount_from or "0"),
        )  # fmt: skip
        if key in seen:
            found(number, "kind", "duplicate", f"approval[{seen[key]}] is for the same matters")
        seen.setdefault(key, number)
    return Policies(book.hash, book.approvals), findings


def _examine(
    policy: ApprovalPolicy, granted: Collection[str], found: Callable[[str, str, str], None]
) -> None:
    kind = KINDS.get(policy.kind)
    if kind is None:
        found("kind", "unknown-name", f"nothing asks for `{policy.kind}`")
        return
    if kind.house and (policy.entity, policy.brand) != (ANY, ANY):
        found("entity", "not-for-entities", f"`{policy.kind}` concerns the whole house")
    permission = policy.permission or kind.permission
    if permission not in granted:
        found("permission", "nobody-approves", f"no role may approve it: `{permission}`")
