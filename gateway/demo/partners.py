"""The demo's partners: a tree for each brand, up to five levels deep, and the clients they bring.

Knows whom the sample broker works with, drawn from a seed. Refuses to touch a table: all of it goes
through the API, as another system would do it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Final

import msgspec

from config.rulebook import Rulebook
from gateway.demo.api import Api
from gateway.demo.people import Person
from ledger.rebates import plans
from ledger.rebates.plans import Plan

PARTNERS: Final = 220
LEVELS_MAX: Final = 5
TOP: Final = 0.12  # of the partners have nobody above them
ORGANIC: Final = 0.08  # of the clients came through nobody
DIRECT: Final = 0.1  # of the partners without any below them are paid directly
PROBE: Final = "EURUSD"  # whose rate puts the plans of a ladder in order
BRANDS: Final = (("northgate", "EUR"), ("southbank", "USD"), ("eastwind", "USD"))
COUNTRIES: Final = {
    "northgate": ("DE", "FR", "CY", "IT", "ES"),
    "southbank": ("BR", "ZA", "MX", "TH"),
    "eastwind": ("VN", "ID", "KE", "NG"),
}
ACCOUNTS: Final = {"northgate": "standard", "southbank": "standard", "eastwind": "pro"}


class Planned(msgspec.Struct, frozen=True):
    """A partner of the sample broker before the broker knows it.

    parent  the reference of the one above, "" at the top
    level   1 is the top of the tree
    """

    reference: str
    brand: str
    currency: str
    plan: str
    level: int
    parent: str = ""

    @property
    def code(self) -> str:
        """The code that registrations name."""
        return self.reference.upper()


class Contracted(msgspec.Struct, frozen=True):
    """A partner that the broker knows, with its one contract."""

    planned: Planned
    partner: str
    contract: str


def tree(book: Rulebook, chance: Random, partners: int = PARTNERS) -> tuple[Planned, ...]:
    """The partners, those above before those below; rates fall from level to level."""
    compiled, _ = plans.compile(book)
    made: list[Planned] = []
    for brand, currency in BRANDS:
        ladder = _ladder(compiled, currency)
        mine: list[Planned] = []
        for number in range(1, partners // len(BRANDS) + 1 + (brand == BRANDS[0][0])):
            below = [each for each in mine if each.level < LEVELS_MAX]
            above = chance.choice(below) if below and chance.random() > TOP else None
            level = above.level + 1 if above else 1
            mine.append(
                Planned(
                    f"ib-{brand}-{number:03}", brand, currency,
                    ladder[min(level, len(ladder)) - 1], level, above.reference if above else "",
                )
            )  # fmt: skip
        made += _some_direct(mine, compiled, chance)
    return tuple(made)


def _ladder(compiled: Mapping[str, Plan], currency: str) -> list[str]:
    """The differential plans of a currency, the best paid first."""
    mine = [p for p in compiled.values() if p.currency == currency and p.mode == "differential"]
    return [plan.id for plan in sorted(mine, key=lambda it: -(it.rate(PROBE) or 0))]


def _some_direct(
    mine: Sequence[Planned], compiled: Mapping[str, Plan], chance: Random
) -> list[Planned]:
    """A few at the lower end are on the plan that pays them alone."""
    above = {each.parent for each in mine}
    direct = {plan.currency: plan.id for plan in compiled.values() if plan.mode == "direct"}
    return [
        msgspec.structs.replace(each, plan=direct[each.currency])
        if each.currency in direct and each.reference not in above and chance.random() < DIRECT
        else each
        for each in mine
    ]


def traders(partners: Sequence[Planned], chance: Random, clients: int) -> tuple[Person, ...]:
    """Clients on their way to trading, most of them brought by a partner."""
    people = []
    for number in range(1, clients + 1):
        brand, currency = chance.choice(BRANDS)
        mine = [each for each in partners if each.brand == brand]
        code = "" if chance.random() < ORGANIC else chance.choice(mine).code
        people.append(
            Person(
                reference=f"trader-{number:04}", brand=brand, currency=currency, risk="low",
                country=chance.choice(COUNTRIES[brand]), account=ACCOUNTS[brand],
                goes_to="approved", code=code,
            )
        )  # fmt: skip
    return tuple(people)


async def contract_all(portal: Api, planned: Sequence[Planned]) -> list[Contracted]:
    """Make the partners known with a contract each; those of an earlier life are found again."""
    known: dict[str, Contracted] = {}
    for each in planned:
        above = known[each.parent].contract if each.parent else ""
        known[each.reference] = await _contracted(portal, each, above)
    return list(known.values())


async def _contracted(portal: Api, planned: Planned, above: str) -> Contracted:
    page = await portal.get(f"/v1/partners?reference={planned.reference}")
    if page["data"]:
        partner = page["data"][0]
    else:
        order = {"reference": planned.reference, "kind": "ib" if planned.parent else "master"}
        partner = await portal.post("/v1/partners", order)
    contracts = partner["contracts"]
    contract = contracts[0] if contracts else await _contract(portal, partner, planned, above)
    return Contracted(planned, partner["id"], contract["id"])


async def _contract(
    portal: Api, partner: dict[str, Any], planned: Planned, above: str
) -> dict[str, Any]:
    order: dict[str, Any] = {
        "brand": planned.brand, "currency": planned.currency, "plan": planned.plan,
        "code": planned.code,
    }  # fmt: skip
    if above:
        order["parent"] = above
    made: dict[str, Any] = await portal.post(f"/v1/partners/{partner['id']}/contracts", order)
    return made
