"""Acts: what each person decided, judged before it is done and written with what it does.

Knows how history is read and how an act is numbered, so that no two credentials of one person slip
by each other. Refuses to know the conflicts (`duties.py`) and what any command does.

Each person's acts are numbered 1, 2, 3 ... An act is judged against all before its number; where
another of the same person came meanwhile, the number is taken and the whole unit is left out: the
caller judges anew.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    from collections.abc import Iterable, Mapping

    from gateway.control.audit import Command

ACT: Final = Kind("gateway.act.claim", Step.CLAIM, q.CLAIM_ACT, q.LOOK_ACT)
TRIES_MAX: Final = 5  # times a command is judged anew before its caller hears of it

_STANDING: Final = [name for name, action in ACTIONS.items() if action.nature is Nature.STAND]
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
    """What was read to judge by: the number of each person's last act, and acts in the way."""

    numbers: Mapping[str, int]
    history: tuple[Act, ...]


async def acted(
    conn: asyncpg.Connection, command: Command, *deeds: Deed, approval: str = "", giver: str = ""
) -> tuple[Change, ...]:
    """Judge what a command does and return the rows that go with it into its unit.

    It counts for whoever's credential it is, for the person on whose behalf it is done, and for
    `giver`, who lent the right to do it. Raises Refusal `duty-conflict`.

    approval  the question that is decided, or that allowed it
    """
    meant = _meant(command, deeds, giver)
    heads = await _read(conn, command, meant)
    return _changes(command, _judged(command, meant, heads), approval)


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


async def _read(
    conn: asyncpg.Connection, command: Command, meant: Sequence[tuple[str, Deed]]
) -> Heads:
    """The part of history that matters, in one round trip however long it is."""
    here = [(p, it.subject, ",".join(sorted(BONDS[it.action].subject))) for p, it in meant]
    cases = [(p, it.case, ",".join(sorted(BONDS[it.action].case))) for p, it in meant if it.case]
    rows = await conn.fetch(
        q.SELECT_HISTORY,
        sorted({person for person, _ in meant}),
        *_columns(it for it in here if it[2]),
        command.at - SUBJECT_WINDOW,
        _STANDING,
        *_columns(it for it in cases if it[2]),
    )
    numbers = {row["person"]: row["no"] for row in rows if row["action"] is None}
    history = tuple(
        Act(row["person"], row["action"], row["subject"], row["case_id"], row["at"], row["actor"])
        for row in rows if row["action"] is not None
    )  # fmt: skip
    return Heads(numbers, history)


def _columns(rows: Iterable[tuple[str, str, str]]) -> list[list[str]]:
    kept = list(rows)
    return [[row[n] for row in kept] for n in range(3)]


def _judged(
    command: Command, meant: Sequence[tuple[str, Deed]], heads: Heads
) -> list[tuple[int, Act]]:
    """The acts with their numbers; deeds of one command are judged against each other too."""
    done: list[tuple[int, Act]] = []
    numbers = dict(heads.numbers)
    for person, deed in meant:
        history = (*heads.history, *(act for _, act in done))
        hit = judge(history, person, deed.action, deed.subject, deed.case, command.at)
        if hit is not None:
            raise _refusal(deed, person, command, hit)
        numbers[person] += 1
        act = Act(
            person, deed.action, deed.subject, deed.case, command.at, command.caller.person
        )  # fmt: skip
        done.append((numbers[person], act))
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
    command: Command, done: Sequence[tuple[int, Act]], approval: str
) -> tuple[Change, ...]:
    caller = command.caller
    return tuple(
        Change(
            ACT,
            (
                f"{no}:{act.person}", act.person, no, act.action, act.subject, act.case, act.at,
                act.actor, caller.role, caller.grant_id, approval, command.correlation,
            ),
        )
        for no, act in done
    )  # fmt: skip
