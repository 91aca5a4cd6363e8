"""The seal on a real database: its order, its anchors, and what an owner of it cannot hide.

Acts are written as the product writes them; tampering is done as the owner of the schemas could,
with the triggers switched off.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from gateway import queries as gateway_queries
from gateway import verify
from gateway.audit_check import Broken, Verdict, check
from gateway.cli import cli
from gateway.control import audit, keys, sealing
from gateway.control.audit import Command, Concerns, audited
from gateway.control.exporting import Asked, Exporting, first_bad
from gateway.control.sealing import Anchorer, AnchorFile, AnchorLine, Sealer, Signer, new_key
from ledger.ids import Ids
from tests.support.servers import Database

START = datetime(2026, 11, 22, 10, tzinfo=UTC)
IDS = Ids(lambda: time.time_ns() // 1_000_000, os.urandom)


class Owned:
    """The one who seals."""

    name = "control"
    epoch = 1


@dataclass
class Sealed:
    """An audit with its sealer and its anchorer, whose clock each act moves by a second."""

    database: Database
    pool: asyncpg.Pool
    owner: asyncpg.Connection
    file: Path
    sealer: Sealer = field(init=False)
    anchorer: Anchorer = field(init=False)
    signer: Signer = field(default_factory=lambda: Signer(new_key()))
    seconds: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        """Put them together as the daemon does."""
        self.sealer = Sealer(self.pool, Owned(), self.now)
        self.anchorer = Anchorer(
            self.pool, Owned(), self.signer, AnchorFile(self.file), [], 60.0, self.now
        )

    def now(self) -> datetime:
        """A clock that goes on by itself."""
        return START + timedelta(seconds=next(self.seconds))

    def row(self, person: str = "ann", client: str = "CL1", reason: str = "é\u2028 why") -> object:
        """An act of a person on a client."""
        command = Command(keys.operator(person), reason, "CR1", self.now())
        concerns = Concerns(entity="fx-eu", brand="northgate", client=client)
        after = {"amount": "1.10", "text": 'a "quoted" \u2603'}
        return audited(
            command, "client.move", client, IDS.new("AU"), after=after, concerns=concerns,
            approvals=("AP1", "AP2"),
        )  # fmt: skip

    async def act(self, person: str = "ann", client: str = "CL1") -> None:
        """One act in a transaction of its own."""
        async with self.pool.acquire() as conn, conn.transaction():
            await audit.write(conn, [self.row(person, client)])

    async def round(self, *people: str) -> AnchorLine:
        """An act of each, then a seal and an anchor."""
        for person in people:
            await self.act(person, f"CL-{person}")
        await self.sealer.seal()
        made = await self.anchorer.anchor()
        assert made is not None, self.anchorer.trouble()
        return made

    async def export(self, **asked: object) -> list[str]:
        """The lines of an export."""
        async with self.pool.acquire() as conn:
            exporting = Exporting(conn, Asked(**asked), self.now())
            return [line async for line in exporting.lines()]

    async def verdict(self, **asked: object) -> Verdict:
        """What the stand-alone verifier says of an export made now."""
        return self.judge(await self.export(**asked))

    def judge(self, lines: Sequence[str]) -> Verdict:
        """What it says of these lines."""
        key = load_pem_public_key(self.signer.public().encode())
        return check(lines, self.file.read_text().splitlines(), key)

    async def tamper(self, *statements: str) -> None:
        """As the owner of the database: triggers off, rows changed, triggers on."""
        tables = ("audit", "audit_seal", "audit_anchor")
        for table in tables:
            await self.owner.execute(f"ALTER TABLE gateway.{table} DISABLE TRIGGER ALL")
        for statement in statements:
            await self.owner.execute(statement)
        for table in tables:
            await self.owner.execute(f"ALTER TABLE gateway.{table} ENABLE TRIGGER ALL")


@pytest_asyncio.fixture
async def sealed(
    database: Database, pool: asyncpg.Pool, tmp_path: Path
) -> AsyncIterator[Sealed]:  # fmt: skip
    """An empty audit that this test owns the seal of."""
    await pool.execute(gateway_queries.NEW_EPOCH, "control", "tests")
    owner = await database.connect(owner=True)
    yield Sealed(database, pool, owner, tmp_path / "anchors.jsonl")


async def people_in_order(pool: asyncpg.Pool) -> list[str]:
    """Whose acts are sealed, in the order of the chain."""
    rows = await pool.fetch("SELECT actor FROM gateway.audit_seal ORDER BY no")
    return [row["actor"] for row in rows]


async def test_nothing_is_sealed_above_the_oldest_running_writer(sealed: Sealed) -> None:
    """A record that was written earlier and committed later still gets its place below."""
    slow = await sealed.database.connect()
    async with slow.transaction():
        await audit.write(slow, [sealed.row("slow")])
        await sealed.act("quick")
        assert await sealed.sealer.seal() == 0
    await sealed.act("last")

    assert await sealed.sealer.seal() == 3
    assert await people_in_order(sealed.pool) == ["slow", "quick", "last"]
    async with sealed.pool.acquire() as conn, conn.transaction():
        assert await first_bad(conn) is None


async def test_a_writer_that_gives_up_leaves_no_gap(sealed: Sealed) -> None:
    """Numbers are given at sealing: a rolled-back record never had one."""
    quitter = await sealed.database.connect()
    given_up = quitter.transaction()
    await given_up.start()
    await audit.write(quitter, [sealed.row("quitter")])
    await sealed.act("ann")
    await given_up.rollback()

    assert await sealed.sealer.seal() == 1
    assert await people_in_order(sealed.pool) == ["ann"]


async def test_many_writers_at_once_are_sealed_once_each_and_in_cause_and_effect(
    sealed: Sealed,
) -> None:
    """Whoever acts after another act was acknowledged stands behind it in the chain."""

    async def acts(person: str) -> None:
        for _ in range(20):
            await sealed.act(person)

    async def seals() -> None:
        while True:
            await sealed.sealer.seal()
            await asyncio.sleep(0)

    sealing_too = asyncio.create_task(seals())
    await asyncio.gather(*[acts(f"p{n}") for n in range(4)])
    sealing_too.cancel()
    await asyncio.gather(sealing_too, return_exceptions=True)
    while await sealed.sealer.seal():
        pass

    rows = await sealed.pool.fetch("SELECT no, actor, at FROM gateway.audit_seal ORDER BY no")
    assert [row["no"] for row in rows] == list(range(1, 81))
    for person in range(4):
        mine = [row["at"] for row in rows if row["actor"] == f"p{person}"]
        assert mine == sorted(mine)
    async with sealed.pool.acquire() as conn, conn.transaction():
        assert await first_bad(conn) is None


async def test_who_lost_the_work_seals_and_anchors_nothing(sealed: Sealed) -> None:
    """Another replica's epoch is in force: both are refused in the commit itself."""
    await sealed.round("ann")
    await sealed.act()
    await sealed.pool.execute(gateway_queries.NEW_EPOCH, "control", "other")

    with pytest.raises(ConnectionError):
        await sealed.sealer.seal()
    with pytest.raises(ConnectionError):
        await sealed.anchorer.anchor()
    assert await sealed.pool.fetchval("SELECT count(*) FROM gateway.audit_seal") == 1
    assert await sealed.pool.fetchval("SELECT count(*) FROM gateway.audit_anchor") == 1


