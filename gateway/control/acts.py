"""Acts: what each person decided, judged before it is done and written with what it does.

Knows how history is read and how an act is numbered, so that no two credentials of one person slip
by each other. Refuses to know the conflicts (`duties.py`) and what any command does.

An act binds its person at two places: its subject and its case. At each place a person's acts are
numbered 1, 2, 3 ... An act is judged against all before its number; where another of the same
person came meanwhile, the number is taken and the whole unit is left out: the caller judges anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import asyncpg
import msgspec

from gateway.control import queries_duties as q
from gateway.control.duties import (
    ACTIONS,
    APPROVING,
    BONDS,
    SUBJECT_WINDOW,
    Act,
    Hit,
    Nature,
    judge,
)
from gateway.control.refusals import Refusal
from ledger.units import Change, Kind, Left, Step, Why

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway.control.audit import Command

ACT: Final = Kind("gateway.act.claim", Step.CLAIM, q.CLAIM_ACT, q.LOOK_ACT)
TIES: Final = ("account.own", "client.own", "partner.manage")
TRIES_MAX: Final = 5  # times a command is judged anew before its caller hears of it

EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)  # a case binds however old it is

_STANDING: Final = [name for name, action in ACTIONS.items() if action.nature is Nature.STAND]
_HERE: Final = {name: ",".join(bonds.subject) for name, bonds in BONDS.items()}
_THERE: Final = {name: ",".join(bonds.case) for name, bonds in BONDS.items()}
_LENT: Final = "delegate.approve"


class Deed(msgspec.Struct, frozen=True):
    """What a command is about to do, in the words of `duties.ACTIONS`.

    subject  the client, the partner or the object it is about
    case     the request or transaction it belongs to; "" where there is none
    """

    action: str
    subject: str
    case: str = ""


class Heads(msgspec.Struct, frozen=True):
    """What was read to judge by: numbers of a person's last acts at places, and acts in the way."""

    numbers: Mapping[tuple[str, str], int]
    history: tuple[Act, ...]


async def acted(
    conn: asyncpg.Connection, command: Command, *deeds: Deed, approval: str = "", giver: str = ""
) -> tuple[Change, ...]:
    """Judge what a command does and return the rows that go with it into its unit.

    It counts for whoever's credential it is, for the person on whose behalf it is done, and for
    `giver`, who lent the right to do it. Raises Refusal `duty-conflict`.

    approval  the question that is decided, or that allowed it
    """
    heads = await read(conn, command, *deeds, giver=giver)
    return decided(command, heads, *deeds, approval=approval, giver=giver)


async def read(conn: asyncpg.Connection, command: Command, *deeds: Deed, giver: str = "") -> Heads:
    """The part of history that matters to these deeds, in one round trip however long it is."""
    meant = _meant(command, deeds, giver)
    looked = [look for person, deed in meant for look in _looks(person, deed, command.at)]
    columns = [[look[n] for look in looked] for n in range(4)]
    rows = await conn.fetch(q.SELECT_HISTORY, *columns, _STANDING)
    numbers = {(row["person"], row["place"]): row["no"] for row in rows if row["action"] is None}
    history = tuple(
        Act(row["person"], row["action"], row["subject"], row["case_id"], row["at"], row["actor"])
        for row in rows if row["action"] is not None
    )  # fmt: skip
    return Heads(numbers, history)


def decided(
    command: Command, heads: Heads, *deeds: Deed, approval: str = "", giver: str = ""
) -> tuple[Change, ...]:
    """Judge these deeds by what was read. Pure; raises Refusal `duty-conflict`."""
    return _changes(command, _judged(command, _meant(command, deeds, giver), heads), approval)


async def stated(
    conn: asyncpg.Connection, command: Command, person: str, deed: Deed
) -> tuple[Change, ...]:
    """The row of what is true of a person and not their doing: nothing stops it from being so.

    It binds them from now on; where it shows that they decided what they should not have, the
    report of duties names it.
    """
    heads = Heads({(person, deed.subject): 0}, ())
    looked = [[person], [deed.subject], [""], [command.at]]
    for row in await conn.fetch(q.SELECT_HISTORY, *looked, _STANDING):
        heads = Heads({(person, deed.subject): row["no"]}, ())
    return _changes(command, _judged(command, [(person, deed)], heads), "")


