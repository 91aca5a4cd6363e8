"""The seal of the audit: records put into a hash chain, and signed anchors sent to a second place.

Knows the order of sealing (nothing above the oldest transaction that still writes), the form of a
record in the chain, and what an anchor says. Refuses to know what a record means, and to seal or to
anchor while another replica owns the work.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

import asyncpg
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from config.log import event
from gateway.audit_check import canonical, leaf_of, link, signed_of
from gateway.control import queries_audit as q

log = logging.getLogger("gateway.control.sealing")

BATCH: Final = 2_000
TICK: Final = timedelta(microseconds=1)
SEAL_EVERY_S: Final = 0.5  # half of what a record may wait
AWAY: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class Owner(Protocol):
    """Whoever may seal now, of all replicas."""

    @property
    def name(self) -> str:
        """What is owned."""
        ...

    @property
    def epoch(self) -> int:
        """The number of the ownership, checked in each commit."""
        ...


# --- records ------------------------------------------------------------------------------------


def moment(at: datetime) -> str:
    """A time as records and anchors write it: UTC, always to the microsecond."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def form(row: Mapping[str, Any]) -> dict[str, object]:
    """A row of the audit as it is hashed and exported; `before` and `after` stay the text they are.

    The chain is made of this form: neither its keys nor its values may ever change.
    """
    return {
        "id": row["id"], "at": moment(row["at"]), "actor": row["actor"], "role": row["role"],
        "on_behalf_of": row["on_behalf_of"], "command": row["command"],
        "subject": row["subject"], "before": row["before"], "after": row["after"],
        "reason": row["reason"], "correlation": row["correlation"], "key": row["key_id"],
        "session": row["session"], "grant": row["grant_id"], "approvals": list(row["approvals"]),
        "entity": row["entity"], "brand": row["brand"], "client": row["client"],
        "contract": row["contract"],
    }  # fmt: skip


class Head(msgspec.Struct, frozen=True):
    """The end of the chain.

    xid, audit_id  the cursor: nothing at or below it is unsealed
    above          the cursor is above any transaction of this server: its rows came from another
    copied         some seals are above the cursor: rows came from another server earlier
    """

    no: int
    hash: bytes
    xid: str
    audit_id: str
    above: bool
    copied: bool


async def head(conn: asyncpg.Connection) -> Head:
    """The end of the chain as it is committed."""
    row = await conn.fetchrow(q.SEAL_HEAD)
    return Head(row["no"], row["hash"], row["xid"], row["audit_id"], row["above"], row["copied"])


class Sealer:
    """Seals what was committed, again and again, while this replica owns the work.

    pool   connections of the daemon's role
    owner  whose epoch each commit checks
    """

    def __init__(self, pool: asyncpg.Pool, owner: Owner, now: Callable[[], datetime]) -> None:
        self._pool = pool
        self._owner = owner
        self._now = now
        self.records = 0  # sealed by this process

    async def run(self) -> None:
        """Seal for ever; while the database is away records wait, and nothing is lost."""
        while True:
            try:
                while await self.seal() == BATCH:
                    pass
            except AWAY as error:
                event(log, "audit.seal_waits", why=repr(error))
            await asyncio.sleep(SEAL_EVERY_S)

    async def seal(self) -> int:
        """Seal one batch in one transaction; returns how many records.

        Two sealers cannot both commit: `no` is unique, and the epoch is checked under a lock.
        """
        async with self._pool.acquire() as conn, conn.transaction():
            await conn.execute(q.SEAL_PLANS)
            end = await head(conn)
            rows = await self._unsealed(conn, end)
            if not rows:
                return 0
            await self._store(conn, end, rows)
        self.records += len(rows)
        return len(rows)

    async def _unsealed(self, conn: asyncpg.Connection, end: Head) -> list[asyncpg.Record]:
        """The next records in order. In a copy: first what came along, then the server's own."""
        if end.above:
            rows = await conn.fetch(q.UNSEALED, end.xid, end.audit_id, True, True, BATCH)
            if rows:
                return list(rows)
            end = msgspec.structs.replace(end, xid="0", audit_id="", copied=True)
        return list(await conn.fetch(q.UNSEALED, end.xid, end.audit_id, False, end.copied, BATCH))

    async def _store(
        self, conn: asyncpg.Connection, end: Head, rows: Sequence[asyncpg.Record]
    ) -> None:
        numbers = range(end.no + 1, end.no + 1 + len(rows))
        hashes: list[bytes] = []
        last = end.hash
        for no, row in zip(numbers, rows, strict=True):
            last = link(last, no, leaf_of(canonical(form(row))))
            hashes.append(last)
        names = ("at", "actor", "subject", "client")
        done = await conn.execute(
            q.INSERT_SEALS, list(numbers), [row["id"] for row in rows],
            [row["xid"] for row in rows], hashes, [self._now()] * len(rows),
            *[[row[name] for row in rows] for name in names],
            f"{self._owner.name}@{self._owner.epoch}",
        )  # fmt: skip
        if done != f"INSERT 0 {len(rows)}":
            raise ConnectionError("another replica seals now")


# --- anchors ------------------------------------------------------------------------------------


