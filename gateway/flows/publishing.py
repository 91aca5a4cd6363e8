"""Changing the rulebook: drafted by one person, agreed to by others, in force at a time.

Knows who may draft and agree to what a version changes, and the units of these commands. Refuses to
know how a version takes effect (`control/versions.py`) and what a value means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Final

import asyncpg
import msgspec

from config.difference import differences, parts
from config.findings import Finding
from config.load import read_document
from config.rulebook import Rulebook
from gateway.control import acts, approvals, areas, obstacles, versions
from gateway.control import rulebook as rulebooks
from gateway.control.access import Tags
from gateway.control.acts import Deed
from gateway.control.approvals import Approval
from gateway.control.areas import AREAS, Area
from gateway.control.audit import Command, audited
from gateway.control.idempotency import Answer, Idem
from gateway.control.policies import Matter
from gateway.control.refusals import Refusal, not_found
from gateway.control.rules import Compiled, RulebookMoved, Rules
from gateway.control.versions import State, Version
from gateway.control.views import approval_view
from gateway.control.views_rulebook import DraftRulebook, PublishRulebook, version_view
from gateway.flows.approving import Applier, Emit, InUnit, Lane, answered_claim, replayed
from ledger.ids import Ids
from ledger.units import Change, Done, Left, Unit, Why

TRIES_MAX: Final = 5
ONLY_MAKER: Final = 25  # number in `duties.CONFLICTS`

Reached = Callable[[Rulebook], Sequence[Finding]]


class Publishing:
    """Commands on versions of the rulebook.

    reached  what the settings of this process do not reach of a rulebook's peers
    machine  whoever calls sits at the machine itself, and may draft anything; nobody there agrees
    """

    def __init__(
        self,
        lane: Lane,
        pool: asyncpg.Pool,
        rules: Rules,
        ids: Ids,
        emit: Emit,
        now: Callable[[], datetime],
        reached: Reached,
        *,
        machine: bool = False,
    ) -> None:
        self._lane = lane
        self._pool = pool
        self._rules = rules
        self._ids = ids
        self._emit = emit
        self._now = now
        self._reached = reached
        self._machine = machine

    @property
    def appliers(self) -> dict[str, Applier]:
        """What agreeing to a change of each area does."""
        return {
            area.kind: InUnit(partial(self._agreed, area), partial(_agreeing, area))
            for area in AREAS.values()
        }

    # --- drafting -------------------------------------------------------------------------------

    async def draft(self, command: Command, order: DraftRulebook, idem: Idem) -> Answer:
        """Store a new version and what every room finds wrong with it: 201.

        Raises Refusal `rulebook-unreadable`, `rulebook-same`, `forbidden`, `not-found`,
        `reason-missing`, `duty-conflict`, `rulebook-moved`.
        """
        approvals.need_reason(command)
        for _ in range(TRIES_MAX):
            rules = self._rules.require()
            async with self._pool.acquire() as conn:
                if (answer := await replayed(conn, idem, command.at)) is not None:
                    return answer
                book = await self._content(conn, order)
            version = await asyncio.to_thread(self._version, command, order, rules, book)
            self._need(command, version)
            done = await self._judged(command, "rulebook.draft", version, _drafting(version))
            view = version_view(version)
            answer = Answer(201, msgspec.json.encode(view), _place(version))
            left = await self._lane.submit(
                Unit(
                    (
                        rules.check,
                        answered_claim(idem, version.id, command, answer),
                        *versions.drafted(version, book.source),
                        *done,
                        self._audited(command, "rulebook.draft", version),
                    )
                )
            )
            if isinstance(left, Done):
                return answer
            if not acts.overtaken(left) and not await self._rules.again(left, rules):
                return await self._other_answer(left, idem)
        raise RulebookMoved

    async def _content(self, conn: asyncpg.Connection, order: DraftRulebook) -> Rulebook:
        if (order.document is None) == (order.restores is None):
            raise Refusal("rulebook-unreadable", "name a document, or the number of an earlier one")
        if order.restores is not None:
            return await rulebooks.stored(conn, await versions.numbered(conn, order.restores))
        assert order.document is not None
        book, findings = await asyncio.to_thread(read_document, order.document)
        if book is None:
            said = {"findings": msgspec.to_builtins(versions.found(findings))}
            raise Refusal("rulebook-unreadable", "it is not written as a rulebook", said)
        return book

    def _version(
        self, command: Command, order: DraftRulebook, rules: Compiled, book: Rulebook
    ) -> Version:
        """The version this content is, checked by every room. Raises Refusal `rulebook-same`."""
        if book.hash == rules.hash:
            raise Refusal("rulebook-same", "these rules are in force already")
        changed = parts(differences(rules.book.source, book.source))
        findings = [
            *rulebooks.findings_of(book), *obstacles.never(rules.book, book), *self._reached(book),
        ]  # fmt: skip
        return Version(
            id=self._ids.new("RV"), version=1,
            state=State.DRAFT if findings else State.CHECKED, hash=book.hash, base=rules.hash,
            areas=areas.of_parts(changed), findings=versions.found(findings),
            restart=bool(obstacles.needs_restart(rules.book, book)),
            author=command.caller.person, author_role=command.caller.role, reason=command.reason,
            restores=order.restores, correlation=command.correlation, created=command.at,
        )  # fmt: skip

    def _need(self, command: Command, version: Version) -> None:
        """Each area is drafted by whoever may; the rulebook is of the whole house."""
        if self._machine:
            return
        for name in version.areas:
            if not command.caller.narrowed(AREAS[name].drafts).reaches(Tags()):
                said = "the rulebook is of the whole house, your grants are of a part of it"
                raise Refusal("forbidden", said, {"scope": AREAS[name].drafts})

    # --- asking ---------------------------------------------------------------------------------

    async def publish(
        self, command: Command, version_id: str, order: PublishRulebook, idem: Idem
    ) -> Answer:
        """Ask other people to agree, one question for each area it changes: 202 with the version.

        Asked again, it asks anew where a question was refused, withdrawn or not decided in time.
        Raises Refusal `not-found`, `version-state`, `base-moved`, `effective-in-past`,
        `approval-open`, `forbidden`, `reason-missing`, `duty-conflict`, `rulebook-moved`.
        """
        approvals.need_reason(command)
        for _ in range(TRIES_MAX):
            rules = self._rules.require()
            async with self._pool.acquire() as conn:
                if (answer := await replayed(conn, idem, command.at)) is not None:
                    return answer
                version = await self._known(conn, version_id)
                self._need(command, version)
                after = _asked(version, order, rules, command.at)
                missing = [AREAS[name] for name in version.areas if name not in version.agreed]
                asked = [self._question(command, rules, version, area) for area in missing]
                deeds = [deed for area in missing for deed in _deeds(area.draft, version.id)]
            done = await self._judged(command, "rulebook.publish", version, deeds)
            answer = Answer(202, msgspec.json.encode(version_view(after)), _place(version))
            left = await self._lane.submit(
                Unit(
                    (
                        rules.check,
                        answered_claim(idem, version.id, command, answer),
                        *versions.moved(version, after, "asked", command),
                        *(change for each in asked for change in each),
                        *done,
                        self._audited(command, "rulebook.publish", after),
                    )
                )
            )
            if isinstance(left, Done):
                return answer
            if left.kind == approvals.ASK.name:
                facts = {"approval": (left.found or {}).get("id")}
                raise Refusal("approval-open", "other people are asked already", facts)
            again = acts.overtaken(left) or left.kind == versions.MOVE.name
            if not again and not await self._rules.again(left, rules):
                return await self._other_answer(left, idem)
        raise RulebookMoved

    def _question(
        self, command: Command, rules: Compiled, version: Version, area: Area
    ) -> tuple[Change, ...]:
        matter = Matter(
            kind=area.kind, subject=version.id, payload={"area": area.said, "hash": version.hash}
        )
        policy = rules.policies.of(matter)
        approval = approvals.asked(self._ids.new("AP"), command, policy, matter)
        body = msgspec.json.encode(approval_view(approval, command.at))
        return (
            *approvals.approval_asked(approval),
            self._emit(
                approval.maker_owner, "approval.asked", approval.id, body, command.correlation
            ),
        )

    async def _agreed(
        self, area: Area, conn: asyncpg.Connection, approval: Approval, command: Command
    ) -> Sequence[Change]:
        """Others agreed to what a version changes in one area; with the last it waits for its time.

        Raises Refusal `approval-stale`, `base-moved`, `duty-conflict`.
        """
        version = await self._known(conn, approval.subject)
        if version.state is not State.ASKED:
            raise Refusal("approval-stale", f"the version is {version.state.value} now")
        rules = self._rules.require()
        _require_base(version, rules)
        if area.said == areas.DEFAULT:
            await self._require_others(conn, rules, version, command)
        agreed = tuple(sorted({*version.agreed, area.said}))
        whole = set(agreed) >= set(version.areas)
        after = msgspec.structs.replace(
            version, agreed=agreed, approvals=(*version.approvals, approval.id),
            state=State.APPROVED if whole else State.ASKED,
        )  # fmt: skip
        return rules.check, *versions.moved(version, after, "agreed", command)

    async def _require_others(
        self, conn: asyncpg.Connection, rules: Compiled, version: Version, command: Command
    ) -> None:
        """Who is the only maker of the cases that a policy decides does not publish the policy."""
        after = await rulebooks.source(conn, version.hash)
        found = differences(rules.book.source, after)
        kinds = {
            str(side["kind"])
            for each in found if each.part == "approval"
            for side in (each.before, each.after) if isinstance(side, dict)
        }  # fmt: skip
        makers = await approvals.makers(conn, sorted(kinds)) if kinds else []
        if makers == [command.caller.person]:
            said = "you are the only maker of the cases that this changes"
            raise Refusal("duty-conflict", said, {"conflict": ONLY_MAKER})

    # --- taking back ----------------------------------------------------------------------------

    async def withdraw(self, command: Command, version_id: str, idem: Idem) -> Answer:
        """Take a version back before it is in force: 200. What was asked about it is void.

        Raises Refusal `not-found`, `version-state`, `forbidden`, `reason-missing`.
        """
        approvals.need_reason(command)
        async with self._pool.acquire() as conn:
            if (answer := await replayed(conn, idem, command.at)) is not None:
                return answer
            version = await self._known(conn, version_id)
        self._need(command, version)
        if not version.open:
            raise _in_state(version)
        after = msgspec.structs.replace(version, state=State.WITHDRAWN)
        answer = Answer(200, msgspec.json.encode(version_view(after)))
        left = await self._lane.submit(
            Unit(
                (
                    answered_claim(idem, version.id, command, answer),
                    *versions.moved(version, after, "withdrawn", command),
                    self._audited(command, "rulebook.withdraw", after),
                )
            )
        )
        return answer if isinstance(left, Done) else await self._other_answer(left, idem)

    # --- what they share ------------------------------------------------------------------------

    async def _known(self, conn: asyncpg.Connection, version_id: str) -> Version:
        version = await versions.find(conn, version_id)
        if version is None:
            raise not_found("version of the rulebook", version_id)
        return version

    async def _judged(
        self, command: Command, name: str, version: Version, deeds: Sequence[Deed]
    ) -> Sequence[Change]:
        """The acts that a command is; a refusal is audited."""
        try:
            async with self._pool.acquire() as conn:
                return await acts.acted(conn, command, *deeds)
        except Refusal as no:
            await self._tried(command, name, version.id, no)
            raise

    async def _tried(self, command: Command, name: str, subject: str, no: Refusal) -> None:
        """Leave the trace of an attempt that is refused."""
        tried = {"refused": no.code, **no.facts}
        row = audited(command, name, subject, self._ids.new("AU"), after=tried)
        await self._lane.submit(Unit((row,)))

    def _audited(self, command: Command, name: str, version: Version) -> Change:
        after = {
            "hash": version.hash, "base": version.base, "areas": version.areas,
            "state": version.state, "effective_at": version.effective_at,
            "restores": version.restores, "findings": len(version.findings),
        }  # fmt: skip
        return audited(command, name, version.id, self._ids.new("AU"), after=after)

    async def _other_answer(self, left: Left, idem: Idem) -> Answer:
        async with self._pool.acquire() as conn:
            if (answer := await replayed(conn, idem, self._now())) is not None:
                return answer
        if left.why is Why.STALE:
            raise Refusal("version-conflict", "it changed while this command was under way")
        raise Refusal("conflict", f"left out: {left.why.value} {left.kind}")


def _asked(version: Version, order: PublishRulebook, rules: Compiled, at: datetime) -> Version:
    """The version once others are asked; raises Refusal where they cannot be."""
    if version.state not in (State.CHECKED, State.ASKED):
        raise _in_state(version)
    _require_base(version, rules)
    if order.effective_at is not None and order.effective_at < at:
        raise Refusal("effective-in-past", "what happened was decided by the rules of its time")
    return msgspec.structs.replace(
        version, state=State.ASKED, asked=at, effective_at=order.effective_at
    )


def _require_base(version: Version, rules: Compiled) -> None:
    if version.base != rules.hash:
        said = "another rulebook is in force than the one it was drafted on: draft it again"
        raise Refusal("base-moved", said, {"in_force": rules.hash})


def _in_state(version: Version) -> Refusal:
    said = f"the version is {version.state.value}"
    return Refusal("version-state", said, {"state": version.state.value})


def _drafting(version: Version) -> list[Deed]:
    return [deed for name in version.areas for deed in _deeds(AREAS[name].draft, version.id)]


def _agreeing(area: Area, approval: Approval) -> Sequence[Deed]:
    """The case is the version: who drafted any of it agrees to none of it."""
    return _deeds(area.publish, approval.subject)


def _deeds(action: str, version_id: str) -> list[Deed]:
    return [Deed(action, version_id, version_id)]


def _place(version: Version) -> str:
    return f"/v1/rulebook/versions/{version.id}"
