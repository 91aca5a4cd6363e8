"""The stand-alone verifier: whatever is done to a covered record, it is named.

The exports are built here from the description in the verifier's own docstring, with nothing of the
product but the verifier: what an auditor could do.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from gateway import audit_check
from gateway.audit_check import Broken, Unreadable, check

KEY = Ed25519PrivateKey.generate()
OTHER = Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key()
NAMES = (
    "actor", "after", "at", "before", "brand", "client", "command", "contract", "correlation",
    "entity", "grant", "id", "key", "on_behalf_of", "reason", "role", "session", "subject",
)  # fmt: skip
Line = dict[str, Any]


def dumped(value: object) -> str:
    """JSON with sorted keys and no blanks."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def record(no: int) -> Line:
    """A record with something odd in it."""
    return {name: f'{name} {no} é\u2028"' for name in NAMES} | {"approvals": [], "after": None}


def hashed(before: str, no: int, leaf: str) -> str:
    """The chain as the docstring says it."""
    text = bytes.fromhex(before) + no.to_bytes(8, "big") + bytes.fromhex(leaf)
    return hashlib.sha256(b"brokerd audit chain\n" + text).hexdigest()


def leaf(said: Line) -> str:
    """A record's digest as the docstring says it."""
    return hashlib.sha256(b"brokerd audit record\n" + dumped(said).encode()).hexdigest()


def chained(records: Sequence[Line], first: int = 1, head: str = "00" * 32) -> list[Line]:
    """The lines of these records, sealed in this order."""
    lines = []
    for no, said in enumerate(records, start=first):
        head = hashed(head, no, leaf(said))
        lines.append({"hash": head, "no": no, "record": said})
    return lines


def export(lines: Sequence[Line], asked: Line | None = None) -> list[Line]:
    """A whole export of these records."""
    head = lines[-1]["hash"] if lines else "00" * 32
    count = lines[-1]["no"] if lines else 0
    return [
        {"audit": {"format": 1, **(asked or {})}}, {"after": 0, "head": "00" * 32}, *lines,
        {"end": {"count": count, "head": head}},
    ]  # fmt: skip


def anchor(no: int, count: int, head: str, key: Ed25519PrivateKey = KEY) -> str:
    """A line of the anchors."""
    at = f"2026-11-22T10:{no:02}:00.000000Z"
    signed = f"brokerd audit anchor\n{no}\n{count}\n{head}\n{at}".encode()
    said = {"no": no, "count": count, "head": head, "at": at, "signer": "k"}
    return dumped({**said, "signature": key.sign(signed).hex()})


SEALED = chained([record(no) for no in range(1, 11)])
ANCHORS = [anchor(no, count, SEALED[count - 1]["hash"]) for no, count in ((1, 4), (2, 4), (3, 9))]


def checked(lines: Sequence[Line], anchors: Sequence[str] = ANCHORS) -> audit_check.Verdict:
    """The verdict on an export of these lines."""
    return check([dumped(line) + "\n" for line in lines], anchors, PUBLIC)


def first_bad(lines: Sequence[Line], anchors: Sequence[str] = ANCHORS) -> int:
    """The record that the verifier names."""
    with pytest.raises(Broken) as broken:
        checked(lines, anchors)
    return broken.value.no


def test_a_whole_export_holds() -> None:
    """Every record is proved, and what no anchor covers yet is said."""
    verdict = checked(export(SEALED))

    assert (verdict.shown, verdict.first, verdict.last) == (10, 1, 10)
    assert (verdict.covered, verdict.anchors) == (9, 3)
    assert "records 10 to 10 hang together and no anchor vouches" in verdict.notes[0]
    assert any("one interval of anchors" in note for note in verdict.notes)


def test_an_empty_audit_holds() -> None:
    """Before the first record there is an anchor of none."""
    assert checked(export([]), [anchor(1, 0, "00" * 32)]).covered == 0


@given(st.data())
def test_a_flipped_byte_is_named(data: st.DataObject) -> None:
    """Any character of any record's line: that record is the first bad one."""
    no = data.draw(st.integers(1, 10))
    lines = [dumped(line) for line in export(SEALED)]
    text = lines[no + 1]
    place = data.draw(st.integers(0, len(text) - 1))
    flipped = chr(ord(text[place]) ^ data.draw(st.sampled_from((1, 2, 4, 8, 16, 32))))
    lines[no + 1] = text[:place] + flipped + text[place + 1 :]

    with pytest.raises(Broken) as broken:
        check(lines, ANCHORS, PUBLIC)

    assert broken.value.no == no