async def test_records_copied_into_a_younger_server_are_sealed_on(sealed: Sealed) -> None:
    """Its transactions count from the beginning: what came along is sealed, and what is new."""
    await sealed.act("old")
    await sealed.sealer.seal()
    far = "(pg_current_xact_id()::text::bigint + 1000000)::text::xid8"
    await sealed.tamper(
        f"UPDATE gateway.audit SET xid = {far}", f"UPDATE gateway.audit_seal SET xid = {far}"
    )
    await sealed.act("unsealed")
    await sealed.tamper(f"UPDATE gateway.audit SET xid = {far} WHERE actor = 'unsealed'")
    await sealed.act("new")

    while await sealed.sealer.seal():
        pass

    assert await people_in_order(sealed.pool) == ["old", "unsealed", "new"]
    for person in ("newer", "newest"):
        await sealed.act(person)
        assert await sealed.sealer.seal() == 1
    here = "(pg_current_xact_id()::text::bigint)::text::xid8"
    await sealed.tamper(  # the server's own count has reached that of the copy
        f"UPDATE gateway.audit SET xid = {here} WHERE actor IN ('old', 'unsealed')",
        f"UPDATE gateway.audit_seal SET xid = {here} WHERE actor IN ('old', 'unsealed')",
    )
    await sealed.act("last")
    assert await sealed.sealer.seal() == 1
    async with sealed.pool.acquire() as conn, conn.transaction():
        assert await first_bad(conn) is None


