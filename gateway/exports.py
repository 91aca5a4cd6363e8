"""Exports of the audit to a file, and the key that its anchors are signed with.

Knows files: an export that breaks off leaves none, a private key is readable by its owner alone.
Refuses to know what an export holds (`control/exporting.py`).
"""

from __future__ import annotations

import os
from pathlib import Path

import asyncpg

from gateway.control import audit
from gateway.control.audit import Command
from gateway.control.exporting import Asked, Exporting
from gateway.control.sealing import Signer, new_key
from ledger.ids import Ids


async def export(
    conn: asyncpg.Connection, command: Command, asked: Asked, out: Path, ids: Ids
) -> int:
    """Write what was asked for to `out`, whole or not at all; how many records it shows.

    The export is itself an act: its record is committed before the first line is read. Raises
    OSError, and Refusal `reason-missing`.
    """
    row = audit.audited(command, "audit.export", str(out), ids.new("AU"), after=asked.said())
    async with conn.transaction():
        await audit.write(conn, [row])
    exporting = Exporting(conn, asked, command.at)
    part = out.with_name(f"{out.name}.part")
    with part.open("w", encoding="utf-8", newline="\n") as file:
        async for line in exporting.lines():
            file.write(f"{line}\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(out)
    return exporting.shown


def write_key(private: Path, public: Path) -> None:
    """Make a new key for anchors; raises FileExistsError rather than lose one that is in use."""
    pem = new_key()
    descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(pem)
    public.write_text(Signer(pem).public())
