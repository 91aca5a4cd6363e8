"""SQL as a citizen: where it stands, what it touches, how migrations are named.

Knows the text of statements and the names of files. Refuses to open a database: that each statement
prepares against the migrated schema is an integration test.
"""

import ast
import re
from pathlib import Path

from tests.house.tree import PACKAGES, docstring_nodes, files, product, text, tree

SQL = re.compile(
    r"^\s*(SELECT\s.+|INSERT\s+INTO\s|UPDATE\s+\S+\s+SET\s|DELETE\s+FROM\s|WITH\s+\w+.*\sAS\s|"
    r"(CREATE|ALTER|DROP)\s+(TABLE|INDEX|ROLE|SCHEMA|DATABASE|TRIGGER|FUNCTION)\s|TRUNCATE\s|"
    r"GRANT\s|REVOKE\s|LISTEN\s|NOTIFY\s|SET\s+(LOCAL|SESSION)\s)",
    re.DOTALL,
)


def test_sql_stands_in_queries_files_only() -> None:
    """SQL is found in queries.py beside its room and in migrations, nowhere else."""
    places = [
        f"{path}:{node.lineno} {node.value.strip().splitlines()[0][:40]}"
        for path in product()
        if not path.name.startswith("queries")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docstring_nodes(path)
        and SQL.match(node.value)
    ]
    assert not places, f"give the statement a name in the queries.py beside its room: {places}"


def test_a_room_names_only_its_own_schema() -> None:
    """The SQL of a package touches its own schema; across schemas there are ids and checks."""
    schemas = {"gateway", "router", "bridge", "ledger"}
    places = []
    for path in product():
        if not path.name.startswith("queries") or path.parts[0] not in schemas:
            continue
        if path.name == "queries_verify.py":  # the consistency check is the one exception
            continue
        others = "|".join(sorted(schemas - {path.parts[0]}))
        named = re.compile(rf"\b(FROM|JOIN|INTO|UPDATE|TABLE)\s+({others})\.\w+", re.IGNORECASE)
        places += [f"{path}: {match.group(0)}" for match in named.finditer(text(path))]
    assert not places, f"ask the other room for a value instead of its table: {places}"


def constants(path: Path) -> list[str]:
    """The public names of statements that a queries file defines."""
    return [
        target.id
        for node in tree(path).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and target.id.isupper() and not target.id.startswith("_")
    ]


def test_every_statement_is_used() -> None:
    """Each named statement is used by a module: what nobody asks for is removed."""
    used = {path: set(re.findall(r"\b[A-Z][A-Z0-9_]+\b", text(path))) for path in product()}
    unused = [
        f"{path}: {name}"
        for path in product()
        if path.name.startswith("queries")
        for name in constants(path)
        if not any(name in words for other, words in used.items() if other != path)
        and len(re.findall(rf"\b{name}\b", text(path))) == 1
    ]
    assert not unused, f"remove the statements that nobody uses: {unused}"


def migrations() -> list[Path]:
    """Every migration file."""
    return [path for path in files() if path.parts[0] in PACKAGES and path.suffix == ".sql"]


def test_migrations_are_numbered_and_named() -> None:
    """A migration is <package>/migrations/NNNN_noun.sql, and no number is given twice."""
    wrong = [
        str(path)
        for path in migrations()
        if not re.fullmatch(r"\w+/migrations/\d{4}_[a-z0-9_]+\.sql", path.as_posix())
    ]
    numbers = [(path.parts[0], path.name[:4]) for path in migrations()]
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    assert not wrong, f"name it <package>/migrations/NNNN_noun.sql: {wrong}"
    assert not twice, f"take the next free number: {twice}"


def test_a_table_says_who_may_touch_it() -> None:
    """The migration that creates a table grants the daemon what it needs."""
    silent = [
        f"{path}: {table}"
        for path in migrations()
        for table in re.findall(
            r"CREATE TABLE (?:IF NOT EXISTS )?([\w.]+)", text(path), re.IGNORECASE
        )
        if not granted(table, text(path))
    ]
    assert not silent, f"GRANT ... ON the table TO brokerd_daemon in the same migration: {silent}"


def granted(table: str, sql: str) -> bool:
    """Whether a GRANT of this file names the table or its whole schema."""
    schema = table.partition(".")[0]
    grants = re.findall(r"GRANT\b[^;]*;", sql, re.IGNORECASE)
    return any(
        re.search(rf"\b{re.escape(table)}\b", grant)
        or re.search(rf"ALL TABLES IN SCHEMA {schema}\b", grant, re.IGNORECASE)
        for grant in grants
    )


def test_money_columns_are_whole_minor_units() -> None:
    """A column of minor units is bigint, and nothing in the books is a floating point number."""
    floating = re.compile(r"\b(real|double precision|float[48]?|money)\b(?!\.)", re.IGNORECASE)
    places = [
        f"{path}:{number}: {line.strip()}"
        for path in migrations()
        for number, line in enumerate(text(path).splitlines(), start=1)
        if floating.search(line.partition("--")[0]) or minor_not_bigint(line.partition("--")[0])
    ]
    assert not places, f"whole minor units are bigint; ratios are numeric: {places}"


def minor_not_bigint(line: str) -> bool:
    """Whether a line defines a column of minor units with a type that cannot hold the books."""
    column = re.match(r"\s*(\w*minor)\s+(\w+)", line)
    return column is not None and column.group(2).lower() in {
        "integer",
        "int",
        "numeric",
        "smallint",
    }
