"""Deals for tests: plain ones, each different where a test says so. It asserts nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from ledger.facts import DEAL, Deal
from ledger.verdicts import LOT

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
AHEAD_H = 2  # the platform's wall clock


def deal(ticket: int = 1, *, after_s: float = 0.0, lots: str = "1", **changes: Any) -> Deal:
    """A deal out of 1 lot EURUSD by login 5001, so many seconds after noon."""
    at = changes.pop("at", NOON + timedelta(seconds=after_s))
    volume = int(Decimal(lots) * LOT)
    plain: dict[str, Any] = {
        "ticket": ticket, "phase": DEAL, "login": 5001, "position": 900 + ticket, "action": 1,
        "entry": 1, "reason": 0, "symbol": "EURUSD", "volume": volume,
        "price": Decimal("1.08514"), "digits": 2, "profit": 1250, "commission": -700, "swap": 0,
        "fee": 0, "flags": 0, "comment": "", "at": at,
        "server_ms": int((at + timedelta(hours=AHEAD_H)).timestamp() * 1000),
    }  # fmt: skip
    made = plain | changes
    made.setdefault("closed", 0 if made["entry"] == 0 else made["volume"])
    return Deal(**made)


def balance_deal(ticket: int, **changes: Any) -> Deal:
    """Money put on login 5001: no symbol, no volume, no price."""
    nothing = {"symbol": "", "volume": 0, "closed": 0, "price": Decimal(0), "position": 0}
    return deal(ticket, action=2, entry=0, **(nothing | changes))