# --- exports ------------------------------------------------------------------------------------


async def test_an_export_of_everything_holds(sealed: Sealed) -> None:
    """Records, seals and anchors agree; what came since the last anchor is named."""
    await sealed.round("ann", "bob")
    await sealed.round()
    await sealed.round("eve")
    await sealed.act("late")
    await sealed.sealer.seal()

    verdict = await sealed.verdict()

    assert (verdict.shown, verdict.covered, verdict.last, verdict.anchors) == (4, 3, 4, 3)


PARTS: Sequence[tuple[dict[str, object], int, int, int]] = (
    ({"person": "bob"}, 1, 1, 4),
    ({"client": "CL-eve"}, 1, 2, 3),
    ({"subject": "CL-nobody"}, 0, 0, 6),
    ({"since": START, "until": START + timedelta(seconds=2)}, 2, 0, 0),
    ({"since": START + timedelta(seconds=6), "person": "ann"}, 1, 2, 3),
    ({"person": "ann"}, 2, 3, 1),
)


async def test_a_part_holds_and_shows_nothing_else(sealed: Sealed) -> None:
    """By person, client, object and period; intervals without any of it are left out."""
    await sealed.round("ann", "bob")
    await sealed.round("cid")
    await sealed.round("eve", "ann", "dan")

    exports = [await sealed.export(**asked) for asked, *_ in PARTS]
    await sealed.round("later")  # what is anchored since takes nothing from an export made before

    for lines, (asked, *wanted) in zip(exports, PARTS, strict=True):
        verdict = sealed.judge(lines)
        assert [verdict.shown, verdict.withheld, verdict.skipped] == wanted, asked
    assert "CL-ann" not in "".join(exports[0])


# What an owner of the database may try on record {}: it is named with its number. There are nine
# records, with anchors at 3, 6 and 9.
OF = "(SELECT audit_id FROM gateway.audit_seal WHERE no = {})"
INSERTED = (
    "INSERT INTO gateway.audit (id, at, actor, role, on_behalf_of, command, subject, reason, "
    "correlation, key_id) SELECT 'AUinserted', at, 'mallory', role, on_behalf_of, command, "
    "subject, reason, correlation, key_id FROM gateway.audit LIMIT 1"
)
SEAL_INSERTED = (
    "INSERT INTO gateway.audit_seal SELECT {}, 'AUinserted', xid, hash, sealed, at, actor, "
    "subject, client FROM gateway.audit_seal WHERE no = {} - 1"
)
TAMPERED = {
    "a reason": ["UPDATE gateway.audit SET reason = reason || '.' WHERE id = " + OF],
    "a byte of after": [
        "UPDATE gateway.audit SET after = jsonb_set(after, '{amount}', '\"1.1\"') WHERE id = " + OF
    ],
    "an approval": ["UPDATE gateway.audit SET approvals = '{AP1}' WHERE id = " + OF],
    "the time": ["UPDATE gateway.audit SET at = at + interval '1 us' WHERE id = " + OF],
    "the record is deleted": ["DELETE FROM gateway.audit WHERE id = " + OF],
    "the seal is deleted": ["DELETE FROM gateway.audit_seal WHERE no = {}"],
    "both are deleted, the rest numbered anew": [
        "DELETE FROM gateway.audit WHERE id = " + OF,
        "DELETE FROM gateway.audit_seal WHERE no = {}",
        "UPDATE gateway.audit_seal SET no = no + 100 WHERE no > {}",
        "UPDATE gateway.audit_seal SET no = no - 101 WHERE no > 100",
    ],
    "one is inserted": [
        "UPDATE gateway.audit_seal SET no = no + 100 WHERE no >= {}",
        "UPDATE gateway.audit_seal SET no = no - 99 WHERE no > 100",
        INSERTED,
        SEAL_INSERTED,
    ],
    "two change places": [
        "CREATE TEMP TABLE was AS SELECT * FROM gateway.audit_seal WHERE no IN ({}, {} + 1)",
        "UPDATE gateway.audit_seal SET audit_id = audit_id || 'x' WHERE no IN ({}, {} + 1)",
        (
            "UPDATE gateway.audit_seal s SET audit_id = was.audit_id FROM was "
            "WHERE s.no IN ({}, {} + 1) AND s.no + was.no = 2 * {} + 1"
        ),
    ],
}


