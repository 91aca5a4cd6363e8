"""People's data on the wire: what is told of a client as a person, whole or masked.

Knows the names of the fields. Refuses to store any.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated

import msgspec
from msgspec import Meta

Text = Annotated[str, Meta(min_length=1, max_length=200)]


class PersonalData(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A client as a person; what is absent is not known."""

    name: Text | None = None
    email: Text | None = None
    phone: Text | None = None
    address: Text | None = None
    birth_date: date | None = None

    def fields(self) -> dict[str, str]:
        """The known fields as texts."""
        told = msgspec.to_builtins(self)
        return {name: str(value) for name, value in told.items()}


class PersonalView(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a client as a person.

    masked  of each field no more than its first letter is shown
    erased  it was known once; nobody can read it any more
    """

    client: str
    version: int
    masked: bool
    erased: bool
    fields: dict[str, str]


class Erasure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A wish that what is known of a client as a person is erased."""

    reason: Annotated[str, Meta(max_length=500)] = ""


def mask(text: str) -> str:
    """So much of a field as recognises it and gives nothing away."""
    return f"{text[:1]}***"
