"""Grants and people on the wire. Knows their JSON; refuses to show what anybody signs in with."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from gateway.control.access import EVERYWHERE, Reach
from gateway.control.assigning import Excepted
from gateway.control.grants import Grant
from gateway.control.views import GivenReason, Moment

PersonName = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9._@-]{0,63}$", max_length=64)]
RoleName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9.-]{0,31}$", max_length=32)]
Tag = Annotated[str, Meta(pattern=r"^(\*|[A-Za-z0-9][A-Za-z0-9._-]{0,31})$", max_length=32)]
TagSet = Annotated[tuple[Tag, ...], Meta(min_length=1, max_length=50)]
ALL: Final = (EVERYWHERE,)


class NewGrant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A wish that a person be given a role, within sets of tags; `*` is no limit.

    valid_from  absent: from when it is agreed to
    exception   the role may not be in one hand with what they hold: ask for it all the same, for a
                while (`valid_until`)
    """

    person: PersonName
    role: RoleName
    entities: TagSet = ALL
    brands: TagSet = ALL
    jurisdictions: TagSet = ALL
    desks: TagSet = ALL
    partners: TagSet = ALL
    valid_from: Moment | None = None
    valid_until: Moment | None = None
    exception: bool = False
    reason: GivenReason = ""

    @property
    def reach(self) -> Reach:
        """The sets it is limited to."""
        return Reach(
            entities=frozenset(self.entities), brands=frozenset(self.brands),
            jurisdictions=frozenset(self.jurisdictions), desks=frozenset(self.desks),
            partners=frozenset(self.partners),
        )  # fmt: skip


class NewTie(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is true of a person and a client or a partner, so that they do not decide on it.

    tie  `account.own`: it is their own account, or of somebody related; for ever. `client.own`: the
         client is theirs in sales. `partner.manage`: the partner is theirs to manage
    """

    tie: Literal["account.own", "client.own", "partner.manage"]
    subject: Annotated[str, Meta(pattern="^(CL|PA)[0-9A-Z]{18}$", max_length=20)]
    reason: GivenReason = ""


class TieView(msgspec.Struct, frozen=True, kw_only=True):
    """What is true of a person, who said so and when."""

    tie: str
    subject: str
    said: datetime
    said_by: str


class RevokeGrant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Take a role back from a person."""

    reason: GivenReason = ""


class GrantView(msgspec.Struct, frozen=True, kw_only=True):
    """A role that a person holds or held; `approval` names the question by which it was given."""

    id: str
    version: int
    person: str
    role: str
    entities: tuple[str, ...]
    brands: tuple[str, ...]
    jurisdictions: tuple[str, ...]
    desks: tuple[str, ...]
    partners: tuple[str, ...]
    valid_from: datetime
    valid_until: datetime | None
    in_force: bool
    approval: str
    created: datetime
    created_by: str
    revoked: datetime | None
    revoked_by: str


class GrantPage(msgspec.Struct, frozen=True):
    """Grants newest first; `next` is the cursor of the following page, null on the last."""

    data: tuple[GrantView, ...]
    next: str | None


class ExceptionView(msgspec.Struct, frozen=True, kw_only=True):
    """Two roles in one hand that other people let a person hold for a while."""

    conflict: int
    grant: str
    since: datetime
    until: datetime
    approval: str
    reason: str


class PersonView(msgspec.Struct, frozen=True, kw_only=True):
    """A person with what they hold, now and before.

    conflicts  rows of duties that their roles of this moment put in one hand
    """

    id: str
    kind: str
    grants: tuple[GrantView, ...]
    conflicts: tuple[int, ...]
    exceptions: tuple[ExceptionView, ...]
    ties: tuple[TieView, ...]


def grant_view(grant: Grant, now: datetime) -> GrantView:
    """Show a grant as it stands at `now`."""
    reach = grant.reach
    return GrantView(
        id=grant.id, version=grant.version, person=grant.person, role=grant.role,
        entities=tuple(sorted(reach.entities)), brands=tuple(sorted(reach.brands)),
        jurisdictions=tuple(sorted(reach.jurisdictions)), desks=tuple(sorted(reach.desks)),
        partners=tuple(sorted(reach.partners)), valid_from=grant.valid_from,
        valid_until=grant.valid_until, in_force=grant.in_force(now), approval=grant.approval,
        created=grant.created, created_by=grant.created_by, revoked=grant.revoked,
        revoked_by=grant.revoked_by,
    )  # fmt: skip


def exception_view(excepted: Excepted) -> ExceptionView:
    """Show an exception."""
    return ExceptionView(
        conflict=excepted.conflict, grant=excepted.grant_id, since=excepted.since,
        until=excepted.until, approval=excepted.approval, reason=excepted.reason,
    )  # fmt: skip
