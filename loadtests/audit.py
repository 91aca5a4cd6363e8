"""What sealing the audit costs, and how fast an auditor checks it offline.

Records are written as a lane writes them, then sealed by the product's sealer: `audit` sets the
rate of sealing beside that of writing, since a seal that is slower falls behind. `audit.cost` is
the processor time of sealing one record (ours and the server's) beside that of a whole deposit,
measured in the same run. The offline verifier runs in a process of its own, whose memory is its
peak.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import asyncpg
import msgspec

from gateway import audit_check
from gateway import queries as gateway_queries
from gateway.control import keys
from gateway.control.audit import AUDIT, Command, Concerns, audited
from gateway.control.exporting import Asked, Exporting
from gateway.control.sealing import Anchorer, AnchorFile, Sealer, Signer, new_key
from ledger.ids import Ids
from loadtests import deposit
from loadtests.access import deposit_cost_us
from loadtests.figures import Figure
from loadtests.ground import Ground

BATCH: Final = 500  # units in one transaction of a lane
RECORDS: Final = 100_000
RECORDS_FULL: Final = 1_000_000
TARGET: Final = 0.5  # of writing alone: ten times what the lanes of a busy house bring
PLAIN: Final = "records written, 500 a transaction"
IDS: Final = Ids(lambda: time.time_ns() // 1_000_000, os.urandom)
AFTER: Final = {"client": "CL00000000000000000001", "amount": {"minor": 10_000, "currency": "EUR"}}

# The verifier as a program, which then says of itself how much memory it ever held.
CHECK: Final = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(open("/proc/self/status").read())
"""


class Owned:
    """The one who seals."""

    name = "control"
    epoch = 1


class Cost(msgspec.Struct, frozen=True):
    """Records a second written and sealed, and processor microseconds of sealing one."""

    written: float
    sealed: float
    cpu_us: float


class Checked(msgspec.Struct, frozen=True):
    """The offline check of an export: seconds, and the most memory it ever held."""

    seconds: float
    megabytes: float
    bytes: int


async def measure(ground: Ground, *, full: bool) -> list[Figure]:
    """Write, seal, anchor, export and check."""
    wanted = RECORDS_FULL if full else RECORDS
    with tempfile.TemporaryDirectory() as folder:
        async with ground.base() as base:
            options = {"min_size": 1, "max_size": 1, "command_timeout": 600}
            async with asyncpg.create_pool(base.daemon_dsn, **options) as pool:
                cost = await _sealed(pool, wanted)
                checked = await _checked(pool, Path(folder))
    request_us = await deposit_cost_us(ground, full=full)
    name = f"audit.verify.{wanted}"
    return [
        Figure("audit", cost.sealed, "records sealed/s", cost.written, PLAIN, TARGET),
        Figure("audit.cost", cost.cpu_us, "us a record", request_us, "a deposit's processor time"),
        Figure(name, checked.seconds, "s"),
        Figure(f"{name}.rate", wanted / checked.seconds, "records/s"),
        Figure(f"{name}.memory", checked.megabytes, "MB at most"),
        Figure(f"{name}.export", checked.bytes / 1e6, "MB of export"),
    ]


def _rows(count: int) -> Iterator[list[list[object]]]:
    """Columns of the records of deposits, a batch at a time."""
    command = Command(keys.operator("ann"), "", "CR1", datetime.now(UTC))
    about = Concerns("fx-eu", "northgate", "CL00000000000000000001")
    for _ in range(count // BATCH):
        rows = [
            audited(
                command, "deposit.start", IDS.new("PY"), IDS.new("AU"), after=AFTER, concerns=about
            ).row
            for _ in range(BATCH)
        ]
        yield [list(column) for column in zip(*rows, strict=True)]


async def _sealed(pool: asyncpg.Pool, count: int) -> Cost:
    """Write so many records, then seal them all."""
    await pool.execute(gateway_queries.NEW_EPOCH, Owned.name, "bench")
    writing = 0.0
    for columns in _rows(count):
        began = time.perf_counter()
        await pool.execute(AUDIT.sql, *columns)
        writing += time.perf_counter() - began
    backend = await pool.fetchval("SELECT pg_backend_pid()")
    sealer = Sealer(pool, Owned(), lambda: datetime.now(UTC))
    began = time.perf_counter()
    used = time.process_time() + deposit.cpu_s(backend)
    while await sealer.seal():
        pass
    used = time.process_time() + deposit.cpu_s(backend) - used
    return Cost(count / writing, count / (time.perf_counter() - began), used / count * 1e6)


async def _checked(pool: asyncpg.Pool, folder: Path) -> Checked:
    """Anchor and export what was sealed, and check it in a process of its own."""
    signer, anchors = Signer(new_key()), folder / "anchors.jsonl"
    anchorer = Anchorer(
        pool, Owned(), signer, AnchorFile(anchors), [], 60.0, lambda: datetime.now(UTC)
    )
    assert await anchorer.anchor() is not None, anchorer.trouble()
    (folder / "public.pem").write_text(signer.public())
    out = folder / "audit.jsonl"
    async with pool.acquire() as conn:
        with out.open("w", encoding="utf-8") as file:
            async for line in Exporting(conn, Asked(), datetime.now(UTC)).lines():
                file.write(f"{line}\n")
    return await asyncio.to_thread(_verified, folder, out)


def _verified(folder: Path, out: Path) -> Checked:
    command = [sys.executable, "-I", "-c", CHECK, audit_check.__file__, str(out)]
    command += ["--anchors", str(folder / "anchors.jsonl")]
    command += ["--public-key", str(folder / "public.pem")]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - began
    peak = re.search(r"^VmHWM:\s+(\d+) kB", done.stdout, re.MULTILINE)
    assert peak is not None, done.stdout
    return Checked(seconds, int(peak[1]) / 1024, out.stat().st_size)