# What the comparison of rows finds beside the chain itself.
FOUND_TOO = {
    "the time": {"seal-off-record"},
    "the seal is deleted": {"record-unsealed"},
}


async def test_what_is_done_to_a_record_is_named(sealed: Sealed) -> None:
    """By the verifier and by `brokerd verify`'s own look at the chain, each with its number."""
    for people in ("abc", "def", "ghi"):
        await sealed.round(*people)
    assert (await sealed.verdict()).covered == 9

    for what, statements in TAMPERED.items():
        for no in (2, 6, 8):
            undone = sealed.owner.transaction(isolation="repeatable_read")
            await undone.start()
            await sealed.tamper(*[each.replace("{}", str(no)) for each in statements])
            exporting = Exporting(sealed.owner, Asked(), sealed.now())
            with pytest.raises(Broken) as broken:
                sealed.judge([line async for line in exporting.lines()])
            assert broken.value.no == no, what
            found = {each.code: each.subject for each in await verify.sealed(sealed.owner)}
            assert found["seal-broken"] == str(no), what
            assert FOUND_TOO.get(what, set()) <= found.keys(), what
            await undone.rollback()

    await sealed.tamper("UPDATE gateway.audit_anchor SET count = 5 WHERE no = 2")
    async with sealed.owner.transaction():
        assert [each.code for each in await verify.sealed(sealed.owner)] == ["anchor-off"]


async def reseal(sealed: Sealed) -> None:
    """Make every hash and every stored anchor anew, as an owner with the sealer's code could."""
    await sealed.tamper("DELETE FROM gateway.audit_seal", "DELETE FROM gateway.audit_anchor")
    while await sealed.sealer.seal():
        pass


async def test_history_that_is_rewritten_whole_meets_its_anchor(sealed: Sealed) -> None:
    """The chain hangs together again; the anchors outside of the database do not agree."""
    for people in ("abc", "def", "ghi"):
        await sealed.round(*people)

    await sealed.tamper(f"UPDATE gateway.audit SET actor = 'x' WHERE id = {OF.format(5)}")
    await reseal(sealed)

    async with sealed.pool.acquire() as conn, conn.transaction():
        assert await first_bad(conn) is None
    with pytest.raises(Broken) as broken:
        await sealed.verdict()
    assert broken.value.no == 4  # the first behind the last anchor that still agrees
    assert await sealed.anchorer.anchor() is None
    assert "not the one that was anchored" in sealed.anchorer.trouble()


async def test_truncated_history_meets_its_anchor(sealed: Sealed) -> None:
    """Records removed with seals and stored anchors: the file still says how many there were."""
    for people in ("abc", "def"):
        await sealed.round(*people)
    await sealed.tamper(
        f"DELETE FROM gateway.audit WHERE id IN {OF.format('4 OR no > 4')}",
        "DELETE FROM gateway.audit_seal WHERE no >= 4",
        "DELETE FROM gateway.audit_anchor WHERE count > 3",
    )

    lines = await sealed.export()
    forged = lines[0].replace('"until":"2026', '"until":"2027')
    with pytest.raises(Broken) as broken:
        sealed.judge([forged, *lines[1:]])

    assert broken.value.no == 4
    assert await sealed.anchorer.anchor() is None, "nothing is anchored on top of it"
    assert "as it stood at 2026-11-22T10:00:0" in " ".join(sealed.judge(lines).notes)


# --- the command line ---------------------------------------------------------------------------


def brokerd(dsn: str, *arguments: str) -> tuple[int, str]:
    """Status and all output of one command; Click's runner must not run inside our loop."""
    environ = {
        "BROKERD_RULEBOOK__FOLDER": "config/demo", "BROKERD_CONTROL__PEPPER": "env:P", "P": "p",
        "BROKERD_DATABASE__DSN": "env:D", "D": dsn,
    }  # fmt: skip
    result = CliRunner().invoke(cli, arguments, env=environ)
    return result.exit_code, result.output