@pytest.mark.parametrize("no", range(1, 10))
@pytest.mark.parametrize("name", [*NAMES, "approvals"])
def test_a_changed_field_is_named(no: int, name: str) -> None:
    """Each field of a record is covered."""
    lines = [dict(line) for line in SEALED]
    lines[no - 1]["record"] = lines[no - 1]["record"] | {name: "other"}

    assert first_bad(export(lines)) == no


@pytest.mark.parametrize("no", range(1, 10))
def test_a_deleted_record_is_named(no: int) -> None:
    """With a gap, and where those behind it are numbered anew."""
    left = [line for line in SEALED if line["no"] != no]
    anew = [line | {"no": number} for number, line in enumerate(left, start=1)]

    assert first_bad(export(left)) == no
    assert first_bad(export(anew)) == no


@pytest.mark.parametrize("no", range(1, 10))
def test_an_inserted_and_a_reordered_record_are_named(no: int) -> None:
    """One put between others, and two neighbours that changed places."""
    more = [*SEALED[: no - 1], {"hash": "00" * 32, "no": no, "record": record(99)}]
    more += [line | {"no": line["no"] + 1} for line in SEALED[no - 1 :]]
    swapped = [dict(line) for line in SEALED]
    swapped[no - 1]["record"], swapped[no]["record"] = (
        swapped[no]["record"],
        SEALED[no - 1]["record"],
    )

    assert first_bad(export(more)) == no
    assert first_bad(export(swapped)) == no


@pytest.mark.parametrize("no", range(1, 10))
def test_a_chain_made_anew_is_named_by_its_anchor(no: int) -> None:
    """Whoever rewrites every hash meets the next anchor: the first since the last one."""
    records = [line["record"] for line in SEALED]
    records[no - 1] = records[no - 1] | {"reason": "another"}

    assert first_bad(export(chained(records))) == (1 if no <= 4 else 5)


@pytest.mark.parametrize("left", range(9))
def test_truncation_before_the_last_anchor_is_named(left: int) -> None:
    """The first record that an anchor counts and the export has not."""
    assert first_bad(export(SEALED[:left])) == left + 1


def test_truncation_after_the_last_anchor_is_bounded_and_said() -> None:
    """It cannot be seen; the verdict says how much it can be."""
    verdict = checked(export(SEALED[:9]))

    assert any("removed unnoticed" in note for note in verdict.notes)


def test_an_export_until_a_time_leaves_later_anchors_alone() -> None:
    """What came after what was asked for is not missing."""
    lines = export(SEALED[:4], {"until": "2026-11-22T10:02:30.000000Z"})

    assert checked(lines).covered == 4
    assert first_bad(export(SEALED[:4], {"until": "2026-11-22T10:03:30.000000Z"})) == 5


def test_an_export_that_breaks_off_is_named() -> None:
    """A file that lost its last lines has no end."""
    lines = export(SEALED)

    for kept in range(1, len(lines)):
        assert first_bad(lines[:kept]) == max(1, kept - 1)


def withheld(line: Line) -> Line:
    """A record that was not asked for."""
    return {"hash": line["hash"], "leaf": leaf(line["record"]), "no": line["no"]}


def partly() -> list[Line]:
    """Record 6 of ten, between the anchors at 4 and 9, and nothing else."""
    five, six, *rest = SEALED[4:9]
    return [
        {"audit": {"format": 1, "subject": "x", "until": "2026-11-22T10:03:00.000000Z"}},
        {"after": 4, "head": SEALED[3]["hash"]}, withheld(five), six, *map(withheld, rest),
        {"end": {"count": 9, "head": SEALED[8]["hash"]}},
    ]  # fmt: skip


def test_a_part_is_proved_by_leaves_and_anchors() -> None:
    """What was not asked for is not shown, and what was is proved all the same."""
    verdict = checked(partly())

    assert (verdict.shown, verdict.withheld, verdict.skipped, verdict.covered) == (1, 4, 4, 9)
    assert "record 1 é" not in dumped(partly())


def test_a_part_is_named_when_anything_in_it_is_wrong() -> None:
    """Its record, a leaf beside it, where it begins and where it ends."""
    for number, said in ((3, {"no": 6}), (2, {"leaf": "11" * 32}), (5, {"hash": "11" * 32})):
        lines = partly()
        no = lines[number]["no"]
        lines[number] = lines[number] | said if number != 3 else SEALED[6] | said
        assert first_bad(lines) == no
    lines = partly()
    lines[1] = {"after": 4, "head": "11" * 32}
    assert first_bad(lines) == 5
    assert first_bad([*partly()[:-2], {"end": {"count": 8, "head": SEALED[7]["hash"]}}]) == 9


