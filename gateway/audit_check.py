r"""Check an export of the audit: `python audit_check.py EXPORT --anchors FILE --public-key FILE`.

Knows how a record is hashed into the chain, what an anchor signs, and how both are checked in
bounded memory. It imports nothing of the product, so that an auditor can read this one file, copy
it to a machine of their own and run it there with nothing but Python and `cryptography`. It refuses
to ask a database or the network for anything.

An export is JSON Lines, each line in canonical form (keys sorted, no blanks, UTF-8):

    {"audit": {"format": 1, "until": "...", ...}}    what was asked for, as of which anchor; first
    {"after": 1200, "head": "<hex>"}                 the chain goes on behind record 1200
    {"hash": "<hex>", "no": 1201, "record": {...}}   a record and the hash it was sealed with
    {"hash": "<hex>", "leaf": "<hex>", "no": 1202}   a record that was not asked for: its leaf alone
    {"end": {"count": 1202, "head": "<hex>"}}        once, last

    leaf(record) = SHA-256("brokerd audit record\n" + canonical form of the record)
    hash(no)     = SHA-256("brokerd audit chain\n" + hash(no - 1) + no as eight bytes + leaf)

The hash before record 1 is 32 zero bytes. An anchor is a line of JSON with the number of records,
the hash of the last of them, the time, and an Ed25519 signature over these.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TextIO

FORMAT: Final = 1
ZERO: Final = bytes(32)
LINE_MAX: Final = 16 * 1024 * 1024  # characters; a longer line is no record of ours
RECORD: Final = frozenset(
    {
        "actor", "after", "approvals", "at", "before", "brand", "client", "command", "contract",
        "correlation", "entity", "grant", "id", "key", "on_behalf_of", "reason", "role", "session",
        "subject",
    }
)  # fmt: skip
_LEAF: Final = hashlib.sha256(b"brokerd audit record\n")
_LINK: Final = hashlib.sha256(b"brokerd audit chain\n")

canonical: Final = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
).encode


def leaf_of(record: str) -> bytes:
    """The digest of a record in its canonical form."""
    digest = _LEAF.copy()
    digest.update(record.encode())
    return digest.digest()


def link(before: bytes, no: int, leaf: bytes) -> bytes:
    """The hash that seals record `no` behind the one whose hash is `before`."""
    digest = _LINK.copy()
    digest.update(before + no.to_bytes(8, "big") + leaf)
    return digest.digest()


def signed_of(no: int, count: int, head: str, at: str) -> bytes:
    """What the signature of an anchor covers."""
    return f"brokerd audit anchor\n{no}\n{count}\n{head}\n{at}".encode()


class Broken(Exception):
    """What was handed in is not what was sealed; `no` is the first record that is not."""

    def __init__(self, no: int, why: str) -> None:
        super().__init__(f"record {no}: {why}")
        self.no = no
        self.why = why


class Unreadable(Exception):
    """A file has not the form of an export, of anchors or of a key."""


@dataclass(frozen=True)
class Anchor:
    """So many records were sealed at this time, the last of them with this hash."""

    no: int
    count: int
    head: str
    at: str


@dataclass
class Verdict:
    """What was proved.

    shown, withheld  records that are in the export, and those of which it has the leaf alone
    skipped          records between two anchors, of which it has nothing
    first, last      the numbers it spans
    covered          up to this record an anchor vouches
    anchors          how many were met, and `anchored` when the last of all was signed
    notes            what the reader must know beside that
    """

    shown: int = 0
    withheld: int = 0
    skipped: int = 0
    first: int = 0
    last: int = 0
    covered: int = 0
    anchors: int = 0
    anchored: str = ""
    asked: Mapping[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


# --- anchors ------------------------------------------------------------------------------------


def read_anchors(lines: Iterable[str], key: Any, torn: list[int]) -> Iterator[Anchor]:
    """The anchors in their order, each with its signature checked.

    key   an Ed25519 public key of `cryptography`
    torn  gets the numbers of lines that a crash broke off, or that are out of their order: they
          vouch for nothing, as if somebody had removed them
    Raises Unreadable for a line that is no anchor, and a signature that is not the key's.
    """
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - one import, in use

    last = Anchor(0, 0, "", "")
    for number, line in enumerate(lines, start=1):
        try:
            said = json.loads(line)
        except ValueError:
            torn.append(number)
            continue
        try:
            anchor = Anchor(int(said["no"]), int(said["count"]), said["head"], said["at"])
            signature = bytes.fromhex(said["signature"])
            covers = signed_of(anchor.no, anchor.count, anchor.head, anchor.at)
        except (ValueError, KeyError, TypeError) as error:
            raise Unreadable(f"anchors, line {number}: not an anchor ({error})") from None
        try:
            key.verify(signature, covers)
        except InvalidSignature:
            raise Unreadable(f"anchors, line {number}: not signed with this key") from None
        if anchor == last:
            continue  # the same one from two places
        if anchor.no <= last.no or anchor.count < last.count:
            torn.append(number)  # whoever wrote it stood still meanwhile, or moved it here
            continue
        last = anchor
        yield anchor


def public_key(text: str) -> Any:
    """The Ed25519 public key in a PEM file. Raises Unreadable."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PublicKey,
    )
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    try:
        key = load_pem_public_key(text.encode())
    except ValueError as error:
        raise Unreadable(f"the public key cannot be read: {error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise Unreadable("the public key is not an Ed25519 key")
    return key


# --- the export ---------------------------------------------------------------------------------


class Checking:
    """One pass over an export, with the anchors beside it; both are read once and in order."""

    def __init__(self, anchors: Iterable[Anchor]) -> None:
        self._anchors = iter(anchors)
        self._next: Anchor | None = None
        self._latest: Anchor | None = None
        self._hash = ZERO
        self._stretch = False
        self._ended = False
        self.verdict = Verdict()
        self._advance()

    def run(self, lines: Iterable[str]) -> Verdict:
        """Check every line. Raises Broken with the first bad record, or Unreadable."""
        number = 0
        for number, line in enumerate(lines, start=1):
            try:
                self._line(number, line)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                why = f"line {number} is not as it was written ({error!r})"
                raise Broken(self.verdict.last + 1, why) from None
        if not number:
            raise Unreadable("the export is empty")
        if not self._ended:
            raise Broken(self.verdict.last + 1, "the export breaks off before its end")
        return self._judged()

    def _line(self, number: int, line: str) -> None:
        text = line.rstrip("\n")
        said = self._read(number, text)
        if self._ended:
            raise Unreadable(f"line {number}: behind the end")
        if number == 1:
            self._begin(said)
        elif "no" in said:
            self._record(said, text)
        elif "after" in said:
            self._go_on(said["after"], said["head"])
        else:
            self._end(said)

    def _read(self, number: int, text: str) -> dict[str, Any]:
        """The line as JSON; it must be in the one form that has the hash, to the last byte."""
        last = self.verdict.last
        if len(text) > LINE_MAX:
            raise Broken(last + 1, f"line {number} is too long")
        try:
            said = json.loads(text)
            same = isinstance(said, dict) and canonical(said) == text
        except (ValueError, RecursionError):
            said, same = None, False
        if not same:
            raise Broken(last + 1, f"line {number} is not as it was written")
        assert isinstance(said, dict)
        return said

    def _begin(self, said: dict[str, Any]) -> None:
        asked = said.get("audit")
        if not isinstance(asked, dict) or asked.get("format") != FORMAT:
            raise Unreadable(f"line 1: not an export of format {FORMAT}")
        self.verdict.asked = asked

    def _go_on(self, after: int, head: str) -> None:
        """The chain goes on behind what was left out; only an anchor can vouch for that place."""
        verdict = self.verdict
        if after < verdict.last:
            raise Broken(verdict.last + 1, f"the chain goes on behind record {after}, backwards")
        if verdict.covered < verdict.last < after:
            raise Broken(
                verdict.covered + 1, "records are left out before an anchor vouches for it"
            )
        while self._next is not None and self._next.count < after:
            self._advance()
        vouched = self._next is not None and (self._next.count, self._next.head) == (after, head)
        if not vouched and (after or head != ZERO.hex()):
            raise Broken(after + 1, f"no anchor says that {after} records end in {head}")
        verdict.skipped += after - verdict.last
        self._hash, self._stretch = bytes.fromhex(head), True
        verdict.last = verdict.covered = after
        self._meet()

    def _record(self, said: dict[str, Any], text: str) -> None:
        verdict, no = self.verdict, said["no"]
        wanted = verdict.last + 1
        if not self._stretch:
            raise Broken(wanted, "it does not say behind which record it goes on")
        if no != wanted:
            raise Broken(wanted, f"it is missing; record {no} stands in its place")
        leaf = self._leaf(said, text, no)
        verdict.first = verdict.first or no
        self._hash = link(self._hash, no, leaf)
        if self._hash.hex() != said["hash"]:
            raise Broken(no, "it is not what was sealed")
        verdict.last = no
        self._meet()

    def _leaf(self, said: dict[str, Any], text: str, no: int) -> bytes:
        if said.keys() == {"hash", "no", "record"} and isinstance(said["record"], dict):
            if said["record"].keys() != RECORD:
                raise Broken(no, "its fields are not those of a record")
            self.verdict.shown += 1
            return leaf_of(text[len(f'{{"hash":"{said["hash"]}","no":{no},"record":') : -1])
        if said.keys() == {"hash", "leaf", "no"}:
            self.verdict.withheld += 1
            return bytes.fromhex(said["leaf"])
        if said.get("gone") is True:
            raise Broken(no, "it was sealed and is gone")
        raise Broken(no, "it is neither a record nor a leaf")

    def _end(self, said: dict[str, Any]) -> None:
        wanted = self.verdict.last + 1
        end = said.get("end")
        if not isinstance(end, dict):
            raise Broken(wanted, "neither a record nor the end stands in its place")
        if end != {"count": self.verdict.last, "head": self._hash.hex()}:
            raise Broken(wanted, f"the end is said to be record {end.get('count')}")
        self._ended = True

    # --- beside the anchors ---------------------------------------------------------------------

    def _advance(self) -> None:
        if self._next is not None:
            self._latest = self._next
        self._next = next(self._anchors, None)

    def _meet(self) -> None:
        """Compare with every anchor at the place just reached."""
        last = self.verdict.last
        while self._next is not None and self._next.count <= last:
            if self._next.count == last:
                if self._next.head != self._hash.hex():
                    self._differs(self._next)
                self.verdict.covered = last
                self.verdict.anchors += 1
            self._advance()

    def _differs(self, anchor: Anchor) -> None:
        """The chain hangs together and is not the anchored one: it was made anew from somewhere."""
        first = self.verdict.covered + 1
        why = (
            f"it, or one of those up to {anchor.count}, was changed and every hash behind it made "
            f"anew: anchor {anchor.no} of {anchor.at} says otherwise"
        )
        raise Broken(first, why)

    def _judged(self) -> Verdict:
        """Look at the anchors behind the end: what they say of more records is missing here."""
        verdict = self.verdict
        until = verdict.asked.get("until")
        while self._next is not None:
            anchor = self._next
            if anchor.count > verdict.last and (until is None or anchor.at <= until):
                why = (
                    f"anchor {anchor.no} of {anchor.at} says that there are {anchor.count} records"
                )
                raise Broken(verdict.last + 1, f"it is missing: {why}")
            self._advance()
        if self._latest is not None:
            verdict.anchored = self._latest.at
        if verdict.covered < verdict.last:
            verdict.notes.append(
                f"records {verdict.covered + 1} to {verdict.last} hang together and no anchor "
                "vouches for them yet"
            )
        verdict.notes.append(
            f"it is the audit as it stood at {until or 'its last anchor'}; what was written after "
            "the last anchor could have been removed unnoticed, no more than came within one "
            "interval of anchors"
        )
        if verdict.withheld:
            verdict.notes.append(
                f"{verdict.withheld} records were not asked for; their leaves prove the others"
            )
        if verdict.skipped:
            verdict.notes.append(
                f"{verdict.skipped} records lie between anchors that hold nothing asked for"
            )
        return verdict


def check(export: Iterable[str], anchors: Iterable[str], key: Any) -> Verdict:
    """Check the lines of an export against the lines of anchors. Raises Broken or Unreadable."""
    torn: list[int] = []
    verdict = Checking(read_anchors(anchors, key, torn)).run(export)
    if torn:
        said = "are broken off or out of their order, and vouch for nothing"
        verdict.notes.append(f"lines {torn} of the anchors {said}")
    return verdict


def check_files(export: Path, anchors: Path, key: Path) -> Verdict:
    """The same with files, read line by line. Raises Broken, Unreadable or OSError."""
    wanted = public_key(key.read_text())
    # Bytes that are no text reach the record they stand in, and it is named.
    with (
        export.open(encoding="utf-8", errors="surrogateescape", newline="\n") as records,
        anchors.open(encoding="utf-8", errors="surrogateescape", newline="\n") as signed,
    ):
        return check(_lines(records), _lines(signed), wanted)


def _lines(file: TextIO) -> Iterator[str]:
    """The lines of a file, none longer than may be held in memory."""
    return iter(partial(file.readline, LINE_MAX), "")


# --- for people ---------------------------------------------------------------------------------


def report(verdict: Verdict) -> list[str]:
    """What was proved, in sentences."""
    asked = {name: value for name, value in verdict.asked.items() if value and name != "format"}
    way = f"from {verdict.first} to {verdict.last}"
    last = verdict.anchored or "never"
    return [
        f"{verdict.shown} records are as they were sealed; the chain was followed {way}",
        f"it says of itself: {asked}",
        f"{verdict.anchors} anchors agree, up to record {verdict.covered}; the last is of {last}",
        *[f"note: {note}" for note in verdict.notes],
    ]


def main(arguments: list[str] | None = None) -> int:
    """0 when everything holds, 1 with the first bad record, 2 when a file cannot be read."""
    parser = argparse.ArgumentParser(description="Check an export of brokerd's audit.")
    parser.add_argument("export", type=Path)
    parser.add_argument("--anchors", type=Path, required=True)
    parser.add_argument("--public-key", type=Path, required=True)
    asked = parser.parse_args(arguments)
    try:
        verdict = check_files(asked.export, asked.anchors, asked.public_key)
    except Broken as broken:
        sys.stdout.write(f"NOT as it was sealed. First bad record: {broken.no}\n{broken}\n")
        return 1
    except (Unreadable, OSError, UnicodeError) as error:
        sys.stdout.write(f"cannot be checked: {error}\n")
        return 2
    sys.stdout.write("\n".join(report(verdict)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
