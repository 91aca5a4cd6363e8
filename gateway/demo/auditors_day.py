"""Scenario 7: an auditor reviews what people did, takes it home, and checks it there.

Knows the story (broker.md DS-7): one user's day, one client's life, an export, its check without
us, a tampered byte, and an auditor who can change nothing and whose reading is itself on record.
Refuses to look behind the API and the command line, but where it shows that even the daemon's own
role cannot change a record.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import asyncpg

from gateway import audit_check
from gateway.demo import people
from gateway.demo.api import Api
from gateway.demo.children import PROGRAM
from gateway.demo.daemons import ANCHOR_PUBLIC, ANCHORS
from gateway.demo.evidence import Evidence
from gateway.demo.people import Person
from gateway.demo.queries import CHANGE_A_RECORD, REMOVE_A_RECORD
from gateway.demo.world import ANALYST, AUDITOR, World

SAYS: Final = "an auditor reviews a full record of user actions"
PURPOSE: Final = "yearly review of onboarding"
LOOK: Final = f"/v1/audit?purpose={PURPOSE.replace(' ', '%20')}"
REFUSED: Final = "duty-conflict"
SEALED_LIMIT_S: Final = 60.0
POLL_S: Final = 0.5
CLIENTS: Final = (
    Person(reference="audit-1", brand="northgate", country="DE", currency="EUR", risk="low"),
    Person(reference="audit-2", brand="southbank", country="BR", currency="USD", risk="low"),
)
# What an auditor might try to change; none of it may even be looked at.
WRITES: Final = (
    ("POST", "/v1/clients", {"reference": "x", "brand": "northgate", "country": "DE",
                             "currency": "EUR", "risk_band": "low"}),
    ("POST", "/v1/clients/{client}/moves",
     {"to": "restricted", "expected_version": 1, "reason": "none", "blocks": ["deposit"]}),
    ("POST", "/v1/deposits", {"client": "{client}", "method": "card", "to": "wallet",
                              "amount": {"amount": "10.00", "currency": "EUR"}}),
    ("POST", "/v1/approvals/{approval}/decide", {"decision": "approve", "reason": "none"}),
)  # fmt: skip
# What a record says: who, as what, what, on what, when, why, from where.
SAID: Final = ("actor", "role", "command", "subject", "at", "reason", "correlation", "key")


async def play(world: World, evidence: Evidence, environ: Mapping[str, str]) -> None:
    """The whole day; each step adds to the evidence."""
    known = await people.settle_in(world.desk, CLIENTS)
    client = known[0].id
    approval = await _refused(world, evidence, client)
    await _user(world, evidence)
    last = await _client(world, evidence, client)
    await _cannot_change(world.auditor, evidence, {"client": client, "approval": approval})
    await _fixed(world, evidence, last)
    await _watched(world, evidence)
    export = await _exported(world, evidence, environ)
    await _checked(evidence, export)


async def _refused(world: World, evidence: Evidence, client: str) -> str:
    """Somebody asks for a lift and tries to agree to it; the id of the question."""
    found = await world.desk.portal.get(f"/v1/clients/{client}")
    await people.move(world.desk, found, "restricted", ("deposit",))
    found = await world.desk.portal.get(f"/v1/clients/{client}")
    order = {"to": people.PATH[-1], "expected_version": found["version"], "reason": "all is well"}
    asked = await world.desk.compliance.send("POST", f"/v1/clients/{client}/moves", order)
    decision = {"decision": "approve", "reason": "I asked for it myself"}
    approval = str((asked.body or {}).get("id", ""))
    told = await world.desk.compliance.send("POST", f"/v1/approvals/{approval}/decide", decision)
    evidence.step(
        "maker-as-checker", "whoever asked may not decide, and the attempt is on record",
        wanted=[202, REFUSED], found=[asked.status, (told.body or {}).get("code")],
        whole=told.body,
    )  # fmt: skip
    return approval


async def _user(world: World, evidence: Evidence) -> None:
    """All that one person did today."""
    records = await _read(world, f"person={ANALYST}")
    complete = all(each[name] for each in records for name in SAID)
    evidence.step(
        "a-users-day", f"everything that {ANALYST} did, each with who, as what, what, when and why",
        wanted=[{ANALYST}, True], found=[{each["actor"] for each in records}, complete],
        whole=records,
    )  # fmt: skip


async def _client(world: World, evidence: Evidence, client: str) -> str:
    """All that was done to one client, whoever did it; the id of the newest record."""
    records = await _read(world, f"client={client}")
    commands = {each["command"] for each in records}
    wanted = {"client.create", "client.move", "approval.decide"}
    refused = [each for each in records if REFUSED in str(each["after"])]
    evidence.step(
        "a-clients-life", "from the lead to trading: every act, the refused one among them",
        wanted=[sorted(wanted), 1],
        found=[sorted(wanted & commands), len(refused)],
        whole=records,
    )  # fmt: skip
    return str(records[0]["id"])


async def _cannot_change(auditor: Api, evidence: Evidence, ids: Mapping[str, str]) -> None:
    """Every attempt to change something is refused before it is looked at."""
    found = []
    for method, path, body in WRITES:
        order = {name: _filled(value, ids) for name, value in body.items()}
        told = await auditor.send(method, str(_filled(path, ids)), order)
        found.append([f"{method} {path}", told.status, (told.body or {}).get("code")])
    evidence.step(
        "an-auditor-changes-nothing", "no command is the auditor's, and no record has one at all",
        wanted=[[f"{method} {path}", 403, "forbidden"] for method, path, _ in WRITES], found=found,
    )  # fmt: skip


def _filled(value: object, ids: Mapping[str, str]) -> object:
    return value.format(**ids) if isinstance(value, str) else value


async def _fixed(world: World, evidence: Evidence, record: str) -> None:
    """The daemon's own role cannot change a record or take one away."""
    conn = await asyncpg.connect(world.dsn)
    found = []
    try:
        for statement in (CHANGE_A_RECORD, REMOVE_A_RECORD):
            try:
                await conn.execute(statement, record)
                found.append("done")
            except asyncpg.PostgresError as error:
                found.append(error.sqlstate)
    finally:
        await conn.close()
    evidence.step(
        "records-are-facts", "SQL as the daemon's role is refused by the server (42501)",
        wanted=["42501", "42501"], found=found,
    )  # fmt: skip