async def ties(conn: asyncpg.Connection, person: str) -> list[Act]:
    """What is true of a person: their own accounts, their clients in sales, their partners."""
    rows = await conn.fetch(q.SELECT_TIES, person, list(TIES))
    return [Act(person, it["action"], it["subject"], "", it["at"], it["actor"]) for it in rows]


def overtaken(left: Left) -> bool:
    """Whether a unit was left out because the same person did something else meanwhile.

    Whoever handed it in reads and judges again, at most TRIES_MAX times.
    """
    return left.why is Why.CLAIMED and left.kind == ACT.name


async def write(conn: asyncpg.Connection, changes: Sequence[Change]) -> None:
    """Write acts in the caller's own transaction, for commands that need no lane.

    Raises Refusal `version-conflict` where the same person did something else meanwhile; the
    transaction is then to be rolled back.
    """
    assert conn.is_in_transaction()
    try:
        for change in changes:
            await conn.execute(change.kind.sql, *[[value] for value in change.row])
    except asyncpg.UniqueViolationError:
        said = "you did something else while this command was under way"
        raise Refusal("version-conflict", said) from None


def _meant(command: Command, deeds: Sequence[Deed], giver: str) -> list[tuple[str, Deed]]:
    """Each deed of each person it counts for, the one that names a lent right first."""
    caller, other = command.caller.person, command.on_behalf_of
    persons = [caller, *([other] if other not in ("", caller) else [])]
    meant = [(person, deed) for person in persons for deed in deeds]
    if giver in ("", *persons):
        return meant
    lent = [Deed(_LENT, it.subject, it.case) for it in deeds if it.action in APPROVING]
    return [*meant, *((giver, deed) for deed in (*lent, *deeds))]


def _looks(person: str, deed: Deed, at: datetime) -> Iterator[tuple[str, str, str, datetime]]:
    """Where to look for what a deed may not meet: person, place, actions, since when."""
    yield person, deed.subject, _HERE[deed.action], at - SUBJECT_WINDOW
    if deed.case:
        yield person, deed.case, _THERE[deed.action], EVER


def _judged(
    command: Command, meant: Sequence[tuple[str, Deed]], heads: Heads
) -> list[tuple[str, int, Act]]:
    """The acts with places and numbers; deeds of one command are judged against each other too."""
    done: list[tuple[str, int, Act]] = []
    history = list(heads.history)
    numbers = dict(heads.numbers)
    for person, deed in meant:
        hit = judge(history, person, deed.action, deed.subject, deed.case, command.at)
        if hit is not None:
            raise _refusal(deed, person, command, hit)
        actor = command.caller.person
        act = Act(person, deed.action, deed.subject, deed.case, command.at, actor)
        history.append(act)
        for place in sorted({deed.subject, deed.case} - {""}):
            numbers[person, place] += 1
            done.append((place, numbers[person, place], act))
    return done


def _refusal(deed: Deed, person: str, command: Command, hit: Hit) -> Refusal:
    conflict, earlier = hit.conflict, hit.earlier
    whose = "you" if person == command.caller.person else f"{person}, for whom this counts,"
    said = (
        f"conflict {conflict.number} ({conflict.a} | {conflict.b}): {whose} did "
        f"{earlier.action} on {earlier.subject} at {earlier.at.isoformat(timespec='seconds')}"
    )
    facts = {
        "conflict": conflict.number, "scope": hit.scope.value, "action": deed.action,
        "met": earlier.action, "person": person,
    }  # fmt: skip
    return Refusal("duty-conflict", said, facts)


def _changes(
    command: Command, done: Sequence[tuple[str, int, Act]], approval: str
) -> tuple[Change, ...]:
    caller = command.caller
    return tuple(
        Change(
            ACT,
            (
                f"{no}:{act.person}:{place}", act.person, place, no, act.action, act.subject,
                act.case, act.at, act.actor, caller.role, caller.grant_id, approval,
                command.correlation,
            ),
        )
        for place, no, act in done
    )  # fmt: skip