class Signer:
    """The key that anchors are signed with; it is never in the database.

    pem  an Ed25519 private key, PKCS#8; raises ValueError for anything else
    """

    def __init__(self, pem: str) -> None:
        key = load_pem_private_key(pem.encode(), None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("the anchor key is not an Ed25519 key")  # noqa: TRY004 - it is text
        self._key = key
        self.id = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()[:16]

    def sign(self, covers: bytes) -> bytes:
        """The signature."""
        return self._key.sign(covers)

    def public_key(self) -> Ed25519PublicKey:
        """The key that signatures are checked with."""
        return self._key.public_key()

    def public(self) -> str:
        """The public key as a PEM file has it."""
        pem = self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return pem.decode()


def new_key() -> str:
    """A new private key as a PEM file has it."""
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


class AnchorLine(msgspec.Struct, frozen=True):
    """One anchor as the second place keeps it."""

    no: int
    count: int
    head: str
    at: str
    signer: str
    signature: str

    def line(self) -> str:
        """A line of the anchors' file."""
        return msgspec.json.encode(self).decode() + "\n"


def anchored(no: int, count: int, head: bytes, at: datetime, signer: Signer) -> AnchorLine:
    """An anchor, signed."""
    text = moment(at)
    signature = signer.sign(signed_of(no, count, head.hex(), text))
    return AnchorLine(no, count, head.hex(), text, signer.id, signature.hex())


class AnchorFile:
    """A file of anchors that is only ever added to; each line is on the disk before it counts."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def keep(self, anchor: AnchorLine) -> None:
        """Add a line. Raises OSError."""
        await asyncio.to_thread(self._append, anchor.line().encode())

    async def last(self) -> AnchorLine | None:
        """The newest whole line of ours, None in a new file. Raises OSError."""
        return await asyncio.to_thread(self._last)

    def _append(self, line: bytes) -> None:
        with self._path.open("ab") as file:
            if file.tell() and not self._whole():
                file.write(b"\n")  # a line that a crash left unfinished stays by itself
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _whole(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _last(self) -> AnchorLine | None:
        if not self._path.exists():
            return None
        with self._path.open("rb") as file:
            file.seek(max(0, self._path.stat().st_size - 4096))
            lines = file.read().splitlines()
        for line in reversed(lines):
            try:
                return msgspec.json.decode(line, type=AnchorLine)
            except msgspec.DecodeError:
                continue
        return None


Place = Callable[[AnchorLine], Awaitable[None]]


class Anchorer:
    """Signs the end of the chain every so often and sends it to every second place.

    file    where anchors are kept, None when only `places` are
    places  others that are sent each: a webhook; one that fails is named and tried with the next
    """

    def __init__(
        self, pool: asyncpg.Pool, owner: Owner, signer: Signer, file: AnchorFile | None,
        places: Sequence[Place], every_s: float, now: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self._pool = pool
        self._owner = owner
        self._signer = signer
        self._file = file
        self._places = places
        self._every_s = every_s
        self._now = now
        self._trouble = ""
        self._sent_last: AnchorLine | None = None

    def trouble(self) -> str:
        """Why the last anchor did not reach every place; "" when it did."""
        return self._trouble

    async def run(self) -> None:
        """Anchor for ever."""
        while True:
            try:
                await self.anchor()
            except AWAY as error:
                self._failed(repr(error))
            await asyncio.sleep(self._every_s)

    async def anchor(self) -> AnchorLine | None:
        """Sign the end of the chain as it is now; None, with a trouble, for one that was rewritten.

        Raises OSError, TimeoutError or asyncpg.PostgresError.
        """
        kept = await self._file.last() if self._file is not None else self._sent_last
        async with self._pool.acquire() as conn:
            if kept is not None and not await self._still(conn, kept):
                said = f"{kept.count} records of {kept.at} are anchored and not in the chain"
                self._failed(f"the chain is not the one that was anchored: {said}")
                return None
            anchor = await self._stored(conn, kept)
        self._sent_last = anchor
        trouble = await self._sent(anchor)
        if trouble:
            self._failed(trouble)
            return anchor
        self._trouble = ""
        return anchor

    async def _still(self, conn: asyncpg.Connection, kept: AnchorLine) -> bool:
        if kept.count == 0:
            return True
        found = await conn.fetchval(q.SEAL_HASH, kept.count)
        return found is not None and found.hex() == kept.head

    async def _stored(self, conn: asyncpg.Connection, kept: AnchorLine | None) -> AnchorLine:
        async with conn.transaction(isolation="repeatable_read"):
            last = await conn.fetchrow(q.LAST_ANCHOR)
            end = await head(conn)
            no = max(last["no"] if last is not None else 0, kept.no if kept is not None else 0) + 1
            # Never before the one before it, whoever made that: exports say until which they reach.
            at = self._now() if last is None else max(self._now(), last["at"] + TICK)
            made = anchored(no, end.no, end.hash, at, self._signer)
            done = await conn.execute(
                q.INSERT_ANCHOR, no, end.no, end.hash, at, self._signer.id,
                bytes.fromhex(made.signature), f"{self._owner.name}@{self._owner.epoch}",
            )  # fmt: skip
            if done != "INSERT 0 1":
                raise ConnectionError("another replica anchors now")
        return made

    async def _sent(self, anchor: AnchorLine) -> str:
        """Hand the anchor to every place; what went wrong, "" for nothing."""
        places: list[Place] = [*([self._file.keep] if self._file else []), *self._places]
        wrong = []
        for place in places:
            try:
                await place(anchor)
            except (OSError, TimeoutError) as error:
                wrong.append(repr(error))
        return "; ".join(wrong)

    def _failed(self, why: str) -> None:
        if why != self._trouble:
            event(log, "audit.anchor_failed", logging.ERROR, why=why)
        self._trouble = why


class Lag(msgspec.Struct, frozen=True):
    """How far the seal is.

    records   so many are sealed
    oldest    when the oldest act that is not was asked for; None when all are
    anchored  when the last anchor was signed
    """

    records: int
    oldest: datetime | None
    anchored: datetime | None


async def lag(conn: asyncpg.Connection) -> Lag:
    """How far the seal is, whoever of all replicas seals."""
    row = await conn.fetchrow(q.SEAL_LAG)
    return Lag(row["records"], row["oldest"], row["anchored"])
