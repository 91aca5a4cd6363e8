"""Loading a rulebook: every mistake at once with its place, and one hash for one meaning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from config.findings import Finding, Where
from config.load import canonical, from_source, hash_of, load, read_folder
from config.rulebook import Rulebook

DEMO = Path(__file__).parents[3] / "config" / "demo"

SMALL = """\
[[entity]]
id = "one"
name = "One Ltd"
jurisdiction = "CY"
book = 1
currency = "EUR"

[[brand]]
id = "first"
entity = "one"
name = "First"

[[psp]]
id = "acme"
connector = "simpay"
entities = ["one"]
methods = ["card"]
currencies = ["EUR"]
countries = ["*"]
amount_min = "10"
amount_max = "500"
cost_fixed = "0.10"
cost_percent = "1.2"

[[psp]]
id = "bolt"
connector = "simpay"
entities = ["one"]
methods = ["card"]
currencies = ["EUR"]
countries = ["DE"]
amount_min = "10"
amount_max = "500"
cost_fixed = "0"
cost_percent = "2"

[[rule]]
id = "all"
route = ["acme", "bolt"]
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write the named texts as a rulebook's folder."""

    def write_files(**texts: str) -> Path:
        for name, text in texts.items():
            (tmp_path / f"{name}.toml").write_text(text)
        return tmp_path

    return write_files


def loaded(folder: Path) -> Rulebook:
    """The rulebook of a folder that is right."""
    book, findings = load(folder)
    assert [finding.text for finding in findings] == []
    assert book is not None
    return book


def wrong(folder: Path) -> list[Finding]:
    """The findings of a folder that is wrong; the file is named by its last part."""
    book, findings = load(folder)
    assert book is None
    return findings


def said(findings: list[Finding]) -> list[tuple[int, str, str]]:
    """Line, code and key of each."""
    return [(it.where.line, it.code, it.key) for it in findings]


def test_the_demo_broker_is_right() -> None:
    """The sample has two entities, three brands, one server, six groups, four PSPs and rules."""
    book = loaded(DEMO)
    assert [it.id for it in book.entities] == ["fx-eu", "fx-int"]
    assert [it.id for it in book.brands] == ["eastwind", "northgate", "southbank"]
    assert [it.id for it in book.platforms] == ["mt5-live"]
    assert len(book.groups) == 6
    assert [it.id for it in book.psps] == ["acme", "bolt", "coral", "delta"]
    assert book.rules
    assert book.roles


def test_every_demo_time_says_what_production_uses() -> None:
    """Where the sample is quicker than production, a comment gives production's figure."""
    hurried = ("answer_timeout_s", "lease_s", "not_found_grace_s", "walk_limit_s", "settle_time_s")
    lines = [line for file in DEMO.glob("*.toml") for line in file.read_text().splitlines()]
    for key in hurried:
        assert all("# production: " in line for line in lines if line.startswith(f"{key} =")), key


def test_each_value_keeps_its_file_and_line(write: Callable[..., Path]) -> None:
    """A room that dislikes a value can point at it; what is absent is placed at its table."""
    folder = write(broker=SMALL)
    book = loaded(folder)
    file = str(folder / "broker.toml")
    assert book.place("entity[0].book") == Where(file, 5)
    assert book.place("psp[1].cost_percent") == Where(file, 35)
    assert book.place("psp[1].currencies[0]") == Where(file, 30)
    assert book.place("psp[1].countries_blocked[3]") == Where(file, 25)
    assert book.place("rule[0].route[1]") == Where(file, 39)
    assert book.place("routing.lease_s") == Where("")


def test_all_mistakes_are_found_at_once(write: Callable[..., Path]) -> None:
    """Unknown and missing keys, wrong types and bounds, in every table of every file."""
    folder = write(
        a='[[entity]]\nid = "One"\nname = 7\njurisdiction = "CY"\nbook = 0\ncurrency = "EUR"\n',
        b=SMALL.replace("amount_min", "amout_min", 1).replace('"1.2"', "1.2").replace("DE", "de"),
        c='[routing]\nlease_s = "long"\nattempts_max = 0\n[rulez]\n',
    )
    findings = wrong(folder)
    assert [
        (Path(it.where.file).stem, *rest) for it, rest in zip(findings, said(findings), strict=True)
    ] == [
        ("a", 2, "wrong-value", "entity[0].id"),
        ("a", 3, "wrong-type", "entity[0].name"),
        ("a", 5, "wrong-value", "entity[0].book"),
        ("b", 13, "missing-key", "psp[0].amount_min"),
        ("b", 20, "unknown-key", "psp[0].amout_min"),
        ("b", 23, "wrong-type", "psp[0].cost_percent"),
        ("b", 31, "wrong-value", "psp[1].countries[0]"),
        ("c", 2, "wrong-type", "routing.lease_s"),
        ("c", 3, "wrong-value", "routing.attempts_max"),
        ("c", 4, "unknown-key", "rulez"),
    ]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("amount_min", "amout_min", "unknown key `amout_min`, did you mean `amount_min`?"),
        ('"1.2"', "1.2", "expected text, found a number"),
        ('id = "all"', 'id = "All"', "expected a short name of small letters, digits and hyphens"),
        ("book = 1", "book = 40000", "expected a whole number <= 32767"),
        ('methods = ["card"]', "methods = []", "expected a list of length >= 1"),
    ],
)
def test_a_mistake_is_said_in_plain_words(
    write: Callable[..., Path], before: str, after: str, words: str
) -> None:
    """The reader is told what was expected and what stands there, not how it was noticed."""
    text = wrong(write(broker=SMALL.replace(before, after, 1)))
    assert any(words in finding.message for finding in text), text