async def test_an_auditor_takes_an_export_and_checks_it(sealed: Sealed, tmp_path: Path) -> None:
    """A new pair of keys, an export with its reason on record, a tampered byte named."""
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    out, dsn = tmp_path / "audit.jsonl", sealed.database.daemon_dsn

    async def run(*arguments: str) -> tuple[int, str]:
        return await asyncio.to_thread(brokerd, dsn, "audit", *arguments)

    made = await run("new-key", "--private", str(private), "--public", str(public))
    again = await run("new-key", "--private", str(private), "--public", str(public))
    assert (made[0], again[0], private.stat().st_mode & 0o777) == (0, 1, 0o600)
    sealed.anchorer = Anchorer(
        sealed.pool, Owned(), Signer(private.read_text()), AnchorFile(sealed.file), [], 60.0,
        sealed.now,
    )  # fmt: skip
    await sealed.round("ann", "bob")

    asked = ("--out", str(out), "--person", "ann", "--from", "2026-01-01")
    unasked = await run("export", *asked, "--reason", " ")
    taken = await run("export", *asked, "--reason", "the audit of March")
    checks = ("--anchors", str(sealed.file), "--public-key", str(public))
    held = await run("verify", str(out), *checks)
    out.write_text(out.read_text().replace("northgate", "southgate"))
    broken = await run("verify", str(out), *checks)

    assert unasked[0] == 1
    assert "reason-missing" in unasked[1]
    assert taken == (0, f"{out}: 1 records\n")
    assert held[0] == 0, held[1]
    assert broken[0] == 1
    assert "First bad record: 1" in broken[1]
    row = await sealed.pool.fetchrow("SELECT * FROM gateway.audit WHERE command = 'audit.export'")
    assert row["reason"] == "the audit of March"
    assert '"person": "ann"' in row["after"]


# --- anchors ------------------------------------------------------------------------------------


async def test_a_place_that_fails_is_named_and_the_others_get_theirs(sealed: Sealed) -> None:
    """The file has the anchor; the trouble ends with the next one that reaches all."""
    fails = [True]

    async def place(anchor: AnchorLine) -> None:
        if fails:
            raise ConnectionError("nobody there")

    anchorer = Anchorer(
        sealed.pool, Owned(), sealed.signer, AnchorFile(sealed.file), [place], 60.0, sealed.now
    )
    await sealed.act()
    await sealed.sealer.seal()

    await anchorer.anchor()
    assert "nobody there" in anchorer.trouble()
    assert len(sealed.file.read_text().splitlines()) == 1
    fails.clear()
    await anchorer.anchor()
    assert anchorer.trouble() == ""
    assert (await sealed.verdict()).anchors == 2


async def test_a_line_that_a_crash_broke_off_spoils_no_other(sealed: Sealed) -> None:
    """The next anchor begins a line of its own, and is compared with the last whole one."""
    await sealed.round("ann")
    with sealed.file.open("a") as file:
        file.write('{"no":2,"count"')

    await sealed.round("bob")

    verdict = await sealed.verdict()
    assert (verdict.covered, verdict.anchors) == (2, 2)
    assert any("broken off" in note for note in verdict.notes)


async def test_anchors_never_go_back_in_time_or_number(sealed: Sealed) -> None:
    """Not with a clock that is behind, nor over a database that lost some."""
    await sealed.round("ann")
    behind = Anchorer(
        sealed.pool, Owned(), sealed.signer, AnchorFile(sealed.file), [], 60.0,
        lambda: START - timedelta(days=1),
    )  # fmt: skip
    await behind.anchor()
    await sealed.tamper("DELETE FROM gateway.audit_anchor")
    last = await sealed.anchorer.anchor()

    assert last is not None
    assert last.no == 3
    assert (await sealed.verdict()).anchors == 3


async def test_the_form_of_a_record_never_changes(sealed: Sealed) -> None:
    """What was sealed with an earlier version must hash the same for ever: a stored chain."""
    row = {
        "id": "AU1", "at": START, "actor": "ann", "role": "sales", "on_behalf_of": "", "brand": "b",
        "command": "client.move", "subject": "CL1", "before": None, "after": '{"a": 1}',
        "reason": "é", "correlation": "CR1", "key_id": "KY1", "session": "", "grant_id": "GR1",
        "approvals": ["AP1"], "entity": "e", "client": "CL1", "contract": "",
    }  # fmt: skip

    leaf = sealing.leaf_of(sealing.canonical(sealing.form(row)))

    assert (
        sealing.link(bytes(32), 1, leaf).hex()
        == "2b129874f43edf5510b8c83cac7b647286adaedb080795cac0231bc3b527ee2b"
    )