def test_records_are_never_left_out_without_an_anchor() -> None:
    """A jump over records must begin and end where an anchor vouches."""
    head = {"audit": {"format": 1}}
    start = {"after": 0, "head": "00" * 32}
    end = {"end": {"count": 9, "head": SEALED[8]["hash"]}}
    to_nine = {"after": 9, "head": SEALED[8]["hash"]}
    to_five = {"after": 5, "head": SEALED[4]["hash"]}

    assert checked([head, start, *SEALED[:4], to_nine, end]).skipped == 5
    assert first_bad([head, start, *SEALED[:6], to_nine, end]) == 5
    assert first_bad([head, start, to_five, *SEALED[5:9], end]) == 6
    assert first_bad([head, start, *SEALED[:4], start, end]) == 5


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lines: [*lines[:-1], anchor(3, 9, SEALED[8]["hash"], OTHER)],
        lambda lines: [lines[0].replace('"count":4', '"count":5')],
        lambda lines: [dumped({"no": 1})],
    ],
    ids=["another key", "altered", "not an anchor"],
)
def test_anchors_are_proved_first(spoil: Callable[[list[str]], list[str]]) -> None:
    """One that the key did not sign proves nothing, and neither does the export with it."""
    with pytest.raises(Unreadable):
        checked(export(SEALED), spoil(list(ANCHORS)))


def test_a_line_that_a_crash_broke_off_vouches_for_nothing() -> None:
    """The anchors around it still do, and the reader is told."""
    verdict = checked(export(SEALED), [ANCHORS[0], ANCHORS[1][:30], ANCHORS[2]])

    assert (verdict.covered, verdict.anchors) == (9, 2)
    assert any(note.startswith("lines [2] of the anchors are broken") for note in verdict.notes)


def test_a_line_out_of_its_order_vouches_for_nothing() -> None:
    """A writer that stood still adds its anchor late: the others hold, and the reader is told."""
    verdict = checked(export(SEALED), [ANCHORS[0], ANCHORS[2], ANCHORS[1]])

    assert (verdict.covered, verdict.anchors) == (9, 2)
    assert any(note.startswith("lines [3] of the anchors") for note in verdict.notes)


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_no_file_makes_it_fail_otherwise(lines: list[bytes]) -> None:
    """Whatever stands in the export: it is named, or called unreadable."""
    texts = [line.decode(errors="surrogateescape") for line in lines]
    with pytest.raises((Broken, Unreadable)):
        check([dumped({"audit": {"format": 1}}), *texts], ANCHORS, PUBLIC)


def test_the_file_works_alone(tmp_path: Path) -> None:
    """Copied elsewhere, in a Python that cannot see the product, it says the same."""
    tool = Path(shutil.copy(audit_check.__file__, tmp_path / "audit_check.py"))
    pem = PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "public.pem").write_bytes(pem)
    (tmp_path / "anchors.jsonl").write_text("".join(f"{line}\n" for line in ANCHORS))
    whole = [dumped(line) for line in export(SEALED)]
    (tmp_path / "good.jsonl").write_text("\n".join(whole) + "\n")
    (tmp_path / "bad.jsonl").write_text("\n".join(whole).replace("reason 7", "reason 8"))
    raw = "\n".join(whole).encode().replace(b"reason 3", b"reason \xff")
    (tmp_path / "raw.jsonl").write_bytes(raw)

    def run(name: str) -> tuple[int, str]:
        rest = ["--anchors", "anchors.jsonl", "--public-key", "public.pem"]
        done = subprocess.run(
            [sys.executable, "-I", str(tool), name, *rest],
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert not done.stderr
        return done.returncode, done.stdout

    assert run("good.jsonl")[0] == 0
    code, said = run("bad.jsonl")
    assert (code, "First bad record: 7" in said) == (1, True)
    code, said = run("raw.jsonl")
    assert (code, "First bad record: 3" in said) == (1, True)
    assert run("absent.jsonl")[0] == 2
    imports = [line for line in tool.read_text().splitlines() if "import" in line.split()[:1]]
    assert not any(room in line for line in imports for room in ("gateway", "ledger", "config"))
