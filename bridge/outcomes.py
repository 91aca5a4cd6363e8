"""What a call to a platform ends in: done, refused, not sent, unknown.

Knows the four meanings and the record of each call that led there. Refuses to know what follows
from them: the flows decide that, and only `NotSent` and a transient refusal allow a plain repeat.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

Class = Literal["ok", "ambiguous", "transient", "configuration", "data", "business"]
"""What an answer's code means for us; see `mt5/retcodes.py`."""

Kind = Literal["transient", "configuration", "data", "business", "verify"]
"""Why something was refused: a class of code, or an account that is not as asked."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One platform call as the job log keeps it: secrets are replaced before it is made.

    payload       JSON text of the parameters, passwords as `***`
    payload_hash  SHA-256 of the true parameters, so equal requests are recognised
    code          the platform's code; None when no readable answer came
    """

    method: str
    payload: str
    payload_hash: str
    code: int | None
    text: str
    class_: str  # a Class, or `not_sent`, `lost`, `denied`
    took_ms: int
    at: datetime


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """It happened. `login` for an account, `ticket` for a balance operation."""

    login: int | None = None
    ticket: int | None = None
    detail: str = ""
    calls: tuple[Call, ...] = ()


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """It did not happen and the platform said so; or it happened otherwise (`verify`).

    kind  transient (may be repeated after a pause), configuration (an operator's work), data,
          business, or verify: the account is there but is not as asked (`text` names the fields)
    """

    code: int
    text: str
    kind: Kind
    calls: tuple[Call, ...] = ()


class NotSent(msgspec.Struct, frozen=True, kw_only=True):
    """No byte of the request left us: `lease`, `session`, `queue` or `dial`."""

    reason: str
    calls: tuple[Call, ...] = ()


class Unknown(msgspec.Struct, frozen=True, kw_only=True):
    """The request may have arrived and the answer does not say. Never repeat it blindly."""

    reason: str
    calls: tuple[Call, ...] = ()


Outcome = Done | Refused | NotSent | Unknown
