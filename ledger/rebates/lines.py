"""What a rebate line says besides its amount: which component, which kind, and why it is zero.

Knows the numbers that are stored in lines. Refuses to know how a line comes about and where it is
kept. A number once used never changes its meaning.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

UNIT = 10**16  # exact amounts are in 1e-16 minor units: 1e-8 lots times 1e-8 minor units a lot


class Component(IntEnum):
    """The part of a plan that a line pays by."""

    PER_LOT = 1


class LineKind(IntEnum):
    """How a line came about."""

    ORDINARY = 1  # a deal as it was first seen
    DIFFERENCE = 2  # what a later version of a deal changes against the version before
    ROUNDING = 3  # whole minor units out of what lines left over; no deal of its own


class Reason(IntEnum):
    """Why a line is zero, or that it is not."""

    PAID = 0
    CARRIED = 1  # there is an amount, below a minor unit: it stays in the remainder
    NO_RATE_RULE = 2  # the plan has no rate for the symbol
    NO_DIFFERENTIAL = 3  # the level's rate is not above those below it
    NO_PLAN = 4  # the contract had no plan in force
    OPENING = 5  # the deal closed nothing
    UNCHANGED = 6  # the later version moves nothing
    ROUNDING = 7


class Line(msgspec.Struct, frozen=True):
    """A line as it is stored; `level` 1 is the contract nearest the client, 0 none of a chain.

    deal_no       the landed deal that caused it
    concerned_no  the deal it pays for: the first version of an edited deal; 0 for none (rounding)
    account       the accrued account of the contract
    plan          the plan version of the level, 0 for none
    """

    book: int
    no: int
    batch: int
    feed: int
    deal_no: int
    concerned_no: int
    account: int
    component: int
    kind: int
    level: int
    reason: int
    plan: int
    amount: int