def test_a_text_that_is_no_toml_is_placed(write: Callable[..., Path]) -> None:
    """A broken file is one finding with its line; the others are still read."""
    findings = wrong(write(broken="a = 1\nb = = 2\n", entity='[[entity]]\nid = "one"\nbok = 1\n'))
    assert said(findings)[0][:2] == (2, "not-toml")
    assert (3, "unknown-key", "entity[0].bok") in said(findings)


@pytest.mark.parametrize("text", ["a = 1\nb = [\n", 'a = """\n'])
def test_a_text_that_ends_too_early_is_a_finding(write: Callable[..., Path], text: str) -> None:
    """An unfinished value is reported like any other mistake of the grammar."""
    assert next(it.code for it in wrong(write(broken=text))) == "not-toml"


def test_a_file_that_is_not_text_is_a_finding(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are reported, not raised."""
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe")
    assert [it.code for it in wrong(tmp_path)] == ["not-utf-8"]


def test_a_folder_without_rules_is_a_finding(tmp_path: Path) -> None:
    """Neither an empty folder nor an absent one is a rulebook."""
    assert [it.code for it in wrong(tmp_path)] == ["no-rulebook"]
    assert [it.code for it in wrong(tmp_path / "absent")] == ["no-rulebook"]


def test_rules_stand_in_one_file(write: Callable[..., Path]) -> None:
    """Their order is their meaning, and files have none."""
    more = '[[rule]]\nid = "more"\nrefuse = "no"\n'
    findings = wrong(write(a=SMALL, b=more))
    assert said(findings) == [(1, "split", "rule")]
    assert "a.toml:37" in findings[0].message


def test_a_table_in_place_of_a_list_is_found_in_any_file(write: Callable[..., Path]) -> None:
    """`[psp]` for `[[psp]]` in the second file is not overlooked because the first is right."""
    findings = wrong(write(a=SMALL, b='[psp]\nid = "x"\n'))
    assert [(it.code, Path(it.where.file).stem) for it in findings] == [("wrong-type", "b")]


def test_the_hash_knows_the_meaning_alone(write: Callable[..., Path], tmp_path: Path) -> None:
    """File names, comments, spacing and the order of tables other than rules change nothing."""
    whole = loaded(write(broker=SMALL))
    (tmp_path / "broker.toml").unlink()
    parts = SMALL.split("\n\n")
    apart = write(
        z="# the entity\n" + parts[0],
        a=parts[3].replace(" = ", "=") + "\n" + parts[2],
        m=parts[4] + "\n" + parts[1],
    )
    assert loaded(apart).hash == whole.hash
    assert loaded(apart).psps == whole.psps


@pytest.mark.parametrize(
    ("before", "after"),
    [('"1.2"', '"1.3"'), ('["acme", "bolt"]', '["bolt", "acme"]'), ("book = 1", "book = 2")],
)
def test_the_hash_changes_with_the_meaning(
    write: Callable[..., Path], before: str, after: str
) -> None:
    """Any value, and the order of a route, is part of what the hash names."""
    first = loaded(write(broker=SMALL)).hash
    assert loaded(write(broker=SMALL.replace(before, after))).hash != first


def test_the_order_of_rules_is_part_of_the_hash(write: Callable[..., Path]) -> None:
    """The first match wins, so two orders are two rulebooks."""
    one, two = '[[rule]]\nid = "a"\nrefuse = "x"\n', '[[rule]]\nid = "b"\nrefuse = "x"\n'
    first = loaded(write(broker=SMALL + one + two)).hash
    assert loaded(write(broker=SMALL + two + one)).hash != first


def test_a_stored_rulebook_reads_back_equal(write: Callable[..., Path]) -> None:
    """The canonical source holds the whole of it, and hashes to its name."""
    book = loaded(write(broker=SMALL))
    again = from_source(book.source)
    assert hash_of(book.source) == book.hash == again.hash
    assert (again.entities, again.psps, again.rules) == (book.entities, book.psps, book.rules)


def test_a_stored_rulebook_of_another_shape_is_refused() -> None:
    """What this version cannot read is an error with the reason, never a guess."""
    with pytest.raises(ValueError, match="unknown key `moon`"):
        from_source(canonical({"moon": 1}))


def test_canonical_text_is_the_same_for_equal_documents() -> None:
    """Keys are sorted, white space absent, letters kept."""
    assert canonical({"b": ["é"], "a": 1}) == '{"a":1,"b":["é"]}'.encode()


def test_reading_a_folder_judges_the_shape_alone(write: Callable[..., Path]) -> None:
    """Who wants the rooms' findings too gets the rulebook before its references are judged."""
    book, findings = read_folder(write(broker=SMALL.replace('["acme", "bolt"]', '["moon"]')))
    assert book is not None
    assert findings == []
