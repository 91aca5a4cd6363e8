"""Audit: one row for each command, in the command's own transaction.

Knows who asked, as what, for whom, why, and the catalogue of commands. Refuses to know how a
command works; the flow that does the work puts this row into its own unit of work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.control import queries_audit as q
from gateway.control.access import Caller
from gateway.control.refusals import Refusal
from ledger.units import Change, Kind, Step

if TYPE_CHECKING:
    import asyncpg

AUDIT: Final = Kind("gateway.audit.insert", Step.INSERT, q.INSERT_AUDIT)

# Every command of the product. A test runs each and finds its row; an unknown name is a bug.
COMMANDS: Final[Mapping[str, str]] = {
    "client.create": "a client is made known",
    "client.move": "a client moves to another state, or a person is asked to allow it",
    "client.personal": "what is known of a client as a person is kept",
    "client.viewed": "what is known of a client as a person is looked at unmasked",
    "client.erase": "what is known of a client as a person is to be erased, or is",
    "attribution.change": "another partner is asked for a client, or the change is made",
    "approval.decide": "a checker approves or refuses what a maker asked for",
    "approval.withdraw": "a maker takes back what they asked for",
    "delegation.give": "a checker lends their right to decide to another person",
    "delegation.end": "a lent right is taken back before its time",
    "partner.create": "a partner is made known",
    "contract.create": "a partner gets a contract, with its place in the tree and its plan",
    "account.request": "a trading account is asked for",
    "deposit.start": "a deposit is taken and routed",
    "partner.link": "a link to a partner's page is given out",
    "partner.enter": "a partner opens their page with a link",
    "partner.leave": "a partner ends their visit",
    "visits.end": "all links and visits of a partner are ended",
    "item.resolve": "a person closes an item with a reason",
    "event.resend": "a delivered or dead event is sent to its subscriber again",
    "subscriber.set": "a calling system names the address of its webhooks",
    "sign-in.open": "a person signs in",
    "sign-in.refuse": "somebody comes in a person's name and is not let in",
    "sign-in.leave": "a person ends their session",
    "sign-in.revoke": "somebody's session is ended by another person",
    "break-glass.grant": "a role is asked for in an emergency, or given",
    "break-glass.end": "a role of an emergency is over",
    "person.add": "a person gets a role at the machine",
    "person.password": "a person gets another password",
    "person.device": "a person gets another device that shows codes",
    "person.identity": "what an identity provider calls a person is said or taken back",
    "certificate.add": "certificates of a name may call",
    "certificate.revoke": "certificates of a name may call no more",
    "role.grant": "a person is given a role, or other people are asked for it",
    "role.exception": "a person is let hold, for a while, roles that may not be in one hand",
    "role.revoke": "a role is taken back from a person",
    "person.tie": "whose account, client or partner something is, is said of a person",
    "key.add": "a credential is given out",
    "key.revoke": "a credential is taken back",
    "audit.read": "somebody looked into the audit",
    "audit.export": "somebody took an export of the audit",
    "rulebook.draft": "a version of the rulebook is drafted",
    "rulebook.publish": "other people are asked to agree to a version of the rulebook",
    "rulebook.withdraw": "a version of the rulebook is taken back",
    "rulebook.adopt": "another rulebook comes into force",
}


# A person decides here what they might as well not have done: why is part of the act.
REASONED: Final = frozenset(
    {
        "client.move",
        "client.viewed",
        "client.erase",
        "attribution.change",
        "break-glass.grant",
        "approval.decide",
        "approval.withdraw",
        "delegation.give",
        "delegation.end",
        "item.resolve",
        "role.grant",
        "role.exception",
        "role.revoke",
        "person.tie",
        "audit.read",
        "audit.export",
        "rulebook.adopt",
    }
)


class Concerns(msgspec.Struct, frozen=True):
    """What an act is about, so that it is found by it and shown only to whoever reaches it.

    entity    "" is the whole house: only whoever reaches all entities reads it
    client    the client concerned, whatever the subject is
    contract  the partner's contract concerned
    """

    entity: str = ""
    brand: str = ""
    client: str = ""
    contract: str = ""


THE_HOUSE: Final = Concerns()


class Command(msgspec.Struct, frozen=True):
    """The envelope of every command.

    caller        from the credential, never from the body
    reason        why, in the words of whoever asked; may be empty where the command needs none
    correlation   joins everything that follows from one request
    at            when it was asked, UTC
    on_behalf_of  the person it is done for, when that is not the actor
    """

    caller: Caller
    reason: str
    correlation: str
    at: datetime
    on_behalf_of: str = ""


def audited(
    command: Command,
    name: str,
    subject: str,
    audit_id: str,
    *,
    before: object = None,
    after: object = None,
    concerns: Concerns = THE_HOUSE,
    approvals: Sequence[str] = (),
) -> Change:
    """The audit row of this command; `before` and `after` are JSON values without personal data.

    approvals  the ids of those that allowed it
    Raises Refusal `reason-missing` for a command that needs a reason and has none.
    """
    assert name in COMMANDS, name
    if name in REASONED and not command.reason.strip():
        raise Refusal("reason-missing", f"{name} needs a reason")
    caller = command.caller
    return Change(
        AUDIT,
        (
            audit_id, command.at, caller.person, caller.role, command.on_behalf_of, name, subject,
            _json(before), _json(after), command.reason, command.correlation, caller.key_id,
            caller.session, caller.grant_id, ",".join(approvals), concerns.entity,
            concerns.brand, concerns.client, concerns.contract,
        ),
    )  # fmt: skip


async def write(conn: asyncpg.Connection, changes: Sequence[Change]) -> None:
    """Run these changes in the caller's own transaction, for commands that need no lane."""
    assert conn.is_in_transaction()
    for change in changes:
        await conn.execute(change.kind.sql, *[[value] for value in change.row])


def _json(value: object) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()