async def _watched(world: World, evidence: Evidence) -> None:
    """The looking stands in the audit like any other act."""
    records = await _read(world, f"person={AUDITOR}&command=audit.read")
    evidence.step(
        "reading-is-on-record", "who looked into the audit, at what, and for what purpose",
        wanted=[{AUDITOR}, {PURPOSE}, True],
        found=[
            {each["actor"] for each in records}, {each["reason"] for each in records},
            len(records) >= 2,
        ],
        whole=records,
    )  # fmt: skip


async def _read(world: World, asked: str) -> list[dict[str, Any]]:
    """Every sealed record that was asked for, newest first, once what was done by now is sealed."""
    await _sealed(world)
    query = f"{LOOK}&limit=100&{asked}"
    records: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        page = await world.auditor.get(f"{query}&after={after}")
        records += page["data"]
        after = page["next"]
    return records


async def _sealed(world: World) -> None:
    """Wait until a record that is written now is sealed: then all before it are."""
    mark = f"{LOOK}&limit=1&person={AUDITOR}"
    since = (await _newest(world, mark)) or 0
    async with asyncio.timeout(SEALED_LIMIT_S):
        while ((await _newest(world, mark)) or 0) <= since:
            await asyncio.sleep(POLL_S)


async def _newest(world: World, query: str) -> int | None:
    page = await world.auditor.get(query)
    return page["data"][0]["no"] if page["data"] else None


async def _exported(world: World, evidence: Evidence, environ: Mapping[str, str]) -> Path:
    """The whole audit, written by the command line; with the anchors and the public key beside."""
    export = evidence.folder / "audit.jsonl"
    await _anchored(world)
    status, said = await _run(
        (*PROGRAM, "audit", "export", "--out", str(export), "--reason", PURPOSE,
         "--config", str(world.settings)),
        environ,
    )  # fmt: skip
    for name in (ANCHORS, ANCHOR_PUBLIC):
        shutil.copyfile(world.settings.parent / name, evidence.folder / name)
    evidence.step("export", "the audit with its proof, as a file", wanted=0, found=status,
                  whole={"said": said})  # fmt: skip
    return export


async def _anchored(world: World) -> None:
    """Wait for an anchor that is younger than everything so far."""
    anchors = world.settings.parent / ANCHORS
    before = anchors.stat().st_size if anchors.exists() else 0
    async with asyncio.timeout(SEALED_LIMIT_S):
        while not anchors.exists() or anchors.stat().st_size <= before:
            await asyncio.sleep(POLL_S)


async def _checked(evidence: Evidence, export: Path) -> None:
    """The check needs one copied file, and names the record in which one byte was changed."""
    alone = evidence.folder / "audit_check.py"
    shutil.copyfile(audit_check.__file__, alone)
    status, said = await _check(alone, export)
    evidence.step("offline-check", "it holds, by a program that knows nothing of the product",
                  wanted=0, found=status, whole={"said": said})  # fmt: skip
    tampered, no = _tampered(export)
    status, said = await _check(alone, tampered)
    evidence.step(
        "one-byte", f"one byte of record {no} is changed: it is named",
        wanted=[True, True], found=[status != 0, f"record {no}:" in said], whole={"said": said},
    )  # fmt: skip


async def _check(program: Path, export: Path) -> tuple[int, str]:
    folder = program.parent
    return await _run(
        (sys.executable, "-I", str(program), str(export), "--anchors", str(folder / ANCHORS),
         "--public-key", str(folder / ANCHOR_PUBLIC)),
        {},
    )  # fmt: skip


def _tampered(export: Path) -> tuple[Path, int]:
    """A copy in which one letter of a reason differs, and the number of that record."""
    lines = export.read_text().splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if "all is in order" in line)
    lines[place] = lines[place].replace("all is in order", "all is in Order", 1)
    tampered = export.with_name("audit-tampered.jsonl")
    tampered.write_text("".join(lines))
    return tampered, int(lines[place].partition('"no":')[2].partition(",")[0])


async def _run(arguments: tuple[str, ...], environ: Mapping[str, str]) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT, env=dict(environ),
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()
